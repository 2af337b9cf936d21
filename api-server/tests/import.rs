//! `task-api import-sqlite`, run as a process, killed, and started again.

#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that can not go on says so")]

mod common;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Stdio,
};

use common::{Services, unique};
use jiff::Timestamp;
use rusqlite::{Connection, params};
use serde_json::Value;
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
