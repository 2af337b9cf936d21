//! The first pass over the file: it finds what can't be imported before anything is written, and the checksums to compare with at the end.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use argon2::password_hash::phc::PasswordHash;
use futures::{StreamExt, TryStreamExt, stream};
use serde::Serialize;
use task_api_store::{Store, StoreError};

use super::{AT_ONCE, ImportError, digest::Digest, key::Key, progress::Progress, source::Source};

/// A row that can't be imported.
#[derive(Debug, Serialize)]
pub(super) struct Fault {
    /// Whether it is an account or a task.
    pub(super) kind: &'static str,
    pub(super) rowid: i64,
    pub(super) reason: String,
}

/// An account that can be imported.
#[derive(Clone, Copy, Debug)]
pub(super) struct Known {
    pub(super) rowid: i64,
    /// What the database knows it by.
    pub(super) id: i64,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Survey {
    /// The accounts to import.
    pub(super) accounts: BTreeMap<Key, Known>,
    /// The rows of those that can't log in: no hash of their password that this program knows.
    pub(super) without_password: Vec<i64>,
    /// The tasks to import, by their owners.
    pub(super) digests: BTreeMap<Key, Digest>,
    pub(super) faults: Vec<Fault>,
}

impl Survey {
    pub(super) async fn take(
        source: &Source,
        store: &Store,
        batch: u32,
        mut progress: Progress,
    ) -> Result<Self, ImportError> {
        let mut survey = Self::default();
        survey.take_accounts(source, store, batch, &mut progress).await?;
        survey.take_tasks(source, batch, &mut progress)?;
        Ok(survey)
    }

    async fn take_accounts(
        &mut self,
        source: &Source,
        store: &Store,
        batch: u32,
        progress: &mut Progress,
    ) -> Result<(), ImportError> {
        let imported = store.imported_accounts(&source.name).await?;
        let (mut keys, mut after) = (BTreeSet::new(), i64::MIN);
        loop {
            let rows = source.accounts(after, batch)?;
            let Some(last) = rows.last() else { return Ok(()) };
            after = last.rowid;
            progress.advance(rows.len());
            let new = rows.iter().filter_map(|row| row.content.as_ref().ok());
            let new = new.filter(|account| !imported.contains_key(&account.id)).map(|account| account.email.key());
            let taken = taken(store, new.collect()).await?;
            for row in rows {
                let checked = row.content.and_then(|account| {
                    let key = account.email.key();
                    if taken.contains(&key) {
                        return Err("email belongs to an account in the database".to_owned());
                    }
                    if self.accounts.contains_key(&account.key) {
                        return Err(format!("id {} belongs to an earlier row", account.key));
                    }
                    if !keys.insert(key) {
                        return Err("email belongs to an earlier row".to_owned());
                    }
                    Ok(account)
                });
                match checked {
                    Err(reason) => self.faults.push(Fault { kind: "account", rowid: row.rowid, reason }),
                    Ok(account) => {
                        self.accounts.insert(account.key, Known { rowid: row.rowid, id: account.id });
                        if !account.password_hash.as_deref().is_some_and(is_usable) {
                            self.without_password.push(row.rowid);
                        }
                    }
                }
            }
        }
    }

    fn take_tasks(&mut self, source: &Source, batch: u32, progress: &mut Progress) -> Result<(), ImportError> {
        let mut after = i64::MIN;
        loop {
            let rows = source.tasks(after, batch)?;
            let Some(last) = rows.last() else { return Ok(()) };
            after = last.rowid;
            progress.advance(rows.len());
            for row in rows {
                let checked = row.content.and_then(|task| match self.accounts.get(&task.owner) {
                    Some(owner) => Ok((owner.id, task)),
                    None => Err(format!("user_id {} is no account that can be imported", task.owner)),
                });
                match checked {
                    Err(reason) => self.faults.push(Fault { kind: "task", rowid: row.rowid, reason }),
                    Ok((owner, one)) => {
                        let digest = self.digests.entry(one.owner).or_default();
                        digest.add(owner, &one.task, one.created_at, one.updated_at);
                    }
                }
            }
        }
    }
}

/// Which of these e-mails have an account.
async fn taken(store: &Store, keys: Vec<String>) -> Result<BTreeSet<String>, StoreError> {
    let look = |key: String| async move {
        let taken = store.credentials(&key).await?.is_some();
        Ok::<_, StoreError>((key, taken))
    };
    let found: HashMap<String, bool> = stream::iter(keys.into_iter().map(look)).buffered(AT_ONCE).try_collect().await?;
    Ok(found.into_iter().filter_map(|(key, taken)| taken.then_some(key)).collect())
}

/// Whether a log-in can be checked against it.
pub(super) fn is_usable(hash: &str) -> bool {
    PasswordHash::new(hash)
        .is_ok_and(|hash| hash.algorithm.as_str().starts_with("argon2") && hash.salt.is_some() && hash.hash.is_some())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::password::NOBODY;

    #[test]
    fn only_argon2_is_usable() {
        assert!(is_usable(NOBODY));
        for other in
            ["", "!", "secret", "$2b$12$abcdefghijklmnopqrstuuABCDEFGHIJKLMNOPQRSTUVWXYZ01234", "$argon2id$v=19"]
        {
            assert!(!is_usable(other), "{other}");
        }
    }
}
