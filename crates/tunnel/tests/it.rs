//! Carriers on real sockets.

#[path = "it/carrier.rs"]
mod carrier;
#[path = "it/stage.rs"]
mod stage;
