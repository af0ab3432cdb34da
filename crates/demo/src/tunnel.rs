//! The second part: a home behind a router, published by two gateways on the internet.

mod site;
mod story;

use std::path::Path;

use anyhow::Result;

use crate::summary::Summary;

/// Builds the second part's machines and tells its story. They end with it.
pub(crate) fn tell(program: &Path, scratch: &Path, summary: &mut Summary) -> Result<()> {
    let site = site::Site::build(program, &scratch.join("tunnels"))?;
    story::tell(&site, summary)
}
