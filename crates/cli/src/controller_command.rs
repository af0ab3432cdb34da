//! `portcullis controller`: starts the controller, and stops it when asked to.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use api::name::ObjectName;
use clap::Args;
use controller::{Settings, SourceSettings};
use tokio::signal::unix::{SignalKind, signal};

use crate::connection::ConnectionOptions;
use crate::declared::{self, DeclaredHost};
use crate::ending::{Ending, Result, refused};
use crate::logging::LogOptions;
use crate::status::LISTEN;

const EXAMPLES: &str = "\
Examples:
  portcullis controller --manifests /etc/portcullis/manifests --interfaces eth0,wg0 \\
             --external-interface eth0
                                 this machine, from files, without a cluster
  portcullis controller --kubeconfig admin.conf --host edge-a
                                 this machine, as the Host object edge-a says
  portcullis controller          in a Pod: drives every Host that is reached over SSH

It stops on SIGTERM and SIGINT and leaves the rules in place: what is forwarded stays forwarded.
`portcullis cleanup` removes them.

Pages: /healthz, /readyz, /metrics (OpenMetrics) and /status (JSON) at --listen.";

/// How to run.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct ControllerArguments {
    /// Take objects from this directory, watched, instead of a cluster
    #[arg(long, value_name = "DIR", conflicts_with_all = ["kubeconfig", "context"])]
    manifests: Option<PathBuf>,

    #[command(flatten)]
    connection: ConnectionOptions,

    /// The Host that this machine is; default: this machine's host name
    #[arg(long, value_name = "NAME")]
    host: Option<String>,

    #[command(flatten)]
    declared: DeclaredHost,

    /// Where to serve /healthz, /readyz, /metrics and /status
    #[arg(long, value_name = "ADDRESS:PORT", default_value = LISTEN)]
    listen: SocketAddr,

    /// How often to look at each host although nothing happened, in seconds
    #[arg(long, value_name = "SECONDS", default_value = "60", value_parser = seconds)]
    resync: Duration,

    /// Do not elect a leader among replicas: this is the only one
    #[arg(long)]
    no_leader_election: bool,

    #[command(flatten)]
    log: LogOptions,
}

/// Runs the controller until it is asked to stop.
pub(crate) async fn run(arguments: &ControllerArguments) -> Result {
    arguments.log.start()?;
    let host = match &arguments.host {
        Some(name) => Some(
            name.parse::<ObjectName>()
                .map_err(|error| refused(format!("--host: {error}")))?
                .to_string(),
        ),
        // Not every host name can name an object; then no Host object means this machine.
        None => declared::this_machine()?.parse::<ObjectName>().ok().map(|it| it.to_string()),
    };
    let declared = match &host {
        Some(name) => arguments.declared.host(name)?,
        None if arguments.declared.interfaces.is_empty() => None,
        None => {
            return Err(refused(
                "--interfaces: this machine's host name cannot name a Host; name it with --host",
            ));
        }
    };
    let source = source(arguments.manifests.as_deref(), &arguments.connection).await?;
    let settings = Settings {
        source,
        hosts: declared.into_iter().collect(),
        local_host: host,
        listen: Some(arguments.listen),
        resync: arguments.resync,
        identity: identity(),
        leader_election: !arguments.no_leader_election,
    };
    controller::run(settings, stopped("the rules stay")?).await?;
    Ok(Ending::Done)
}

/// Where objects come from: a directory, or the cluster.
pub(crate) async fn source(
    manifests: Option<&Path>,
    connection: &ConnectionOptions,
) -> Result<SourceSettings> {
    match manifests {
        Some(directory) if !directory.is_dir() => Err(refused(format!(
            "--manifests: {}: there is no such directory; create it or name another",
            directory.display()
        ))),
        Some(directory) => Ok(SourceSettings::Manifests(directory.to_owned())),
        None => {
            let client = connection
                .client()
                .await
                .context("objects come from a cluster unless --manifests names a directory")?;
            Ok(SourceSettings::Kubernetes(client))
        }
    }
}

/// What tells this replica from others: the name of the Pod or the machine, and the process.
pub(crate) fn identity() -> String {
    let name = declared::this_machine().unwrap_or_else(|_| "portcullis".to_owned());
    format!("{name}-{}", std::process::id())
}

/// Ends when the process is asked to stop; `what_follows` is logged then.
///
/// # Errors
///
/// Fails when the system does not let us be asked.
pub(crate) fn stopped(
    what_follows: &'static str,
) -> Result<impl Future<Output = ()> + Send + use<>> {
    let mut terminate = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot listen for SIGINT")?;
    Ok(async move {
        let name = tokio::select! {
            _ = terminate.recv() => "SIGTERM",
            _ = interrupt.recv() => "SIGINT",
        };
        tracing::info!(signal = name, "stopping; {what_follows}");
    })
}

fn seconds(text: &str) -> Result<Duration, String> {
    match text.parse::<u64>() {
        Ok(seconds) if (1..=86_400).contains(&seconds) => Ok(Duration::from_secs(seconds)),
        Ok(_) | Err(_) => Err("expected a number of seconds between 1 and 86400".to_owned()),
    }
}
