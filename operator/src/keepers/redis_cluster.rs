//! Looks after a Redis Cluster's nodes: its pods, as they are now.

use std::net::SocketAddr;

use taskplatform_blueprint::{RedisCluster, ports};

use super::{Brief, Keeper, Seen, pace::Mood};
use crate::{
    describe,
    redis::{self, Health, Member, State, Target},
    world::Child,
};

/// The nodes of a platform's cache, or of its session store.
pub(super) struct Nodes(RedisCluster);

impl Nodes {
    pub(super) const fn of(cluster: RedisCluster) -> Self {
        Self(cluster)
    }
}

impl Keeper for Nodes {
    type Sight = Health;

    /// Forms or heals the cluster of these pods; nothing while there are none.
    async fn look(&mut self, brief: &Brief) -> Seen<Health> {
        let pods = brief.snapshot.pods(self.0.component());
        let members: Vec<Member> = pods.filter_map(|pod| member(pod)).collect();
        let password = brief.credentials.get(self.0.password_key())?;
        if members.is_empty() {
            return None;
        }
        let count = |number: i32| u16::try_from(number).unwrap_or(u16::MAX);
        let target = Target {
            shards: count(self.0.shards(&brief.platform)),
            replicas_per_shard: count(self.0.replicas_per_shard(&brief.platform)),
        };
        let look = if brief.may_act {
            redis::reconcile(&members, &target, password).await
        } else {
            redis::look(&members, &target, password).await
        };
        Some(look.map_err(|error| describe(&error)))
    }

    fn mood(health: &Health) -> Mood {
        match health.state {
            State::Healthy => Mood::Settled,
            State::Working { .. } => Mood::Working,
            State::Degraded { .. } => Mood::Troubled,
        }
    }
}

fn member(pod: &Child) -> Option<Member> {
    let port = u16::try_from(ports::REDIS).ok()?;
    Some(Member {
        pod: pod.name.to_string(),
        address: SocketAddr::new(pod.address()?, port),
        node: pod.node().map(str::to_owned),
    })
}
