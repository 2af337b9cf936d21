//! Where connections may go, out of what the members said last. Pure.

use std::{collections::BTreeSet, net::SocketAddr};

use crate::patroni::Sight;

/// After so many questions in a row without an answer, nothing is known of a member.
const MOST_MISSES: u32 = 2;

/// Whose connections are relayed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pool {
    Primary,
    Replicas,
}

/// A member, by what it said last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Member {
    /// PostgreSQL's.
    pub(crate) address: SocketAddr,
    pub(crate) sight: Sight,
    /// How often in a row it did not answer since.
    pub(crate) misses: u32,
}

/// Where connections may go.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Targets {
    /// Who takes writes.
    pub(crate) primary: Option<SocketAddr>,
    /// Who is read from.
    pub(crate) replicas: BTreeSet<SocketAddr>,
    /// Who answers, but does not lead.
    followers: BTreeSet<SocketAddr>,
    /// Who does not answer.
    silent: BTreeSet<SocketAddr>,
}

impl Targets {
    pub(crate) fn of(members: &[Member], most_lag: u64) -> Self {
        let answering = || members.iter().filter(|member| member.misses < MOST_MISSES);
        let leader = answering()
            .filter_map(|member| match member.sight {
                Sight::Leads { timeline, position } => Some((timeline, position, member.address)),
                _ => None,
            })
            .max();
        // Without a primary, nobody knows how far behind a replica is.
        let least = leader.map_or(0, |(_, position, _)| position.saturating_sub(most_lag));
        let replicas = answering().filter(|member| match member.sight {
            Sight::Follows { position } => position >= least,
            _ => false,
        });
        let primary = leader.map(|(_, _, address)| address);
        let followers = answering().filter(|member| !matches!(member.sight, Sight::Leads { .. }));
        let silent = members.iter().filter(|member| member.misses >= MOST_MISSES);
        Self {
            primary,
            replicas: replicas.map(|member| member.address).collect(),
            followers: followers.map(|member| member.address).collect(),
            silent: silent.map(|member| member.address).collect(),
        }
    }

    /// Where a connection may go.
    pub(crate) fn candidates(&self, pool: Pool) -> Vec<SocketAddr> {
        match pool {
            Pool::Replicas if !self.replicas.is_empty() => self.replicas.iter().copied().collect(),
            Pool::Primary | Pool::Replicas => self.primary.into_iter().collect(),
        }
    }

    /// Whether a connection to this address has no use any more. A primary that does not answer is left only once another leads: it may
    /// be slow, and nobody else could take its place. A replica that does not answer is left at once.
    pub(crate) fn has_lost(&self, pool: Pool, address: SocketAddr) -> bool {
        match pool {
            Pool::Primary => {
                self.followers.contains(&address) || self.primary.is_some_and(|primary| primary != address)
            }
            Pool::Replicas => self.silent.contains(&address),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn address(member: u16) -> SocketAddr {
        ([10, 0, 0, 1], member).into()
    }

    fn member(number: u16, sight: Sight) -> Member {
        Member { address: address(number), sight, misses: 0 }
    }

    fn leads(position: u64) -> Sight {
        Sight::Leads { timeline: 1, position }
    }

    const fn follows(position: u64) -> Sight {
        Sight::Follows { position }
    }

    #[test]
    fn reads_go_to_replicas_that_keep_up_and_to_the_primary_where_none_does() {
        let mut members = [member(1, leads(1000)), member(2, follows(950)), member(3, follows(800))];
        let targets = Targets::of(&members, 100);
        assert_eq!(targets.candidates(Pool::Primary), [address(1)]);
        assert_eq!(targets.candidates(Pool::Replicas), [address(2)]);
        assert!(!targets.has_lost(Pool::Replicas, address(3)), "who reads from one that lags may finish");
        members[1].sight = follows(100);
        assert_eq!(Targets::of(&members, 100).candidates(Pool::Replicas), [address(1)]);
    }

    #[test]
    fn without_a_primary_writes_wait_and_reads_go_on() {
        let members = [member(1, Sight::Neither), member(2, follows(950)), member(3, follows(800))];
        let targets = Targets::of(&members, 100);
        assert!(targets.candidates(Pool::Primary).is_empty());
        assert_eq!(targets.candidates(Pool::Replicas), [address(2), address(3)]);
        assert!(targets.has_lost(Pool::Primary, address(1)), "it says itself that it does not lead");
    }

    #[test]
    fn a_primary_that_does_not_answer_is_left_once_another_leads() {
        let mut members = [member(1, leads(1000)), member(2, follows(1000))];
        members[0].misses = 1;
        assert_eq!(Targets::of(&members, 100).candidates(Pool::Primary), [address(1)], "once is nothing");
        members[0].misses = 2;
        let targets = Targets::of(&members, 100);
        assert!(targets.candidates(Pool::Primary).is_empty());
        assert!(!targets.has_lost(Pool::Primary, address(1)));
        members[1].sight = Sight::Leads { timeline: 2, position: 1001 };
        let targets = Targets::of(&members, 100);
        assert_eq!(targets.candidates(Pool::Primary), [address(2)]);
        assert!(targets.has_lost(Pool::Primary, address(1)));
    }

    #[test]
    fn a_replica_that_does_not_answer_is_left_at_once() {
        let mut members = [member(1, leads(1000)), member(2, follows(1000))];
        members[1].misses = 2;
        let targets = Targets::of(&members, 100);
        assert_eq!(targets.candidates(Pool::Replicas), [address(1)]);
        assert!(targets.has_lost(Pool::Replicas, address(2)));
    }

    fn any_sight() -> impl Strategy<Value = Sight> {
        prop_oneof![
            (1..4_u64, 0..2000_u64).prop_map(|(timeline, position)| Sight::Leads { timeline, position }),
            (0..2000_u64).prop_map(follows),
            Just(Sight::TakesOver),
            Just(Sight::Neither),
        ]
    }

    proptest! {
        #[test]
        fn no_candidate_is_lost(sights in prop::collection::vec((any_sight(), 0..4_u32), 0..6)) {
            let members: Vec<Member> = (1..).zip(&sights)
                .map(|(number, (sight, misses))| Member { address: address(number), sight: *sight, misses: *misses })
                .collect();
            let targets = Targets::of(&members, 100);
            for pool in [Pool::Primary, Pool::Replicas] {
                for candidate in targets.candidates(pool) {
                    prop_assert!(!targets.has_lost(pool, candidate));
                }
            }
            if let Some(primary) = targets.primary {
                prop_assert!(!targets.replicas.contains(&primary));
            }
        }
    }
}
