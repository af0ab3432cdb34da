//! `portcullis plan` and `portcullis render`: what would change on hosts, or the whole ruleset.

use std::collections::BTreeSet;

use api::host::HostSettings;
use api::object::ObjectRef;
use clap::Args;
use cluster::source::Problem;
use planner::cluster_view::ClusterView;
use planner::finding::{Finding, Severity};
use planner::forward::{HostDesired, forward_plan};
use serde::Serialize;

use crate::arguments::Output;
use crate::ending::{Ending, Refused, Result, refused};
use crate::host_choice::{self, Facts, HostChoice};
use crate::objects::{ObjectOptions, Objects};
use crate::{print, reach};

const PLAN_HELP: &str = "\
Examples:
  portcullis plan -f examples/forward
                                 what a fresh host would get
  kubectl get svc,nodes,pods,endpointslices,phost -A -o yaml | portcullis plan -f -
                                 the same for a cluster, without touching anything
  portcullis plan -f DIR --host edge-a --listing edge-a.json --addresses edge-a.addr
                                 what would change there; saved on the host with
                                   nft -j list table inet portcullis > edge-a.json
                                   ip -j addr show > edge-a.addr
  portcullis plan --live --exit-code
                                 from the cluster and the hosts themselves; exit code 3
                                 when something would change or somebody must act

JSON (-o json):
  { \"hosts\": [ { \"host\", \"backend\", \"executor\", \"inSync\", \"forwards\", \"present\",
                 \"steps\": [ text ], \"findings\": [ finding ],
                 \"kept\": [ \"Service web/blog\" ] } ],
    \"problems\": [ text ] }
  A finding has severity (error, warning), reason, object {kind, namespace, name}, field, value,
  problem and remedy. `kept` are objects that cannot be read now and whose rules stay.";

const RENDER_HELP: &str = "\
Examples:
  portcullis render -f examples/forward | nft --check -f -
  portcullis render -f examples/forward --interfaces eth0 --backend iptables

JSON (-o json):
  { \"hosts\": [ { \"host\", \"backend\", \"forwards\", \"ruleset\", \"findings\" } ], \"problems\": [ text ] }";

/// What to plan.
#[derive(Args, Debug)]
#[command(after_long_help = PLAN_HELP)]
pub(crate) struct PlanArguments {
    #[command(flatten)]
    objects: ObjectOptions,

    #[command(flatten)]
    choice: HostChoice,

    /// End with exit code 3 when a host would be changed or an object has a finding
    #[arg(long)]
    exit_code: bool,
}

/// What to render.
#[derive(Args, Debug)]
#[command(after_long_help = RENDER_HELP)]
pub(crate) struct RenderArguments {
    #[command(flatten)]
    objects: ObjectOptions,

    #[command(flatten)]
    choice: HostChoice,
}

/// What would change on one host.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct HostPlan {
    host: String,
    backend: &'static str,
    executor: String,
    /// Whether nothing would change.
    in_sync: bool,
    /// How many host ports are wanted.
    forwards: usize,
    /// How many host ports the host forwards now.
    present: usize,
    steps: Vec<String>,
    findings: Vec<Finding>,
    kept: Vec<String>,
}

/// The whole ruleset of one host.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct HostRuleset {
    host: String,
    backend: &'static str,
    forwards: usize,
    ruleset: String,
    findings: Vec<Finding>,
}

#[derive(Serialize)]
struct Report<T> {
    hosts: Vec<T>,
    problems: Vec<String>,
}

/// One host with everything that was decided about it.
struct Planned {
    settings: HostSettings,
    desired: HostDesired,
    facts: Facts,
    keep: BTreeSet<ObjectRef>,
}

/// Prints what would change.
pub(crate) async fn plan(arguments: &PlanArguments, output: Output) -> Result {
    let Decided { objects, planned, refused } =
        decide(&arguments.objects, &arguments.choice).await?;
    let hosts: Vec<HostPlan> = planned.into_iter().map(host_plan).collect();
    let unclean = hosts.iter().any(|it| !it.in_sync || !it.findings.is_empty());
    match output {
        Output::Json => print::json(&Report { hosts, problems: texts(&objects.problems) })?,
        Output::Text => {
            for host in &hosts {
                print_plan(host)?;
            }
        }
    }
    Ok(match () {
        () if refused => Ending::Refused,
        () if arguments.exit_code && unclean => Ending::Found,
        () => Ending::Done,
    })
}

/// Prints whole rulesets.
pub(crate) async fn render(arguments: &RenderArguments, output: Output) -> Result {
    let Decided { objects, planned, refused } =
        decide(&arguments.objects, &arguments.choice).await?;
    let hosts = planned.into_iter().map(|it| {
        let backend = host_choice::backend(&it.settings);
        let ruleset = backend.render(&it.desired.forwarding);
        HostRuleset {
            host: it.settings.name.to_string(),
            backend: backend_name(&it.settings),
            forwards: ruleset.forwards(),
            ruleset: ruleset.text(),
            findings: it.desired.findings,
        }
    });
    let hosts: Vec<HostRuleset> = hosts.collect();
    match output {
        Output::Json => print::json(&Report { hosts, problems: texts(&objects.problems) })?,
        Output::Text => {
            for host in &hosts {
                if hosts.len() > 1 {
                    print::line(format_args!("# Host {} ({})", host.host, host.backend))?;
                }
                print::document(&host.ruleset)?;
                for finding in &host.findings {
                    print::note(format_args!("{}: {finding}", severity(finding)));
                }
            }
        }
    }
    Ok(if refused { Ending::Refused } else { Ending::Done })
}

/// Everything that was decided, and whether something had to be refused.
struct Decided {
    objects: Objects,
    planned: Vec<Planned>,
    refused: bool,
}

async fn decide(objects: &ObjectOptions, choice: &HostChoice) -> Result<Decided> {
    let mut objects = objects.read().await?;
    choice.complete(&mut objects)?;
    objects.note_problems();
    let view = objects.view();
    let mut planned = Vec::new();
    let mut refused = objects.is_partly_unreadable();
    let names = choice.names(&view)?;
    for name in &names {
        match decide_host(&view, &objects, choice, name).await {
            Ok(host) => planned.push(host),
            // One bad Host costs only its own plan.
            Err(error) if names.len() > 1 && error.is::<Refused>() => {
                print::note(format_args!("error: {error:#}"));
                refused = true;
            }
            Err(error) => return Err(error),
        }
    }
    Ok(Decided { objects, planned, refused })
}

async fn decide_host(
    view: &ClusterView,
    objects: &Objects,
    choice: &HostChoice,
    name: &str,
) -> Result<Planned> {
    let settings = settings(view, name)?;
    let facts = choice.facts(&settings, objects.client.as_ref()).await?;
    let desired =
        forward_plan(view, name, &facts.view).map_err(|error| refused(error.to_string()))?;
    let keep = desired.unreadable.iter().cloned().chain(objects.unreadable()).collect();
    Ok(Planned { settings, desired, facts, keep })
}

/// The settings of a Host that is there.
pub(crate) fn settings(view: &ClusterView, name: &str) -> Result<HostSettings> {
    match view.host(name) {
        Some(settings) => Ok(HostSettings::clone(settings)),
        // It is there, so it cannot be understood; the planner has the words for it.
        None => match forward_plan(view, name, &planner::host_view::HostView::default()) {
            Err(error) => Err(refused(error.to_string())),
            Ok(_) => Err(refused(format!("{} has no settings", host_choice::reference(name)))),
        },
    }
}

fn host_plan(planned: Planned) -> HostPlan {
    let Planned { settings, desired, facts, keep } = planned;
    let backend = host_choice::backend(&settings);
    let ruleset = backend.render(&desired.forwarding);
    let plan = backend.plan(&ruleset, &facts.observed, &keep);
    HostPlan {
        host: settings.name.to_string(),
        backend: backend_name(&settings),
        executor: reach::describe(&settings),
        in_sync: plan.is_empty(),
        forwards: ruleset.forwards(),
        present: facts.observed.forwards(),
        steps: plan.steps().map(str::to_owned).collect(),
        findings: desired.findings,
        kept: keep.iter().map(ToString::to_string).collect(),
    }
}

fn print_plan(plan: &HostPlan) -> Result<()> {
    let HostPlan { host, backend, executor, forwards, present, steps, .. } = plan;
    print::line(format_args!(
        "Host {host} ({backend}, {executor}): has {present}, wants {forwards} host ports"
    ))?;
    if plan.in_sync {
        print::line("  nothing to do")?;
    }
    for step in steps {
        print::line(format_args!("  {step}"))?;
    }
    for kept in &plan.kept {
        print::line(format_args!("  keep what the host has for {kept}: it cannot be read now"))?;
    }
    for finding in &plan.findings {
        print::line(format_args!("  {}: {finding}", severity(finding)))?;
    }
    Ok(())
}

fn severity(finding: &Finding) -> &'static str {
    match finding.severity {
        Severity::Error => "error",
        Severity::Warning => "warning",
        Severity::Note => "note",
    }
}

fn backend_name(settings: &HostSettings) -> &'static str {
    match settings.backend {
        api::host::Backend::Nftables => "nftables",
        api::host::Backend::Iptables => "iptables",
    }
}

fn texts(problems: &BTreeSet<Problem>) -> Vec<String> {
    problems.iter().map(ToString::to_string).collect()
}
