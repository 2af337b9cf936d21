//! How many tasks a user may have (`MAX_TASKS_PER_USER`).
//!
//! To count a user's tasks before every one that they make would cost more than to make it. So a count makes room for a share of what is left,
//! and until that is used up nothing is counted. Each instance has rooms of its own: a user may end above the quota by as many as a room
//! holds, an instance, which is 1/64 of the quota at most.

use std::sync::atomic::{AtomicU64, Ordering};

use task_api_resilience::weighted_cache::WeightedCache;

/// What part of what is left is room until the next count.
const SHARE: u64 = 64;
/// The most bytes that rooms take; a user whose room is gone is counted again.
const MEMORY: usize = 1 << 20;
/// What a room takes, with what holds it.
const ROOM: usize = 64;

/// See the module.
#[derive(Debug)]
pub struct Quota {
    /// None is no quota.
    most: Option<u64>,
    rooms: WeightedCache<i64, AtomicU64>,
}

impl Quota {
    /// A quota of `most` tasks; 0 is none.
    pub fn new(most: u64) -> Self {
        Self { most: Some(most).filter(|most| *most > 0), rooms: WeightedCache::new(MEMORY, |_| true) }
    }

    /// Whether there is room for `wanted` more tasks without a count.
    pub fn has_room(&self, user_id: i64, wanted: u64) -> bool {
        let take = |room: &AtomicU64| {
            room.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |room| room.checked_sub(wanted)).is_ok()
        };
        wanted == 0 || self.most.is_none() || self.rooms.get(user_id, take).unwrap_or(false)
    }

    /// Whether there is room for `wanted` more tasks beside the `counted` that the user has.
    pub fn makes_room(&self, user_id: i64, counted: u64, wanted: u64) -> bool {
        let Some(most) = self.most else { return true };
        let Some(left) = most.saturating_sub(counted).checked_sub(wanted) else { return false };
        let make = || AtomicU64::new(0);
        self.rooms.get_or_insert(user_id, ROOM, make, |room| room.store(left / SHARE, Ordering::Relaxed));
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_counted_while_there_is_room() {
        let quota = Quota::new(6_400);
        assert!(!quota.has_room(1, 1), "nobody knows yet");
        assert!(quota.makes_room(1, 0, 1));
        let free = (0..6_400).take_while(|_| quota.has_room(1, 1)).count();
        assert_eq!(free, 6_399 / 64);
        assert!(!quota.has_room(2, 1), "a room is its user's");
    }

    #[test]
    fn it_ends_at_the_quota() {
        let quota = Quota::new(10);
        assert!(quota.makes_room(1, 9, 1) && !quota.has_room(1, 1));
        assert!(!quota.makes_room(1, 10, 1) && !quota.makes_room(1, 8, 3) && !quota.makes_room(1, 20, 1));
        assert!(quota.has_room(1, 0), "a change of what is there takes no room");
        let none = Quota::new(0);
        assert!(none.has_room(1, 1_000_000));
    }
}
