//! Checksums that compare two sets of tasks without their order.

use jiff::Timestamp;
use serde::Serialize;
use sha2::{Digest as _, Sha256};
use task_api_domain::task::NewTask;

/// How many tasks there are, and the sum of their hashes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct Digest {
    pub(super) tasks: u64,
    #[serde(serialize_with = "hex")]
    pub(super) checksum: u128,
}

impl Digest {
    /// Takes in a task of the user who is `owner` in the source.
    pub(super) fn add(&mut self, owner: i64, task: &NewTask, created_at: Timestamp, updated_at: Timestamp) {
        let NewTask { title, description, status, priority, due_date } = task;
        let mut hash = Sha256::new();
        hash.update(owner.to_be_bytes());
        // With their lengths, so that no two tasks are the same bytes.
        for text in [title, description.as_deref().unwrap_or_default(), status.as_str(), priority.as_str()] {
            hash.update((text.len() as u64).to_be_bytes());
            hash.update(text);
        }
        hash.update([u8::from(description.is_some()), u8::from(due_date.is_some())]);
        for at in [created_at, updated_at, due_date.unwrap_or_default()] {
            hash.update(at.as_microsecond().to_be_bytes());
        }
        let bytes: [u8; 32] = hash.finalize().into();
        let (half, _) = bytes.split_at(16);
        self.merge(Self { tasks: 1, checksum: half.iter().fold(0, |sum, byte| sum << 8 | u128::from(*byte)) });
    }

    /// Takes in what another took in.
    pub(super) fn merge(&mut self, other: Self) {
        self.tasks += other.tasks;
        self.checksum = self.checksum.wrapping_add(other.checksum);
    }
}

fn hex<S: serde::Serializer>(checksum: &u128, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&format_args!("{checksum:032x}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use task_api_domain::task::{Priority, Status};

    #[test]
    fn it_knows_every_field_and_no_order() {
        let (status, priority) = (Status::Pending, Priority::Low);
        let one = NewTask { title: "a".to_owned(), description: None, status, priority, due_date: None };
        let at = Timestamp::UNIX_EPOCH;
        let later = Timestamp::from_second(1).unwrap();
        let of = |owner, task: &NewTask, created, updated| {
            let mut digest = Digest::default();
            digest.add(owner, task, created, updated);
            digest
        };
        let all = [
            of(1, &one, at, at),
            of(2, &one, at, at),
            of(1, &one, later, at),
            of(1, &one, at, later),
            of(1, &NewTask { title: "b".to_owned(), ..one.clone() }, at, at),
            of(1, &NewTask { description: Some(String::new()), ..one.clone() }, at, at),
            of(1, &NewTask { status: Status::Completed, ..one.clone() }, at, at),
            of(1, &NewTask { priority: Priority::High, ..one.clone() }, at, at),
            of(1, &NewTask { due_date: Some(at), ..one.clone() }, at, at),
        ];
        for (index, digest) in all.iter().enumerate() {
            assert!(!all[..index].contains(digest), "{index}");
        }
        let sum = |digests: &mut dyn Iterator<Item = &Digest>| {
            digests.fold(Digest::default(), |mut sum, digest| {
                sum.merge(*digest);
                sum
            })
        };
        assert_eq!(sum(&mut all.iter()), sum(&mut all.iter().rev()));
        assert_ne!(sum(&mut all.iter()), sum(&mut all[1..].iter()));
    }
}
