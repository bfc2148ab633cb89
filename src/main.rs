//! imagegate
fn main() {}
