//! How soon a keeper looks again.

use std::time::Duration;

use rand::RngExt;
use tokio::time::Instant;

/// How a part was at the last look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mood {
    /// Nobody is there to be asked: pods that come wake the keeper.
    Idle,
    /// It is as it should be. What happens inside of it is not seen otherwise.
    Settled,
    /// It is on its way.
    Working,
    /// It does not answer, or refuses.
    Troubled,
}

const IDLE: Duration = Duration::from_mins(1);
const SETTLED: Duration = Duration::from_secs(20);
const WORKING: Duration = Duration::from_secs(2);
/// What is in trouble is asked again after a tenth of the time that it has been so, within these bounds.
const TROUBLED: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(20));

/// Remembers since when a part has been in trouble.
#[derive(Default)]
pub(super) struct Pace {
    troubled_since: Option<Instant>,
}

impl Pace {
    /// The wait, a tenth more or less: what was seen at one instant is not to be asked at one instant for ever.
    pub(super) fn after(&mut self, mood: Mood) -> Duration {
        if mood != Mood::Troubled {
            self.troubled_since = None;
        }
        let wait = match mood {
            Mood::Idle => IDLE,
            Mood::Settled => SETTLED,
            Mood::Working => WORKING,
            Mood::Troubled => {
                let since = self.troubled_since.get_or_insert_with(Instant::now);
                (since.elapsed() / 10).clamp(TROUBLED.0, TROUBLED.1)
            }
        };
        wait.mul_f64(rand::rng().random_range(0.9..1.1))
    }
}
