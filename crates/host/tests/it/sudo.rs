//! Single programs through sudo.

use std::time::{Duration, Instant};

use command::{Command, Program};
use host::{Blame, Executor, Ssh};

use super::local::{wait_until, write_program};
use super::site::{Site, add_chain, delete_chain, failure, list_links, run_until_well};

#[test]
fn ep_12_a_refused_sudo_names_the_line_that_is_missing() {
    for user in ["nobody-special", "epok"] {
        let Some(site) = Site::new("sudo-refused", user) else { return };
        let error = site.inside(async || failure(Ssh::new(site.ssh_host()), &add_chain("c")).await);
        let text = error.to_string();
        let line = format!(
            "/etc/sudoers.d/portcullis there: {user} ALL=(root) NOPASSWD: /usr/sbin/nft -f -"
        );
        assert!(text.ends_with(&line), "{text}");
        assert_eq!((error.blame(), error.is_retryable()), (Blame::Host, true));
    }
}

#[test]
fn programs_that_need_no_root_need_no_sudo() {
    let Some(site) = Site::new("no-sudo", "nobody-special") else { return };
    site.inside(async || {
        let mut ssh = Ssh::new(site.ssh_host());
        assert!(ssh.run(&list_links()).await.expect("it runs").succeeded());
        // Outside of an ordinary account's PATH.
        let sysctl = Command::new(Program::Sysctl).args(["-n", "net.ipv4.ip_forward"]);
        assert_eq!(ssh.run(&sysctl).await.expect("it runs").stdout, "0\n");
    });
}

#[test]
fn the_predecessors_sudoers_line_is_enough_for_iptables() {
    let Some(site) = Site::new("epok-sudoers", "epok") else { return };
    site.inside(async || {
        let mut ssh = Ssh::new(site.ssh_host());
        let restore = Command::new(Program::IptablesRestore)
            .args(["--noflush", "--wait", "5"])
            .stdin("*nat\n:PORTCULLIS - [0:0]\n-A PORTCULLIS -j RETURN\nCOMMIT\n");
        let output = ssh.run(&restore).await.expect("it runs");
        assert!(output.succeeded(), "{output:?}");
        let save = Command::new(Program::IptablesSave).args(["-t", "nat"]);
        let output = ssh.run(&save).await.expect("it runs");
        assert!(output.stdout.contains("-A PORTCULLIS -j RETURN"), "{output:?}");
    });
}

#[test]
fn what_nft_complains_about_is_an_output() {
    let Some(site) = Site::new("nft-complains", "nftables") else { return };
    site.inside(async || {
        let mut ssh = Ssh::new(site.ssh_host());
        let output = ssh.run(&delete_chain("none")).await.expect("it runs");
        assert_eq!(output.status, Some(1));
        assert!(output.stderr.contains("No such file or directory"), "{output:?}");
    });
}

#[test]
fn the_next_transaction_finds_its_program_waiting() {
    let Some(site) = Site::new("standby", "nftables") else { return };
    site.inside(async || {
        let mut ssh = Ssh::new(site.ssh_host());
        for _ in 0..3 {
            for (change, there) in [(add_chain("c"), true), (delete_chain("c"), false)] {
                let waiting = site.processes(WAITING);
                let output = ssh.run(&change).await.expect("it runs");
                assert!(output.succeeded(), "{output:?}");
                assert_eq!(site.has_chain("c"), there);
                let gone = || !site.processes(WAITING).iter().any(|it| waiting.contains(it));
                wait_until(gone, "what waited did the work").await;
                wait_until(|| !site.processes(WAITING).is_empty(), "another one waits").await;
            }
        }
        // Somebody else ended it: the next change has a program of its own.
        for pid in site.processes(WAITING) {
            // Those that wait for it are gone with it, perhaps before their turn.
            let _gone = site.host.run("kill", &[&pid.to_string()]);
        }
        wait_until(|| site.processes(WAITING).is_empty(), "it is gone").await;
        assert!(ssh.run(&list_links()).await.expect("it runs").succeeded());
        assert!(ssh.run(&add_chain("d")).await.expect("it runs").succeeded());
        assert!(site.has_chain("d"));
        drop(ssh);
        wait_until(|| site.processes(WAITING).is_empty(), "nothing is left behind").await;
    });
}

#[test]
fn a_host_with_room_for_one_program_is_changed_all_the_same() {
    let Some(site) = Site::with("one-program", "nftables", "MaxSessions 1") else { return };
    site.inside(async || {
        let mut ssh = Ssh::new(site.ssh_host());
        for _ in 0..3 {
            for change in [add_chain("c"), list_links(), delete_chain("c")] {
                let output = ssh.run(&change).await.expect("it runs");
                assert!(output.succeeded(), "{output:?}");
            }
        }
    });
}

/// What the command lines have of what waits for the next transaction.
const WAITING: &str = "nft -f -";

#[test]
fn ep_12_a_hanging_command_ends_at_the_deadline_and_the_next_one_runs() {
    let dir = tempfile::tempdir().expect("a directory");
    let hangs = dir.path().join("nft");
    write_program(&hangs, "exec sleep 60");
    let hangs = hangs.display().to_string();
    for user in ["apply", "nftables"] {
        let Some(site) = Site::new("hanging", user) else { return };
        site.host.run("mount", &["--bind", &hangs, "/usr/sbin/nft"]).expect("nft hangs");
        site.inside(async || {
            let mut host = site.ssh_host();
            host.timing.command = Duration::from_millis(800);
            let mut ssh = Ssh::new(host);
            run_until_well(&mut ssh, &list_links()).await;
            let started = Instant::now();
            let error = ssh.run(&add_chain("c")).await.expect_err("it hangs");
            assert!(started.elapsed() < Duration::from_millis(1200), "{:?}", started.elapsed());
            assert!(error.to_string().starts_with("`nft -f -` on 10.9.0.2 did not end"), "{error}");
            assert!(ssh.run(&list_links()).await.expect("the session is well").succeeded());
        });
    }
}
