//! The arguments of `portcullis`. Each subcommand's own stand beside what it does.

use clap::{Parser, ValueEnum};

use crate::agent_run::AgentArguments;
use crate::cleanup::CleanupArguments;
use crate::completion::CompletionArguments;
use crate::controller_command::ControllerArguments;
use crate::demo::DemoArguments;
use crate::doctor::DoctorArguments;
use crate::epok::options::EpokOptions;
use crate::gateway::GatewayArguments;
use crate::host_apply::HostApplyArguments;
use crate::install::InstallArguments;
use crate::migrate::MigrateArguments;
use crate::plan::{PlanArguments, RenderArguments};
use crate::status::StatusArguments;

const EXAMPLES: &str = "\
First steps:
  portcullis demo                                   see it work on this machine, in namespaces
  portcullis plan -f examples/forward               what would change on a host, and why
  portcullis doctor                                 what this machine lacks
  portcullis install manifests | kubectl apply -f - run it in a cluster
  portcullis gateway create --help                  publish Services on a public machine
  portcullis controller --manifests DIR --interfaces eth0
                                                    run it here, without a cluster

Exit codes:
  0  done
  1  failed: the message says what and where
  2  refused: an argument, a file or an object cannot be accepted; nothing was changed
  3  a check that was asked for found something (plan --exit-code, doctor)";

/// The border of a Kubernetes cluster: forwards ports of hosts to nodes and pods, and publishes
/// Services on public gateways, as Services, Pods and Gateways ask for it.
#[derive(Debug, Parser)]
#[command(name = "portcullis", version, propagate_version = true, after_help = EXAMPLES)]
#[command(subcommand_required = true, arg_required_else_help = false, max_term_width = 100)]
pub(crate) struct Arguments {
    /// The form of the result
    #[arg(long, short = 'o', global = true, value_name = "FORM", default_value = "text")]
    pub(crate) output: Output,

    #[command(subcommand)]
    pub(crate) subcommand: Subcommand,
}

/// The form of a result.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(crate) enum Output {
    /// For people.
    Text,
    /// One JSON document; its fields are described in each command's --help.
    Json,
}

/// What to do.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Subcommand {
    /// Keep hosts as the objects of a cluster, or of a directory, ask for
    Controller(ControllerArguments),
    /// Print what would change on hosts, and why; works offline
    Plan(PlanArguments),
    /// Print whole rulesets, as the kernel would get them; works offline
    Render(RenderArguments),
    /// Remove everything of ours from this machine or from hosts; needs no cluster
    Cleanup(CleanupArguments),
    /// Show what runs here and does: host ports, tunnels, published ports, problems
    Status(StatusArguments),
    /// Check kernel, programs, hosts and cluster; say what to do
    Doctor(DoctorArguments),
    /// Read what a predecessor left, report what maps and what differs, take over without a gap
    Migrate(MigrateArguments),
    /// Take Epok's options, environment and subcommands, and do its work
    Epok(EpokOptions),
    /// Publish Services on public gateways: dial them, and answer their visitors
    Agent(AgentArguments),
    /// Declare public gateways for the cluster, and be one
    Gateway(GatewayArguments),
    /// Apply rules for a controller elsewhere; started by sshd as a forced command
    #[command(hide = true)]
    HostApply(HostApplyArguments),
    /// Print what must be installed elsewhere: manifests, a systemd unit, sudoers lines
    Install(InstallArguments),
    /// Print a script that lets a shell complete these arguments
    #[command(
        after_help = "Example:\n  portcullis completion bash > /etc/bash_completion.d/portcullis"
    )]
    Completion(CompletionArguments),
    /// Print which build this is
    Version,
    /// Show all of it on this machine: real traffic through network namespaces
    Demo(DemoArguments),
}
