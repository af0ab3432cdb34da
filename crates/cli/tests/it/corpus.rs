//! The laws of the fuzz targets, held over their seeds.

use testkit::corpus::hold;

#[path = "../../../../fuzz/targets/flags.rs"]
mod flags;
#[path = "../../../../fuzz/targets/host_apply.rs"]
mod host_apply;

#[test]
fn values_of_flags_are_accepted_or_told() {
    hold("flags", flags::law);
}

#[test]
fn clients_of_the_forced_command_are_answered() {
    hold("host_apply", host_apply::law);
}
