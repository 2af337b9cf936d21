//! The task API.

fn main() {}
