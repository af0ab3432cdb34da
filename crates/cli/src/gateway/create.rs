use crate::arguments::Output;
use crate::ending::{Ending, Result};
use clap::Args;
#[derive(Args, Debug)]
pub(crate) struct CreateArguments {}
pub(crate) async fn run(_arguments: &CreateArguments, _output: Output) -> Result {
    Ok(Ending::Done)
}
