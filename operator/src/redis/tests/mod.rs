//! The planner alone, and everything against real Redis servers.

mod memory;
mod model;
mod planner;
mod scenarios;
mod servers;
mod surplus;
