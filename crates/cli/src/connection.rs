//! How to reach the Kubernetes API.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::Args;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};

use crate::ending::{Result, refused};

/// How to reach the Kubernetes API.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct ConnectionOptions {
    /// The kubeconfig file; default: $KUBECONFIG, ~/.kube/config, or the Pod's own account
    #[arg(long, value_name = "FILE")]
    pub(crate) kubeconfig: Option<PathBuf>,

    /// The context in the kubeconfig
    #[arg(long, value_name = "NAME")]
    pub(crate) context: Option<String>,
}

impl ConnectionOptions {
    /// Returns a client. The cluster itself is not asked anything yet.
    pub(crate) async fn client(&self) -> Result<Client> {
        let options =
            KubeConfigOptions { context: self.context.clone(), ..KubeConfigOptions::default() };
        let config = match &self.kubeconfig {
            Some(file) => {
                let kubeconfig = Kubeconfig::read_from(file).map_err(|error| {
                    refused(format!(
                        "--kubeconfig: {}: {}; name a readable kubeconfig",
                        file.display(),
                        chain(&error)
                    ))
                })?;
                Config::from_custom_kubeconfig(kubeconfig, &options).await.map_err(|error| {
                    refused(format!("--kubeconfig: {}: {}", file.display(), chain(&error)))
                })?
            }
            None if self.context.is_some() => Config::from_kubeconfig(&options)
                .await
                .map_err(|error| refused(format!("--context: {}", chain(&error))))?,
            None => Config::infer().await.context("there is no way to a cluster")?,
        };
        Client::try_from(config).context("cannot prepare the connection to the cluster")
    }
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}
