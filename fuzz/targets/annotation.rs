//! Any text under any key of a Service, a Pod or a Node.
#![cfg_attr(fuzzing, no_main)]

use std::collections::BTreeMap;

use api::annotation::host_ports::HostPorts;
use api::annotation::{Reading, key, read_node, read_pod, read_service};
use api::source_range::SourceRanges;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

const KEYS: [&str; 12] = [
    key::HOST_PORTS,
    key::HOST,
    key::INTERNAL,
    key::EXTERNAL,
    key::ALLOW_FROM,
    key::EXCLUDE,
    key::EPOK_EXTERNAL_PORTS,
    key::EPOK_EXTERNAL_PORT,
    key::EPOK_INTERNAL,
    key::EPOK_EXTERNAL,
    key::EPOK_ALLOW_RANGE,
    key::EPOK_EXCLUDE,
];

/// What is accepted is written back and read the same; what is refused is told in one line.
pub(crate) fn law(input: &[u8]) {
    let Ok(value) = std::str::from_utf8(input) else { return };
    for key in KEYS {
        let annotations = BTreeMap::from([(key.to_owned(), value.to_owned())]);
        let metadata = ObjectMeta { annotations: Some(annotations), ..ObjectMeta::default() };
        let (service, pod, node) =
            (read_service(&metadata), read_pod(&metadata), read_node(&metadata));
        told(&service);
        told(&pod);
        assert!(node.wish.is_some(), "a node is never refused");
        let wishes = [
            service.wish.map(|it| (it.host_ports, it.sources)),
            pod.wish.map(|it| (it.host_ports, it.sources)),
        ];
        for (ports, sources) in wishes.into_iter().flatten() {
            same(ports.as_ref());
            bounded(sources.as_ref());
        }
    }
}

fn told<T>(reading: &Reading<T>) {
    let refuses = reading.problems.iter().any(|it| it.reason.refuses());
    assert_eq!(reading.wish.is_none(), refuses);
    for problem in &reading.problems {
        assert!(!problem.to_string().contains(char::is_control), "more than a line: {problem}");
        assert!(!problem.remedy.is_empty());
    }
}

fn same(ports: Option<&HostPorts>) {
    let Some(ports) = ports else { return };
    assert_eq!(ports.to_string().parse().as_ref(), Ok(ports));
    assert_eq!(ports.iter().count(), ports.count());
    assert!(ports.count() <= HostPorts::MAX_PORTS);
}

fn bounded(sources: Option<&SourceRanges>) {
    let Some(sources) = sources else { return };
    assert_eq!(sources.to_string().parse().as_ref(), Ok(sources));
    assert_eq!(sources.intersection(sources).as_ref(), Some(sources));
    assert!((1..=SourceRanges::MAX_ENTRIES).contains(&sources.iter().count()));
}

#[cfg(fuzzing)]
libfuzzer_sys::fuzz_target!(|input: &[u8]| law(input));
