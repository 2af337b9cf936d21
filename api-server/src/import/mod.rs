//! `task-api import-sqlite`: brings the accounts and tasks of a SQLite file into the store that the configuration names.
//!
//! 1. The whole file is read and checked, and nothing is written if anything is wrong with it: see [`survey`]. What can be read in two ways is asked
//!    for, and not read in one of them: see [`times`].
//! 2. Accounts are made, each in the shard that its e-mail belongs to, with new ids; which one became which is kept there.
//! 3. Tasks follow in the order of their rows, in batches, with new ids of the second in which they were made.
//! 4. What is in the store is read back and compared with the file, user by user.
//!
//! A batch and the word that it is there are one transaction (see [`Store::import_tasks`]). So whoever ends an import, at whatever moment,
//! starts it again and loses and doubles nothing. The file is known by its path: it must stay where it is until the import is through.

mod digest;
mod file;
mod key;
mod mapping;
mod progress;
mod report;
mod source;
mod survey;
mod times;

use std::{
    collections::{BTreeMap, HashMap},
    fs,
    io::{self, Write},
    path::PathBuf,
};

use clap::ValueEnum;
use futures::{StreamExt, TryStreamExt, stream};
use task_api_domain::{mark::Mark, task::NewTask};
use task_api_store::{Bound, DatabaseConfig, ImportedAccount, ImportedTask, Store, StoreError, Writes};
use thiserror::Error;

use crate::auth::password::NOBODY;
use digest::Digest;
use key::Key;
use mapping::Mapping;
use progress::Progress;
use report::{Comparison, Report};
use source::{Account, Source, SourceTask};
use survey::{Known, Survey};

/// How many users' tasks are read back at once.
const AT_ONCE: usize = 16;

/// No user has more tasks, since a task is more than a byte.
const ALL: Bound = Bound { tasks: u32::MAX as usize, bytes: u32::MAX as usize };

const MAPPING: &str = "\
A mapping is a TOML file. It names what is called otherwise than in this program's
own files, and says what can be read in two ways. All of it may be left out:

  # What numbers that are times count:
  #   seconds, milliseconds, microseconds, nanoseconds, days (since 1970);
  #   julian_days (as SQLite counts them);
  #   apple_seconds, apple_nanoseconds (since 2001);
  #   webkit_microseconds, filetime (since 1601);
  #   dotnet_ticks (since the year 1); ole_days (since 1899-12-30);
  # or how text and digits are written, such as \"%d.%m.%Y %H:%M\"
  times = \"milliseconds\"
  # Where clocks showed the times that do not say it; also \"+01:00\"
  zone = \"Europe/Berlin\"

  [users]
  table = \"accounts\"
  # Also id, name and created_at
  columns = { email = \"mail\", password_hash = \"hash\" }
  # The same as above, for single columns
  times = { created_at = \"seconds\" }
  zones = { created_at = \"UTC\" }

  [tasks]
  table = \"todos\"
  # Also title, description, status, priority, created_at and updated_at
  columns = { user_id = \"owner\", due_date = \"due\" }
  statuses = { 0 = \"pending\", 1 = \"in_progress\", 2 = \"completed\" }
  priorities = { 1 = \"urgent\", 2 = \"medium\" }
  times = { due_date = \"julian_days\" }
  zones = { due_date = \"Europe/Berlin\" }

Names are compared as SQLite does it. Tables need row numbers; keys of accounts
are numbers, UUIDs or any other text. Text without a zone is known to be UTC
where it looks as SQLite's own functions write it.";

/// Brings the accounts and tasks of a SQLite file into the database that `DATABASE_URL` names.
///
/// It may be ended and started again: what is there already is passed over.
#[derive(Debug, clap::Args)]
#[command(after_long_help = MAPPING)]
pub struct ImportArgs {
    /// The SQLite file; nobody should write to it any more
    file: PathBuf,

    /// What its tables and columns are called, and how its times are written (TOML); without it, as in this program's own files
    #[arg(long)]
    mapping: Option<PathBuf>,

    /// How many rows are written in one transaction
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=2_000))]
    batch: u32,

    /// Leave out the rows that can't be imported, instead of importing nothing
    #[arg(long)]
    skip_invalid: bool,

    /// How the report at the end looks
    #[arg(short, long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Output {
    Text,
    Json,
}

/// Why an import did not come to a good end.
#[derive(Debug, Error)]
pub enum ImportError {
    /// The file.
    #[error("can't open {}: {cause}; give the path of a SQLite file that may be read", file.display())]
    Open {
        /// Its path.
        file: PathBuf,
        /// Why not.
        cause: String,
    },
    /// What belongs to the file is beside it.
    #[error(
        "can't read {}{beside} where it is, and some of what is in {} may be there alone; copy both into a directory that may be written to, and \
         import that copy",
        file.display(),
        file.display()
    )]
    Unread {
        /// Its path.
        file: PathBuf,
        /// What follows in the name of the other.
        beside: &'static str,
    },
    /// The mapping.
    #[error("can't use the mapping {}: {cause}", file.display())]
    Mapping {
        /// Its path.
        file: PathBuf,
        /// Why not.
        cause: String,
    },
    /// Source and target are one.
    #[error("{0} can't be imported into itself; name another database with DATABASE_URL")]
    Itself(String),
    /// A table is called otherwise.
    #[error("the file has no table {table:?}; name the right one in a mapping (--mapping)")]
    NoTable {
        /// What was looked for.
        table: String,
    },
    /// A column is called otherwise.
    #[error(
        "the table {table:?} has no column {column:?}; name the one that holds the {holds} in a mapping (--mapping)"
    )]
    NoColumn {
        /// Where.
        table: String,
        /// What was looked for.
        column: String,
        /// What it would hold.
        holds: &'static str,
    },
    /// Rows are told apart by their numbers.
    #[error(
        "the rows of {table:?} have no numbers to go by, since it {what}; copy them into a table that has (CREATE TABLE … AS SELECT * FROM …), and \
         name that one in a mapping (--mapping)"
    )]
    NoRowNumbers {
        /// Where.
        table: String,
        /// Why not.
        what: &'static str,
    },
    /// The mapping has to say more.
    #[error("what can be read in two ways has to be said in a mapping (--mapping), and nothing was written:\n  {}", .0.join("\n  "))]
    Times(Vec<String>),
    /// The file can't be read.
    #[error("can't read the file: {0}; see whether it is damaged (PRAGMA integrity_check)")]
    Source(#[from] rusqlite::Error),
    /// The database.
    #[error("the database: {0}; start the import again, and it goes on where it ended")]
    Store(#[from] StoreError),
    /// Someone registered meanwhile.
    #[error("the e-mail of row {rowid} was registered since the file was checked; start the import again")]
    EmailTaken {
        /// The account in the file.
        rowid: i64,
    },
    /// Nothing was written.
    #[error("{0} rows can't be imported, and nothing was: correct them, or leave them out with --skip-invalid")]
    Refused(usize),
    /// The comparison at the end.
    #[error("the tasks of {0} users are not in the database as they are in the file; see the report")]
    Different(usize),
    /// The terminal.
    #[error("can't write the report: {0}")]
    Output(#[from] io::Error),
}

/// Imports, and writes a report to standard output.
pub async fn run(args: &ImportArgs, database: &DatabaseConfig) -> Result<(), ImportError> {
    let source = Source::open(&args.file, args.mapping()?)?;
    refuse_itself(&source, database)?;
    let store = Store::open(database, Writes::default())?;
    store.prepare().await?;
    let (accounts, tasks) = source.counts()?;
    let survey = Survey::take(&source, &store, args.batch, Progress::new("checked", accounts + tasks)).await?;
    let refused = !args.skip_invalid && !survey.faults.is_empty();
    let comparison = if refused {
        None
    } else {
        add_accounts(&source, &store, &survey, args.batch, Progress::new("accounts", accounts)).await?;
        let ids = store.imported_accounts(&source.name).await?;
        add_tasks(&source, &store, &survey, &ids, args.batch, Progress::new("tasks", tasks)).await?;
        Some(compare(&store, &survey, &ids).await?)
    };
    let report = Report::new(&source, survey, comparison);
    let mut out = io::stdout().lock();
    match args.output {
        Output::Text => write!(out, "{report}")?,
        Output::Json => {
            serde_json::to_writer_pretty(&mut out, &report).map_err(io::Error::from)?;
            writeln!(out)?;
        }
    }
    match &report.comparison {
        None => Err(ImportError::Refused(report.invalid.len())),
        Some(comparison) if comparison.users_that_differ.is_empty() => Ok(()),
        Some(comparison) => Err(ImportError::Different(comparison.users_that_differ.len())),
    }
}

impl ImportArgs {
    fn mapping(&self) -> Result<Mapping, ImportError> {
        let Some(file) = &self.mapping else { return Ok(Mapping::default()) };
        let fail = |cause: String| ImportError::Mapping { file: file.clone(), cause };
        let text = fs::read_to_string(file).map_err(|error| fail(error.to_string()))?;
        Mapping::read(&text).map_err(fail)
    }
}

fn refuse_itself(source: &Source, database: &DatabaseConfig) -> Result<(), ImportError> {
    match database {
        DatabaseConfig::Sqlite(sqlite) if sqlite.file.canonicalize().is_ok_and(|file| source.is_at(&file)) => {
            Err(ImportError::Itself(source.name.clone()))
        }
        _ => Ok(()),
    }
}

async fn add_accounts(
    source: &Source,
    store: &Store,
    survey: &Survey,
    batch: u32,
    mut progress: Progress,
) -> Result<(), ImportError> {
    let mut after = i64::MIN;
    loop {
        let rows = source.accounts(after, batch)?;
        let Some(last) = rows.last() else { return Ok(()) };
        after = last.rowid;
        let count = rows.len();
        let (rowids, accounts): (Vec<_>, Vec<_>) = rows
            .into_iter()
            .filter_map(|row| Some((row.rowid, row.content.ok()?)))
            .filter(|(rowid, account)| survey.accounts.get(&account.key).is_some_and(|known| known.rowid == *rowid))
            .map(|(rowid, account)| (rowid, imported(account)))
            .unzip();
        let made = store.import_accounts(&source.name, accounts).await?;
        if let Some((rowid, _)) = rowids.into_iter().zip(made).find(|(_, id)| id.is_none()) {
            return Err(ImportError::EmailTaken { rowid });
        }
        progress.advance(count);
    }
}

fn imported(account: Account) -> ImportedAccount {
    let Account { key: _, id, email, name, password_hash, created_at } = account;
    // The hash of no password: it takes a log-in as long as another to fail.
    let password_hash = password_hash.filter(|hash| survey::is_usable(hash)).unwrap_or_else(|| NOBODY.to_owned());
    ImportedAccount { source_id: id, email, name, password_hash, created_at }
}

async fn add_tasks(
    source: &Source,
    store: &Store,
    survey: &Survey,
    ids: &HashMap<i64, i64>,
    batch: u32,
    mut progress: Progress,
) -> Result<(), ImportError> {
    let mut after = store.imported_up_to(&source.name).await?;
    progress.advance(source.tasks_up_to(after)?);
    loop {
        let rows = source.tasks(after, batch)?;
        let Some(last) = rows.last() else { return Ok(()) };
        after = last.rowid;
        let count = rows.len();
        let of_here = |rowid, SourceTask { owner, task, created_at, updated_at }: SourceTask| {
            let user_id = *ids.get(&survey.accounts.get(&owner)?.id)?;
            Some(ImportedTask { rowid, user_id, task, created_at, updated_at })
        };
        let tasks = rows.into_iter().filter_map(|row| of_here(row.rowid, row.content.ok()?)).collect();
        store.import_tasks(&source.name, tasks, after).await?;
        progress.advance(count);
    }
}

/// Reads every imported user's tasks back.
async fn compare(store: &Store, survey: &Survey, ids: &HashMap<i64, i64>) -> Result<Comparison, ImportError> {
    let accounts = survey.accounts.iter();
    let here = accounts.map(|(key, known)| read_back(store, key.clone(), *known, ids.get(&known.id).copied()));
    let here = stream::iter(here).buffered(AT_ONCE).try_collect::<BTreeMap<Key, Digest>>().await?;
    Ok(Comparison::new(&survey.digests, &here))
}

async fn read_back(store: &Store, key: Key, owner: Known, id: Option<i64>) -> Result<(Key, Digest), StoreError> {
    let mut digest = Digest::default();
    if let Some(id) = id {
        // No replica shows a write that was not made yet, so the primary answers.
        for task in store.load_view(id, ALL, Some(Mark(i64::MAX))).await?.piece.tasks {
            let (created_at, updated_at) = (task.created_at, task.updated_at);
            let (title, description, status) = (task.title, task.description, task.status);
            let task = NewTask { title, description, status, priority: task.priority, due_date: task.due_date };
            digest.add(owner.id, &task, created_at, updated_at);
        }
    }
    Ok((key, digest))
}
