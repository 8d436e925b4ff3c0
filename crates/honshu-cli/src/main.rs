//! The one executable, `honshu`.
fn main() {}
