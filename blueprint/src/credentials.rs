//! The platform's passwords: made once, kept in one Secret, never printed.

use std::collections::BTreeMap;

use crate::Component;

/// Keys of the Secret.
pub mod keys {
    /// PostgreSQL's superuser.
    pub const SUPERUSER: &str = "postgres-password";
    /// Streaming replication.
    pub const REPLICATION: &str = "replication-password";
    /// `pg_rewind`.
    pub const REWIND: &str = "rewind-password";
    /// Patroni's REST API.
    pub const PATRONI: &str = "patroni-password";
    /// The task API's role in PostgreSQL.
    pub const TASKS: &str = "tasks-password";
    /// PgBouncer's administrator.
    pub const POOLER: &str = "pooler-password";
    /// The cache.
    pub const CACHE: &str = "cache-password";
    /// The session store.
    pub const SESSIONS: &str = "sessions-password";
    /// The key that signs what the API hands out and takes back.
    pub const SIGNING: &str = "signing-key";
    /// PgBouncer's list of users.
    pub const USERLIST: &str = "userlist.txt";
    /// The cache's passwords as Redis reads them.
    pub const CACHE_CONF: &str = "cache.conf";
    /// The session store's passwords as Redis reads them.
    pub const SESSIONS_CONF: &str = "sessions.conf";
}

/// The part that was made with the password of this key.
pub fn owner(key: &str) -> Option<Component> {
    match key {
        keys::SUPERUSER | keys::REPLICATION | keys::REWIND | keys::PATRONI | keys::TASKS => Some(Component::Database),
        keys::POOLER => Some(Component::Pooler),
        keys::CACHE => Some(Component::Cache),
        keys::SESSIONS => Some(Component::Sessions),
        keys::SIGNING => Some(Component::Api),
        _ => None,
    }
}

/// Whether what the key holds follows from the passwords.
pub fn is_derived(key: &str) -> bool {
    matches!(key, keys::USERLIST | keys::CACHE_CONF | keys::SESSIONS_CONF)
}

/// The keys that a Secret lacks: passwords come from `random` (letters and digits only, since they stand in URLs and
/// configuration files), files follow from the passwords.
pub fn complete(existing: &BTreeMap<String, String>, mut random: impl FnMut() -> String) -> BTreeMap<String, String> {
    use keys::{
        CACHE, CACHE_CONF, PATRONI, POOLER, REPLICATION, REWIND, SESSIONS, SESSIONS_CONF, SIGNING, SUPERUSER, TASKS,
        USERLIST,
    };
    let mut all = existing.clone();
    for key in [SUPERUSER, REPLICATION, REWIND, PATRONI, TASKS, POOLER, CACHE, SESSIONS, SIGNING] {
        all.entry(key.to_owned()).or_insert_with(&mut random);
    }
    let userlist = format!("\"tasks\" \"{}\"\n\"pgbouncer\" \"{}\"\n", all[TASKS], all[POOLER]);
    let redis = |password: &str| format!("requirepass {password}\nmasterauth {password}\n");
    let (cache, sessions) = (redis(&all[CACHE]), redis(&all[SESSIONS]));
    all.extend([(USERLIST.to_owned(), userlist), (CACHE_CONF.to_owned(), cache), (SESSIONS_CONF.to_owned(), sessions)]);
    all.retain(|key, value| existing.get(key) != Some(value));
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_exists_is_never_replaced() {
        let mut count = 0;
        let mut random = || {
            count += 1;
            format!("secret{count}")
        };
        let first = complete(&BTreeMap::new(), &mut random);
        assert_eq!(first.len(), 12);
        assert!(complete(&first, &mut random).is_empty(), "a complete Secret lacks nothing");

        let mut older = first.clone();
        older.remove(keys::POOLER);
        let missing = complete(&older, &mut random);
        assert_eq!(missing.keys().collect::<Vec<_>>(), [keys::POOLER, keys::USERLIST]);
        assert!(missing[keys::USERLIST].contains(&first[keys::TASKS]));
    }
}
