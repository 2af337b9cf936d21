//! The configuration. [`Args`] only says what was given; [`Args::into_config`] checks it and fills in the rest.

mod args;
mod database;

use std::{fmt, net::SocketAddr, num::NonZeroU32, time::Duration};

use lapin::uri::{AMQPScheme, AMQPUri};
use task_api_domain::id::MAX_SHARDS;
use task_api_store::{DatabaseConfig, Quota};
use thiserror::Error;

pub use args::{Args, Command, WorkerArgs};
use database::database;

/// What a worker works with.
pub struct WorkerConfig {
    /// Address that serves the worker's health.
    pub listen: SocketAddr,
    /// Address that serves `/metrics`.
    pub metrics_listen: SocketAddr,
    /// What is worked on; PostgreSQL.
    pub database: DatabaseConfig,
    /// Where events go, if anywhere.
    pub broker: Option<AMQPUri>,
    /// How often the summaries are made anew.
    pub summary_interval: Duration,
}

impl fmt::Debug for WorkerConfig {
    // URLs hold passwords.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WorkerConfig").field("listen", &self.listen).finish_non_exhaustive()
    }
}

/// What the process works with.
pub struct Config {
    /// Address that serves the API.
    pub listen: SocketAddr,
    /// Address that serves `/metrics`.
    pub metrics_listen: SocketAddr,
    /// Users and tasks.
    pub database: DatabaseConfig,
    /// Whether changes of tasks are written down for a worker to relay.
    pub events: bool,
    /// The Redis Cluster of the sessions; in the process without.
    pub sessions: Option<String>,
    /// How long a session lasts.
    pub session_ttl: Duration,
    /// The Redis Cluster that the instances share as a cache; only with PostgreSQL.
    pub cache: Option<String>,
    /// How long a user's tasks stay in it.
    pub cache_ttl: Duration,
    /// How much a user may have.
    pub quota: Quota,
    /// How many bytes of tasks are kept in memory at most.
    pub cache_local_bytes: usize,
    /// How long.
    pub cache_local_ttl: Duration,
    /// Signs cursors.
    pub signing_key: Vec<u8>,
    /// The one before, while instances move to another.
    pub signing_key_former: Option<Vec<u8>>,
    /// How many requests are worked on at once; by the number of cores without.
    pub max_in_flight: Option<NonZeroU32>,
    /// How much memory requests and their answers take at once; by the container's limit without.
    pub max_in_flight_bytes: Option<usize>,
    /// How many connections are served at once.
    pub max_connections: NonZeroU32,
}

impl fmt::Debug for Config {
    // URLs hold passwords.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config").field("listen", &self.listen).finish_non_exhaustive()
    }
}

/// Why a configuration can't be used.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// Not a PostgreSQL URL.
    #[error("{variable} is no PostgreSQL URL ({cause}); it looks like postgres://user:password@host:6432/database")]
    Url {
        /// The variable at fault.
        variable: &'static str,
        /// What the parser says; it does not repeat the URL.
        cause: tokio_postgres::Error,
    },
    /// Several instances must sign alike.
    #[error("SIGNING_KEY is not set; with PostgreSQL every instance needs the same one, of at least 16 characters")]
    NoSigningKey,
    /// A key that can be guessed.
    #[error("SIGNING_KEY is too short; it takes at least 16 characters")]
    ShortSigningKey,
    /// Something else among the URLs.
    #[error(
        "{0} lists something that is no PostgreSQL URL; each looks like postgres://user:password@host:6432/database"
    )]
    Mixed(&'static str),
    /// A shard without replicas, or replicas of nothing.
    #[error(
        "DATABASE_URL lists {primaries} databases and DATABASE_READ_URL {replicas}; list the replicas of each, in the same order, or none"
    )]
    ShardsDiffer {
        /// How many databases there are.
        primaries: usize,
        /// How many have replicas.
        replicas: usize,
    },
    /// Ids have six bits for it.
    #[error("DATABASE_URL lists {0} databases; there can be 1 to {MAX_SHARDS}")]
    Shards(usize),
    /// A file has no months.
    #[error("TASK_RETENTION needs a postgres:// DATABASE_URL; unset it to run on SQLite, which keeps every task")]
    RetentionWithoutPostgres,
    /// Replicas of what?
    #[error("DATABASE_READ_URL needs a postgres:// DATABASE_URL; unset it to run on SQLite")]
    ReplicasWithoutPrimary,
    /// Not a RabbitMQ URL.
    #[error("AMQP_URL can't be used ({0}); it looks like amqp://user:password@host:5672")]
    Broker(String),
    /// Events are written in the transaction of their change, which SQLite's file can't share with a worker.
    #[error("AMQP_URL needs a postgres:// DATABASE_URL; unset it to run on SQLite, without events")]
    EventsWithoutPostgres,
    /// There is nothing for it to do.
    #[error("a worker needs a postgres:// DATABASE_URL; on SQLite the API does all of its work itself")]
    WorkerWithoutPostgres,
    /// Shared with whom?
    #[error("CACHE_URL needs a postgres:// DATABASE_URL; unset it to run on SQLite, which only one instance uses")]
    CacheWithoutPostgres,
    /// The system's source of randomness failed.
    #[error("no random signing key: {0}")]
    Random(#[from] getrandom::Error),
}

impl Args {
    /// Checks what was given and fills in what was not.
    pub fn into_config(self) -> Result<Config, ConfigError> {
        let database = self.database(self.database_read_url.as_deref())?;
        let events = broker(self.amqp_url.as_deref())?.is_some();
        if events && matches!(database, DatabaseConfig::Sqlite(_)) {
            return Err(ConfigError::EventsWithoutPostgres);
        }
        let cache = self.cache_url.filter(|url| !url.is_empty());
        if cache.is_some() && matches!(database, DatabaseConfig::Sqlite(_)) {
            return Err(ConfigError::CacheWithoutPostgres);
        }
        let signing_key = match (self.signing_key.filter(|key| !key.is_empty()), &database) {
            (Some(key), _) if key.len() < 16 => return Err(ConfigError::ShortSigningKey),
            (Some(key), _) => key.into_bytes(),
            (None, DatabaseConfig::Postgres(_)) => return Err(ConfigError::NoSigningKey),
            (None, DatabaseConfig::Sqlite(_)) => random_key()?,
        };
        Ok(Config {
            listen: self.listen,
            metrics_listen: self.metrics_listen,
            database,
            events,
            sessions: self.sessions_url.filter(|url| !url.is_empty()),
            session_ttl: self.session_ttl,
            cache,
            cache_ttl: self.cache_ttl,
            quota: Quota { tasks: most(self.max_tasks_per_user), bytes: most(self.max_bytes_per_user) },
            cache_local_bytes: self.cache_local_bytes,
            cache_local_ttl: self.cache_local_ttl,
            signing_key,
            signing_key_former: self.signing_key_former.filter(|key| !key.is_empty()).map(String::into_bytes),
            max_in_flight: self.max_in_flight,
            max_in_flight_bytes: self.max_in_flight_bytes,
            max_connections: self.max_connections,
        })
    }

    /// The same for a worker.
    pub fn into_worker_config(self, worker: &WorkerArgs) -> Result<WorkerConfig, ConfigError> {
        let database = self.database(None)?;
        if matches!(database, DatabaseConfig::Sqlite(_)) {
            return Err(ConfigError::WorkerWithoutPostgres);
        }
        Ok(WorkerConfig {
            listen: self.listen,
            metrics_listen: self.metrics_listen,
            database,
            broker: broker(self.amqp_url.as_deref())?,
            summary_interval: worker.summary_interval,
        })
    }

    /// Checks what an import needs.
    pub fn into_import_target(self) -> Result<DatabaseConfig, ConfigError> {
        self.database(None)
    }

    fn database(&self, read_url: Option<&str>) -> Result<DatabaseConfig, ConfigError> {
        let mut database = database(&self.database_url, read_url, self.sqlite_synchronous)?;
        match &mut database {
            DatabaseConfig::Postgres(options) => options.retention = self.task_retention,
            DatabaseConfig::Sqlite(_) if self.task_retention.is_some() => {
                return Err(ConfigError::RetentionWithoutPostgres);
            }
            DatabaseConfig::Sqlite(_) => {}
        }
        Ok(database)
    }
}

fn broker(url: Option<&str>) -> Result<Option<AMQPUri>, ConfigError> {
    let Some(url) = url.filter(|url| !url.is_empty()) else { return Ok(None) };
    let uri: AMQPUri = url.parse().map_err(ConfigError::Broker)?;
    if uri.scheme == AMQPScheme::AMQPS {
        return Err(ConfigError::Broker("amqps:// is not supported".to_owned()));
    }
    Ok(Some(uri))
}

/// 0 is any number.
fn most(number: u64) -> Option<i64> {
    (number > 0).then(|| i64::try_from(number).unwrap_or(i64::MAX))
}

fn random_key() -> Result<Vec<u8>, getrandom::Error> {
    let mut key = vec![0; 32];
    getrandom::fill(&mut key)?;
    Ok(key)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use task_api_store::Synchronous;

    use super::*;

    fn config(args: &[&str]) -> Result<Config, ConfigError> {
        Args::parse_from([&["task-api"], args].concat()).into_config()
    }

    #[test]
    fn alone_it_needs_nothing() {
        let config = config(&[]).unwrap();
        assert!(matches!(config.database, DatabaseConfig::Sqlite(sqlite)
            if sqlite.file.as_os_str() == "task-api.db" && sqlite.synchronous == Synchronous::Normal));
        assert_eq!(config.session_ttl, Duration::from_hours(24));
        assert_eq!(config.signing_key.len(), 32);
    }

    #[test]
    fn postgres_needs_a_signing_key() {
        let url = "--database-url=postgres://tasks:secret@localhost/tasks";
        assert!(matches!(config(&[url]), Err(ConfigError::NoSigningKey)));
        assert!(matches!(config(&[url, "--signing-key=short"]), Err(ConfigError::ShortSigningKey)));
        assert!(config(&[url, "--signing-key=0123456789abcdef"]).is_ok());
    }

    #[test]
    fn replicas_need_a_primary() {
        let read = "--database-read-url=postgres://localhost/tasks_ro";
        assert!(matches!(config(&[read]), Err(ConfigError::ReplicasWithoutPrimary)));
    }

    #[test]
    fn events_need_postgres() {
        let (postgres, broker) = ("--database-url=postgres://localhost/tasks", "--amqp-url=amqp://localhost");
        assert!(matches!(config(&[broker]), Err(ConfigError::EventsWithoutPostgres)));
        assert!(config(&[postgres, broker, "--signing-key=0123456789abcdef"]).unwrap().events);
        assert!(!config(&[postgres, "--amqp-url=", "--signing-key=0123456789abcdef"]).unwrap().events);
        for bad in ["localhost", "http://localhost", "amqps://localhost", "amqp://localhost:port"] {
            let bad = format!("--amqp-url={bad}");
            assert!(matches!(config(&[postgres, &bad]), Err(ConfigError::Broker(_))), "{bad}");
        }
    }

    #[test]
    fn a_worker_needs_postgres_and_no_signing_key() {
        let config = |args: &[&str]| {
            let mut args = Args::parse_from([&["task-api", "worker"], args].concat());
            let Some(Command::Worker(worker)) = args.command.take() else { panic!("worker was asked for") };
            args.into_worker_config(&worker)
        };
        assert!(matches!(config(&[]), Err(ConfigError::WorkerWithoutPostgres)));
        let worker = config(&["--database-url=postgres://localhost/tasks"]).unwrap();
        assert_eq!(worker.broker, None);
        assert_eq!(worker.summary_interval, Duration::from_secs(10));
        let worker = config(&[
            "--database-url=postgres://localhost/tasks",
            "--amqp-url=amqp://tasks:secret@localhost",
            "--summary-interval=1m",
        ]);
        let worker = worker.unwrap();
        assert_eq!(worker.broker.as_ref().unwrap().vhost, "/");
        assert_eq!(worker.summary_interval, Duration::from_mins(1));
        assert!(!format!("{worker:?}").contains("secret"));
    }

    #[test]
    fn errors_keep_the_password() {
        let error =
            config(&["--database-url=postgres://tasks:hunter2@localhost:port/tasks"]).err().unwrap().to_string();
        assert!(error.contains("DATABASE_URL") && !error.contains("hunter2"), "{error}");
        let broker = ["--database-url=postgres://localhost/tasks", "--amqp-url=amqp://tasks:hunter2@localhost:port"];
        let error = config(&broker).err().unwrap().to_string();
        assert!(error.contains("AMQP_URL") && !error.contains("hunter2"), "{error}");
    }
}
