//! Changes that are rolled back unless confirmed over a fresh connection.

use std::time::{Duration, Instant};

use host::{ConfirmedChange, Executor, Ssh};

use super::local::wait_until;
use super::site::{Site, add_chain, delete_chain, kill, list_links, nft, run_until_well};

const WAYS: [&str; 2] = ["apply", "nftables"];

#[test]
fn a_confirmed_change_stays() {
    for user in WAYS {
        let Some(site) = Site::new("confirmed", user) else { return };
        site.inside(async || {
            let mut ssh = Ssh::new(site.ssh_host());
            let outputs = ssh.run_confirmed(&change(user, 2000)).await.expect("it is confirmed");
            assert_eq!(outputs.len(), 1);
            assert!(outputs[0].succeeded(), "{outputs:?}");
            // Nothing is left that could still roll it back.
            tokio::time::sleep(Duration::from_millis(2500)).await;
            assert!(site.has_chain(user));
            assert!(run_until_well(&mut ssh, &delete_chain(user)).await.succeeded());
        });
        assert_eq!(site.connections(), 2, "{user}: one to confirm over");
    }
}

#[test]
fn a_change_that_cuts_us_off_is_rolled_back() {
    for user in WAYS {
        let Some(site) = Site::new("cut-off", user) else { return };
        site.inside(async || {
            let mut ssh = Ssh::new(site.ssh_host());
            let cut_off = ConfirmedChange {
                apply: vec![nft("add table inet t\n\
                     add chain inet t cut { type filter hook prerouting priority -400; }\n\
                     add rule inet t cut ip saddr 10.9.0.1 drop\n")],
                rollback: vec![nft("flush chain inet t cut\ndelete chain inet t cut\n")],
                within: Duration::from_millis(1500),
            };
            let error = ssh.run_confirmed(&cut_off).await.expect_err("we are cut off");
            assert!(error.is_retryable(), "{error}");
            wait_until(|| !site.has_chain("cut"), "the change is rolled back").await;
            assert!(run_until_well(&mut ssh, &list_links()).await.succeeded());
        });
    }
}

#[test]
fn a_change_is_rolled_back_when_the_client_dies() {
    for user in WAYS {
        let Some(site) = Site::new("client-dies", user) else { return };
        site.inside(async || {
            let mut ssh = Ssh::new(site.ssh_host());
            assert!(run_until_well(&mut ssh, &list_links()).await.succeeded());
            give_up_unconfirmed(&site, ssh, user).await;
            wait_until(|| !site.has_chain(user), "the change is rolled back").await;
        });
    }
}

#[test]
fn a_change_is_rolled_back_when_everything_of_the_session_dies_on_the_host() {
    let Some(site) = Site::new("host-side-dies", "apply") else { return };
    site.inside(async || {
        let mut ssh = Ssh::new(site.ssh_host());
        assert!(run_until_well(&mut ssh, &list_links()).await.succeeded());
        let change = change("apply", 3000);
        let begun = Instant::now();
        let hold = async {
            // The fresh connection finds nobody: sshd takes no new ones.
            wait_until(|| site.has_chain("apply"), "the change is made").await;
            for pid in site.processes("under-test serve") {
                kill(pid);
            }
            site.server.kill();
        };
        let (result, ()) = tokio::join!(ssh.run_confirmed(&change), hold);
        let error = result.expect_err("nobody is there");
        assert!(error.is_retryable(), "{error}");
        wait_until(|| !site.has_chain("apply"), "the change is rolled back").await;
        assert!(begun.elapsed() >= Duration::from_secs(3), "{:?}", begun.elapsed());
        site.server.restart().expect("it starts");
        assert!(run_until_well(&mut ssh, &list_links()).await.succeeded());
    });
}

#[test]
fn a_change_is_rolled_back_even_when_the_process_that_waits_is_killed() {
    let Some(site) = Site::new("waiting-dies", "apply") else { return };
    site.inside(async || {
        let mut ssh = Ssh::new(site.ssh_host());
        assert!(run_until_well(&mut ssh, &list_links()).await.succeeded());
        give_up_unconfirmed(&site, ssh, "apply").await;
        for pid in site.processes("under-test rollback") {
            kill(pid);
        }
        tokio::time::sleep(Duration::from_millis(1500)).await;
        assert!(site.has_chain("apply"), "nobody is there to roll it back");
        // The next session finds the orphan.
        let mut ssh = Ssh::new(site.ssh_host());
        assert!(run_until_well(&mut ssh, &list_links()).await.succeeded());
        wait_until(|| !site.has_chain("apply"), "the change is rolled back").await;
    });
}

#[test]
fn nothing_else_changes_while_a_change_waits() {
    let Some(site) = Site::new("waits", "apply") else { return };
    site.inside(async || {
        let mut ssh = Ssh::new(site.ssh_host());
        assert!(run_until_well(&mut ssh, &list_links()).await.succeeded());
        give_up_unconfirmed(&site, ssh, "apply").await;
        let mut ssh = Ssh::new(site.ssh_host());
        assert!(run_until_well(&mut ssh, &list_links()).await.succeeded(), "reading is no change");
        for error in [
            ssh.run(&add_chain("other")).await.expect_err("it waits"),
            ssh.run_confirmed(&change("other", 1000)).await.expect_err("it waits"),
        ] {
            let text = error.to_string();
            assert!(text.contains("waits for the confirmation of an earlier change"), "{text}");
            assert!(error.is_retryable());
        }
        wait_until(|| !site.has_chain("apply"), "the change is rolled back").await;
        assert!(run_until_well(&mut ssh, &add_chain("other")).await.succeeded());
    });
}

#[test]
fn a_change_that_is_refused_leaves_nothing_behind() {
    for user in WAYS {
        let Some(site) = Site::new("refused-change", user) else { return };
        site.inside(async || {
            let mut ssh = Ssh::new(site.ssh_host());
            let mut refused = change(user, 1000);
            refused.apply = vec![nft("add chain inet nowhere c\n")];
            refused.rollback = vec![add_chain("rolled-back")];
            let outputs = ssh.run_confirmed(&refused).await.expect("it runs");
            assert_eq!(outputs.last().map(|it| it.status), Some(Some(1)));

            refused.apply.insert(0, add_chain("half"));
            let outputs = ssh.run_confirmed(&refused).await.expect("it runs");
            assert_eq!(outputs.iter().map(|it| it.status).collect::<Vec<_>>(), [Some(0), Some(1)]);
            assert!(site.has_chain("rolled-back"), "half a change is taken back at once");

            let reset = nft("delete table inet t\n");
            assert!(ssh.run(&reset).await.expect("it runs").succeeded());
            tokio::time::sleep(Duration::from_millis(1500)).await;
            assert!(!site.has_chain("rolled-back"), "and not once more later");
        });
    }
}

#[test]
fn iptables_through_sudo_cannot_be_confirmed_and_says_so() {
    let Some(site) = Site::new("iptables-confirmed", "epok") else { return };
    site.inside(async || {
        let mut ssh = Ssh::new(site.ssh_host());
        let restore = command::Command::new(command::Program::IptablesRestore).arg("--noflush");
        let change = ConfirmedChange {
            apply: vec![restore.clone()],
            rollback: vec![restore],
            within: Duration::from_secs(1),
        };
        let error = ssh.run_confirmed(&change).await.expect_err("it cannot be");
        assert_eq!(
            error.to_string(),
            "a change on 10.9.0.2 cannot be made with confirmation: through sudo only nftables \
             can be rolled back by the host alone, not `iptables-restore --noflush`; use the \
             forced command, or no confirmation"
        );
    });
}

fn change(chain: &str, within_ms: u64) -> ConfirmedChange {
    ConfirmedChange {
        apply: vec![add_chain(chain)],
        rollback: vec![delete_chain(chain)],
        within: Duration::from_millis(within_ms),
    }
}

/// Makes the change and disappears before it can be confirmed, as with `kill -9`.
async fn give_up_unconfirmed(site: &Site, mut ssh: Ssh, chain: &str) {
    let change = change(chain, 1500);
    tokio::select! {
        biased;
        () = wait_until(|| site.has_chain(chain), "the change is made") => {}
        result = ssh.run_confirmed(&change) => panic!("confirmed before we looked: {result:?}"),
    }
}
