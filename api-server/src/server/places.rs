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

/// The places for requests.
#[derive(Debug)]
pub struct Places {
    room: Semaphore,
    size: usize,
    turns: Semaphore,
    waiting: AtomicUsize,
}

/// There is no place, nor will there be soon.
#[derive(Debug)]
pub struct Overloaded;

/// A request's place, and its turn.
#[derive(Debug)]
pub struct Place<'p> {
    _room: SemaphorePermit<'p>,
    turn: Option<SemaphorePermit<'p>>,
}

impl Places {
    /// For `in_flight` requests; by the number of cores without.
    pub fn new(in_flight: Option<NonZeroU32>) -> Self {
        let size = in_flight.map_or_else(|| ROOM_A_CORE * cores(), to_size);
        let turns = Semaphore::new(TURNS_A_CORE * cores());
        Self { room: Semaphore::new(size), size, turns, waiting: AtomicUsize::new(0) }
    }

    /// A place for a request whose turn it is at once.
    pub fn try_enter(&self) -> Option<Place<'_>> {
        let room = self.room.try_acquire().ok()?;
        let turn = self.turns.try_acquire().ok()?;
        Some(Place { _room: room, turn: Some(turn) })
    }

    /// A place for a request, once it is its turn.
    pub async fn enter(&self) -> Result<Place<'_>, Overloaded> {
        let room = self.room.try_acquire().map_err(|_| Overloaded)?;
        let _waiting = Waiting::count(&self.waiting);
        let turn = timeout(TURN_TIMEOUT, self.turns.acquire()).await;
        let turn = turn.map_err(|_| Overloaded)?.map_err(|_| Overloaded)?;
        Ok(Place { _room: room, turn: Some(turn) })
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

impl Place<'_> {
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

    fn places(room: u32) -> Places {
        Places { turns: Semaphore::new(1), ..Places::new(NonZeroU32::new(room)) }
    }

    #[tokio::test]
    async fn they_have_their_turn_one_after_the_other() {
        let places = places(3);
        let first = places.enter().await.unwrap();
        let (mut second, mut third) = (pin!(places.enter()), pin!(places.enter()));
        assert!(poll!(second.as_mut()).is_pending() && poll!(third.as_mut()).is_pending());
        assert_eq!((places.in_flight(), places.waiting()), (3, 2));
        assert!(matches!(poll!(pin!(places.enter())), Poll::Ready(Err(Overloaded))), "there is no room");
        drop(first);
        let second = second.await.unwrap();
        assert!(poll!(third.as_mut()).is_pending());
        assert_eq!((places.in_flight(), places.waiting()), (2, 1));
        drop(second);
        drop(third.await.unwrap());
        assert_eq!((places.in_flight(), places.waiting()), (0, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_waits_for_long() {
        let places = places(2);
        let _first = places.enter().await.unwrap();
        assert!(places.enter().await.is_err());
        assert_eq!((places.in_flight(), places.waiting()), (1, 0));
    }

    #[tokio::test]
    async fn who_gives_its_turn_is_still_there() {
        let places = places(2);
        let mut stuck = places.enter().await.unwrap();
        assert!(places.try_enter().is_none());
        assert_eq!(places.in_flight(), 1, "who did not get a turn left");
        stuck.give_turn();
        assert!(!stuck.has_turn() && places.try_enter().unwrap().has_turn());
        assert_eq!(places.in_flight(), 1);
        drop(stuck);
        assert_eq!(places.in_flight(), 0);
    }
}
