//! Who may use whom: the table in `ARCHITECTURE.md` against the manifests.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

/// What a deciding crate may depend on besides our own deciding crates: values, parsing, errors.
const PURE_DEPENDENCIES: [&str; 11] = [
    "ipnet",
    "k8s-openapi",
    "kube", // the derive and the types alone: `check` looks at its features
    "minicbor",
    "schemars",
    "serde",
    "serde-saphyr",
    "serde_ignored",
    "serde_json",
    "sha2",
    "thiserror",
];

/// What one row of the table says.
struct Room {
    may_use: BTreeSet<String>,
    pure: bool,
}

/// Compares the table with what `cargo metadata` says of the workspace's own crates.
pub(crate) fn check(architecture: &str, metadata: &str) -> Result<Vec<String>> {
    let rooms = table(architecture)?;
    let metadata: Value = serde_json::from_str(metadata).context("cargo metadata is no JSON")?;
    let packages = metadata["packages"].as_array().context("cargo metadata lists no packages")?;
    let names: BTreeSet<&str> = packages.iter().filter_map(|it| it["name"].as_str()).collect();
    ensure!(names.len() > 2, "cargo metadata lists {} packages", names.len());

    let mut complaints = Vec::new();
    for room in rooms.keys().filter(|it| !names.contains(it.as_str())) {
        complaints.push(format!("ARCHITECTURE.md: the table names `{room}`, which is no crate"));
    }
    for package in packages {
        let name = package["name"].as_str().unwrap_or_default();
        let Some(room) = rooms.get(name) else {
            complaints.push(format!("ARCHITECTURE.md: the table has no row for `{name}`"));
            continue;
        };
        for dependency in package["dependencies"].as_array().into_iter().flatten() {
            complaints.extend(complaint(name, room, dependency, &names, &rooms));
        }
    }
    Ok(complaints)
}

/// Every deciding crate has the bans that keep it from acting.
pub(crate) fn check_walls(root: &Path, architecture: &str) -> Vec<String> {
    let rooms = table(architecture).unwrap_or_default();
    let pure = rooms.iter().filter(|(_, room)| room.pure).map(|(name, _)| name);
    let missing = pure.filter(|it| !root.join("crates").join(it).join("clippy.toml").exists());
    missing
        .map(|it| format!("crates/{it}: a pure crate needs a clippy.toml with the bans"))
        .collect()
}

fn complaint(
    name: &str,
    room: &Room,
    dependency: &Value,
    ours: &BTreeSet<&str>,
    rooms: &BTreeMap<String, Room>,
) -> Option<String> {
    if !dependency["kind"].is_null() {
        return None; // dev- and build-dependencies are not shipped
    }
    let used = dependency["name"].as_str().unwrap_or_default();
    if ours.contains(used) {
        let known = room.may_use.contains(used) || room.may_use.contains("everything");
        let acts = room.pure && rooms.get(used).is_some_and(|it| !it.pure);
        return (!known || acts)
            .then(|| format!("crates/{name}: uses `{used}`, which the table does not allow"));
    }
    if room.pure && !PURE_DEPENDENCIES.contains(&used) {
        return Some(format!("crates/{name}: a pure crate must not depend on `{used}`"));
    }
    let features = dependency["features"].as_array().into_iter().flatten();
    let client = features.filter_map(Value::as_str).any(|it| it != "derive");
    (room.pure && used == "kube" && client)
        .then(|| format!("crates/{name}: a pure crate may have the derive of `kube`, no client"))
}

/// Reads the rows "| `crate` | `may`, `use` | pure |" below the heading "Who may use whom".
fn table(architecture: &str) -> Result<BTreeMap<String, Room>> {
    let section = architecture.split("## Who may use whom").nth(1);
    let section = section.context("ARCHITECTURE.md has no section `## Who may use whom`")?;
    let section = section.split("\n## ").next().unwrap_or_default();
    let mut rooms = BTreeMap::new();
    for line in section.lines().filter(|it| it.starts_with("| `")) {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        ensure!(cells.len() == 3, "ARCHITECTURE.md: expected three cells in `{line}`");
        let may_use = cells[1].split(',').map(|it| it.trim().trim_matches('`').to_owned());
        let room = Room { may_use: may_use.collect(), pure: cells[2] == "pure" };
        rooms.insert(cells[0].trim_matches('`').to_owned(), room);
    }
    ensure!(!rooms.is_empty(), "ARCHITECTURE.md: the table of rooms is empty");
    Ok(rooms)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "## Who may use whom\n\n| Crate | May use | Half |\n| --- | --- | --- |\n\
        | `api` | nothing | pure |\n| `planner` | `api` | pure |\n| `host` | `api` | I/O |\n";

    #[test]
    fn a_crate_uses_only_what_its_row_names() {
        check_dependency("planner", "api", &[], None);
        check_dependency("host", "tokio", &[], None);
        check_dependency("api", "planner", &[], Some("uses `planner`"));
        check_dependency("planner", "host", &[], Some("uses `host`"));
    }

    #[test]
    fn a_pure_crate_has_no_runtime_and_no_client() {
        check_dependency("planner", "tokio", &[], Some("must not depend on `tokio`"));
        check_dependency("planner", "kube", &["derive"], None);
        check_dependency("planner", "kube", &["client"], Some("no client"));
    }

    #[test]
    fn rows_and_crates_must_match() {
        let missing = TABLE.replace("| `host` | `api` | I/O |\n", "");
        let found = check(&missing, &metadata("api", "serde", &[])).expect("readable");
        assert_eq!(found, ["ARCHITECTURE.md: the table has no row for `host`"]);
        let ghost = format!("{TABLE}| `ghost` | nothing | pure |\n");
        let found = check(&ghost, &metadata("api", "serde", &[])).expect("readable");
        assert_eq!(found, ["ARCHITECTURE.md: the table names `ghost`, which is no crate"]);
    }

    #[track_caller]
    fn check_dependency(name: &str, used: &str, features: &[&str], expected: Option<&str>) {
        let found = check(TABLE, &metadata(name, used, features)).expect("readable");
        assert_eq!(found.len(), usize::from(expected.is_some()), "{found:?}");
        assert!(
            found.first().is_none_or(|it| it.contains(expected.unwrap_or_default())),
            "{found:?}"
        );
    }

    fn metadata(name: &str, used: &str, features: &[&str]) -> String {
        let package = |it: &str| {
            let used = serde_json::json!({ "name": used, "kind": null, "features": features });
            let dependencies = if it == name { vec![used] } else { Vec::new() };
            serde_json::json!({ "name": it, "dependencies": dependencies })
        };
        let packages = ["api", "planner", "host"].map(package);
        serde_json::json!({ "packages": packages }).to_string()
    }
}
