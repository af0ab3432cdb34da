//! The test bed's own tests, with real namespaces and packets.

#[path = "it/internet.rs"]
mod internet;
#[path = "it/kubernetes.rs"]
mod kubernetes;
#[path = "it/labs.rs"]
mod labs;
#[path = "it/packet_tables.rs"]
mod packet_tables;
#[path = "it/probes.rs"]
mod probes;
#[path = "it/settings.rs"]
mod settings;
#[path = "it/skips.rs"]
mod skips;
#[path = "it/ssh.rs"]
mod ssh;
