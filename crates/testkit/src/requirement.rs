//! What a test needs of the machine it runs on, and how it says that something is not there.
//!
//! A test that is skipped in silence is a test that nobody has. So a skip is written to standard
//! error past the test harness, which would otherwise swallow it, and with `REQUIRE_ALL=1` in the
//! environment it is a failure.
//!
//! ```no_run
//! # use testkit::Lab;
//! #[test]
//! fn packets_pass() {
//!     let Some(lab) = testkit::require(Lab::new("packets-pass")) else { return };
//! }
//! ```

use std::fmt;
use std::io::Write as _;
use std::panic::Location;

/// Something that this machine does not have or does not allow.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Missing {
    what: String,
    remedy: String,
}

impl Missing {
    /// `what` is missing, and `remedy` is what a person can do about it.
    pub fn new(what: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { what: what.into(), remedy: remedy.into() }
    }
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; {}", self.what, self.remedy)
    }
}

impl std::error::Error for Missing {}

/// Returns what was found, or says loudly that the test is skipped and returns `None`.
///
/// # Panics
///
/// With `REQUIRE_ALL=1` in the environment, instead of skipping.
#[track_caller]
pub fn require<T>(found: Result<T, Missing>) -> Option<T> {
    match found {
        Ok(found) => Some(found),
        Err(missing) => {
            skip(&missing);
            None
        }
    }
}

/// Says that the test of the calling thread is skipped.
///
/// # Panics
///
/// With `REQUIRE_ALL=1` in the environment, instead of skipping.
#[track_caller]
pub fn skip(missing: &Missing) {
    let thread = std::thread::current();
    let test = match thread.name() {
        Some(name) if name != "main" => name.to_owned(),
        Some(_) | None => Location::caller().to_string(),
    };
    assert!(!all_required(), "REQUIRE_ALL=1, but {test} cannot run here: {missing}");
    // Not `eprintln!`: the harness captures that and shows it only for failures.
    let _nobody_listens = writeln!(std::io::stderr(), "SKIPPED {test}: {missing}");
}

/// Whether a skip is a failure.
#[must_use]
pub fn all_required() -> bool {
    std::env::var_os("REQUIRE_ALL").is_some_and(|it| it == "1")
}

/// Finds a program on `PATH` or in the directories of the system's own programs, which are not on
/// the `PATH` of ordinary users everywhere.
///
/// # Errors
///
/// Names the program and the Debian `package` that has it.
pub fn program(name: &str, package: &str) -> Result<std::path::PathBuf, Missing> {
    let path = search_path();
    let found = std::env::split_paths(&path).map(|it| it.join(name)).find(|it| it.is_file());
    found.ok_or_else(|| {
        Missing::new(format!("`{name}` is not installed"), format!("apt-get install {package}"))
    })
}

/// `PATH` with the directories of the system's own programs.
pub(crate) fn search_path() -> std::ffi::OsString {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut directories: Vec<_> =
        std::env::split_paths(&path).filter(|it| !it.as_os_str().is_empty()).collect();
    for directory in ["/usr/local/sbin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"] {
        if !directories.iter().any(|it| it.as_os_str() == directory) {
            directories.push(directory.into());
        }
    }
    std::env::join_paths(directories).unwrap_or(path)
}
