//! Changes of a machine, as its kernel tells them.

use std::process::Stdio;
use std::time::Duration;

use command::{Command, Program};
use host::{ChangedBy, Executor, Local, LocalChange, LocalChanges};
use testkit::{Lab, Machine};

use super::local::wait_until;
use super::site::{add_chain, delete_chain, nft};

#[test]
fn ep_07_a_change_by_somebody_else_is_told_with_its_maker() {
    inside("foreign-change", async |_machine| {
        let mut changes = LocalChanges::watch(Local::new().own_processes()).expect("we are root");
        let mut child = tokio::process::Command::new("nft")
            .args(["add", "table", "inet", "foreign"])
            .stdin(Stdio::null())
            .spawn()
            .expect("nft is there");
        let pid = child.id().expect("it runs");
        assert!(child.wait().await.expect("it ends").success());
        assert_eq!(
            next(&mut changes).await,
            LocalChange::Firewall(ChangedBy::Process { pid, name: "nft".to_owned() })
        );
    });
}

#[test]
fn our_own_changes_are_not_told() {
    inside("own-change", async |_machine| {
        let mut local = Local::new();
        let mut changes = LocalChanges::watch(local.own_processes()).expect("we are root");
        for command in [add_chain("ours"), delete_chain("ours"), nft("delete table inet t\n")] {
            assert!(local.run(&command).await.expect("it runs").succeeded());
        }
        quiet(&mut changes).await;
        let mut stranger = Local::new();
        assert!(stranger.run(&add_chain("theirs")).await.expect("it runs").succeeded());
        assert!(matches!(next(&mut changes).await, LocalChange::Firewall(_)));
        quiet(&mut changes).await;
    });
}

#[test]
fn a_transaction_is_over_when_the_kernel_has_taken_it() {
    inside("taken", async |machine| {
        let mut local = Local::new();
        let mut ready = Local::new().keep_ready();
        for command in [add_chain("ours"), delete_chain("ours")].iter().cycle().take(20) {
            let output = ready.run(command).await.expect("it runs");
            assert!(output.succeeded(), "{output:?}");
            assert!(runs("nft"), "the next one is ready");
        }
        let refused = ready.run(&delete_chain("none")).await.expect("it runs");
        assert!(refused.stderr.contains("No such file or directory"), "{refused:?}");
        drop(ready);
        wait_until(|| !runs("nft"), "nothing is left behind").await;
        let mut ended_later = 0;
        for _ in 0..20 {
            for (command, listed) in [(add_chain("ours"), true), (delete_chain("ours"), false)] {
                let output = local.run(&command).await.expect("it runs");
                assert!(output.succeeded(), "{output:?}");
                ended_later += usize::from(runs("nft"));
                let listing = machine.run("nft", &["list", "tables"]).expect("it lists");
                let chains = machine.run("nft", &["list", "chains"]).expect("it lists");
                assert_eq!(chains.contains("chain ours"), listed, "{listing} {chains}");
            }
            let refused = local.run(&delete_chain("none")).await.expect("it runs");
            assert_eq!(refused.status, Some(1));
            assert!(refused.stderr.contains("No such file or directory"), "{refused:?}");
        }
        let first = std::fs::read_link("/proc/self/ns/pid");
        if first.is_ok_and(|it| it.as_os_str() == "pid:[4026531836]") {
            assert!(ended_later > 0, "every change waited for the end of its program");
        }
    });
}

/// Whether a child of this process runs a program of this name.
fn runs(name: &str) -> bool {
    let own = std::process::id().to_string();
    let processes = std::fs::read_dir("/proc").expect("it is mounted").flatten();
    let mut stats = processes.filter_map(|it| std::fs::read_to_string(it.path().join("stat")).ok());
    stats.any(|it| {
        let parent = it.rsplit_once(") ").and_then(|(_, it)| it.split(' ').nth(1));
        it.contains(&format!("({name})")) && parent == Some(own.as_str())
    })
}

#[test]
fn a_change_of_iptables_is_told() {
    inside("iptables-change", async |_machine| {
        let mut changes = LocalChanges::watch(Local::new().own_processes()).expect("we are root");
        let command = Command::new(Program::Iptables).args(["-t", "nat", "-N", "THEIRS"]);
        assert!(Local::new().run(&command).await.expect("it runs").succeeded());
        assert!(matches!(
            next(&mut changes).await,
            LocalChange::Firewall(ChangedBy::Process { name, .. }) if name.starts_with("iptables")
        ));
    });
}

#[test]
fn ep_16_a_change_of_addresses_is_told() {
    inside("addresses", async |machine| {
        let mut changes = LocalChanges::watch(Local::new().own_processes()).expect("we are root");
        machine.run("ip", &["link", "add", "dummy", "type", "bridge"]).expect("it is added");
        assert_eq!(next(&mut changes).await, LocalChange::Addresses);
        for address in ["192.0.2.7/24", "2001:db8::7/64"] {
            for verb in ["add", "del"] {
                machine.run("ip", &["addr", verb, address, "dev", "dummy"]).expect("it runs");
                assert_eq!(next(&mut changes).await, LocalChange::Addresses, "{verb} {address}");
            }
        }
    });
}

#[test]
fn more_changes_than_can_be_kept_are_told_as_one_of_unknown_origin() {
    inside("flood", async |_machine| {
        let mut changes = LocalChanges::watch(Local::new().own_processes()).expect("we are root");
        let address = |it: u32| std::net::Ipv4Addr::from(0x0a00_0000 + it).to_string();
        let elements: Vec<String> = (0..60_000).map(address).collect();
        let document = format!(
            "add table inet t\nadd set inet t s {{ type ipv4_addr; }}\nflush set inet t s\n\
             add element inet t s {{ {} }}\n",
            elements.join(", ")
        );
        for _ in 0..3 {
            assert!(Local::new().run(&nft(&document)).await.expect("it runs").succeeded());
        }
        assert_eq!(next(&mut changes).await, LocalChange::Firewall(ChangedBy::Unknown));
        quiet(&mut changes).await;
    });
}

async fn next(changes: &mut LocalChanges) -> LocalChange {
    let next = tokio::time::timeout(Duration::from_secs(10), changes.next()).await;
    next.expect("within 10 seconds").expect("the kernel tells")
}

/// Sees that nothing more is told.
async fn quiet(changes: &mut LocalChanges) {
    let early = tokio::time::timeout(Duration::from_millis(100), changes.next()).await;
    assert!(early.is_err(), "{early:?}");
}

/// Runs `test` in a machine of its own.
fn inside(name: &str, test: impl AsyncFnOnce(&Machine) + Send) {
    let Some(lab) = testkit::require(Lab::as_root(name)) else { return };
    let machine = lab.machine("host").expect("the lab has a machine");
    let inside = machine.enter(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime").block_on(test(&machine));
    });
    inside.expect("the lab was made by root");
}
