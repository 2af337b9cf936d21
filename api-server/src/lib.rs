//! The task API: accounts, sessions and tasks over HTTP.
//!
//! Alone (`cargo run -p api-server`) it needs nothing: SQLite in a file, sessions in the process. On the platform it keeps
//! its rows in PostgreSQL behind PgBouncer and its sessions in a Redis Cluster, and any number of it run side by side.
//!
//! [`worker`] does what is to be done there beside requests.
//!
//! [`config`] turns flags and environment into a [`Config`]; [`server::run`] serves until it is told to stop. [`store`] is the
//! only module that knows SQL.

pub mod auth;
pub mod bounded;
pub mod cache_metrics;
pub mod config;
pub mod docs;
pub mod error;
pub mod form;
pub mod http;
pub mod id;
pub mod log;
pub mod metrics;
pub mod openapi;
pub mod problem;
pub mod ready;
pub mod redis;
pub mod routes;
pub mod server;
pub mod store;
pub mod tasks;
pub mod upkeep;
pub mod worker;

use std::sync::Arc;

pub use config::Config;

use crate::{
    auth::{password::Passwords, session::Sessions},
    error::StartError,
    metrics::Metrics,
    ready::Readiness,
    server::lifecycle::Lifecycle,
    store::Store,
    tasks::{cursor::Cursors, service::Tasks, views::Views},
};

/// What every handler shares.
#[derive(Debug)]
pub struct App {
    /// Users and tasks.
    pub store: Arc<Store>,
    /// The users' tasks, as handlers see them.
    pub tasks: Tasks,
    /// Who is logged in.
    pub sessions: Arc<Sessions>,
    /// Hashes and verifies passwords, a few at once.
    pub passwords: Passwords,
    /// Signs and opens the cursors of lists.
    pub cursors: Cursors,
    /// What `/metrics` shows.
    pub metrics: Metrics,
    /// Whether the dependencies answer.
    pub readiness: Readiness,
    /// Whether the process starts, serves or drains.
    pub lifecycle: Lifecycle,
}

impl App {
    /// Puts the application together. Nothing is contacted yet: what it depends on may be up later than it is.
    pub fn new(config: &Config) -> Result<Arc<Self>, StartError> {
        let store = Store::open(&config.database, config.events)?;
        let sessions = match &config.sessions {
            Some(url) => Sessions::redis(url, config.session_ttl)?,
            None => Sessions::local(config.session_ttl),
        };
        let (store, sessions, metrics) = (Arc::new(store), Arc::new(sessions), Metrics::default());
        // On SQLite nobody else writes. On PostgreSQL other instances may, and nobody tells what they write.
        let alone = store.is_embedded();
        let (most, ttl) = (config.cache_local_bytes, config.cache_local_ttl);
        let views = Views::new(Arc::clone(&store), Arc::clone(&sessions), most, ttl, alone, metrics.cache.view.clone());
        Ok(Arc::new(Self {
            tasks: Tasks::new(Arc::clone(&store), Arc::new(views)),
            store,
            sessions,
            passwords: Passwords::default(),
            cursors: Cursors::new(&config.signing_key),
            metrics,
            readiness: Readiness::default(),
            lifecycle: Lifecycle::default(),
        }))
    }
}
