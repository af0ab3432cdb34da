//! What is on the disk, and what of it changed since the last look.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::ReadError;

/// How many folders may lie within each other.
const DEPTH: usize = 16;

/// More is no manifest.
const LARGEST_FILE: u64 = 256 << 20;

/// What a look at a file brought.
#[derive(Debug)]
pub(super) enum Content {
    /// Its text, new or changed.
    Text(String),
    /// It is as it was.
    Unchanged,
    /// It is there and cannot be read.
    Failed(io::Error),
}

/// Everything found, by path as given.
pub(super) type Found = BTreeMap<PathBuf, Content>;

/// Looks at a directory again and again.
#[derive(Debug, Default)]
pub(super) struct Scanner {
    stamps: BTreeMap<PathBuf, Stamp>,
}

impl Scanner {
    /// Looks at everything in `directory`; paths are below it.
    ///
    /// # Errors
    ///
    /// Fails when a directory cannot be listed. What was found before is still as good as ever.
    pub(super) fn scan(&mut self, directory: &Path) -> io::Result<Found> {
        let mut look = Look::default();
        look.seen.insert(identity(&fs::metadata(directory)?));
        self.folder(directory, Path::new(""), DEPTH, &mut look)?;
        self.stamps = look.stamps;
        Ok(look.found)
    }

    fn folder(
        &self,
        directory: &Path,
        below: &Path,
        depth: usize,
        look: &mut Look,
    ) -> io::Result<()> {
        let entries = fs::read_dir(directory.join(below))?;
        let names = entries.map(|it| it.map(|it| it.file_name()));
        // In order, so that of two ways to one folder the same one counts on every look.
        for name in names.collect::<io::Result<BTreeSet<_>>>()? {
            if name.as_encoded_bytes().starts_with(b".") {
                continue;
            }
            let path = below.join(name);
            let content = match fs::metadata(directory.join(&path)) {
                Ok(it) if it.is_dir() && depth > 0 => {
                    if look.seen.insert(identity(&it)) {
                        self.folder(directory, &path, depth - 1, look)?;
                    }
                    continue;
                }
                Ok(it) if it.is_file() && is_manifest(&path) => {
                    let stamp = Stamp::of(&it);
                    if self.stamps.get(&path) == Some(&stamp) {
                        look.stamps.insert(path.clone(), stamp);
                        Content::Unchanged
                    } else {
                        match read(&directory.join(&path), &it) {
                            Ok(text) => {
                                look.stamps.insert(path.clone(), stamp);
                                Content::Text(text)
                            }
                            Err(error) => Content::Failed(error),
                        }
                    }
                }
                Ok(_) => continue,
                // Removed since the listing, or a symbolic link to nowhere.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) if is_manifest(&path) => Content::Failed(error),
                Err(_) => continue,
            };
            if let Content::Failed(error) = &content
                && error.kind() == io::ErrorKind::NotFound
            {
                continue;
            }
            look.found.insert(path, content);
        }
        Ok(())
    }
}

/// What one look has found so far.
#[derive(Default)]
struct Look {
    found: Found,
    stamps: BTreeMap<PathBuf, Stamp>,
    /// The folders that were entered: a few symbolic links that lead back would otherwise make
    /// more ways to a file than anyone can walk.
    seen: BTreeSet<(u64, u64)>,
}

fn identity(folder: &Metadata) -> (u64, u64) {
    (folder.dev(), folder.ino())
}

/// Reads a file, whatever its name, or everything in a directory.
pub(super) fn once(path: &Path) -> Result<Found, ReadError> {
    let found = fs::metadata(path).and_then(|it| {
        if it.is_dir() {
            let found = Scanner::default().scan(path)?;
            return Ok(found.into_iter().map(|(it, content)| (path.join(it), content)).collect());
        }
        Ok(Found::from([(path.to_owned(), Content::Text(read(path, &it)?))]))
    });
    found.map_err(|source| ReadError { path: path.to_owned(), source })
}

fn read(path: &Path, metadata: &Metadata) -> io::Result<String> {
    if metadata.len() > LARGEST_FILE {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, "larger than 256 MiB"));
    }
    fs::read_to_string(path)
}

fn is_manifest(path: &Path) -> bool {
    let extension = path.extension().unwrap_or_default();
    ["yaml", "yml", "json"].iter().any(|it| extension.eq_ignore_ascii_case(it))
}

/// Tells a file from what it was before, without reading it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Stamp {
    device: u64,
    inode: u64,
    length: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    fn of(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            length: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}
