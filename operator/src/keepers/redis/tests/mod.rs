//! The planner alone, and everything against real Redis servers.

mod failures;
mod forming;
mod memory;
mod model;
mod passwords;
mod planner;
mod scaling;
mod servers;
mod shape;
mod surplus;
