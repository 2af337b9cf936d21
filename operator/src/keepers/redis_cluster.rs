//! Looks after a Redis Cluster's nodes: its pods, as they are now.

use taskplatform_blueprint::{Part, RedisCluster};

use super::{
    Brief, Keeper, Seen,
    pace::Mood,
    redis::{self, Health, Member, Pods, State, Target},
};
use crate::{describe, world::Child};

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
        if !brief.may_act {
            return look(brief, self.0).await;
        }
        let (pods, target, password) = cluster(brief, self.0)?;
        Some(redis::reconcile(&pods, &target, password).await.map_err(|error| describe(&error)))
    }

    fn mood(health: &Health) -> Mood {
        match health.state {
            State::Healthy => Mood::Settled,
            State::Working { .. } => Mood::Working,
            State::Degraded { .. } => Mood::Troubled,
        }
    }
}

/// How a cluster is; nothing is changed.
pub(super) async fn look(brief: &Brief, which: RedisCluster) -> Seen<Health> {
    let (pods, target, password) = cluster(brief, which)?;
    Some(redis::look(&pods, &target, password).await.map_err(|error| describe(&error)))
}

/// The pods, what they are to be, and their password; nothing while none has an address.
fn cluster(brief: &Brief, which: RedisCluster) -> Option<(Pods, Target, &str)> {
    let members: Vec<Member> = brief.snapshot.pods(which.component()).filter_map(|pod| member(which, pod)).collect();
    let unit = which.unit(&brief.platform);
    let set = brief.snapshot.get(unit.kind(), &unit.name)?;
    let pods = Pods { count: u32::try_from(set.data["spec"]["replicas"].as_i64()?).unwrap_or_default(), members };
    let password = brief.credentials.get(which.password())?;
    let count = |number: i32| u16::try_from(number).unwrap_or(u16::MAX);
    let target = Target {
        shards: count(which.shards(&brief.platform)),
        replicas_per_shard: count(which.replicas_per_shard(&brief.platform)),
    };
    (!pods.members.is_empty()).then_some((pods, target, password))
}

fn member(which: RedisCluster, pod: &Child) -> Option<Member> {
    Some(Member {
        pod: pod.name.to_string(),
        address: which.endpoint().at(pod.address()?),
        node: pod.node().map(str::to_owned),
    })
}
