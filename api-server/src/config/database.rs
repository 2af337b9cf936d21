//! Where users and tasks are kept, by the URLs of databases.

use task_api_domain::id::MAX_SHARDS;
use task_api_store::{DatabaseConfig, PostgresOptions, ShardConfig, SqliteConfig, Synchronous};

use super::ConfigError;

/// Reads `DATABASE_URL` and `DATABASE_READ_URL`.
pub(super) fn database(
    url: &str,
    read_url: Option<&str>,
    synchronous: Synchronous,
) -> Result<DatabaseConfig, ConfigError> {
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

#[cfg(test)]
mod tests {
    use super::*;

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
}
