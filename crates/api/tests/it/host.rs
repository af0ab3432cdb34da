//! What we say about Hosts, without an API server.

use api::host::{Executor, Host, HostSpec, KeySource, SshMode, read_manifest};
use expect_test::expect;
use proptest::prelude::*;
use serde_json::json;

use crate::refusals::{ACCEPTED, REFUSALS, host, manifest};

#[test]
fn every_problem_is_named_with_its_field_its_value_and_a_remedy() {
    for refusal in REFUSALS {
        let problems = host(refusal.changes).settings().expect_err("a refused host");
        let told: Vec<_> = problems.iter().map(ToString::to_string).collect();
        assert_eq!(told, refusal.problems, "{:?}", refusal.changes);
    }
}

#[test]
fn every_problem_of_a_host_is_told_at_once() {
    let host = host(&[
        ("interfaces", r#"["eth 0"]"#),
        ("backend", r#""""#),
        ("executor.ssh.port", "-1"),
        ("executor.ssh.user", r#""""#),
        ("executor.ssh.keySecretRef", "null"),
    ]);
    let problems = host.settings().expect_err("a refused host");
    let fields: Vec<_> = problems.iter().map(|it| it.field.as_str()).collect();
    assert_eq!(
        fields,
        [
            "spec.interfaces[0]",
            "spec.externalInterface",
            "spec.backend",
            "spec.executor.ssh.port",
            "spec.executor.ssh.user",
            "spec.executor.ssh",
        ]
    );
}

#[test]
fn a_good_host_is_accepted() {
    for changes in ACCEPTED {
        if let Err(problems) = host(changes).settings() {
            panic!("{changes:?}: {problems:?}");
        }
    }
}

#[test]
fn what_is_accepted_is_typed() {
    let settings = host(&[
        ("extraInternalAddresses", r#"["2001:DB8::1", "2001:db8:0::1"]"#),
        ("executor.ssh.confirmSeconds", "30"),
        ("executor.ssh.hostKey", r#""ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGWaSTbTvLkTAZlfKaiVFKzGnIVcvfGjX2LcVaGJPPPP root@a""#),
    ])
    .settings()
    .expect("a good host");
    expect![[r#"
        HostSettings {
            name: ObjectName(
                "edge-a",
            ),
            interfaces: {
                InterfaceName(
                    "eth0",
                ),
                InterfaceName(
                    "wg0",
                ),
            },
            external_interface: Some(
                InterfaceName(
                    "eth0",
                ),
            ),
            extra_internal_addresses: {
                2001:db8::1,
            },
            backend: Nftables,
            accept_forwarded: false,
            masquerade: false,
            hairpin: false,
            executor: Ssh(
                SshSettings {
                    address: NetworkAddress(
                        "edge-a.example.com",
                    ),
                    port: 22,
                    user: UserName(
                        "portcullis",
                    ),
                    host_key: HostKey(
                        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGWaSTbTvLkTAZlfKaiVFKzGnIVcvfGjX2LcVaGJPPPP",
                    ),
                    key: Secret {
                        namespace: "portcullis",
                        name: "edge-a",
                        key: "ssh-privatekey",
                    },
                    mode: ForcedCommand,
                    confirm_within: Some(
                        30s,
                    ),
                },
            ),
        }
    "#]]
    .assert_debug_eq(&settings);
}

#[test]
fn a_host_without_a_name_is_refused() {
    let problems =
        Host::new("", HostSpec { interfaces: vec!["eth0".into()], ..HostSpec::default() });
    let problems = problems.settings().expect_err("no name");
    let told: Vec<_> = problems.iter().map(ToString::to_string).collect();
    assert_eq!(
        told,
        [
            r#"metadata.name: "": not the name of an object; use lower case letters, digits, - and ."#
        ]
    );
}

#[test]
fn what_a_manifest_leaves_out_is_filled_in() {
    let host = json!({
        "apiVersion": "portcullis.dev/v1alpha1",
        "kind": "Host",
        "metadata": { "name": "edge-a" },
        "spec": { "interfaces": ["eth0"] },
    });
    let (host, problems) = read_manifest(host).expect("a host");
    assert_eq!(problems, []);
    assert_eq!(host.spec, HostSpec { interfaces: vec!["eth0".into()], ..HostSpec::default() });
    assert_eq!(host.settings().map(|it| it.executor), Ok(Executor::Local));
}

/// A misspelt field must not be a field left out.
#[test]
fn a_field_that_nobody_knows_is_named() {
    let mut manifest = manifest(&[]);
    manifest["spec"]["externalInteface"] = json!("eth0");
    manifest["spec"]["executor"]["ssh"]["hostkey"] = json!("x");
    manifest["metadata"]["lables"] = json!({});
    manifest["status"] = json!({ "forwards": 7, "frowards": 8 });
    let (_, problems) = read_manifest(manifest).expect("a host");
    let told: Vec<_> = problems.iter().map(ToString::to_string).collect();
    let remedy = "correct its name or remove it; `kubectl explain host.spec` lists the fields";
    assert_eq!(
        told,
        [
            format!(r#"metadata.lables: "": no such field; {remedy}"#),
            format!(r#"spec.executor.ssh.hostkey: "": no such field; {remedy}"#),
            format!(r#"spec.externalInteface: "": no such field; {remedy}"#),
            format!(r#"status.frowards: "": no such field; {remedy}"#),
        ]
    );
}

proptest! {
    #[test]
    fn checking_never_panics_and_accepts_only_what_it_can_say_again(
        interfaces in prop::collection::vec(text("eth[0-9]{1,14}"), 0..3),
        external in prop::option::of(text("eth[0-9]")),
        addresses in prop::collection::vec(text("10\\.0\\.0\\.[0-9]{1,3}"), 0..2),
        [address, user, key, namespace] in [
            text("[a-z0-9.-]{0,12}"), text("[a-z0-9._-]{0,34}"), text("/[a-z/]{0,9}"), text("[a-z.-]{0,9}"),
        ],
        port in -1..70000_i64,
        seconds in prop::option::of(-1..700_i64),
        by_file: bool,
    ) {
        let mut host = host(&[]);
        host.spec.interfaces = interfaces.clone();
        host.spec.external_interface = external.clone();
        host.spec.extra_internal_addresses = addresses;
        let ssh = host.spec.executor.ssh.as_mut().expect("a host with ssh");
        (ssh.address, ssh.user, ssh.port, ssh.confirm_seconds) = (address.clone(), user.clone(), port, seconds);
        if by_file {
            (ssh.key_file, ssh.key_secret_ref) = (Some(key.clone()), None);
        } else if let Some(secret) = &mut ssh.key_secret_ref {
            secret.namespace = namespace.clone();
        }
        match host.settings() {
            Err(problems) => {
                prop_assert!(!problems.is_empty());
                for it in problems {
                    prop_assert!(it.reason.refuses());
                    prop_assert!(!it.to_string().contains(char::is_control), "more than a line: {}", it);
                }
            }
            Ok(settings) => {
                let names: std::collections::BTreeSet<_> = interfaces.into_iter().collect();
                prop_assert_eq!(settings.interfaces.iter().map(ToString::to_string).collect::<std::collections::BTreeSet<_>>(), names);
                prop_assert_eq!(settings.external_interface.map(String::from), external);
                let Executor::Ssh(ssh) = settings.executor else { return Err(TestCaseError::fail("ssh was asked for")) };
                prop_assert_eq!((ssh.address.to_string(), ssh.user.to_string()), (address, user));
                prop_assert_eq!(i64::from(ssh.port.get()), port);
                prop_assert_eq!(ssh.confirm_within.map(|it| it.as_secs()), seconds.and_then(|it| u64::try_from(it).ok()));
                prop_assert_eq!(ssh.mode, SshMode::ForcedCommand);
                match ssh.key {
                    KeySource::File(file) => prop_assert_eq!(file.to_string(), key),
                    KeySource::Secret { namespace: read, .. } => prop_assert_eq!(read, namespace),
                }
            }
        }
    }
}

/// Text that is often right, and sometimes anything.
fn text(right: &'static str) -> impl Strategy<Value = String> {
    prop_oneof![9 => right, 1 => any::<String>()]
}
