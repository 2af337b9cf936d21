//! What the tables and columns of the source are called, and what its words and numbers mean.

use std::collections::BTreeMap;

use serde::Deserialize;
use task_api_domain::task::{Priority, Status};

use super::times::{Spelling, Zone};

/// A mapping file. What it leaves out is called as in this program's own SQLite files.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Mapping {
    /// Where accounts are.
    pub(super) users: Users,
    /// Where tasks are.
    pub(super) tasks: Tasks,
    /// What numbers count in the columns of times for which their table does not say it, or the format of text there. Where it is left out, it is
    /// told by how great the numbers are and by how the text looks, if they can be read in one way alone.
    pub(super) times: Option<Spelling>,
    /// The zone of text that does not say its own, where its table does not say it. Without, only what SQLite's own functions write is known
    /// to be UTC.
    pub(super) zone: Option<Zone>,
}

impl Mapping {
    /// Reads a mapping file.
    pub(super) fn read(text: &str) -> Result<Self, String> {
        let mut mapping: Self = toml::from_str(text).map_err(|error| error.to_string())?;
        let Self { users, tasks, times, zone } = &mut mapping;
        spread("users", &mut users.times, times.as_ref())?;
        spread("users", &mut users.zones, zone.as_ref())?;
        spread("tasks", &mut tasks.times, times.as_ref())?;
        spread("tasks", &mut tasks.zones, zone.as_ref())?;
        Ok(mapping)
    }
}

/// Says it of all columns of times of which nothing else is said.
fn spread<C: Column, T: Clone>(section: &str, said: &mut BTreeMap<C, T>, of_all: Option<&T>) -> Result<(), String> {
    if let Some(other) = said.keys().find(|column| !C::TIMES.contains(column)) {
        return Err(format!("[{section}] {} is no time; leave it out of times and zones", other.name()));
    }
    if let Some(of_all) = of_all {
        for column in C::TIMES {
            said.entry(*column).or_insert_with(|| of_all.clone());
        }
    }
    Ok(())
}

/// The table of accounts.
#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Users {
    /// Its name.
    pub(super) table: String,
    /// The columns that are called otherwise.
    pub(super) columns: BTreeMap<UserColumn, String>,
    /// How times are kept, by column.
    pub(super) times: BTreeMap<UserColumn, Spelling>,
    /// Which zone text is of that does not say its own, by column.
    pub(super) zones: BTreeMap<UserColumn, Zone>,
}

impl Default for Users {
    fn default() -> Self {
        let (columns, times, zones) = Default::default();
        Self { table: "users".to_owned(), columns, times, zones }
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
    /// How times are kept, by column.
    pub(super) times: BTreeMap<TaskColumn, Spelling>,
    /// Which zone text is of that does not say its own, by column.
    pub(super) zones: BTreeMap<TaskColumn, Zone>,
}

impl Default for Tasks {
    fn default() -> Self {
        let (columns, statuses, priorities, times, zones) = Default::default();
        Self { table: "tasks".to_owned(), columns, statuses, priorities, times, zones }
    }
}

/// A column by what is in it.
pub(super) trait Column: Copy + Ord + Into<usize> + 'static {
    /// All of them, in the order in which they are read; as a number, each is its place in it.
    const ALL: &'static [Self];
    /// Those with times in them.
    const TIMES: &'static [Self];
    /// What it is called in this program's own files.
    fn name(self) -> &'static str;
    /// Whether a source can do without.
    fn optional(self) -> bool;
}

macro_rules! columns {
    ($(#[$doc:meta])* $name:ident, [$($time:ident),+], $($variant:ident = $word:literal $($optional:ident)?),+) => {
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
            const TIMES: &'static [Self] = &[$(Self::$time),+];

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
    [CreatedAt],
    Id = "id",
    Email = "email",
    Name = "name" optional,
    PasswordHash = "password_hash" optional,
    CreatedAt = "created_at"
);

columns!(
    /// The columns of tasks.
    TaskColumn,
    [CreatedAt, UpdatedAt, DueDate],
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
    use crate::import::times::Unit;

    #[test]
    fn a_mapping_names_only_what_differs() {
        let mapping = Mapping::read(
            "times = \"milliseconds\"
            zone = \"+01:00\"
            [users]
            table = \"accounts\"
            columns = { email = \"mail\" }
            [tasks]
            columns = { user_id = \"owner\" }
            statuses = { doing = \"in_progress\", 2 = \"completed\" }
            times = { due_date = \"%d.%m.%Y\" }
            zones = { created_at = \"UTC\" }",
        )
        .unwrap();
        assert_eq!((&*mapping.users.table, &*mapping.tasks.table), ("accounts", "tasks"));
        assert_eq!(mapping.users.columns[&UserColumn::Email], "mail");
        assert_eq!(mapping.tasks.statuses["2"], Status::Completed);
        let milliseconds = Spelling::Numbers(Unit::Milliseconds);
        assert_eq!(mapping.users.times[&UserColumn::CreatedAt], milliseconds);
        assert_eq!(mapping.tasks.times[&TaskColumn::UpdatedAt], milliseconds);
        assert_eq!(mapping.tasks.times[&TaskColumn::DueDate], Spelling::Format("%d.%m.%Y".to_owned()));
        assert_eq!(mapping.tasks.zones[&TaskColumn::CreatedAt].to_string(), "UTC");
        assert_eq!(mapping.tasks.zones[&TaskColumn::DueDate].to_string(), "+01:00");
    }

    #[test]
    fn a_slip_is_not_ignored() {
        for bad in [
            "[task]",
            "[users]\ncolumns = { mail = \"x\" }",
            "[tasks]\nstatuses = { a = \"done\" }",
            "times = \"fortnights\"",
            "zone = \"Nowhere/Atall\"",
            "[tasks]\ntimes = { title = \"seconds\" }",
            "[users]\nzones = { email = \"UTC\" }",
        ] {
            assert!(Mapping::read(bad).is_err(), "{bad}");
        }
    }
}
