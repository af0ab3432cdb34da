//! Generation and house rules.
fn main() {}
