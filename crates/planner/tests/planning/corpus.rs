//! The laws of the fuzz targets, held over their seeds.

use testkit::corpus::hold;

#[path = "../../../../fuzz/targets/host_view.rs"]
mod host_view;

#[test]
fn what_a_host_says_about_itself_is_read_or_told() {
    hold("host_view", host_view::law);
}
