//! How many tasks a user has, by status and by priority.

use jiff::Timestamp;

use crate::task::{Priority, Status};

/// Counts of a user's tasks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    counts: [[u64; Priority::ALL.len()]; Status::ALL.len()],
    /// When it was like this.
    pub as_of: Timestamp,
}

impl Summary {
    /// No task at all.
    pub fn new(as_of: Timestamp) -> Self {
        Self { counts: Default::default(), as_of }
    }

    /// Counts `count` more tasks.
    pub fn add(&mut self, status: Status, priority: Priority, count: u64) {
        self.counts[status as usize][priority as usize] += count;
    }

    /// How many are so far.
    pub fn with_status(&self, status: Status) -> u64 {
        self.counts[status as usize].iter().sum()
    }

    /// How many matter so much.
    pub fn with_priority(&self, priority: Priority) -> u64 {
        self.counts.iter().map(|by_priority| by_priority[priority as usize]).sum()
    }

    /// How many there are.
    pub fn total(&self) -> u64 {
        self.counts.iter().flatten().sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_adds_up() {
        let mut summary = Summary::new(Timestamp::UNIX_EPOCH);
        summary.add(Status::Pending, Priority::Low, 2);
        summary.add(Status::Pending, Priority::High, 3);
        summary.add(Status::Completed, Priority::Low, 4);
        assert_eq!(Status::ALL.iter().map(|status| summary.with_status(*status)).collect::<Vec<_>>(), [5, 0, 4]);
        assert_eq!(
            Priority::ALL.iter().map(|priority| summary.with_priority(*priority)).collect::<Vec<_>>(),
            [6, 0, 3, 0]
        );
        assert_eq!(summary.total(), 9);
    }
}
