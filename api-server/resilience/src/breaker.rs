//! Circuit breakers: what fails again and again is left alone for a while, so that those who need it don't wait for it in vain.

use std::{
    fmt,
    sync::{Mutex, MutexGuard, PoisonError, atomic::AtomicI64},
    time::{Duration, Instant},
};

use prometheus_client::metrics::gauge::Gauge;

/// So many failures in a row open the breaker.
const FAILURES: u32 = 5;
/// How long it stays open. Then one call tries, and the others follow if it succeeds. A call that takes longer is not waited for: the next
/// tries too.
const REST: Duration = Duration::from_secs(1);

/// See the module.
#[derive(Debug)]
pub struct Breaker {
    /// What the log calls that which it breaks from.
    dependency: &'static str,
    state: Mutex<State>,
    /// Shows 1 while it is open.
    open: Gauge<i64, AtomicI64>,
}

#[derive(Clone, Copy, Debug)]
enum State {
    /// Calls go through; so many failed in a row.
    Closed(u32),
    /// None does, until then.
    Open(Instant),
    /// One does; the next may then.
    Trying(Instant),
}

/// Why a call gave no result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Broken<E> {
    /// It was not made.
    Open,
    /// It failed.
    Failed(E),
}

impl<E: fmt::Display> fmt::Display for Broken<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Open => f.write_str("it failed again and again, and is left alone for a moment"),
            Self::Failed(error) => error.fmt(f),
        }
    }
}

impl Breaker {
    /// A closed one; `open` shows whether it still is.
    pub fn new(dependency: &'static str, open: Gauge<i64, AtomicI64>) -> Self {
        open.set(0);
        Self { dependency, state: Mutex::new(State::Closed(0)), open }
    }

    /// Makes a call, unless too many failed.
    pub async fn call<T, E: fmt::Display>(&self, call: impl Future<Output = Result<T, E>>) -> Result<T, Broken<E>> {
        let begun = self.begin().ok_or(Broken::Open)?;
        let result = call.await;
        match &result {
            Ok(_) => begun.succeeded(),
            Err(error) => begun.failed(error),
        }
        result.map_err(Broken::Failed)
    }

    /// A call that its caller makes, unless too many failed.
    pub fn begin(&self) -> Option<Call<'_>> {
        self.admits().then_some(Call(Some(self)))
    }

    fn admits(&self) -> bool {
        let mut state = self.state();
        match *state {
            State::Closed(_) => true,
            State::Open(until) | State::Trying(until) if Instant::now() >= until => {
                *state = State::Trying(Instant::now() + REST);
                true
            }
            State::Open(_) | State::Trying(_) => false,
        }
    }

    fn succeeded(&self) {
        let mut state = self.state();
        if !matches!(*state, State::Closed(_)) {
            self.open.set(0);
            tracing::info!("the {} answers again", self.dependency);
        }
        *state = State::Closed(0);
    }

    fn failed(&self, error: &dyn fmt::Display) {
        let mut state = self.state();
        *state = match *state {
            State::Closed(failures) if failures + 1 < FAILURES => State::Closed(failures + 1),
            State::Closed(_) => {
                self.open.set(1);
                tracing::warn!(
                    "the {} failed {FAILURES} times in a row and is left alone but for one try a second, until it answers again; \
                     see whether it runs and can be reached: {error}",
                    self.dependency
                );
                State::Open(Instant::now() + REST)
            }
            // Those that began before it opened don't keep it open for longer.
            State::Open(until) => State::Open(until),
            State::Trying(_) => State::Open(Instant::now() + REST),
        };
    }

    /// Whoever called has gone, which says nothing about the dependency. The next one may try.
    fn given_up(&self) {
        let mut state = self.state();
        if matches!(*state, State::Trying(_)) {
            *state = State::Open(Instant::now());
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // No code that holds the lock leaves the state half changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A call that is under way. Dropped, it says nothing about the dependency.
#[derive(Debug)]
pub struct Call<'b>(Option<&'b Breaker>);

impl Call<'_> {
    /// The dependency answered.
    pub fn succeeded(mut self) {
        if let Some(breaker) = self.0.take() {
            breaker.succeeded();
        }
    }

    /// It did not.
    pub fn failed(mut self, error: &dyn fmt::Display) {
        if let Some(breaker) = self.0.take() {
            breaker.failed(error);
        }
    }
}

impl Drop for Call<'_> {
    fn drop(&mut self) {
        if let Some(breaker) = self.0 {
            breaker.given_up();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn fail(breaker: &Breaker) -> Result<(), Broken<&'static str>> {
        breaker.call(async { Err("down") }).await
    }

    async fn succeed(breaker: &Breaker) -> Result<(), Broken<&'static str>> {
        breaker.call(async { Ok(()) }).await
    }

    /// As if it had been open for long enough.
    fn rested(breaker: &Breaker) {
        *breaker.state() = State::Open(Instant::now());
    }

    #[tokio::test]
    async fn it_opens_after_failures_in_a_row() {
        let open = Gauge::default();
        let breaker = Breaker::new("test", open.clone());
        for _ in 0..3 {
            for _ in 1..FAILURES {
                assert_eq!(fail(&breaker).await, Err(Broken::Failed("down")));
            }
            assert_eq!(succeed(&breaker).await, Ok(()));
        }
        for _ in 0..FAILURES {
            assert_eq!(fail(&breaker).await, Err(Broken::Failed("down")));
        }
        assert_eq!(open.get(), 1);
        assert_eq!(succeed(&breaker).await, Err(Broken::Open));
    }

    #[tokio::test]
    async fn one_call_tries_whether_it_is_over() {
        let open = Gauge::default();
        let breaker = Breaker::new("test", open.clone());
        open.set(1);
        rested(&breaker);
        assert_eq!(fail(&breaker).await, Err(Broken::Failed("down")));
        assert_eq!(succeed(&breaker).await, Err(Broken::Open), "it failed again");

        rested(&breaker);
        let during = async {
            assert_eq!(succeed(&breaker).await, Err(Broken::Open), "one tries, the others don't");
            Ok::<_, &str>(())
        };
        assert_eq!(breaker.call(during).await, Ok(()));
        assert_eq!(open.get(), 0);
        assert_eq!(succeed(&breaker).await, Ok(()));
    }

    #[tokio::test]
    async fn a_call_that_hangs_keeps_nobody_from_trying() {
        let breaker = Breaker::new("test", Gauge::default());
        rested(&breaker);
        let _hangs = breaker.begin().unwrap();
        assert!(breaker.begin().is_none());
        *breaker.state() = State::Trying(Instant::now());
        assert_eq!(succeed(&breaker).await, Ok(()));
    }

    #[tokio::test]
    async fn a_call_that_is_given_up_says_nothing() {
        let breaker = Breaker::new("test", Gauge::default());
        let give_up = async || {
            let hangs = breaker.call(std::future::pending::<Result<(), &str>>());
            assert!(tokio::time::timeout(Duration::from_millis(1), hangs).await.is_err());
        };
        for _ in 0..2 * FAILURES {
            give_up().await;
        }
        assert_eq!(succeed(&breaker).await, Ok(()));
        rested(&breaker);
        give_up().await;
        assert_eq!(succeed(&breaker).await, Ok(()), "the next one tries");
    }
}
