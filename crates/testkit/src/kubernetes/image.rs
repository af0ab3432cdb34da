//! Images of programs that were just built, without a container engine.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::daemon::run;
use super::programs::Programs;

/// Packs a program, with the libraries that it loads, into an archive for
/// [`Cluster::load_image`](super::Cluster::load_image). The program is `/NAME` in the image, and
/// its entry point.
///
/// # Errors
///
/// Fails when the libraries of the program cannot be found, and with what the packer said.
pub fn pack_image(name: &str, program: &Path, archive: &Path) -> anyhow::Result<()> {
    // It says where each library is that the program would load here.
    let listing = run(Command::new("ldd").arg(program))?;
    let mut pack = Command::new(Programs::find()?.image("archive"));
    pack.arg(name).arg(program).arg(archive).args(libraries(&listing)?);
    run(&mut pack).map(|_| ())
}

/// The paths in what `ldd` says: `NAME => PATH (ADDRESS)`, and `PATH (ADDRESS)` for the loader.
fn libraries(listing: &str) -> anyhow::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for line in listing.lines() {
        anyhow::ensure!(!line.contains("not found"), "a library is missing here: {}", line.trim());
        let path = line.split_whitespace().find(|it| it.starts_with('/'));
        found.extend(path.map(PathBuf::from));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::libraries;

    #[test]
    fn libraries_are_found_where_ldd_says_that_they_are() {
        let listing = "\tlinux-vdso.so.1 (0x00007ffd)\n\
                       \tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f)\n\
                       \t/lib64/ld-linux-x86-64.so.2 (0x00007f)\n";
        let found = libraries(listing).expect("a complete listing");
        let found: Vec<_> = found.iter().map(|it| it.display().to_string()).collect();
        assert_eq!(found, ["/lib/x86_64-linux-gnu/libc.so.6", "/lib64/ld-linux-x86-64.so.2"]);
    }

    #[test]
    fn a_library_that_is_not_there_is_named() {
        let error = libraries("\tlibwonder.so.1 => not found\n").expect_err("nothing to pack");
        assert!(error.to_string().contains("libwonder.so.1"), "{error}");
    }
}
