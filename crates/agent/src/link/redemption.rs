//! The one-time secret of a gateway that is not adopted yet, and how often it may still be used.
//!
//! Uses are counted where the secret is kept. A use is burnt before the secret is revealed, and of
//! agents that burn the last one at the same moment one succeeds. So a secret that says three
//! redemptions adopts three machines, whoever asks and however many agents there are.
//!
//! ```text
//! Secret: KEY, expires (RFC 3339), redemptions (those left)      replaced by version
//! file:   the secret, then lines `expires: TIME` and `redemptions: COUNT`
//!         beside it redeemed/FILE-HASH-N, the Nth use            made by one and by nobody else
//! ```

mod file;
mod secret;

use std::path::PathBuf;

use api::edge_gateway::SecretSource;
use jiff::{SignedDuration, Timestamp};
use tunnel::trust::{OneTimeSecret, TrustError};

use super::Shared;

/// For how long a use that another agent has burnt may still lead to an adoption: nobody else burns
/// one meanwhile, since the gateway most likely needs it no more.
const UNDER_WAY: SignedDuration = SignedDuration::from_secs(15);

/// A one-time secret as it is kept.
pub(super) struct Kept {
    pub(super) secret: OneTimeSecret,
    terms: Terms,
    place: Place,
}

enum Place {
    File(PathBuf),
    Secret(Box<secret::Found>),
}

/// Under which terms a secret counts.
#[derive(Clone, Debug, Eq, PartialEq)]
struct Terms {
    expires: Option<Timestamp>,
    /// How many uses are left.
    left: u32,
    /// Who burnt the last one, and when.
    last: Option<(String, Timestamp)>,
}

impl Kept {
    /// Reads it from where the gateway's object says.
    ///
    /// # Errors
    ///
    /// For people: it is not there, is no secret, or has no use for this agent now.
    pub(super) async fn read(source: &SecretSource, shared: &Shared) -> Result<Self, String> {
        let kept = match source {
            SecretSource::File(path) => {
                let path = PathBuf::from(path.as_str());
                blocking(move || file::read(path)).await
            }
            SecretSource::Secret { namespace, name, key } => {
                secret::read(shared.client.as_ref(), [namespace, name, key]).await
            }
        };
        let kept = kept.map_err(|error| format!("spec.adoption: {error}"))?;
        kept.terms
            .allow(&shared.agent, Timestamp::now())
            .map_err(|error| format!("spec.adoption: {}: {error}", kept.place()))?;
        Ok(kept)
    }

    /// Burns one use. It is noted when this returns.
    ///
    /// # Errors
    ///
    /// When another agent has burnt it, or it cannot be noted.
    pub(super) async fn burn(&self, agent: &str) -> Result<(), String> {
        match &self.place {
            Place::Secret(found) => found.burn(self.terms.left, agent, Timestamp::now()).await,
            Place::File(path) => {
                let (path, agent) = (path.clone(), agent.to_owned());
                let (secret, left) = (self.secret.clone(), self.terms.left);
                blocking(move || file::burn(&path, &secret, left, &agent)).await
            }
        }
    }

    fn place(&self) -> String {
        match &self.place {
            Place::File(path) => path.display().to_string(),
            Place::Secret(found) => found.to_string(),
        }
    }
}

impl Terms {
    /// Says whether `agent` may use the secret at `now`.
    fn allow(&self, agent: &str, now: Timestamp) -> Result<(), String> {
        let again = "`portcullis gateway create` makes a new one";
        if let Some(expires) = self.expires.filter(|it| *it <= now) {
            return Err(format!("the one-time secret has expired at {expires}; {again}"));
        }
        if self.left == 0 {
            return Err(format!("the one-time secret was used as often as it may be; {again}"));
        }
        match &self.last {
            Some((by, at)) if by != agent && now.duration_since(*at).abs() < UNDER_WAY => {
                Err(format!("agent {by} is adopting the gateway"))
            }
            Some(_) | None => Ok(()),
        }
    }

    /// Reads values as they are written; what is missing allows one use, at any time.
    fn parse(expires: Option<&str>, redemptions: Option<&str>) -> Result<Self, String> {
        let expires = expires.map(str::trim).filter(|it| !it.is_empty());
        let expires = expires.map(|it| it.parse::<Timestamp>().map_err(|_| it));
        let expires = expires
            .transpose()
            .map_err(|it| format!("expires: `{it}` is no time such as 2026-01-31T12:00:00Z"))?;
        let left = redemptions.map(str::trim);
        let left = left.map_or(Ok(1), |it| it.parse().map_err(|_| it));
        let left = left.map_err(|it| format!("redemptions: `{it}` is no count"))?;
        Ok(Self { expires, left, last: None })
    }
}

fn one_time_secret(text: &str) -> Result<OneTimeSecret, String> {
    text.parse().map_err(|error: TrustError| error.to_string())
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, String> + Send + 'static,
) -> Result<T, String> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(_) => Err("the program ends".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_counts_until_it_has_expired_or_is_used_up() {
        let at = |text: &str| text.parse::<Timestamp>().expect("a time");
        let check = |expires: Option<&str>, redemptions: Option<&str>, expected: &str| {
            let terms = Terms::parse(expires, redemptions);
            let found = terms.and_then(|it| it.allow("a", at("2026-05-05T12:00:00Z")));
            let found = found.err().unwrap_or_default();
            assert!(found.contains(expected) && found.is_empty() == expected.is_empty(), "{found}");
        };
        check(None, None, "");
        check(Some("2026-05-05T12:00:01Z\n"), Some("1\n"), "");
        check(Some("2026-05-05T12:00:00Z"), Some("1"), "has expired at 2026-05-05T12:00:00Z");
        check(None, Some("0"), "as often as it may be");
        check(Some("soon"), None, "`soon` is no time");
        check(None, Some("-1"), "`-1` is no count");
    }

    #[test]
    fn a_use_that_another_agent_has_just_burnt_is_not_followed_by_a_second() {
        let burnt: Timestamp = "2026-05-05T12:00:00Z".parse().expect("a time");
        let terms = Terms { expires: None, left: 2, last: Some(("agent-0".to_owned(), burnt)) };
        let after = |agent: &str, seconds: i64| {
            terms.allow(agent, burnt + SignedDuration::from_secs(seconds))
        };
        let refused = after("agent-1", 1).expect_err("too early");
        assert_eq!(refused, "agent agent-0 is adopting the gateway");
        assert_eq!(after("agent-0", 1), Ok(()), "it knows that it has failed");
        assert_eq!(after("agent-1", 15), Ok(()), "the other one has failed");
    }
}
