//! The corpora of the fuzz targets.

#[path = "it/corpus.rs"]
mod corpus;
