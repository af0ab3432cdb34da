//! Where the suite runs: a cluster behind a router, a gateway and a visitor on the internet.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context as _, bail};
use testkit::internet::{Internet, public};
use testkit::kubernetes::{AddressPlan, Cluster, ClusterOptions, ConformanceSuite};
use testkit::{Lab, Machine};

/// The last numbers of the addresses that the gateway offers. Many, because some thirty Gateways of
/// the suite want the same ports at the same time.
const OFFERED: std::ops::RangeInclusive<u8> = 64..=127;
/// An address on the same wire that is nobody's.
const NOBODYS: u8 = 200;

/// The cluster and the machines around it.
pub(crate) struct Stage {
    pub(crate) cluster: Cluster,
    pub(crate) internet: Internet,
    pub(crate) gateway: Machine,
    kubeconfig: PathBuf,
}

impl Stage {
    /// Builds everything but Portcullis.
    pub(crate) fn build(suite: &ConformanceSuite) -> anyhow::Result<Self> {
        let internet = Internet::build(Lab::as_root("conformance")?)?;
        let gateway = internet.public("g1", 1)?;
        for number in OFFERED {
            gateway.add_address("wan0", &format!("{}/24", public(number)))?;
        }
        let cluster = Cluster::start(ClusterOptions::default())?;
        // The nodes' way out is the router, which lets nobody in: everything is dialled from within.
        let way_out = format!("{}/{}", AddressPlan::GATEWAY, AddressPlan::PREFIX);
        let way_out6 = format!("{}/{}", AddressPlan::GATEWAY6, AddressPlan::PREFIX6);
        cluster.underlay().attach(&internet.router, "nodes0", &[&way_out, &way_out6])?;
        for number in (1..).take(cluster.nodes().len()) {
            let (node, node6) = (AddressPlan::node(number), AddressPlan::node6(number));
            internet.router.route(&AddressPlan::pods(number), &node.to_string())?;
            internet.router.route(&AddressPlan::pods6(number), &node6.to_string())?;
        }
        // The suite talks to the API server and dials gateways, and nothing else.
        let own = format!("10.200.0.100/{}", AddressPlan::PREFIX);
        cluster.underlay().attach(&internet.visitor, "api0", &[&own])?;
        for image in suite.images() {
            cluster.load_image(&image)?;
        }
        cluster.control_plane().define_gateway_api()?;
        let mut stage = Self { cluster, internet, gateway, kubeconfig: PathBuf::new() };
        stage.kubeconfig = stage.account("conformance", &["cluster-admin"])?;
        Ok(stage)
    }

    /// Where the suite runs.
    pub(crate) fn visitor(&self) -> &Machine {
        &self.internet.visitor
    }

    /// For the suite.
    pub(crate) fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// The addresses that the gateway offers.
    pub(crate) fn offered(&self) -> impl Iterator<Item = std::net::Ipv4Addr> {
        OFFERED.map(public)
    }

    /// One that a Gateway may ask for.
    pub(crate) fn usable(&self) -> std::net::Ipv4Addr {
        public(*OFFERED.end())
    }

    /// One that a Gateway may ask for in vain.
    pub(crate) fn unusable(&self) -> std::net::Ipv4Addr {
        public(NOBODYS)
    }

    /// A kubeconfig for a user with these roles, for machines and nodes of the stage.
    pub(crate) fn account(&self, name: &str, roles: &[&str]) -> anyhow::Result<PathBuf> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let account = self.cluster.control_plane().user_on_underlay(name, roles);
        Ok(runtime.block_on(account)?.kubeconfig().to_owned())
    }

    /// Applies YAML as whoever may do everything.
    pub(crate) fn apply(&self, text: &str) -> anyhow::Result<String> {
        let arguments = ["apply", "--server-side", "--force-conflicts", "-f", "-"];
        self.kubectl_with(&arguments, text)
    }

    /// Runs `kubectl` as whoever may do everything.
    pub(crate) fn kubectl(&self, arguments: &[&str]) -> anyhow::Result<String> {
        self.kubectl_with(arguments, "")
    }

    fn kubectl_with(&self, arguments: &[&str], input: &str) -> anyhow::Result<String> {
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
}
