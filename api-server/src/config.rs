//! Flags and environment. [`Args`] only says what was given; [`Args::into_config`] checks it and fills in the rest.

use std::{fmt, net::SocketAddr, num::NonZeroU32, path::PathBuf, time::Duration};

use clap::{Parser, Subcommand, ValueEnum};
use jiff::SignedDuration;
use lapin::uri::{AMQPScheme, AMQPUri};
use thiserror::Error;

use crate::{
    id::MAX_SHARDS,
    import::ImportArgs,
    log::LogFormat,
    store::{PostgresOptions, ShardConfig},
};

const EXAMPLES: &str = "\
Examples:
  task-api                                        alone: SQLite in ./task-api.db, sessions in the process
  task-api --database-url /var/lib/tasks.db --listen 0.0.0.0:8080

  DATABASE_URL=postgres://tasks:…@tasks-pooler:6432/tasks \\
  DATABASE_READ_URL=postgres://tasks:…@tasks-pooler:6432/tasks_ro \\
  SESSIONS_URL=redis://:…@tasks-sessions:6379 \\
  AMQP_URL=amqp://tasks:…@tasks-messaging:5672 \\
  SIGNING_KEY=… task-api --listen 0.0.0.0:8080    on the platform

  DATABASE_URL=postgres://tasks:…@tasks-pooler:6432/tasks \\
  AMQP_URL=amqp://tasks:…@tasks-messaging:5672 \\
  task-api worker --listen 0.0.0.0:8080           beside it, one or more

  curl -X POST localhost:8080/api/auth/register -H 'content-type: application/json' \\
       -d '{\"email\": \"me@example.com\", \"password\": \"correct horse\"}'";

/// Serves the task API.
#[derive(Debug, Parser)]
#[command(name = "task-api", version, after_help = EXAMPLES)]
pub struct Args {
    /// What to do; without, serve the API
    #[command(subcommand)]
    pub command: Option<Command>,

    /// Address that serves the API; of a worker, only its health
    #[arg(long, global = true, env = "TASK_API_LISTEN", default_value = "127.0.0.1:8080")]
    pub listen: SocketAddr,

    /// Address that serves /metrics
    #[arg(long, global = true, env = "TASK_API_METRICS_LISTEN", default_value = "127.0.0.1:9090")]
    pub metrics_listen: SocketAddr,

    /// Where users and tasks are kept: postgres://…, or the path of a SQLite file. Several databases, divided by commas, share the users
    /// between them; their number and order are for good
    #[arg(long, global = true, env = "DATABASE_URL", default_value = "task-api.db", hide_env_values = true)]
    pub database_url: String,

    /// When a write to the SQLite file is on the disk
    #[arg(long, env = "SQLITE_SYNCHRONOUS", value_enum, default_value_t = Synchronous::Normal)]
    pub sqlite_synchronous: Synchronous,

    /// PostgreSQL replicas that answer reads: postgres://…, as many as there are databases
    #[arg(long, env = "DATABASE_READ_URL", hide_env_values = true)]
    pub database_read_url: Option<String>,

    /// Redis Cluster that keeps the sessions: redis://…; without it they are kept in the process
    #[arg(long, env = "SESSIONS_URL", hide_env_values = true)]
    pub sessions_url: Option<String>,

    /// How long a session lasts
    #[arg(long, env = "SESSION_TTL", default_value = "86400s", value_parser = duration)]
    pub session_ttl: Duration,

    /// Redis Cluster that the instances share as a cache, and tell each other of changes through: redis://…; without it none keeps
    /// anything in memory that another may change
    #[arg(long, env = "CACHE_URL", hide_env_values = true)]
    pub cache_url: Option<String>,

    /// How long a user's tasks stay in that cache
    #[arg(long, env = "CACHE_TTL", default_value = "300s", value_parser = duration)]
    pub cache_ttl: Duration,

    /// How many tasks a user may have; 0 is any number
    #[arg(long, env = "MAX_TASKS_PER_USER", default_value_t = 100_000)]
    pub max_tasks_per_user: u64,

    /// How much memory the tasks of users that were here lately may take, in bytes
    #[arg(long, env = "CACHE_LOCAL_BYTES", default_value_t = 32 << 20)]
    pub cache_local_bytes: usize,

    /// How long they stay there until they are read anew
    #[arg(long, env = "CACHE_LOCAL_TTL", default_value = "60s", value_parser = duration)]
    pub cache_local_ttl: Duration,

    /// How long after a month's end its tasks stay, like 17520h (two years); for good without. PostgreSQL only: the month's table is taken out
    /// of the schema, and left for you to archive or drop
    #[arg(long, global = true, env = "TASK_RETENTION", value_parser = duration)]
    pub task_retention: Option<Duration>,

    /// Key that signs cursors, the same in every instance; random without it, required with PostgreSQL
    #[arg(long, env = "SIGNING_KEY", hide_env_values = true)]
    pub signing_key: Option<String>,

    /// RabbitMQ that is told of every change of a task: amqp://…; without it no event is kept. Needs PostgreSQL, and a worker
    #[arg(long, global = true, env = "AMQP_URL", hide_env_values = true)]
    pub amqp_url: Option<String>,

    /// How many requests may be there at once, at work or waiting for their turn; the rest is answered 503 [default: 6144 a core]
    #[arg(long, env = "MAX_IN_FLIGHT")]
    pub max_in_flight: Option<NonZeroU32>,

    /// How many connections are served at once; a request on one more is answered 503
    #[arg(long, env = "MAX_CONNECTIONS", default_value = "20000")]
    pub max_connections: NonZeroU32,

    /// How log lines look [default: text on a terminal, json otherwise]
    #[arg(long, global = true, env = "LOG_FORMAT")]
    pub log_format: Option<LogFormat>,
}

/// What `task-api` does other than serve.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Does the work beside requests on PostgreSQL: relays events, refreshes summaries, keeps partitions; any number may run
    Worker(WorkerArgs),
    /// Brings the accounts and tasks of a SQLite file into the database
    ImportSqlite(ImportArgs),
}

/// What only a worker is told.
#[derive(Debug, clap::Args)]
pub struct WorkerArgs {
    /// How often the summaries are made anew, if tasks have changed
    #[arg(long, env = "SUMMARY_INTERVAL", default_value = "10s", value_parser = duration)]
    pub summary_interval: Duration,
}

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
    /// How many tasks a user may have; 0 is any number.
    pub max_tasks_per_user: u64,
    /// How many bytes of tasks are kept in memory at most.
    pub cache_local_bytes: usize,
    /// How long.
    pub cache_local_ttl: Duration,
    /// Signs cursors.
    pub signing_key: Vec<u8>,
    /// How many requests are worked on at once; by the number of cores without.
    pub max_in_flight: Option<NonZeroU32>,
    /// How many connections are served at once.
    pub max_connections: NonZeroU32,
}

impl fmt::Debug for Config {
    // URLs hold passwords.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config").field("listen", &self.listen).finish_non_exhaustive()
    }
}

/// When a write to the SQLite file is on the disk, so that a crash of the machine can't lose it. A crash of the process loses nothing either
/// way, and neither kind of crash corrupts anything.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Synchronous {
    /// Soon: the machine's crash may lose the last writes
    #[default]
    Normal,
    /// Before it is answered
    Full,
}

/// A SQLite file.
#[derive(Clone, Debug)]
pub struct SqliteConfig {
    /// It is made if it is not there.
    pub file: PathBuf,
    /// How durable its writes are.
    pub synchronous: Synchronous,
}

/// Where users and tasks are kept.
pub enum DatabaseConfig {
    /// A file.
    Sqlite(SqliteConfig),
    /// Servers.
    Postgres(Box<PostgresOptions>),
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
            max_tasks_per_user: self.max_tasks_per_user,
            cache_local_bytes: self.cache_local_bytes,
            cache_local_ttl: self.cache_local_ttl,
            signing_key,
            max_in_flight: self.max_in_flight,
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

fn database(url: &str, read_url: Option<&str>, synchronous: Synchronous) -> Result<DatabaseConfig, ConfigError> {
    let read_url = read_url.filter(|url| !url.is_empty());
    if !is_postgres(url) {
        let file = url.strip_prefix("sqlite://").or_else(|| url.strip_prefix("sqlite:")).unwrap_or(url).into();
        return match read_url {
            Some(_) => Err(ConfigError::ReplicasWithoutPrimary),
            None => Ok(DatabaseConfig::Sqlite(SqliteConfig { file, synchronous })),
        };
    }
    let primaries = urls("DATABASE_URL", url)?;
    let replicas = read_url.map(|url| urls("DATABASE_READ_URL", url)).transpose()?;
    let count = primaries.len();
    if let Some(replicas) = replicas.as_ref().map(Vec::len).filter(|replicas| *replicas != count) {
        return Err(ConfigError::ShardsDiffer { primaries: count, replicas });
    }
    let mut replicas = replicas.unwrap_or_default().into_iter();
    let mut shards = primaries.into_iter().map(|primary| ShardConfig { primary, replicas: replicas.next() });
    let first = shards.next().filter(|_| count <= MAX_SHARDS).ok_or(ConfigError::Shards(count))?;
    Ok(DatabaseConfig::Postgres(Box::new(PostgresOptions { first, others: shards.collect(), retention: None })))
}

fn urls(variable: &'static str, urls: &str) -> Result<Vec<tokio_postgres::Config>, ConfigError> {
    let parse = |url: &str| {
        let url = url.trim();
        // The parser takes other things too, such as nothing.
        if !is_postgres(url) {
            return Err(ConfigError::Mixed(variable));
        }
        url.parse().map_err(|cause| ConfigError::Url { variable, cause })
    };
    urls.split(',').map(parse).collect()
}

fn is_postgres(url: &str) -> bool {
    url.starts_with("postgres://") || url.starts_with("postgresql://")
}

fn random_key() -> Result<Vec<u8>, getrandom::Error> {
    let mut key = vec![0; 32];
    getrandom::fill(&mut key)?;
    Ok(key)
}

/// Reads `90s`, `1h30m`, …
fn duration(text: &str) -> Result<Duration, String> {
    let out = || format!("{text:?} is no duration above zero; write it like 86400s, 24h or 1h30m");
    let duration = text.parse::<SignedDuration>().map_err(|_| out())?;
    Duration::try_from(duration).ok().filter(|duration| duration.as_secs() > 0).ok_or_else(out)
}

#[cfg(test)]
mod tests {
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
    fn every_shard_has_replicas_or_none_has() {
        let (shards, replicas) =
            ("postgres://a/tasks,postgres://b/tasks", "postgres://a/tasks_ro,postgres://b/tasks_ro");
        let DatabaseConfig::Postgres(both) = database(shards, Some(replicas), Synchronous::Normal).unwrap() else {
            panic!("no PostgreSQL")
        };
        let [other] = both.others.as_slice() else { panic!("{} others", both.others.len()) };
        for (shard, host) in [(&both.first, "a"), (other, "b")] {
            let host = [tokio_postgres::config::Host::Tcp(host.to_owned())];
            assert_eq!(shard.primary.get_hosts(), host);
            let replicas = shard.replicas.as_ref().unwrap();
            assert_eq!((replicas.get_hosts(), replicas.get_dbname()), (host.as_slice(), Some("tasks_ro")));
        }
        assert!(database(shards, None, Synchronous::Normal).is_ok());
        let missing = database(shards, Some("postgres://a/tasks_ro"), Synchronous::Normal);
        assert!(matches!(missing, Err(ConfigError::ShardsDiffer { primaries: 2, replicas: 1 })));
        assert!(matches!(
            database(&format!("{shards},"), None, Synchronous::Normal),
            Err(ConfigError::Mixed("DATABASE_URL"))
        ));
        let many = vec!["postgres://a/tasks"; MAX_SHARDS + 1].join(",");
        assert!(matches!(database(&many, None, Synchronous::Normal), Err(ConfigError::Shards(_))));
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

    #[test]
    fn durations() {
        assert_eq!(duration("90s"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("1h30m"), Ok(Duration::from_mins(90)));
        for bad in ["", "5", "-3s", "0s", "soon"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }
}
