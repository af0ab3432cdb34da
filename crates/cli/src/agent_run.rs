//! `portcullis agent`: starts the cluster side of tunnels, and says how it does.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use agent::{AuthoritySource, Settings, SourceSettings};
use anyhow::Context as _;
use clap::{Args, Subcommand};

use crate::arguments::Output;
use crate::connection::ConnectionOptions;
use crate::controller_command::stopped;
use crate::declared;
use crate::ending::{Ending, Result, refused};
use crate::logging::LogOptions;
use crate::print;
use crate::status::agent::Picture;
use crate::status::fetch;

/// Where an agent listens unless it is told otherwise.
pub(crate) const LISTEN: &str = "127.0.0.1:9181";

const EXAMPLES: &str = "\
Examples:
  portcullis agent               in a Pod: as the cluster's objects say
  portcullis agent --manifests /etc/portcullis/manifests --ca-dir /etc/portcullis/authority
                                 without a cluster, as files say
  portcullis agent status        links, round-trip times, published ports, bytes

It dials every EdgeGateway, tells it what to publish, and answers its visitors. On SIGTERM and
SIGINT it takes no new visitors and gives those who are there --drain seconds.

Pages: /healthz, /readyz, /metrics (OpenMetrics) and /status (JSON) at --listen.";

/// How to run, or what to ask.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES, args_conflicts_with_subcommands = true)]
pub(crate) struct AgentArguments {
    #[command(subcommand)]
    question: Option<Question>,

    #[command(flatten)]
    run: RunArguments,
}

#[derive(Debug, Subcommand)]
enum Question {
    /// Show what a running agent does
    Status(StatusArguments),
}

/// Whom to ask.
#[derive(Args, Debug)]
struct StatusArguments {
    /// The address of the agent
    #[arg(long, value_name = "ADDRESS:PORT", default_value = LISTEN)]
    address: SocketAddr,
}

/// How to run.
#[derive(Args, Debug)]
struct RunArguments {
    /// Take objects from this directory, watched, instead of a cluster
    #[arg(
        long,
        value_name = "DIR",
        requires = "ca_dir",
        conflicts_with_all = ["kubeconfig", "context"]
    )]
    manifests: Option<PathBuf>,

    /// The directory with the cluster's authority, as `gateway create --ca-dir` makes it; without it
    /// a Secret in the namespace portcullis-system
    #[arg(long, value_name = "DIR")]
    ca_dir: Option<PathBuf>,

    #[command(flatten)]
    connection: ConnectionOptions,

    /// The agent's name, which no other agent of the cluster may have; default: the host name, which
    /// in a Pod is the Pod's
    #[arg(long, value_name = "NAME", env = "POD_NAME")]
    name: Option<String>,

    /// The node that the agent runs on
    #[arg(long, value_name = "NAME", env = "NODE_NAME")]
    node: Option<String>,

    /// The cluster's name, checked against its authority
    #[arg(long, value_name = "NAME")]
    cluster: Option<String>,

    /// Where to serve /healthz, /readyz, /metrics and /status
    #[arg(long, value_name = "ADDRESS:PORT", default_value = LISTEN)]
    listen: SocketAddr,

    /// How long visitors who are there may stay after the agent was asked to stop, in seconds
    #[arg(long, value_name = "SECONDS", default_value = "30", value_parser = seconds)]
    drain: Duration,

    /// Write statuses without an election: this is the only agent
    #[arg(long)]
    no_leader_election: bool,

    /// Let Services lead to programs on this machine's own 127.0.0.1 (portcullis.dev/target: host).
    /// Whoever may annotate a Service can then publish whatever listens there
    #[arg(long)]
    allow_host_target: bool,

    #[command(flatten)]
    log: LogOptions,
}

/// Runs the agent until it is asked to stop, or asks one how it does.
pub(crate) async fn run(arguments: &AgentArguments, output: Output) -> Result {
    match &arguments.question {
        Some(Question::Status(it)) => status(it, output).await,
        None => start(&arguments.run).await,
    }
}

async fn start(arguments: &RunArguments) -> Result {
    arguments.log.start()?;
    let name = match &arguments.name {
        Some(name) => name.clone(),
        // Host names may have upper case letters; names in certificates do not.
        None => declared::this_machine()?.to_lowercase(),
    };
    let source = match &arguments.manifests {
        Some(directory) if !directory.is_dir() => {
            return Err(refused(format!(
                "--manifests: {}: there is no such directory; create it or name another",
                directory.display()
            )));
        }
        Some(directory) => SourceSettings::Manifests(directory.clone()),
        None => {
            let client = arguments.connection.client().await;
            let client = client
                .context("objects come from a cluster unless --manifests names a directory")?;
            SourceSettings::Kubernetes(client)
        }
    };
    let authority = match (&arguments.ca_dir, &source) {
        (Some(directory), _) => AuthoritySource::Directory(directory.clone()),
        (None, SourceSettings::Kubernetes(client)) => AuthoritySource::Secret(client.clone()),
        (None, SourceSettings::Manifests(_)) => {
            return Err(refused("--ca-dir: is needed with --manifests; name the directory"));
        }
    };
    let settings = Settings {
        source,
        name,
        node: arguments.node.clone().filter(|it| !it.is_empty()),
        cluster: arguments.cluster.clone(),
        authority,
        listen: Some(arguments.listen),
        drain: arguments.drain,
        leader_election: !arguments.no_leader_election,
        host_targets: arguments.allow_host_target,
    };
    agent::run(settings, stopped("visitors who are there may stay for a while")?).await?;
    Ok(Ending::Done)
}

async fn status(arguments: &StatusArguments, output: Output) -> Result {
    let document = fetch::get(arguments.address, "/status").await.with_context(|| {
        format!("there is no agent at {}; name its address with --address", arguments.address)
    })?;
    match output {
        Output::Json => print::document(&document)?,
        Output::Text => {
            let picture: Picture =
                serde_json::from_str(&document).context("what answered is no Portcullis agent")?;
            print::line(picture)?;
        }
    }
    Ok(Ending::Done)
}

fn seconds(text: &str) -> Result<Duration, String> {
    match text.parse::<u64>() {
        Ok(seconds) if seconds <= 86_400 => Ok(Duration::from_secs(seconds)),
        Ok(_) | Err(_) => Err("expected a number of seconds between 0 and 86400".to_owned()),
    }
}
