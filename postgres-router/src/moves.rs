//! How often the primary has changed, and for how long nobody led, by what this router saw. Pure.

use std::{collections::VecDeque, time::Duration};

use serde::Serialize;
use tokio::time::Instant;

use crate::patroni::Sight;

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
    /// Of these, until the new one was seen to hold the lead; the rest is its promotion.
    pub(crate) detect_milliseconds: u64,
    /// Up to which byte the one before had written the WAL when it answered last.
    pub(crate) former_position: u64,
    /// PgBouncer was seen paused meanwhile.
    pub(crate) planned: bool,
}

/// The changes since the router began.
#[derive(Debug, Default)]
pub(crate) struct Moves {
    leader: Option<Leader>,
    /// Since when another member has held the lead, and takes no writes yet.
    taken_over: Option<Instant>,
    last: VecDeque<Move>,
    count: u64,
    unled: Duration,
}

/// Who led last.
#[derive(Clone, Copy, Debug)]
struct Leader {
    timeline: u64,
    position: u64,
    answered: Instant,
}

impl Moves {
    /// A member has said how it is, and PgBouncer was `paused` last at this time.
    pub(crate) fn note(&mut self, sight: Sight, paused: Option<Instant>) {
        match sight {
            Sight::Leads { timeline, position } => self.leads(timeline, position, paused),
            Sight::TakesOver => _ = self.taken_over.get_or_insert_with(Instant::now),
            Sight::Follows { .. } | Sight::Neither => {}
        }
    }

    /// One that was overtaken does not count.
    fn leads(&mut self, timeline: u64, position: u64, paused: Option<Instant>) {
        let now = Leader { timeline, position, answered: Instant::now() };
        match self.leader {
            Some(before) if before.timeline > timeline => return,
            Some(before) if before.timeline < timeline => {
                let unled = now.answered - before.answered;
                let detected = self.taken_over.unwrap_or(now.answered).saturating_duration_since(before.answered);
                if self.last.len() == REMEMBERED {
                    self.last.pop_front();
                }
                self.last.push_back(Move {
                    timeline,
                    unled_milliseconds: milliseconds(unled),
                    detect_milliseconds: milliseconds(detected),
                    former_position: before.position,
                    planned: paused >= Some(before.answered),
                });
                self.count += 1;
                self.unled += unled;
            }
            _ => {}
        }
        self.leader = Some(now);
        self.taken_over = None;
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

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn leads(timeline: u64, position: u64) -> Sight {
        Sight::Leads { timeline, position }
    }

    #[tokio::test(start_paused = true)]
    async fn a_change_takes_from_the_last_answer_of_the_one_to_the_first_of_the_other() {
        let (mut moves, begin) = (Moves::default(), Instant::now());
        moves.note(Sight::TakesOver, None);
        moves.note(leads(1, 70), None);
        tokio::time::advance(Duration::from_mins(1)).await;
        moves.note(leads(1, 77), None);
        assert!(moves.last().is_empty(), "it leads on");
        tokio::time::advance(Duration::from_millis(500)).await;
        moves.note(Sight::TakesOver, None);
        tokio::time::advance(Duration::from_millis(300)).await;
        moves.note(Sight::TakesOver, None);
        moves.note(leads(2, 80), Some(Instant::now()));
        moves.note(leads(1, 78), None);
        let seen =
            Move { timeline: 2, unled_milliseconds: 800, detect_milliseconds: 500, former_position: 77, planned: true };
        assert_eq!(*moves.last(), [seen]);
        tokio::time::advance(Duration::from_secs(1)).await;
        moves.note(leads(2, 90), None);
        for timeline in 3..20 {
            moves.note(leads(timeline, 90), Some(begin));
        }
        assert_eq!(moves.last().len(), REMEMBERED);
        let last = moves.last().back().unwrap();
        assert_eq!((last.timeline, last.planned), (19, false), "the pause was for another");
        assert!(moves.metrics().contains("primary_changes_total 18\n"), "{}", moves.metrics());
    }
}
