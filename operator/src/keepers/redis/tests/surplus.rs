//! Pods that are to go: when the StatefulSet may let them.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::model::Model;
use crate::keepers::redis::{
    Health, Target,
    plan::{Outlook, Plan, Step, plan},
    slots::SlotSet,
    topology::Topology,
};

const LARGER: Target = Target { shards: 3, replicas_per_shard: 1 };
const SMALLER: Target = Target { shards: 3, replicas_per_shard: 0 };

/// Three shards of which the pods 3 to 5 are to go, after the planner has moved all slots off them.
fn drained() -> Model {
    let mut model = Model::formed(&LARGER, 3);
    assert_eq!(model.settle(&SMALLER, |_| ()), Outlook::Settled);
    model
}

fn look(topology: &Topology) -> (Plan, bool) {
    let plan = plan(topology, &SMALLER);
    let health = Health::new(topology, &SMALLER, plan.outlook.clone());
    (plan, health.surplus_drained)
}

fn silence(topology: &mut Topology, pod: usize) {
    topology.members[pod].view = Err("connection refused".to_owned());
}

/// The pods have no address now: they are being moved to another Kubernetes node, or stopped.
fn remove(topology: &mut Topology, pods: &[usize]) {
    let gone: BTreeSet<String> = pods.iter().map(|pod| format!("redis-{pod}")).collect();
    topology.members.retain(|observed| !gone.contains(&observed.member.pod));
}

/// Nobody reaches these nodes any more.
fn fail(topology: &mut Topology, model: &Model, nodes: &[usize]) {
    for observed in &mut topology.members {
        let Ok(view) = &mut observed.view else { continue };
        for peer in view.peers.iter_mut().filter(|peer| nodes.iter().any(|node| model.nodes[*node].id == peer.id.0)) {
            (peer.failing, peer.connected) = (true, false);
        }
    }
}

#[test]
fn a_surplus_that_serves_nothing_may_go() {
    assert_eq!(look(&drained().topology()), (Plan { steps: Vec::new(), outlook: Outlook::Settled }, true));
}

#[test]
fn a_surplus_pod_that_does_not_answer_keeps_the_others() {
    let model = drained();
    let mut topology = model.topology();
    silence(&mut topology, 4);
    for failed in [false, true] {
        if failed {
            fail(&mut topology, &model, &[4]);
        }
        let (next, drained) = look(&topology);
        assert!(!drained && next.steps.is_empty());
        assert!(next.sentence(&topology).contains("redis-4 is to go, but does not answer"), "{next:?}");
    }
}

#[test]
fn a_surplus_pod_that_nobody_knows_and_that_does_not_answer_keeps_the_others() {
    let mut model = drained();
    let stranger = model.nodes[5].id.clone();
    for node in &mut model.nodes {
        node.knows.remove(&stranger);
    }
    let mut topology = model.topology();
    silence(&mut topology, 5);
    assert!(!look(&topology).1);
}

#[test]
fn a_surplus_pod_that_stops_is_waited_for() {
    let mut topology = drained().topology();
    remove(&mut topology, &[5]);
    let (next, drained) = look(&topology);
    assert!(!drained && next.steps.is_empty());
    assert!(next.sentence(&topology).contains("still connected"), "{next:?}");
}

#[test]
fn a_surplus_pod_that_is_away_is_neither_forgotten_nor_waited_for() {
    let model = drained();
    for away in [&[4][..], &[3, 4, 5]] {
        let mut topology = model.topology();
        remove(&mut topology, away);
        fail(&mut topology, &model, away);
        assert_eq!(look(&topology), (Plan { steps: Vec::new(), outlook: Outlook::Settled }, true));
    }
}

#[test]
fn a_shard_whose_only_copy_is_on_a_surplus_pod_that_is_away_is_not_given_up() {
    let mut model = Model::formed(&LARGER, 3);
    let master = model.pods().into_iter().find(|pod| !model.nodes[*pod].slots.is_empty()).expect("a master");
    let id = model.nodes[master].id.clone();
    let heir = model.pods().into_iter().find(|pod| model.nodes[*pod].master.as_ref() == Some(&id)).expect("a replica");
    model.promote(heir);
    // The pod that stays lost its volume.
    let fresh = Model::fresh(LARGER.members(), 3).nodes.swap_remove(master);
    model.nodes[master] = fresh;
    model.nodes[master].id = "again".to_owned();
    model.meet(master, heir);
    let mut topology = model.topology();
    remove(&mut topology, &[heir]);
    fail(&mut topology, &model, &[heir]);
    let (next, drained) = look(&topology);
    assert!(!drained && next.steps.is_empty(), "{next:?}");
    assert!(matches!(next.outlook, Outlook::Stuck(message) if message.contains("does not answer")));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn nothing_goes_that_serves_a_slot(
        failovers in prop::collection::vec(any::<prop::sample::Index>(), 0..4),
        steps in 0_usize..6,
        hidden in prop::collection::btree_set(3_usize..6, 1..3),
        (away, dead) in any::<(bool, bool)>(),
    ) {
        let mut model = Model::formed(&LARGER, 3);
        for index in failovers {
            let replicas: Vec<usize> = model.pods().into_iter().filter(|pod| model.nodes[*pod].master.is_some()).collect();
            model.promote(replicas[index.index(replicas.len())]);
        }
        for _ in 0..steps {
            for step in plan(&model.topology(), &SMALLER).steps {
                model.apply(&step);
            }
        }
        let mut topology = model.topology();
        let hidden: Vec<usize> = hidden.into_iter().collect();
        if dead {
            fail(&mut topology, &model, &hidden);
        }
        if away {
            remove(&mut topology, &hidden);
        }
        for pod in hidden.iter().filter(|_| !away) {
            silence(&mut topology, *pod);
        }
        let (next, drained) = look(&topology);
        let leaving = model.nodes.iter().skip(3).fold(SlotSet::default(), |slots, node| slots.union(&node.slots));
        prop_assert!(!drained || leaving.is_empty() && away && dead, "{:?}", next);
        let gives_up = |step: &Step| matches!(step, Step::Forget { .. } | Step::Assign { .. } | Step::TakeOver { .. });
        prop_assert!(!next.steps.iter().any(gives_up), "{}", next.sentence(&topology));
    }
}
