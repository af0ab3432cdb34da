//! `portcullis cleanup`: removes everything of ours from hosts. It asks no cluster for permission,
//! because a host must be freed when the cluster is gone.

use std::io;
use std::path::{Path, PathBuf};

use api::host::{Host, HostSettings, HostSpec};
use clap::Args;
use firewall::Backend;
use host::{ExecuteError, Executor};
use planner::desired::Options;
use serde::Serialize;

use crate::arguments::Output;
use crate::ending::{Ending, Result, refused};
use crate::objects::ObjectOptions;
use crate::{host_choice, plan, print, reach};

/// Where unconfirmed changes are noted on a host; see `host_apply`.
pub(crate) const RUNTIME_DIRECTORY: &str = "/run/portcullis";

const EXAMPLES: &str = "\
Examples:
  portcullis cleanup --dry-run              what there is of ours on this machine
  portcullis cleanup                        remove it
  portcullis cleanup -f hosts.yaml --host edge-a
                                            remove it from a host, over SSH as the Host says

Stop the controller first; otherwise it puts the rules back. Rules of others, Epok's included, are
never touched; `portcullis epok clean local` removes Epok's too.

JSON (-o json):
  { \"dryRun\", \"hosts\": [ { \"host\", \"executor\", \"removed\": [ text ] } ] }";

/// What to clean.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct CleanupArguments {
    /// Clean the Hosts in these manifests instead of this machine
    #[arg(long, short = 'f', value_name = "PATH")]
    manifests: Vec<PathBuf>,

    /// Only this Host of the manifests
    #[arg(long, value_name = "NAME", requires = "manifests")]
    host: Option<String>,

    /// Print what would be removed, and remove nothing
    #[arg(long)]
    dry_run: bool,
}

/// What was removed from one host.
#[derive(Serialize)]
struct Cleaned {
    host: String,
    executor: String,
    removed: Vec<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Report {
    dry_run: bool,
    hosts: Vec<Cleaned>,
}

/// Removes everything of ours.
pub(crate) async fn run(arguments: &CleanupArguments, output: Output) -> Result {
    let mut hosts = Vec::new();
    let mut failure = None;
    for settings in settings(arguments).await? {
        // A host that does not answer must not keep the others from being freed.
        match clean(&settings, arguments.dry_run).await {
            Ok(cleaned) => hosts.push(cleaned),
            Err(error) => {
                let error = error.context(format!("Host {}", settings.name));
                if let Some(earlier) = failure.replace(error) {
                    print::note(format_args!("error: {earlier:#}"));
                }
            }
        }
    }
    let report = Report { dry_run: arguments.dry_run, hosts };
    match output {
        Output::Json => print::json(&report)?,
        Output::Text => print_report(&report)?,
    }
    failure.map_or(Ok(Ending::Done), Err)
}

/// Prints what was removed from one host.
pub(crate) fn print_removed(
    settings: &HostSettings,
    removed: Vec<String>,
    dry_run: bool,
    output: Output,
) -> Result<()> {
    let host = settings.name.to_string();
    let hosts = vec![Cleaned { host, executor: reach::describe(settings), removed }];
    let report = Report { dry_run, hosts };
    match output {
        Output::Json => print::json(&report),
        Output::Text => print_report(&report),
    }
}

fn print_report(report: &Report) -> Result<()> {
    let verb = if report.dry_run { "would remove" } else { "removed" };
    for host in &report.hosts {
        if host.removed.is_empty() {
            print::line(format_args!(
                "{} ({}): nothing of ours is there",
                host.host, host.executor
            ))?;
        }
        for removed in &host.removed {
            print::line(format_args!("{} ({}): {verb} {removed}", host.host, host.executor))?;
        }
    }
    Ok(())
}

async fn settings(arguments: &CleanupArguments) -> Result<Vec<HostSettings>> {
    if arguments.manifests.is_empty() {
        return Ok(vec![this_machine()?]);
    }
    let objects =
        ObjectOptions { manifests: arguments.manifests.clone(), ..ObjectOptions::default() };
    let objects = objects.read().await?;
    objects.note_problems();
    let view = objects.view();
    let choice = host_choice::HostChoice { host: arguments.host.clone(), ..Default::default() };
    choice.names(&view)?.iter().map(|it| plan::settings(&view, it)).collect()
}

/// Settings that lead to this machine; its interfaces do not matter for a clean-up.
pub(crate) fn this_machine() -> Result<HostSettings> {
    let spec = HostSpec { interfaces: vec!["lo".to_owned()], ..HostSpec::default() };
    Host::new("this-machine", spec)
        .settings()
        .map_err(|problems| refused(problems.iter().map(ToString::to_string).collect::<String>()))
}

async fn clean(settings: &HostSettings, dry_run: bool) -> Result<Cleaned> {
    let mut executor = reach::executor(settings, None).await?;
    let mut removed = Vec::new();
    for backend in [Backend::Nftables, Backend::Iptables] {
        removed.extend(clean_backend(&mut *executor, backend, dry_run).await?);
    }
    if matches!(settings.executor, api::host::Executor::Local) {
        removed.extend(clean_files(Path::new(RUNTIME_DIRECTORY), dry_run)?);
    }
    Ok(Cleaned { host: settings.name.to_string(), executor: reach::describe(settings), removed })
}

/// Removes what one backend has on a host, and returns what that was. A backend whose programs are
/// not installed, or that the host does not let us use, has nothing of ours.
pub(crate) async fn clean_backend(
    executor: &mut dyn Executor,
    backend: Backend,
    dry_run: bool,
) -> Result<Vec<String>> {
    // Chains of iptables that belong to a host with nftables are found by the other backend.
    let options = Options::default();
    let observed = match host_choice::observe(executor, backend, options).await {
        Ok(observed) => observed,
        Err(error) => match error.downcast_ref::<ExecuteError>() {
            Some(
                reason @ (ExecuteError::CannotStart { .. }
                | ExecuteError::SudoRefused { .. }
                | ExecuteError::Refused { .. }),
            ) => {
                print::note(format_args!("note: {backend:?} was not looked at: {reason}"));
                return Ok(Vec::new());
            }
            Some(_) | None => return Err(error),
        },
    };
    let plan = backend.cleanup(&observed);
    if !dry_run {
        for command in plan.commands() {
            reach::succeed(executor, &command).await?;
        }
    }
    Ok(plan.steps().map(str::to_owned).collect())
}

fn clean_files(directory: &Path, dry_run: bool) -> Result<Option<String>> {
    if !directory.exists() {
        return Ok(None);
    }
    if !dry_run {
        match std::fs::remove_dir_all(directory) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(anyhow::Error::from(error)
                    .context(format!("cannot remove {}", directory.display())));
            }
            Ok(()) | Err(_) => {}
        }
    }
    Ok(Some(format!("the directory {}", directory.display())))
}
