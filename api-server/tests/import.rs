//! `task-api import-sqlite`, run as a process, killed, and started again.

#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that can not go on says so")]

mod common;

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Stdio,
};

use common::{Services, unique};
use jiff::Timestamp;
use rusqlite::{Connection, params};
use serde_json::Value;
use task_api_domain::{
    id::TaskId,
    task::{Filter, NewTask, Priority, Status, TaskPatch},
};
use task_api_store::{
    ListRequest, Operation, Outcome, PostgresOptions, ShardConfig, SqliteConfig, Store, Synchronous, Writes,
};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::Command,
};

const HASH: &str = "$argon2id$v=19$m=19456,t=2,p=1$bm9ib2R5IGF0IGFsbCEhIQ$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

/// A directory of a test's own, which goes when it ends.
struct Directory(PathBuf);

impl Directory {
    fn new() -> Self {
        let path = std::env::temp_dir().join(unique("import"));
        fs::create_dir(&path).unwrap();
        Self(path)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn import(source: &Path, target: &str, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_task-api"));
    command.arg("import-sqlite").arg(source).args(["--output", "json"]).args(args);
    command.env("DATABASE_URL", target).env("LOG_FORMAT", "json");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    command
}

/// Whether it succeeded, and its report.
async fn run(source: &Path, target: &str, args: &[&str]) -> (bool, Value) {
    let output = import(source, target, args).output().await.unwrap();
    let report = serde_json::from_slice(&output.stdout);
    let report = report.unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stderr)));
    (output.status.success(), report)
}

/// Kills an import with SIGKILL after it has said so many lines; false if it came to its end before.
async fn kill_after(lines: u8, source: &Path, target: &str, args: &[&str]) -> bool {
    let mut child = import(source, target, args).spawn().unwrap();
    let mut said = BufReader::new(child.stderr.take().unwrap()).lines();
    for _ in 0..lines {
        if said.next_line().await.unwrap().is_none() {
            return false;
        }
    }
    child.kill().await.unwrap();
    true
}

/// A file with this program's schema, as much of it as an import reads.
fn own_source(file: &Path, users: i64, tasks: i64) {
    let connection = Connection::open(file).unwrap();
    connection
        .execute_batch(
            "CREATE TABLE users (id INTEGER PRIMARY KEY, email TEXT, name TEXT, password_hash TEXT, created_at INTEGER);
             CREATE TABLE tasks (id INTEGER PRIMARY KEY, user_id INTEGER, title TEXT, description TEXT, status TEXT,
                 priority TEXT, created_at INTEGER, updated_at INTEGER, due_date INTEGER);
             BEGIN",
        )
        .unwrap();
    let domain = unique("import");
    let begin: Timestamp = "2023-11-01T00:00:00.000007Z".parse().unwrap();
    for id in 1..=users {
        let sql = "INSERT INTO users VALUES (?1, ?2, ?3, ?4, ?5)";
        let name = (id % 2 == 0).then(|| format!("User {id}"));
        let email = format!("User{id}@{domain}.example");
        connection.execute(sql, params![id, email, name, HASH, begin.as_microsecond()]).unwrap();
    }
    for id in 1..=tasks {
        let sql = "INSERT INTO tasks VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)";
        let status = ["pending", "in_progress", "completed"][usize::try_from(id % 3).unwrap()];
        let priority = ["low", "medium", "high", "urgent"][usize::try_from(id % 4).unwrap()];
        // Several in a second, and several months.
        let created_at = begin.as_microsecond() + id / 3 * 3_000_000_000;
        let description = (id % 5 > 0).then(|| format!("what {id} is about"));
        let due_date = (id % 7 == 0).then_some(created_at + 1);
        let title = format!("Aufgabe № {id}");
        let row = params![
            id * 2,
            id % users + 1,
            title,
            description,
            status,
            priority,
            created_at,
            created_at + id,
            due_date
        ];
        connection.execute(sql, row).unwrap();
    }
    connection.execute_batch("COMMIT").unwrap();
}

type Row = (String, String, Option<String>, String, String, i64, i64, Option<i64>);

/// All tasks with their owners' e-mails.
fn rows(file: &Path) -> Vec<Row> {
    let connection = Connection::open(file).unwrap();
    let sql = "SELECT email, title, description, status, priority, t.created_at, updated_at, due_date
        FROM tasks AS t JOIN users AS u ON u.id = t.user_id ORDER BY email, title";
    let mut statement = connection.prepare(sql).unwrap();
    let row = |row: &rusqlite::Row<'_>| {
        let (email, title, description) = (row.get(0)?, row.get(1)?, row.get(2)?);
        Ok((email, title, description, row.get(3)?, row.get(4)?, row.get(5)?, row.get(6)?, row.get(7)?))
    };
    statement.query_map([], row).unwrap().collect::<Result<_, _>>().unwrap()
}

/// E-mail, title, and the times of a task: when it was made, and when it is due.
type Times = (String, String, String, Option<String>);

fn times(tasks: &[(&str, &str, &str, Option<&str>)]) -> Vec<Times> {
    let owned = |(email, title, created_at, due_date): &(&str, &str, &str, Option<&str>)| {
        ((*email).to_owned(), (*title).to_owned(), (*created_at).to_owned(), due_date.map(str::to_owned))
    };
    tasks.iter().map(owned).collect()
}

fn times_in_file(file: &Path) -> Vec<Times> {
    let time = |micros| Timestamp::from_microsecond(micros).unwrap().to_string();
    let times =
        |(email, title, _, _, _, created_at, _, due_date): Row| (email, title, time(created_at), due_date.map(time));
    rows(file).into_iter().map(times).collect()
}

async fn times_in_postgres(services: &Services) -> Vec<Times> {
    let sql = "SELECT email, title, t.created_at, due_date FROM tasks AS t JOIN users AS u ON u.id = t.user_id";
    let rows = services.admin_here().await.query(sql, &[]).await.unwrap();
    let times = |row: &tokio_postgres::Row| {
        let due_date: Option<Timestamp> = row.get(3);
        (row.get(0), row.get(1), row.get::<_, Timestamp>(2).to_string(), due_date.map(|at| at.to_string()))
    };
    let mut all: Vec<Times> = rows.iter().map(times).collect();
    all.sort();
    all
}

/// A file that somebody has, and what has to be said of it.
struct Case {
    directory: Directory,
    source: PathBuf,
    mapping: Option<PathBuf>,
}

impl Case {
    fn new(sql: &str, mapping: Option<&str>) -> Self {
        let directory = Directory::new();
        let source = directory.file("source.db");
        Connection::open(&source).unwrap().execute_batch(sql).unwrap();
        let mapping = mapping.map(|mapping| {
            let file = directory.file("mapping.toml");
            fs::write(&file, mapping).unwrap();
            file
        });
        Self { directory, source, mapping }
    }

    fn target(&self) -> PathBuf {
        self.directory.file("target.db")
    }

    fn args(&self) -> Vec<&str> {
        self.mapping.iter().flat_map(|file| ["--mapping", file.to_str().unwrap()]).collect()
    }

    /// Imports it, and once more, which changes nothing; returns the report.
    async fn import_to(&self, target: &str) -> Value {
        let (success, report) = run(&self.source, target, &self.args()).await;
        assert!(success, "{report}");
        let (success, again) = run(&self.source, target, &self.args()).await;
        assert!(success, "{again}");
        assert_eq!(report["comparison"], again["comparison"]);
        report
    }

    /// Imports it into SQLite and, where there is one, into a PostgreSQL, which is returned.
    async fn import(&self, test: &str, expected: &[(&str, &str, &str, Option<&str>)]) -> (Value, Option<Services>) {
        let report = self.import_to(self.target().to_str().unwrap()).await;
        assert_eq!(times_in_file(&self.target()), times(expected));
        let Some(services) = Services::find(test) else { return (report, None) };
        let services = services.with_database("import").await;
        self.import_to(&services.primary).await;
        assert_eq!(times_in_postgres(&services).await, times(expected));
        (report, Some(services))
    }

    /// Why it can't be imported.
    async fn refusal(&self) -> String {
        let output = import(&self.source, self.target().to_str().unwrap(), &self.args()).output().await.unwrap();
        assert!(!output.status.success());
        assert!(!self.target().exists(), "nothing was written");
        String::from_utf8(output.stderr).unwrap()
    }
}

/// Kills imports until one comes to its end, and returns the report of another one after it.
async fn import_in_spite_of_kills(source: &Path, target: &str) -> Value {
    let mut random = [0; 6];
    getrandom::fill(&mut random).unwrap();
    let mut kills = 0;
    for byte in random {
        kills += i32::from(kill_after(byte % 90, source, target, &["--batch", "50"]).await);
    }
    assert!(kills > 0, "{random:?}");
    let (_, report) = run(source, target, &["--batch", "70"]).await;
    assert_eq!(report["comparison"]["in_file"], report["comparison"]["in_database"], "{random:?}: {report}");
    let (success, again) = run(source, target, &[]).await;
    assert!(success, "{again}");
    assert_eq!(report["comparison"], again["comparison"], "once more changes nothing");
    report
}

#[tokio::test]
async fn nothing_is_lost_or_doubled_when_it_is_killed() {
    let directory = Directory::new();
    let (source, target) = (directory.file("source.db"), directory.file("target.db"));
    own_source(&source, 40, 5000);
    let report = import_in_spite_of_kills(&source, target.to_str().unwrap()).await;
    assert_eq!((&report["accounts"], &report["tasks"]), (&40.into(), &5000.into()));
    assert_eq!(report["comparison"]["in_database"]["tasks"], 5000);
    assert_eq!(report["comparison"]["users_that_differ"], Value::Array(vec![]));
    assert_eq!(rows(&source), rows(&target));
}

#[tokio::test]
async fn nor_on_two_shards_of_postgres() {
    let Some(services) = Services::find("nor_on_two_shards_of_postgres") else { return };
    let (first, second) = (services.clone().with_database("import").await, services.with_database("import").await);
    let directory = Directory::new();
    let source = directory.file("source.db");
    own_source(&source, 40, 5000);
    let report = import_in_spite_of_kills(&source, &format!("{},{}", first.primary, second.primary)).await;
    assert_eq!((&report["accounts"], &report["tasks"]), (&40.into(), &5000.into()));
    assert_eq!(report["comparison"]["users_that_differ"], Value::Array(vec![]));
    let mut all = 0;
    for shard in [first, second] {
        let count = "SELECT count(*), count(*) FILTER (WHERE tableoid = 'tasks_default'::regclass) FROM tasks";
        let row = shard.admin_here().await.query_one(count, &[]).await.unwrap();
        let (tasks, without_month): (i64, i64) = (row.get(0), row.get(1));
        assert!(tasks > 0 && without_month == 0, "{tasks} tasks, {without_month} of them in no month's partition");
        all += tasks;
    }
    assert_eq!(all, 5000);
}

#[tokio::test]
async fn another_schema_needs_a_mapping() {
    let directory = Directory::new();
    let (source, target, mapping) =
        (directory.file("todo.db"), directory.file("target.db"), directory.file("map.toml"));
    Connection::open(&source)
        .unwrap()
        .execute_batch(
            "CREATE TABLE \"the people\" (uid INTEGER PRIMARY KEY, mail TEXT, pw TEXT, since TEXT);
             CREATE TABLE todos (id TEXT PRIMARY KEY, owner INTEGER, what TEXT, state INTEGER, added INTEGER, due REAL);
             INSERT INTO \"the people\" VALUES (7, 'Ann@Example.com', '$2b$12$not.argon2', '2021-02-03 04:05:06');
             INSERT INTO todos VALUES ('a', 7, 'first', 0, 1700000000123, NULL);
             INSERT INTO todos VALUES ('b', 7, 'second', 2, 1700000000124, 1700000001500.5);",
        )
        .unwrap();
    let columns = "[users]\ntable = 'the people'\ncolumns = {id = 'uid', email = 'mail', password_hash = 'pw', created_at = 'since'}
        [tasks]\ntable = 'todos'\ncolumns = {user_id = 'owner', title = 'what', status = 'state', created_at = 'added', due_date = 'due'}
        statuses = {0 = 'pending', 2 = 'completed'}";
    fs::write(&mapping, columns).unwrap();
    let (target, mapping) = (target.to_str().unwrap(), mapping.to_str().unwrap());

    let output = import(&source, target, &[]).output().await.unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success() && said.contains("no table") && said.contains("--mapping"), "{said}");

    let (success, report) = run(&source, target, &["--mapping", mapping]).await;
    assert!(success, "{report}");
    assert_eq!(report["times"]["todos.created_at"], "milliseconds");
    assert_eq!(report["without_password"], Value::Array(vec![7.into()]));
    let expected = |title: &str, status: &str, at: i64, due| -> Row {
        ("Ann@Example.com".into(), title.into(), None, status.into(), "medium".into(), at, at, due)
    };
    let first = expected("first", "pending", 1_700_000_000_123_000, None);
    let second = expected("second", "completed", 1_700_000_000_124_000, Some(1_700_000_001_500_500));
    assert_eq!(rows(Path::new(target)), [first, second]);
    let since: i64 =
        Connection::open(target).unwrap().query_row("SELECT created_at FROM users", [], |row| row.get(0)).unwrap();
    assert_eq!(since, "2021-02-03T04:05:06Z".parse::<Timestamp>().unwrap().as_microsecond());
}

#[tokio::test]
async fn what_is_invalid_is_told_and_left_out_only_if_asked() {
    let directory = Directory::new();
    let (source, target) = (directory.file("source.db"), directory.file("target.db"));
    own_source(&source, 4, 20);
    Connection::open(&source)
        .unwrap()
        .execute_batch(
            "INSERT INTO users SELECT 10, upper(email), name, password_hash, created_at FROM users WHERE id = 1;
             INSERT INTO users VALUES (11, 'nobody', NULL, NULL, 0);
             UPDATE tasks SET status = 'done' WHERE id = 2;
             UPDATE tasks SET title = printf('%.300c', 'x') WHERE id = 4;
             UPDATE tasks SET user_id = 10 WHERE id = 6;
             UPDATE tasks SET created_at = 'yesterday' WHERE id = 8;
             UPDATE tasks SET created_at = 1 WHERE id = 10;",
        )
        .unwrap();
    let target_url = target.to_str().unwrap();
    let (success, report) = run(&source, target_url, &[]).await;
    assert!(!success);
    assert_eq!(report["comparison"], Value::Null);
    let invalid: Vec<_> = report["invalid"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| (one["kind"].as_str().unwrap(), one["rowid"].as_i64().unwrap()))
        .collect();
    assert_eq!(
        invalid,
        [("account", 10), ("account", 11), ("task", 2), ("task", 4), ("task", 6), ("task", 8), ("task", 10)]
    );
    let reason = |index: usize| report["invalid"][index]["reason"].as_str().unwrap();
    assert!(
        reason(0).contains("email") && reason(2).contains("status") && reason(4).contains("user_id 10"),
        "{report}"
    );
    assert!(rows(&target).is_empty(), "nothing was written");

    let (success, report) = run(&source, target_url, &["--skip-invalid"]).await;
    assert!(success, "{report}");
    assert_eq!((&report["accounts"], &report["tasks"]), (&4.into(), &15.into()));
    assert_eq!(rows(&target).len(), 15);
}

#[tokio::test]
async fn an_account_that_is_there_is_not_taken_over() {
    let directory = Directory::new();
    let (source, copy, target) = (directory.file("source.db"), directory.file("copy.db"), directory.file("target.db"));
    own_source(&source, 2, 4);
    fs::copy(&source, &copy).unwrap();
    let target_url = target.to_str().unwrap();
    assert!(run(&source, target_url, &[]).await.0);
    let (success, report) = run(&copy, target_url, &["--skip-invalid"]).await;
    assert!(success, "{report}");
    assert_eq!(report["invalid"].as_array().unwrap().len(), 6, "the accounts, and so their tasks");
    assert_eq!(rows(&target).len(), 4);

    let output = import(&source, source.to_str().unwrap(), &[]).output().await.unwrap();
    assert!(!output.status.success() && String::from_utf8(output.stderr).unwrap().contains("into itself"));
}

#[tokio::test]
async fn a_blank_before_the_offset_is_no_hindrance() {
    let sql = "CREATE TABLE `People` (`id` INTEGER PRIMARY KEY AUTOINCREMENT, `email` VARCHAR(255), `secret` TEXT, `createdAt` DATETIME);
        CREATE TABLE `Items` (`id` INTEGER PRIMARY KEY AUTOINCREMENT, `title` VARCHAR(255), `isDone` TINYINT(1), `dueAt` DATETIME,
            `createdAt` DATETIME, `updatedAt` DATETIME, `personId` INTEGER REFERENCES `People` (`id`));
        INSERT INTO `People` VALUES (3, 'eva@example.com', NULL, '2023-07-01 09:00:00.250 +00:00');
        INSERT INTO `Items` VALUES (1, 'Water plants', 0, '2023-08-01 00:00:00.000 +00:00', '2023-07-02 10:30:00.000 +02:00', '', 3);
        INSERT INTO `Items` VALUES (2, 'Pay rent', 1, '', '2023-07-03 06:00:00.001 -05:30', '2023-07-04 00:00:00.000 +00:00', 3);";
    let mapping = "[users]\ntable = 'people'\ncolumns = { password_hash = 'secret', created_at = 'CreatedAt' }
        [tasks]\ntable = 'ITEMS'
        columns = { user_id = 'personid', status = 'isDone', created_at = 'createdAt', updated_at = 'updatedAt', due_date = 'dueAt' }
        statuses = { 0 = 'pending', 1 = 'completed' }";
    let case = Case::new(sql, Some(mapping));
    let expected = [
        ("eva@example.com", "Pay rent", "2023-07-03T11:30:00.001Z", None),
        ("eva@example.com", "Water plants", "2023-07-02T08:30:00Z", Some("2023-08-01T00:00:00Z")),
    ];
    case.import("a_blank_before_the_offset_is_no_hindrance", &expected).await;
}

#[tokio::test]
async fn zones_by_name_are_passed_over_where_there_is_an_offset() {
    let sql = "CREATE TABLE users (id INTEGER PRIMARY KEY, email TEXT, created_at DATETIME);
        CREATE TABLE tasks (id INTEGER PRIMARY KEY, user_id INTEGER, title TEXT, created_at DATETIME, due_date DATETIME);
        INSERT INTO users VALUES (1, 'kim@example.com', '2023-01-02 03:04:05.678901234 +0900 JST m=+0.000123456');
        INSERT INTO tasks VALUES (1, 1, 'With a monotonic clock', '2023-01-02 12:00:00.000000999 +0900 JST m=+3.5', '2023-02-01 00:00:00 +0000 UTC');
        INSERT INTO tasks VALUES (2, 1, 'With its offset twice', '2023-01-03 04:15:00.25 +0545 +0545', NULL);
        INSERT INTO tasks VALUES (3, 1, 'Without a blank', '2023-01-04 10:00:00.987654321-07:00', 'Sun, 05 Feb 2023 00:00:00 GMT');
        INSERT INTO tasks VALUES (4, 1, 'In words', 'Thu Jan 05 2023 01:00:00 GMT+0100 (Central European Standard Time)', NULL);";
    let expected = [
        ("kim@example.com", "In words", "2023-01-05T00:00:00Z", None),
        ("kim@example.com", "With a monotonic clock", "2023-01-02T03:00:00Z", Some("2023-02-01T00:00:00Z")),
        ("kim@example.com", "With its offset twice", "2023-01-02T22:30:00.25Z", None),
        ("kim@example.com", "Without a blank", "2023-01-04T17:00:00.987654Z", Some("2023-02-05T00:00:00Z")),
    ];
    let case = Case::new(sql, None);
    case.import("zones_by_name_are_passed_over_where_there_is_an_offset", &expected).await;
}

#[tokio::test]
async fn keys_need_not_be_numbers() {
    let sql = "CREATE TABLE users (id BLOB PRIMARY KEY, email TEXT, created_at TEXT);
        CREATE TABLE tasks (id TEXT PRIMARY KEY, user_id TEXT, title TEXT, created_at TEXT);
        INSERT INTO users VALUES (x'1f0c7d2ab4e64b0f8a5d6c3e2b1a0f9e', 'ann@example.com', '2023-05-01 10:00:00'),
            ('F47AC10B-58CC-4372-A567-0E02B2C3D479', 'bob@example.com', '2023-05-01 10:00:01'),
            ('cjld2cjxh0000qzrmn831i7rn', 'cat@example.com', '2023-05-01 10:00:02'), (12, 'dan@example.com', '2023-05-01 10:00:03');
        INSERT INTO tasks VALUES ('a', '1F0C7D2A-B4E6-4B0F-8A5D-6C3E2B1A0F9E', 'As text', '2023-05-02 10:00:00'),
            ('b', x'f47ac10b58cc4372a5670e02b2c3d479', 'As bytes', '2023-05-02 11:00:00'),
            ('c', 'f47ac10b58cc4372a5670e02b2c3d479', 'Without dashes', '2023-05-02 12:00:00'),
            ('d', 'cjld2cjxh0000qzrmn831i7rn', 'Not a UUID', '2023-05-02 13:00:00'), ('e', '12', 'A number', '2023-05-02 14:00:00');";
    let expected = [
        ("ann@example.com", "As text", "2023-05-02T10:00:00Z", None),
        ("bob@example.com", "As bytes", "2023-05-02T11:00:00Z", None),
        ("bob@example.com", "Without dashes", "2023-05-02T12:00:00Z", None),
        ("cat@example.com", "Not a UUID", "2023-05-02T13:00:00Z", None),
        ("dan@example.com", "A number", "2023-05-02T14:00:00Z", None),
    ];
    let case = Case::new(sql, None);
    let (report, _) = case.import("keys_need_not_be_numbers", &expected).await;
    assert_eq!((&report["accounts"], &report["tasks"]), (&4.into(), &5.into()));
}

#[tokio::test]
async fn tasks_are_as_old_as_they_are() {
    let sql = "CREATE TABLE users (id INTEGER PRIMARY KEY, email TEXT, created_at TEXT);
        CREATE TABLE tasks (id INTEGER PRIMARY KEY, user_id INTEGER, title TEXT, created_at TEXT);
        INSERT INTO users VALUES (1, 'old@example.com', '2009-10-11 12:13:14');
        INSERT INTO tasks VALUES (1, 1, 'a day of 2012', '2012-06-30 23:59:59'), (2, 1, 'before the years of ids', '2019-12-31 23:59:59.999'),
            (3, 1, 'at their begin', '2020-01-01 00:00:00'), (4, 1, 'by default', '1970-01-01 00:00:00'),
            (5, 1, 'by default, east of Greenwich', '1969-12-31 23:00:00.500'), (6, 1, 'the same second', '2012-06-30 23:59:59');";
    let newest_first = [
        ("old@example.com", "at their begin", "2020-01-01T00:00:00Z", None),
        ("old@example.com", "before the years of ids", "2019-12-31T23:59:59.999Z", None),
        ("old@example.com", "the same second", "2012-06-30T23:59:59Z", None),
        ("old@example.com", "a day of 2012", "2012-06-30T23:59:59Z", None),
        ("old@example.com", "by default", "1970-01-01T00:00:00Z", None),
        ("old@example.com", "by default, east of Greenwich", "1969-12-31T23:00:00.5Z", None),
    ];
    let titles = newest_first.map(|(_, title, _, _)| title);
    let mut expected = newest_first;
    expected.sort_unstable();
    let case = Case::new(sql, None);
    let (report, services) = case.import("tasks_are_as_old_as_they_are", &expected).await;
    assert_eq!(report["zones"]["tasks.created_at"], "UTC", "it is told what their zone was taken for");

    let config = SqliteConfig { file: case.target(), synchronous: Synchronous::Normal };
    are_found_changed_and_deleted(&Store::sqlite(&config, Writes::default()).unwrap(), &titles).await;
    if let Some(services) = services {
        let count = "SELECT count(*) FROM tasks WHERE tableoid = 'tasks_default'::regclass";
        let without_month: i64 = services.admin_here().await.query_one(count, &[]).await.unwrap().get(0);
        assert_eq!(without_month, 0);
        let first = ShardConfig { primary: services.primary.parse().unwrap(), replicas: None };
        let options = PostgresOptions { first, others: Vec::new(), retention: None };
        are_found_changed_and_deleted(&Store::postgres(&options, Writes::default()), &titles).await;
    }
}

/// Each by its id.
async fn are_found_changed_and_deleted(store: &Store, newest_first: &[&str]) {
    store.prepare().await.unwrap();
    let (user, _) = store.credentials("old@example.com").await.unwrap().unwrap();
    let all = ListRequest { filter: Filter::default(), after: None, limit: 100 };
    let tasks = store.list_tasks(user.id, &all, None).await.unwrap().tasks;
    let titles: Vec<_> = tasks.iter().map(|task| task.title.as_str()).collect();
    assert_eq!(titles, newest_first);

    let (status, priority) = (Status::Pending, Priority::Medium);
    let new = NewTask { title: "new".to_owned(), description: None, status, priority, due_date: None };
    let made = store.apply(user.id, vec![Operation::Create(new)], None).await.unwrap().value;
    let [Outcome::Created(made)] = made.as_slice() else { panic!("{made:?}") };
    assert!(made.id < TaskId::PAST, "{} is an id of the past", made.id);

    for task in &tasks {
        let id = TaskId::new(task.id).unwrap();
        assert_eq!(store.task(user.id, id, None).await.unwrap().as_ref(), Some(task));
        let patch = TaskPatch { title: Some("changed".to_owned()), ..TaskPatch::default() };
        let change = Operation::Update { id, patch, expected: Some(task.version) };
        let changed = store.apply(user.id, vec![change], None).await.unwrap().value;
        let [Outcome::Updated(changed)] = changed.as_slice() else { panic!("{task:?}: {changed:?}") };
        assert_eq!((changed.title.as_str(), changed.created_at), ("changed", task.created_at));
        let delete = Operation::Delete { id, expected: None };
        let deleted = store.apply(user.id, vec![delete], None).await.unwrap().value;
        assert!(matches!(deleted.as_slice(), [Outcome::Deleted(gone)] if *gone == id), "{task:?}: {deleted:?}");
    }
    let left = store.list_tasks(user.id, &all, None).await.unwrap().tasks;
    assert_eq!(left.iter().map(|task| task.title.as_str()).collect::<Vec<_>>(), ["new"]);
}

#[tokio::test]
async fn what_can_be_read_in_two_ways_is_asked_for() {
    let sql = "CREATE TABLE users (id INTEGER PRIMARY KEY, email TEXT, created_at REAL);
        CREATE TABLE tasks (id INTEGER PRIMARY KEY, user_id INTEGER, title TEXT, created_at TEXT, updated_at INTEGER, due_date NUMERIC);
        INSERT INTO users VALUES (1, 'zoe@example.com', 2460000.5);
        INSERT INTO tasks VALUES (1, 1, 'Which clock', '2023-07-02T10:30:00', 710000000, '31.12.2023 20:00');
        INSERT INTO tasks VALUES (2, 1, 'Which name', '2023-12-02 10:30:00.5 CET', 710000001, '');";
    let said = Case::new(sql, None).refusal().await;
    for asked in
        ["tasks.created_at", "[tasks] zones = { created_at = ", "tasks.updated_at", "apple_seconds", "--mapping"]
    {
        assert!(said.contains(asked), "{asked}: {said}");
    }
    assert!(!said.contains("users.created_at"), "nothing but Julian days are so many: {said}");

    let mapping = "zone = 'CET-1CEST,M3.5.0,M10.5.0/3'
        [tasks]\ntimes = { updated_at = 'apple_seconds', due_date = '%d.%m.%Y %H:%M' }\nzones = { due_date = 'UTC' }";
    let case = Case::new(sql, Some(mapping));
    let expected = [
        ("zoe@example.com", "Which clock", "2023-07-02T08:30:00Z", Some("2023-12-31T20:00:00Z")),
        ("zoe@example.com", "Which name", "2023-12-02T09:30:00.5Z", None),
    ];
    let (report, _) = case.import("what_can_be_read_in_two_ways_is_asked_for", &expected).await;
    assert_eq!(report["times"]["tasks.updated_at"], "apple_seconds");
    assert_eq!(report["times"]["users.created_at"], "julian_days");
    let target = Connection::open(case.target()).unwrap();
    let micros = |sql: &str| target.query_row(sql, [], |row| row.get::<_, i64>(0)).unwrap();
    let expected = |at: &str| at.parse::<Timestamp>().unwrap().as_microsecond();
    assert_eq!(micros("SELECT created_at FROM users"), expected("2023-02-25T00:00:00Z"));
    assert_eq!(micros("SELECT max(updated_at) FROM tasks"), expected("2023-07-02T14:13:21Z"));
}

#[tokio::test]
async fn names_have_no_case_and_columns_may_be_generated() {
    let sql = "CREATE TABLE USERS (ID INTEGER PRIMARY KEY, raw TEXT, EMail TEXT AS (trim(raw)) VIRTUAL, Created_At TEXT);
        CREATE TABLE Tasks (rowid TEXT, USER_ID INTEGER, raw TEXT, Title TEXT AS (trim(raw)) STORED, day TEXT,
            CREATED_AT TEXT AS (day || ' 08:00:00') VIRTUAL);
        INSERT INTO users (ID, raw, created_at) VALUES (5, ' ida@example.com ', '2023-01-01');
        INSERT INTO tasks (rowid, user_id, raw, day) VALUES ('x', 5, ' First ', '2023-01-02'), ('x', 5, ' Second ', '2023-01-03');";
    let expected = [
        ("ida@example.com", "First", "2023-01-02T08:00:00Z", None),
        ("ida@example.com", "Second", "2023-01-03T08:00:00Z", None),
    ];
    Case::new(sql, None).import("names_have_no_case_and_columns_may_be_generated", &expected).await;
}

#[tokio::test]
async fn rows_without_numbers_are_refused_with_the_way_out() {
    let users = "CREATE TABLE users (id TEXT PRIMARY KEY, email TEXT, created_at TEXT)";
    for tasks in [
        "CREATE TABLE tasks (id TEXT PRIMARY KEY, user_id TEXT, title TEXT, created_at TEXT) WITHOUT ROWID",
        "CREATE VIEW tasks AS SELECT id, id AS user_id, email AS title, created_at FROM users",
    ] {
        let said = Case::new(&format!("{users}; {tasks}"), None).refusal().await;
        assert!(said.contains("tasks") && said.contains("CREATE TABLE … AS SELECT"), "{said}");
    }
}

#[tokio::test]
async fn what_was_last_written_is_read_wherever_the_file_is() {
    let directory = Directory::new();
    let (source, target) = (directory.file("source.db"), directory.file("target.db"));
    own_source(&source, 2, 4);
    let writer = Connection::open(&source).unwrap();
    writer.pragma_update(None, "journal_mode", "WAL").unwrap();
    writer.execute("DELETE FROM tasks WHERE id = 2", []).unwrap();

    // Where nothing can be made beside it, as on storage that is only read.
    let read_only = |name: &str| {
        let copy = directory.file(name);
        fs::copy(&source, &copy).unwrap();
        symlink("/nowhere/at/all", directory.file(&format!("{name}-shm"))).unwrap();
        copy
    };
    let halved = read_only("halved.db");
    fs::copy(directory.file("source.db-wal"), directory.file("halved.db-wal")).unwrap();
    let output = import(&halved, target.to_str().unwrap(), &[]).output().await.unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success() && said.contains("halved.db-wal") && said.contains("copy both"), "{said}");
    assert!(!target.exists());

    fs::remove_file(directory.file("halved.db-shm")).unwrap();
    let (success, report) = run(&halved, target.to_str().unwrap(), &[]).await;
    assert!(success && report["tasks"] == 3, "{report}");

    drop(writer);
    let whole = read_only("all of #1, isn't it? 100%.db");
    let (success, report) = run(&whole, directory.file("other.db").to_str().unwrap(), &[]).await;
    assert!(success && report["tasks"] == 3, "{report}");
}
