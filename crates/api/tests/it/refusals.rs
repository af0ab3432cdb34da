//! Hosts that are refused, and why: one table, for us and for the API server.

use api::host::Host;
use serde_json::{Value, json};

/// A Host that is refused.
pub(crate) struct Refusal {
    /// What makes a good Host bad: paths below `spec`, and what is put there.
    pub(crate) changes: &'static [(&'static str, &'static str)],
    /// What we say: each problem as it is shown.
    pub(crate) problems: &'static [&'static str],
    /// What the API server says.
    pub(crate) server: Server,
}

/// What the API server says about a Host that is refused.
pub(crate) enum Server {
    /// The same words, as the message of a CEL rule.
    Same,
    /// This, because a schema says it.
    Schema(&'static str),
}

use Server::{Same, Schema};

/// Every way to be wrong.
pub(crate) const REFUSALS: &[Refusal] = &[
    Refusal {
        changes: &[("interfaces", "[]"), ("externalInterface", "null")],
        problems: &[
            r#"spec.interfaces: "": no forward would be reachable; name at least one interface"#,
        ],
        server: Schema("spec.interfaces in body should have at least 1 items"),
    },
    Refusal {
        changes: &[("interfaces", r#"["eth0", "eth0"]"#)],
        problems: &[r#"spec.interfaces[1]: "eth0": in the list twice; leave one out"#],
        server: Schema(r#"spec.interfaces[1]: Duplicate value: "eth0""#),
    },
    Refusal {
        changes: &[("interfaces", r#"["eth0", "eth1; reboot"]"#)],
        problems: &[
            r#"spec.interfaces[1]: "eth1; reboot": not the name of an interface; use 1 to 15 letters, digits or -_.:@, as `ip link` shows it"#,
        ],
        server: Same,
    },
    Refusal {
        changes: &[("interfaces", r#"["eth0", ".."]"#)],
        problems: &[
            r#"spec.interfaces[1]: "..": not the name of an interface; use 1 to 15 letters, digits or -_.:@, as `ip link` shows it"#,
        ],
        server: Same,
    },
    Refusal {
        changes: &[("interfaces", r#"["eth0", "eth1\n"]"#)],
        problems: &[
            r#"spec.interfaces[1]: "eth1\n": not the name of an interface; use 1 to 15 letters, digits or -_.:@, as `ip link` shows it"#,
        ],
        server: Same,
    },
    Refusal {
        changes: &[("interfaces", r#"["eth0", "sixteen-letters0"]"#)],
        problems: &[
            r#"spec.interfaces[1]: "sixteen-letters0": not the name of an interface; use 1 to 15 letters, digits or -_.:@, as `ip link` shows it"#,
        ],
        server: Schema("spec.interfaces[1]: Too long: may not be more than 15 bytes"),
    },
    Refusal {
        changes: &[("externalInterface", r#""ppp0""#)],
        problems: &[
            r#"spec.externalInterface: "ppp0": externalInterface is not one of interfaces; add it to interfaces"#,
        ],
        server: Same,
    },
    Refusal {
        changes: &[("externalInterface", "null"), ("extraInternalAddresses", r#"["10.0.0.1"]"#)],
        problems: &[
            r#"spec.extraInternalAddresses: "10.0.0.1": extraInternalAddresses has no meaning without externalInterface; set externalInterface, or remove extraInternalAddresses: every local address counts"#,
        ],
        server: Same,
    },
    Refusal {
        changes: &[(
            "extraInternalAddresses",
            r#"["10.0.0.1", "10.0.0.0/8", "fe80::1%eth0", "::ffff:10.0.0.1", "010.0.0.1", "vpn"]"#,
        )],
        problems: &[
            r#"spec.extraInternalAddresses[1]: "10.0.0.0/8": not an IP address; write an address such as 10.8.0.1 or 2001:db8::1, without a prefix length or zone"#,
            r#"spec.extraInternalAddresses[2]: "fe80::1%eth0": not an IP address; write an address such as 10.8.0.1 or 2001:db8::1, without a prefix length or zone"#,
            r#"spec.extraInternalAddresses[3]: "::ffff:10.0.0.1": not an IP address; write an address such as 10.8.0.1 or 2001:db8::1, without a prefix length or zone"#,
            r#"spec.extraInternalAddresses[4]: "010.0.0.1": not an IP address; write an address such as 10.8.0.1 or 2001:db8::1, without a prefix length or zone"#,
            r#"spec.extraInternalAddresses[5]: "vpn": not an IP address; write an address such as 10.8.0.1 or 2001:db8::1, without a prefix length or zone"#,
        ],
        server: Same,
    },
    Refusal {
        changes: &[("backend", r#""ipfw""#)],
        problems: &[
            r#"spec.backend: "ipfw": not a packet filter that can be programmed; write nftables or iptables"#,
        ],
        server: Schema(
            r#"spec.backend: Unsupported value: "ipfw": supported values: "nftables", "iptables""#,
        ),
    },
    Refusal {
        changes: &[("executor.local", "{}")],
        problems: &[
            r#"spec.executor: "local, ssh": exactly one of local and ssh must be set; write local: {} when the controller runs on the host, ssh otherwise"#,
        ],
        server: Same,
    },
    Refusal {
        changes: &[("executor", "{}")],
        problems: &[
            r#"spec.executor: "": exactly one of local and ssh must be set; write local: {} when the controller runs on the host, ssh otherwise"#,
        ],
        server: Same,
    },
    Refusal {
        changes: &[("executor.ssh.address", r#""root@edge-a""#)],
        problems: &[
            r#"spec.executor.ssh.address: "root@edge-a": neither an IP address nor a host name; write it without user and port, such as edge-a.example.com or 2001:db8::1"#,
        ],
        server: Same,
    },
    Refusal {
        // A mistyped address must not become a name that somebody else can register.
        changes: &[("executor.ssh.address", r#""192.0.2.256""#)],
        problems: &[
            r#"spec.executor.ssh.address: "192.0.2.256": neither an IP address nor a host name; write it without user and port, such as edge-a.example.com or 2001:db8::1"#,
        ],
        server: Same,
    },
    Refusal {
        changes: &[("executor.ssh.address", r#""-oProxyCommand=reboot""#)],
        problems: &[
            r#"spec.executor.ssh.address: "-oProxyCommand=reboot": neither an IP address nor a host name; write it without user and port, such as edge-a.example.com or 2001:db8::1"#,
        ],
        server: Same,
    },
    Refusal {
        changes: &[("executor.ssh.address", r#""""#)],
        problems: &[
            r#"spec.executor.ssh.address: "": neither an IP address nor a host name; write it without user and port, such as edge-a.example.com or 2001:db8::1"#,
        ],
        server: Same,
    },
    Refusal {
        changes: &[("executor.ssh.port", "0")],
        problems: &[
            r#"spec.executor.ssh.port: "0": not a port between 1 and 65535; leave it out for port 22"#,
        ],
        server: Schema("spec.executor.ssh.port in body should be greater than or equal to 1"),
    },
    Refusal {
        changes: &[("executor.ssh.port", "65536")],
        problems: &[
            r#"spec.executor.ssh.port: "65536": not a port between 1 and 65535; leave it out for port 22"#,
        ],
        server: Schema("spec.executor.ssh.port in body should be less than or equal to 65535"),
    },
    Refusal {
        changes: &[("executor.ssh.user", r#""-l root""#)],
        problems: &[
            r#"spec.executor.ssh.user: "-l root": not the name of a user; use 1 to 32 letters, digits or ._-, beginning with a letter, a digit or _"#,
        ],
        server: Same,
    },
    Refusal {
        changes: &[("executor.ssh.hostKey", r#""ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAABgQC7""#)],
        problems: &[
            r#"spec.executor.ssh.hostKey: "ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAABgQC7": not an Ed25519 public key as OpenSSH writes it; copy `ssh-ed25519 AAAA...` from /etc/ssh/ssh_host_ed25519_key.pub on the host"#,
        ],
        server: Same,
    },
    Refusal {
        // One character short.
        changes: &[(
            "executor.ssh.hostKey",
            r#""ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGWaSTbTvLkTAZlfKaiVFKzGnIVcvfGjX2LcVaGJPPP""#,
        )],
        problems: &[
            r#"spec.executor.ssh.hostKey: "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGWaSTbTvLkTAZlfKaiVFKzGnIVcvfGjX2LcVaGJPPP": not an Ed25519 public key as OpenSSH writes it; copy `ssh-ed25519 AAAA...` from /etc/ssh/ssh_host_ed25519_key.pub on the host"#,
        ],
        server: Same,
    },
    Refusal {
        changes: &[(
            "executor.ssh.hostKey",
            r#""ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGWaSTbTvLkTAZlfKaiVFKzGnIVcvfGjX2LcVaGJPPPP a\nb""#,
        )],
        problems: &[
            r#"spec.executor.ssh.hostKey: "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGWaSTbTvLkTAZlfKaiVFKzGnIVcvfGjX2LcVaGJPPPP a\nb": not an Ed25519 public key as OpenSSH writes it; copy `ssh-ed25519 AAAA...` from /etc/ssh/ssh_host_ed25519_key.pub on the host"#,
        ],
        server: Same,
    },
    Refusal {
        changes: &[("executor.ssh.keySecretRef", "null")],
        problems: &[
            r#"spec.executor.ssh: "": exactly one of keySecretRef and keyFile must be set; name the Secret or the file that holds the private key"#,
        ],
        server: Same,
    },
    Refusal {
        changes: &[("executor.ssh.keyFile", r#""/etc/key""#)],
        problems: &[
            r#"spec.executor.ssh: "keySecretRef, keyFile": exactly one of keySecretRef and keyFile must be set; name the Secret or the file that holds the private key"#,
        ],
        server: Same,
    },
    Refusal {
        changes: &[
            ("executor.ssh.keySecretRef", "null"),
            ("executor.ssh.keyFile", r#""id_ed25519""#),
        ],
        problems: &[
            r#"spec.executor.ssh.keyFile: "id_ed25519": not an absolute path; write the whole path, such as /etc/portcullis/id_ed25519"#,
        ],
        server: Same,
    },
    Refusal {
        changes: &[
            ("executor.ssh.keySecretRef", "null"),
            ("executor.ssh.keyFile", r#""/etc/key\u0000""#),
        ],
        problems: &[
            r#"spec.executor.ssh.keyFile: "/etc/key\0": not an absolute path; write the whole path, such as /etc/portcullis/id_ed25519"#,
        ],
        server: Same,
    },
    Refusal {
        changes: &[(
            "executor.ssh.keySecretRef",
            r#"{"namespace": "a.b", "name": "Edge", "key": "a/b"}"#,
        )],
        problems: &[
            r#"spec.executor.ssh.keySecretRef.namespace: "a.b": not the name of a namespace; use lower case letters, digits and -"#,
            r#"spec.executor.ssh.keySecretRef.name: "Edge": not the name of an object; use lower case letters, digits, - and ."#,
            r#"spec.executor.ssh.keySecretRef.key: "a/b": not a key of a Secret; use letters, digits and -._, such as ssh-privatekey"#,
        ],
        server: Same,
    },
    Refusal {
        changes: &[("executor.ssh.mode", r#""root""#)],
        problems: &[
            r#"spec.executor.ssh.mode: "root": not a way to run commands; write forcedCommand or sudo"#,
        ],
        server: Schema(
            r#"spec.executor.ssh.mode: Unsupported value: "root": supported values: "forcedCommand", "sudo""#,
        ),
    },
    Refusal {
        changes: &[("executor.ssh.confirmSeconds", "601")],
        problems: &[
            r#"spec.executor.ssh.confirmSeconds: "601": not a number of seconds between 1 and 600; leave it out to never roll back"#,
        ],
        server: Schema(
            "spec.executor.ssh.confirmSeconds in body should be less than or equal to 600",
        ),
    },
];

/// Changes after which the Host is still good.
pub(crate) const ACCEPTED: &[&[(&str, &str)]] = &[
    &[],
    &[("executor", r#"{"local": {}}"#)],
    &[("executor", "null")],
    &[("interfaces", r#"["eth0", "wg0.100", "br-lan", "eth0:1", "if0@if1", "...", "_"]"#)],
    &[("extraInternalAddresses", "[]"), ("externalInterface", "null")],
    &[("extraInternalAddresses", r#"["10.0.0.1", "2001:db8::1", "::1"]"#)],
    &[("backend", r#""iptables""#), ("masquerade", "true"), ("hairpin", "true")],
    &[("executor.ssh.address", r#""192.0.2.1""#)],
    &[("executor.ssh.address", r#""2001:db8::1""#)],
    &[("executor.ssh.address", r#""Edge-A""#)],
    &[("executor.ssh.address", r#""1a.2b.3c""#), ("executor.ssh.port", "65535")],
    &[("executor.ssh.user", r#""_svc.port-cullis""#)],
    &[("executor.ssh.user", r#""7of9""#), ("executor.ssh.mode", r#""sudo""#)],
    &[(
        "executor.ssh.hostKey",
        r#""ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGWaSTbTvLkTAZlfKaiVFKzGnIVcvfGjX2LcVaGJPPPP root@edge a""#,
    )],
    &[("executor.ssh.keySecretRef", r#"{"namespace": "a", "name": "b.c", "key": "id_ed25519"}"#)],
    &[("executor.ssh.keySecretRef", "null"), ("executor.ssh.keyFile", r#""/etc/a key""#)],
    &[("executor.ssh.confirmSeconds", "600")],
];

/// A good Host with changes.
pub(crate) fn manifest(changes: &[(&str, &str)]) -> Value {
    let mut host = json!({
        "apiVersion": "portcullis.dev/v1alpha1",
        "kind": "Host",
        "metadata": { "name": "edge-a" },
        "spec": {
            "interfaces": ["eth0", "wg0"],
            "externalInterface": "eth0",
            "executor": { "ssh": {
                "address": "edge-a.example.com",
                "user": "portcullis",
                "hostKey": "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGWaSTbTvLkTAZlfKaiVFKzGnIVcvfGjX2LcVaGJPPPP",
                "keySecretRef": { "namespace": "portcullis", "name": "edge-a" },
            }},
        },
    });
    for (path, value) in changes {
        let mut place = &mut host["spec"];
        let (parents, last) = path.rsplit_once('.').unwrap_or(("", path));
        for parent in parents.split('.').filter(|it| !it.is_empty()) {
            place = &mut place[parent];
        }
        let place = place.as_object_mut().expect("a change is in an object");
        let value: Value = serde_json::from_str(value).expect("a change is JSON");
        if value.is_null() {
            place.remove(last);
        } else {
            place.insert(last.to_owned(), value);
        }
    }
    host
}

/// The same, read.
pub(crate) fn host(changes: &[(&str, &str)]) -> Host {
    serde_json::from_value(manifest(changes)).expect("text of any kind can be read")
}
