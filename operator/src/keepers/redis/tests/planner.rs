//! The planner against a model of a cluster: whatever state it begins in, the plan ends, and loses nothing on the way.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::model::Model;
use crate::keepers::redis::{
    Target,
    placement::{attach, choose, relieve},
    plan::{Outlook, Step, plan},
    slots::{SLOTS, SlotSet},
    topology::{NodeId, View},
};

fn target() -> impl Strategy<Value = Target> {
    (1_u16..6, 0_u16..3).prop_map(|(shards, replicas_per_shard)| Target { shards, replicas_per_shard })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_half_formed_cluster_is_completed(
        target in target(),
        kubernetes_nodes in 1_usize..5,
        introductions in prop::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>()), 0..6),
        assigned in prop::collection::vec((0_u16..SLOTS, 1_u16..4000), 0..3),
    ) {
        let mut model = Model::fresh(target.members(), kubernetes_nodes);
        for (a, b) in introductions {
            let (a, b) = (a.index(model.nodes.len()), b.index(model.nodes.len()));
            if a != b {
                model.meet(a, b);
            }
        }
        let mut free = SlotSet::all();
        for (master, (start, length)) in assigned.into_iter().enumerate().take(usize::from(target.shards)) {
            let range: SlotSet = (start..start.saturating_add(length).min(SLOTS)).collect();
            model.nodes[master].slots = range.intersection(&free);
            free = free.difference(&range);
        }
        prop_assert_eq!(model.settle(&target, |_| ()), Outlook::Settled);
        model.assert_shape(&target);
    }

    #[test]
    fn growing_and_shrinking_lose_nothing(
        from in target(),
        more_shards in 0_u16..3,
        replicas_per_shard in 0_u16..3,
        kubernetes_nodes in 1_usize..5,
        failovers in prop::collection::vec(any::<prop::sample::Index>(), 0..4),
    ) {
        let to = Target { shards: from.shards + more_shards, replicas_per_shard };
        // A StatefulSet grows before, and shrinks after; new shards need pods of their own.
        prop_assume!(to.members() >= from.members() || more_shards == 0);
        prop_assume!(to.members() - from.members().min(to.members()) >= u32::from(more_shards));
        let mut model = Model::formed(&from, kubernetes_nodes);
        for index in failovers {
            let replicas: Vec<usize> = model.pods().into_iter().filter(|pod| model.nodes[*pod].master.is_some()).collect();
            if !replicas.is_empty() {
                model.promote(replicas[index.index(replicas.len())]);
            }
        }
        for fresh in Model::fresh(to.members(), kubernetes_nodes).nodes.into_iter().skip(model.nodes.len()) {
            model.nodes.push(fresh);
        }
        prop_assert_eq!(model.settle(&to, |_| ()), Outlook::Settled);
        model.assert_shape(&to);
        let held = model.nodes.iter().filter(|node| !node.slots.is_empty());
        let held = held.fold(SlotSet::default(), |held, node| held.union(&node.keys));
        prop_assert_eq!(held, SlotSet::all());
    }

    #[test]
    fn lost_volumes_cost_only_what_had_no_other_copy(
        target in target(),
        kubernetes_nodes in 1_usize..5,
        lost in prop::collection::vec(any::<prop::sample::Index>(), 1..4),
    ) {
        let mut model = Model::formed(&target, kubernetes_nodes);
        let lost: BTreeSet<usize> = lost.into_iter().map(|index| index.index(model.nodes.len())).collect();
        for index in &lost {
            // The id lives on in the others' memory; the pod runs as a new node.
            let ordinal = model.nodes[*index].ordinal.take();
            let mut fresh = Model::fresh(target.members(), kubernetes_nodes).nodes.swap_remove(*index);
            fresh.id = format!("again-{index:03}");
            fresh.ordinal = ordinal;
            model.nodes[*index].keys = SlotSet::default();
            model.nodes.push(fresh);
        }
        model.nodes.sort_by_key(|node| node.ordinal);
        let survived = model.nodes.iter().fold(SlotSet::default(), |all, node| all.union(&node.keys));
        let mut outlook = model.settle(&target, |_| ());
        for _ in 0..10 {
            // Redis elects a replica where a majority lives.
            let Outlook::Working(message) = &outlook else { break };
            prop_assert!(message.contains("about to take over"), "{}", message);
            let dead: Vec<String> = model.nodes.iter().filter(|node| node.ordinal.is_none()).map(|node| node.id.clone()).collect();
            let heir = model.pods().into_iter().find(|pod| {
                model.nodes[*pod].master.as_ref().is_some_and(|m| dead.contains(m) && !model.nodes[model.index(m)].slots.is_empty())
            });
            model.promote(heir.expect("a replica of a dead master"));
            outlook = model.settle(&target, |_| ());
        }
        if target.members() as usize == lost.len() {
            return Ok(());
        }
        prop_assert_eq!(outlook, Outlook::Settled);
        model.assert_shape(&target);
        let held = model.pods().into_iter().fold(SlotSet::default(), |all, pod| all.union(&model.nodes[pod].keys));
        prop_assert_eq!(held, survived);
    }
}

#[test]
fn a_plan_reads_as_sentences() {
    let target = Target { shards: 1, replicas_per_shard: 1 };
    let mut model = Model::fresh(2, 1);
    let mut read = Vec::new();
    while read.len() < 4 {
        let topology = model.topology();
        let next = plan(&topology, &target);
        read.push(next.sentence(&topology));
        for step in &next.steps {
            model.apply(step);
        }
    }
    assert_eq!(
        read,
        [
            "introducing the nodes to each other: introducing redis-0 to redis-1",
            "assigning slots 0-16383: assigning slots 0-16383 to redis-0",
            "making redis-1 replicas: making redis-1 a replica of redis-0",
            "everything is as it should be",
        ]
    );
}

#[test]
fn every_step_reads_as_a_sentence() {
    let topology = Model::fresh(2, 1).topology();
    let slots: SlotSet = (3..7).collect();
    for (step, sentence) in [
        (Step::Meet { on: 0, peer: 1 }, "introducing redis-0 to redis-1"),
        (Step::Release { on: 0, slots: slots.clone() }, "releasing slots 3-6 of the empty redis-0"),
        (Step::Assign { on: 0, slots: slots.clone() }, "assigning slots 3-6 to redis-0"),
        (Step::Replicate { replica: 1, master: 0 }, "making redis-1 a replica of redis-0"),
        (Step::Forget { on: 0, id: NodeId("0123456789abcdef".into()) }, "forgetting node 01234567 on redis-0"),
        (Step::Failover { replica: 1 }, "failing over to redis-1"),
        (Step::TakeOver { replica: 1 }, "letting redis-1 take over without a vote"),
        (Step::SetNodeTimeout { on: 1, milliseconds: 5000 }, "setting the node timeout of redis-1 to 5000 ms"),
        (Step::Close { on: 0, slots: slots.clone() }, "closing slots 3-6 on redis-0"),
        (Step::Migrate { from: 0, to: 1, slots }, "moving slots 3-6 from redis-0 to redis-1"),
    ] {
        assert_eq!(step.sentence(&topology).to_string(), sentence);
    }
}

#[test]
fn strangers_with_the_same_slots_do_not_meet() {
    let target = Target { shards: 2, replicas_per_shard: 0 };
    let mut model = Model::fresh(2, 1);
    for node in &mut model.nodes {
        node.slots = SlotSet::all();
        node.keys = [7].into_iter().collect();
    }
    let next = plan(&model.topology(), &target);
    assert!(next.steps.is_empty());
    assert!(matches!(next.outlook, Outlook::Stuck(message) if message.contains("redis-0 and redis-1")));
}

#[test]
fn nothing_is_given_up_while_a_pod_is_missing() {
    let target = Target { shards: 3, replicas_per_shard: 0 };
    let model = Model::formed(&target, 3);
    let mut topology = model.topology();
    topology.members.remove(1);
    let dead = &model.nodes[1].id;
    for observed in &mut topology.members {
        let view = observed.view.as_mut().expect("a view");
        let peers = view.peers.iter_mut().filter(|peer| peer.id.0 == *dead);
        peers.for_each(|peer| (peer.failing, peer.connected) = (true, false));
    }
    let next = plan(&topology, &target);
    assert!(next.steps.is_empty());
    assert!(matches!(next.outlook, Outlook::Stuck(message) if message.contains("5462-10922")));
}

#[test]
fn a_replica_without_its_masters_keys_never_takes_over() {
    let target = Target { shards: 1, replicas_per_shard: 1 };
    let mut model = Model::formed(&target, 1);
    model.nodes[1].keys = SlotSet::default();
    let next = plan(&model.topology(), &target);
    assert!(next.steps.is_empty());
    assert!(matches!(next.outlook, Outlook::Stuck(message) if message.contains("less than half of its keys")));
}

#[test]
fn more_shards_than_wanted_are_left_alone() {
    let model = Model::formed(&Target { shards: 3, replicas_per_shard: 1 }, 3);
    let next = plan(&model.topology(), &Target { shards: 2, replicas_per_shard: 2 });
    assert!(next.steps.is_empty());
    assert!(matches!(next.outlook, Outlook::Stuck(message) if message.contains("set shards: 3")));
}

#[test]
fn cluster_nodes_is_read_as_redis_writes_it() {
    let nodes = "aa 10.0.0.1:6379@16379,,shard-id=x myself,master - 0 0 3 connected 0-1 5 [7->-bb] [9-<-cc]\n\
                 bb fd00::2:6379@16379,host slave,fail? aa 0 0 3 disconnected\n\
                 cc :0@0 master,noaddr - 0 0 2 disconnected 10-11\n\
                 dd 10.0.0.4:6379@16379 handshake - 0 0 0 disconnected\n";
    let view =
        View::parse(nodes, "cluster_state:ok\r\n", "role:master\r\nmaster_repl_offset:12\r\n", 4).expect("readable");
    assert_eq!(view.myself.slots, [0, 1, 5].into_iter().collect());
    assert_eq!(view.open.len(), 2);
    assert_eq!(view.peers.len(), 2, "a handshake is not yet a node");
    assert_eq!(view.peers[0].address, Some("[fd00::2]:6379".parse().expect("an address")));
    assert!(view.peers[0].failing && view.peers[1].address.is_none());
    assert!(view.state_ok && view.replication.offset == 12);
    assert!(View::parse("nonsense", "", "", 0).is_err());
}

#[test]
fn a_slot_set_reads_as_ranges() {
    let slots: SlotSet = [0, 1, 2, 7, 16383].into_iter().collect();
    assert_eq!(slots.to_string(), "0-2, 7, 16383");
    assert_eq!(slots.ranges(), [(0, 2), (7, 7), (16383, 16383)]);
    assert_eq!(SlotSet::all().len(), SLOTS);
    assert!(SlotSet::all().difference(&SlotSet::all()).is_empty());
}

#[test]
fn placement_spreads_masters_and_keeps_copies_apart() {
    let places = [Some("a"), Some("b"), Some("c"), Some("a"), Some("b"), Some("c")];
    assert_eq!(choose(&[], &places, 3), [0, 1, 2]);
    let attached = attach(&places[3..], &places[..3], &[1, 1, 1]);
    assert!(attached.iter().enumerate().all(|(pod, shard)| places[pod + 3] != places[*shard]), "{attached:?}");
    // a holds two masters whose replicas are on b, which holds the third; its replica is on c.
    let masters = [Some("a"), Some("a"), Some("b")];
    let hops = [(Some("a"), Some("b"), 3), (Some("a"), Some("b"), 4), (Some("b"), Some("c"), 5)];
    assert_eq!(relieve(&masters, &hops, &places), Some(5));
    assert_eq!(relieve(&masters[..2], &[], &places[..2]), None);
}
