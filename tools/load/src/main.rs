//! tandem-load

fn main() {}
