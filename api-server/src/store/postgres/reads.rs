//! Reads of tasks.

use super::{
    Postgres,
    rows::{TASK, column, no_row, read_priority, read_status, read_task},
};
use crate::{
    id::TaskId,
    store::{IdempotencyKey, ListRequest, Mark, SearchRequest, StoreError, View},
    tasks::{
        cursor::Position,
        model::{Priority, Task},
        summary::Summary,
    },
};

type Param<'a> = &'a (dyn tokio_postgres::types::ToSql + Sync);

impl Postgres {
    pub(super) async fn list_tasks(
        &self,
        user_id: i64,
        list: &ListRequest,
        wrote: Option<Mark>,
    ) -> Result<Vec<Task>, StoreError> {
        let ListRequest { filter, after, limit } = list;
        let priority = filter.priority.map(Priority::as_str);
        let mut page = Page::new(&user_id, limit);
        if let Some(status) = filter.status {
            // A constant, so that the planner sees which of them the partial index holds.
            page.conditions.push(format!("status = '{}'", status.as_str()));
        }
        if let Some(priority) = &priority {
            let place = page.param(priority);
            page.conditions.push(format!("priority = ${place}"));
        }
        if let Some(position) = after {
            page.after(position);
        }
        self.page(&page, wrote).await
    }

    pub(super) async fn search_tasks(
        &self,
        user_id: i64,
        search: &SearchRequest,
        wrote: Option<Mark>,
    ) -> Result<Vec<Task>, StoreError> {
        let SearchRequest { query, after, limit } = search;
        let text = query.to_string();
        let mut page = Page::new(&user_id, limit);
        let place = page.param(&text);
        page.conditions.push(format!("search @@ websearch_to_tsquery('english', ${place})"));
        if let Some(position) = after {
            page.after(position);
        }
        self.page(&page, wrote).await
    }

    async fn page(&self, page: &Page<'_>, wrote: Option<Mark>) -> Result<Vec<Task>, StoreError> {
        let conditions = page.conditions.join(" AND ");
        let sql = |fresh: &str| {
            format!("SELECT {TASK} FROM tasks WHERE {conditions}{fresh} ORDER BY created_at DESC, id DESC LIMIT $2")
        };
        self.read(&sql, &page.params, wrote).await?.iter().map(read_task).collect()
    }

    pub(super) async fn task(&self, user_id: i64, id: TaskId, wrote: Option<Mark>) -> Result<Option<Task>, StoreError> {
        let (from, to) = id.created_within();
        let sql = |fresh: &str| {
            format!(
                "SELECT {TASK} FROM tasks
                 WHERE id = $1 AND created_at >= $2 AND created_at < $3 AND user_id = $4{fresh}"
            )
        };
        self.read(&sql, &[&id.get(), &from, &to, &user_id], wrote).await?.first().map(read_task).transpose()
    }

    /// Asks for no mark: the view it reads is older than any recent write, wherever it is read.
    pub(super) async fn summary(&self, user_id: i64) -> Result<Summary, StoreError> {
        let sql = "SELECT refreshed_at, status, priority, count
            FROM summary_refresh LEFT JOIN task_summaries ON user_id = $1";
        let rows = self.read(&|_| sql.to_owned(), &[&user_id], None).await?;
        let mut summary = Summary::new(column(rows.first().ok_or_else(no_row)?, "refreshed_at")?);
        for row in &rows {
            if let Some(count) = column::<Option<i64>>(row, "count")? {
                summary.add(read_status(row)?, read_priority(row)?, count.unsigned_abs());
            }
        }
        Ok(summary)
    }

    pub(super) async fn count_tasks(&self, user_id: i64) -> Result<u64, StoreError> {
        let rows = self.read_primary("SELECT count(*) AS count FROM tasks WHERE user_id = $1", &[&user_id]).await?;
        Ok(column::<i64>(rows.first().ok_or_else(no_row)?, "count")?.unsigned_abs())
    }

    pub(super) async fn knows_key(&self, user_id: i64, key: &IdempotencyKey) -> Result<bool, StoreError> {
        let sql = "SELECT 1 FROM idempotency_keys WHERE user_id = $1 AND key = $2";
        Ok(!self.read_primary(sql, &[&user_id, &key.as_str()]).await?.is_empty())
    }

    pub(super) async fn load_view(&self, user_id: i64, most: usize, wrote: Option<Mark>) -> Result<View, StoreError> {
        // One more than asked for tells whether these are all.
        let limit = i64::try_from(most).unwrap_or(i64::MAX - 1) + 1;
        // Everything below xmin is over, so it is seen. There is a row also where there is no task.
        let sql = |fresh: &str| {
            format!(
                "SELECT seen, t.*
                 FROM (SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint - 1 AS seen) AS snapshot
                 LEFT JOIN (
                    SELECT {TASK} FROM tasks WHERE user_id = $1 ORDER BY created_at DESC, id DESC LIMIT $2
                 ) AS t ON true
                 WHERE true{fresh} ORDER BY t.created_at DESC, t.id DESC"
            )
        };
        let rows = self.read(&sql, &[&user_id, &limit], wrote).await?;
        let seen = Mark(column(rows.first().ok_or_else(no_row)?, "seen")?);
        let mut tasks = Vec::with_capacity(rows.len());
        for row in &rows {
            if column::<Option<i64>>(row, "id")?.is_some() {
                tasks.push(read_task(row)?);
            }
        }
        let complete = tasks.len() <= most;
        tasks.truncate(most);
        // The primary shows `wrote` also where a longer transaction holds xmin back. It is not the version all the same: another instance may
        // write for this user under a lesser mark, and not have committed yet.
        Ok(View { tasks, complete, version: seen })
    }
}

/// A statement that reads a page of a user's tasks, as it grows.
struct Page<'a> {
    conditions: Vec<String>,
    params: Vec<Param<'a>>,
}

impl<'a> Page<'a> {
    fn new(user_id: &'a i64, limit: &'a i64) -> Self {
        Self { conditions: vec!["user_id = $1".to_owned()], params: vec![user_id, limit] }
    }

    /// Adds a parameter and returns its number.
    fn param(&mut self, param: Param<'a>) -> usize {
        self.params.push(param);
        self.params.len()
    }

    fn after(&mut self, Position { created_at, id }: &'a Position) {
        let (at, id) = (self.param(created_at), self.param(id));
        // The first condition says nothing new, but only it tells the planner which partitions are too young.
        self.conditions.push(format!("created_at <= ${at} AND (created_at, id) < (${at}, ${id})"));
    }
}
