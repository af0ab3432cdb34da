//! A directory of manifests, and nodes that are nothing but echo servers.

use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};
use testkit::Protocol;
use testkit::border::{Border, NODES, NODES6};
use testkit::probe::EchoServer;

use super::{BLOG, Noticed, OBJECTS, Place, object};

/// What every node serves.
const BACKENDS: [(u16, Protocol); 4] = [
    (30443, Protocol::Tcp),
    (30053, Protocol::Udp),
    (30022, Protocol::Tcp),
    (30080, Protocol::Tcp),
];

/// The Node objects, which a cluster would have by itself.
const NODE_OBJECTS: [&str; 2] = [
    include_str!("../../manifests/directory/n1.yaml"),
    include_str!("../../manifests/directory/n2.yaml"),
];

/// A directory of manifests beside a lab with two nodes.
pub(crate) struct Directory {
    machines: Border,
    servers: [Mutex<Vec<EchoServer>>; 2],
    path: PathBuf,
    program: PathBuf,
}

impl Directory {
    /// Writes all manifests and opens the nodes' servers.
    pub(crate) fn build(machines: Border, path: &Path, program: &Path) -> Result<Self> {
        let (path, program) = (path.join("manifests"), program.to_owned());
        std::fs::create_dir(&path).with_context(|| format!("make {}", path.display()))?;
        let place = Self { machines, servers: Default::default(), path, program };
        for (number, node) in (1..).zip(NODE_OBJECTS) {
            place.write(&format!("n{number}"), node)?;
            place.serve(number)?;
        }
        for (name, content) in OBJECTS {
            place.write(name, content)?;
        }
        Ok(place)
    }

    /// Writes or replaces one manifest, in one step, as an editor or a ConfigMap does.
    fn write(&self, name: &str, content: &str) -> Result<()> {
        let path = self.path.join(format!("{name}.yaml"));
        let draft = self.path.join(format!(".{name}.draft"));
        std::fs::write(&draft, content).with_context(|| format!("write {}", draft.display()))?;
        std::fs::rename(&draft, &path).with_context(|| format!("write {}", path.display()))
    }

    fn serve(&self, number: usize) -> Result<()> {
        let open = |(port, protocol)| self.machines.serve(number, port, protocol);
        let servers = BACKENDS.into_iter().map(open).collect::<Result<_>>()?;
        *self.servers[number - 1].lock().map_err(|_| anyhow!("a server panicked"))? = servers;
        Ok(())
    }
}

impl Place for Directory {
    fn nodes(&self) -> &'static [&'static str; 2] {
        &["n1", "n2"]
    }

    fn sketch(&self) -> [String; 2] {
        [0, 1].map(|it| format!("{:<7} {}, {}", self.nodes()[it], NODES[it], NODES6[it]))
    }

    fn source(&self) -> [String; 2] {
        ["--manifests".to_owned(), self.path.display().to_string()]
    }

    fn patience(&self) -> Duration {
        Duration::from_secs(20)
    }

    fn annotate_blog(&self, value: &str) -> Result<String> {
        self.write("blog", &object("blog")?.replace(BLOG, value))?;
        Ok(format!("blog.yaml: portcullis.dev/host-ports: \"{value}\""))
    }

    fn stop_node(&self) -> Result<Noticed> {
        let begin = std::time::Instant::now();
        self.servers[0].lock().map_err(|_| anyhow!("a server panicked"))?.clear();
        self.write("n1", &NODE_OBJECTS[0].replace("\"True\"", "\"False\""))?;
        Ok(Noticed { who: "n1.yaml said so", after: begin.elapsed() })
    }

    fn start_node(&self) -> Result<()> {
        self.serve(1)?;
        self.write("n1", NODE_OBJECTS[0])
    }

    fn told(&self, about: &str) -> Result<Vec<(String, String)>> {
        let program = self.program.to_str().context("the program's path is no UTF-8")?;
        // It exits with 1 when something is wrong, which is what is wanted here.
        let said = self.machines.host.output(program, &["status"], "")?.stdout;
        let told = said.contains(about).then(|| ("portcullis status".to_owned(), said));
        Ok(told.into_iter().collect())
    }

    fn sights(&self) -> Result<Vec<(String, String)>> {
        Ok(Vec::new())
    }

    fn look_around(&self) -> String {
        let mut text = String::new();
        for node in &self.machines.nodes {
            text += &format!("  {:<9} {}\n", node.name(), node.enter_by_hand());
        }
        let path = self.path.display();
        text + &format!(
            "  The manifests; change them and see what follows:\n    \
             sed -i s/443:30443/8443:30443/ {path}/blog.yaml\n"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::{BLOG, object};

    #[test]
    fn the_blog_begins_with_its_annotation() {
        let blog = object("blog").expect("a manifest");
        assert!(blog.contains(&format!("portcullis.dev/host-ports: \"{BLOG}\"")), "{blog}");
    }
}
