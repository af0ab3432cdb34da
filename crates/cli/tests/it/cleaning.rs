//! `cleanup` on a machine that has rules of ours, in a network namespace of its own.

use testkit::{Lab, Machine};

use super::program::PROGRAM;

#[test]
fn every_trace_is_removed_and_nothing_else() {
    let Some(lab) = testkit::require(Lab::new("cleanup")) else { return };
    let machine = lab.machine("host").expect("a machine");
    machine.nft("table inet others {\n chain c {\n counter\n }\n}\n").expect("rules of others");
    for backend in ["nftables", "iptables"] {
        load(&machine, backend);
    }
    let before = machine.run("iptables-save", &[]).expect("a listing");
    assert!(before.contains("PORTCULLIS"), "{before}");

    let would = clean(&machine, &["--dry-run"]);
    assert!(would.contains("would remove"), "{would}");
    assert!(machine.run("nft", &["list", "tables"]).expect("a list").contains("portcullis"));

    let did = clean(&machine, &[]);
    assert!(did.contains("removed"), "{did}");
    let tables = machine.run("nft", &["list", "tables"]).expect("a list");
    assert!(!tables.contains("portcullis"), "{tables}");
    assert!(tables.contains("others"), "{tables}");
    for save in ["iptables-save", "ip6tables-save"] {
        let after = machine.run(save, &[]).expect("a listing");
        assert!(!after.contains("PORTCULLIS"), "{after}");
    }

    let again = clean(&machine, &[]);
    assert!(again.contains("nothing of ours is there"), "{again}");
}

fn clean(machine: &Machine, more: &[&str]) -> String {
    let arguments: Vec<_> = ["cleanup"].iter().chain(more).copied().collect();
    machine.run(PROGRAM, &arguments).expect("the clean-up succeeds")
}

fn load(machine: &Machine, backend: &str) {
    let example = super::program::root().join("examples/forward");
    let file = |name: &str| example.join(name).to_string_lossy().into_owned();
    let (nodes, services) = (file("nodes.yaml"), file("services.yaml"));
    let arguments = ["render", "-f", &nodes, "-f", &services, "--interfaces", "lo"];
    let arguments: Vec<_> =
        arguments.into_iter().chain(["--backend", backend, "-o", "json"]).collect();
    let rendered = super::program::portcullis(arguments).expect_code(0).json();
    let ruleset = rendered["hosts"][0]["ruleset"].as_str().expect("a ruleset").to_owned();
    match backend {
        "nftables" => machine.nft(&ruleset).expect("the kernel takes it"),
        _ => {
            for (program, document) in
                ["iptables-restore", "ip6tables-restore"].iter().zip(documents(&ruleset))
            {
                machine.run_with_input(program, &["--noflush"], &document).expect("it is taken");
            }
        }
    }
}

/// The documents of both families, which follow each other in what is rendered.
fn documents(ruleset: &str) -> Vec<String> {
    let parts = ruleset.split("# ip6tables-restore");
    parts.map(str::to_owned).collect()
}
