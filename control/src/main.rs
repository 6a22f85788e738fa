//! control

fn main() {}
