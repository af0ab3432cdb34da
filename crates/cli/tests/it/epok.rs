//! Epok's command line, called by its own name.

use serde_json::{Value, json};

use super::program::{Ran, Run, named, portcullis};

const KEY: &str =
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGVkZ2UtYSBob3N0IGtleSBmb3IgdGVzdHMgb25seSEh";

/// EP-01: every option, variable and default of Epok, and the Host that they mean.
#[test]
fn ep_01_options_and_environment_mean_what_they_meant() {
    let local = |spec: Value| spec_of(spec, json!({ "local": {} }));
    means("-i eth0 local", &[], local(json!({ "interfaces": ["eth0"] })));
    means("--interfaces eth0,wg0 local", &[], local(json!({ "interfaces": ["eth0", "wg0"] })));
    means("-ieth0 local", &[], local(json!({ "interfaces": ["eth0"] })));
    // White space after commas made interfaces that do not exist.
    means("--interfaces=eth0,|wg0 local", &[], local(json!({ "interfaces": ["eth0", "wg0"] })));
    means("local", &[("EPOK_INTERFACES", "eth0")], local(json!({ "interfaces": ["eth0"] })));
    // An option counts before its variable.
    means("-i a local", &[("EPOK_INTERFACES", "b")], local(json!({ "interfaces": ["a"] })));

    let external = json!({ "interfaces": ["eth0", "wg0"], "externalInterface": "eth0" });
    means("-i eth0,wg0 --external-interface eth0 local", &[], local(external.clone()));
    means("-i eth0,wg0 local", &[("EPOK_EXTERNAL_INTERFACE", "eth0")], local(external));
    // What envsubst leaves of a variable that is not set.
    means("-i a local", &[("EPOK_EXTERNAL_INTERFACE", "")], local(json!({ "interfaces": ["a"] })));

    let extra = json!({ "interfaces": ["a"], "externalInterface": "a",
        "extraInternalAddresses": ["10.8.0.1", "10.8.0.4", "10.8.0.5"] });
    let flags = "-i a --external-interface a --extra-internal-ips 10.8.0.1/32,|10.8.0.4/31 local";
    means(flags, &[], local(extra.clone()));
    let variables = [
        ("EPOK_INTERFACES", "a"),
        ("EPOK_EXTERNAL_INTERFACE", "a"),
        ("EPOK_EXTRA_INTERNAL_IPS", "10.8.0.1,10.8.0.4/31"),
    ];
    means("local", &variables, local(extra));

    means(
        "-i a --backend iptables local",
        &[],
        local(json!({ "interfaces": ["a"], "backend": "iptables" })),
    );
}

#[test]
fn ep_01_batch_options_are_accepted_and_said_to_be_without_effect() {
    for flags in ["--batch-commands", "--batch-commands=true", "--batch-commands=false"] {
        remarks(
            &format!("-i a {flags} local"),
            &[],
            &["--batch-commands (EPOK_BATCH_COMMANDS) has no effect"],
        );
    }
    for value in ["true", "false", "1", "0", "yes", "no"] {
        remarks("-i a local", &[("EPOK_BATCH_COMMANDS", value)], &["has no effect"]);
    }
    remarks("-i a --batch-size 1024 local", &[], &["--batch-size (EPOK_BATCH_SIZE) has no effect"]);
    remarks("-i a local", &[("EPOK_BATCH_SIZE", "1677722")], &["has no effect"]);
    remarks("-i a local", &[], &[]);
}

#[test]
fn ep_01_ssh_options_mean_what_they_meant() {
    let key = format!("--host-key|{}", KEY.replace(' ', "_"));
    let executor = |port: u16| {
        json!({ "ssh": { "address": "10.0.0.1", "port": port, "user": "epok", "hostKey": KEY,
            "keyFile": "/opt/secrets/id_rsa", "mode": "sudo" } })
    };
    let spec = |port| spec_of(json!({ "interfaces": ["a"] }), executor(port));
    let key = key.split('|').collect::<Vec<_>>().join(" ");
    means(&format!("-i a ssh -H epok@10.0.0.1 -k /opt/secrets/id_rsa {key}"), &[], spec(22));
    let long = "-i a ssh --host epok@10.0.0.1 --port 2222 --key /opt/secrets/id_rsa";
    means(&format!("{long} {key}"), &[], spec(2222));
    means(
        &format!("-i a ssh -H epok@10.0.0.1 -p 2222 -k /opt/secrets/id_rsa {key}"),
        &[],
        spec(2222),
    );
    let variables = [
        ("EPOK_INTERFACES", "a"),
        ("EPOK_SSH_HOST", "epok@10.0.0.1"),
        ("EPOK_SSH_PORT", "2222"),
        ("EPOK_SSH_KEY", "/opt/secrets/id_rsa"),
        ("EPOK_SSH_HOST_KEY", KEY),
    ];
    means("ssh", &variables, spec(2222));
}

#[test]
fn the_misspelt_variable_of_the_readme_works_with_a_warning() {
    let spec = spec_of(json!({ "interfaces": ["eth0"] }), json!({ "local": {} }));
    means("local", &[("EPOK_INTERFACE", "eth0")], spec);
    remarks("local", &[("EPOK_INTERFACE", "eth0")], &["the variable is EPOK_INTERFACES"]);
}

#[test]
fn a_key_of_known_hosts_is_as_good_as_a_pin() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let file = directory.path().join("known_hosts");
    std::fs::write(&file, format!("[10.0.0.1]:2222 {KEY}\nother {KEY}\n")).expect("a file");
    let file = file.to_str().expect("a path of text");
    let ssh = [
        "-i",
        "a",
        "--print-host",
        "ssh",
        "-H",
        "epok@10.0.0.1",
        "-k",
        "/k",
        "--known-hosts",
        file,
    ];

    let ran = epok(ssh.into_iter().chain(["-p", "2222"]), &[]).expect_code(0);
    assert!(ran.stdout.contains(KEY), "{}", ran.stdout);
}

#[test]
fn without_a_pin_there_is_no_connection() {
    // Nothing listens on this port: it belongs to a socket that does not accept.
    let socket = std::net::TcpListener::bind("127.0.0.1:0").expect("a socket");
    let port = socket.local_addr().expect("an address").port().to_string();
    drop(socket);
    let ssh = ["-i", "a", "--print-host", "ssh", "-H", "epok@127.0.0.1", "-k", "/k", "-p", &port];
    let ran = epok(ssh, &[]).expect_code(2);
    assert!(ran.stderr.contains("is not pinned"), "{}", ran.stderr);
    assert!(ran.stderr.contains("/etc/ssh/ssh_host_ed25519_key.pub"), "{}", ran.stderr);
    assert_eq!(ran.stdout, "");
}

#[test]
fn values_that_mean_nothing_are_refused_by_flag_and_variable() {
    refuses("local", &[], "--interfaces (EPOK_INTERFACES): missing or empty");
    refuses("-i , local", &[], "--interfaces (EPOK_INTERFACES)");
    refuses(
        "-i eth0;reboot local",
        &[],
        "--interfaces (EPOK_INTERFACES): \"eth0;reboot\": not the name",
    );
    refuses("-i $(reboot) local", &[], "\"$(reboot)\": not the name of an interface");
    refuses(
        "-i a --external-interface b local",
        &[],
        "--external-interface (EPOK_EXTERNAL_INTERFACE): \"b\"",
    );
    refuses(
        "-i a --external-interface a --extra-internal-ips 10.8.0.0/16 local",
        &[],
        "--extra-internal-ips (EPOK_EXTRA_INTERNAL_IPS): \"10.8.0.0/16\": a range of more than 64",
    );
    refuses("-i a --backend pf local", &[], "--backend (EPOK_BACKEND): \"pf\"");
    refuses("-i a ssh -H -oProxyCommand=x -k /k", &[], "error");
    refuses(
        "-i a ssh -H u@-oProxyCommand=x -k /k",
        &[],
        "--host (EPOK_SSH_HOST): \"-oProxyCommand=x\"",
    );
    refuses("-i a ssh -H h -k /k", &[], "--host (EPOK_SSH_HOST): \"h\": names no user");
    refuses(
        "-i a ssh -H u@h -k /k --host-key nonsense",
        &[],
        "--host-key (EPOK_SSH_HOST_KEY): \"nonsense\"",
    );
    refuses("-i a ssh -H u@h -p 0 -k /k", &[], "--port (EPOK_SSH_PORT): \"0\"");
    refuses("-i a ssh -H u@h -p 99999 -k /k", &[], "99999");
    refuses("-i a ssh -k /k", &[], "--host");
    refuses("-i a", &[], "EXECUTOR");
    refuses("-i a shell", &[], "shell");
}

#[test]
fn both_names_and_the_subcommand_are_one_program() {
    let subcommand = portcullis(["epok", "-i", "a", "--print-host", "local"]).expect_code(0);
    let name = epok(["-i", "a", "--print-host", "local"], &[]).expect_code(0);
    assert_eq!(name.stdout, subcommand.stdout);

    let (_directory, link) = named("epok-clean");
    let help = Run::new(&link, ["--help"]).end().expect_code(0).stdout;
    assert!(help.contains("--batch-size"), "{help}");
    Run::new(&link, ["--batch-commands=false", "host"]).end().expect_code(2);
}

#[track_caller]
fn means(arguments: &str, environment: &[(&str, &str)], spec: Value) {
    let ran = print_host(arguments, environment, "json").expect_code(0);
    assert_eq!(ran.json()["spec"], spec, "{arguments} {environment:?}");
    // The same object as YAML, which is what people apply.
    let ran = print_host(arguments, environment, "text").expect_code(0);
    assert!(
        ran.stdout.starts_with("apiVersion: portcullis.dev/v1alpha1\nkind: Host\n"),
        "{}",
        ran.stdout
    );
}

fn spec_of(mut spec: Value, executor: Value) -> Value {
    let defaults = json!({ "backend": "nftables", "acceptForwarded": false, "masquerade": false,
        "hairpin": false, "executor": executor });
    let Value::Object(fields) = defaults else { unreachable!("an object was written") };
    for (key, value) in fields {
        spec.as_object_mut().expect("an object was given").entry(key).or_insert(value);
    }
    spec
}

#[track_caller]
fn remarks(arguments: &str, environment: &[(&str, &str)], expected: &[&str]) {
    let ran = print_host(arguments, environment, "text").expect_code(0);
    assert_eq!(ran.stderr.lines().count(), expected.len(), "{}", ran.stderr);
    for part in expected {
        assert!(ran.stderr.contains(part), "{}", ran.stderr);
    }
}

#[track_caller]
fn refuses(arguments: &str, environment: &[(&str, &str)], message: &str) {
    let ran = print_host(arguments, environment, "text").expect_code(2);
    assert!(ran.stderr.contains(message), "{}", ran.stderr);
    assert_eq!(ran.stdout, "");
}

/// Arguments are split at spaces; `|` stands for a space in one, and `_` in a key.
fn print_host(arguments: &str, environment: &[(&str, &str)], output: &str) -> Ran {
    let arguments: Vec<_> = arguments
        .split(' ')
        .map(|it| it.replace('|', " ").replace("ed25519_A", "ed25519 A"))
        .collect();
    let first = ["epok", "--print-host", "--output", output];
    let mut run =
        super::program::run(first.into_iter().chain(arguments.iter().map(String::as_str)));
    for (name, value) in environment {
        run = run.env(name, value);
    }
    run.end()
}

fn epok<'a>(arguments: impl IntoIterator<Item = &'a str>, environment: &[(&str, &str)]) -> Ran {
    let (_directory, link) = named("epok");
    let run = Run::new(&link, arguments);
    environment.iter().fold(run, |run, (name, value)| run.env(name, value)).end()
}
