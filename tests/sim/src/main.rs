//! sim

fn main() {}
