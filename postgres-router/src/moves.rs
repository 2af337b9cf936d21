//! How often the primary has changed, and for how long nobody led, by what this router saw. Pure.

use std::{collections::VecDeque, time::Duration};

use serde::Serialize;
use tokio::time::Instant;

/// How many changes are remembered.
const REMEMBERED: usize = 10;

/// A change of the primary.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Move {
    /// The new primary's.
    pub(crate) timeline: u64,
    /// From the last answer of the one before to the first of the new one.
    pub(crate) unled_milliseconds: u64,
    /// PgBouncer was seen paused meanwhile.
    pub(crate) planned: bool,
}

/// The changes since the router began.
#[derive(Debug, Default)]
pub(crate) struct Moves {
    leader: Option<Leader>,
    last: VecDeque<Move>,
    count: u64,
    unled: Duration,
}

/// Who led last.
#[derive(Clone, Copy, Debug)]
struct Leader {
    timeline: u64,
    answered: Instant,
}

impl Moves {
    /// A member has said that it leads. One that was overtaken does not count.
    pub(crate) fn led(&mut self, timeline: u64, paused: Option<Instant>) {
        let now = Leader { timeline, answered: Instant::now() };
        match self.leader {
            Some(before) if before.timeline > timeline => return,
            Some(before) if before.timeline < timeline => {
                let unled = now.answered - before.answered;
                let unled_milliseconds = u64::try_from(unled.as_millis()).unwrap_or(u64::MAX);
                if self.last.len() == REMEMBERED {
                    self.last.pop_front();
                }
                self.last.push_back(Move { timeline, unled_milliseconds, planned: paused >= Some(before.answered) });
                self.count += 1;
                self.unled += unled;
            }
            _ => {}
        }
        self.leader = Some(now);
    }

    /// The last ones, the last of all at the end.
    pub(crate) fn last(&self) -> &VecDeque<Move> {
        &self.last
    }

    /// For Prometheus.
    pub(crate) fn metrics(&self) -> String {
        format!(
            "# HELP taskplatform_router_primary_changes_total Changes of PostgreSQL's primary that the router has seen.\n\
             # TYPE taskplatform_router_primary_changes_total counter\n\
             taskplatform_router_primary_changes_total {}\n\
             # HELP taskplatform_router_unled_seconds_total Time that passed in these changes while nobody led.\n\
             # TYPE taskplatform_router_unled_seconds_total counter\n\
             taskplatform_router_unled_seconds_total {}\n",
            self.count,
            self.unled.as_secs_f64()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_change_takes_from_the_last_answer_of_the_one_to_the_first_of_the_other() {
        let (mut moves, begin) = (Moves::default(), Instant::now());
        moves.led(1, None);
        tokio::time::advance(Duration::from_mins(1)).await;
        moves.led(1, None);
        assert!(moves.last().is_empty(), "it leads on");
        tokio::time::advance(Duration::from_millis(800)).await;
        moves.led(2, Some(Instant::now()));
        moves.led(1, None);
        assert_eq!(*moves.last(), [Move { timeline: 2, unled_milliseconds: 800, planned: true }]);
        tokio::time::advance(Duration::from_secs(1)).await;
        moves.led(2, None);
        for timeline in 3..20 {
            moves.led(timeline, Some(begin));
        }
        assert_eq!(moves.last().len(), REMEMBERED);
        let last = moves.last().back().unwrap();
        assert_eq!((last.timeline, last.planned), (19, false), "the pause was for another");
        assert!(moves.metrics().contains("primary_changes_total 18\n"), "{}", moves.metrics());
    }
}
