use crate::arguments::Output;
use crate::ending::{Ending, Result};
use clap::Args;
#[derive(Args, Debug)]
pub(crate) struct RotateArguments {}
pub(crate) async fn run(_arguments: &RotateArguments, _output: Output) -> Result {
    Ok(Ending::Done)
}
