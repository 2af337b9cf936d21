//! A load generator for task APIs that costs little, and the report of what it measured.
//!
//! `load run` starts a server, registers a thousand users with twenty tasks each, and asks as them in the mix of the plan: over
//! connections that ask again at once (closed loop), and as users who think in between (open loop). Every answer is looked at.
//! `load report` takes the medians of several runs of several servers and compares them.

pub mod account;
pub mod engine;
pub mod http;
pub mod measurement;
pub mod prepare;
pub mod report;
pub mod run;
pub mod server;
pub mod usage;
