use crate::arguments::Output;
use crate::ending::{Ending, Result};
use clap::Args;
#[derive(Args, Debug)]
pub(crate) struct ListArguments {}
pub(crate) async fn run(_arguments: &ListArguments, _output: Output) -> Result {
    Ok(Ending::Done)
}
