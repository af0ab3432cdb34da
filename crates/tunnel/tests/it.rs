//! Carriers on real sockets.

#[path = "it/carrier.rs"]
mod carrier;
#[path = "it/ssh.rs"]
mod ssh;
#[path = "it/stage.rs"]
mod stage;
