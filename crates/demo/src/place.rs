//! Where objects are written and nodes live: a directory of manifests, or a real cluster.

mod directory;
mod kubernetes;

use std::time::Duration;

use anyhow::{Context as _, Result};

pub(crate) use directory::Directory;
pub(crate) use kubernetes::Kubernetes;

/// The objects that the story begins with, wherever they are written.
const OBJECTS: [(&str, &str); 5] = [
    ("host", include_str!("../manifests/host.yaml")),
    ("blog", include_str!("../manifests/blog.yaml")),
    ("dns", include_str!("../manifests/dns.yaml")),
    ("admin", include_str!("../manifests/admin.yaml")),
    ("shop", include_str!("../manifests/shop.yaml")),
];

/// The annotation of Service `web/blog` as the story begins.
pub(crate) const BLOG: &str = "443:30443";

/// Where objects are written and nodes live.
pub(crate) trait Place {
    /// What the two nodes call themselves.
    fn nodes(&self) -> &'static [&'static str; 2];

    /// The machines behind the host, one line for each.
    fn sketch(&self) -> [String; 2];

    /// The arguments that lead the controller here.
    fn source(&self) -> [String; 2];

    /// How long a change may take to be seen.
    fn patience(&self) -> Duration;

    /// Changes the annotation of Service `web/blog`, and returns the command or the file with
    /// which a user would have done so.
    fn annotate_blog(&self, value: &str) -> Result<String>;

    /// Lets the first node and everything on it fail, and returns how long it took until the place
    /// itself knew, and who noticed.
    fn stop_node(&self) -> Result<Noticed>;

    /// Brings the first node back, and returns when the place knows.
    fn start_node(&self) -> Result<()>;

    /// What the user is told about Service `web/blog`: commands with their output. Empty while
    /// `about` does not occur in all of them.
    fn told(&self, about: &str) -> Result<Vec<(String, String)>>;

    /// What else there is to see: commands with their output.
    fn sights(&self) -> Result<Vec<(String, String)>>;

    /// How a person looks around and changes something.
    fn look_around(&self) -> String;
}

/// Who noticed that a node is down, and when.
pub(crate) struct Noticed {
    /// For people.
    pub(crate) who: &'static str,
    /// After the node went down.
    pub(crate) after: Duration,
}

fn object(name: &str) -> Result<&'static str> {
    let found = OBJECTS.iter().find(|(it, _)| *it == name);
    found.map(|(_, content)| *content).with_context(|| format!("no object {name}"))
}
