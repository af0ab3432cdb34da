//! The systemd unit of a controller that runs on the host itself.

use clap::Args;

use super::{Document, plain_path, replace};
use crate::ending::Result;

/// Checked in, so that it can be read and used without the program.
const UNIT: &str = include_str!("../../../../deploy/systemd/portcullis.service");

const PROGRAM: &str = "/usr/local/bin/portcullis";
const MANIFESTS: &str = "Environment=PORTCULLIS_ARGUMENTS=--manifests=/etc/portcullis/manifests\n";
const CREDENTIAL: &str = "#LoadCredential=kubeconfig:/etc/portcullis/kubeconfig\n";

/// What the unit should start.
#[derive(Args, Debug)]
pub(crate) struct SystemdArguments {
    /// Where the program is
    #[arg(long, value_name = "PATH", default_value = PROGRAM, value_parser = plain_path)]
    program: String,

    /// Take objects from this directory of manifests
    #[arg(long, value_name = "DIR", value_parser = plain_path, conflicts_with = "kubeconfig")]
    manifests: Option<String>,

    /// Take objects from the cluster that this kubeconfig leads to
    #[arg(long, value_name = "FILE", value_parser = plain_path)]
    kubeconfig: Option<String>,
}

/// Returns the unit.
pub(super) fn document(arguments: &SystemdArguments) -> Result<Document> {
    let mut unit = replace(UNIT, PROGRAM, &arguments.program)?;
    if let Some(directory) = &arguments.manifests {
        unit = replace(&unit, "/etc/portcullis/manifests", directory)?;
    }
    if let Some(file) = &arguments.kubeconfig {
        // The service's own account cannot read a secret file; systemd hands it a copy.
        let credential = format!("LoadCredential=kubeconfig:{file}\n");
        unit = replace(&unit, CREDENTIAL, &credential)?;
        let from_cluster = "Environment=PORTCULLIS_ARGUMENTS=--kubeconfig=%d/kubeconfig\n";
        unit = replace(&unit, MANIFESTS, from_cluster)?;
    }
    Ok(Document {
        kind: "systemd",
        place: "/etc/systemd/system/portcullis.service".to_owned(),
        text: unit,
        steps: vec![
            "save it as /etc/systemd/system/portcullis.service".to_owned(),
            "put further options, such as --interfaces=eth0, into /etc/portcullis/controller.env \
             as PORTCULLIS_OPTIONS=..."
                .to_owned(),
            "systemctl daemon-reload && systemctl enable --now portcullis".to_owned(),
            "stopping the service leaves the rules; `portcullis cleanup` removes them".to_owned(),
        ],
    })
}
