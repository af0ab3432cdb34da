//! One cluster that a gateway serves: how it is recognised, and what it may do.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tunnel_proto::message::{Protocol, QuotaAction, QuotaWish};

use super::GrantedPorts;

/// A cluster.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ClusterConfig {
    /// The cluster's name, as in its agents' certificates.
    pub name: ClusterName,
    /// The SHA-256 of the cluster's authority certificate (DER).
    pub ca_pin: Sha256,
    /// The SHA-256 of the one-time secret with which the cluster adopts this gateway.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_hash: Option<Sha256>,
    /// When the one-time secret expires.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<Timestamp>,
    /// How often the one-time secret can be used.
    #[serde(default = "one")]
    pub redemptions: u32,
    /// What the cluster may publish; a port needs one grant that allows it. Absent means every
    /// port on every address; an empty list means nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grants: Option<Vec<Grant>>,
    /// What the cluster may transfer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quota: Option<Quota>,
}

/// Ports that a cluster may publish.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Grant {
    /// Which ports; empty means every one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<GrantedPorts>,
    /// On which addresses; empty means every one that the gateway offers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<IpAddr>,
    /// How many ports at most by this grant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_ports: Option<u32>,
}

/// Traffic that a cluster may have in a month.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Quota {
    /// Bytes, both directions.
    pub bytes_per_month: u64,
    /// The day of the month (UTC) on which counting begins anew.
    #[serde(default = "first_day")]
    pub reset_day: u8,
    /// What happens beyond.
    #[serde(default)]
    pub action: QuotaExcess,
    /// How fast flows are after `shape`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shape_bits_per_second: Option<u64>,
}

/// What happens beyond a quota.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum QuotaExcess {
    /// It is said.
    #[default]
    Warn,
    /// Flows become slow.
    Shape,
    /// Flows end.
    Stop,
}

/// The name of a cluster. It is a directory's name too, so it has only letters, digits, dots and
/// dashes.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
pub struct ClusterName(String);

/// A SHA-256, written `sha256:` and 64 hexadecimal digits; the prefix may be left out.
#[derive(Clone, Copy, Eq, PartialEq)]
pub struct Sha256(pub [u8; 32]);

impl ClusterConfig {
    pub(super) fn check(&self) -> Result<(), (&'static str, String)> {
        if self.secret_hash.is_some() && self.expires.is_none() {
            return Err(("expires", "is missing; a one-time secret must expire".into()));
        }
        if let Some(quota) = &self.quota {
            quota.check()?;
        }
        Ok(())
    }

    /// Whether the cluster may publish the port, and by which of its grants: `Ok(None)` when it has
    /// none and needs none. `used` counts the ports that each grant has been used for; the caller
    /// adds one for the grant that is returned.
    ///
    /// # Errors
    ///
    /// Says in words why not.
    pub fn grants(
        &self,
        address: Option<IpAddr>,
        protocol: Protocol,
        port: u16,
        used: &[u32],
    ) -> Result<Option<usize>, String> {
        let Some(grants) = &self.grants else { return Ok(None) };
        let mut full = None;
        for (index, grant) in grants.iter().enumerate() {
            if !grant.allows(address, protocol, port) {
                continue;
            }
            match grant.max_ports {
                Some(most) if used.get(index).copied().unwrap_or(0) >= most => full = Some(most),
                Some(_) | None => return Ok(Some(index)),
            }
        }
        Err(match full {
            Some(most) => format!(
                "the gateway grants cluster `{}` {most} ports, and they are taken; raise maxPorts \
                 in the gateway's configuration",
                self.name
            ),
            None => format!(
                "the gateway does not grant {port}/{} {}to cluster `{}`; add it to the grants in \
                 the gateway's configuration",
                if protocol == Protocol::Tcp { "tcp" } else { "udp" },
                address.map(|it| format!("on {it} ")).unwrap_or_default(),
                self.name,
            ),
        })
    }
}

impl Grant {
    fn allows(&self, address: Option<IpAddr>, protocol: Protocol, port: u16) -> bool {
        let ports =
            self.ports.is_empty() || self.ports.iter().any(|it| it.contains(protocol, port));
        let addresses = self.addresses.is_empty()
            || address.is_some_and(|wanted| self.addresses.contains(&wanted));
        ports && addresses
    }
}

impl Quota {
    fn check(&self) -> Result<(), (&'static str, String)> {
        if !(1..=31).contains(&self.reset_day) {
            return Err(("quota.resetDay", "is no day of a month (1 to 31)".into()));
        }
        let rate = self.shape_bits_per_second;
        if self.action == QuotaExcess::Shape && rate.is_none_or(|it| it < 8000) {
            return Err((
                "quota.shapeBitsPerSecond",
                "is missing or below 8000; say how fast flows may be after `shape`".into(),
            ));
        }
        Ok(())
    }

    /// The quota as a wish.
    #[must_use]
    pub fn as_wish(&self) -> QuotaWish {
        QuotaWish {
            bytes: self.bytes_per_month,
            reset_day: self.reset_day,
            action: match self.action {
                QuotaExcess::Warn => QuotaAction::Warn,
                QuotaExcess::Shape => QuotaAction::Shape,
                QuotaExcess::Stop => QuotaAction::Stop,
            },
            shape_bits_per_second: self.shape_bits_per_second.unwrap_or(0),
        }
    }
}

fn one() -> u32 {
    1
}

fn first_day() -> u8 {
    1
}

/// Refuses what is no name of a gateway or a cluster.
pub(super) fn check_name(name: &str) -> Result<(), String> {
    let letter = |it: u8| it.is_ascii_lowercase() || it.is_ascii_digit();
    let inner = |it: u8| letter(it) || it == b'-' || it == b'.';
    let ends = [name.bytes().next(), name.bytes().last()];
    let good = ends.iter().all(|it| it.is_some_and(letter)) && name.bytes().all(inner);
    if good && name.len() <= 63 && !name.contains("..") {
        return Ok(());
    }
    Err(format!(
        "`{name}` is no name; use at most 63 lower-case letters, digits, dots and dashes, with a \
         letter or digit first and last"
    ))
}

impl ClusterName {
    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for ClusterName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        check_name(text).map(|()| Self(text.to_owned()))
    }
}

impl fmt::Display for ClusterName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for ClusterName {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

impl fmt::Display for Sha256 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("sha256:")?;
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Sha256 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Sha256 {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is no SHA-256; write `sha256:` and 64 hexadecimal digits");
        let digits = text.strip_prefix("sha256:").unwrap_or(text).as_bytes();
        let digit = |it: u8| char::from(it).to_digit(16).and_then(|it| u8::try_from(it).ok());
        let mut bytes = [0; 32];
        if digits.len() != 64 {
            return Err(wrong());
        }
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
            let (high, low) = digit(pair[0]).zip(digit(pair[1])).ok_or_else(wrong)?;
            *byte = high << 4 | low;
        }
        Ok(Self(bytes))
    }
}

impl Serialize for Sha256 {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Sha256 {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_grants_everything_is_granted() {
        check(None, None, 443, &[], Ok(None));
    }

    #[test]
    fn with_grants_only_what_they_name_is_granted() {
        let grants =
            r#"[{ ports = ["443"] }, { ports = ["8000-8100/udp"], addresses = ["192.0.2.1"] }]"#;
        check(Some(grants), None, 443, &[], Ok(Some(0)));
        check(Some(grants), None, 80, &[], Err("does not grant 80/tcp to cluster `home`"));
        check(Some("[]"), None, 443, &[], Err("does not grant 443/tcp"));
    }

    #[test]
    fn a_grant_for_one_address_is_no_grant_for_all_of_them() {
        let grants = r#"[{ addresses = ["192.0.2.1"] }]"#;
        check(Some(grants), Some([192, 0, 2, 1].into()), 443, &[], Ok(Some(0)));
        check(Some(grants), Some([192, 0, 2, 2].into()), 443, &[], Err("on 192.0.2.2"));
        check(Some(grants), None, 443, &[], Err("does not grant"));
    }

    #[test]
    fn a_grant_is_used_up_by_its_number_of_ports() {
        let grants = r#"[{ maxPorts = 2 }]"#;
        check(Some(grants), None, 443, &[1], Ok(Some(0)));
        check(Some(grants), None, 443, &[2], Err("2 ports, and they are taken"));
        let grants = r#"[{ maxPorts = 2 }, { ports = ["443"] }]"#;
        check(Some(grants), None, 443, &[2], Ok(Some(1)));
    }

    #[track_caller]
    fn check(
        grants: Option<&str>,
        address: Option<IpAddr>,
        port: u16,
        used: &[u32],
        expected: Result<Option<usize>, &str>,
    ) {
        let grants = grants.map(|it| format!("grants = {it}")).unwrap_or_default();
        let text = format!("name = \"home\"\ncaPin = \"{}\"\n{grants}", Sha256([7; 32]));
        let cluster: ClusterConfig = toml::from_str(&text).expect("a cluster");
        match (cluster.grants(address, Protocol::Tcp, port, used), expected) {
            (Err(reason), Err(part)) => assert!(reason.contains(part), "{reason}"),
            (found, expected) => {
                assert_eq!(found.as_ref().ok(), expected.as_ref().ok(), "{found:?}")
            }
        }
    }
}
