//! Hosts and EdgeGateways, read by us and by a real API server, and the corpora of the fuzz targets.

#[path = "it/api_server.rs"]
mod api_server;
#[path = "it/corpus.rs"]
mod corpus;
#[path = "it/edge_gateway.rs"]
mod edge_gateway;
#[path = "it/host.rs"]
mod host;
#[path = "it/refusals.rs"]
mod refusals;
