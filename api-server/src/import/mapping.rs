//! What the tables and columns of the source are called, and what its words and numbers mean.

use std::collections::BTreeMap;

use serde::Deserialize;
use task_api_domain::task::{Priority, Status};

/// A mapping file. What it leaves out is called as in this program's own SQLite files.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Mapping {
    /// Where accounts are.
    pub(super) users: Users,
    /// Where tasks are.
    pub(super) tasks: Tasks,
    /// What a number in a column of times counts; guessed from how great the numbers in it are where it is left out.
    pub(super) times: Option<Unit>,
}

/// The table of accounts.
#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Users {
    /// Its name.
    pub(super) table: String,
    /// The columns that are called otherwise.
    pub(super) columns: BTreeMap<UserColumn, String>,
}

impl Default for Users {
    fn default() -> Self {
        Self { table: "users".to_owned(), columns: BTreeMap::new() }
    }
}

/// The table of tasks.
#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Tasks {
    /// Its name.
    pub(super) table: String,
    /// The columns that are called otherwise.
    pub(super) columns: BTreeMap<TaskColumn, String>,
    /// Words or numbers that stand for a status.
    pub(super) statuses: BTreeMap<String, Status>,
    /// Words or numbers that stand for a priority.
    pub(super) priorities: BTreeMap<String, Priority>,
}

impl Default for Tasks {
    fn default() -> Self {
        let (columns, statuses, priorities) = Default::default();
        Self { table: "tasks".to_owned(), columns, statuses, priorities }
    }
}

/// What a number that is a time counts from 1970 on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Unit {
    /// Seconds, perhaps with a fraction.
    Seconds,
    /// Milliseconds, as JavaScript counts.
    Milliseconds,
    /// Microseconds, as this program does.
    Microseconds,
}

/// A column by what is in it.
pub(super) trait Column: Copy + Ord + Into<usize> + 'static {
    /// All of them, in the order in which they are read; as a number, each is its place in it.
    const ALL: &'static [Self];
    /// What it is called in this program's own files.
    fn name(self) -> &'static str;
    /// Whether a source can do without.
    fn optional(self) -> bool;
}

macro_rules! columns {
    ($(#[$doc:meta])* $name:ident, $($variant:ident = $word:literal $($optional:ident)?),+) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
        pub(super) enum $name {
            $(#[doc = concat!("`", $word, "`.")] #[serde(rename = $word)] $variant),+
        }

        impl From<$name> for usize {
            fn from(column: $name) -> usize {
                column as usize
            }
        }

        impl Column for $name {
            const ALL: &'static [Self] = &[$(Self::$variant),+];

            fn name(self) -> &'static str {
                match self { $(Self::$variant => $word),+ }
            }

            fn optional(self) -> bool {
                match self { $(Self::$variant => columns!(@ $($optional)?)),+ }
            }
        }
    };
    (@) => { false };
    (@ optional) => { true };
}

columns!(
    /// The columns of accounts.
    UserColumn,
    Id = "id",
    Email = "email",
    Name = "name" optional,
    PasswordHash = "password_hash" optional,
    CreatedAt = "created_at"
);

columns!(
    /// The columns of tasks.
    TaskColumn,
    UserId = "user_id",
    Title = "title",
    Description = "description" optional,
    Status = "status" optional,
    Priority = "priority" optional,
    CreatedAt = "created_at",
    UpdatedAt = "updated_at" optional,
    DueDate = "due_date" optional
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mapping_names_only_what_differs() {
        let mapping: Mapping = toml::from_str(
            "times = \"milliseconds\"
            [users]
            table = \"accounts\"
            columns = { email = \"mail\" }
            [tasks]
            columns = { user_id = \"owner\" }
            statuses = { doing = \"in_progress\", 2 = \"completed\" }",
        )
        .unwrap();
        assert_eq!((&*mapping.users.table, &*mapping.tasks.table), ("accounts", "tasks"));
        assert_eq!(mapping.users.columns[&UserColumn::Email], "mail");
        assert_eq!(mapping.tasks.statuses["2"], Status::Completed);
        assert_eq!(mapping.times, Some(Unit::Milliseconds));
    }

    #[test]
    fn a_slip_is_not_ignored() {
        for bad in ["[task]", "[users]\ncolumns = { mail = \"x\" }", "[tasks]\nstatuses = { a = \"done\" }"] {
            assert!(toml::from_str::<Mapping>(bad).is_err(), "{bad}");
        }
    }
}
