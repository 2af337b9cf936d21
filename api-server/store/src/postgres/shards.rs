//! Databases that share the users between them (plan section 2.4): user `u` is in shard `u % N`, with all that is theirs.
//!
//! An account comes to the shard that its e-mail hashes to, whose sequence makes only ids of that shard. So e-mails are unique if
//! they are unique in their shard, and neither a log-in nor anything else asks more than one.

use std::{collections::HashMap, ptr};

use futures::future::try_join_all;
use sha2::{Digest, Sha256};
use task_api_domain::{id::TaskId, mark::Mark, summary::Summary, task::Task, user::User};

use super::{Outbox, Postgres, ShardNumber, Summaries};
use crate::{
    Bound, Idempotency, ImportedAccount, ImportedTask, ListRequest, NewUser, Operation, Outcome, Piece,
    PostgresOptions, SearchRequest, StoreError, StoreMetrics, View, Writes, Written,
};

/// All shards, in their order. There is at least one.
#[derive(Debug)]
pub(crate) struct Shards {
    first: Postgres,
    others: Vec<Postgres>,
}

impl Shards {
    pub(crate) fn new(options: &PostgresOptions, writes: Writes, metrics: &StoreMetrics) -> Self {
        let PostgresOptions { first, others, retention } = options;
        let of = others.len() + 1;
        let open = |number, config| Postgres::new(config, ShardNumber { number, of }, *retention, writes, metrics);
        Self {
            first: open(0, first),
            others: others.iter().zip(1..).map(|(config, number)| open(number, config)).collect(),
        }
    }

    pub(crate) fn count(&self) -> usize {
        self.others.len() + 1
    }

    fn all(&self) -> impl Iterator<Item = &Postgres> {
        std::iter::once(&self.first).chain(&self.others)
    }

    fn numbered(&self, number: u64) -> &Postgres {
        let count = self.count() as u64;
        let place = usize::try_from(number % count).unwrap_or_default();
        place.checked_sub(1).and_then(|place| self.others.get(place)).unwrap_or(&self.first)
    }

    fn of_user(&self, user_id: i64) -> &Postgres {
        // No user has a negative id, but a made-up token may.
        self.numbered(user_id.unsigned_abs())
    }

    /// The hash has to be the same in every version of this program.
    fn of_email(&self, email_key: &str) -> &Postgres {
        let digest = Sha256::digest(email_key);
        // 2^64 is so much greater than the number of shards that each gets its share.
        self.numbered(digest.iter().take(8).fold(0, |number, byte| number << 8 | u64::from(*byte)))
    }

    pub(crate) fn outboxes(&self) -> Vec<Outbox> {
        self.all().map(Postgres::outbox).collect()
    }

    pub(crate) fn summaries(&self) -> Vec<Summaries> {
        self.all().map(Postgres::summaries).collect()
    }

    pub(crate) async fn prepare(&self) -> Result<(), StoreError> {
        try_join_all(self.all().map(Postgres::prepare)).await.map(|_| ())
    }

    pub(crate) async fn keep_up(&self) -> Result<(), StoreError> {
        try_join_all(self.all().map(Postgres::keep_up)).await.map(|_| ())
    }

    pub(crate) async fn check(&self) -> Result<(), StoreError> {
        try_join_all(self.all().map(Postgres::check)).await.map(|_| ())
    }

    pub(crate) async fn create_user(&self, user: &NewUser) -> Result<Written<User>, StoreError> {
        self.of_email(&user.email.key()).create_user(user).await
    }

    pub(crate) async fn credentials(&self, email_key: &str) -> Result<Option<(User, String)>, StoreError> {
        self.of_email(email_key).credentials(email_key).await
    }

    pub(crate) async fn set_password(&self, user_id: i64, from: &str, to: &str) -> Result<bool, StoreError> {
        self.of_user(user_id).set_password(user_id, from, to).await
    }

    pub(crate) async fn user(&self, id: i64, wrote: Option<Mark>) -> Result<Option<User>, StoreError> {
        self.of_user(id).user(id, wrote).await
    }

    pub(crate) async fn apply(
        &self,
        user_id: i64,
        operations: Vec<Operation>,
        idempotency: Option<&Idempotency>,
    ) -> Result<Written<Vec<Outcome>>, StoreError> {
        self.of_user(user_id).apply(user_id, operations, idempotency).await
    }

    pub(crate) async fn list_tasks(
        &self,
        user_id: i64,
        list: &ListRequest,
        wrote: Option<Mark>,
    ) -> Result<Piece, StoreError> {
        self.of_user(user_id).list_tasks(user_id, list, wrote).await
    }

    pub(crate) async fn search_tasks(
        &self,
        user_id: i64,
        search: &SearchRequest,
        wrote: Option<Mark>,
    ) -> Result<Piece, StoreError> {
        self.of_user(user_id).search_tasks(user_id, search, wrote).await
    }

    pub(crate) async fn task(&self, user_id: i64, id: TaskId, wrote: Option<Mark>) -> Result<Option<Task>, StoreError> {
        self.of_user(user_id).task(user_id, id, wrote).await
    }

    pub(crate) async fn summary(&self, user_id: i64) -> Result<Summary, StoreError> {
        self.of_user(user_id).summary(user_id).await
    }

    pub(crate) async fn load_view(&self, user_id: i64, bound: Bound, wrote: Option<Mark>) -> Result<View, StoreError> {
        self.of_user(user_id).load_view(user_id, bound, wrote).await
    }

    pub(crate) async fn imported_accounts(&self, source: &str) -> Result<HashMap<i64, i64>, StoreError> {
        let all = try_join_all(self.all().map(|shard| shard.imported_accounts(source))).await?;
        Ok(all.into_iter().flatten().collect())
    }

    pub(crate) async fn import_accounts(
        &self,
        source: &str,
        accounts: Vec<ImportedAccount>,
    ) -> Result<Vec<Option<i64>>, StoreError> {
        let mut ids = vec![None; accounts.len()];
        for shard in self.all() {
            let here = |account: &ImportedAccount| ptr::eq(self.of_email(&account.email.key()), shard);
            let (places, accounts): (Vec<_>, Vec<_>) =
                accounts.iter().enumerate().filter(|(_, account)| here(account)).unzip();
            for (place, id) in places.into_iter().zip(shard.import_accounts(source, &accounts).await?) {
                ids[place] = id;
            }
        }
        Ok(ids)
    }

    /// As far as the shard that is behind the others.
    pub(crate) async fn imported_up_to(&self, source: &str) -> Result<i64, StoreError> {
        let all = try_join_all(self.all().map(|shard| shard.imported_up_to(source))).await?;
        Ok(all.into_iter().min().unwrap_or(i64::MIN))
    }

    pub(crate) async fn import_tasks(
        &self,
        source: &str,
        tasks: Vec<ImportedTask>,
        up_to: i64,
    ) -> Result<(), StoreError> {
        let import = async |shard: &Postgres| {
            let here = |task: &&ImportedTask| ptr::eq(self.of_user(task.user_id), shard);
            let tasks: Vec<_> = tasks.iter().filter(here).collect();
            shard.import_tasks(source, &tasks, up_to).await
        };
        try_join_all(self.all().map(import)).await.map(|_| ())
    }
}
