//! Which hosts a one-shot command is about, and what is known of them.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use api::host::HostSettings;
use api::object::{ObjectKind, ObjectRef};
use clap::Args;
use command::Output;
use firewall::{Backend, Observed};
use kube::Client;
use planner::cluster_view::{Change, ClusterView, Object};
use planner::desired::Options;
use planner::host_view::HostView;

use crate::declared::{self, DeclaredHost};
use crate::ending::{Result, refused};
use crate::objects::Objects;
use crate::{print, reach};

/// Which hosts, and where facts about them come from.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct HostChoice {
    /// Only this Host; default: all Hosts among the objects
    #[arg(long, value_name = "NAME")]
    pub(crate) host: Option<String>,

    /// What the host has now: the saved output of `nft -j list table inet portcullis`, or of
    /// `iptables-save` (and `ip6tables-save`); default: nothing
    #[arg(long, value_name = "FILE", conflicts_with = "live")]
    pub(crate) listing: Vec<PathBuf>,

    /// The host's addresses: the saved output of `ip -j addr show`
    #[arg(long, value_name = "FILE", conflicts_with = "live")]
    pub(crate) addresses: Option<PathBuf>,

    /// The host's listening sockets: the saved output of `ss -H -l -n -t -u`
    #[arg(long, value_name = "FILE", conflicts_with = "live")]
    pub(crate) listeners: Option<PathBuf>,

    /// Ask the hosts themselves: this machine, or over SSH as the Host says
    #[arg(long)]
    pub(crate) live: bool,

    #[command(flatten)]
    pub(crate) declared: DeclaredHost,
}

/// What is known of one host.
#[derive(Debug)]
pub(crate) struct Facts {
    /// Addresses and listeners.
    pub(crate) view: HostView,
    /// Its rules.
    pub(crate) observed: Observed,
}

impl HostChoice {
    /// Adds the declared Host, if there is one, to what was read.
    pub(crate) fn complete(&self, objects: &mut Objects) -> Result<()> {
        let name = match &self.host {
            Some(name) => name.clone(),
            None => declared::this_machine()?,
        };
        if let Some(host) = self.declared.host(&name)? {
            objects.changes.push(Change::Applied(Object::Host(Box::new(host))));
        }
        Ok(())
    }

    /// The names of the hosts that are meant.
    pub(crate) fn names(&self, view: &ClusterView) -> Result<Vec<String>> {
        let known: Vec<String> = view.host_names().map(str::to_owned).collect();
        let names = match &self.host {
            Some(name) if known.contains(name) => vec![name.clone()],
            Some(name) => {
                let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
                return Err(refused(format!(
                    "--host: {name:?}: there is no such Host among the objects (there are: \
                     {known}); correct the name, or declare the host with --interfaces"
                )));
            }
            None if known.is_empty() => {
                return Err(refused(
                    "there is no Host among the objects; add a Host manifest, or declare this \
                     machine with --interfaces, for example --interfaces eth0",
                ));
            }
            None => known,
        };
        let one_only = !self.listing.is_empty() || self.addresses.is_some();
        if names.len() > 1 && one_only {
            return Err(refused(format!(
                "--listing and --addresses belong to one host, but there are {}; choose one with \
                 --host",
                names.join(", ")
            )));
        }
        Ok(names)
    }

    /// What is known of one host; of an offline host, what the files say.
    pub(crate) async fn facts(
        &self,
        settings: &HostSettings,
        client: Option<&Client>,
    ) -> Result<Facts> {
        let backend = backend(settings);
        let options = options(settings);
        if self.live {
            return live(settings, client, backend, options).await;
        }
        if self.addresses.is_none() {
            print::note(format_args!(
                "note: the addresses of Host {} are not known here; save them on the host with `ip \
                 -j addr show` and name them with --addresses, or use --live",
                settings.name
            ));
        }
        let addresses = read(self.addresses.as_deref(), "--addresses", "ip -j addr show")?;
        let listeners = read(self.listeners.as_deref(), "--listeners", "ss -H -l -n -t -u")?;
        let view =
            HostView::read(addresses.as_deref().unwrap_or("[]"), &listeners.unwrap_or_default())
                .map_err(|error| {
                    let file = self.addresses.as_deref().unwrap_or(Path::new("")).display();
                    refused(format!(
                        "--addresses: {file}: {error}; save it again on the host with \
                     `ip -j addr show`"
                    ))
                })?;
        let observed = self.observed(backend, options)?;
        Ok(Facts { view, observed })
    }

    fn observed(&self, backend: Backend, options: Options) -> Result<Observed> {
        let commands = backend.listing(options);
        if self.listing.is_empty() {
            return Ok(Observed::default());
        }
        if self.listing.len() > commands.len() {
            return Err(refused(format!(
                "--listing: given {} times, but this backend has {} listings; leave some out",
                self.listing.len(),
                commands.len()
            )));
        }
        let mut outputs = Vec::new();
        for (index, command) in commands.iter().enumerate() {
            let file = self.listing.get(index).map(PathBuf::as_path);
            let text = read(file, "--listing", &command.to_string())?.unwrap_or_default();
            outputs.push(Output { status: Some(0), stdout: text, stderr: String::new() });
        }
        backend.observe(&outputs).map_err(|error| {
            let files = self.listing.iter().map(|it| it.display().to_string()).collect::<Vec<_>>();
            let commands = commands.iter().map(|it| format!("`{it}`")).collect::<Vec<_>>();
            refused(format!(
                "--listing: {}: {:#}; save it again on the host with {}",
                files.join(", "),
                anyhow::Error::from(error),
                commands.join(" and ")
            ))
        })
    }
}

async fn live(
    settings: &HostSettings,
    client: Option<&Client>,
    backend: Backend,
    options: Options,
) -> Result<Facts> {
    let mut executor = reach::executor(settings, client).await?;
    let addresses = reach::succeed(&mut *executor, &firewall::observe::addresses()).await?;
    let listeners = reach::succeed(&mut *executor, &firewall::observe::listeners()).await?;
    let view = HostView::read(&addresses.stdout, &listeners.stdout)?;
    let observed = observe(&mut *executor, backend, options).await?;
    Ok(Facts { view, observed })
}

/// Reads what a host has of ours.
pub(crate) async fn observe(
    executor: &mut dyn host::Executor,
    backend: Backend,
    options: Options,
) -> Result<Observed> {
    let mut outputs = Vec::new();
    for command in backend.listing(options) {
        outputs.push(executor.run(&command).await?);
    }
    backend.observe(&outputs).context("cannot read the host's rules; nothing was changed")
}

/// The backend that a Host asks for.
pub(crate) fn backend(settings: &HostSettings) -> Backend {
    match settings.backend {
        api::host::Backend::Nftables => Backend::Nftables,
        api::host::Backend::Iptables => Backend::Iptables,
    }
}

/// The options that a Host asks for.
pub(crate) fn options(settings: &HostSettings) -> Options {
    Options {
        accept_forwarded: settings.accept_forwarded,
        masquerade: settings.masquerade,
        hairpin: settings.hairpin,
    }
}

/// What a Host is called in messages.
pub(crate) fn reference(name: &str) -> ObjectRef {
    ObjectRef::cluster(ObjectKind::Host, name)
}

fn read(file: Option<&Path>, flag: &str, command: &str) -> Result<Option<String>> {
    let Some(file) = file else { return Ok(None) };
    let text = std::fs::read_to_string(file).map_err(|error| {
        refused(format!(
            "{flag}: {}: {error}; save it on the host with `{command}`",
            file.display()
        ))
    })?;
    Ok(Some(text))
}
