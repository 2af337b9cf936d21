//! Flags and environment: what was given, and nothing else.

use std::{net::SocketAddr, num::NonZeroU32, time::Duration};

use clap::{
    Parser, Subcommand,
    builder::{PossibleValuesParser, TypedValueParser},
};
use jiff::SignedDuration;
use task_api_store::Synchronous;
use task_api_telemetry::log::LogFormat;

use crate::import::ImportArgs;

const EXAMPLES: &str = "\
Examples:
  task-api                                        alone: SQLite in ./task-api.db, sessions included
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

    /// When a write to the SQLite file is on the disk: soon (normal), so that a crash of the machine may lose the last ones, or before
    /// it is answered (full)
    #[arg(long, env = "SQLITE_SYNCHRONOUS", default_value = "normal", value_parser = one_of([("normal", Synchronous::Normal), ("full", Synchronous::Full)]))]
    pub sqlite_synchronous: Synchronous,

    /// PostgreSQL replicas that answer reads: postgres://…, as many as there are databases
    #[arg(long, env = "DATABASE_READ_URL", hide_env_values = true)]
    pub database_read_url: Option<String>,

    /// Redis Cluster that keeps the sessions: redis://…; without it they are kept in the process, and in the SQLite file
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

    /// How many bytes of titles and descriptions a user may have, as UTF-8; 0 is any number
    #[arg(long, env = "MAX_BYTES_PER_USER", default_value_t = 1 << 30)]
    pub max_bytes_per_user: u64,

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

    /// The key before, while instances move to another: what it signed is taken, and it signs for this instance's first 10 minutes, so that
    /// instances that know only the one before can read it
    #[arg(long, env = "SIGNING_KEY_FORMER", hide_env_values = true)]
    pub signing_key_former: Option<String>,

    /// RabbitMQ that is told of every change of a task: amqp://…; without it no event is kept. Needs PostgreSQL, and a worker
    #[arg(long, global = true, env = "AMQP_URL", hide_env_values = true)]
    pub amqp_url: Option<String>,

    /// How many requests may be there at once, at work or waiting for their turn; the rest is answered 503 [default: 6144 a core]
    #[arg(long, env = "MAX_IN_FLIGHT")]
    pub max_in_flight: Option<NonZeroU32>,

    /// How much memory requests and their answers may take at once, in bytes; a user, a quarter of it [default: a quarter of the container's
    /// limit, 256 MiB at most]
    #[arg(long, env = "MAX_IN_FLIGHT_BYTES")]
    pub max_in_flight_bytes: Option<usize>,

    /// How many connections are served at once; a request on one more is answered 503
    #[arg(long, env = "MAX_CONNECTIONS", default_value = "20000")]
    pub max_connections: NonZeroU32,

    /// How log lines look [default: text on a terminal, json otherwise]
    #[arg(long, global = true, env = "LOG_FORMAT", value_parser = one_of([("text", LogFormat::Text), ("json", LogFormat::Json)]))]
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

/// Reads one of these words.
fn one_of<T: Clone + Send + Sync + 'static, const N: usize>(
    words: [(&'static str, T); N],
) -> impl TypedValueParser<Value = T> {
    PossibleValuesParser::new(words.clone().map(|(word, _)| word)).try_map(move |given| {
        words.iter().find(|(word, _)| *word == given).map(|(_, value)| value.clone()).ok_or("no such word")
    })
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

    #[test]
    fn durations() {
        assert_eq!(duration("90s"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("1h30m"), Ok(Duration::from_mins(90)));
        for bad in ["", "5", "-3s", "0s", "soon"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }
}
