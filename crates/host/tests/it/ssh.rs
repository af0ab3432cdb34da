//! The standing session and the forced command.

use std::time::{Duration, Instant};

use command::{Command, Program};
use host::{Blame, Executor, LinkState, Mode, Ssh};

use super::local::wait_until;
use super::site::{Site, add_chain, failure, kill, list_links, nft, run_until_well};

#[test]
fn ep_12_the_pinned_key_is_accepted() {
    let Some(site) = Site::new("pinned-key", "apply") else { return };
    site.inside(async || {
        let mut ssh = Ssh::new(site.ssh_host());
        let output = ssh.run(&list_links()).await.expect("it runs");
        assert!(output.stdout.contains("\"ifname\":\"eth0\""), "{output:?}");
    });
}

#[test]
fn ep_12_another_host_key_is_refused_with_both_fingerprints() {
    let Some(site) = Site::new("other-host-key", "apply") else { return };
    let mut host = site.ssh_host();
    let other = Site::new("other-host", "apply").expect("as the first one");
    host.host_key = other.host_key();
    let error = site.inside(async || failure(Ssh::new(host), &list_links()).await);
    assert_eq!(
        error.to_string(),
        format!(
            "10.9.0.2 shows the host key {}, but {} is pinned; if the host was reinstalled, pin \
             its new key, otherwise somebody sits in between",
            site.host_key().fingerprint(),
            other.host_key().fingerprint(),
        )
    );
    assert_eq!((error.blame(), error.is_retryable()), (Blame::Configuration, true));
    // Nobody who is not the host learns who we are.
    let log = site.server.log();
    assert!(!log.contains("apply"), "{log}");
}

#[test]
fn ep_12_another_client_key_is_refused() {
    let Some(site) = Site::new("other-client-key", "apply") else { return };
    let mut host = site.ssh_host();
    let other = Site::new("other-client", "apply").expect("as the first one");
    host.client_key = other.ssh_host().client_key;
    let fingerprint = host.client_key.fingerprint();
    let error = site.inside(async || failure(Ssh::new(host), &list_links()).await);
    assert_eq!(
        error.to_string(),
        format!(
            "10.9.0.2 does not accept the key {fingerprint} for user `apply`; add its public half \
             to that user's authorized_keys"
        )
    );
}

#[test]
fn ep_12_a_hundred_commands_need_one_connection() {
    for user in ["apply", "nftables"] {
        let Some(site) = Site::new("one-connection", user) else { return };
        site.inside(async || {
            let mut ssh = Ssh::new(site.ssh_host());
            for _ in 0..100 {
                assert!(ssh.run(&list_links()).await.expect("it runs").succeeded());
            }
        });
        assert_eq!(site.connections(), 1, "{user}");
    }
}

#[test]
fn ep_12_the_forced_command_cannot_be_bypassed() {
    let Some(site) = Site::new("no-bypass", "apply") else { return };
    let mut host = site.ssh_host();
    // Asks for a shell line of its own, and gets the greeting loop, which knows no such request.
    host.mode = Mode::Sudo;
    let error = site.inside(async || {
        let mut ssh = Ssh::new(host);
        let output = ssh.run(&nft("add table inet bypassed\n")).await;
        output.map(|it| (it.status, it.stdout))
    });
    let (status, stdout) = error.expect("the loop ends by itself");
    assert_eq!(status, Some(1));
    assert!(stdout.contains(r#"{"answer":"bye","reason":"not a request"#), "{stdout}");
    let tables = site.host.run("nft", &["list", "tables"]).expect("nft lists");
    assert!(!tables.contains("bypassed"), "{tables}");
}

#[test]
fn ep_12_the_forced_command_refuses_what_its_check_refuses() {
    let Some(site) = Site::new("refused", "apply") else { return };
    let command = Command::new(Program::Sysctl).arg("-w").arg("kernel.sysrq=1");
    let error = site.inside(async || failure(Ssh::new(site.ssh_host()), &command).await);
    assert_eq!(
        error.to_string(),
        "10.9.0.2 refuses to run `sysctl -w kernel.sysrq=1`: `sysctl` is not for you"
    );
    assert!(!error.is_retryable());
}

#[test]
fn an_account_without_the_forced_command_is_told_what_it_lacks() {
    let Some(site) = Site::new("no-forced-command", "stranger") else { return };
    let error = site.inside(async || failure(Ssh::new(site.ssh_host()), &list_links()).await);
    let error = error.to_string();
    assert!(error.contains("user `stranger` does not run `portcullis host-apply`"), "{error}");
    assert!(error.contains(r#"restrict,command="portcullis host-apply""#), "{error}");
}

#[test]
fn ep_12_a_black_holed_host_costs_no_more_than_the_deadline_and_heals_by_itself() {
    for user in ["apply", "nftables"] {
        let Some(site) = Site::new("black-hole", user) else { return };
        site.inside(async || {
            let mut host = site.ssh_host();
            host.timing.command = Duration::from_millis(500);
            let mut ssh = Ssh::new(host);
            assert!(run_until_well(&mut ssh, &list_links()).await.succeeded());

            let cut = site.cut();
            for _ in 0..5 {
                let started = Instant::now();
                let error = ssh.run(&list_links()).await.expect_err("nobody answers");
                assert!(error.is_retryable(), "{error}");
                let took = started.elapsed();
                assert!(took < Duration::from_millis(700), "{took:?}: {error}");
            }
            // The silence is noticed and not mistaken for a slow host for ever.
            let mut link = ssh.watch_link();
            while link.current() == LinkState::Up {
                link.changed().await.expect("the executor is there");
            }

            drop(cut);
            assert!(run_until_well(&mut ssh, &list_links()).await.succeeded());
        });
    }
}

#[test]
fn ep_12_silence_is_noticed_without_a_command() {
    for user in ["apply", "nftables"] {
        let Some(site) = Site::new("silence", user) else { return };
        site.inside(async || {
            let mut ssh = Ssh::new(site.ssh_host());
            assert!(run_until_well(&mut ssh, &list_links()).await.succeeded());
            let _cut = site.cut();
            let begin = Instant::now();
            let mut link = ssh.watch_link();
            while link.current() == LinkState::Up {
                let change = tokio::time::timeout(Duration::from_secs(5), link.changed()).await;
                change.expect("within 5 seconds").expect("the executor is there");
            }
            assert!(begin.elapsed() < Duration::from_secs(3), "{:?}", begin.elapsed());
        });
    }
}

#[test]
fn ep_12_a_large_document_into_a_black_hole_costs_no_more_than_the_deadline() {
    let Some(site) = Site::new("black-hole-large", "apply") else { return };
    site.inside(async || {
        let mut host = site.ssh_host();
        host.timing.command = Duration::from_millis(500);
        let mut ssh = Ssh::new(host);
        assert!(run_until_well(&mut ssh, &list_links()).await.succeeded());
        let cut = site.cut();
        let document = nft(&"# nothing\n".repeat(200_000));
        for _ in 0..3 {
            let started = Instant::now();
            let error = ssh.run(&document).await.expect_err("nobody answers");
            let took = started.elapsed();
            assert!(took < Duration::from_millis(1000), "{took:?}: {error}");
        }
        drop(cut);
        assert!(run_until_well(&mut ssh, &list_links()).await.succeeded());
    });
}

#[test]
fn ep_12_a_host_that_never_answered_is_unreachable_within_the_deadline() {
    let Some(site) = Site::new("never-there", "apply") else { return };
    let _cut = site.cut();
    site.inside(async || {
        let mut host = site.ssh_host();
        host.timing.connect = Duration::from_millis(300);
        let started = Instant::now();
        let error = failure(Ssh::new(host), &list_links()).await;
        assert_eq!(error.to_string(), "cannot reach 10.9.0.2: no connection within 300ms");
        assert!(started.elapsed() < Duration::from_secs(1));
    });
}

#[test]
fn ep_08_a_restarted_sshd_is_found_again() {
    let Some(site) = Site::new("restart", "apply") else { return };
    site.inside(async || {
        let mut ssh = Ssh::new(site.ssh_host());
        assert!(run_until_well(&mut ssh, &list_links()).await.succeeded());
        site.server.kill();
        let error = ssh.run(&list_links()).await.expect_err("nobody is there");
        assert_eq!((error.blame(), error.is_retryable()), (Blame::Network, true), "{error}");
        site.server.restart().expect("it starts");
        assert!(run_until_well(&mut ssh, &list_links()).await.succeeded());
    });
}

#[test]
fn a_killed_host_apply_is_started_again() {
    let Some(site) = Site::new("killed-loop", "apply") else { return };
    site.inside(async || {
        let mut ssh = Ssh::new(site.ssh_host());
        assert!(run_until_well(&mut ssh, &list_links()).await.succeeded());
        for pid in site.processes("under-test serve") {
            kill(pid);
        }
        let mut link = ssh.watch_link();
        while link.current() == LinkState::Up {
            link.changed().await.expect("the executor is there");
        }
        assert!(run_until_well(&mut ssh, &list_links()).await.succeeded());
    });
}

#[test]
fn a_dropped_executor_leaves_nothing_on_the_host() {
    let Some(site) = Site::new("dropped", "apply") else { return };
    site.inside(async || {
        let mut ssh = Ssh::new(site.ssh_host());
        assert!(run_until_well(&mut ssh, &list_links()).await.succeeded());
        assert!(!site.processes("sshd: apply").is_empty(), "there was something to leave");
        drop(ssh);
        let gone = || ["sshd: apply", "under-test"].iter().all(|it| site.processes(it).is_empty());
        wait_until(gone, "nothing of the session runs").await;
    });
}

#[test]
fn output_over_the_limit_does_not_end_the_session() {
    for user in ["apply", "nftables"] {
        let Some(site) = Site::new("long-output", user) else { return };
        site.inside(async || {
            let mut host = site.ssh_host();
            host.limits.stdout = 100;
            let mut ssh = Ssh::new(host);
            let error = ssh.run(&list_links()).await.expect_err("it is longer");
            assert_eq!(
                error.to_string(),
                "`ip -j link show eth0` on 10.9.0.2 wrote more than 100 bytes"
            );
            assert!(ssh.run(&add_chain("c")).await.expect("it runs").succeeded());
        });
        assert_eq!(site.connections(), 1, "{user}");
    }
}

#[test]
fn a_large_document_passes() {
    for user in ["apply", "nftables"] {
        let Some(site) = Site::new("large", user) else { return };
        site.inside(async || {
            let mut ssh = Ssh::new(site.ssh_host());
            let document =
                nft(&format!("{}add table inet {user}\n", "# nothing\n".repeat(500_000)));
            assert!(ssh.run(&document).await.expect("it runs").succeeded());
        });
        let tables = site.host.run("nft", &["list", "tables"]).expect("nft lists");
        assert!(tables.contains(user), "{tables}");
    }
}

#[test]
fn a_dropped_request_does_not_disturb_the_next() {
    for user in ["apply", "nftables"] {
        let Some(site) = Site::new("dropped-request", user) else { return };
        site.inside(async || {
            let mut ssh = Ssh::new(site.ssh_host());
            assert!(run_until_well(&mut ssh, &list_links()).await.succeeded());
            for _ in 0..20 {
                let add = add_chain("dropped");
                let _ = tokio::time::timeout(Duration::from_millis(1), ssh.run(&add)).await;
                let output = ssh.run(&list_links()).await.expect("it runs");
                assert!(output.stdout.contains("eth0"), "{output:?}");
            }
        });
    }
}
