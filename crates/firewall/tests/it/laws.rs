//! Laws that hold for any two states.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use api::object::{ObjectKind, ObjectRef};
use api::port::{Port, Protocol};
use firewall::Backend;
use planner::desired::{
    Destinations, Entry, Exposure, Forward, ForwardKey, Forwarding, IpFamily, NodeSetName, Options,
    Targets,
};
use proptest::prelude::*;

pub(crate) const BACKENDS: [Backend; 2] = [Backend::Nftables, Backend::Iptables];

proptest! {
    #[test]
    fn applying_a_plan_reaches_the_desired_state(old in forwarding(), new in forwarding()) {
        for backend in BACKENDS {
            let (old, new) = (backend.render(&old), backend.render(&new));
            let mut observed = old.as_observed();
            let plan = backend.plan(&new, &observed, &BTreeSet::new());
            prop_assert_eq!(plan.is_empty(), old.as_observed() == new.as_observed());
            prop_assert_eq!(plan.is_empty(), plan.to_string().is_empty());
            prop_assert_eq!(plan.is_empty(), plan.commands().is_empty());
            plan.apply_to(&mut observed);
            prop_assert_eq!(&observed, &new.as_observed());
            let second = backend.plan(&new, &observed, &BTreeSet::new());
            prop_assert!(second.is_empty(), "a second run must find nothing to do: {}", second);
        }
    }

    #[test]
    fn a_plan_with_kept_owners_is_stable_too(old in forwarding(), new in forwarding()) {
        let keep: BTreeSet<_> = old.forwards.values().map(|it| it.owner.clone()).take(2).collect();
        for backend in BACKENDS {
            let (old, new) = (backend.render(&old), backend.render(&new));
            let mut observed = old.as_observed();
            backend.plan(&new, &observed, &keep).apply_to(&mut observed);
            let second = backend.plan(&new, &observed, &keep);
            prop_assert!(second.is_empty(), "a second run must find nothing to do: {}", second);
        }
    }
}

/// Any forwarding that a planner could ask for; few different keys, so that two of them overlap.
pub(crate) fn forwarding() -> impl Strategy<Value = Forwarding> {
    let nodes = || prop::collection::btree_set(node(), 1..5);
    let forwards =
        prop::collection::btree_map((protocol(), 1_u16..6), (any::<u8>(), forward()), 0..6);
    let entry = (any::<bool>(), any::<bool>(), prop::collection::btree_set(node(), 0..3));
    (entry, options(), nodes(), nodes(), forwards).prop_map(
        |((external, internal, addresses), options, all, some, forwards)| {
            let entry = Entry {
                external: external.then(|| "eth0".parse().expect("a name")),
                internal: match internal {
                    true => ["br0", "wg0"].map(|it| it.parse().expect("a name")).into(),
                    false => BTreeSet::new(),
                },
                destinations: match external {
                    true => Destinations::Addresses(addresses),
                    false => Destinations::Local,
                },
            };
            let forwards = forwards.into_iter().flat_map(|((protocol, port), (how, forward))| {
                let exposures: &[Exposure] = match (external, how % 4) {
                    (false, _) | (true, 0) => &[Exposure::Everywhere],
                    (true, 1) => &[Exposure::Internal],
                    (true, 2) => &[Exposure::External],
                    (true, _) => &[Exposure::Internal, Exposure::External],
                };
                let port = Port::new(port).expect("not zero");
                exposures.iter().map(move |exposure| {
                    let key = ForwardKey { protocol, port, exposure: *exposure };
                    (key, forward.clone())
                })
            });
            let node_sets = BTreeMap::from([(NodeSetName::All, all), (with_endpoints(), some)]);
            Forwarding { entry, options, node_sets, forwards: forwards.collect() }
        },
    )
}

fn with_endpoints() -> NodeSetName {
    NodeSetName::WithEndpoints { namespace: "shop".to_owned(), service: "cart".to_owned() }
}

fn node() -> impl Strategy<Value = IpAddr> {
    (any::<bool>(), 1_u8..6).prop_map(|(v6, last)| match v6 {
        false => IpAddr::from([10, 0, 0, last]),
        true => IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, u16::from(last)]),
    })
}

fn protocol() -> impl Strategy<Value = Protocol> {
    prop::sample::select(Protocol::ALL.to_vec())
}

fn options() -> impl Strategy<Value = Options> {
    any::<(bool, bool, bool)>().prop_map(|(accept_forwarded, masquerade, hairpin)| Options {
        accept_forwarded,
        masquerade,
        hairpin,
    })
}

fn forward() -> impl Strategy<Value = Forward> {
    let pod = (node(), 1_u16..4).prop_map(|(ip, port)| SocketAddr::new(ip, 8000 + port));
    let port = || (1_u16..4).prop_map(|it| Port::new(30_000 + it).expect("not zero"));
    let family = prop::sample::select(IpFamily::ALL.to_vec());
    let targets = prop_oneof![
        port().prop_map(|port| Targets::Nodes { set: NodeSetName::All, port }),
        port().prop_map(|port| Targets::Nodes { set: with_endpoints(), port }),
        (family, port()).prop_map(|(family, port)| {
            Targets::Nodes { set: NodeSetName::OfFamily(family), port }
        }),
        prop::collection::btree_set(pod, 1..5).prop_map(Targets::Pods),
    ];
    let owner = prop::sample::select(vec!["blog", "cart", "dns"])
        .prop_map(|name| ObjectRef::namespaced(ObjectKind::Service, "web", name));
    let sources = prop::sample::select(vec![
        "10.0.0.0/8",
        "10.0.0.0/24,10.0.1.0/24,10.0.2.0/24,192.0.2.7",
        "fd00::/8",
        "0.0.0.0/0,fd00::1,fd00::2",
        "192.0.2.1,192.0.2.2,192.0.2.4,::/0",
    ]);
    let sources = prop::option::weighted(0.4, sources.prop_map(|it| it.parse().expect("ranges")));
    (owner, targets, sources, any::<bool>()).prop_map(|(owner, targets, sources, affinity)| {
        Forward { owner, targets, sources, affinity }
    })
}

/// What each reader of listings does with any text: read it or refuse it, but never panic.
mod listings {
    use command::Output;
    use firewall::epok;

    use super::*;

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "(\\PC|\n){0,300}") {
            read_everything(&text);
        }

        /// Listings of ours with a piece cut out or put in.
        #[test]
        fn any_damaged_listing_is_read_or_refused(
            new in forwarding(), at in any::<prop::sample::Index>(), to in any::<prop::sample::Index>(),
            piece in "(\\PC|\n|\"|\\[|\\{|-A |:PORTCULLIS-|COMMIT){0,8}"
        ) {
            for backend in BACKENDS {
                let mut text = backend.render(&new).text();
                let (at, to) = (at.index(text.len()), to.index(text.len()));
                text.replace_range(at.min(to)..at.max(to), &piece);
                read_everything(&text);
            }
        }

        #[test]
        fn any_damaged_json_is_read_or_refused(
            at in any::<prop::sample::Index>(), piece in "[\\[\\]{}:,\"0-9a-z-]{0,6}"
        ) {
            let mut text = JSON.to_owned();
            let at = at.index(text.len());
            text.replace_range(at..(at + 3).min(JSON.len()), &piece);
            read_everything(&text);
        }
    }

    const JSON: &str = r#"{"nftables": [{"metainfo": {"version": "1.0.6"}}, {"table": {"family": "inet", "name": "portcullis", "handle": 3}}, {"map": {"family": "inet", "name": "everywhere", "table": "portcullis", "type": ["inet_proto", "inet_service"], "handle": 11, "map": "verdict", "elem": [[{"elem": {"val": {"concat": ["tcp", 443]}, "comment": "Service ns/name"}}, {"goto": {"target": "nodes-all-3"}}]]}}, {"chain": {"family": "inet", "table": "portcullis", "name": "nodes-all-3", "handle": 1}}, {"rule": {"family": "inet", "table": "portcullis", "chain": "nodes-all-3", "handle": 20, "expr": [{"match": {"op": "==", "left": {"meta": {"key": "nfproto"}}, "right": "ipv4"}}, {"dnat": {"family": "ip", "addr": {"map": {"key": {"numgen": {"mode": "inc", "mod": 2, "offset": 0}}, "data": {"set": [[0, "10.0.0.1"], [1, "10.0.0.2"]]}}}, "port": {"map": {"key": {"concat": [{"meta": {"key": "l4proto"}}, {"payload": {"protocol": "th", "field": "dport"}}]}, "data": "@everywhere-ports"}}}}]}}]}"#;

    fn read_everything(text: &str) {
        let output = Output { status: Some(0), stdout: text.to_owned(), stderr: String::new() };
        let saves = [output.clone(), output.clone()];
        for (backend, outputs) in
            [(Backend::Nftables, &saves[..1]), (Backend::Iptables, &saves[..])]
        {
            if let Ok(observed) = backend.observe(outputs) {
                // What was read can be mended and told.
                let plan = backend.cleanup(&observed);
                assert_eq!(plan.is_empty(), observed.is_empty(), "{text}");
                let nothing = backend.render(&Forwarding::default());
                backend.plan(&nothing, &observed, &BTreeSet::new()).to_string();
                let _followed = firewall::trace::Tracer::of(&observed);
                let nothing = nothing.as_observed();
                let _stale = firewall::conntrack::stale(&observed, &nothing, &BTreeSet::new());
            }
        }
        let _removal = epok::find(text).removal();
    }

    #[test]
    fn a_failed_read_is_not_an_empty_host() {
        let failed = |stderr: &str| Output {
            status: Some(1),
            stdout: String::new(),
            stderr: stderr.to_owned(),
        };
        let nft = |stderr| Backend::Nftables.observe(&[failed(stderr)]);
        let missing = nft("Error: No such file or directory\nlist table inet portcullis\n");
        assert!(missing.expect("there is no table yet").is_empty());
        let error = nft("Operation not permitted (you must be root)\n").expect_err("not root");
        assert_eq!(
            error.to_string(),
            "nft could not list the rules: Operation not permitted (you must be root)"
        );
        assert!(nft("").is_err());
        assert!(Backend::Iptables.observe(&[failed("x"), failed("x")]).is_err());
        assert!(Backend::Iptables.observe(&[]).is_err());
        let cut = Output { status: Some(0), stdout: "*nat\n".to_owned(), stderr: String::new() };
        let error = Backend::Iptables.observe(&[cut.clone(), cut]).expect_err("it was cut off");
        assert_eq!(
            error.to_string(),
            "iptables-save printed something that is not a whole listing: `table nat has no end`"
        );
    }
}
