//! The task API: accounts, sessions and tasks over HTTP.
//!
//! Alone (`cargo run -p api-server`) it needs nothing: SQLite in a file, with the sessions. On the platform it keeps
//! its rows in PostgreSQL behind PgBouncer and its sessions in a Redis Cluster, and any number of it run side by side.
//!
//! [`worker`] does what is to be done there beside requests.
//!
//! [`config`] turns flags and environment into a [`Config`]; [`server::run`] serves until it is told to stop. [`store`] is the
//! only module that knows SQL.

pub mod auth;
pub mod background;
pub mod bounded;
pub mod breaker;
pub mod cache_metrics;
pub mod channel;
pub mod config;
pub mod docs;
pub mod error;
pub mod form;
pub mod http;
pub mod id;
pub mod import;
pub mod log;
pub mod memory;
pub mod metrics;
pub mod openapi;
pub mod problem;
pub mod ready;
pub mod redis;
pub mod routes;
pub mod server;
pub mod store;
pub mod tasks;
pub mod trace;
pub mod upkeep;
pub mod worker;

use std::{sync::Arc, time::Duration};

pub use config::Config;

use crate::{
    auth::{password::Passwords, session::Sessions, throttle::Throttle},
    breaker::Breaker,
    cache_metrics::CacheMetrics,
    channel::Channel,
    error::StartError,
    memory::Memory,
    metrics::{Load, Metrics},
    ready::Readiness,
    server::{
        lifecycle::Lifecycle,
        places::{self, Places},
    },
    store::Store,
    tasks::{
        cursor::Cursors,
        quota::Quota,
        service::Tasks,
        views::{LocalViews, Others, SharedViews, Views},
    },
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
    /// Bounds how many are tried against an account.
    pub throttle: Throttle,
    /// Signs and opens the cursors of lists.
    pub cursors: Cursors,
    /// What `/metrics` shows.
    pub metrics: Metrics,
    /// Whether the dependencies answer.
    pub readiness: Readiness,
    /// How many requests are worked on at once.
    pub places: Places,
    /// How much memory they take.
    pub memory: Memory,
    /// How many connections are served at once.
    pub most_connections: usize,
    /// Whether the process starts, serves or drains.
    pub lifecycle: Lifecycle,
}

impl App {
    /// Puts the application together. Nothing is contacted yet: what it depends on may be up later than it is.
    pub fn new(config: &Config) -> Result<Arc<Self>, StartError> {
        let store = Arc::new(Store::open(&config.database, config.events)?);
        let metrics = Metrics::new(store.metrics());
        let mut sessions = match &config.sessions {
            Some(url) => Sessions::redis(
                url,
                config.session_ttl,
                Breaker::new("session store", metrics.cache.breaker("sessions")),
            )?,
            None => Sessions::local(config.session_ttl, Arc::clone(&store)),
        };
        let others = config.cache.as_deref().map(|url| others(url, config.cache_ttl, &metrics.cache)).transpose()?;
        if let Some(Others { channel, .. }) = &others {
            sessions = sessions.remembered(Arc::clone(channel), metrics.cache.session.clone());
        }
        let sessions = Arc::new(sessions);
        let local = LocalViews { bytes: config.cache_local_bytes, ttl: config.cache_local_ttl };
        let memory = Memory::new(config.max_in_flight_bytes);
        let shown = (Arc::clone(&store), Arc::clone(&sessions));
        let views = Views::new(shown, memory.clone(), local, others, metrics.cache.view.clone());
        let quota = Quota::new(config.max_tasks_per_user);
        Ok(Arc::new(Self {
            tasks: Tasks::new(Arc::clone(&store), Arc::new(views), quota, memory.clone()),
            store,
            sessions,
            passwords: Passwords::default(),
            throttle: Throttle::new(&config.signing_key),
            cursors: Cursors::new(&config.signing_key, config.signing_key_former.as_deref()),
            metrics,
            readiness: Readiness::default(),
            places: Places::new(config.max_in_flight),
            memory,
            most_connections: places::to_size(config.max_connections),
            lifecycle: Lifecycle::default(),
        }))
    }

    /// What waits and works at the moment.
    pub fn load(&self) -> Load {
        Load {
            requests_in_flight: self.places.in_flight(),
            requests_waiting: self.places.waiting(),
            passwords_waiting: self.passwords.waiting(),
            bytes_in_flight: self.memory.held(),
            most_connections: self.most_connections,
        }
    }
}

/// What there is between this instance and others, in the cache cluster at `url`.
fn others(url: &str, ttl: Duration, metrics: &CacheMetrics) -> Result<Others, StartError> {
    let breaker = Breaker::new("cache", metrics.breaker("cache"));
    let shared = SharedViews::new(url, ttl, metrics.shared.clone(), breaker).map_err(StartError::Cache)?;
    let channel = Channel::new(url, metrics.channel.clone()).map_err(StartError::Cache)?;
    Ok(Others { shared, channel: Arc::new(channel) })
}
