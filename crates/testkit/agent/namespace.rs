//! Making namespaces, and entering those of another process.
//!
//! Both are done while the process has one thread: the kernel refuses user namespaces otherwise.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, setns, unshare};
use nix::unistd::{getegid, geteuid, sethostname};

/// Which user namespace the new namespaces belong to.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Owner {
    /// The caller's own; falls back to a new one when the caller may not.
    OwnElseNew,
    /// The caller's own.
    Own,
    /// A new one, in which the caller is root.
    New,
    /// The one that this process is in.
    Joined(u32),
}

/// Moves this process into new network, mount and host name namespaces.
///
/// Returns whether they belong to a user namespace other than the caller's.
pub(crate) fn create(owner: Owner, host_name: &str) -> Result<bool, String> {
    let user = match owner {
        Owner::Own => false,
        Owner::New => {
            new_user_namespace()?;
            true
        }
        Owner::Joined(pid) => {
            join(pid, "user", CloneFlags::CLONE_NEWUSER)?;
            true
        }
        Owner::OwnElseNew => match unshare(CloneFlags::CLONE_NEWNET) {
            Ok(()) => false,
            Err(Errno::EPERM) => {
                new_user_namespace()?;
                true
            }
            Err(other) => return Err(format!("new network namespace: {other}")),
        },
    };
    let kinds = CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWUTS;
    unshare(kinds).map_err(|it| format!("new network, mount and host name namespaces: {it}"))?;
    sethostname(host_name).map_err(|it| format!("host name `{host_name}`: {it}"))?;
    private_run_directory()?;
    Ok(user)
}

fn new_user_namespace() -> Result<(), String> {
    let (uid, gid) = (geteuid(), getegid());
    unshare(CloneFlags::CLONE_NEWUSER).map_err(|it| format!("new user namespace: {it}"))?;
    let write = |file: &str, text: String| {
        std::fs::write(file, text).map_err(|it| format!("write {file}: {it}"))
    };
    write("/proc/self/uid_map", format!("0 {uid} 1\n"))?;
    // Without this the kernel does not let an unprivileged process map its group.
    write("/proc/self/setgroups", "deny\n".to_owned())?;
    write("/proc/self/gid_map", format!("0 {gid} 1\n"))
}

/// Gives the machine its own `/run`: lock files, control sockets and pid files of the programs
/// in it meet neither those of the host nor those of another machine.
fn private_run_directory() -> Result<(), String> {
    let none: Option<&str> = None;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)
        .map_err(|it| format!("make mounts private: {it}"))?;
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    mount(Some("tmpfs"), "/run", Some("tmpfs"), flags, Some("mode=0755,size=64m"))
        .map_err(|it| format!("mount a private /run: {it}"))?;
    for directory in ["/run/lock", "/run/netns", "/run/sshd"] {
        std::fs::create_dir(directory).map_err(|it| format!("{directory}: {it}"))?;
    }
    Ok(())
}

/// Enters one namespace of another process.
fn join(pid: u32, kind: &str, flag: CloneFlags) -> Result<(), String> {
    let path = format!("/proc/{pid}/ns/{kind}");
    let namespace = File::open(&path).map_err(|it| format!("open {path}: {it}"))?;
    setns(namespace, flag).map_err(|it| format!("enter {path}: {it}"))
}

/// `enter PID plain|user PROGRAM ARGS...`: becomes that program inside the namespaces of PID.
pub(crate) fn enter_and_exec(args: &[OsString]) -> Result<(), String> {
    let [pid, owner, program, rest @ ..] = args else {
        return Err("enter: expected PID, `plain` or `user`, a program and its arguments".into());
    };
    let pid = pid.to_str().and_then(|it| it.parse().ok()).ok_or("enter: PID is not a number")?;
    let directory = std::env::current_dir();
    if owner == OsStr::new("user") {
        join(pid, "user", CloneFlags::CLONE_NEWUSER)?;
    }
    join(pid, "net", CloneFlags::CLONE_NEWNET)?;
    join(pid, "uts", CloneFlags::CLONE_NEWUTS)?;
    join(pid, "mnt", CloneFlags::CLONE_NEWNS)?;
    // Entering a mount namespace moves a process to its root directory.
    if let Ok(directory) = directory {
        let _gone_meanwhile = std::env::set_current_dir(directory);
    }
    let error = Command::new(program).args(rest).exec();
    Err(format!("start {}: {error}", program.display()))
}
