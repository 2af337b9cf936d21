//! Rows of another database. Each call has a connection of its own: an import is one process that does one thing after another.

use std::collections::{BTreeSet, HashMap};

use jiff::{Timestamp, tz::TimeZone};
use task_api_domain::id::TaskId;
use tokio_postgres::Transaction;

use super::{
    Postgres,
    pool::{self, Failure},
    rows::{column, no_row},
};
use crate::{
    StoreError,
    import::{FreeIds, ImportedAccount, ImportedTask},
};

impl Postgres {
    pub(super) async fn imported_accounts(&self, source: &str) -> Result<HashMap<i64, i64>, StoreError> {
        let sql = "SELECT source_id, user_id FROM imported_accounts WHERE source = $1";
        let rows = self.read_primary(sql, &[&source]).await?;
        rows.iter().map(|row| Ok((column(row, 0)?, column(row, 1)?))).collect()
    }

    /// The accounts' ids here; none where another account has the e-mail.
    pub(super) async fn import_accounts(
        &self,
        source: &str,
        accounts: &[&ImportedAccount],
    ) -> Result<Vec<Option<i64>>, StoreError> {
        let sql = "WITH known AS (SELECT user_id FROM imported_accounts WHERE source = $1 AND source_id = $2),
            made AS (
                INSERT INTO users (email, email_key, name, password_hash, created_at)
                SELECT $3, $4, $5, $6, $7 WHERE NOT EXISTS (SELECT FROM known)
                ON CONFLICT (email_key) DO NOTHING RETURNING id),
            kept AS (INSERT INTO imported_accounts (source, source_id, user_id) SELECT $1, $2, id FROM made)
            SELECT user_id FROM known UNION ALL SELECT id FROM made";
        let mut client = pool::connect(&self.config).await?;
        let transaction = client.transaction().await.map_err(Failure::from)?;
        let statement = transaction.prepare(sql).await.map_err(Failure::from)?;
        let mut ids = Vec::with_capacity(accounts.len());
        for ImportedAccount { source_id, email, name, password_hash, created_at } in accounts {
            let (email, key) = (email.as_str(), email.key());
            let params: pool::Params<'_> = &[&source, source_id, &email, &key, name, password_hash, created_at];
            let row = transaction.query_opt(&statement, params).await.map_err(Failure::from)?;
            ids.push(row.map(|row| column(&row, 0)).transpose()?);
        }
        transaction.commit().await.map_err(Failure::from)?;
        Ok(ids)
    }

    /// Before every row, if there was none yet.
    pub(super) async fn imported_up_to(&self, source: &str) -> Result<i64, StoreError> {
        let sql = "SELECT max(up_to) FROM imported_tasks WHERE source = $1";
        let rows = self.read_primary(sql, &[&source]).await?;
        let up_to: Option<i64> = column(rows.first().ok_or_else(no_row)?, 0)?;
        Ok(up_to.unwrap_or(i64::MIN))
    }

    pub(super) async fn import_tasks(
        &self,
        source: &str,
        tasks: &[&ImportedTask],
        up_to: i64,
    ) -> Result<(), StoreError> {
        self.make_partitions_of(tasks).await?;
        let mut client = pool::connect(&self.config).await?;
        let transaction = client.transaction().await.map_err(Failure::from)?;
        transaction.batch_execute(pool::UNLIMITED).await.map_err(Failure::from)?;
        // Makes another import of the same source wait, and then pass over what this one wrote.
        let advance = "INSERT INTO imported_tasks AS i (source, up_to) VALUES ($1, $2)
            ON CONFLICT (source) DO UPDATE SET up_to = i.up_to RETURNING up_to";
        let row = transaction.query_one(advance, &[&source, &i64::MIN]).await.map_err(Failure::from)?;
        let before: i64 = column(&row, 0)?;
        let tasks: Vec<_> = tasks.iter().copied().filter(|task| task.rowid > before).collect();
        // Counted anew before they write the next time.
        let users = all(&tasks, |task| task.user_id);
        transaction.execute("SELECT lock_users($1)", &[&users]).await.map_err(Failure::from)?;
        let forget = "DELETE FROM task_usage WHERE user_id = ANY ($1)";
        transaction.execute(forget, &[&users]).await.map_err(Failure::from)?;
        self.insert_tasks(&transaction, &tasks).await?;
        let advance = "UPDATE imported_tasks SET up_to = greatest(up_to, $2) WHERE source = $1";
        transaction.execute(advance, &[&source, &up_to]).await.map_err(Failure::from)?;
        transaction.commit().await.map_err(Failure::from)?;
        Ok(())
    }

    async fn insert_tasks(&self, transaction: &Transaction<'_>, tasks: &[&ImportedTask]) -> Result<(), StoreError> {
        let insert =
            "INSERT INTO tasks (id, user_id, title, description, status, priority, created_at, updated_at, due_date)
            SELECT * FROM unnest($1::bigint[], $2::bigint[], $3::text[], $4::text[], $5::text[], $6::text[],
                $7::timestamptz[], $8::timestamptz[], $9::timestamptz[])";
        let mut free = FreeIds::new(self.shard_bits(), self.taken_ids(transaction, tasks).await?);
        let ids = tasks.iter().map(|task| free.next(task.created_at)).collect::<Result<Vec<_>, _>>()?;
        transaction
            .execute(
                insert,
                &[
                    &ids,
                    &all(tasks, |task| task.user_id),
                    &all(tasks, |task| task.task.title.as_str()),
                    &all(tasks, |task| task.task.description.as_deref()),
                    &all(tasks, |task| task.task.status.as_str()),
                    &all(tasks, |task| task.task.priority.as_str()),
                    &all(tasks, |task| task.created_at),
                    &all(tasks, |task| task.updated_at),
                    &all(tasks, |task| task.task.due_date),
                ],
            )
            .await
            .map_err(Failure::from)?;
        Ok(())
    }

    /// The greatest id of each second that tasks have to be put into, by the least.
    async fn taken_ids(
        &self,
        transaction: &Transaction<'_>,
        tasks: &[&ImportedTask],
    ) -> Result<HashMap<i64, i64>, StoreError> {
        let sql = "SELECT s.first, max(t.id) FROM unnest($1::bigint[], $2::bigint[]) AS s (first, last)
            JOIN tasks AS t ON t.id BETWEEN s.first AND s.last AND t.id & 63 = s.first & 63
                AND t.created_at >= task_second(s.first) AND t.created_at < task_second(s.first) + interval '1 second'
            GROUP BY s.first";
        let ranges: BTreeSet<_> = tasks
            .iter()
            .filter_map(|task| TaskId::all_of(task.created_at, self.shard_bits()))
            .map(|ids| (*ids.start(), *ids.end()))
            .collect();
        let (first, last): (Vec<i64>, Vec<i64>) = ranges.into_iter().unzip();
        let rows = transaction.query(sql, &[&first, &last]).await.map_err(Failure::from)?;
        rows.iter().map(|row| Ok((column(row, 0)?, column(row, 1)?))).collect()
    }

    /// Before the transaction that fills them: to attach one keeps everyone else waiting until the end of its transaction.
    async fn make_partitions_of(&self, tasks: &[&ImportedTask]) -> Result<(), StoreError> {
        let month = |at: Timestamp| at.to_zoned(TimeZone::UTC).date().first_of_month();
        let months: BTreeSet<_> = tasks.iter().map(|task| month(task.created_at)).collect();
        for month in months {
            let at = month.at(0, 0, 0, 0).to_zoned(TimeZone::UTC).map_or(Timestamp::UNIX_EPOCH, |at| at.timestamp());
            self.take_time("SELECT make_task_partition($1)", &[&at]).await?;
        }
        Ok(())
    }

    /// The shard as ids say it.
    fn shard_bits(&self) -> i64 {
        i64::try_from(self.shard.number).unwrap_or_default()
    }
}

/// One field of all tasks.
fn all<'t, T>(tasks: &[&'t ImportedTask], field: impl Fn(&'t ImportedTask) -> T) -> Vec<T> {
    tasks.iter().map(|task| field(task)).collect()
}
