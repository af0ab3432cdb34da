//! A real cluster of two nodes: what is written here is written with `kubectl`.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use testkit::Machine;
use testkit::kubernetes::{AddressPlan, Cluster, ClusterOptions};
use testkit::wait::until;

use super::{Noticed, OBJECTS, Place};

const POD: &str = include_str!("../../manifests/cluster/pod.yaml");
const KIND: &str = include_str!("../../../../deploy/crds/hosts.portcullis.dev.yaml");
const ROLE: &str = include_str!("../../../../deploy/rbac/controller.yaml");

/// The account of the shipped role.
const ACCOUNT: &str = "system:serviceaccount:portcullis:portcullis";

const NAMESPACES: [&str; 2] = ["web", "ops"];

/// How long anything may take that takes a moment.
const LIMIT: Duration = Duration::from_secs(60);

/// A cluster, with a machine attached to its nodes' wire as their gateway.
pub(crate) struct Kubernetes {
    cluster: Cluster,
    /// What the controller on the host has: the shipped role.
    kubeconfig: PathBuf,
}

impl Kubernetes {
    /// Starts the cluster, attaches the host and writes all objects.
    pub(crate) fn build(host: &Machine) -> Result<Self> {
        let cluster = Cluster::start(ClusterOptions::default())?;
        let gateway = format!("{}/{}", AddressPlan::GATEWAY, AddressPlan::PREFIX);
        let gateway6 = format!("{}/{}", AddressPlan::GATEWAY6, AddressPlan::PREFIX6);
        cluster.underlay().attach(host, "nodes0", &[&gateway, &gateway6])?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let account = cluster.control_plane().user_on_underlay(ACCOUNT, &[]);
        let kubeconfig = runtime.block_on(account)?.kubeconfig().to_owned();
        let place = Self { cluster, kubeconfig };
        place.apply(&format!("{KIND}\n---\n{ROLE}"))?;
        place.kubectl(&["wait", "--for=condition=Established", "crd/hosts.portcullis.dev"])?;
        for namespace in NAMESPACES {
            place.kubectl(&["create", "namespace", namespace])?;
        }
        for namespace in NAMESPACES {
            let pods = place.nodes().map(|it| POD.replace("NODE", it));
            let pods = pods.join("\n---\n").replace("NAMESPACE", namespace);
            // A new namespace takes no pods before its account is there.
            let account = ["get", "serviceaccount", "default", "-n", namespace];
            until("a new namespace", LIMIT, || place.kubectl(&account).ok())?;
            place.apply(&pods)?;
        }
        for (_, content) in OBJECTS {
            // The source of connections is kept only where a pod runs on the node that is asked.
            let local = "type: NodePort\n  externalTrafficPolicy: Local";
            place.apply(&content.replace("type: NodePort", local))?;
        }
        for namespace in NAMESPACES {
            let ready = ["wait", "--for=condition=Ready", "pod", "--all", "-n", namespace];
            place.kubectl(&ready)?;
        }
        Ok(place)
    }

    fn apply(&self, text: &str) -> Result<String> {
        self.run(&["apply", "--server-side", "-f", "-"], text)
    }

    fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        self.run(arguments, "")
    }

    fn run(&self, arguments: &[&str], input: &str) -> Result<String> {
        let mut command = self.cluster.control_plane().kubectl()?;
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().context("start kubectl")?;
        if let Some(mut stdin) = child.stdin.take() {
            stdin.write_all(input.as_bytes()).context("give kubectl its input")?;
        }
        let output = child.wait_with_output().context("wait for kubectl")?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            bail!("kubectl {}: {}", arguments.join(" "), said.trim());
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    fn shown(&self, arguments: &[&str]) -> Result<(String, String)> {
        Ok((format!("kubectl {}", arguments.join(" ")), self.kubectl(arguments)?))
    }
}

impl Place for Kubernetes {
    fn nodes(&self) -> &'static [&'static str; 2] {
        &["node-1", "node-2"]
    }

    fn sketch(&self) -> [String; 2] {
        let line = |it: &testkit::kubernetes::Node| {
            format!("{:<7} {}, {} (kubelet, pods)", it.name(), it.address(), it.address6())
        };
        let nodes = self.cluster.nodes();
        [line(&nodes[0]), line(&nodes[1])]
    }

    fn source(&self) -> [String; 2] {
        ["--kubeconfig".to_owned(), self.kubeconfig.display().to_string()]
    }

    fn patience(&self) -> Duration {
        LIMIT
    }

    fn annotate_blog(&self, value: &str) -> Result<String> {
        let annotation = format!("portcullis.dev/host-ports={value}");
        let arguments = ["annotate", "--overwrite", "-n", "web", "service", "blog", &annotation];
        self.kubectl(&arguments)?;
        Ok(format!("$ kubectl annotate --overwrite -n web service blog '{annotation}'"))
    }

    fn stop_node(&self) -> Result<Noticed> {
        let begin = Instant::now();
        let node = &self.cluster.nodes()[0];
        node.stop_kubelet()?;
        node.kill_containers()?;
        self.kubectl(&[
            "wait",
            "--for=condition=Ready=Unknown",
            "node",
            node.name(),
            "--timeout=60s",
        ])?;
        Ok(Noticed { who: "Kubernetes noticed", after: begin.elapsed() })
    }

    fn start_node(&self) -> Result<()> {
        let node = &self.cluster.nodes()[0];
        node.start_kubelet(self.cluster.control_plane())?;
        self.kubectl(&["wait", "--for=condition=Ready", "node", node.name(), "--timeout=60s"])?;
        Ok(())
    }

    fn told(&self, about: &str) -> Result<Vec<(String, String)>> {
        let events =
            "custom-columns=TYPE:.type,REASON:.reason,OBJECT:.involvedObject.name,MESSAGE:.message";
        let conditions = "jsonpath={range .status.conditions[*]}{.type}={.status} {.reason}: {.message}{\"\\n\"}{end}";
        let about_blog = "--field-selector=involvedObject.kind=Service,involvedObject.name=blog";
        let told = [
            self.shown(&["get", "events", "-n", "web", about_blog, "-o", events])?,
            self.shown(&["get", "service", "-n", "web", "blog", "-o", conditions])?,
        ];
        let everywhere = told.iter().all(|(_, said)| said.contains(about));
        Ok(if everywhere { told.to_vec() } else { Vec::new() })
    }

    fn sights(&self) -> Result<Vec<(String, String)>> {
        Ok(vec![
            self.shown(&["get", "hosts"])?,
            self.shown(&["get", "lease", "-n", "portcullis"])?,
            self.shown(&["get", "services", "-n", "web"])?,
        ])
    }

    fn look_around(&self) -> String {
        let plane = self.cluster.control_plane();
        let kubectl = plane.kubectl().map(|it| PathBuf::from(it.get_program()));
        let kubectl = kubectl.unwrap_or_else(|_| "kubectl".into());
        let mut text = format!(
            "  The cluster:\n    export KUBECONFIG={}\n    alias kubectl={}\n    kubectl get nodes,hosts,services -A\n  Its logs: {}\n",
            plane.admin().kubeconfig().display(),
            kubectl.display(),
            plane.directory().display(),
        );
        for node in self.cluster.nodes() {
            let enter =
                format!("nsenter --target {} --net --mount --pid --cgroup", node.holder().pid());
            text += &format!("  {:<9} {enter}\n", node.name());
        }
        text
    }
}
