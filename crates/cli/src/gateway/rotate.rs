//! `portcullis gateway rotate`: a new authority follows the present one.

use std::time::{Duration, SystemTime};

use clap::Args;
use serde::Serialize;
use tunnel::trust::{Authorities, LIFETIME};

use super::authority::KeeperOptions;
use super::create::timestamp;
use crate::arguments::Output;
use crate::ending::{Ending, Result, refused};
use crate::print;

const HELP: &str = "\
A new authority is trusted at once and signs a week later, when every gateway has heard of it; the
present one is trusted for another week after that. Nothing is interrupted, and there is nothing
more to do. A gateway that is switched off during all that time must be created again.

Has the authority's key been stolen, then whoever has it can sign as well: with --now the new one
signs at once, and --retire, once every gateway has a new certificate (gateway list), drops the
old one. Machines that are started from older user data cannot be adopted any more after that.";

/// How to rotate.
#[derive(Args, Debug)]
#[command(after_help = HELP)]
pub(crate) struct RotateArguments {
    #[command(flatten)]
    keeper: KeeperOptions,

    /// Let the new authority sign at once
    #[arg(long)]
    now: bool,

    /// Make no new authority, but drop those that no longer sign
    #[arg(long, conflicts_with = "now")]
    retire: bool,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Rotated {
    cluster: String,
    /// The pins of every trusted authority; the one that signs comes first.
    pins: Vec<String>,
    /// When the next step happens by itself.
    next_change: Option<String>,
}

/// Rotates.
pub(crate) async fn run(arguments: &RotateArguments, output: Output) -> Result {
    let keeper = arguments.keeper.keeper().await?;
    let kept = keeper.load().await?.ok_or_else(|| {
        refused("there is no authority yet; `portcullis gateway create` makes the first one")
    })?;
    let now = SystemTime::now();
    let rotated = if arguments.retire {
        kept.authorities.retire(now)
    } else {
        let delay = if arguments.now { Duration::ZERO } else { LIFETIME };
        kept.authorities.rotate(now + delay, now).map_err(|error| refused(error.to_string()))?
    };
    keeper.replace(&kept, &rotated).await?;
    show(&rotated, now, output)
}

fn show(authorities: &Authorities, now: SystemTime, output: Output) -> Result {
    let rotated = Rotated {
        cluster: authorities.cluster().to_owned(),
        pins: authorities.pins(now).iter().map(ToString::to_string).collect(),
        next_change: authorities.next_change(now).map(timestamp),
    };
    match output {
        Output::Json => print::json(&rotated)?,
        Output::Text => {
            print::line(format_args!("cluster {}", rotated.cluster))?;
            for (index, pin) in rotated.pins.iter().enumerate() {
                let role = if index == 0 { "signs and is trusted" } else { "is trusted" };
                print::line(format_args!("{pin}  {role}"))?;
            }
            if let Some(at) = &rotated.next_change {
                print::line(format_args!("the next change happens by itself at {at}"))?;
            }
        }
    }
    Ok(Ending::Done)
}
