//! `portcullis gateway create`: declares a gateway and prints what its machine starts with.

mod objects;

use std::fmt::Write as _;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use api::edge_gateway::{AddressSpec, EdgeGateway, EdgeGatewaySpec, EndpointSpec};
use clap::Args;
use gateway::config::{ClusterConfig, Config, Grant, GrantedPorts, Sha256, TUNNEL_PORT};
use kube::ResourceExt as _;
use serde::Serialize;
use tunnel::trust::OneTimeSecret;

use super::authority::{Keeper, KeeperOptions};
use crate::arguments::Output;
use crate::ending::{Ending, Result, refused};
use crate::install::gateway::{Format, MachineOptions, Provision};
use crate::print;

const HELP: &str = "\
Examples:
  portcullis gateway create fra1 --endpoint gw.example.com \\
      --program-url https://example.com/portcullis-gateway --program-sha256 DIGEST > user-data
                                   the user data of a machine that boots with cloud-init
  portcullis gateway create fra1 --endpoint gw.example.com --format terraform-hetzner > fra1.tf
                                   machine, firewall, addresses and DNS records as well
  portcullis gateway create spot1 --endpoint spot.example.com --redemptions 100 --valid-for 365d
                                   a machine that its provider replaces: each new one is adopted
  portcullis gateway create g1 --endpoint 192.0.2.1 --cluster home --manifests DIR --ca-dir DIR
                                   without a cluster, from files

What is printed holds no lasting secret: the pin of the cluster's authority and the hash of a one-time
secret. The secret itself stays in the cluster. Run it again for a gateway that was not adopted in
time: the object stays, the secret is new.

JSON (-o json): { \"name\", \"cluster\", \"pin\", \"secretHash\", \"expires\", \"redemptions\", \"document\" }.";

/// Which gateway.
#[derive(Args, Debug)]
#[command(after_help = HELP)]
pub(crate) struct CreateArguments {
    /// The name of the gateway and of its EdgeGateway object
    name: String,

    /// Where agents dial it: a name or an address, with or without a port; several are several ways
    /// to the same machine
    #[arg(long, value_name = "HOST[:PORT]", required = true, value_parser = endpoint)]
    endpoint: Vec<EndpointSpec>,

    /// An address of the machine to publish on, and what to announce instead of it when something
    /// before the machine translates; default: every address that it has
    #[arg(long, value_name = "IP[=PUBLIC]", value_parser = address)]
    address: Vec<AddressSpec>,

    /// What this cluster may publish there, as the machine itself sees to; default: every port
    #[arg(long, value_name = "PORTS", value_delimiter = ',')]
    ports: Vec<GrantedPorts>,

    /// The name of the cluster, when its authority is made
    #[arg(long, value_name = "NAME")]
    cluster: Option<String>,

    /// How long the one-time secret counts: 90s, 15m, 24h, 30d
    #[arg(long, value_name = "TIME", default_value = "15m", value_parser = span)]
    valid_for: Duration,

    /// How many machines may be adopted with it, one after the other
    #[arg(long, value_name = "COUNT", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    redemptions: u32,

    /// What to print
    #[arg(long, value_name = "FORM", default_value = "cloud-init")]
    format: Format,

    #[command(flatten)]
    machine: MachineOptions,

    #[command(flatten)]
    keeper: KeeperOptions,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Created {
    name: String,
    cluster: String,
    pin: String,
    secret_hash: String,
    expires: String,
    redemptions: u32,
    document: String,
}

/// Declares it and prints.
pub(crate) async fn run(arguments: &CreateArguments, output: Output) -> Result {
    let mut object = object(arguments);
    check(&object)?;
    let keeper = arguments.keeper.keeper().await?;
    if let Keeper::Cluster(client) = &keeper {
        objects::must_be_known(client).await?;
    }
    let now = SystemTime::now();
    let authorities = keeper.load_or_create(arguments.cluster.as_deref()).await?;
    let expires = now + arguments.valid_for;
    let secret = OneTimeSecret::generate()?;

    let config = Config {
        listen: vec![(std::net::Ipv6Addr::UNSPECIFIED, port(arguments)?).into()],
        addresses: arguments.address.iter().filter_map(|it| it.address.parse().ok()).collect(),
        clusters: vec![ClusterConfig {
            name: authorities.cluster().parse().map_err(refused)?,
            ca_pin: authorities.signing(now).pin().to_string().parse().map_err(refused)?,
            secret_hash: Some(digest(&secret)?),
            expires: instant(expires),
            redemptions: arguments.redemptions,
            grants: grants(&arguments.ports),
            quota: None,
        }],
        ..named(&arguments.name)?
    };
    let provision = Provision {
        config: config.to_toml()?,
        name: arguments.name.clone(),
        tunnel_port: port(arguments)?,
        dns_name: dns_name(arguments),
        published: arguments.ports.clone(),
    };
    let document = arguments.machine.document(arguments.format, Some(&provision))?;

    // Only now, when nothing can be refused any more.
    let kept = objects::Kept { secret: &secret, expires, redemptions: arguments.redemptions };
    let noted = match &keeper {
        Keeper::Directory(secrets) => {
            let manifests = arguments.keeper.manifests.as_deref().unwrap_or(Path::new("."));
            objects::write(&mut object, manifests, secrets, &kept)?
        }
        Keeper::Cluster(client) => objects::apply(&mut object, client, &kept).await?,
    };
    match output {
        Output::Json => print::json(&Created {
            name: arguments.name.clone(),
            cluster: authorities.cluster().to_owned(),
            pin: authorities.signing(now).pin().to_string(),
            secret_hash: secret.hash().to_string(),
            expires: timestamp(expires),
            redemptions: arguments.redemptions,
            document: document.text,
        })?,
        Output::Text => {
            print::document(&document.text)?;
            for step in noted.iter().chain(&document.steps) {
                print::note(format_args!("# {step}"));
            }
            let until = timestamp(expires);
            print::note(format_args!("# an agent of the cluster must have dialled it by {until}"));
        }
    }
    Ok(Ending::Done)
}

/// A configuration with a name and everything else by default.
fn named(name: &str) -> Result<Config> {
    let mut text = String::new();
    // Writing to a string cannot fail; a name that needs quoting is refused as a name.
    let _ = write!(text, "name = {name:?}");
    Config::parse(Path::new("NAME"), &text).map_err(|error| refused(error.to_string()))
}

fn object(arguments: &CreateArguments) -> EdgeGateway {
    let spec = EdgeGatewaySpec {
        endpoints: arguments.endpoint.clone(),
        addresses: arguments.address.clone(),
        ..EdgeGatewaySpec::default()
    };
    EdgeGateway::new(&arguments.name, spec)
}

/// Refuses what the API server would refuse.
fn check(object: &EdgeGateway) -> Result<()> {
    let Err(problems) = object.settings() else { return Ok(()) };
    let problems: Vec<_> = problems.iter().map(ToString::to_string).collect();
    Err(refused(format!("EdgeGateway {}: {}", object.name_any(), problems.join("; "))))
}

fn grants(ports: &[GrantedPorts]) -> Option<Vec<Grant>> {
    if ports.is_empty() {
        return None;
    }
    Some(vec![Grant { ports: ports.to_vec(), addresses: Vec::new(), max_ports: None }])
}

fn digest(secret: &OneTimeSecret) -> Result<Sha256> {
    secret.hash().to_string().parse().map_err(refused)
}

/// The one port that the machine listens on, whichever way it is dialled.
fn port(arguments: &CreateArguments) -> Result<u16> {
    let mut ports = arguments.endpoint.iter().map(|it| it.port);
    let first = ports.next().unwrap_or(i64::from(TUNNEL_PORT));
    if ports.any(|it| it != first) {
        return Err(refused(
            "--endpoint: the endpoints have several ports, but the machine listens on one; \
             translate elsewhere, and edit the object's endpoints afterwards",
        ));
    }
    u16::try_from(first).map_err(|_| refused(format!("--endpoint: {first} is no port")))
}

/// The first endpoint that is a name.
fn dns_name(arguments: &CreateArguments) -> Option<String> {
    let hosts = arguments.endpoint.iter().map(|it| &it.host);
    hosts.into_iter().find(|it| it.parse::<IpAddr>().is_err()).cloned()
}

/// A point of time for people and programs (RFC 3339, UTC, whole seconds).
pub(super) fn timestamp(at: SystemTime) -> String {
    instant(at).map(|it| it.to_string()).unwrap_or_default()
}

fn instant(at: SystemTime) -> Option<jiff::Timestamp> {
    let seconds = at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
    i64::try_from(seconds).ok().and_then(|it| jiff::Timestamp::from_second(it).ok())
}

/// Reads `HOST`, `HOST:PORT`, `2001:db8::1` or `[2001:db8::1]:PORT`.
fn endpoint(text: &str) -> Result<EndpointSpec, String> {
    let default = i64::from(TUNNEL_PORT);
    let expected = || "expected HOST or HOST:PORT, with [..] around an IPv6 address".to_owned();
    let number = |it: &str| match it.parse::<u16>() {
        Ok(port) if port > 0 => Ok(i64::from(port)),
        Ok(_) | Err(_) => Err(format!("`{it}` is not a port between 1 and 65535")),
    };
    let (host, port) = if let Some(rest) = text.strip_prefix('[') {
        let (host, port) = rest.split_once(']').ok_or_else(expected)?;
        let port = port.strip_prefix(':').map_or(Ok(default), number)?;
        (host, port)
    } else if text.parse::<IpAddr>().is_ok() {
        (text, default)
    } else {
        match text.split_once(':') {
            Some((host, port)) => (host, number(port)?),
            None => (text, default),
        }
    };
    if host.is_empty() {
        return Err(expected());
    }
    Ok(EndpointSpec { host: host.to_owned(), port })
}

/// Reads `IP` or `IP=PUBLIC`.
fn address(text: &str) -> Result<AddressSpec, String> {
    let (address, advertise) = match text.split_once('=') {
        Some((address, advertise)) => (address, Some(advertise.to_owned())),
        None => (text, None),
    };
    if address.parse::<IpAddr>().is_err() {
        return Err(format!("`{address}` is not an IP address of the machine"));
    }
    Ok(AddressSpec { address: address.to_owned(), advertise })
}

/// Reads `90s`, `15m`, `24h` or `30d`.
fn span(text: &str) -> Result<Duration, String> {
    let expected = || "expected a time such as 90s, 15m, 24h or 30d, at most 3650d".to_owned();
    let (number, unit) = text.split_at(text.len() - text.chars().last().map_or(0, char::len_utf8));
    let factor = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 24 * 3600,
        _ => return Err(expected()),
    };
    let seconds = number.parse::<u64>().ok().and_then(|it| it.checked_mul(factor));
    match seconds {
        Some(seconds) if (1..=3650 * 24 * 3600).contains(&seconds) => {
            Ok(Duration::from_secs(seconds))
        }
        Some(_) | None => Err(expected()),
    }
}

/// A path that means the same from everywhere.
fn absolute(path: &Path) -> Result<PathBuf> {
    std::path::absolute(path).map_err(|error| refused(format!("{}: {error}", path.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_read() {
        let check = |text: &str, expected: Result<(&str, i64), &str>| {
            let found = endpoint(text);
            let found = found.as_ref().map(|it| (it.host.as_str(), it.port));
            match (found, expected) {
                (Ok(found), expected) => assert_eq!(Ok(found), expected),
                (Err(found), Err(expected)) => assert!(found.contains(expected), "{found}"),
                (Err(found), Ok(_)) => panic!("{text}: {found}"),
            }
        };
        check("gw.example.com", Ok(("gw.example.com", 7443)));
        check("gw.example.com:443", Ok(("gw.example.com", 443)));
        check("192.0.2.1", Ok(("192.0.2.1", 7443)));
        check("2001:db8::1", Ok(("2001:db8::1", 7443)));
        check("[2001:db8::1]:443", Ok(("2001:db8::1", 443)));
        check("gw:0", Err("not a port"));
        check("gw:x", Err("not a port"));
        check("[2001:db8::1", Err("expected HOST"));
        check(":1", Err("expected HOST"));
    }

    #[test]
    fn times_are_read() {
        assert_eq!(span("15m"), Ok(Duration::from_secs(900)));
        assert_eq!(span("365d"), Ok(Duration::from_secs(365 * 86_400)));
        for wrong in ["", "m", "0s", "15", "1w", "-1m", "99999999999999999999d", "ä"] {
            span(wrong).expect_err(wrong);
        }
    }
}
