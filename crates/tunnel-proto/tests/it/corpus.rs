//! The laws of the fuzz targets, held over their seeds.

use testkit::corpus::hold;

#[path = "../../../../fuzz/targets/frames.rs"]
mod frames;
#[path = "../../../../fuzz/targets/messages.rs"]
mod messages;
#[path = "../../../../fuzz/targets/server_name.rs"]
mod server_name;

#[test]
fn frames_are_found_however_they_come() {
    hold("frames", frames::law);
}

#[test]
fn messages_are_understood_or_refused() {
    hold("messages", messages::law);
}

#[test]
fn greetings_name_a_host_or_none() {
    hold("server_name", server_name::law);
}
