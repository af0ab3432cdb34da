//! Job 2 from the outside: gateways on the internet, agents behind a router that lets nobody in,
//! visitors with real connections.
//!
//! Tests carry the acceptance id that they hold (`wb04_…`). What needs a real Kubernetes is in
//! `kubernetes.rs`.

#[path = "publish/addresses.rs"]
mod addresses;
#[path = "publish/certificates.rs"]
mod certificates;
#[path = "publish/crowd.rs"]
mod crowd;
#[path = "publish/death.rs"]
mod death;
#[path = "publish/forwarder.rs"]
mod forwarder;
#[path = "publish/hostile.rs"]
mod hostile;
#[path = "publish/limits.rs"]
mod limits;
#[path = "publish/load.rs"]
mod load;
#[path = "publish/many.rs"]
mod many;
#[path = "publish/names.rs"]
mod names;
#[path = "publish/objects.rs"]
mod objects;
#[path = "publish/openssh.rs"]
mod openssh;
#[path = "publish/place.rs"]
mod place;
#[path = "publish/publishing.rs"]
mod publishing;
#[path = "publish/quota.rs"]
mod quota;
#[path = "publish/reachable.rs"]
mod reachable;
#[path = "publish/sockets.rs"]
mod sockets;
#[path = "publish/systemd.rs"]
mod systemd;
#[path = "publish/trust.rs"]
mod trust;
#[path = "publish/upgrades.rs"]
mod upgrades;
#[path = "publish/watched.rs"]
mod watched;
#[path = "publish/windows.rs"]
mod windows;
