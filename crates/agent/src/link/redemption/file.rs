//! A one-time secret in a file beside the agent.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use tunnel::trust::OneTimeSecret;

use super::{Kept, Place, Terms, one_time_secret};

/// Reads the secret and how often it was used.
pub(super) fn read(path: PathBuf) -> Result<Kept, String> {
    let failed = |error: io::Error| format!("{}: {error}", path.display());
    let text = std::fs::read_to_string(&path).map_err(failed)?;
    let mut lines = text.lines();
    let secret = one_time_secret(lines.next().unwrap_or_default())
        .map_err(|error| format!("{}: {error}", path.display()))?;
    let rest: Vec<_> = lines.filter_map(|it| it.split_once(':')).collect();
    let value = |name: &str| rest.iter().find(|it| it.0.trim() == name).map(|it| it.1);
    let mut terms = Terms::parse(value("expires"), value("redemptions"))
        .map_err(|error| format!("{}: {error}", path.display()))?;
    let uses = uses(&path, &secret).map_err(failed)?;
    terms.left = terms.left.saturating_sub(u32::try_from(uses.len()).unwrap_or(u32::MAX));
    terms.last = uses.into_iter().max_by_key(|it| it.1);
    Ok(Kept { secret, terms, place: Place::File(path) })
}

/// Makes the file of the next use; only one process can.
pub(super) fn burn(
    path: &Path,
    secret: &OneTimeSecret,
    left: u32,
    agent: &str,
) -> Result<(), String> {
    let directory = directory(path);
    let failed = |error: io::Error| format!("{}: {error}", directory.display());
    let made = DirBuilder::new().recursive(true).mode(0o700).create(&directory);
    made.map_err(failed)?;
    // By what is left, and not by what is there: whoever has read the same makes the same file.
    let use_ = directory.join(format!("{}{left}", prefix(path, secret)));
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&use_);
    let noted = file.and_then(|mut file| {
        file.write_all(agent.as_bytes())?;
        file.sync_all()?;
        File::open(&directory)?.sync_all()
    });
    match noted {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            Err(format!("another agent has just used {}", path.display()))
        }
        noted => noted.map_err(failed),
    }
}

/// Every use so far: by whom and when.
fn uses(path: &Path, secret: &OneTimeSecret) -> io::Result<Vec<(String, Timestamp)>> {
    let prefix = prefix(path, secret);
    let entries = match std::fs::read_dir(directory(path)) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut uses = Vec::new();
    for entry in entries {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with(&prefix) {
            let at = Timestamp::try_from(entry.metadata()?.modified()?);
            let by = std::fs::read_to_string(entry.path())?;
            uses.push((by, at.unwrap_or(Timestamp::UNIX_EPOCH)));
        }
    }
    Ok(uses)
}

fn directory(path: &Path) -> PathBuf {
    path.parent().unwrap_or(Path::new(".")).join("redeemed")
}

/// A new secret in the same file begins anew.
fn prefix(path: &Path, secret: &OneTimeSecret) -> String {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let hash = secret.hash().to_string();
    let hash: String = hash.trim_start_matches("sha256:").chars().take(16).collect();
    format!("{name}-{hash}-")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_agents_that_burn_the_last_use_at_the_same_moment_one_succeeds() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("fra1.secret");
        let secret = OneTimeSecret::generate().expect("randomness");
        let text = format!("{}\nexpires: 2100-01-01T00:00:00Z\nredemptions: 2\n", secret.reveal());
        std::fs::write(&path, text).expect("written");
        for left in [2, 1] {
            let found: Vec<_> = (0..8).map(|_| read(path.clone()).expect("a secret")).collect();
            let burnt = std::thread::scope(|scope| {
                let burn = |kept: &Kept, number: usize| {
                    assert_eq!(kept.terms.left, left);
                    burn(&path, &kept.secret, left, &format!("agent-{number}"))
                };
                let threads: Vec<_> = found
                    .iter()
                    .enumerate()
                    .map(|(number, kept)| scope.spawn(move || burn(kept, number)))
                    .collect();
                threads.into_iter().filter_map(|it| it.join().expect("no panic").ok()).count()
            });
            assert_eq!(burnt, 1, "with {left} left");
        }
        let kept = read(path.clone()).expect("a secret");
        assert_eq!(kept.terms.left, 0);
        assert!(kept.terms.last.is_some_and(|it| it.0.starts_with("agent-")));

        let another = OneTimeSecret::generate().expect("randomness");
        std::fs::write(&path, another.reveal()).expect("written");
        assert_eq!(read(path).expect("a secret").terms.left, 1, "a new one begins anew");
    }
}
