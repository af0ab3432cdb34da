//! What a test and an agent say to each other: one JSON value a line, over the agent's standard
//! input and output.

use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

/// A transport protocol.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize, Deserialize)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        })
    }
}

impl FromStr for Protocol {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "tcp" => Ok(Self::Tcp),
            "udp" => Ok(Self::Udp),
            "sctp" => Ok(Self::Sctp),
            other => Err(format!("`{other}` is not a protocol, expected tcp, udp or sctp")),
        }
    }
}

/// One attempt to reach something.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct Probe {
    /// Where to.
    pub to: SocketAddr,
    /// Over what.
    pub protocol: Protocol,
    /// The source address and port to use; port 0 means any. The kernel chooses both by default.
    pub from: Option<SocketAddr>,
    /// After how long silence counts as [`Outcome::Dropped`].
    pub deadline: Duration,
}

/// What became of a probe.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub enum Outcome {
    /// An echo server answered.
    Reached(Answer),
    /// Somebody said no: a TCP reset, an SCTP abort, an ICMP port unreachable, or a connection
    /// that was closed before the server said its name. The text tells which.
    Refused(String),
    /// Another ICMP error, or no route; the text is the system's.
    Unreachable(String),
    /// Nothing came back within the deadline.
    Dropped,
}

impl Outcome {
    /// The answer, if there was one.
    #[must_use]
    pub fn answer(&self) -> Option<&Answer> {
        match self {
            Self::Reached(answer) => Some(answer),
            Self::Refused(_) | Self::Unreachable(_) | Self::Dropped => None,
        }
    }

    /// The name of the server that answered, if one did.
    #[must_use]
    pub fn server(&self) -> Option<&str> {
        self.answer().map(|it| it.server.as_str())
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Reached(answer) => {
                write!(f, "{} (source seen {})", answer.server, answer.source_seen)
            }
            Self::Refused(how) => write!(f, "refused ({how})"),
            Self::Unreachable(how) => write!(f, "unreachable ({how})"),
            Self::Dropped => f.write_str("dropped"),
        }
    }
}

/// What an echo server said, and how long it took.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct Answer {
    /// The server's own name.
    pub server: String,
    /// The source that the server saw.
    pub source_seen: SocketAddr,
    /// The address and port that the server was reached on, after all translation.
    pub reached_on: SocketAddr,
    /// The client's own address and port.
    pub local: SocketAddr,
    /// From the first packet until the connection was open; for UDP the same as `answered`.
    pub connected: Duration,
    /// From the first packet until the server's answer was there.
    pub answered: Duration,
}

/// One attempt of a continuous prober.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct Attempt {
    /// When it began.
    pub at: SystemTime,
    /// What became of it.
    pub outcome: Outcome,
}

/// A question to the agent. The number comes back with the reply, and names what was opened.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Request {
    pub(crate) id: u64,
    pub(crate) ask: Ask,
}

/// What an agent can be asked.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Ask {
    /// Writes a kernel setting below `/proc/sys/net`; the key is a path relative to it.
    Sysctl { key: String, value: String },
    /// Reads such a setting.
    ReadSysctl { key: String },
    /// Waits until an interface is in operation, with a carrier that the kernel has taken note of.
    WaitForCarrier { interface: String, deadline: Duration },
    /// Opens an echo server.
    Serve { name: String, at: SocketAddr, protocol: Protocol },
    /// Probes once.
    Probe(Probe),
    /// Probes one after the other, this often, and reports the times of all that were answered.
    Burst { probe: Probe, count: u32 },
    /// Opens a connection (or a UDP socket) that is kept.
    OpenFlow(Probe),
    /// Asks the server at the other end of a flow who it is.
    QueryFlow { flow: u64, deadline: Duration },
    /// Probes again and again, at a steady rate.
    StartProber { probe: Probe, every: Duration },
    /// Reports the attempts that have ended since the last call.
    ReadProber { prober: u64 },
    /// Ends a prober after its open attempts, and reports what was not yet read.
    StopProber { prober: u64 },
    /// Closes a server or a flow.
    Close { handle: u64 },
    /// Lets the agent live on when its standard input ends.
    Detach,
}

/// The agent's reply to the request with this number. Number 0 is the greeting.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Reply {
    pub(crate) id: u64,
    pub(crate) result: Result<Told, String>,
}

/// What an agent tells.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Told {
    /// The namespaces stand; `user` says whether a user namespace is one of them.
    Ready { user: bool },
    /// Done, and there is nothing to add.
    Done,
    /// A text.
    Text(String),
    /// The address that was bound.
    Bound(SocketAddr),
    /// What became of a probe.
    Outcome(Outcome),
    /// The answers of a burst, and how many attempts had none.
    Burst { answers: Vec<Answer>, failed: Vec<Outcome> },
    /// Attempts of a prober, in the order in which they began.
    Attempts(Vec<Attempt>),
}
