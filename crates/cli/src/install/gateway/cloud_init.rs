//! User data for cloud-init, as YAML.

use super::{LIMITS, SYSCTL};

/// How the machine gets the program.
pub(super) struct Fetch {
    /// The unit that fetches and checks it.
    pub(super) unit: String,
    /// `sha256:` and the digits.
    pub(super) digest: String,
}

const HEAD: &str = "\
#cloud-config
# A public gateway. Nothing in here is secret: a pin, and the hash of a one-time secret.
users:
  - default
  - name: portcullis
    gecos: Portcullis gateway
    system: true
    no_create_home: true
    homedir: /nonexistent
    shell: /usr/sbin/nologin
    lock_passwd: true
packages:
  - ca-certificates
  - curl
  - nftables
write_files:
";

const RUN: &str = "\
# Each a program and its arguments; there is no shell.
runcmd:
  - [sysctl, --load=/etc/sysctl.d/60-portcullis.conf]
  - [systemctl, daemon-reload]
";

/// Returns the whole text.
pub(super) fn text(config: &str, unit: &str, fetch: Option<&Fetch>) -> String {
    let mut text = HEAD.to_owned();
    text += &file("/etc/portcullis/gateway.toml", config);
    text += &file("/etc/systemd/system/portcullis-gateway.service", unit);
    text += &file(LIMITS, SYSCTL);
    if let Some(fetch) = fetch {
        let digits = fetch.digest.trim_start_matches("sha256:");
        let line = format!("{digits}  /run/portcullis-program/portcullis-gateway\n");
        text += &file("/etc/portcullis/program.sha256", &line);
        text += &file("/etc/systemd/system/portcullis-program.service", &fetch.unit);
    }
    text += RUN;
    if fetch.is_some() {
        text += "  - [systemctl, enable, --now, portcullis-program.service]\n";
    }
    text += "  - [systemctl, enable, --now, portcullis-gateway.service]\n";
    text
}

/// A file of root's that everybody may read.
fn file(path: &str, content: &str) -> String {
    let mut text = format!(
        "  - path: {path}\n    owner: root:root\n    permissions: \"0644\"\n    content: |\n"
    );
    for line in content.lines() {
        if !line.is_empty() {
            text += "      ";
        }
        text += line;
        text.push('\n');
    }
    text
}
