//! Desired forwarding in the notation of the test data.
//!
//! ```text
//! external eth0
//! internal br0 wg0
//! destinations 203.0.113.1 fd00::1          (without: any local address)
//! options masquerade hairpin accept-forwarded
//! nodes all 10.0.0.1 10.0.0.2
//! nodes shop/cart 10.0.0.1                  (the sets ipv4 and ipv6 are parts of all)
//! 443/tcp nodes all:30443 for Service web/blog
//! 53/udp internal nodes shop/cart:30053 for Service shop/cart from 10.0.0.0/8,fd00::/8 sticky
//! 80/tcp external pods 10.244.0.1:8080 [fd01::1]:8080 for Pod web/blog-0
//! ```

use std::path::PathBuf;

use anyhow::{Context as _, bail};
use api::object::{ObjectKind, ObjectRef};
use planner::desired::{
    Destinations, Exposure, Forward, ForwardKey, Forwarding, IpFamily, NodeSetName, Targets,
};

/// Reads the notation.
pub(crate) fn read(text: &str) -> anyhow::Result<Forwarding> {
    let mut forwarding = Forwarding::default();
    for line in text.lines().map(str::trim) {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        read_line(&mut forwarding, line).with_context(|| format!("in `{line}`"))?;
    }
    Ok(forwarding)
}

/// Every case of the test data: its name, its folder and what it describes.
pub(crate) fn all() -> Vec<(String, PathBuf, Forwarding)> {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("testdata");
    let mut cases = Vec::new();
    for entry in std::fs::read_dir(&root).expect("the test data is there") {
        let folder = entry.expect("a folder entry").path();
        let name = folder.file_name().expect("a name").to_string_lossy().into_owned();
        let text = std::fs::read_to_string(folder.join("forwarding.txt"));
        let text = text.unwrap_or_else(|error| panic!("{name}/forwarding.txt: {error}"));
        let forwarding = read(&text).unwrap_or_else(|error| panic!("{name}: {error:#}"));
        cases.push((name, folder, forwarding));
    }
    cases.sort_by(|a, b| a.0.cmp(&b.0));
    assert!(cases.len() >= 10, "the test data has shrunk to {} cases", cases.len());
    cases
}

fn read_line(forwarding: &mut Forwarding, line: &str) -> anyhow::Result<()> {
    let mut words = line.split_whitespace();
    let first = words.next().context("an empty line")?;
    match first {
        "external" => forwarding.entry.external = Some(words.next().context("a name")?.parse()?),
        "internal" => {
            for word in words {
                forwarding.entry.internal.insert(word.parse()?);
            }
        }
        "destinations" => {
            let addresses = words.map(str::parse).collect::<Result<_, _>>()?;
            forwarding.entry.destinations = Destinations::Addresses(addresses);
        }
        "options" => {
            for word in words {
                match word {
                    "masquerade" => forwarding.options.masquerade = true,
                    "hairpin" => forwarding.options.hairpin = true,
                    "accept-forwarded" => forwarding.options.accept_forwarded = true,
                    other => bail!("no option `{other}`"),
                }
            }
        }
        "nodes" => {
            let set = node_set(words.next().context("a set")?);
            let nodes = words.map(str::parse).collect::<Result<_, _>>()?;
            forwarding.node_sets.insert(set, nodes);
        }
        port => {
            let (key, forward) = read_forward(port, words)?;
            forwarding.forwards.insert(key, forward);
        }
    }
    Ok(())
}

fn read_forward<'a>(
    port: &str,
    mut words: impl Iterator<Item = &'a str>,
) -> anyhow::Result<(ForwardKey, Forward)> {
    let (port, protocol) = port.split_once('/').context("a port and a protocol")?;
    let mut key = ForwardKey {
        protocol: protocol.parse()?,
        port: port.parse()?,
        exposure: Exposure::Everywhere,
    };
    let mut targets = None;
    let mut owner = None;
    let mut sources = None;
    let mut affinity = false;
    let mut word = words.next();
    while let Some(it) = word {
        word = words.next();
        match it {
            "internal" => key.exposure = Exposure::Internal,
            "external" => key.exposure = Exposure::External,
            "sticky" => affinity = true,
            "nodes" => {
                let (set, port) =
                    word.context("a set")?.rsplit_once(':').context("a set and a port")?;
                targets = Some(Targets::Nodes { set: node_set(set), port: port.parse()? });
                word = words.next();
            }
            "pods" => {
                let mut pods = std::collections::BTreeSet::new();
                while let Some(Ok(pod)) = word.map(str::parse) {
                    pods.insert(pod);
                    word = words.next();
                }
                targets = Some(Targets::Pods(pods));
            }
            "for" => {
                let kind = match word {
                    Some("Service") => ObjectKind::Service,
                    Some("Pod") => ObjectKind::Pod,
                    other => bail!("no kind {other:?}"),
                };
                let name = words.next().context("an object")?;
                let (namespace, name) = name.split_once('/').context("a namespace and a name")?;
                owner = Some(ObjectRef::namespaced(kind, namespace, name));
                word = words.next();
            }
            "from" => {
                sources = Some(word.context("ranges")?.parse()?);
                word = words.next();
            }
            other => bail!("what is `{other}`?"),
        }
    }
    let targets = targets.context("no targets")?;
    Ok((key, Forward { owner: owner.context("no owner")?, targets, sources, affinity }))
}

fn node_set(text: &str) -> NodeSetName {
    match text.split_once('/') {
        Some((namespace, service)) => NodeSetName::WithEndpoints {
            namespace: namespace.to_owned(),
            service: service.to_owned(),
        },
        None => match text {
            "ipv4" => NodeSetName::OfFamily(IpFamily::Ipv4),
            "ipv6" => NodeSetName::OfFamily(IpFamily::Ipv6),
            _ => NodeSetName::All,
        },
    }
}
