//! The options of Epok that a Deployment holds: its container's arguments and environment.

use std::path::Path;

use serde_json::Value;

use crate::ending::{Result, refused};

/// The options of one container, as arguments of `epok`, and what could not be read.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// Arguments after the program's name.
    pub(super) arguments: Vec<String>,
    /// Values that are not in the file.
    pub(super) remarks: Vec<String>,
}

/// Variables that belong before the executor, and their options.
const GENERAL: [(&str, &str); 5] = [
    ("EPOK_INTERFACES", "--interfaces"),
    ("EPOK_EXTERNAL_INTERFACE", "--external-interface"),
    ("EPOK_EXTRA_INTERNAL_IPS", "--extra-internal-ips"),
    ("EPOK_BATCH_COMMANDS", "--batch-commands"),
    ("EPOK_BATCH_SIZE", "--batch-size"),
];

/// Variables of the executor `ssh`, and their options.
const SSH: [(&str, &str); 4] = [
    ("EPOK_SSH_HOST", "--host"),
    ("EPOK_SSH_PORT", "--port"),
    ("EPOK_SSH_KEY", "--key"),
    ("EPOK_SSH_HOST_KEY", "--host-key"),
];

/// Reads the first container that looks like Epok's.
pub(super) fn read(file: &Path) -> Result<Found> {
    let place = file.display();
    let text = std::fs::read_to_string(file)
        .map_err(|error| refused(format!("--deployment: {place}: {error}; name a manifest")))?;
    let documents: Vec<Value> = serde_saphyr::from_multiple(&text).map_err(|error| {
        refused(format!("--deployment: {place}: {error}; correct the manifest"))
    })?;
    let container = documents.iter().find_map(container).ok_or_else(|| {
        refused(format!(
            "--deployment: {place}: no container has an argument `epok` or a variable EPOK_...; \
             name the manifest of Epok's Deployment"
        ))
    })?;
    Ok(options(container))
}

/// The container of a workload, if it is Epok's.
fn container(document: &Value) -> Option<&Value> {
    let pod = match document["kind"].as_str()? {
        "Pod" => &document["spec"],
        _ => &document["spec"]["template"]["spec"],
    };
    let is_epok = |it: &&Value| {
        let env = it["env"].as_array().into_iter().flatten();
        words(it).iter().any(|it| it.rsplit('/').next() == Some("epok"))
            || env.filter_map(|it| it["name"].as_str()).any(|it| it.starts_with("EPOK_"))
    };
    pod["containers"].as_array()?.iter().find(is_epok)
}

fn words(container: &Value) -> Vec<&str> {
    let list =
        |key: &str| container[key].as_array().into_iter().flatten().filter_map(Value::as_str);
    list("command").chain(list("args")).collect()
}

fn options(container: &Value) -> Found {
    let mut found = Found::default();
    let words = words(container);
    let start = words.iter().position(|it| it.rsplit('/').next() == Some("epok"));
    let arguments = &words[start.map_or(0, |it| it + 1)..];
    let executor = arguments.iter().position(|it| matches!(*it, "ssh" | "local"));
    let (general, ssh) = arguments.split_at(executor.unwrap_or(arguments.len()));

    found.take(container, &GENERAL, general);
    found.arguments.extend(general.iter().map(|&it| it.to_owned()));
    match ssh {
        [executor, rest @ ..] => {
            found.arguments.push((*executor).to_owned());
            if *executor == "ssh" {
                found.take(container, &SSH, rest);
            }
            found.arguments.extend(rest.iter().map(|&it| it.to_owned()));
        }
        [] => found.remarks.push("the container names no executor; `local` is assumed".to_owned()),
    }
    if ssh.is_empty() {
        found.arguments.push("local".to_owned());
    }
    found
}

impl Found {
    /// Turns variables into options, unless the option is there already and wins.
    fn take(&mut self, container: &Value, table: &[(&str, &str)], given: &[&str]) {
        let env = container["env"].as_array().map(Vec::as_slice).unwrap_or_default();
        for (variable, option) in table {
            let Some(entry) = env.iter().find(|it| it["name"] == *variable) else { continue };
            if given.iter().any(|it| it.starts_with(option)) {
                continue;
            }
            match entry["value"].as_str() {
                Some(value) if !value.is_empty() => {
                    self.arguments.push(format!("{option}={value}"));
                }
                Some(_) => {}
                None => self.remarks.push(format!(
                    "{variable} comes from elsewhere ({}); pass its value in the environment",
                    entry["valueFrom"]
                )),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_and_environment_become_options() {
        let container = serde_json::json!({
            "args": ["epok", "--batch-size", "1024", "ssh", "-p", "2222"],
            "env": [
                { "name": "EPOK_INTERFACES", "value": "eth0" },
                { "name": "EPOK_EXTERNAL_INTERFACE", "value": "" },
                { "name": "EPOK_SSH_HOST", "valueFrom": { "secretKeyRef": { "name": "s", "key": "h" } } },
                { "name": "EPOK_SSH_KEY", "value": "/opt/secrets/id_rsa" },
            ]
        });
        let found = options(&container);
        assert_eq!(
            found.arguments,
            [
                "--interfaces=eth0",
                "--batch-size",
                "1024",
                "ssh",
                "--key=/opt/secrets/id_rsa",
                "-p",
                "2222"
            ]
        );
        assert_eq!(found.remarks.len(), 1);
        assert!(found.remarks[0].contains("EPOK_SSH_HOST"), "{:?}", found.remarks);
    }
}
