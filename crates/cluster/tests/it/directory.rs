//! Following a real directory.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use api::object::{ObjectKind, ObjectRef};
use cluster::manifests::{Settings, read, watch};
use cluster::source::State;
use planner::cluster_view::{Change, Object};
use tempfile::TempDir;

use crate::site::{Follower, LIMIT};

#[tokio::test]
async fn an_empty_directory_is_complete() -> Result<()> {
    let (_directory, mut follower) = follow()?;
    follower.until("every kind is listed", |it| it.health().is_complete()).await?;
    follower.until("five empty sets", |it| it.resets.len() == 5).await?;
    assert!(follower.objects.is_empty());
    Ok(())
}

#[tokio::test]
async fn files_come_change_move_and_go() -> Result<()> {
    let (directory, mut follower) = follow()?;
    let at = |it: &str| directory.path().join(it);
    follower.until("followed", |it| it.health().is_current()).await?;

    fs::write(at("a.yaml"), node("n1", "10.0.0.1"))?;
    follower.until("n1 is there", |it| address(it, "n1") == "10.0.0.1").await?;
    // As editors do it: a new file takes the place of the old one.
    fs::write(at(".a.yaml.swp"), node("n1", "10.0.0.2"))?;
    fs::rename(at(".a.yaml.swp"), at("a.yaml"))?;
    follower.until("n1 has moved", |it| address(it, "n1") == "10.0.0.2").await?;
    // Into a new folder, and out of it.
    fs::create_dir_all(at("deep/er"))?;
    fs::rename(at("a.yaml"), at("deep/er/a.yaml"))?;
    fs::write(at("deep/er/b.yml"), node("n2", "10.0.0.3"))?;
    follower.until("n2 is there", |it| address(it, "n2") == "10.0.0.3").await?;
    assert_eq!(address(&follower, "n1"), "10.0.0.2");
    fs::remove_dir_all(at("deep"))?;
    follower.until("both are gone", |it| it.objects.is_empty()).await?;
    assert!(follower.resets.values().all(|it| *it == 1), "{:?}", follower.resets);
    Ok(())
}

#[test]
fn links_that_lead_back_cost_nothing() -> Result<()> {
    let directory = TempDir::new()?;
    let at = |it: &str| directory.path().join(it);
    fs::write(at("a.yaml"), node("n1", "10.0.0.1"))?;
    for link in ["one", "two", "three", "four"] {
        symlink(".", at(link))?;
    }
    // Two ways into every folder: 2^16 ways to the last.
    for depth in 0..16 {
        fs::create_dir(at(&format!("d{depth}")))?;
        for link in ["left", "right"] {
            symlink(format!("../d{}", depth + 1), at(&format!("d{depth}/{link}")))?;
        }
    }
    fs::create_dir(at("d16"))?;
    fs::write(at("d16/b.yaml"), node("n2", "10.0.0.2"))?;

    let (changes, problems) = read(&[directory.path().to_owned()])?;
    let nodes = changes.iter().find_map(|it| match it {
        Change::Reset(ObjectKind::Node, nodes) => Some(nodes.len()),
        Change::Reset(..) | Change::Applied(_) | Change::Deleted(_) => None,
    });
    assert_eq!((nodes, problems.len()), (Some(2), 0), "{problems:?}");
    Ok(())
}

#[tokio::test]
async fn the_directory_itself_may_be_a_link() -> Result<()> {
    let directory = TempDir::new()?;
    let at = |it: &str| directory.path().join(it);
    fs::create_dir(at("real"))?;
    symlink("real", at("link"))?;
    let mut follower = start(&at("link"));
    follower.until("followed", |it| it.health().is_current()).await?;
    fs::write(at("real/a.yaml"), node("n1", "10.0.0.1"))?;
    follower.until("n1 is there", |it| address(it, "n1") == "10.0.0.1").await
}

#[test]
fn a_hostile_name_of_a_file_stays_on_one_line() -> Result<()> {
    let directory = TempDir::new()?;
    fs::write(directory.path().join("a\u{1b}[2J\nerror: \u{202e}b.yaml"), "x: [")?;
    let (_, problems) = read(&[directory.path().to_owned()])?;
    let told: Vec<_> = problems.iter().map(ToString::to_string).collect();
    assert_eq!(told.len(), 1);
    assert!(told[0].contains(r"a\u{1b}[2J\nerror: \u{202e}b.yaml:1:"), "{told:?}");
    Ok(())
}

#[tokio::test]
async fn a_file_is_not_read_before_its_writer_has_finished() -> Result<()> {
    use std::io::Write as _;
    let (directory, mut follower) = follow()?;
    let path = directory.path().join("a.yaml");
    let text = [node("n1", "10.0.0.1"), node("n2", "10.0.0.1")].join("---\n");
    fs::write(&path, &text)?;
    follower.until("both are there", |it| it.objects.len() == 2).await?;

    // Written in place, in pieces: at no time is one of the two gone.
    for round in 0..5 {
        let mut file = fs::File::create(&path)?;
        let text = text.replace("10.0.0.1", &format!("10.0.1.{round}"));
        for piece in text.as_bytes().chunks(40) {
            file.write_all(piece)?;
            follower.during(Duration::from_millis(15)).await;
            assert_eq!(follower.objects.len(), 2);
        }
        drop(file);
        let now = format!("10.0.1.{round}");
        follower.until("the new text", |it| address(it, "n2") == now).await?;
    }
    assert_eq!(follower.health().problems.len(), 0);
    Ok(())
}

#[tokio::test]
async fn a_mounted_config_map_is_followed() -> Result<()> {
    let (directory, mut follower) = follow()?;
    let at = |it: &str| directory.path().join(it);
    let publish = |version: &str, node: String| -> Result<()> {
        fs::create_dir(at(version))?;
        fs::write(at(version).join("a.yaml"), node)?;
        symlink(version, at("..data_tmp"))?;
        fs::rename(at("..data_tmp"), at("..data"))?;
        Ok(())
    };
    publish("..2026_1", node("n1", "10.0.0.1"))?;
    symlink("..data/a.yaml", at("a.yaml"))?;
    follower.until("n1 is there", |it| address(it, "n1") == "10.0.0.1").await?;
    publish("..2026_2", node("n1", "10.0.0.2"))?;
    follower.until("n1 has changed", |it| address(it, "n1") == "10.0.0.2").await?;
    assert_eq!(follower.health().problems.len(), 0, "nothing is read twice");
    Ok(())
}

#[tokio::test]
async fn a_directory_that_is_not_there_is_waited_for_and_one_that_goes_away_changes_nothing()
-> Result<()> {
    let parent = TempDir::new()?;
    let path = parent.path().join("manifests");
    let mut follower = start(&path);
    follower.until("it is reported", |it| it.health().problems.len() == 1).await?;
    assert!(!follower.health().is_complete());
    assert!(follower.resets.is_empty());

    fs::create_dir(&path)?;
    fs::write(path.join("a.yaml"), node("n1", "10.0.0.1"))?;
    follower.until("n1 is there", |it| address(it, "n1") == "10.0.0.1").await?;

    // As when a file system is unmounted.
    fs::rename(&path, parent.path().join("away"))?;
    let state = |it: &Follower| it.health().kinds[&ObjectKind::Node].state;
    follower.until("it is reported", |it| state(it) == State::Retrying).await?;
    assert_eq!(address(&follower, "n1"), "10.0.0.1");

    fs::create_dir(&path)?;
    fs::write(path.join("a.yaml"), node("n1", "10.0.0.2"))?;
    follower.until("n1 has changed", |it| address(it, "n1") == "10.0.0.2").await?;
    follower.until("all is well", |it| it.health().is_current()).await?;
    fs::write(path.join("a.yaml"), node("n1", "10.0.0.3"))?;
    follower.until("the new directory is watched", |it| address(it, "n1") == "10.0.0.3").await?;
    assert_eq!(follower.health().problems.len(), 0);
    Ok(())
}

#[tokio::test]
async fn a_broken_file_is_reported_and_keeps_its_objects() -> Result<()> {
    let (directory, mut follower) = follow()?;
    let at = |it: &str| directory.path().join(it);
    fs::write(at("a.yaml"), node("n1", "10.0.0.1"))?;
    follower.until("n1 is there", |it| address(it, "n1") == "10.0.0.1").await?;

    fs::write(at("a.yaml"), "apiVersion: v1\nkind: Node\nmetadata: {name: n1\n")?;
    fs::write(at("b.yaml"), node("n2", "10.0.0.2"))?;
    follower.until("n2 is there", |it| address(it, "n2") == "10.0.0.2").await?;
    follower.until("it is reported", |it| it.health().problems.len() == 1).await?;
    assert_eq!(address(&follower, "n1"), "10.0.0.1");
    let problem = follower.health().problems.first().map(ToString::to_string).unwrap_or_default();
    assert!(problem.starts_with("a.yaml:3:11: Node n1: "), "{problem}");

    fs::remove_file(at("a.yaml"))?;
    follower.until("n1 is gone", |it| address(it, "n1").is_empty()).await?;
    follower.until("all is well", |it| it.health().problems.is_empty()).await
}

#[test]
fn reading_once_takes_files_and_directories() -> Result<()> {
    let directory = TempDir::new()?;
    let at = |it: &str| directory.path().join(it);
    fs::create_dir(at("more"))?;
    fs::write(at("more/a.yaml"), node("n1", "10.0.0.1"))?;
    // Named by the user, so its own name does not matter.
    fs::write(at("listing.txt"), node("n2", "10.0.0.2"))?;
    let (changes, problems) = read(&[at("more"), at("listing.txt")])?;
    let nodes = changes.into_iter().map(|it| match it {
        Change::Reset(_, objects) => objects.len(),
        Change::Applied(_) | Change::Deleted(_) => panic!("only complete sets"),
    });
    assert_eq!(nodes.sum::<usize>(), 2);
    assert!(problems.is_empty(), "{problems:?}");

    let missing = read(&[at("none.yaml")]).expect_err("there is no such file").to_string();
    assert!(missing.ends_with("none.yaml"), "{missing}");
    Ok(())
}

fn follow() -> Result<(TempDir, Follower)> {
    let directory = TempDir::new()?;
    let follower = start(directory.path());
    Ok((directory, follower))
}

fn start(path: &Path) -> Follower {
    // Nothing here is found by looking now and then, except a directory that was not there.
    let settings = Settings { rescan: LIMIT * 2, poll: Duration::from_millis(20) };
    Follower::new(watch(path, &settings))
}

fn node(name: &str, address: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Node\nmetadata: {{ name: {name} }}\n\
         status: {{ addresses: [{{ type: InternalIP, address: {address} }}] }}\n"
    )
}

fn address(follower: &Follower, name: &str) -> String {
    let reference = ObjectRef::cluster(ObjectKind::Node, name);
    let Some(Object::Node(node)) = follower.objects.get(&reference) else { return String::new() };
    let addresses = node.status.as_ref().and_then(|it| it.addresses.as_ref());
    addresses.and_then(|it| it.first()).map(|it| it.address.clone()).unwrap_or_default()
}
