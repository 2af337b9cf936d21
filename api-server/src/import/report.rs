//! What an import says at its end.

use std::{collections::BTreeMap, fmt};

use serde::Serialize;

use super::{
    digest::Digest,
    key::Key,
    source::Source,
    survey::{Fault, Survey},
};

/// See the module.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    pub(super) source: String,
    /// How many there are to import.
    pub(super) accounts: usize,
    pub(super) tasks: u64,
    /// What numbers in columns of times were taken for.
    pub(super) times: BTreeMap<String, String>,
    /// The zones that text in columns of times was taken to be of where it does not say its own.
    pub(super) zones: BTreeMap<String, String>,
    /// Rows of accounts whose password has to be set anew.
    pub(super) without_password: Vec<i64>,
    pub(super) invalid: Vec<Fault>,
    /// None if nothing was written.
    pub(super) comparison: Option<Comparison>,
}

/// The file against the database.
#[derive(Debug, Serialize)]
pub(super) struct Comparison {
    pub(super) in_file: Digest,
    pub(super) in_database: Digest,
    /// Their ids in the file.
    pub(super) users_that_differ: Vec<Key>,
}

impl Comparison {
    /// Both by the users' ids in the file.
    pub(super) fn new(file: &BTreeMap<Key, Digest>, database: &BTreeMap<Key, Digest>) -> Self {
        let of = |digests: &BTreeMap<Key, Digest>, id: &Key| digests.get(id).copied().unwrap_or_default();
        let users_that_differ = database.keys().filter(|id| of(file, id) != of(database, id)).cloned().collect();
        Self { in_file: sum(file), in_database: sum(database), users_that_differ }
    }
}

fn sum(digests: &BTreeMap<Key, Digest>) -> Digest {
    digests.values().fold(Digest::default(), |mut sum, digest| {
        sum.merge(*digest);
        sum
    })
}

impl Report {
    pub(super) fn new(source: &Source, survey: Survey, comparison: Option<Comparison>) -> Self {
        let Survey { accounts, without_password, digests, faults } = survey;
        Self {
            source: source.name.clone(),
            accounts: accounts.len(),
            tasks: sum(&digests).tasks,
            times: source.units(),
            zones: source.zones(),
            without_password,
            invalid: faults,
            comparison,
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (column, unit) in &self.times {
            writeln!(f, "{column}: numbers are {unit}")?;
        }
        for (column, zone) in &self.zones {
            writeln!(f, "{column}: text that does not say its zone is of {zone}")?;
        }
        for rowid in &self.without_password {
            writeln!(f, "account in row {rowid}: its password has to be set anew, since its hash is not argon2's")?;
        }
        for Fault { kind, rowid, reason } in &self.invalid {
            writeln!(f, "{kind} in row {rowid} can't be imported: {reason}")?;
        }
        writeln!(
            f,
            "{}: {} accounts, {} tasks, {} invalid rows",
            self.source,
            self.accounts,
            self.tasks,
            self.invalid.len()
        )?;
        let Some(Comparison { in_file, in_database, users_that_differ }) = &self.comparison else {
            return writeln!(f, "nothing was written");
        };
        writeln!(f, "in the file:     {} tasks, checksum {:032x}", in_file.tasks, in_file.checksum)?;
        writeln!(f, "in the database: {} tasks, checksum {:032x}", in_database.tasks, in_database.checksum)?;
        for id in users_that_differ {
            writeln!(f, "the tasks of user {id} differ")?;
        }
        Ok(())
    }
}
