//! A real Kubernetes for tests: a control plane alone, or a cluster with two nodes and real pods.
//!
//! What is here: [`ControlPlane`] (etcd, kube-apiserver, kube-controller-manager, TLS and RBAC
//! on, ready in seconds, no root needed) and [`Cluster`] (the same plus a scheduler and nodes
//! with kubelet, containerd, runc and kube-proxy; needs root). The programs come from
//! `scripts/setup kubernetes images`.
//!
//! Everything ends with the process that started it, whether it returns, panics or is killed:
//! daemons are bound to it by the kernel, and what lies on the disk is removed by a sweeper that
//! outlives it. Nothing is shared between two test processes: ports are chosen at run time, and
//! a cluster lives in network namespaces of its own.
//!
//! Deliberately not here: lab machines and probes (a [`Cluster`] is attached to them by
//! [`Underlay::attach`]), and anything that knows what Portcullis does.

mod account;
mod certificates;
mod cluster;
mod control_groups;
mod control_plane;
mod daemon;
mod deadline;
mod gateway_api;
mod image;
mod manifest;
mod namespace;
mod node;
mod programs;
mod relay;
mod underlay;
mod workspace;

pub use account::Access;
pub use cluster::{Cluster, ClusterOptions, ECHO_IMAGE};
pub use control_plane::{ControlPlane, ControlPlaneOptions};
pub use gateway_api::ConformanceSuite;
pub use image::pack_image;
pub use namespace::Holder;
pub use node::Node;
pub use underlay::{AddressPlan, Underlay};
