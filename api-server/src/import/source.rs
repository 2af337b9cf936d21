//! The file that is read: one snapshot of it, row by row.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use jiff::Timestamp;
use rusqlite::{Connection, OpenFlags, Row, types::ValueRef};
use serde_json::{Map, Value, json};
use task_api_domain::{
    id::TaskId,
    task::NewTask,
    user::{Email, MAX_NAME},
    validation::{self, Form, Invalid},
};

use super::{
    ImportError,
    mapping::{Column, Mapping, TaskColumn, Unit, UserColumn},
    times,
};

/// A row, or what is wrong with it.
pub(super) struct Read<T> {
    pub(super) rowid: i64,
    pub(super) content: Result<T, String>,
}

/// An account of the source.
pub(super) struct Account {
    pub(super) id: i64,
    pub(super) email: Email,
    pub(super) name: Option<String>,
    pub(super) password_hash: Option<String>,
    pub(super) created_at: Timestamp,
}

/// A task of the source.
pub(super) struct SourceTask {
    pub(super) owner: i64,
    pub(super) task: NewTask,
    pub(super) created_at: Timestamp,
    pub(super) updated_at: Timestamp,
}

/// See the module.
pub(super) struct Source {
    /// Where the file is: what an import is known by when it goes on.
    pub(super) name: String,
    /// What the numbers in columns of times count, by `table.column`.
    pub(super) units: BTreeMap<String, Unit>,
    connection: Connection,
    mapping: Mapping,
    select_users: String,
    select_tasks: String,
}

impl Source {
    pub(super) fn open(file: &Path, mapping: Mapping) -> Result<Self, ImportError> {
        let fail = |cause: String| ImportError::Open { file: file.to_owned(), cause };
        let name = file.canonicalize().map_err(|error| fail(error.to_string()))?;
        let connection = Connection::open_with_flags(&name, OpenFlags::SQLITE_OPEN_READ_ONLY)
            .map_err(|error| fail(error.to_string()))?;
        // Whoever writes to it meanwhile does not change what is read here.
        connection.execute_batch("BEGIN")?;
        let mut source = Self {
            name: name.display().to_string(),
            units: BTreeMap::new(),
            select_users: select(&connection, &mapping.users.table, &mapping.users.columns)?,
            select_tasks: select(&connection, &mapping.tasks.table, &mapping.tasks.columns)?,
            connection,
            mapping,
        };
        source.find_units()?;
        Ok(source)
    }

    /// How many accounts and how many tasks there are.
    pub(super) fn counts(&self) -> Result<(u64, u64), ImportError> {
        let count = |table: &str| -> rusqlite::Result<u64> {
            let sql = format!("SELECT count(*) FROM {}", quoted(table));
            self.connection.query_row(&sql, [], |row| row.get::<_, u32>(0)).map(u64::from)
        };
        Ok((count(&self.mapping.users.table)?, count(&self.mapping.tasks.table)?))
    }

    /// Whether it is this file, whose path is canonical.
    pub(super) fn is_at(&self, file: &Path) -> bool {
        Path::new(&self.name) == file
    }

    /// How many rows of tasks there are up to this one.
    pub(super) fn tasks_up_to(&self, rowid: i64) -> Result<usize, ImportError> {
        let sql = format!("SELECT count(*) FROM {} WHERE rowid <= ?1", quoted(&self.mapping.tasks.table));
        Ok(self.connection.query_row(&sql, [rowid], |row| row.get::<_, u32>(0)).map(|count| count as usize)?)
    }

    /// The accounts after a row, in the order of their rows.
    pub(super) fn accounts(&self, after: i64, limit: u32) -> Result<Vec<Read<Account>>, ImportError> {
        self.rows(&self.select_users, after, limit, |row| self.account(row))
    }

    /// The tasks after a row, in the order of their rows.
    pub(super) fn tasks(&self, after: i64, limit: u32) -> Result<Vec<Read<SourceTask>>, ImportError> {
        self.rows(&self.select_tasks, after, limit, |row| self.task(row))
    }

    fn rows<T>(
        &self,
        select: &str,
        after: i64,
        limit: u32,
        read: impl Fn(&Row<'_>) -> Result<T, String>,
    ) -> Result<Vec<Read<T>>, ImportError> {
        let mut statement = self.connection.prepare_cached(select)?;
        let rows = statement.query_map((after, limit), |row| Ok(Read { rowid: row.get(0)?, content: read(row) }))?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    fn account(&self, row: &Row<'_>) -> Result<Account, String> {
        let named = |column: UserColumn, problem: String| format!("{} {problem}", column.name());
        let email = text(row, UserColumn::Email).map_err(|problem| named(UserColumn::Email, problem))?;
        let email = email.ok_or_else(|| named(UserColumn::Email, "is missing".to_owned()))?;
        let name = text(row, UserColumn::Name).map_err(|problem| named(UserColumn::Name, problem))?;
        let name = name.filter(|name| !name.is_empty()).map(|name| validation::text(json!(name), 1, MAX_NAME));
        let hash = text(row, UserColumn::PasswordHash);
        Ok(Account {
            id: integer(row, UserColumn::Id)?,
            email: Email::rule(json!(email)).map_err(|problem| named(UserColumn::Email, problem))?,
            name: name.transpose().map_err(|problem| named(UserColumn::Name, problem))?,
            password_hash: hash.map_err(|problem| named(UserColumn::PasswordHash, problem))?,
            created_at: self
                .time(row, &self.mapping.users.table, UserColumn::CreatedAt)?
                .ok_or_else(|| named(UserColumn::CreatedAt, "is missing".to_owned()))?,
        })
    }

    /// It goes through the same rules as a task that a client sends.
    fn task(&self, row: &Row<'_>) -> Result<SourceTask, String> {
        let table = &self.mapping.tasks.table;
        let mut body = Map::new();
        for column in [TaskColumn::Title, TaskColumn::Description, TaskColumn::Status, TaskColumn::Priority] {
            if let Some(text) = text(row, column).map_err(|problem| format!("{} {problem}", column.name()))? {
                body.insert(column.name().to_owned(), self.translated(column, &text));
            }
        }
        if let Some(due_date) = self.time(row, table, TaskColumn::DueDate)? {
            body.insert(TaskColumn::DueDate.name().to_owned(), json!(due_date));
        }
        let task = Form::body(Value::Object(body)).and_then(NewTask::from_form).map_err(|Invalid(errors)| {
            let each: Vec<_> = errors.iter().map(|error| format!("{} {}", error.field, error.message)).collect();
            each.join("; ")
        })?;
        let created_at = self.time(row, table, TaskColumn::CreatedAt)?.ok_or("created_at is missing")?;
        if TaskId::all_of(created_at, 0).is_none() {
            return Err(format!("created_at is {created_at}, and ids can tell times from 2020 to 2156 alone"));
        }
        let updated_at = self.time(row, table, TaskColumn::UpdatedAt)?.unwrap_or(created_at);
        Ok(SourceTask { owner: integer(row, TaskColumn::UserId)?, task, created_at, updated_at })
    }

    fn translated(&self, column: TaskColumn, word: &str) -> Value {
        let Mapping { tasks, .. } = &self.mapping;
        let known = match column {
            TaskColumn::Status => tasks.statuses.get(word).map(|status| status.as_str()),
            TaskColumn::Priority => tasks.priorities.get(word).map(|priority| priority.as_str()),
            _ => None,
        };
        known.map_or_else(|| json!(word), |known| json!(known))
    }

    fn time<C: Column>(&self, row: &Row<'_>, table: &str, column: C) -> Result<Option<Timestamp>, String> {
        let unit = self.units.get(&unit_key(table, column)).copied().unwrap_or(Unit::Seconds);
        times::read(value(row, column.into()), unit).map_err(|problem| format!("{} {problem}", column.name()))
    }

    /// For each column of times that has numbers in it.
    fn find_units(&mut self) -> Result<(), ImportError> {
        let Mapping { users, tasks, times } = &self.mapping;
        let users =
            [UserColumn::CreatedAt].map(|column| (&users.table, &self.select_users, column.name(), column as usize));
        let tasks = [TaskColumn::CreatedAt, TaskColumn::UpdatedAt, TaskColumn::DueDate]
            .map(|column| (&tasks.table, &self.select_tasks, column.name(), column as usize));
        for (table, select, name, index) in users.into_iter().chain(tasks) {
            let mut statement = self.connection.prepare(select)?;
            let mut rows = statement.query((i64::MIN, i64::MAX))?;
            let mut greatest = None;
            while let Some(row) = rows.next()? {
                #[expect(clippy::cast_precision_loss, reason = "only its size is looked at")]
                let number = match value(row, index) {
                    ValueRef::Integer(number) => (number as f64).abs(),
                    ValueRef::Real(number) => number.abs(),
                    _ => continue,
                };
                greatest = Some(number.max(greatest.unwrap_or(0.0)));
            }
            if let Some(greatest) = greatest {
                self.units.insert(format!("{table}.{name}"), times.unwrap_or(Unit::of_numbers_up_to(greatest)));
            }
        }
        Ok(())
    }
}

fn unit_key(table: &str, column: impl Column) -> String {
    format!("{table}.{}", column.name())
}

/// Reads all columns of a table, and the rows' numbers first; NULL for the columns that the source does without.
fn select<C: Column>(connection: &Connection, table: &str, names: &BTreeMap<C, String>) -> Result<String, ImportError> {
    let mut statement = connection.prepare("SELECT name FROM pragma_table_info(?1)")?;
    let there: BTreeSet<String> = statement.query_map([table], |row| row.get(0))?.collect::<Result<_, _>>()?;
    if there.is_empty() {
        return Err(ImportError::NoTable { table: table.to_owned() });
    }
    let expressions = C::ALL.iter().map(|column| {
        let given = names.get(column).map(String::as_str);
        let name = given.unwrap_or(column.name());
        match there.contains(name) {
            true => Ok(quoted(name)),
            false if column.optional() && given.is_none() => Ok("NULL".to_owned()),
            false => {
                Err(ImportError::NoColumn { table: table.to_owned(), column: name.to_owned(), holds: column.name() })
            }
        }
    });
    let expressions = expressions.collect::<Result<Vec<_>, _>>()?.join(", ");
    Ok(format!("SELECT rowid, {expressions} FROM {} WHERE rowid > ?1 ORDER BY rowid LIMIT ?2", quoted(table)))
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// The column after the row's number.
fn value<'r>(row: &'r Row<'_>, column: usize) -> ValueRef<'r> {
    row.get_ref(1 + column).unwrap_or(ValueRef::Null)
}

fn text(row: &Row<'_>, column: impl Column) -> Result<Option<String>, String> {
    match value(row, column.into()) {
        ValueRef::Null => Ok(None),
        ValueRef::Integer(number) => Ok(Some(number.to_string())),
        ValueRef::Real(number) => Ok(Some(number.to_string())),
        ValueRef::Text(text) => String::from_utf8(text.to_vec()).map(Some).map_err(|_| "is not UTF-8".to_owned()),
        ValueRef::Blob(_) => Err("is a blob, not text".to_owned()),
    }
}

fn integer<C: Column>(row: &Row<'_>, column: C) -> Result<i64, String> {
    value(row, column.into()).as_i64().map_err(|_| format!("{} is no whole number", column.name()))
}
