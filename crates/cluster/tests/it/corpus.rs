//! The laws of the fuzz targets, held over their seeds.

use testkit::corpus::hold;

#[path = "../../../../fuzz/targets/manifests.rs"]
mod manifests;

#[test]
fn manifests_are_read_or_told() {
    hold("manifests", manifests::law);
}
