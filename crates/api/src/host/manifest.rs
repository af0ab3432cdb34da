//! Reading a Host from a manifest, where no API server reports fields that nobody knows.

use serde::Deserializer;

use super::Host;
use crate::problem::Problem;

/// Reads a Host and reports every field that has no meaning: a misspelt `externalInteface` would
/// otherwise open internal forwards to strangers.
///
/// # Errors
///
/// Fails when a required field is missing or a value has the wrong type, in the words of the
/// deserializer.
pub fn read_manifest<'de, D: Deserializer<'de>>(
    manifest: D,
) -> Result<(Host, Vec<Problem>), D::Error> {
    let mut problems = Vec::new();
    let host = serde_ignored::deserialize(manifest, |path| {
        let path = path.to_string();
        // Option layers show as `?`, which is not how people write paths.
        let path = path.split('.').filter(|it| *it != "?").collect::<Vec<_>>().join(".");
        if path == "apiVersion" || path == "kind" {
            return;
        }
        let problem = "no such field";
        let remedy = "correct its name or remove it; `kubectl explain host.spec` lists the fields";
        problems.push(Problem::invalid(crate::problem::excerpt(&path), "", problem, remedy));
    })?;
    Ok((host, problems))
}
