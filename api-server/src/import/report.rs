//! What an import says at its end.

use std::{collections::BTreeMap, fmt};

use serde::Serialize;

use super::{
    digest::Digest,
    mapping::Unit,
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
    pub(super) times: BTreeMap<String, Unit>,
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
    pub(super) users_that_differ: Vec<i64>,
}

impl Comparison {
    /// Both by the users' ids in the file.
    pub(super) fn new(file: &BTreeMap<i64, Digest>, database: &BTreeMap<i64, Digest>) -> Self {
        let of = |digests: &BTreeMap<i64, Digest>, id: &i64| digests.get(id).copied().unwrap_or_default();
        let users_that_differ = database.keys().copied().filter(|id| of(file, id) != of(database, id)).collect();
        Self { in_file: sum(file), in_database: sum(database), users_that_differ }
    }
}

fn sum(digests: &BTreeMap<i64, Digest>) -> Digest {
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
            times: source.units.clone(),
            without_password,
            invalid: faults,
            comparison,
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (column, unit) in &self.times {
            writeln!(f, "{column}: numbers are {}", format!("{unit:?}").to_lowercase())?;
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
