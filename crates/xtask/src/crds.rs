//! Writes the custom resource definitions from the types in `api`, or checks that they are current.

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use api::edge_gateway::EdgeGateway;
use api::host::Host;
use kube::CustomResourceExt;

const HEADER: &str = "\
# Written from the types in crates/api by `cargo run -p xtask -- crds`. Edit those.
";

/// Writes the definitions, and removes those whose type is gone.
pub(crate) fn write() -> Result<()> {
    let directory = directory();
    fs::create_dir_all(&directory)
        .with_context(|| format!("cannot make {}", directory.display()))?;
    let wanted = definitions()?;
    for name in files(&directory)?.into_keys().filter(|it| !wanted.contains_key(it)) {
        let path = directory.join(name);
        fs::remove_file(&path).with_context(|| format!("cannot remove {}", path.display()))?;
    }
    for (name, text) in wanted {
        let path = directory.join(name);
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

/// Fails when the files differ from what [`write`] would write.
pub(crate) fn check() -> Result<()> {
    let (wanted, found) = (definitions()?, files(&directory())?);
    let names = wanted.keys().chain(found.keys());
    let mut stale: Vec<_> = names.filter(|it| wanted.get(*it) != found.get(*it)).collect();
    stale.sort();
    stale.dedup();
    ensure!(
        stale.is_empty(),
        "deploy/crds: {stale:?} differ from the types in crates/api; run `cargo run -p xtask -- crds`"
    );
    Ok(())
}

/// The text of every file, by name.
fn definitions() -> Result<BTreeMap<String, String>> {
    let definitions = [EdgeGateway::crd(), Host::crd()];
    // A rule folded over two lines is the same rule, but not for the eye.
    let options = serde_saphyr::ser_options! { prefer_block_scalars: false };
    let mut files = BTreeMap::new();
    for definition in definitions {
        let name = definition.metadata.name.as_deref().context("a definition has a name")?;
        let text = serde_saphyr::to_string_with_options(&definition, options.clone())?;
        files.insert(format!("{name}.yaml"), format!("{HEADER}{text}"));
    }
    Ok(files)
}

fn files(directory: &Path) -> Result<BTreeMap<String, String>> {
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(BTreeMap::new()),
        entries => entries.with_context(|| format!("cannot read {}", directory.display()))?,
    };
    let mut files = BTreeMap::new();
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        files.insert(name, fs::read_to_string(entry.path())?);
    }
    Ok(files)
}

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/crds")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_reads_back_as_the_types_say() -> Result<()> {
        let text = &definitions()?["hosts.portcullis.dev.yaml"];
        let read: serde_json::Value = serde_saphyr::from_str(text)?;
        assert_eq!(read, serde_json::to_value(Host::crd())?);
        Ok(())
    }

    #[test]
    fn the_files_are_current() -> Result<()> {
        check()
    }
}
