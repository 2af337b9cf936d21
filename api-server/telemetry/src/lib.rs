//! What the task API tells of itself: log lines, traces and metrics, and which request they are about.

pub mod context;
pub mod log;
pub mod metrics;
pub mod trace;
