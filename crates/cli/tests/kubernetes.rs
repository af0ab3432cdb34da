//! Jobs 1 and 2 on a real Kubernetes: API server, kubelets, pods, the program on a host before them,
//! a gateway before that host and agents in pods.
//!
//! The controller has exactly the role of `deploy/rbac/controller.yaml`, and every test checks that
//! nothing was forbidden to it. Tests carry the acceptance id that they hold. All share one
//! cluster and take turns; what one leaves behind, the next would notice.

#[path = "kubernetes/election.rs"]
mod election;
#[path = "kubernetes/forwarding.rs"]
mod forwarding;
#[path = "kubernetes/gateways.rs"]
mod gateways;
#[path = "kubernetes/objects.rs"]
mod objects;
#[path = "kubernetes/outages.rs"]
mod outages;
#[path = "kubernetes/publishing.rs"]
mod publishing;
#[path = "kubernetes/reports.rs"]
mod reports;
#[path = "kubernetes/scene.rs"]
mod scene;
#[path = "kubernetes/stage.rs"]
mod stage;
#[path = "kubernetes/windows.rs"]
mod windows;
