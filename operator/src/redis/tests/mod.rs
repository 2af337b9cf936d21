//! The planner alone, and everything against real Redis servers.

mod planner;
mod scenarios;
mod servers;
