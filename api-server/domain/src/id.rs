//! Task ids: whole numbers that carry the second in which their task was created.
//!
//! `tasks` is partitioned by month of `created_at`, and an index lives inside its partition. An id that says nothing about time
//! would have to be looked for in every month there ever was. So an id is
//!
//! ```text
//! bits 52..21  seconds since 2020-01-01T00:00:00Z, with a sign   (from 1951 to 2088)
//! bits 20..6   a number from the database's sequence
//! bits 5..0    the shard: the number of the database that the task is in
//! ```
//!
//! and a look-up by id asks for `created_at` within that one second too, which leaves one partition and one index descent.
//!
//! - 53 bits, not 63: ids are numbers in JSON, and JavaScript (and jq) round numbers above 2^53.
//! - The database makes the id, in the statement that inserts the row, from the same clock reading as `created_at`. 32,768 ids
//!   a second and shard fit before the sequence comes round; should it (a burst, a clock set back), the primary key refuses the row and the
//!   insert is tried again.
//! - Tasks of before 2020 were imported, with their times. Their seconds are negative, in two's complement, so that they take the upper half
//!   of the ids, from [`TaskId::PAST`] on. The ids of new tasks are below, and grow with time.
//! - Requests find the shard by their user (`user_id % N`). The shard in the id keeps ids unique across shards, and tells whoever has
//!   nothing but an id, such as a reader of events, where its task is.

use std::ops::RangeInclusive;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

/// 2020-01-01T00:00:00Z in seconds since 1970.
const EPOCH: i64 = 1_577_836_800;
/// How many bits say the shard.
const SHARD_BITS: u32 = 6;
/// The most shards that ids can tell apart.
pub const MAX_SHARDS: usize = 1 << SHARD_BITS;
const SHARD_MASK: i64 = (1 << SHARD_BITS) - 1;
/// How many bits are below the second: the sequence's and the shard's.
const SECOND_BITS: u32 = 21;
/// The greatest id.
pub const MAX: i64 = (1 << 53) - 1;

/// The id of a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TaskId(i64);

impl TaskId {
    /// A number that can be an id.
    pub fn new(id: i64) -> Option<Self> {
        (1..=MAX).contains(&id).then_some(Self(id))
    }

    /// The least id of a task that was created before 2020.
    pub const PAST: i64 = 1 << (31 + SECOND_BITS);

    /// The least id of the second that holds `at`, which is now: what a database without a sequence starts from.
    pub fn first_of(at: Timestamp) -> Self {
        Self((second(at) << SECOND_BITS).clamp(1, Self::PAST - 1))
    }

    /// The first id of shard 0 for a task made at `at` that is greater than `last`. More than a second has ids for run ahead of the clock.
    pub fn next(last: i64, at: Timestamp) -> Self {
        let after = (last | SHARD_MASK).saturating_add(1);
        Self(Self::first_of(at).0.max(after).min(Self::PAST - 1))
    }

    /// The number of the database that the task is in.
    pub fn shard(self) -> i64 {
        self.0 & SHARD_MASK
    }

    /// The distance between the ids of one database.
    pub const STEP: i64 = 1 << SHARD_BITS;
    /// How many ids a database has for a second.
    pub const A_SECOND: i64 = 1 << (SECOND_BITS - SHARD_BITS);

    /// The ids that a database has for the second that holds `at`, [`TaskId::STEP`] apart. They reach from December of 1951 to
    /// January of 2088.
    pub fn all_of(at: Timestamp, shard: i64) -> Option<RangeInclusive<i64>> {
        let second = i32::try_from(second(at)).ok()?;
        let first = i64::from(second.cast_unsigned()) << SECOND_BITS | shard;
        let last = first + (Self::A_SECOND - 1) * Self::STEP;
        // 0 is no id.
        Some(if first == 0 { Self::STEP..=last } else { first..=last })
    }

    /// The number itself.
    pub fn get(self) -> i64 {
        self.0
    }

    /// The second in which the task was created: from the first of its instants to the first after it.
    pub fn created_within(self) -> (Timestamp, Timestamp) {
        let second = self.0 >> SECOND_BITS;
        let second = if self.0 < Self::PAST { second } else { second - (1 << 32) };
        // 32 bits of seconds around 2020 stay far within what a timestamp can be.
        let from = Timestamp::from_second(second + EPOCH).unwrap_or_default();
        (from, from.saturating_add(SignedDuration::from_secs(1)).unwrap_or(from))
    }
}

/// The second that holds `at`, counted from 2020 on.
fn second(at: Timestamp) -> i64 {
    // Before 1970, a timestamp's own second is the one after it.
    at.as_second() - i64::from(at.subsec_nanosecond() < 0) - EPOCH
}

impl std::str::FromStr for TaskId {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        // `parse` alone would take "+7" too, a second name for the same task.
        let digits = !text.starts_with('0') && text.bytes().all(|byte| byte.is_ascii_digit());
        digits.then(|| text.parse().ok().and_then(Self::new)).flatten().ok_or(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn only_plain_numbers_are_ids() {
        assert_eq!("42".parse(), Ok(TaskId(42)));
        assert_eq!("9007199254740991".parse(), Ok(TaskId(MAX)));
        for bad in ["", "0", "-1", "+1", "01", "1.0", "9007199254740992", "99999999999999999999", "x", " 1"] {
            assert_eq!(bad.parse::<TaskId>(), Err(()), "{bad}");
        }
    }

    #[test]
    fn the_past_has_ids_too() {
        let ids = |at: &str| TaskId::all_of(at.parse().unwrap(), 5);
        for at in [
            "1951-12-13T20:45:52Z",
            "1969-12-31T23:59:59.5Z",
            "1970-01-01T00:00:00Z",
            "2019-12-31T23:59:59.999999Z",
            "2020-01-01T00:00:00Z",
            "2088-01-19T03:14:07.5Z",
        ] {
            let created: Timestamp = at.parse().unwrap();
            for id in [*ids(at).unwrap().start(), *ids(at).unwrap().end()] {
                let id = TaskId::new(id).unwrap();
                let (from, to) = id.created_within();
                assert!(from <= created && created < to && id.shard() == 5, "{at}: {id:?}");
                assert_eq!(id.get() >= TaskId::PAST, at < "2020", "{at}");
            }
        }
        assert_eq!((ids("1951-12-13T20:45:51Z"), ids("2088-01-19T03:14:08Z")), (None, None));
        assert_eq!(*TaskId::all_of(Timestamp::from_second(EPOCH).unwrap(), 0).unwrap().start(), TaskId::STEP);
    }

    #[test]
    fn new_ids_are_never_of_the_past() {
        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        assert_eq!(TaskId::first_of(at("2014-05-02T10:00:00Z")), TaskId(1));
        assert_eq!(TaskId::next(TaskId::PAST - 1, at("2024-05-02T10:00:00Z")), TaskId(TaskId::PAST - 1));
    }

    proptest! {
        #[test]
        fn an_id_tells_the_second_it_was_made_in(second in EPOCH + 1..EPOCH + (1 << 31), nanos in 0..1_000_000_000i32, sequence in 0i64..1 << SECOND_BITS) {
            let at = Timestamp::new(second, nanos).unwrap();
            let id = TaskId(TaskId::first_of(at).get() + sequence);
            let (from, to) = id.created_within();
            prop_assert!(from <= at && at < to);
            prop_assert_eq!(id.get().to_string().parse(), Ok(id));
        }

        #[test]
        fn all_ids_of_a_second_tell_it(second in EPOCH - (1 << 31)..EPOCH + (1 << 31), nanos in 0..1_000_000_000i32, shard in 0i64..64) {
            let at = Timestamp::new(second, nanos).unwrap();
            for id in TaskId::all_of(at, shard).unwrap().step_by(usize::try_from(TaskId::STEP).unwrap()) {
                let (from, to) = TaskId::new(id).unwrap().created_within();
                prop_assert!(from <= at && at < to);
            }
        }

        #[test]
        fn later_seconds_have_greater_ids(a in EPOCH + 1..EPOCH + (1 << 31) - 1000, later in 1i64..1000) {
            let id = |second| TaskId::first_of(Timestamp::from_second(second).unwrap());
            let greatest = TaskId(id(a).get() + (1 << SECOND_BITS) - 1);
            prop_assert!(greatest < id(a + later));
        }

        #[test]
        fn the_next_id_is_greater_and_of_the_first_shard(second in EPOCH + 1..EPOCH + (1 << 31), last in 0..TaskId::PAST - 64) {
            let at = Timestamp::from_second(second).unwrap();
            let next = TaskId::next(last, at);
            prop_assert!(next.get() > last && next >= TaskId::first_of(at));
            prop_assert_eq!(next.shard(), 0);
        }

        #[test]
        fn every_id_has_a_second(id in 1..=MAX) {
            let (from, to) = TaskId(id).created_within();
            prop_assert!(from < to);
        }
    }
}
