//! Looks after a Redis Cluster's nodes: its pods, as they are now.

use taskplatform_blueprint::{Part, RedisCluster};

use super::{
    Brief, Keeper, Seen,
    pace::Mood,
    redis::{self, Connections, Health, Member, Passwords, Pods, State, Target},
};
use crate::{
    describe,
    world::{Child, Loss},
};

/// The nodes of a platform's cache, or of its session store, with connections that are kept from look to look.
pub(super) struct Nodes {
    which: RedisCluster,
    connections: Connections,
}

impl Nodes {
    pub(super) fn of(which: RedisCluster) -> Self {
        Self { which, connections: Connections::default() }
    }
}

impl Keeper for Nodes {
    type Sight = Health;

    /// Forms or heals the cluster of these pods; nothing while there are none.
    async fn look(&mut self, brief: &Brief) -> Seen<Health> {
        let (pods, target, passwords) = cluster(brief, self.which)?;
        self.connections.expect(passwords);
        let seen = if brief.may_act {
            redis::reconcile(&mut self.connections, &pods, &target).await
        } else {
            redis::look(&mut self.connections, &pods, &target).await
        };
        Some(seen.map_err(|error| describe(&error)))
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
    let (pods, target, passwords) = cluster(brief, which)?;
    let mut connections = Connections::default();
    connections.expect(passwords);
    Some(redis::look(&mut connections, &pods, &target).await.map_err(|error| describe(&error)))
}

/// The pods, what they are to be, and their password; nothing while none has an address.
fn cluster(brief: &Brief, which: RedisCluster) -> Option<(Pods, Target, Passwords)> {
    let members: Vec<Member> =
        brief.snapshot.pods(which.component()).filter_map(|pod| member(brief, which, pod)).collect();
    let unit = which.unit(&brief.platform);
    let set = brief.snapshot.get(unit.kind(), &unit.name)?;
    let pods = Pods { count: u32::try_from(set.data()["spec"]["replicas"].as_i64()?).unwrap_or_default(), members };
    let passwords = passwords(brief, which)?;
    let count = |number: i32| u16::try_from(number).unwrap_or(u16::MAX);
    let target = Target {
        shards: count(which.shards(&brief.platform)),
        replicas_per_shard: count(which.replicas_per_shard(&brief.platform)),
    };
    (!pods.members.is_empty()).then_some((pods, target, passwords))
}

/// The passwords that the nodes may know.
pub(super) fn passwords(brief: &Brief, which: RedisCluster) -> Option<Passwords> {
    let (credentials, key) = (&brief.credentials, which.password());
    let former = credentials.former(key).map(str::to_owned);
    Some(Passwords { current: credentials.current(key)?.to_owned(), former })
}

fn member(brief: &Brief, which: RedisCluster, pod: &Child) -> Option<Member> {
    Some(Member {
        pod: pod.name.to_string(),
        address: which.endpoint().at(pod.address()?),
        node: pod.node().map(str::to_owned),
        is_lost: brief.snapshot.loss(pod) == Some(Loss::Complete),
    })
}
