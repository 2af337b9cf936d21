//! What a healthy cluster looks like.

use crate::keepers::redis::{Health, Target};

pub(super) const THREE: Target = Target { shards: 3, replicas_per_shard: 1 };

pub(super) fn pod(name: &str) -> usize {
    name.rsplit('-').next().and_then(|ordinal| ordinal.parse().ok()).expect("an ordinal")
}

pub(super) fn masters(health: &Health) -> Vec<usize> {
    health.shards.iter().map(|shard| pod(&shard.master)).collect()
}

pub(super) fn assert_shape(health: &Health, target: &Target) {
    assert_eq!(health.shards.len(), usize::from(target.shards), "{health:#?}");
    for shard in &health.shards {
        assert_eq!(shard.replicas.len(), usize::from(target.replicas_per_shard), "{health:#?}");
        assert!(shard.replicas.iter().all(|replica| replica.in_sync), "{health:#?}");
        assert!(shard.slots.abs_diff(16384 / target.shards) <= 1, "{health:#?}");
    }
    assert!(!health.surplus_drained, "there is no surplus");
}

/// With pods dealt out to three Kubernetes nodes in turn, the loss of one leaves a majority and a copy of everything.
pub(super) fn assert_spread(health: &Health, kubernetes_nodes: usize) {
    let node = |name: &str| pod(name) % kubernetes_nodes;
    for lost in 0..kubernetes_nodes {
        let left = health.shards.iter().filter(|shard| node(&shard.master) != lost).count();
        assert!(left > health.shards.len() / 2, "{health:#?}");
        for shard in &health.shards {
            let copies = shard.replicas.iter().map(|replica| &replica.pod).chain([&shard.master]);
            assert!(copies.into_iter().any(|copy| node(copy) != lost), "{health:#?}");
        }
    }
}
