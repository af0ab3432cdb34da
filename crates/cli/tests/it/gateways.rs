//! Gateways are declared, and what their machines start with is accepted by whoever reads it.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;
use tempfile::TempDir;

use super::program::{PROGRAM, portcullis, root};

const DIGEST: &str = "sha256:1f1e1d1c1b1a191817161514131211100f0e0d0c0b0a09080706050403020100";

/// Empty directories for manifests and for what is secret.
struct Place(TempDir);

impl Place {
    fn new() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        for name in ["manifests", "authority"] {
            std::fs::create_dir(directory.path().join(name)).expect("a directory");
        }
        Self(directory)
    }

    fn path(&self, name: &str) -> String {
        self.0.path().join(name).display().to_string()
    }

    fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    fn run(&self, command: &str, more: &[&str]) -> super::program::Ran {
        let (manifests, authority) = (self.path("manifests"), self.path("authority"));
        let own = ["--manifests", &manifests, "--ca-dir", &authority];
        portcullis(["gateway", command].iter().chain(more).chain(&own).copied())
    }

    fn create(&self, more: &[&str]) -> super::program::Ran {
        let first = ["fra1", "--endpoint", "gw.example.com", "--cluster", "home"];
        self.run("create", &[&first, more].concat())
    }
}

#[test]
fn a_gateway_is_declared_and_its_machine_gets_no_secret() {
    let place = Place::new();
    let made = place.create(&["-o", "json", "--valid-for", "1h", "--redemptions", "3"]);
    let made = made.expect_code(0).json();
    let secret = place.read("authority/fra1.secret");
    assert!(secret.starts_with("pcs1-"), "a one-time secret");
    let document = made["document"].as_str().expect("a text");
    assert!(!document.contains(&secret[5..60]), "the secret stays in the cluster");
    assert!(!document.contains("PRIVATE KEY"));
    for known in ["pin", "secretHash"] {
        assert!(document.contains(made[known].as_str().expect("a digest")), "{known}");
    }
    let object: Value =
        serde_saphyr::from_str(&place.read("manifests/fra1.yaml")).expect("a manifest");
    assert_eq!(object["kind"], "EdgeGateway");
    assert_eq!(object["spec"]["endpoints"][0]["host"], "gw.example.com");
    let file = object["spec"]["adoption"]["secretFile"].as_str().expect("a file");
    assert_eq!(std::fs::read_to_string(file).expect("it is there"), secret);
    for name in ["authority/authority.pem", "authority/fra1.secret"] {
        let mode = std::fs::metadata(place.path(name)).expect("a file").permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
}

#[test]
fn declared_again_a_gateway_gets_a_new_secret_and_keeps_its_object() {
    let place = Place::new();
    place.create(&[]).expect_code(0);
    let (secret, authority) =
        (place.read("authority/fra1.secret"), place.read("authority/authority.pem"));
    let edited = place.read("manifests/fra1.yaml").replace("carrier: auto", "carrier: tls");
    std::fs::write(place.path("manifests/fra1.yaml"), &edited).expect("written");
    place.create(&[]).expect_code(0);
    assert_ne!(place.read("authority/fra1.secret"), secret);
    assert_eq!(place.read("authority/authority.pem"), authority, "the same cluster");
    assert_eq!(place.read("manifests/fra1.yaml"), edited);
}

#[test]
fn a_manifest_that_names_another_secret_is_told_of() {
    let place = Place::new();
    let first = place.create(&[]).expect_code(0).stderr;
    assert!(first.contains("is declared in"), "{first}");
    let said = place.create(&[]).expect_code(0).stderr;
    assert!(said.contains("is there already and stays as it is\n"), "{said}");
    let file = place.path("manifests/fra1.yaml");
    let written = place.read("manifests/fra1.yaml");
    let line = written.lines().find(|it| it.contains("secretFile:")).expect("where it is");
    let reference = "    secretRef: { namespace: portcullis-system, name: s }";
    let other = "    secretFile: /srv/other.secret";
    let both = format!("{reference}\n{other}");
    for (adoption, problem, remedy) in [
        (other, "names /srv/other.secret: ", "/fra1.secret instead"),
        (reference, "names Secret portcullis-system/s (secretRef): ", "instead of secretRef"),
        (
            &both,
            "names both Secret portcullis-system/s and /srv/other.secret: ",
            "take secretRef out",
        ),
        ("    {}", "names no secret: ", "write secretFile: /"),
    ] {
        let edited = written.replace(line, adoption);
        std::fs::write(&file, &edited).expect("written");
        let said = place.create(&[]).expect_code(0).stderr;
        assert!(said.contains(problem) && said.contains(remedy), "{adoption}: {said}");
        assert_eq!(place.read("manifests/fra1.yaml"), edited, "it is somebody's own");
    }
}

#[test]
fn the_configuration_is_one_that_a_gateway_reads() {
    let place = Place::new();
    let more = ["--format", "config", "--ports", "443,8000-8100/udp", "--address", "192.0.2.7"];
    let text = place.create(&more).expect_code(0).stdout;
    let config = gateway::config::Config::parse(Path::new("gateway.toml"), &text).expect("read");
    assert_eq!(config.name, "fra1");
    assert_eq!(config.addresses, ["192.0.2.7".parse::<std::net::IpAddr>().expect("an address")]);
    let [cluster] = config.clusters.as_slice() else { panic!("{text}") };
    assert_eq!(cluster.name.as_str(), "home");
    assert!(cluster.secret_hash.is_some() && cluster.expires.is_some());
    assert_eq!(cluster.grants.as_ref().map(|it| it[0].ports.len()), Some(2));
}

#[test]
fn what_cannot_be_declared_is_refused_and_nothing_is_written() {
    let place = Place::new();
    let refuse = |arguments: &[&str], what: &str| {
        let ran = place.run("create", arguments).expect_code(2);
        assert!(ran.stderr.contains(what), "{}", ran.stderr);
        assert_eq!(ran.stdout, "");
    };
    let good = ["--endpoint", "gw.example.com"];
    refuse(&[&["fra1"], &good[..]].concat(), "--cluster");
    refuse(&[&["Fra1", "--cluster", "home"], &good[..]].concat(), "Fra1");
    refuse(&[&["fra1", "--cluster", "Ho me"], &good[..]].concat(), "--cluster");
    refuse(&["fra1", "--cluster", "home"], "--endpoint");
    refuse(&["fra1", "--cluster", "home", "--endpoint", "gw:0"], "--endpoint");
    refuse(&["fra1", "--cluster", "home", "--endpoint", "a b"], "spec.endpoints[0].host");
    refuse(&["fra1", "--cluster", "home", "--endpoint", "a:1", "--endpoint", "b:2"], "one");
    let home = [&["fra1", "--cluster", "home"], &good[..]].concat();
    refuse(&[&home, &["--valid-for", "soon"][..]].concat(), "--valid-for");
    refuse(&[&home, &["--redemptions", "0"][..]].concat(), "--redemptions");
    refuse(&[&home, &["--address", "gw"][..]].concat(), "--address");
    refuse(&[&home, &["--ports", "0"][..]].concat(), "--ports");
    refuse(&[&home, &["--program-url", "https://x/y"][..]].concat(), "--program-sha256");
    for url in ["http://x/y", "https://x/y z", "https://x/\"y", "https://$x", "https://x;y"] {
        let fetch = ["--program-url", url, "--program-sha256", DIGEST];
        refuse(&[&home, &fetch[..]].concat(), "--program-url");
    }
    let left = std::fs::read_dir(place.path("manifests")).expect("a directory").count();
    assert_eq!(left, 0);
    place.create(&[]).expect_code(0);
    refuse(&[&["fra2", "--cluster", "other"], &good[..]].concat(), "home");
}

#[test]
fn gateways_are_listed() {
    let place = Place::new();
    place.create(&[]).expect_code(0);
    place.run("create", &["ams1", "--endpoint", "[2001:db8::1]:443"]).expect_code(0);
    std::fs::write(place.path("manifests/other.yaml"), "kind: Service\n---\n{").expect("written");
    let manifests = place.path("manifests");
    let list = ["gateway", "list", "--manifests", &manifests];
    let lines = portcullis(list).expect_code(0).stdout;
    let lines: Vec<_> = lines.lines().collect();
    assert_eq!(lines.len(), 3, "{lines:?}");
    assert!(lines[0].starts_with("NAME"), "{lines:?}");
    assert!(lines[1].starts_with("ams1  [2001:db8::1]:443"), "{lines:?}");
    let json = portcullis(list.iter().chain(&["-o", "json"]).copied()).expect_code(0).json();
    assert_eq!(json[1]["endpoints"][0], "gw.example.com:7443");
}

#[test]
fn an_authority_is_replaced_step_by_step() {
    let place = Place::new();
    place.run("rotate", &[]).expect_code(2);
    place.create(&[]).expect_code(0);
    let first = place.run("rotate", &["-o", "json"]).expect_code(0).json();
    assert_eq!(first["pins"].as_array().map(Vec::len), Some(2));
    assert!(first["nextChange"].is_string());
    let again = place.run("rotate", &[]).expect_code(2);
    assert!(again.stderr.contains("already waits"), "{}", again.stderr);

    let stolen = Place::new();
    stolen.create(&[]).expect_code(0);
    let old = stolen.read("authority/authority.pem");
    let now = stolen.run("rotate", &["--now", "-o", "json"]).expect_code(0).json();
    let retired = stolen.run("rotate", &["--retire", "-o", "json"]).expect_code(0).json();
    assert_eq!(retired["pins"], serde_json::json!([now["pins"][0]]));
    assert!(!stolen.read("authority/authority.pem").contains(&old), "the stolen key is gone");
}

#[test]
fn the_units_pass_systemd() {
    let systemd = testkit::requirement::program("systemd-analyze", "systemd");
    let Some(systemd) = testkit::require(systemd) else { return };
    let account = "portcullis";
    for more in [&[][..], &["--no-packet-filter"]] {
        let arguments = ["install", "gateway", "--format", "systemd", "--program", PROGRAM];
        let unit = portcullis(arguments.iter().chain(more).copied()).expect_code(0).stdout;
        let filters = unit.contains("CAP_NET_ADMIN");
        assert_eq!(filters, more.is_empty(), "{unit}");
        assert!(
            unit.contains(&format!("User={account}\n")) && unit.contains("NoNewPrivileges=yes")
        );
        verify(&systemd, "portcullis-gateway.service", &unit);
    }
    let place = Place::new();
    let fetch = ["--program-url", "https://x.example/a%20b", "--program-sha256", DIGEST];
    let data = yaml(&place.create(&fetch).expect_code(0).stdout);
    let files = data["write_files"].as_array().expect("files");
    let unit = files
        .iter()
        .find(|it| it["path"].as_str().is_some_and(|it| it.ends_with("program.service")));
    let unit = unit.expect("the unit that fetches")["content"].as_str().expect("a text");
    assert!(unit.contains(" https://x.example/a%%20b\n"), "{unit}");
    verify(&systemd, "portcullis-program.service", unit);
}

fn verify(systemd: &Path, name: &str, unit: &str) {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join(name);
    std::fs::write(&file, unit).expect("a unit");
    let output = Command::new(systemd).arg("verify").arg(&file).output().expect("it runs");
    assert!(output.status.success(), "{output:?}");
    let complaints = String::from_utf8_lossy(&output.stderr);
    assert!(!complaints.contains(name), "{complaints}");
}

#[test]
fn user_data_is_what_cloud_init_takes() {
    let place = Place::new();
    let fetch = ["--program-url", "https://x.example/p", "--program-sha256", DIGEST];
    let text = place.create(&fetch).expect_code(0).stdout;
    assert!(text.starts_with("#cloud-config\n"), "{text}");
    let data = yaml(&text);
    let files = data["write_files"].as_array().expect("files");
    let content = |path: &str| {
        let file = files.iter().find(|it| it["path"] == path);
        file.unwrap_or_else(|| panic!("no {path}"))["content"].as_str().expect("a text").to_owned()
    };
    // Indented and read back, the texts are what they were.
    let unit = portcullis(["install", "gateway", "--format", "systemd"]).stdout;
    assert_eq!(content("/etc/systemd/system/portcullis-gateway.service"), unit);
    let config = content("/etc/portcullis/gateway.toml");
    gateway::config::Config::parse(Path::new("gateway.toml"), &config).expect("read");
    let digest = content("/etc/portcullis/program.sha256");
    assert!(digest.starts_with(&format!("{}  /", &DIGEST[7..])), "{digest}");
    for command in data["runcmd"].as_array().expect("commands") {
        assert!(command.is_array(), "a text would go through a shell: {command}");
    }
    assert!(text.len() < 16 * 1024, "AWS takes no more than 16 KiB");

    let cloud_init = testkit::requirement::program("cloud-init", "cloud-init");
    let Some(cloud_init) = testkit::require(cloud_init) else { return };
    let file = place.path("user-data");
    std::fs::write(&file, &text).expect("written");
    let schema = Command::new(cloud_init).args(["schema", "--config-file", &file]).output();
    let schema = schema.expect("it runs");
    assert!(schema.status.success(), "{schema:?}");
}

fn yaml(text: &str) -> Value {
    serde_saphyr::from_str(text).expect("YAML")
}

#[test]
fn terraform_gets_the_whole_machine() {
    let place = Place::new();
    let aws = terraform(&place, "terraform-aws");
    let kinds = kinds(&aws);
    for kind in [
        "aws_security_group",
        "aws_instance",
        "aws_eip",
        "aws_eip_association",
        "aws_route53_record",
    ] {
        assert!(kinds.contains(&kind.to_owned()), "no {kind} in {kinds:?}");
    }
    check_ports(&aws);
    let hetzner = terraform(&place, "terraform-hetzner");
    let kinds = self::kinds(&hetzner);
    for kind in ["hcloud_firewall", "hcloud_server", "hcloud_primary_ip", "hcloud_zone_rrset"] {
        assert!(kinds.contains(&kind.to_owned()), "no {kind} in {kinds:?}");
    }
    check_ports(&hetzner);
    // Without options, what is checked in: valid as it stands, with the user data beside it.
    for name in ["aws", "hetzner"] {
        let text = std::fs::read_to_string(root().join(format!("deploy/terraform/{name}.tf")));
        hcl::parse(&text.expect("checked in")).expect("HCL");
    }
}

/// Prints for Terraform, and checks what it would check without a provider: the syntax and form.
fn terraform(place: &Place, format: &str) -> hcl::Body {
    let more = ["--format", format, "--ports", "80/tcp,443,8000-8100/udp"];
    let text = place.create(&more).expect_code(0).stdout;
    let body = hcl::parse(&text).unwrap_or_else(|error| panic!("{format}: {error}\n{text}"));
    let locals = body.blocks().find(|it| it.identifier() == "locals").expect("locals");
    let data = locals.body().attributes().find(|it| it.key() == "user_data").expect("user data");
    let hcl::Expression::TemplateExpr(data) = data.expr() else { panic!("{data:?}") };
    let hcl::TemplateExpr::Heredoc(data) = &**data else { panic!("{data:?}") };
    let data = yaml(data.template.as_str());
    assert_eq!(data["write_files"][0]["path"], "/etc/portcullis/gateway.toml");
    // It is in no distribution, and the text has been parsed already: this adds the form alone.
    if let Ok(terraform) = testkit::requirement::program("terraform", "terraform") {
        let file = place.path("main.tf");
        std::fs::write(&file, &text).expect("written");
        let mut check = Command::new(terraform);
        check.args(["fmt", "-check", "-diff", &file]).stdin(Stdio::null());
        let checked = check.output().expect("it runs");
        assert!(checked.status.success(), "{checked:?}");
    }
    body
}

fn kinds(body: &hcl::Body) -> Vec<String> {
    let resources = body.blocks().filter(|it| it.identifier() == "resource");
    resources.map(|it| it.labels()[0].as_str().to_owned()).collect()
}

/// The firewall lets through what was granted, and the tunnel, and nothing for logging in.
fn check_ports(body: &hcl::Body) {
    let variable = |name: &str| {
        let named = |it: &&hcl::Block| {
            it.identifier() == "variable"
                && it.labels().first().is_some_and(|it| it.as_str() == name)
        };
        let block = body.blocks().find(named).unwrap_or_else(|| panic!("no variable {name}"));
        let default = block.body().attributes().find(|it| it.key() == "default");
        default.expect("a default").expr().to_string()
    };
    let published = variable("published");
    let ranges: Vec<_> = published.matches("protocol").collect();
    assert_eq!(ranges.len(), 4, "80/tcp, 443 of both, 8000-8100/udp: {published}");
    assert!(!published.contains("22"), "{published}");
    assert_eq!(variable("tunnel_port"), "7443");
    assert_eq!(variable("name"), "\"fra1\"");
}

#[test]
fn a_form_that_needs_a_configuration_says_so() {
    let ran = portcullis(["install", "gateway"]).expect_code(2);
    assert!(
        ran.stderr.contains("--config") && ran.stderr.contains("gateway create"),
        "{}",
        ran.stderr
    );
    let place = Place::new();
    let config = place.create(&["--format", "config"]).expect_code(0).stdout;
    std::fs::write(place.path("gateway.toml"), config).expect("written");
    let file = place.path("gateway.toml");
    for format in ["cloud-init", "terraform-aws", "terraform-hetzner"] {
        let ran = portcullis(["install", "gateway", "--format", format, "--config", &file]);
        assert!(ran.expect_code(0).stdout.contains("name = \"fra1\""), "{format}");
    }
}

#[test]
fn agents_are_whole_and_hardened() {
    let image = "registry.example.com/p:1";
    for (more, kind) in
        [(&["--replicas", "3"][..], "Deployment"), (&["--host-network"], "DaemonSet")]
    {
        let arguments = ["install", "agent", "--image", image];
        let text = portcullis(arguments.iter().chain(more).copied()).expect_code(0).stdout;
        let documents: Vec<Value> = serde_saphyr::from_multiple(&text).expect("documents");
        let find = |kind: &str| {
            let found = documents.iter().find(|it| it["kind"] == kind);
            found.unwrap_or_else(|| panic!("no {kind}"))
        };
        assert_eq!(find("CustomResourceDefinition")["spec"]["names"]["kind"], "EdgeGateway");
        let agents = find(kind);
        let pod = &agents["spec"]["template"]["spec"];
        let container = &pod["containers"][0];
        assert_eq!(container["image"], image);
        assert_eq!(container["securityContext"]["capabilities"]["drop"][0], "ALL");
        assert_eq!(container["securityContext"]["readOnlyRootFilesystem"], true);
        assert_eq!(pod["securityContext"]["seccompProfile"]["type"], "RuntimeDefault");
        let account = find("ServiceAccount");
        assert_eq!(pod["serviceAccountName"], account["metadata"]["name"]);
        assert_eq!(agents["metadata"]["namespace"], account["metadata"]["namespace"]);
        assert_eq!(account["metadata"]["namespace"], tunnel::trust::NAMESPACE);
        // Its options are the program's.
        let help = portcullis(["agent", "--help"]).expect_code(0).stdout;
        for argument in container["args"].as_array().into_iter().flatten().skip(1) {
            let flag = argument.as_str().and_then(|it| it.split('=').next()).expect("an option");
            assert!(help.contains(flag), "there is no {flag}");
        }
    }
    // The class that Gateways name, unless there is no such kind.
    let class = |more: &[&str]| {
        let all = ["install", "agent"].iter().chain(more).copied();
        let text = portcullis(all).expect_code(0).stdout;
        let documents: Vec<Value> = serde_saphyr::from_multiple(&text).expect("documents");
        documents.into_iter().find(|it| it["kind"] == "GatewayClass")
    };
    let made = class(&[]).expect("a class");
    assert_eq!(made["metadata"]["name"], "portcullis");
    assert_eq!(made["spec"]["controllerName"], api::gateway_api::CONTROLLER_NAME);
    assert_eq!(class(&["--no-gateway-class"]), None);
    portcullis(["install", "agent", "--image", "a: {b}"]).expect_code(2);
    portcullis(["install", "agent", "--host-network", "--replicas", "2"]).expect_code(2);
    // Programs on the nodes themselves only where it was asked for.
    let with = |more: &[&str]| {
        let arguments = ["install", "agent", "--host-network"];
        let text = portcullis(arguments.iter().chain(more).copied()).expect_code(0).stdout;
        text.contains("args: [\"agent\", \"--allow-host-target\", ")
    };
    assert!(with(&["--allow-host-target"]) && !with(&[]));
    portcullis(["install", "agent", "--allow-host-target"]).expect_code(2);
}
