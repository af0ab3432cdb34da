//! What an attacker or a tired operator does to a running program: odd objects, odd files, a host
//! that is not as it was, programs that are missing or stand still.
//!
//! Each test shows two things: that what is wrong is told with its name, its value and a remedy,
//! and that everything else goes on.

#[path = "hostile/files.rs"]
mod files;
#[path = "hostile/host.rs"]
mod host;
#[path = "hostile/many.rs"]
mod many;
#[path = "forward/objects.rs"]
mod objects;
#[path = "forward/place.rs"]
#[expect(dead_code, reason = "the other tests of the program use the rest")]
mod place;
#[path = "hostile/told.rs"]
mod told;
