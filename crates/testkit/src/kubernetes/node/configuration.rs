//! What the programs of a node are told, with the reason for each line that is not self-evident.

use std::path::Path;

use serde_json::json;

use super::Node;
use crate::kubernetes::control_groups::ControlGroups;
use crate::kubernetes::control_plane::ControlPlane;
use crate::kubernetes::programs::Programs;
use crate::kubernetes::underlay::AddressPlan;

impl Node {
    pub(super) fn write_configuration(
        &self,
        control_plane: &ControlPlane,
        groups: &ControlGroups,
    ) -> anyhow::Result<()> {
        let write = |name: &str, text: String| {
            control_plane.workspace().write(&format!("{}/{name}", self.name), text)
        };
        write("containerd.toml", self.containerd_configuration()?)?;
        write("cni/10-testbed.conflist", format!("{:#}\n", self.network_configuration()))?;
        // Pods of the node's own network ask nobody: names are the business of whoever brings a DNS server.
        write("resolv.conf", "nameserver 10.202.0.10\n".to_owned())?;
        let kubelet = json!({
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "authentication": { "x509": { "clientCAFile": control_plane.authority_file() }, "anonymous": { "enabled": false } },
            "containerRuntimeEndpoint": format!("unix://{}", self.socket().display()),
            "clusterDNS": ["10.202.0.10"],
            "clusterDomain": "cluster.local",
            "resolvConf": self.directory.join("resolv.conf"),
            "podLogsDir": self.directory.join("pod-logs"),
            // Control groups of version 1, without the kubelet's own tree of them.
            "cgroupDriver": "cgroupfs",
            "cgroupRoot": format!("/{}", groups.name_of(self.number)),
            "cgroupsPerQOS": false,
            "enforceNodeAllocatable": [],
            "failCgroupV1": false,
            "failSwapOn": false,
            // Images are imported and never pulled; the disk is the tester's.
            "imagePullCredentialsVerificationPolicy": "NeverVerify",
            "imageGCHighThresholdPercent": 100,
            "localStorageCapacityIsolation": false,
            "evictionHard": { "memory.available": "1Mi", "nodefs.available": "1Mi", "imagefs.available": "1Mi", "nodefs.inodesFree": "1" },
            // Tests wait for these. The lease is renewed every quarter of its time: five times within the grace period
            // that the controller-manager gives.
            "nodeLeaseDurationSeconds": 8,
            "nodeStatusUpdateFrequency": "2s",
            "syncFrequency": "5s",
            "registerNode": true,
        });
        write("kubelet.json", format!("{kubelet:#}\n"))?;
        let access = control_plane.certified_inside(
            &format!("kube-proxy-{}", self.name),
            "system:kube-proxy",
            &[],
        )?;
        let kube_proxy = json!({
            "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
            "kind": "KubeProxyConfiguration",
            "clientConnection": { "kubeconfig": access.kubeconfig() },
            "mode": "nftables",
            "clusterCIDR": "10.201.0.0/16,fd00:201::/48",
            "hostnameOverride": self.name,
            // A namespace may not set the machine's connection tracking.
            "conntrack": { "maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s" },
            "nftables": { "minSyncPeriod": "0s" },
        });
        write("kube-proxy.json", format!("{kube_proxy:#}\n"))?;
        Ok(())
    }

    fn containerd_configuration(&self) -> anyhow::Result<String> {
        let programs = Programs::find()?;
        let runc = crate::requirement::program("runc", "runc")?;
        // A TOML string of this form takes what a JSON string takes.
        let quoted = |it: &Path| json!(it).to_string();
        Ok(format!(
            r#"version = 3
root = {root}
state = "/run/containerd"
disabled_plugins = ["io.containerd.nri.v1.nri", "io.containerd.tracing.processor.v1.otlp"]

[grpc]
address = {socket}

[plugins."io.containerd.cri.v1.images".pinned_images]
sandbox = "localhost/pause:1"

[plugins."io.containerd.cri.v1.runtime"]
# Without CAP_SYS_RESOURCE a negative oom_score_adj is refused, and runc dies of it.
restrict_oom_score_adj = true

[plugins."io.containerd.cri.v1.runtime".cni]
bin_dirs = [{bin}]
conf_dir = {conf}

[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"

[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc.options]
BinaryName = {runc}
SystemdCgroup = false
"#,
            root = quoted(&self.directory.join("containerd")),
            socket = quoted(&self.socket()),
            bin = quoted(programs.cni_directory()),
            conf = quoted(&self.directory.join("cni")),
            runc = quoted(&runc),
        ))
    }

    /// Pods on a bridge; nobody's address is rewritten on the way out, so that tests see true sources.
    fn network_configuration(&self) -> serde_json::Value {
        json!({
            "cniVersion": "1.0.0",
            "name": "testbed",
            "plugins": [{
                "type": "bridge",
                "bridge": "pods",
                "isGateway": true,
                "ipMasq": false,
                // A pod that calls its own Service gets its own packet back.
                "hairpinMode": true,
                "ipam": {
                    "type": "host-local",
                    "dataDir": self.directory.join("leases"),
                    "ranges": [
                        [{ "subnet": AddressPlan::pods(self.number) }],
                        [{ "subnet": AddressPlan::pods6(self.number) }],
                    ],
                    "routes": [{ "dst": "0.0.0.0/0" }, { "dst": "::/0" }],
                },
            }],
        })
    }
}
