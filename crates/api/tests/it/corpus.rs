//! The laws of the fuzz targets, held over their seeds.

use testkit::corpus::hold;

#[path = "../../../../fuzz/targets/annotation.rs"]
mod annotation;
#[path = "../../../../fuzz/targets/host.rs"]
mod host;

#[test]
fn annotations_are_accepted_or_told() {
    hold("annotation", annotation::law);
}

#[test]
fn hosts_are_accepted_or_told() {
    hold("host", host::law);
}
