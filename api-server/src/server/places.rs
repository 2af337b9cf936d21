//! How many requests are worked on at once. More wait for their turn, but not many and not for long: an answer that comes too late
//! helps nobody, and a queue that grows makes all of them late.

use std::{num::NonZeroU32, thread, time::Duration};

use tokio::{
    sync::{Semaphore, SemaphorePermit},
    time::timeout,
};

/// So many requests a core are worked on at once unless told otherwise. Most of them wait for a store; each takes some 20 KiB.
const IN_FLIGHT_A_CORE: usize = 512;
/// How long a request waits for its turn.
const TURN_TIMEOUT: Duration = Duration::from_millis(500);

/// The places for requests.
#[derive(Debug)]
pub struct Places {
    free: Semaphore,
    /// As many may wait as may be worked on.
    queue: Semaphore,
    size: usize,
}

/// There is no place, nor will there be soon.
#[derive(Debug)]
pub struct Overloaded;

impl Places {
    /// For `in_flight` requests at once; by the number of cores without.
    pub fn new(in_flight: Option<NonZeroU32>) -> Self {
        let size = in_flight.map_or_else(|| IN_FLIGHT_A_CORE * cores(), to_size);
        Self { free: Semaphore::new(size), queue: Semaphore::new(size), size }
    }

    /// A place for a request, which it keeps until it is answered.
    pub async fn enter(&self) -> Result<SemaphorePermit<'_>, Overloaded> {
        if let Ok(place) = self.free.try_acquire() {
            return Ok(place);
        }
        let _queued = self.queue.try_acquire().map_err(|_| Overloaded)?;
        let place = timeout(TURN_TIMEOUT, self.free.acquire()).await;
        place.map_err(|_| Overloaded)?.map_err(|_| Overloaded)
    }

    /// How many requests are worked on.
    pub fn in_flight(&self) -> usize {
        self.size - self.free.available_permits()
    }

    /// How many requests wait for their turn.
    pub fn waiting(&self) -> usize {
        self.size - self.queue.available_permits()
    }
}

/// A number as a size; where sizes are smaller, the largest.
pub(super) fn to_size(number: NonZeroU32) -> usize {
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

    #[tokio::test]
    async fn a_few_wait_and_the_rest_is_refused_at_once() {
        let places = Places::new(Some(NonZeroU32::MIN));
        let first = places.enter().await.unwrap();
        let mut second = pin!(places.enter());
        assert!(poll!(second.as_mut()).is_pending());
        assert_eq!((places.in_flight(), places.waiting()), (1, 1));
        assert!(matches!(poll!(pin!(places.enter())), Poll::Ready(Err(Overloaded))));
        drop(first);
        let second = second.await.unwrap();
        assert_eq!((places.in_flight(), places.waiting()), (1, 0));
        drop(second);
        assert_eq!(places.in_flight(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_waits_for_long() {
        let places = Places::new(Some(NonZeroU32::MIN));
        let _first = places.enter().await.unwrap();
        assert!(places.enter().await.is_err());
        assert_eq!(places.waiting(), 0);
    }
}
