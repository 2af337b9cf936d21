//! How many requests are worked on at once. More wait for their turn, but not for long: an answer that comes too late helps nobody.
//!
//! Few at once are answered sooner than many: each step of a request, such as the answer of a store, waits for the steps of all others that
//! are there. And those that are there find their memory in the processor's caches. A request that waits for its client, or longer than a
//! moment for a store, gives its turn to the next, so that a database that fails over does not keep from reads what needs no database.

use std::{
    num::NonZeroU32,
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
    thread,
    time::Duration,
};

use tokio::{
    sync::{Semaphore, SemaphorePermit},
    time::timeout,
};

/// So many requests a core have their turn at once. On PostgreSQL, the slowest twentieth of 500 took 71 ms with 128, 51 with
/// 64, and 37 with 16, which cost a tenth of the throughput: groups of writes become small.
const TURNS_A_CORE: usize = 48;
/// For so long a request keeps its turn.
pub(super) const TURN: Duration = Duration::from_millis(100);
/// How long a request waits for its turn.
const TURN_TIMEOUT: Duration = Duration::from_secs(1);
/// So many requests a core may be there, at work or waiting, unless told otherwise.
const ROOM_A_CORE: usize = 6144;

/// Admits requests.
#[derive(Debug)]
pub struct Admission {
    room: Semaphore,
    size: usize,
    turns: Semaphore,
    waiting: AtomicUsize,
}

/// There is no place, nor will there be soon.
#[derive(Debug)]
pub struct Overloaded;

/// That a request is there, and whether it is its turn.
#[derive(Debug)]
pub struct Permit<'p> {
    _room: SemaphorePermit<'p>,
    turn: Option<SemaphorePermit<'p>>,
}

impl Admission {
    /// For `in_flight` requests; by the number of cores without.
    pub fn new(in_flight: Option<NonZeroU32>) -> Self {
        let size = in_flight.map_or_else(|| ROOM_A_CORE * cores(), to_size);
        let turns = Semaphore::new(TURNS_A_CORE * cores());
        Self { room: Semaphore::new(size), size, turns, waiting: AtomicUsize::new(0) }
    }

    /// A place for a request whose turn it is at once.
    pub fn try_enter(&self) -> Option<Permit<'_>> {
        let room = self.room.try_acquire().ok()?;
        let turn = self.turns.try_acquire().ok()?;
        Some(Permit { _room: room, turn: Some(turn) })
    }

    /// A place for a request, once it is its turn.
    pub async fn enter(&self) -> Result<Permit<'_>, Overloaded> {
        let room = self.room.try_acquire().map_err(|_| Overloaded)?;
        let _waiting = Waiting::count(&self.waiting);
        let turn = timeout(TURN_TIMEOUT, self.turns.acquire()).await;
        let turn = turn.map_err(|_| Overloaded)?.map_err(|_| Overloaded)?;
        Ok(Permit { _room: room, turn: Some(turn) })
    }

    /// How many requests are there, at work or waiting.
    pub fn in_flight(&self) -> usize {
        self.size - self.room.available_permits()
    }

    /// How many of them wait for their turn.
    pub fn waiting(&self) -> usize {
        self.waiting.load(Relaxed)
    }
}

impl Permit<'_> {
    /// Whether it is still its turn.
    pub fn has_turn(&self) -> bool {
        self.turn.is_some()
    }

    /// Lets the next have its turn, and goes on without.
    pub fn give_turn(&mut self) {
        self.turn = None;
    }
}

/// Counts one for as long as it lives: whoever waits may hang up.
struct Waiting<'w>(&'w AtomicUsize);

impl<'w> Waiting<'w> {
    fn count(number: &'w AtomicUsize) -> Self {
        number.fetch_add(1, Relaxed);
        Self(number)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

/// A number as a size; where sizes are smaller, the largest.
pub(crate) fn to_size(number: NonZeroU32) -> usize {
    usize::try_from(number.get()).unwrap_or(usize::MAX)
}

fn cores() -> usize {
    thread::available_parallelism().map_or(1, usize::from)
}

#[cfg(test)]
mod tests {
    use std::{pin::pin, task::Poll};

    use futures::poll;

    use super::*;

    fn admission(room: u32) -> Admission {
        Admission { turns: Semaphore::new(1), ..Admission::new(NonZeroU32::new(room)) }
    }

    #[tokio::test]
    async fn they_have_their_turn_one_after_the_other() {
        let admission = admission(3);
        let first = admission.enter().await.unwrap();
        let (mut second, mut third) = (pin!(admission.enter()), pin!(admission.enter()));
        assert!(poll!(second.as_mut()).is_pending() && poll!(third.as_mut()).is_pending());
        assert_eq!((admission.in_flight(), admission.waiting()), (3, 2));
        assert!(matches!(poll!(pin!(admission.enter())), Poll::Ready(Err(Overloaded))), "there is no room");
        drop(first);
        let second = second.await.unwrap();
        assert!(poll!(third.as_mut()).is_pending());
        assert_eq!((admission.in_flight(), admission.waiting()), (2, 1));
        drop(second);
        drop(third.await.unwrap());
        assert_eq!((admission.in_flight(), admission.waiting()), (0, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_waits_for_long() {
        let admission = admission(2);
        let _first = admission.enter().await.unwrap();
        assert!(admission.enter().await.is_err());
        assert_eq!((admission.in_flight(), admission.waiting()), (1, 0));
    }

    #[tokio::test]
    async fn who_gives_its_turn_is_still_there() {
        let admission = admission(2);
        let mut stuck = admission.enter().await.unwrap();
        assert!(admission.try_enter().is_none());
        assert_eq!(admission.in_flight(), 1, "who did not get a turn left");
        stuck.give_turn();
        assert!(!stuck.has_turn() && admission.try_enter().unwrap().has_turn());
        assert_eq!(admission.in_flight(), 1);
        drop(stuck);
        assert_eq!(admission.in_flight(), 0);
    }
}
