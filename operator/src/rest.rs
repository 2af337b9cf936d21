//! A rest after something that may have been in vain.

use std::time::Duration;

use tokio::time::Instant;

/// How long the first rest is, and the longest.
pub(crate) type Rests = [Duration; 2];

/// A rest after something that may have been in vain: each time twice as long as before.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rest {
    since: Instant,
    length: Duration,
}

impl Rest {
    /// The one that follows on `before`.
    pub(crate) fn after(before: Option<Self>, [first, longest]: Rests) -> Self {
        let length = before.map_or(first, |before| (before.length * 2).min(longest));
        Self { since: Instant::now(), length }
    }

    pub(crate) fn is_over(&self) -> bool {
        self.since.elapsed() >= self.length
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn each_rest_is_twice_as_long_as_the_one_before_up_to_the_longest() {
        let rests = [Duration::from_secs(10), Duration::from_secs(30)];
        let mut rest = None;
        for seconds in [10, 20, 30, 30] {
            let next = Rest::after(rest, rests);
            tokio::time::advance(Duration::from_secs(seconds - 1)).await;
            assert!(!next.is_over());
            tokio::time::advance(Duration::from_secs(1)).await;
            assert!(next.is_over());
            rest = Some(next);
        }
    }
}
