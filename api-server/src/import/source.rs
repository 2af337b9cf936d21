//! The file that is read: one snapshot of it, row by row.

use std::{
    collections::{BTreeMap, HashMap},
    path::Path,
};

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension, Row, types::ValueRef};
use serde_json::{Map, Value, json};
use task_api_domain::{
    id::TaskId,
    task::NewTask,
    user::{Email, MAX_NAME},
    validation::{self, Form, Invalid},
};

use super::{
    ImportError, file,
    key::Key,
    mapping::{Column, Mapping, TaskColumn, UserColumn},
    times::{Judge, Name, Spelling, Way, Zone},
};

/// What a column is that the source does without.
const NULL: &str = "NULL";

/// A row, or what is wrong with it.
pub(super) struct Read<T> {
    pub(super) rowid: i64,
    pub(super) content: Result<T, String>,
}

/// An account of the source.
pub(super) struct Account {
    pub(super) key: Key,
    /// What the database knows it by: its key or, where not all keys are whole numbers, its row.
    pub(super) id: i64,
    pub(super) email: Email,
    pub(super) name: Option<String>,
    pub(super) password_hash: Option<String>,
    pub(super) created_at: Timestamp,
}

/// A task of the source.
pub(super) struct SourceTask {
    pub(super) owner: Key,
    pub(super) task: NewTask,
    pub(super) created_at: Timestamp,
    pub(super) updated_at: Timestamp,
}

/// See the module.
pub(super) struct Source {
    /// Where the file is: what an import is known by when it goes on.
    pub(super) name: String,
    connection: Connection,
    mapping: Mapping,
    users: Table<UserColumn>,
    tasks: Table<TaskColumn>,
    /// Whether all keys of accounts are whole numbers.
    is_numbered: bool,
}

impl Source {
    pub(super) fn open(path: &Path, mapping: Mapping) -> Result<Self, ImportError> {
        let fail = |cause: String| ImportError::Open { file: path.to_owned(), cause };
        let path = path.canonicalize().map_err(|error| fail(error.to_string()))?;
        let connection = file::open(&path)?;
        let (of_users, of_tasks) = (&mapping.users, &mapping.tasks);
        let mut users = Table::find(&connection, &of_users.table, &of_users.columns)?;
        let mut tasks = Table::find(&connection, &of_tasks.table, &of_tasks.columns)?;
        let mut questions = users.judge(&connection, "users", &of_users.times, &of_users.zones)?;
        questions.extend(tasks.judge(&connection, "tasks", &of_tasks.times, &of_tasks.zones)?);
        if !questions.is_empty() {
            return Err(ImportError::Times(questions));
        }
        let is_numbered = users.holds_whole_numbers(&connection, UserColumn::Id)?;
        Ok(Self { name: path.display().to_string(), connection, mapping, users, tasks, is_numbered })
    }

    /// What the numbers in columns of times count, by `table.column`.
    pub(super) fn units(&self) -> BTreeMap<String, String> {
        self.of_times(|way| way.unit().map(|unit| unit.to_string()))
    }

    /// The zones that text in columns of times is taken to be of where it does not say its own, by `table.column`.
    pub(super) fn zones(&self) -> BTreeMap<String, String> {
        self.of_times(Way::zone_of_silent)
    }

    fn of_times(&self, what: impl Fn(&Way) -> Option<String>) -> BTreeMap<String, String> {
        let all = self.users.named_ways().chain(self.tasks.named_ways());
        all.filter_map(|(name, way)| Some((name, what(way)?))).collect()
    }

    /// How many accounts and how many tasks there are.
    pub(super) fn counts(&self) -> Result<(u64, u64), ImportError> {
        let count = |table: &str| -> rusqlite::Result<u64> {
            let sql = format!("SELECT count(*) FROM {}", quoted(table));
            self.connection.query_row(&sql, [], |row| row.get::<_, u32>(0)).map(u64::from)
        };
        Ok((count(&self.users.name)?, count(&self.tasks.name)?))
    }

    /// Whether it is this file, whose path is canonical.
    pub(super) fn is_at(&self, file: &Path) -> bool {
        Path::new(&self.name) == file
    }

    /// How many rows of tasks there are up to this one.
    pub(super) fn tasks_up_to(&self, up_to: i64) -> Result<usize, ImportError> {
        let Table { name, rowid, .. } = &self.tasks;
        let sql = format!("SELECT count(*) FROM {} WHERE {rowid} <= ?1", quoted(name));
        Ok(self.connection.query_row(&sql, [up_to], |row| row.get::<_, u32>(0)).map(|count| count as usize)?)
    }

    /// The accounts after a row, in the order of their rows.
    pub(super) fn accounts(&self, after: i64, limit: u32) -> Result<Vec<Read<Account>>, ImportError> {
        self.rows(&self.users.select(), after, limit, |row| self.account(row))
    }

    /// The tasks after a row, in the order of their rows.
    pub(super) fn tasks(&self, after: i64, limit: u32) -> Result<Vec<Read<SourceTask>>, ImportError> {
        self.rows(&self.tasks.select(), after, limit, |row| self.task(row))
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
        let key = key(row, UserColumn::Id)?;
        let id = match key {
            Key::Number(number) if self.is_numbered => number,
            _ => row.get(0).map_err(|error| error.to_string())?,
        };
        Ok(Account {
            key,
            id,
            email: Email::rule(json!(email)).map_err(|problem| named(UserColumn::Email, problem))?,
            name: name.transpose().map_err(|problem| named(UserColumn::Name, problem))?,
            password_hash: hash.map_err(|problem| named(UserColumn::PasswordHash, problem))?,
            created_at: self.users.time(row, UserColumn::CreatedAt)?.ok_or("created_at is missing")?,
        })
    }

    /// It goes through the same rules as a task that a client sends.
    fn task(&self, row: &Row<'_>) -> Result<SourceTask, String> {
        let mut body = Map::new();
        for column in [TaskColumn::Title, TaskColumn::Description, TaskColumn::Status, TaskColumn::Priority] {
            if let Some(text) = text(row, column).map_err(|problem| format!("{} {problem}", column.name()))? {
                body.insert(column.name().to_owned(), self.translated(column, &text));
            }
        }
        if let Some(due_date) = self.tasks.time(row, TaskColumn::DueDate)? {
            body.insert(TaskColumn::DueDate.name().to_owned(), json!(due_date));
        }
        let task = Form::body(Value::Object(body)).and_then(NewTask::from_form).map_err(|Invalid(errors)| {
            let each: Vec<_> = errors.iter().map(|error| format!("{} {}", error.field, error.message)).collect();
            each.join("; ")
        })?;
        let created_at = self.tasks.time(row, TaskColumn::CreatedAt)?.ok_or("created_at is missing")?;
        if TaskId::all_of(created_at, 0).is_none() {
            return Err(format!("created_at is {created_at}, and ids can tell times from 1952 to 2087 alone"));
        }
        let updated_at = self.tasks.time(row, TaskColumn::UpdatedAt)?.unwrap_or(created_at);
        Ok(SourceTask { owner: key(row, TaskColumn::UserId)?, task, created_at, updated_at })
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
}

/// A table of the source.
struct Table<C> {
    name: String,
    /// What its row numbers are called.
    rowid: &'static str,
    /// What stands for its columns in statements, in their order.
    expressions: Vec<String>,
    /// How its times are read.
    ways: BTreeMap<C, Way>,
}

impl<C: Column> Table<C> {
    fn find(connection: &Connection, table: &str, names: &BTreeMap<C, String>) -> Result<Self, ImportError> {
        let no_table = || ImportError::NoTable { table: table.to_owned() };
        let no_rows = |what| ImportError::NoRowNumbers { table: table.to_owned(), what };
        let sql = "SELECT type, wr FROM pragma_table_list(?1) WHERE schema = 'main'";
        let read = |row: &Row<'_>| Ok((row.get(0)?, row.get(1)?));
        let (kind, without_rowid): (String, bool) =
            connection.query_row(sql, [table], read).optional()?.ok_or_else(no_table)?;
        if kind == "view" {
            return Err(no_rows("is a view"));
        }
        if without_rowid {
            return Err(no_rows("was made WITHOUT ROWID"));
        }
        let there = columns(connection, table)?;
        // A column of that name hides them.
        let rowid = ["rowid", "_rowid_", "oid"].into_iter().find(|name| !there.contains_key(*name));
        let rowid = rowid.ok_or_else(|| no_rows("has other columns of all their names"))?;
        let expression = |column: &C| {
            let given = names.get(column).map(String::as_str);
            let name = given.unwrap_or(column.name());
            match there.get(&name.to_ascii_lowercase()) {
                Some(name) => Ok(quoted(name)),
                None if column.optional() && given.is_none() => Ok(NULL.to_owned()),
                None => Err(ImportError::NoColumn {
                    table: table.to_owned(),
                    column: name.to_owned(),
                    holds: column.name(),
                }),
            }
        };
        let expressions = C::ALL.iter().map(expression).collect::<Result<_, _>>()?;
        Ok(Self { name: table.to_owned(), rowid, expressions, ways: BTreeMap::new() })
    }

    /// Reads all columns, and the rows' numbers first.
    fn select(&self) -> String {
        let Self { name, rowid, expressions, .. } = self;
        let (name, expressions) = (quoted(name), expressions.join(", "));
        format!("SELECT {rowid}, {expressions} FROM {name} WHERE {rowid} > ?1 ORDER BY {rowid} LIMIT ?2")
    }

    /// Finds out how times are read, and returns what has to be asked for that.
    fn judge(
        &mut self,
        connection: &Connection,
        section: &'static str,
        times: &BTreeMap<C, Spelling>,
        zones: &BTreeMap<C, Zone>,
    ) -> Result<Vec<String>, ImportError> {
        let mut questions = Vec::new();
        for column in C::TIMES.iter().copied() {
            if self.expression(column) == NULL {
                continue;
            }
            let (said, mut judge) = ((times.get(&column), zones.get(&column)), Judge::default());
            let sql = format!("SELECT {} FROM {}", self.expression(column), quoted(&self.name));
            let mut statement = connection.prepare(&sql)?;
            let mut rows = statement.query([])?;
            while let Some(row) = rows.next()? {
                judge.see(row.get_ref(0)?, said.0);
            }
            let name = Name { section, table: &self.name, column: column.name() };
            let way = judge.way(name, said, &mut questions);
            self.ways.insert(column, way);
        }
        Ok(questions)
    }

    fn holds_whole_numbers(&self, connection: &Connection, column: C) -> rusqlite::Result<bool> {
        let (expression, name) = (self.expression(column), quoted(&self.name));
        let sql = format!("SELECT NOT EXISTS (SELECT 1 FROM {name} WHERE typeof({expression}) <> 'integer')");
        connection.query_row(&sql, [], |row| row.get(0))
    }

    fn expression(&self, column: C) -> &str {
        let place: usize = column.into();
        self.expressions.get(place).map_or(NULL, String::as_str)
    }

    fn named_ways(&self) -> impl Iterator<Item = (String, &Way)> {
        self.ways.iter().map(move |(column, way)| (format!("{}.{}", self.name, column.name()), way))
    }

    /// A time, where there is one.
    fn time(&self, row: &Row<'_>, column: C) -> Result<Option<Timestamp>, String> {
        let Some(way) = self.ways.get(&column) else { return Ok(None) };
        way.read(value(row, column.into())).map_err(|problem| format!("{} {problem}", column.name()))
    }
}

/// The columns of a table by their names without case, as SQLite compares names: in ASCII alone. Those that are generated are among them.
fn columns(connection: &Connection, table: &str) -> rusqlite::Result<HashMap<String, String>> {
    let mut statement = connection.prepare("SELECT name FROM pragma_table_xinfo(?1)")?;
    let names = statement.query_map([table], |row| row.get::<_, String>(0))?;
    names.map(|name| name.map(|name| (name.to_ascii_lowercase(), name))).collect()
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

fn key(row: &Row<'_>, column: impl Column) -> Result<Key, String> {
    Key::read(value(row, column.into())).map_err(|problem| format!("{} {problem}", column.name()))
}
