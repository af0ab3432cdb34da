//! The seeds of the fuzz targets, as tests that need no fuzzer.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

/// How much of a seed is cut off byte by byte.
const CUT: usize = 256;

/// Holds `law` over every seed in `fuzz/corpus/<target>`, whole and cut short at every byte of its
/// beginning.
///
/// A crate includes its target with `#[path = "../../../../fuzz/targets/<target>.rs"] mod ...;` and
/// passes the `law` of that module, so that a test and the fuzzer hold the same law.
///
/// # Panics
///
/// When the law does not hold, with the name of the seed; and when there is no seed at all.
#[track_caller]
pub fn hold(target: &str, law: fn(&[u8])) {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus").join(target);
    let entries = directory.read_dir().map(|it| it.collect::<Result<Vec<_>, _>>());
    let entries = match entries {
        Ok(Ok(entries)) => entries,
        Ok(Err(error)) | Err(error) => panic!("cannot read {}: {error}", directory.display()),
    };
    assert!(!entries.is_empty(), "{} is empty", directory.display());
    for path in entries.iter().map(std::fs::DirEntry::path) {
        let seed = match std::fs::read(&path) {
            Ok(seed) => seed,
            Err(error) => panic!("cannot read {}: {error}", path.display()),
        };
        let cuts = (0..seed.len().min(CUT)).chain([seed.len()]);
        for cut in cuts {
            let held = catch_unwind(AssertUnwindSafe(|| law(&seed[..cut])));
            assert!(held.is_ok(), "the law fails for the first {cut} bytes of {}", path.display());
        }
    }
}
