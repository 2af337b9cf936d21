//! Rows of another database. All of this but the look-ups runs on the writer's thread, inside a transaction.

use std::collections::HashMap;

use rusqlite::{Connection, OptionalExtension};
use task_api_domain::id::TaskId;

use super::columns::Micros;
use crate::{
    StoreError,
    import::{FreeIds, ImportedAccount, ImportedTask},
};

pub(super) fn accounts(connection: &Connection, source: &str) -> rusqlite::Result<HashMap<i64, i64>> {
    let sql = "SELECT source_id, user_id FROM imported_accounts WHERE source = ?1";
    connection.prepare_cached(sql)?.query_map([source], |row| Ok((row.get(0)?, row.get(1)?)))?.collect()
}

/// The account's id here, unless another account has its e-mail.
pub(super) fn add_account(
    connection: &Connection,
    source: &str,
    account: &ImportedAccount,
) -> rusqlite::Result<Option<i64>> {
    let ImportedAccount { source_id, email, name, password_hash, created_at } = account;
    let known = "SELECT user_id FROM imported_accounts WHERE source = ?1 AND source_id = ?2";
    let known = connection.prepare_cached(known)?.query_row((source, source_id), |row| row.get(0)).optional()?;
    if known.is_some() {
        return Ok(known);
    }
    let insert = "INSERT INTO users (email, email_key, name, password_hash, created_at) VALUES (?1, ?2, ?3, ?4, ?5)
        ON CONFLICT (email_key) DO NOTHING RETURNING id";
    let params = (email.as_str(), email.key(), name, password_hash, Micros(*created_at));
    let made: Option<i64> = connection.prepare_cached(insert)?.query_row(params, |row| row.get(0)).optional()?;
    if let Some(id) = made {
        let keep = "INSERT INTO imported_accounts (source, source_id, user_id) VALUES (?1, ?2, ?3)";
        connection.prepare_cached(keep)?.execute((source, source_id, id))?;
    }
    Ok(made)
}

/// Before every row, if there was none yet.
pub(super) fn up_to(connection: &Connection, source: &str) -> rusqlite::Result<i64> {
    let sql = "SELECT max(up_to) FROM imported_tasks WHERE source = ?1";
    let up_to: Option<i64> = connection.prepare_cached(sql)?.query_row([source], |row| row.get(0))?;
    Ok(up_to.unwrap_or(i64::MIN))
}

pub(super) fn add_tasks(
    connection: &Connection,
    source: &str,
    tasks: &[ImportedTask],
    up_to_row: i64,
) -> Result<(), StoreError> {
    let before = up_to(connection, source)?;
    let tasks = || tasks.iter().filter(|task| task.rowid > before);
    let mut ids = FreeIds::new(0, taken(connection, tasks())?);
    let insert =
        "INSERT INTO tasks (id, user_id, title, description, status, priority, created_at, updated_at, due_date)
        VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)";
    let mut insert = connection.prepare_cached(insert)?;
    for ImportedTask { user_id, task, created_at, updated_at, .. } in tasks() {
        insert.execute((
            ids.next(*created_at)?,
            user_id,
            &task.title,
            &task.description,
            task.status.as_str(),
            task.priority.as_str(),
            Micros(*created_at),
            Micros(*updated_at),
            task.due_date.map(Micros),
        ))?;
    }
    let advance = "INSERT INTO imported_tasks (source, up_to) VALUES (?1, ?2)
        ON CONFLICT (source) DO UPDATE SET up_to = max(up_to, excluded.up_to)";
    connection.prepare_cached(advance)?.execute((source, up_to_row))?;
    Ok(())
}

fn taken<'t>(
    connection: &Connection,
    tasks: impl Iterator<Item = &'t ImportedTask>,
) -> rusqlite::Result<HashMap<i64, i64>> {
    let mut statement = connection.prepare_cached("SELECT max(id) FROM tasks WHERE id BETWEEN ?1 AND ?2")?;
    let mut taken = HashMap::new();
    for task in tasks {
        let Some(ids) = TaskId::all_of(task.created_at, 0) else { continue };
        let greatest: Option<i64> = statement.query_row((ids.start(), ids.end()), |row| row.get(0))?;
        taken.extend(greatest.map(|greatest| (*ids.start(), greatest)));
    }
    Ok(taken)
}
