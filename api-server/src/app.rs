//! The application: what every handler shares, put together.

use std::{sync::Arc, time::Duration};

use task_api_cache::{
    tasks::Tasks,
    views::{LocalViews, Others, SharedViews, Views},
};
use task_api_cluster::bus::InvalidationBus;
use task_api_resilience::{breaker::Breaker, memory::Memory};
use task_api_sessions::Sessions;
use task_api_store::{Store, Writes};
use task_api_telemetry::metrics::CacheMetrics;

use crate::{
    Config,
    auth::{password::Passwords, throttle::Throttle},
    error::StartError,
    metrics::{Load, Metrics},
    ready::Readiness,
    server::{
        admission::{self, Admission},
        lifecycle::Lifecycle,
    },
    tasks::cursor::Cursors,
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
    pub admission: Admission,
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
        let writes = Writes { events: config.events, quota: config.quota };
        let store = Arc::new(Store::open(&config.database, writes)?);
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
        if let Some(Others { bus, .. }) = &others {
            sessions = sessions.remembered(Arc::clone(bus), metrics.cache.session.clone());
        }
        let sessions = Arc::new(sessions);
        let local = LocalViews { bytes: config.cache_local_bytes, ttl: config.cache_local_ttl };
        let memory = Memory::new(config.max_in_flight_bytes);
        let shown = (Arc::clone(&store), Arc::clone(&sessions));
        let views = Views::new(shown, memory.clone(), local, others, metrics.cache.view.clone());
        Ok(Arc::new(Self {
            tasks: Tasks::new(Arc::clone(&store), Arc::new(views), memory.clone()),
            store,
            sessions,
            passwords: Passwords::default(),
            throttle: Throttle::new(&config.signing_key),
            cursors: Cursors::new(&config.signing_key, config.signing_key_former.as_deref()),
            metrics,
            readiness: Readiness::default(),
            admission: Admission::new(config.max_in_flight),
            memory,
            most_connections: admission::to_size(config.max_connections),
            lifecycle: Lifecycle::default(),
        }))
    }

    /// What waits and works at the moment.
    pub fn load(&self) -> Load {
        Load {
            requests_in_flight: self.admission.in_flight(),
            requests_waiting: self.admission.waiting(),
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
    let bus = InvalidationBus::new(url, metrics.bus.clone()).map_err(StartError::Cache)?;
    Ok(Others { shared, bus: Arc::new(bus) })
}
