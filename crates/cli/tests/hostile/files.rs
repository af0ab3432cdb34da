//! A directory of manifests that holds what no manifest should be.

use std::fs;
use std::os::unix::fs::symlink;

use testkit::Protocol::Tcp;
use testkit::border::{HOST, at};

use crate::objects;
use crate::place::{Place, write};
use crate::told;

#[test]
fn files_that_are_no_manifests_cost_nobody_else_anything() -> anyhow::Result<()> {
    let Some(place) = Place::build("files", "")? else { return Ok(()) };
    let at_file = |name: &str| place.manifests.path().join(name);
    // There before the program starts.
    fs::write(at_file("binary.yaml"), (0..=255).cycle().take(100_000).collect::<Vec<u8>>())?;
    symlink("circle.yaml", at_file("circle.yaml"))?;
    symlink("nowhere", at_file("dangling.yaml"))?;
    symlink("/dev/zero", at_file("endless.yaml"))?;
    fs::create_dir(at_file("folder.yaml"))?;
    for link in ["a", "b", "c", "d"] {
        symlink(".", at_file(link))?;
    }
    place.host().run("mkfifo", &[at_file("fifo.yaml").to_str().unwrap_or_default()])?;
    place.write("blog", &objects::blog())?;
    let controller = place.start()?;
    place.wait_reached(at(HOST, 443), Tcp)?;
    told::problem(&place, &["binary.yaml", "UTF-8", "remove it"])?;
    told::problem(&place, &["circle.yaml", "symbolic links", "remove it"])?;

    // And while it runs.
    let mut bomb =
        "apiVersion: v1\nkind: Service\nmetadata: { name: bomb, namespace: web }\na0: &a0 [x]\n"
            .to_owned();
    for depth in 1..12 {
        let before = format!("*a{}", depth - 1);
        bomb += &format!("a{depth}: &a{depth} [{}]\n", vec![before; 9].join(", "));
    }
    place.write("bomb", &bomb)?;
    told::problem(&place, &["bomb.yaml", "Service web/bomb", "too complex"])?;
    place.write("deep", &format!("apiVersion: v1\nkind: {}", "{a: ".repeat(50_000)))?;
    told::problem(&place, &["deep.yaml:2:"])?;
    fs::write(at_file("na\u{1b}[2J\nme.yaml"), "apiVersion: v1\nkind: [")?;
    told::problem(&place, &["na\\u{1b}[2J\\nme.yaml"])?;

    place
        .write("more", &objects::service("more", &[("portcullis.dev/host-ports", "444:30443")]))?;
    place.wait_reached(at(HOST, 444), Tcp)?;
    place.wait_reached(at(HOST, 443), Tcp)?;
    assert!(told::resident(controller.pid())? < 300, "{} MiB", told::resident(controller.pid())?);
    assert!(!controller.log().contains("panicked"), "{}", controller.log());
    assert!(!controller.log().contains("\u{1b}[2J"), "{}", controller.log());
    Ok(())
}

#[test]
fn a_file_that_is_truncated_keeps_what_it_said_last() -> anyhow::Result<()> {
    let Some(place) = Place::build("truncated", "")? else { return Ok(()) };
    place.write("blog", &objects::blog())?;
    let _controller = place.start()?;
    place.wait_reached(at(HOST, 443), Tcp)?;
    let whole = objects::blog();
    // As a full disk leaves it: cut in the middle of the spec.
    place.write("blog", &whole[..whole.len() - 20])?;
    told::problem(&place, &["blog.yaml", "Service web/blog", "stays in effect"])?;
    place
        .write("more", &objects::service("more", &[("portcullis.dev/host-ports", "444:30443")]))?;
    place.wait_reached(at(HOST, 444), Tcp)?;
    place.wait_reached(at(HOST, 443), Tcp)?;
    Ok(())
}

#[test]
fn a_broken_host_object_stops_nothing_that_is_in_force() -> anyhow::Result<()> {
    let Some(place) = Place::build("host-object", "")? else { return Ok(()) };
    place.write("blog", &objects::blog())?;
    let _controller = place.start()?;
    place.wait_reached(at(HOST, 443), Tcp)?;
    place.write("host", &objects::host("externalInteface: eth0"))?;
    told::problem(&place, &["host.yaml", "Host edge", "externalInteface", "correct its name"])?;
    place
        .write("more", &objects::service("more", &[("portcullis.dev/host-ports", "444:30443")]))?;
    place.wait_reached(at(HOST, 444), Tcp)?;
    place.wait_reached(at(HOST, 443), Tcp)?;
    Ok(())
}

#[test]
fn a_directory_that_goes_away_changes_nothing() -> anyhow::Result<()> {
    let Some(place) = Place::build("directory", "")? else { return Ok(()) };
    place.write("blog", &objects::blog())?;
    let _controller = place.start()?;
    place.wait_reached(at(HOST, 443), Tcp)?;
    let away = place.manifests.path().with_extension("away");
    fs::rename(place.manifests.path(), &away)?;
    told::problem(&place, &["cannot be read", "stays in effect", "may list"])?;
    place.wait_reached(at(HOST, 443), Tcp)?;
    fs::rename(&away, place.manifests.path())?;
    write(
        place.manifests.path(),
        "more",
        &objects::service("more", &[("portcullis.dev/host-ports", "444:30443")]),
    )?;
    place.wait_reached(at(HOST, 444), Tcp)?;
    Ok(())
}
