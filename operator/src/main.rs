//! The controller that turns a TaskPlatform into a running platform.

fn main() {}
