//! A whole machine for Terraform (or OpenTofu): the checked-in files, with the user data inside.

use gateway::config::GrantedPorts;

use super::super::{Document, replace};
use super::Provision;
use crate::ending::Result;

const AWS: &str = include_str!("../../../../../deploy/terraform/aws.tf");
const HETZNER: &str = include_str!("../../../../../deploy/terraform/hetzner.tf");

const USER_DATA: &str = "file(\"${path.module}/user-data.yaml\")";
const PUBLISHED: &str = "    { protocol = \"tcp\", from = 80, to = 80 },
    { protocol = \"tcp\", from = 443, to = 443 },
";
const DNS_NAME: &str = "visitors ask for.\"\n  type        = string\n  default     = null";

pub(super) fn aws(provision: &Provision, user_data: &Document) -> Result<Document> {
    let mut text = filled(AWS, provision, &user_data.text)?;
    if let Some(name) = &provision.dns_name {
        let default = DNS_NAME.replace("null", &format!("{name:?}"));
        text = replace(&text, DNS_NAME, &default)?;
    }
    Ok(document(text, user_data, "dns_zone_id", "gatewayTerraformAws"))
}

pub(super) fn hetzner(provision: &Provision, user_data: &Document) -> Result<Document> {
    let text = filled(HETZNER, provision, &user_data.text)?;
    Ok(document(text, user_data, "dns_zone and dns_name", "gatewayTerraformHetzner"))
}

fn document(text: String, user_data: &Document, dns: &str, kind: &'static str) -> Document {
    let mut steps = vec![
        "save it as main.tf in an empty directory, then terraform init && terraform apply"
            .to_owned(),
        format!("for DNS records, set the variables {dns}"),
    ];
    // What is to be said about the program.
    steps.extend(user_data.steps.iter().skip(1).cloned());
    Document { kind, place: "a directory of its own".to_owned(), text, steps }
}

fn filled(template: &str, provision: &Provision, user_data: &str) -> Result<String> {
    // What HCL would take for its own; a line of the text alone cannot end it, because all others
    // are YAML.
    let user_data = user_data.replace("${", "$${").replace("%{", "%%{");
    let heredoc = format!("<<USER_DATA\n{user_data}USER_DATA\n");
    // An expression ends with its line, and the heredoc brings its own end of line.
    let text = replace(template, &format!("{USER_DATA}\n"), &heredoc)?;
    let text = replace(
        &text,
        "default     = \"gateway\"",
        &format!("default     = {:?}", provision.name),
    )?;
    let port = format!("default     = {}\n", provision.tunnel_port);
    let text = replace(&text, "default     = 7443\n", &port)?;
    if provision.published.is_empty() {
        return Ok(text);
    }
    let published: String = provision.published.iter().map(rule).collect();
    replace(&text, PUBLISHED, &published)
}

/// Without a protocol, both.
fn rule(ports: &GrantedPorts) -> String {
    let text = ports.to_string();
    let (range, protocol) = text.split_once('/').unwrap_or((&text, ""));
    let (from, to) = range.split_once('-').unwrap_or((range, range));
    let protocols: &[_] = if protocol.is_empty() { &["tcp", "udp"] } else { &[protocol] };
    let line = |it: &&str| format!("    {{ protocol = \"{it}\", from = {from}, to = {to} }},\n");
    protocols.iter().map(line).collect()
}
