//! The task API: accounts, sessions and tasks over HTTP.
//!
//! Alone (`cargo run -p api-server`) it needs nothing: SQLite in a file, with the sessions. On the platform it keeps
//! its rows in PostgreSQL behind PgBouncer and its sessions in a Redis Cluster, and any number of it run side by side.
//!
//! [`worker`] does what is to be done there beside requests.
//!
//! [`config`] turns flags and environment into a [`Config`]; [`server::run`] serves until it is told to stop.
//!
//! This crate is the uppermost of several, each of which knows those below it alone:
//!
//! - `task_api_domain`: users and tasks, and what may be said of them;
//! - `task_api_telemetry`: logs, traces, metrics, and the request that they are about;
//! - `task_api_resilience`: bounds of memory, breakers, caches of so many bytes;
//! - `task_api_store`: SQL;
//! - `task_api_cluster`: what instances share in Redis, and tell each other;
//! - `task_api_sessions`: who is logged in;
//! - `task_api_cache`: the users' tasks in memory.

pub mod app;
pub mod auth;
pub mod config;
pub mod docs;
pub mod error;
pub mod http;
pub mod import;
pub mod metrics;
pub mod middleware;
pub mod openapi;
pub mod problem;
pub mod ready;
pub mod routes;
pub mod server;
pub mod tasks;
pub mod upkeep;
pub mod worker;

pub use config::Config;
