//! A gateway as a process: its signals, and the next process that it may start.

use std::io;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::JoinSet;

use crate::config::Config;
use crate::descriptors;
use crate::error::{GatewayError, chain};
use crate::gateway::Gateway;
use crate::keeper::Errand;

/// Runs a gateway until it is told to end: by SIGTERM or SIGINT, or because another process took
/// over. SIGHUP reads the configuration again. SIGUSR2 starts the program anew, whatever file has
/// its name by then, and that takes over. Open flows have the configured time to end.
///
/// `program` is the version that agents are told.
///
/// # Errors
///
/// When it cannot start.
pub async fn run(path: &Path, program: &str) -> Result<(), GatewayError> {
    let mut reload = listen(SignalKind::hangup())?;
    let mut upgrade = listen(SignalKind::user_defined2())?;
    // Before anybody puts another program in its place: then the system calls ours deleted.
    let own_program = std::env::current_exe();
    let mut end = [listen(SignalKind::terminate())?, listen(SignalKind::interrupt())?];
    let mut gateway = Gateway::start(Config::read(path)?, program).await?;
    descriptors::tell("READY=1");
    tracing::info!(name = gateway.inner.config().name, "the gateway is ready");
    let (inner, path) = (Arc::clone(&gateway.inner), path.to_owned());
    let mut reloading = JoinSet::new();
    reloading.spawn(async move {
        while reload.recv().await.is_some() {
            match Config::read(&path) {
                Ok(config) => inner.errand(Errand::Configure(Box::new(config))),
                Err(error) => {
                    tracing::error!(error = %chain(&error), "the configuration stays as it was");
                }
            }
        }
    });
    let next = Arc::new(AtomicU32::new(0));
    let mut upgrading = JoinSet::new();
    upgrading.spawn({
        let next = Arc::clone(&next);
        async move {
            while upgrade.recv().await.is_some() {
                match own_program.as_ref().map(|it| start_next(it)) {
                    Ok(Ok(child)) => {
                        next.store(child.id(), Ordering::Relaxed);
                        // A child that ends early must not stay as a zombie.
                        std::thread::spawn(move || reap(child));
                    }
                    Ok(Err(error)) => tracing::error!(%error, "the program cannot be started"),
                    Err(error) => tracing::error!(%error, "where the program is, is not known"),
                }
            }
        }
    });
    gateway.on_taken_over = Some(Box::new(move || {
        let next = next.load(Ordering::Relaxed);
        if next > 0 {
            descriptors::tell(&format!("MAINPID={next}"));
        }
    }));
    tokio::select! {
        () = gateway.until_taken_over() => {}
        () = any_of(&mut end) => gateway.drain().await,
    }
    Ok(())
}

fn start_next(program: &Path) -> io::Result<Child> {
    tracing::info!(program = %program.display(), "starting the next process");
    Command::new(program)
        .args(std::env::args_os().skip(1))
        .env_remove("LISTEN_PID")
        .env_remove("LISTEN_FDS")
        .env_remove("LISTEN_FDNAMES")
        .stdin(Stdio::null())
        .spawn()
}

fn reap(mut child: Child) {
    if let Ok(status) = child.wait() {
        tracing::warn!(%status, "the next process has ended");
    }
}

fn listen(kind: SignalKind) -> Result<Signal, GatewayError> {
    signal(kind)
        .map_err(|source| GatewayError::System { what: "cannot listen for signals", source })
}

async fn any_of(signals: &mut [Signal; 2]) {
    let [first, second] = signals;
    tokio::select! {
        _ = first.recv() => {}
        _ = second.recv() => {}
    }
}
