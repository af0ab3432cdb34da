//! Printing objects the way `kubectl apply -f -` reads them.

use anyhow::Context as _;
use serde::Serialize;
use serde_json::Value;

use crate::arguments::Output;
use crate::ending::Result;
use crate::print;

/// Prints one object, as YAML or as JSON, without the fields that only a cluster fills in.
pub(crate) fn print(object: &impl Serialize, output: Output) -> Result<()> {
    match output {
        Output::Text => print::document(&yaml(object)?),
        Output::Json => print::json(&document(object)?),
    }
}

/// Returns one object as YAML.
pub(crate) fn yaml(object: &impl Serialize) -> Result<String> {
    serde_saphyr::to_string(&document(object)?).context("cannot write an object as YAML")
}

/// Returns one object without the fields that only a cluster fills in.
pub(crate) fn document(object: &impl Serialize) -> Result<Value> {
    let mut value = serde_json::to_value(object)?;
    if let Value::Object(fields) = &mut value {
        fields.remove("status");
    }
    Ok(value)
}
