//! `taskplatform`: infrastructure as code for TaskPlatforms.

fn main() {}
