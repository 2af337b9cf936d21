//! What is read of tasks.

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension, Params, ToSql};
use task_api_domain::{
    id::TaskId,
    position::Position,
    search::{By, SearchQuery, Term},
    summary::Summary,
    task::{Priority, Status, Task},
};

use super::{
    columns::{Micros, Word, read_task, task_columns},
    readers::Snapshot,
};
use crate::{Bound, ListRequest, PIECE_BYTES, Piece, SearchRequest, View};

pub(super) fn get(connection: &Connection, user_id: i64, id: TaskId) -> rusqlite::Result<Option<Task>> {
    const SQL: &str = concat!("SELECT ", task_columns!(), " FROM tasks WHERE id = ?1 AND user_id = ?2");
    connection.prepare_cached(SQL)?.query_row((id.get(), user_id), read_task).optional()
}

/// The statement of a list, with these conditions: a plan for a condition that may be there is no plan for one that is.
macro_rules! list_sql {
    ($($condition:literal)*) => {
        concat!("SELECT ", task_columns!(), " FROM tasks WHERE user_id = :user", $(" AND ", $condition,)*
            " ORDER BY created_at DESC, id DESC LIMIT :limit")
    };
}

pub(super) fn list(connection: &Connection, user_id: i64, list: &ListRequest) -> rusqlite::Result<Piece> {
    let ListRequest { filter, after, limit } = *list;
    let bound = piece_of(limit);
    let limit = limit + 1;
    let (status, priority) = (filter.status.map(Status::as_str), filter.priority.map(Priority::as_str));
    let sql = match (status.is_some(), priority.is_some(), after.is_some()) {
        (false, false, false) => list_sql!(),
        (false, false, true) => list_sql!("(created_at, id) < (:at, :id)"),
        (false, true, false) => list_sql!("priority = :priority"),
        (false, true, true) => list_sql!("priority = :priority" "(created_at, id) < (:at, :id)"),
        (true, false, false) => list_sql!("status = :status"),
        (true, false, true) => list_sql!("status = :status" "(created_at, id) < (:at, :id)"),
        (true, true, false) => list_sql!("status = :status" "priority = :priority"),
        (true, true, true) => list_sql!("status = :status" "priority = :priority" "(created_at, id) < (:at, :id)"),
    };
    let (at, id) = after.map(|Position { created_at, id }| (Micros(created_at), id)).unzip();
    let mut params: Vec<(&str, &dyn ToSql)> = vec![(":user", &user_id), (":limit", &limit)];
    params.extend(status.as_ref().map(|status| (":status", status as &dyn ToSql)));
    params.extend(priority.as_ref().map(|priority| (":priority", priority as &dyn ToSql)));
    params.extend(at.as_ref().map(|at| (":at", at as &dyn ToSql)));
    params.extend(id.as_ref().map(|id| (":id", id as &dyn ToSql)));
    piece(connection, sql, params.as_slice(), bound)
}

/// How the statement of a search begins. CROSS JOIN: the matches come first, and their tasks are looked up. The other way round, each of the
/// user's tasks would be looked for among the matches.
const SEARCH: &str = concat!(
    "SELECT ",
    task_columns!(),
    " FROM tasks_search CROSS JOIN tasks ON tasks.id = tasks_search.rowid WHERE tasks_search MATCH ?1 AND user_id = ?2"
);

pub(super) fn search(connection: &Connection, user_id: i64, search: &SearchRequest) -> rusqlite::Result<Piece> {
    let (expression, limit) = (expression(user_id, &search.query), search.limit + 1);
    let place = search.after.map(|Position { created_at, id }| (Micros(created_at), id));
    // The index does not know these: they are looked for in what it finds.
    let parts: Vec<(String, bool)> = search
        .query
        .terms()
        .iter()
        .filter(|term| term.by() == By::Part)
        .map(|term| (term.text.to_lowercase(), term.excluded))
        .collect();
    let mut sql = SEARCH.to_owned();
    let mut params: Vec<&dyn ToSql> = vec![&expression, &user_id, &limit];
    if let Some((at, id)) = &place {
        params.extend([at as &dyn ToSql, id]);
        sql += " AND (created_at, id) < (?4, ?5)";
    }
    for (text, excluded) in &parts {
        params.push(text);
        let found = format!("instr(lower(title || ' ' || coalesce(description, '')), ?{}) > 0", params.len());
        sql = format!("{sql} AND {}({found})", if *excluded { "NOT " } else { "" });
    }
    sql += " ORDER BY created_at DESC, id DESC LIMIT ?3";
    piece(connection, &sql, params.as_slice(), piece_of(search.limit))
}

/// A query of FTS5 for a user's tasks. Every term is a string in FTS5's syntax, where nothing but a quotation mark is special, and a term
/// has none.
fn expression(user_id: i64, query: &SearchQuery) -> String {
    let indexed = query.terms().iter().filter(|term| term.by() != By::Part);
    let (excluded, wanted): (Vec<&Term>, Vec<&Term>) = indexed.partition(|term| term.excluded);
    let strings = |terms: Vec<&Term>, between: &str| {
        terms.into_iter().map(|term| format!("\"{}\"", term.text)).collect::<Vec<_>>().join(between)
    };
    let owned = format!("owner : \"{user_id}\"");
    let found = if wanted.is_empty() { owned } else { format!("{owned} AND words : ({})", strings(wanted, " AND ")) };
    if excluded.is_empty() { found } else { format!("({found}) NOT words : ({})", strings(excluded, " OR ")) }
}

pub(super) fn summary(connection: &Connection, user_id: i64) -> rusqlite::Result<Summary> {
    let sql = "SELECT status, priority, count(*) FROM tasks WHERE user_id = ?1 GROUP BY status, priority";
    let mut summary = Summary::new(Timestamp::now());
    let mut statement = connection.prepare_cached(sql)?;
    let mut rows = statement.query([user_id])?;
    while let Some(row) = rows.next()? {
        let (Word(status), Word(priority)) = (row.get(0)?, row.get(1)?);
        summary.add(status, priority, row.get::<_, u32>(2)?.into());
    }
    Ok(summary)
}

pub(super) fn view(snapshot: &Snapshot<'_>, user_id: i64, bound: Bound) -> rusqlite::Result<View> {
    let limit = i64::try_from(bound.tasks).unwrap_or(i64::MAX).saturating_add(1);
    let piece = piece(snapshot.connection, list_sql!(), &[(":user", &user_id), (":limit", &limit)], bound)?;
    Ok(View { piece, version: snapshot.mark })
}

/// How large a piece of a list is that so many tasks are asked for.
fn piece_of(limit: i64) -> Bound {
    Bound { tasks: usize::try_from(limit).unwrap_or_default(), bytes: PIECE_BYTES }
}

/// Reads a piece. One row more than it may have tells whether there are more.
fn piece(connection: &Connection, sql: &str, params: impl Params, bound: Bound) -> rusqlite::Result<Piece> {
    let mut statement = connection.prepare_cached(sql)?;
    let mut rows = statement.query(params)?;
    let (mut tasks, mut bytes) = (Vec::new(), 0);
    while let Some(row) = rows.next()? {
        if tasks.len() == bound.tasks || bytes >= bound.bytes {
            return Ok(Piece { tasks, more: true });
        }
        let task = read_task(row)?;
        bytes += task.text_bytes();
        tasks.push(task);
    }
    Ok(Piece { tasks, more: false })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{
        Operation, Outcome, Quota,
        sqlite::{
            changes::{Ids, apply, index},
            connection::migrate,
        },
    };
    use task_api_domain::{
        task::{NewTask, TaskPatch},
        validation::Change,
    };

    fn database() -> Connection {
        let connection = Connection::open_in_memory().unwrap();
        migrate(&connection).unwrap();
        for id in [1, 12] {
            let sql = "INSERT INTO users VALUES (?1, ?1 || '@example.com', ?1 || '@example.com', NULL, '', 0)";
            connection.execute(sql, [id]).unwrap();
        }
        connection
    }

    fn change(connection: &Connection, user_id: i64, operation: Operation) -> Outcome {
        apply(connection, (&Ids::default(), Quota::default()), user_id, vec![operation], None)
            .unwrap()
            .outcomes
            .remove(0)
    }

    fn create(connection: &Connection, ids: &Ids, user_id: i64, title: &str, description: Option<&str>) -> TaskId {
        let description = description.map(str::to_owned);
        let (status, priority) = (Status::default(), Priority::default());
        let task = NewTask { title: title.to_owned(), description, status, priority, due_date: None };
        let applied = apply(connection, (ids, Quota::default()), user_id, vec![Operation::Create(task)], None).unwrap();
        let [Outcome::Created(task)] = &applied.outcomes[..] else { panic!("{:?}", applied.outcomes) };
        TaskId::new(task.id).unwrap()
    }

    fn titles(connection: &Connection, user_id: i64, text: &str) -> Vec<String> {
        index(connection).unwrap();
        let query = SearchQuery::parse(text).unwrap();
        let found = search(connection, user_id, &SearchRequest { query, after: None, limit: 100 }).unwrap();
        found.tasks.into_iter().map(|task| task.title).collect()
    }

    #[test]
    fn a_search_finds_words_phrases_and_what_is_not_excluded() {
        let (connection, ids) = (database(), Ids::default());
        create(&connection, &ids, 1, "Buy oat milk", Some("two litres"));
        create(&connection, &ids, 1, "Buying milk", Some("oat or soy"));
        create(&connection, &ids, 1, "Call 12", None);
        create(&connection, &ids, 12, "Buy oat milk for user 1", None);
        assert_eq!(titles(&connection, 1, "buy MILK"), ["Buying milk", "Buy oat milk"], "newest first");
        assert_eq!(titles(&connection, 1, "\"oat milk\""), ["Buy oat milk"]);
        assert_eq!(titles(&connection, 1, "oat-milk"), ["Buy oat milk"]);
        assert_eq!(titles(&connection, 1, "milk -soy"), ["Buy oat milk"]);
        assert_eq!(titles(&connection, 1, "-milk"), ["Call 12"]);
        assert_eq!(titles(&connection, 1, "milk -litre -soy"), [""; 0]);
        assert_eq!(titles(&connection, 1, "12"), ["Call 12"], "the owner is not a word");
        assert_eq!(titles(&connection, 12, "12"), [""; 0]);
        assert_eq!(titles(&connection, 12, "milk"), ["Buy oat milk for user 1"]);
    }

    #[test]
    fn a_search_goes_on_where_it_ended() {
        let (connection, ids) = (database(), Ids::default());
        for n in 0..7 {
            create(&connection, &ids, 1, &format!("task {n}"), None);
        }
        index(&connection).unwrap();
        let query = SearchQuery::parse("task").unwrap();
        let (mut after, mut found) = (None, Vec::new());
        loop {
            let page = search(&connection, 1, &SearchRequest { query: query.clone(), after, limit: 3 }).unwrap().tasks;
            let Some(last) = page.last() else { break };
            after = Some(last.position());
            found.extend(page.into_iter().map(|task| task.title));
        }
        assert_eq!(found, (0..7).rev().map(|n| format!("task {n}")).collect::<Vec<_>>());
    }

    #[test]
    fn a_search_follows_what_becomes_of_a_task() {
        let (connection, ids) = (database(), Ids::default());
        let id = create(&connection, &ids, 1, "old title", Some("old words"));
        let patch = TaskPatch { title: Some("new title".to_owned()), ..TaskPatch::default() };
        change(&connection, 1, Operation::Update { id, patch, expected: None });
        assert_eq!(titles(&connection, 1, "new words"), ["new title"]);
        assert_eq!(titles(&connection, 1, "\"old title\""), [""; 0]);
        let patch = TaskPatch { description: Change::Clear, ..TaskPatch::default() };
        change(&connection, 1, Operation::Update { id, patch, expected: None });
        assert_eq!(titles(&connection, 1, "words"), [""; 0]);
        assert_eq!(titles(&connection, 1, "title"), ["new title"]);
        change(&connection, 1, Operation::Delete { id, expected: None });
        assert_eq!(titles(&connection, 1, "title"), [""; 0]);
        let check = "INSERT INTO tasks_search (tasks_search) VALUES ('integrity-check')";
        connection.execute(check, []).unwrap();
    }

    proptest! {
        #[test]
        fn no_search_is_an_error(text in r#"[a-c12"*:^(){}+\-\\' \n\PC]{1,60}"#) {
            let connection = database();
            if let Some(query) = SearchQuery::parse(&text) {
                let found = search(&connection, 1, &SearchRequest { query, after: None, limit: 10 });
                prop_assert!(found.is_ok(), "{:?}", found);
            }
        }
    }
}
