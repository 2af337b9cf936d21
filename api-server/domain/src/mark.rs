//! Marks: what orders a user's writes.

use serde::{Deserialize, Serialize};

/// A write's place among its user's writes: of two, the later one has the greater mark. It is the version of everything that is known of
/// a user: *what was read at version v shows every write of the user's whose mark is at most v.*
///
/// On PostgreSQL it is the id of the write's transaction, under the timeline that this was done on: a member that takes over without the last
/// transactions of the one before, or a restored backup, gives their ids again, on a timeline of its own. On SQLite it is the number of the commit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Mark(pub i64);

impl Mark {
    /// How many bits are below the timeline: ids of transactions up to seventeen trillion.
    pub const TIMELINE_SHIFT: u32 = 44;

    /// The timeline that the write was done on. What SQLite numbers its commits by never changes it while a process runs.
    pub fn timeline(self) -> i64 {
        self.0 >> Self::TIMELINE_SHIFT
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_on_a_later_timeline_is_later() {
        let (lost, after) = (Mark((3 << 44) + 900), Mark((4 << 44) + 7));
        assert!(after > lost);
        assert_eq!((lost.timeline(), after.timeline(), Mark(900).timeline()), (3, 4, 0));
    }
}
