//! The planner alone, and everything against real Redis servers.

mod failures;
mod forming;
mod memory;
mod model;
mod planner;
mod scaling;
mod servers;
mod shape;
mod surplus;
