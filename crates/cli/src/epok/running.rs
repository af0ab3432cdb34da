//! Epok's long run: take over what Epok left, then keep the host as the annotations ask.

use std::time::Duration;

use api::host::Host;
use controller::Settings;
use program::logging::{self, LogFormat};

use super::options::EpokOptions;
use crate::controller_command;
use crate::ending::{Ending, Result};
use crate::migrate::Work;
use crate::objects::ObjectOptions;

/// How long to wait before a failed start is tried again.
const PAUSE: Duration = Duration::from_secs(5);

/// What Epok logs when nobody says otherwise.
const USUAL_LOG: &str = "info";

/// Runs until it is asked to stop; the rules stay.
pub(super) async fn run(options: &EpokOptions, mut host: Host) -> Result {
    start_log()?;
    let connection = crate::connection::ConnectionOptions::default();
    let source = controller_command::source(options.manifests.as_deref(), &connection).await?;
    let objects =
        ObjectOptions { manifests: options.manifests.iter().cloned().collect(), connection };
    let mut stopped = std::pin::pin!(controller_command::stopped("the rules stay")?);

    // A host or a cluster that does not answer yet is waited for; Epok's rules work meanwhile.
    loop {
        let attempt = begin(options, &mut host, &objects);
        let failure = tokio::select! {
            begun = attempt => begun.err(),
            () = &mut stopped => return Ok(Ending::Done),
        };
        let Some(error) = failure else { break };
        if error.is::<crate::ending::Refused>() {
            return Err(error);
        }
        tracing::warn!(error = format!("{error:#}"), "cannot take the host over yet; trying again");
        tokio::select! {
            () = tokio::time::sleep(PAUSE) => {}
            () = &mut stopped => return Ok(Ending::Done),
        }
    }

    let local_host =
        host.spec.executor.local.is_some().then(|| host.metadata.name.clone()).flatten();
    let settings = Settings {
        source,
        hosts: vec![host],
        local_host,
        listen: options.listen,
        resync: Duration::from_secs(60),
        identity: controller_command::identity(),
        // Epok has one replica, and its account may not hold leases.
        leader_election: false,
    };
    controller::run(settings, stopped).await?;
    Ok(Ending::Done)
}

/// Chooses the backend and takes over what Epok left.
async fn begin(options: &EpokOptions, host: &mut Host, objects: &ObjectOptions) -> Result<()> {
    if options.backend == "auto" {
        super::choose_backend(host).await?;
    }
    let mut work = Work::new(objects, host.clone()).await?;
    let left = work.look().await?;
    if left.rules.is_empty() && left.unclear.is_empty() {
        return Ok(());
    }
    tracing::info!(rules = left.rules.len(), "taking over the rules that Epok left");
    let done = work.take_over().await?;
    tracing::info!(steps = done.steps.len(), removed = done.removed, "the host is taken over");
    for kept in &done.kept {
        tracing::warn!("left alone: {kept}");
    }
    Ok(())
}

/// Logs as `EPOK_LOG_LEVEL` says; what cannot be read means `info`, as with Epok.
fn start_log() -> Result<()> {
    let filter = std::env::var("EPOK_LOG_LEVEL").unwrap_or_else(|_| USUAL_LOG.to_owned());
    logging::start(&filter, LogFormat::Text).or_else(|_| logging::start(USUAL_LOG, LogFormat::Text))
}
