//! `portcullis status`: what the programs on this machine say about themselves, or what the objects
//! of the cluster say.

pub(crate) mod agent;
pub(crate) mod fetch;
mod gateway;
mod objects;
mod picture;

use std::io::IsTerminal as _;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, bail};
use api::edge_gateway::EdgeGateway;
use api::host::Host;
use clap::Args;
use kube::api::ListParams;
use kube::{Api, Client};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use self::objects::GatewayLine;
use self::picture::{HostLine, Picture};
use crate::arguments::Output;
use crate::connection::ConnectionOptions;
use crate::ending::{Ending, Result};
use crate::{agent_run, print};

/// Where a controller listens unless it is told otherwise.
pub(crate) const LISTEN: &str = "127.0.0.1:9180";

/// Where a gateway does.
const GATEWAY_LISTEN: &str = "127.0.0.1:9464";

const EXAMPLES: &str = "\
Examples:
  portcullis status                     controller, agent and gateway on this machine
  portcullis status --watch             the same, as a live view
  portcullis status --kube              what the Host and EdgeGateway objects of the cluster say
  kubectl port-forward deploy/portcullis-agent -n portcullis-system 9181 & portcullis status

Without --address it asks at 127.0.0.1:9180 (controller), :9181 (agent) and :9464 (gateway).

JSON (-o json): the controller's own document, as at http://ADDRESS/status, with the agent's under
\"agent\" and the gateway's under \"gateway\"; with --address the one document of whoever answers;
with --kube { \"hosts\", \"gateways\" }: lists of { \"name\", \"good\", \"forwards\", \"executor\",
\"state\" } and of { \"name\", \"good\", \"agents\", \"publishedPorts\", \"received\", \"sent\", \"version\",
\"state\" }.";

/// Whom to ask.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct StatusArguments {
    /// The address of one controller, agent or gateway; default: those on this machine
    #[arg(long, value_name = "ADDRESS:PORT", conflicts_with = "kube")]
    address: Option<SocketAddr>,

    /// Read the Host and EdgeGateway objects of the cluster instead
    #[arg(long)]
    kube: bool,

    #[command(flatten)]
    connection: ConnectionOptions,

    /// Show it again every second, until interrupted
    #[arg(long, short = 'w')]
    watch: bool,
}

/// Prints the state once, or again and again.
pub(crate) async fn run(arguments: &StatusArguments, output: Output) -> Result {
    if !arguments.watch {
        show(arguments, output).await?;
        return Ok(Ending::Done);
    }
    let clear = output == Output::Text && std::io::stdout().is_terminal();
    let mut ticks = tokio::time::interval(Duration::from_secs(1));
    let mut interrupted = std::pin::pin!(tokio::signal::ctrl_c());
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            _ = &mut interrupted => return Ok(Ending::Done),
        }
        if clear {
            print::document("\u{1b}[H\u{1b}[2J")?;
        }
        match show(arguments, output).await {
            // A program that restarts comes back; the view stays.
            Err(error) if !print::is_closed(&error) => print::line(format_args!("{error:#}"))?,
            shown => shown?,
        }
    }
}

async fn show(arguments: &StatusArguments, output: Output) -> Result<()> {
    if arguments.kube {
        let client = arguments.connection.client().await?;
        return show_objects(&client, output).await;
    }
    if let Some(address) = arguments.address {
        let document = fetch::get(address, "/status").await.with_context(|| {
            format!(
                "nothing of Portcullis answers at {address}; name another address with --address, \
                 or read the objects of the cluster with --kube"
            )
        })?;
        return match output {
            Output::Json => print::document(&document),
            Output::Text => {
                let document = serde_json::from_str(&document).unwrap_or_default();
                print::line(text(&document)?)
            }
        };
    }
    let (controller, agent, gateway) =
        tokio::join!(ask(LISTEN), ask(agent_run::LISTEN), ask(GATEWAY_LISTEN));
    let found: Vec<_> = [&controller, &agent, &gateway].into_iter().flatten().collect();
    if found.is_empty() {
        bail!(
            "there is no controller at {LISTEN}, no agent at {} and no gateway at \
             {GATEWAY_LISTEN}; name an address with --address, or read the objects of the cluster \
             with --kube",
            agent_run::LISTEN
        );
    }
    match output {
        Output::Text => {
            let texts = found.into_iter().map(text).collect::<Result<Vec<_>>>()?;
            print::line(texts.join("\n\n"))
        }
        Output::Json => {
            let mut all = match controller {
                Some(Value::Object(controller)) => controller,
                Some(_) | None => Map::new(),
            };
            all.extend(agent.map(|it| ("agent".to_owned(), it)));
            all.extend(gateway.map(|it| ("gateway".to_owned(), it)));
            print::json(&all)
        }
    }
}

/// The document of whoever answers on this machine, if it is one of ours.
async fn ask(address: &str) -> Option<Value> {
    let document = fetch::get(address.parse().ok()?, "/status").await.ok()?;
    let document: Value = serde_json::from_str(&document).ok()?;
    text(&document).is_ok().then_some(document)
}

/// A document for people, whose ever it is.
fn text(document: &Value) -> Result<String> {
    fn read<T: DeserializeOwned>(document: &Value) -> Result<T> {
        serde_json::from_value(document.clone()).context("what answered is not Portcullis")
    }
    if document.get("agent").is_some() {
        return Ok(read::<agent::Picture>(document)?.to_string());
    }
    if document.get("clusters").is_some() {
        return Ok(read::<gateway::Picture>(document)?.to_string());
    }
    if document.get("hosts").is_some() {
        let picture: Picture = read::<picture::Snapshot>(document)?.into();
        return Ok(picture.to_string());
    }
    bail!("what answered is not Portcullis")
}

async fn show_objects(client: &Client, output: Output) -> Result<()> {
    let hosts = Api::<Host>::all(client.clone()).list(&ListParams::default()).await;
    let gateways = Api::<EdgeGateway>::all(client.clone()).list(&ListParams::default()).await;
    if is_unknown(&hosts) && is_unknown(&gateways) {
        bail!(
            "the cluster knows neither Hosts nor EdgeGateways; apply what `portcullis install \
             manifests` or `portcullis install agent` prints"
        );
    }
    let hosts = listed(hosts).context("cannot list the Host objects")?;
    let gateways = listed(gateways).context("cannot list the EdgeGateway objects")?;
    let hosts: Vec<_> = hosts.iter().map(HostLine::from).collect();
    let gateways: Vec<_> = gateways.into_iter().map(GatewayLine::from).collect();
    match output {
        Output::Json => print::json(&json!({ "hosts": hosts, "gateways": gateways })),
        Output::Text => {
            let mut lines = Vec::new();
            if !hosts.is_empty() || gateways.is_empty() {
                lines.push(Picture { hosts, ..Picture::default() }.to_string());
            }
            lines.extend(gateways.iter().map(ToString::to_string));
            print::line(lines.join("\n"))
        }
    }
}

type Listed<T> = Result<kube::core::ObjectList<T>, kube::Error>;

/// Whether the cluster does not know the kind: only one half of Portcullis may be installed.
fn is_unknown<T: Clone>(listed: &Listed<T>) -> bool {
    matches!(listed, Err(kube::Error::Api(status)) if status.code == 404)
}

fn listed<T: Clone>(listed: Listed<T>) -> Result<Vec<T>, kube::Error> {
    if is_unknown(&listed) { Ok(Vec::new()) } else { listed.map(|it| it.items) }
}
