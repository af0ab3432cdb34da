//! What others change is repaired, what fails is tried again, what is unknown is left alone.

use testkit::Protocol::Tcp;
use testkit::border::{HOST, at};
use testkit::wait;

use crate::objects;
use crate::place::{PATIENCE, Place};

#[test]
fn ep07_rules_deleted_by_hand_come_back_without_an_event_of_the_cluster() -> anyhow::Result<()> {
    for backend in ["nftables", "iptables"] {
        let Some(place) = Place::build("drift", &format!("backend: {backend}"))? else {
            return Ok(());
        };
        place.write("blog", &objects::blog())?;
        let _controller = place.start_with(&["--resync", "1"])?;
        place.wait_reached(at(HOST, 443), Tcp)?;

        match backend {
            "nftables" => place.border.host.nft("delete table inet portcullis")?,
            _ => drop(place.border.host.run("iptables", &["-t", "nat", "-F"])?),
        }

        place.wait_reached(at(HOST, 443), Tcp)?;
        let drift = wait::until_ok("drift is counted", PATIENCE, || {
            Ok(place.status()?["hosts"]["edge"]["driftRepaired"].as_u64().filter(|it| *it > 0))
        })?;
        assert_eq!(drift, 1, "{backend}: one deed by hand is one drift");
    }
    Ok(())
}

#[test]
fn ep07_a_rule_added_by_hand_to_our_table_is_removed() -> anyhow::Result<()> {
    let Some(place) = Place::build("added", "")? else { return Ok(()) };
    place.write("blog", &objects::blog())?;
    let _controller = place.start()?;
    place.wait_reached(at(HOST, 443), Tcp)?;
    let before = place.host().run("nft", &["list", "table", "inet", "portcullis"])?;

    place
        .host()
        .nft("add rule inet portcullis nat-prerouting tcp dport 9999 counter redirect to :22")?;

    wait::until_ok("the rule is gone", PATIENCE, || {
        let now = place.host().run("nft", &["list", "table", "inet", "portcullis"])?;
        Ok((now == before).then_some(()))
    })
}

#[test]
fn ep08_an_executor_that_fails_is_tried_again_until_it_works() -> anyhow::Result<()> {
    let Some(place) = Place::build("retry", "")? else { return Ok(()) };
    place.write("blog", &objects::blog())?;
    // Somebody owns a table of our name that is not like ours and that cannot be listed as ours.
    let programs = place.manifests.path().join("programs");
    std::fs::create_dir(&programs)?;
    let broken = programs.join("nft");
    std::os::unix::fs::symlink("/bin/false", &broken)?;
    // The program looks in the system's own directories, so the broken one is mounted over it.
    let nft = std::fs::canonicalize("/usr/sbin/nft")?;
    let nft = nft.to_str().unwrap_or_default();
    place.host().run("mount", &["--bind", "/bin/false", nft])?;

    let controller = place.start()?;
    let error = wait::until_ok("the failure is told", PATIENCE, || {
        let status = place.status();
        let error =
            status.ok().and_then(|it| it["hosts"]["edge"]["lastError"].as_str().map(str::to_owned));
        controller.check_alive()?;
        Ok(error)
    })?;
    assert!(error.contains("nft"), "{error}");
    let ready = place.host().output(
        "curl",
        &["-s", "-o", "/dev/null", "-w", "%{http_code}", "http://127.0.0.1:9180/readyz"],
        "",
    )?;
    assert_eq!(ready.stdout, "503", "not ready while the host is not up to date");

    place.host().run("umount", &[nft])?;
    place.wait_reached(at(HOST, 443), Tcp)?;
    Ok(())
}

#[test]
fn ep09_nothing_is_removed_while_the_manifests_cannot_be_read() -> anyhow::Result<()> {
    let Some(place) = Place::build("unreadable", "")? else { return Ok(()) };
    place.write("blog", &objects::blog())?;
    let controller = place.start()?;
    place.wait_reached(at(HOST, 443), Tcp)?;
    drop(controller);

    place.write("blog", "kind: Service\nmetadata: [this is no mapping")?;
    let controller = place.start()?;
    wait::until_ok("the controller has looked at the host", PATIENCE, || {
        controller.check_alive()?;
        let status = place.status().ok();
        Ok(status.filter(|it| it["hosts"]["edge"]["revision"].as_u64() > Some(0)))
    })?;
    place.wait_reached(at(HOST, 443), Tcp)?;
    let problems = place.status()?["problems"].to_string();
    assert!(problems.contains("blog.yaml"), "{problems}");
    Ok(())
}

#[test]
fn ep11_a_malformed_annotation_keeps_the_last_good_state_and_harms_nobody_else()
-> anyhow::Result<()> {
    let Some(place) = Place::build("malformed", "")? else { return Ok(()) };
    place.write("blog", &objects::blog())?;
    let _controller = place.start()?;
    place.wait_reached(at(HOST, 443), Tcp)?;

    let hostile = "443:30443, $(touch /tmp/owned); nft flush ruleset";
    place.write("blog", &objects::service("blog", &[("portcullis.dev/host-ports", hostile)]))?;
    place
        .write("shop", &objects::service("shop", &[("portcullis.dev/host-ports", "8443:30443")]))?;

    place.wait_reached(at(HOST, 8443), Tcp)?;
    place.wait_reached(at(HOST, 443), Tcp)?;
    let finding = wait::until_ok("the finding is told", PATIENCE, || {
        let status = place.status()?;
        Ok(status["findings"].as_array().and_then(|it| it.first().cloned()))
    })?;
    assert_eq!(finding["object"]["name"], "blog");
    assert_eq!(finding["field"], "portcullis.dev/host-ports");
    for part in ["value", "problem", "remedy"] {
        assert!(finding[part].as_str().is_some_and(|it| !it.is_empty()), "{part}: {finding}");
    }
    assert!(!std::path::Path::new("/tmp/owned").exists());

    place
        .write("blog", &objects::service("blog", &[("portcullis.dev/host-ports", "444:30443")]))?;
    place.wait_reached(at(HOST, 444), Tcp)?;
    place.wait_closed(at(HOST, 443), Tcp)?;
    Ok(())
}

#[test]
fn ep19_metrics_health_plan_and_cleanup_tell_the_truth() -> anyhow::Result<()> {
    let Some(place) = Place::build("pages", "")? else { return Ok(()) };
    place.write("blog", &objects::blog())?;
    let manifests = place.manifests.path().to_str().unwrap_or_default();
    let plan = place.run(&["plan", "--manifests", manifests, "--host", "edge", "--live"])?;
    assert!(plan.contains("443/tcp") && plan.contains("web/blog"), "{plan}");
    assert!(
        place.host().run("nft", &["list", "ruleset"])?.trim().is_empty(),
        "a plan changes nothing"
    );

    let _controller = place.start()?;
    place.wait_reached(at(HOST, 443), Tcp)?;
    let page =
        |path: &str| place.host().run("curl", &["-sf", &format!("http://127.0.0.1:9180{path}")]);
    assert_eq!(page("/healthz")?, "ok\n");
    wait::until_ok("readiness", PATIENCE, || Ok(page("/readyz").ok().filter(|it| it == "ok\n")))?;
    let metrics = page("/metrics")?;
    assert!(metrics.contains("portcullis_forwards{host=\"edge\"} 1"), "{metrics}");
    let plan = place.run(&[
        "plan",
        "--manifests",
        manifests,
        "--host",
        "edge",
        "--live",
        "--output",
        "json",
    ])?;
    let plan: serde_json::Value = serde_json::from_str(&plan)?;
    assert!(plan.to_string().contains("\"steps\":[]"), "nothing is left to do: {plan}");

    drop(_controller);
    place.run(&["cleanup"])?;
    assert!(place.host().run("nft", &["list", "ruleset"])?.trim().is_empty());
    place.run(&["cleanup"])?; // cleaning a clean host is fine
    Ok(())
}
