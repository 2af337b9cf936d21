//! Rows of another database, with the times that they have there.
//!
//! Which of them are here is written in the transaction that writes them. So an import may end anywhere and be started again: what is here
//! already is passed over. Events are not written for them: nothing changed but the place.

use std::collections::HashMap;

use jiff::Timestamp;
use task_api_domain::{id::TaskId, task::NewTask, user::Email};

use super::StoreError;
/// An account of the source.
#[derive(Clone, Debug)]
pub struct ImportedAccount {
    /// What it is known by there: its key or, where keys are no whole numbers, its row.
    pub source_id: i64,
    /// The e-mail to log in with.
    pub email: Email,
    /// What the user wants to be called.
    pub name: Option<String>,
    /// In the PHC format, as Argon2 writes it.
    pub password_hash: String,
    /// When it was made.
    pub created_at: Timestamp,
}

/// A task of the source.
#[derive(Clone, Debug)]
pub struct ImportedTask {
    /// Where it is there. Tasks come in this order.
    pub rowid: i64,
    /// Whose it is here.
    pub user_id: i64,
    /// Its content.
    pub task: NewTask,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was last changed.
    pub updated_at: Timestamp,
}

/// Ids for tasks of the past, each of its second and after all that are there.
pub(super) struct FreeIds {
    shard: i64,
    /// The greatest id that is taken, by the least id of its second.
    taken: HashMap<i64, i64>,
}

impl FreeIds {
    /// `taken` has, by the least id of a second, the greatest id that is taken in it; a second that is not in it is free.
    pub(super) fn new(shard: i64, taken: HashMap<i64, i64>) -> Self {
        Self { shard, taken }
    }

    /// A free id of the second of `at`.
    pub(super) fn next(&mut self, at: Timestamp) -> Result<i64, StoreError> {
        let ids = TaskId::all_of(at, self.shard).ok_or_else(|| {
            StoreError::Broken(format!("no id can tell the second {at}: they reach from 1952 to 2087"))
        })?;
        let id = match self.taken.get(ids.start()) {
            Some(taken) => taken + TaskId::STEP,
            None => *ids.start(),
        };
        if !ids.contains(&id) {
            return Err(StoreError::Broken(format!(
                "there is no id left for another task of the second {at}: there are {} in a database",
                TaskId::A_SECOND
            )));
        }
        self.taken.insert(*ids.start(), id);
        Ok(id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_of_the_past_are_new_and_of_their_second() {
        for at in ["2023-05-06T07:08:09.5Z", "2013-05-06T07:08:09.5Z"] {
            its_second_is_filled(at.parse().unwrap());
        }
    }

    fn its_second_is_filled(at: Timestamp) {
        let first = *TaskId::all_of(at, 3).unwrap().start();
        let mut ids = FreeIds::new(3, HashMap::from([(first, first + TaskId::STEP)]));
        let id = TaskId::new(ids.next(at).unwrap()).unwrap();
        assert_eq!(id.get(), first + 2 * TaskId::STEP);
        let (from, to) = id.created_within();
        assert!(from <= at && at < to);
        let mut ids = FreeIds::new(3, HashMap::new());
        for _ in 0..TaskId::A_SECOND {
            ids.next(at).unwrap();
        }
        assert!(ids.next(at).is_err(), "the second is full");
    }
}
