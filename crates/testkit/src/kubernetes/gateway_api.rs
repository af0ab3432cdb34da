//! The Gateway API: its kinds, and the official suite that says who conforms to it.

use std::path::PathBuf;

use anyhow::Context as _;

use super::control_plane::ControlPlane;
use super::daemon::run;
use super::programs::places;
use crate::Missing;

impl ControlPlane {
    /// Defines the kinds of the Gateway API's standard channel, and returns when they are served.
    ///
    /// # Errors
    ///
    /// [`Missing`] when `scripts/setup gateway` has not been run, otherwise what `kubectl` said.
    pub fn define_gateway_api(&self) -> anyhow::Result<()> {
        let definitions = definitions()?;
        let mut apply = self.kubectl()?;
        apply.args(["apply", "--server-side", "--force-conflicts", "--filename"]).arg(&definitions);
        run(&mut apply)?;
        let mut wait = self.kubectl()?;
        wait.args(["wait", "--for=condition=Established", "--timeout=60s", "--filename"]);
        // The definitions come with an admission policy, which has no such condition.
        let kinds = std::fs::read_to_string(&definitions).context("cannot read the definitions")?;
        let kinds =
            kinds.split("\n---\n").filter(|it| it.contains("kind: CustomResourceDefinition"));
        let only_kinds = self.directory().join("gateway-api.yaml");
        std::fs::write(&only_kinds, kinds.collect::<Vec<_>>().join("\n---\n"))
            .context("cannot write the definitions")?;
        run(wait.arg(only_kinds)).map(|_| ())
    }
}

fn definitions() -> Result<PathBuf, Missing> {
    let place = places("the Gateway API", &["gateway"])?.remove("gateway-api");
    place.map(|it| it.join("standard.yaml")).ok_or_else(|| {
        Missing::new("scripts/setup where names no `gateway-api`", "repair scripts/setup")
    })
}

/// The official conformance suite as a program, and the images that its pods ask for.
#[derive(Clone, Debug)]
pub struct ConformanceSuite {
    directory: PathBuf,
}

impl ConformanceSuite {
    /// Asks `scripts/setup` for it.
    ///
    /// # Errors
    ///
    /// Says what to run first.
    pub fn find() -> Result<Self, Missing> {
        let place = places("the Gateway API's suite", &["conformance"])?.remove("conformance");
        place.map(|directory| Self { directory }).ok_or_else(|| {
            Missing::new("scripts/setup where names no `conformance`", "repair scripts/setup")
        })
    }

    /// The suite: a Go test program with one test, `TestConformance`.
    #[must_use]
    pub fn program(&self) -> PathBuf {
        self.directory.join("conformance.test")
    }

    /// Archives for [`Cluster::load_image`](super::Cluster::load_image), under the names that the
    /// suite's manifests have.
    #[must_use]
    pub fn images(&self) -> [PathBuf; 2] {
        ["echo-basic.tar", "coredns.tar"].map(|it| self.directory.join(it))
    }
}
