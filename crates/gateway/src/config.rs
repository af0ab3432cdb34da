//! The configuration file: what a gateway is, and what it grants to which cluster.
//!
//! TOML with the field names that the cluster's objects have. A field that is not known is an
//! error: a misspelled grant must not become a wide one. Reading is all that is done here.

mod cluster;
mod ports;

use std::collections::BTreeSet;
use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use cluster::{ClusterConfig, ClusterName, Grant, Quota, QuotaExcess, Sha256};
pub use ports::{GrantedPorts, PortsError};

/// The port that tunnels are dialled on, TCP and UDP, unless the file says otherwise.
pub const TUNNEL_PORT: u16 = 7443;

/// A gateway's configuration.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Config {
    /// The gateway's name, as in its certificate and in the `EdgeGateway` object.
    pub name: String,
    /// Where agents dial: addresses with port, TCP and UDP each. Default `[::]:7443`, which is
    /// every address of both families.
    #[serde(default = "default_listen")]
    pub listen: Vec<SocketAddr>,
    /// The addresses that ports are published on. Empty means every global address of the machine,
    /// also those that come later.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<IpAddr>,
    /// Where keys, certificates and the last wishes of the clusters are kept.
    #[serde(default = "default_state_directory")]
    pub state_directory: PathBuf,
    /// Where metrics and the status are served.
    #[serde(default)]
    pub metrics: MetricsListen,
    /// What is logged, as in `info,gateway=debug`.
    #[serde(default = "default_log")]
    pub log: String,
    /// How long a visitor waits for an agent while none is connected, in milliseconds. With 0, the
    /// default, the connection is reset at once, so that the visitor can try another gateway.
    #[serde(default)]
    pub hold_milliseconds: u64,
    /// How long open flows may go on after SIGTERM, in seconds.
    #[serde(default = "default_drain_seconds")]
    pub drain_seconds: u64,
    /// The clusters that this gateway serves.
    #[serde(default)]
    pub clusters: Vec<ClusterConfig>,
}

/// Where metrics are served. There is no way to serve them to other machines: whoever collects
/// them runs beside the gateway.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub enum MetricsListen {
    /// Nowhere.
    #[default]
    Off,
    /// On a loopback address.
    Loopback(SocketAddr),
    /// On a Unix socket.
    Unix(PathBuf),
}

/// Why a configuration was not accepted.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file could not be read.
    #[error("{}: cannot be read", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The text is no configuration.
    #[error("{}: {reason}", .path.display())]
    Parse {
        /// The file.
        path: PathBuf,
        /// What is wrong, with line and column.
        reason: String,
    },
    /// A value does not make sense.
    #[error("{}: {field}: {reason}", .path.display())]
    Value {
        /// The file.
        path: PathBuf,
        /// The field.
        field: String,
        /// What is wrong, and what to do.
        reason: String,
    },
}

impl Config {
    /// Reads and checks a file.
    ///
    /// # Errors
    ///
    /// Names the file, the field and what to do.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
        Self::parse(path, &text)
    }

    /// Checks the text of a file; `path` is for messages.
    ///
    /// # Errors
    ///
    /// As [`Self::read`].
    pub fn parse(path: &Path, text: &str) -> Result<Self, ConfigError> {
        let config: Self = toml::from_str(text).map_err(|error| ConfigError::Parse {
            path: path.to_owned(),
            reason: error.to_string().trim_end().to_owned(),
        })?;
        config.check().map_err(|(field, reason)| ConfigError::Value {
            path: path.to_owned(),
            field,
            reason,
        })?;
        Ok(config)
    }

    /// The configuration as the text of a file.
    ///
    /// # Errors
    ///
    /// When a value has no form in TOML; none of ours is such.
    pub fn to_toml(&self) -> Result<String, toml::ser::Error> {
        toml::to_string_pretty(self)
    }

    /// The time that a visitor waits for an agent.
    #[must_use]
    pub fn hold(&self) -> Duration {
        Duration::from_millis(self.hold_milliseconds)
    }

    /// The time that open flows have after SIGTERM.
    #[must_use]
    pub fn drain(&self) -> Duration {
        Duration::from_secs(self.drain_seconds)
    }

    fn check(&self) -> Result<(), (String, String)> {
        let wrong = |field: &str, reason: String| Err((field.to_owned(), reason));
        cluster::check_name(&self.name).map_err(|reason| ("name".to_owned(), reason))?;
        if self.listen.is_empty() {
            return wrong("listen", "names no address; agents could not connect".into());
        }
        if let Some(at) = self.listen.iter().find(|it| it.port() == 0) {
            return wrong("listen", format!("{at} has no port; agents need a fixed one"));
        }
        if self.hold_milliseconds > 60_000 {
            return wrong("holdMilliseconds", "is more than a minute (60000)".into());
        }
        if self.drain_seconds > 3600 {
            return wrong("drainSeconds", "is more than an hour (3600)".into());
        }
        if !self.state_directory.is_absolute() {
            return wrong("stateDirectory", "is no absolute path".into());
        }
        let mut names = BTreeSet::new();
        for cluster in &self.clusters {
            let field = |it: &str| format!("clusters.{}.{it}", cluster.name);
            if !names.insert(&cluster.name) {
                return wrong(&field("name"), "is there twice".into());
            }
            cluster.check().map_err(|(name, reason)| (field(name), reason))?;
        }
        Ok(())
    }
}

fn default_listen() -> Vec<SocketAddr> {
    vec![SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), TUNNEL_PORT)]
}

fn default_state_directory() -> PathBuf {
    PathBuf::from("/var/lib/portcullis-gateway")
}

fn default_log() -> String {
    "info".to_owned()
}

fn default_drain_seconds() -> u64 {
    30
}

impl fmt::Display for MetricsListen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Off => f.write_str("off"),
            Self::Loopback(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl FromStr for MetricsListen {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "off" {
            return Ok(Self::Off);
        }
        if let Some(path) = text.strip_prefix("unix:") {
            let path = PathBuf::from(path);
            return if path.is_absolute() {
                Ok(Self::Unix(path))
            } else {
                Err(format!("`{text}` names no absolute path"))
            };
        }
        let expected = "expected `off`, `unix:/PATH`, or a loopback address with port such as \
                        `127.0.0.1:9464`";
        match text.parse::<SocketAddr>() {
            Ok(address) if address.ip().is_loopback() => Ok(Self::Loopback(address)),
            Ok(address) => Err(format!("{} can be reached from outside; {expected}", address.ip())),
            Err(_) => Err(format!("`{text}` is no address; {expected}")),
        }
    }
}

impl Serialize for MetricsListen {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for MetricsListen {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;

    const WHOLE: &str = r#"
name = "fra1"
listen = ["[::]:7443"]
addresses = ["203.0.113.7", "2001:db8::7"]
stateDirectory = "/var/lib/portcullis-gateway"
metrics = "127.0.0.1:9464"
log = "info"
holdMilliseconds = 500

[[clusters]]
name = "home"
caPin = "sha256:000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f"
secretHash = "sha256:1f1e1d1c1b1a191817161514131211100f0e0d0c0b0a09080706050403020100"
expires = "2026-11-21T15:00:00Z"
redemptions = 1

[[clusters.grants]]
ports = ["80", "443", "8000-8100/udp"]
addresses = ["203.0.113.7"]
maxPorts = 20

[clusters.quota]
bytesPerMonth = 1000000000000
resetDay = 1
action = "shape"
shapeBitsPerSecond = 10000000
"#;

    #[test]
    fn the_shortest_file_has_a_name_and_nothing_else() {
        let config = parse("name = \"fra1\"").expect("accepted");
        assert_eq!(config.listen, [SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), 7443)]);
        assert_eq!(config.metrics, MetricsListen::Off);
        assert_eq!(config.drain(), Duration::from_secs(30));
        assert_eq!(config.hold(), Duration::ZERO);
    }

    #[test]
    fn a_whole_file_reads_back_as_it_was_written() {
        let config = parse(WHOLE).expect("accepted");
        let again = parse(&config.to_toml().expect("has a form")).expect("accepted");
        assert_eq!(again, config);
        assert_eq!(config.clusters[0].grants.as_ref().map(Vec::len), Some(1));
    }

    #[test]
    fn what_is_wrong_is_named_with_its_remedy() {
        check(
            "name = \"fra1\"\nmetrics = \"0.0.0.0:9464\"",
            expect![[r#"
                gateway.toml: TOML parse error at line 2, column 11
                  |
                2 | metrics = "0.0.0.0:9464"
                  |           ^^^^^^^^^^^^^^
                0.0.0.0 can be reached from outside; expected `off`, `unix:/PATH`, or a loopback address with port such as `127.0.0.1:9464`"#]],
        );
        check(
            "name = \"fra1\"\nlisten = []",
            expect!["gateway.toml: listen: names no address; agents could not connect"],
        );
        check(
            &WHOLE.replace("maxPorts", "maxport"),
            expect![[r#"
            gateway.toml: TOML parse error at line 20, column 1
               |
            20 | maxport = 20
               | ^^^^^^^
            unknown field `maxport`, expected one of `ports`, `addresses`, `maxPorts`"#]],
        );
        check(
            &WHOLE.replace("8000-8100/udp", "8100-8000/udp"),
            expect![[r#"
            gateway.toml: TOML parse error at line 18, column 9
               |
            18 | ports = ["80", "443", "8100-8000/udp"]
               |         ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
            `8100-8000/udp` is no range of ports; write `443`, `8000-8100`, or with a protocol, `8000-8100/udp`"#]],
        );
        check(
            &WHOLE.replace("\"home\"", "\"../home\""),
            expect![[r#"
            gateway.toml: TOML parse error at line 11, column 8
               |
            11 | name = "../home"
               |        ^^^^^^^^^
            `../home` is no name; use at most 63 lower-case letters, digits, dots and dashes, with a letter or digit first and last"#]],
        );
        check(
            &WHOLE.replace("resetDay = 1", "resetDay = 32"),
            expect!["gateway.toml: clusters.home.quota.resetDay: is no day of a month (1 to 31)"],
        );
        check(
            &WHOLE.replace("shapeBitsPerSecond = 10000000", ""),
            expect![
                "gateway.toml: clusters.home.quota.shapeBitsPerSecond: is missing or below 8000; say how fast flows may be after `shape`"
            ],
        );
    }

    fn parse(text: &str) -> Result<Config, ConfigError> {
        Config::parse(Path::new("gateway.toml"), text)
    }

    #[track_caller]
    fn check(text: &str, expected: Expect) {
        let error = parse(text).expect_err("refused");
        expected.assert_eq(&error.to_string());
    }
}
