//! `portcullis migrate epok`.

use std::collections::BTreeSet;
use std::path::PathBuf;

use anyhow::Context as _;
use api::host::{Host, HostSettings};
use clap::{Args, Parser as _, Subcommand};
use firewall::epok::Left;
use planner::cluster_view::{Change, Object};
use planner::finding::Severity;
use planner::forward::{HostDesired, forward_plan};
use planner::host_view::HostView;

use super::deployment;
use super::report::{self, DIFFERENCES, Report};
use crate::arguments::Output;
use crate::ending::{Ending, Result, refused};
use crate::epok::options::{BatchOptions, EpokOptions, Executor, MachineOptions, SshOptions};
use crate::objects::{ObjectOptions, Objects};
use crate::{epok, manifest, print, reach, take_over};

const EXAMPLES: &str = "\
Examples:
  portcullis migrate epok -f objects.yaml --listing nat.rules -i eth0,wg0
                                 a report from files, saved with
                                   kubectl get svc,nodes,pods,endpointslices -A -o yaml > objects.yaml
                                   iptables-save -t nat > nat.rules
  portcullis migrate epok --deployment epok.yaml --write-host
                                 the Host object that Epok's Deployment means
  systemctl stop epok
  portcullis migrate epok --take-over -i eth0,wg0 --external-interface eth0
                                 put our rules in force, then remove Epok's, without a gap

Give it Epok's own options, as Epok was started with; its variables EPOK_... count too. Without
--listing the host is asked: this machine, or another one with `ssh`.

Exit code 3 when something is rejected or was left alone.

JSON (-o json):
  { \"maps\": [ text ], \"differs\": [ text ], \"rejected\": [ text ], \"host\": manifest,
    \"taken_over\": { \"steps\": [ text ], \"removed\", \"kept\": [ text ] } }";

/// What to read.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES, subcommand_value_name = "EXECUTOR")]
#[command(subcommand_help_heading = "Executors", disable_help_subcommand = true)]
pub(crate) struct MigrateEpokArguments {
    #[command(flatten)]
    objects: ObjectOptions,

    /// The rules that Epok left: the saved output of `iptables-save -t nat`
    #[arg(long, value_name = "FILE", conflicts_with = "take_over")]
    listing: Option<PathBuf>,

    /// Read Epok's options from the manifest of its Deployment
    #[arg(long, value_name = "FILE")]
    deployment: Option<PathBuf>,

    /// Print only the Host object that Epok's options mean
    #[arg(long, conflicts_with = "take_over")]
    write_host: bool,

    /// Put our rules in force, then remove Epok's in one transaction
    #[arg(long)]
    take_over: bool,

    #[command(flatten)]
    machine: MachineOptions,

    #[command(flatten)]
    batch: BatchOptions,

    /// The packet filter: nftables, iptables, or auto for nftables where the host permits it
    #[arg(long, value_name = "FILTER", default_value = "auto")]
    backend: String,

    #[command(subcommand)]
    executor: Option<MigrateExecutor>,
}

/// How Epok ran commands on the host; this machine when left out.
#[derive(Clone, Debug, Subcommand)]
enum MigrateExecutor {
    /// Epok ran on the host, and so does this
    Local,
    /// Epok reached the host over SSH
    Ssh(SshOptions),
}

/// Reports, and takes over where that was asked for.
pub(crate) async fn run(arguments: &MigrateEpokArguments, output: Output) -> Result {
    let mut report = Report::default();
    let options = options(arguments, &mut report)?;
    let mut host = epok::host(&options, &mut report.differs).await?;
    if arguments.listing.is_none() && !arguments.write_host && options.backend == "auto" {
        epok::choose_backend(&mut host).await?;
    }
    if arguments.write_host {
        for remark in &report.differs {
            print::note(format_args!("note: {remark}"));
        }
        manifest::print(&host, output)?;
        return Ok(Ending::Done);
    }
    report.maps.push(format!(
        "Epok's options: Host {} with interfaces {}{}",
        host.metadata.name.as_deref().unwrap_or_default(),
        host.spec.interfaces.join(", "),
        host.spec
            .external_interface
            .as_ref()
            .map(|it| format!(", external {it}"))
            .unwrap_or_default(),
    ));
    report.host = Some(manifest::document(&host)?);
    report.differs.extend(DIFFERENCES.map(str::to_owned));

    let mut work = Work::new(&arguments.objects, host).await?;
    let left = match &arguments.listing {
        Some(file) => {
            let text = std::fs::read_to_string(file).map_err(|error| {
                refused(format!(
                    "--listing: {}: {error}; save it on the host with `iptables-save -t nat`",
                    file.display()
                ))
            })?;
            work.desire(&HostView::default())?;
            firewall::epok::find(&text)
        }
        None => work.look().await?,
    };
    work.report(left, &mut report);
    if arguments.take_over {
        report.taken_over = Some(work.take_over().await?);
    }
    let kept = report.taken_over.as_ref().is_some_and(|it| !it.kept.is_empty());
    match output {
        Output::Json => print::json(&report)?,
        Output::Text => report::print(&report)?,
    }
    Ok(if kept || !report.rejected.is_empty() { Ending::Found } else { Ending::Done })
}

fn options(arguments: &MigrateEpokArguments, report: &mut Report) -> Result<EpokOptions> {
    let MigrateEpokArguments { machine, batch, backend, executor, deployment, .. } = arguments;
    let Some(file) = deployment else {
        return Ok(EpokOptions {
            machine: machine.clone(),
            batch: batch.clone(),
            backend: backend.clone(),
            manifests: None,
            listen: None,
            print_host: false,
            executor: match executor {
                Some(MigrateExecutor::Ssh(ssh)) => Executor::Ssh(ssh.clone()),
                Some(MigrateExecutor::Local) | None => Executor::Local,
            },
        });
    };
    let found = deployment::read(file)?;
    report.differs.extend(found.remarks);
    let words = ["epok".to_owned()].into_iter().chain(found.arguments);
    EpokOptions::try_parse_from(words)
        .map_err(|error| refused(format!("--deployment: {}: {}", file.display(), error.render())))
}

/// One host that is taken over, with everything that is known about it.
pub(crate) struct Work {
    objects: Objects,
    settings: HostSettings,
    desired: HostDesired,
    executor: Box<dyn host::Executor>,
}

impl Work {
    /// Reads all objects and finds the way to the host.
    pub(crate) async fn new(objects: &ObjectOptions, host: Host) -> Result<Self> {
        let mut objects = objects.read().await?;
        let settings = host.settings().map_err(|problems| {
            let problems = problems.iter().map(ToString::to_string).collect::<Vec<_>>();
            refused(problems.join("; "))
        })?;
        objects.changes.push(Change::Applied(Object::Host(Box::new(host))));
        let executor = reach::executor(&settings, objects.client.as_ref()).await?;
        Ok(Self { objects, settings, desired: HostDesired::default(), executor })
    }

    /// Decides what the host should do, given what it says about itself.
    fn desire(&mut self, facts: &HostView) -> Result<()> {
        let view = self.objects.view();
        self.desired = forward_plan(&view, self.settings.name.as_str(), facts)
            .map_err(|error| refused(error.to_string()))?;
        Ok(())
    }

    /// Asks the host for its addresses and for what Epok left there.
    pub(crate) async fn look(&mut self) -> Result<Left> {
        let addresses =
            reach::succeed(&mut *self.executor, &firewall::observe::addresses()).await?;
        let listeners =
            reach::succeed(&mut *self.executor, &firewall::observe::listeners()).await?;
        let facts = HostView::read(&addresses.stdout, &listeners.stdout)?;
        self.desire(&facts)?;
        take_over::find(&mut *self.executor).await.context("cannot read what Epok left")
    }

    /// Puts our rules in force, then removes Epok's.
    pub(crate) async fn take_over(&mut self) -> Result<take_over::Done> {
        let unreadable = self.objects.unreadable();
        take_over::run(&mut *self.executor, &self.settings, &self.desired, &unreadable).await
    }

    fn report(&self, left: Left, report: &mut Report) {
        for (key, forward) in &self.desired.forwarding.forwards {
            report.maps.push(format!("{}: host port {key}", forward.owner));
        }
        for finding in &self.desired.findings {
            match finding.severity {
                Severity::Error => report.rejected.push(finding.to_string()),
                Severity::Warning | Severity::Note => report.differs.push(finding.to_string()),
            }
        }
        report.rejected.extend(self.objects.problems.iter().map(ToString::to_string));

        let rules = left.rules.len();
        let ports: BTreeSet<&str> = left.rules.iter().map(|it| it.port.as_str()).collect();
        report
            .maps
            .push(format!("{rules} rules of Epok's on the host, for {} host ports", ports.len()));
        let verdict = take_over::judge(left, &self.desired, &self.objects.unreadable());
        for rule in verdict.unasked {
            report.differs.push(format!(
                "{rule}: no object asks for this any more; the rule goes away with Epok"
            ));
        }
        for (rule, reason) in verdict.kept {
            report.rejected.push(format!("{rule}: {reason}; --take-over leaves the rule alone"));
        }
    }
}
