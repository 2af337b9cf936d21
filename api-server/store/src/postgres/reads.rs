//! Reads of tasks.

use task_api_domain::{
    id::TaskId,
    mark::Mark,
    position::Position,
    search::{By, Term},
    summary::Summary,
    task::{Priority, Task},
};
use tokio_postgres::Row;

use super::{
    Postgres, SEEN,
    rows::{TASK, TASK_WITHOUT_TEXT, column, no_row, read_priority, read_status, read_task},
};
use crate::{Bound, ListRequest, PIECE_BYTES, Piece, SearchRequest, StoreError, View};

type Param<'a> = &'a (dyn tokio_postgres::types::ToSql + Sync);

impl Postgres {
    pub(super) async fn list_tasks(
        &self,
        user_id: i64,
        list: &ListRequest,
        wrote: Option<Mark>,
    ) -> Result<Piece, StoreError> {
        let ListRequest { filter, after, limit } = list;
        let priority = filter.priority.map(Priority::as_str);
        let limit = limit + 1;
        let mut page = Page::new(&user_id, &limit);
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
    ) -> Result<Piece, StoreError> {
        let SearchRequest { query, after, limit } = search;
        let limit = limit + 1;
        let mut page = Page::new(&user_id, &limit);
        let stems = query.only(By::Stem).map(|query| query.to_string());
        if let Some(stems) = &stems {
            let place = page.param(stems);
            page.conditions.push(format!("search @@ websearch_to_tsquery('english', ${place})"));
        }
        // The index does not know these: they are looked for in what is left of the user's tasks.
        let texts: Vec<(String, &str, &Term)> = query.terms().iter().filter_map(looked_for).collect();
        for (text, found, term) in &texts {
            let place = page.param(text);
            let found = found.replace("$text", &format!("${place}"));
            page.conditions.push(format!("{}({found})", if term.excluded { "NOT " } else { "" }));
        }
        if let Some(position) = after {
            page.after(position);
        }
        self.page(&page, wrote).await
    }

    async fn page(&self, page: &Page<'_>, wrote: Option<Mark>) -> Result<Piece, StoreError> {
        let conditions = page.conditions.join(" AND ");
        let sql = |fresh: &str| {
            let found = format!(
                "SELECT {TASK} FROM tasks WHERE {conditions}{fresh} ORDER BY created_at DESC, id DESC LIMIT $2"
            );
            format!("{} ORDER BY created_at DESC, id DESC", fitting(&found, PIECE_BYTES))
        };
        read_piece(&self.read(&sql, &page.params, wrote).await?)
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

    pub(super) async fn load_view(&self, user_id: i64, bound: Bound, wrote: Option<Mark>) -> Result<View, StoreError> {
        let limit = i64::try_from(bound.tasks).unwrap_or(i64::MAX - 1) + 1;
        let found = format!("SELECT {TASK} FROM tasks WHERE user_id = $1 ORDER BY created_at DESC, id DESC LIMIT $2");
        // Everything below xmin is over, so it is seen. There is a row also where there is no task.
        let sql = |fresh: &str| {
            format!(
                "SELECT seen, t.*
                 FROM (SELECT {SEEN} AS seen) AS snapshot
                 LEFT JOIN ({}) AS t ON true
                 WHERE true{fresh} ORDER BY t.created_at DESC, t.id DESC",
                fitting(&found, bound.bytes)
            )
        };
        let rows = self.read(&sql, &[&user_id, &limit], wrote).await?;
        let first = rows.first().ok_or_else(no_row)?;
        let seen = Mark(column(first, "seen")?);
        let has_tasks = column::<Option<i64>>(first, "id")?.is_some();
        let piece = if has_tasks { read_piece(&rows)? } else { Piece::default() };
        // The primary shows `wrote` also where a longer transaction holds xmin back. It is not the version all the same: another instance may
        // write for this user under a lesser mark, and not have committed yet.
        Ok(View { piece, version: seen })
    }
}

/// The tasks of the statement `found`, each with whether it belongs to a piece of so many bytes: the last one, which only tells that there are
/// more than asked for, does not. The descriptions of those that don't are neither read from the disk nor sent.
fn fitting(found: &str, bytes: usize) -> String {
    format!(
        "SELECT {TASK_WITHOUT_TEXT}, CASE WHEN fits THEN description END AS description, fits
         FROM (
            SELECT *, row_number() OVER pieces < $2 AND coalesce(sum(
                octet_length(title) + coalesce(octet_length(description), 0)
            ) OVER (pieces ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING), 0) < {bytes} AS fits
            FROM ({found}) AS found WINDOW pieces AS (ORDER BY created_at DESC, id DESC)
         ) AS measured"
    )
}

/// What a term that is not in the index is compared with, and how.
fn looked_for(term: &Term) -> Option<(String, &'static str, &Term)> {
    match term.by() {
        By::Stem => None,
        // Words have nothing in them that means anything in a pattern.
        By::Word => {
            let words = term.words().collect::<Vec<_>>().join(r"\W+");
            Some((format!(r"\m{words}\M"), "title ~* $text OR coalesce(description ~* $text, false)", term))
        }
        By::Part => {
            let found = "strpos(lower(title), $text) > 0 OR coalesce(strpos(lower(description), $text) > 0, false)";
            Some((term.text.to_lowercase(), found, term))
        }
    }
}

/// Reads the rows of [`fitting`].
fn read_piece(rows: &[Row]) -> Result<Piece, StoreError> {
    let mut tasks = Vec::with_capacity(rows.len());
    for row in rows {
        if !column::<bool>(row, "fits")? {
            return Ok(Piece { tasks, more: true });
        }
        tasks.push(read_task(row)?);
    }
    Ok(Piece { tasks, more: false })
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
