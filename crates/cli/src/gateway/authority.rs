//! The cluster authority, where it is kept.
