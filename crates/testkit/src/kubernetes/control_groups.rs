//! The nodes' control groups (version 1): one group for each node in every hierarchy.
//!
//! The kubelet wants a group that is its own, with the controllers it knows. The groups are made
//! next to the one this process is in, so it needs no more rights than its own, and a node sees
//! only what lies below.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::Context as _;
use nix::unistd::{AccessFlags, access};

use super::namespace::Holder;
use crate::Missing;

/// What a hierarchy is mounted with: `memory`, or `name=systemd`.
type Controllers = String;

/// The groups of one cluster.
#[derive(Clone, Debug)]
pub(super) struct ControlGroups {
    /// Where this process's own group of each hierarchy is.
    hierarchies: BTreeMap<Controllers, PathBuf>,
    cluster: String,
    nodes: u8,
}

impl ControlGroups {
    /// Finds the hierarchies; makes nothing yet.
    ///
    /// # Errors
    ///
    /// Says what is missing where the kernel offers only version 2.
    pub(super) fn find(cluster: &str, nodes: u8) -> Result<Self, Missing> {
        let read = |path: &str| {
            std::fs::read_to_string(path)
                .map_err(|it| Missing::new(format!("cannot read {path}: {it}"), "mount /proc"))
        };
        let hierarchies = hierarchies(&read("/proc/self/cgroup")?, &read("/proc/self/mountinfo")?);
        if !["memory", "cpu", "cpuset", "pids"]
            .iter()
            .all(|it| hierarchies.keys().any(|key| key.split(',').any(|have| have == *it)))
        {
            return Err(Missing::new(
                "there are no control groups of version 1 with the controllers memory, cpu, cpuset and pids",
                "boot with systemd.unified_cgroup_hierarchy=0, or do without nodes",
            ));
        }
        let closed =
            hierarchies.values().find(|it| access(it.as_path(), AccessFlags::W_OK).is_err());
        if let Some(closed) = closed {
            return Err(Missing::new(
                format!("{} is read-only", closed.display()),
                "mount it writable",
            ));
        }
        Ok(Self { hierarchies, cluster: cluster.to_owned(), nodes })
    }

    /// The group of one node, in every hierarchy, relative to this process's own.
    pub(super) fn name_of(&self, node: u8) -> String {
        format!("{}-{node}", self.cluster)
    }

    /// All groups as directories, for whoever removes them.
    pub(super) fn directories(&self) -> Vec<PathBuf> {
        let names = (1..=self.nodes).map(|it| self.name_of(it));
        names.flat_map(|name| self.hierarchies.values().map(move |own| own.join(&name))).collect()
    }

    /// Makes the groups of all nodes.
    pub(super) fn make(&self) -> anyhow::Result<()> {
        for directory in self.directories() {
            std::fs::create_dir(&directory).with_context(|| {
                format!("cannot make the control group {}", directory.display())
            })?;
            // A new group of cpuset has no processors and no memory, and then takes no process.
            for file in ["cpuset.cpus", "cpuset.mems"] {
                let (own, inherited) = (directory.join(file), directory.with_file_name(file));
                if own.exists() {
                    let value = std::fs::read(&inherited)
                        .with_context(|| format!("cannot read {}", inherited.display()))?;
                    std::fs::write(&own, value)
                        .with_context(|| format!("cannot write {}", own.display()))?;
                }
            }
        }
        Ok(())
    }

    /// Mounts the hierarchies where programs look for them. A new control group namespace begins at this process's own
    /// groups, and only a new mount shows that.
    pub(super) fn mount_in(&self, holder: &Holder) -> anyhow::Result<()> {
        holder.run("mount", &["-t", "tmpfs", "-o", "mode=755", "tmpfs", "/sys/fs/cgroup"])?;
        for controllers in self.hierarchies.keys() {
            let place = format!("/sys/fs/cgroup/{}", controllers.trim_start_matches("name="));
            holder.run("mkdir", &[&place])?;
            let options = if controllers.starts_with("name=") {
                format!("none,{controllers}")
            } else {
                controllers.clone()
            };
            holder.run("mount", &["-t", "cgroup", "-o", &options, "cgroup", &place])?;
        }
        Ok(())
    }
}

/// Joins what the process says of its groups with where the hierarchies are mounted (proc(5)).
fn hierarchies(groups: &str, mounts: &str) -> BTreeMap<Controllers, PathBuf> {
    let mut found = BTreeMap::new();
    // hierarchy-ID:controllers:path
    for line in groups.lines() {
        let mut fields = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(group)) = (fields.next(), fields.next()) else { continue };
        if controllers.is_empty() {
            continue;
        }
        // ID parent device ROOT PLACE options ... - TYPE source SUPER-OPTIONS
        let directory = mounts.lines().find_map(|line| {
            let (before, after) = line.split_once(" - ")?;
            let (before, after): (Vec<_>, Vec<_>) =
                (before.split(' ').collect(), after.split(' ').collect());
            let (root, place) = (*before.get(3)?, *before.get(4)?);
            let has = |it: &str| {
                after.get(2).is_some_and(|options| options.split(',').any(|have| have == it))
            };
            let matches = after.first() == Some(&"cgroup") && controllers.split(',').all(has);
            let below = group.strip_prefix(root.trim_end_matches('/'))?;
            matches.then(|| PathBuf::from(place).join(below.trim_start_matches('/')))
        });
        if let Some(directory) = directory {
            found.insert(controllers.to_owned(), directory);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::hierarchies;

    #[test]
    fn finds_its_own_group_below_a_hierarchy_that_is_mounted_from_its_root_or_from_below() {
        let groups = "5:cpu,cpuacct:/a/b\n4:memory:/jail/c\n3:name=systemd:/\n0::/\n";
        let mounts = "\
            30 25 0:26 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n\
            31 25 0:27 /jail /sys/fs/cgroup/memory rw shared:9 - cgroup cgroup rw,memory\n\
            32 25 0:28 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,name=systemd\n\
            33 25 0:29 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";
        let found: Vec<_> = hierarchies(groups, mounts)
            .into_iter()
            .map(|(key, path)| format!("{key} {}", path.display()))
            .collect();
        assert_eq!(
            found,
            [
                "cpu,cpuacct /sys/fs/cgroup/cpu,cpuacct/a/b",
                "memory /sys/fs/cgroup/memory/c",
                "name=systemd /sys/fs/cgroup/systemd/"
            ]
        );
    }
}
