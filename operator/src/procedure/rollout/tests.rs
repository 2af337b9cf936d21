//! What goes when.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

fn part(component: Component, outdated: &[bool]) -> Part {
    let pod = |(ordinal, outdated): (usize, &bool)| Pod {
        name: format!("{component}-{ordinal}"),
        uid: format!("{component}-{ordinal}"),
        outdated: *outdated,
        state: State::Ready,
        ..Pod::default()
    };
    Part { component, wanted: outdated.len(), pods: outdated.iter().enumerate().map(pod).collect() }
}

fn group(leader: &str, heirs: &[&str]) -> Group {
    Group { leader: leader.to_owned(), heirs: heirs.iter().map(|heir| (*heir).to_owned()).collect() }
}

fn primary(pod: &str, heirs: &[&str]) -> Roles {
    Roles { groups: vec![group(pod, heirs)], succession: Succession::Before, ..Roles::default() }
}

fn next(parts: &[Part], roles: impl Fn(&Part) -> Roles) -> Option<Step> {
    next_with(parts, roles, None)
}

fn next_with(parts: &[Part], roles: impl Fn(&Part) -> Roles, wish: Option<&Wish>) -> Option<Step> {
    let candidates = candidates(parts, wish).into_iter().map(|candidate| (candidate, roles(candidate.1)));
    step(parts, &candidates.collect::<Vec<_>>(), wish)
}

fn step_of(parts: &[Part], roles: &Roles) -> String {
    next(parts, |_| roles.clone()).map_or_else(|| "nothing".to_owned(), |step| step.to_string())
}

#[test]
fn replicas_go_one_by_one_and_the_primary_last_by_a_switchover() {
    let mut all = vec![part(Component::DATABASE, &[true, true, true])];
    let roles = primary("database-1", &["database-0", "database-2"]);
    assert_eq!(step_of(&all, &roles), "replacing database-0 of database");
    all[0].pods[0].state = State::Ending;
    assert_eq!(step_of(&all, &roles), "waiting for database: database-0 is not ready");
    all[0].pods.remove(0);
    assert_eq!(step_of(&all, &roles), "waiting for database: 2 of 3 pods are there");
    all[0] = part(Component::DATABASE, &[false, true, true]);
    assert_eq!(step_of(&all, &roles), "replacing database-2 of database");
    all[0] = part(Component::DATABASE, &[false, true, false]);
    assert_eq!(step_of(&all, &roles), "database: handing over from database-1 to database-0");
    assert_eq!(step_of(&all, &primary("database-0", &["database-2"])), "replacing database-1 of database");
    let lagging = Roles { unsettled: Some("lags".into()), ..roles.clone() };
    assert_eq!(step_of(&all, &lagging), "waiting for database: lags");
    assert_eq!(step_of(&[part(Component::DATABASE, &[false])], &roles), "nothing");
    assert_eq!(
        step_of(&[part(Component::DATABASE, &[true])], &primary("database-0", &[])),
        "replacing database-0 of database"
    );
}

#[test]
fn a_pod_that_does_not_start_is_replaced_first_whatever_else_waits() {
    let mut all = vec![part(Component::CACHE, &[true, true]), part(Component::SESSIONS, &[true, false])];
    all[1].pods[0].state = State::Starting;
    let roles = Roles::unserved("a shard has no master".into());
    assert_eq!(step_of(&all, &roles), "replacing sessions-0 of sessions");
    all[1].pods[0].outdated = false;
    assert_eq!(step_of(&all, &roles), "waiting for sessions: sessions-0 is not ready");
}

#[test]
fn a_drained_node_is_emptied_though_its_volumes_cannot_move() {
    let mut all = vec![part(Component::SESSIONS, &[false; 4]), part(Component::DATABASE, &[true, false])];
    let shards = Roles {
        groups: vec![group("sessions-0", &["sessions-2"]), group("sessions-1", &["sessions-3"])],
        unsettled: Some("not healthy".into()),
        ..Roles::default()
    };
    // A master and another shard's replica are on the node.
    all[0].pods[1].evicted = true;
    all[0].pods[2].evicted = true;
    assert_eq!(step_of(&all, &shards), "replacing sessions-2 of sessions", "replicas first, and before the rollout");
    all[0].pods[2] = Pod { evicted: false, state: State::Starting, ..all[0].pods[2].clone() };
    assert_eq!(step_of(&all, &shards), "waiting for sessions: sessions-2 is not ready");
    all[0].pods[2].state = State::Stranded;
    assert_eq!(step_of(&all, &shards), "replacing sessions-1 of sessions", "it hands over by itself");
    all[0].pods[1] = Pod { evicted: false, state: State::Stranded, ..all[0].pods[1].clone() };
    assert_eq!(step_of(&all, &shards), "waiting for sessions: sessions-1 is taken by no node", "the rollout");

    // The next node is drained, too, before the first is back.
    all[0].pods[3].evicted = true;
    let shards = Roles { groups: vec![group("sessions-0", &[]), group("sessions-3", &[])], ..Roles::default() };
    let held = "waiting for sessions: sessions-3 stays, since nobody is there who could take over from it";
    assert_eq!(step_of(&all, &shards), held);
    assert_eq!(
        step_of(&all, &Roles::unserved("slots are unserved".into())),
        "waiting for sessions: slots are unserved"
    );
}

#[test]
fn an_evicted_primary_hands_over_and_a_replica_that_commits_need_stays() {
    let mut all = vec![part(Component::DATABASE, &[false, false])];
    all[0].pods[0].evicted = true;
    let roles = primary("database-0", &["database-1"]);
    assert_eq!(step_of(&all, &roles), "database: handing over from database-0 to database-1");
    let switched = primary("database-1", &["database-0"]);
    assert_eq!(step_of(&all, &switched), "replacing database-0 of database");
    let strict = Roles { least_heirs: 1, ..switched };
    let held = "waiting for database: database-0 stays, since commits wait for a replica and there is no other";
    assert_eq!(step_of(&all, &strict), held);
    all[0].pods[1].evicted = true;
    assert_eq!(step_of(&all, &roles), "replacing database-1 of database", "it may come back elsewhere");

    let mut single = part(Component::DATABASE, &[false]);
    single.pods[0].evicted = true;
    assert_eq!(step_of(&[single], &primary("database-0", &[])), "replacing database-0 of database");
}

#[test]
fn a_primary_that_was_deleted_hands_over_before_it_stops() {
    let mut all = vec![part(Component::SESSIONS, &[false; 2]), part(Component::DATABASE, &[false; 3])];
    let roles = primary("database-0", &["database-1", "database-2"]);
    let roles_of = |part: &Part| {
        let is_database = part.component == Component::DATABASE;
        if is_database { roles.clone() } else { Roles::unserved("no pod has an address".to_owned()) }
    };
    let step_of = |all: &[Part]| next(all, roles_of).map(|step| step.to_string());
    all[1].pods[2].state = State::Ending;
    assert_eq!(step_of(&all), None, "a replica");
    all[1].pods[0].state = State::Ending;
    all[0].pods[1].evicted = true;
    let hands_over = Some("database: handing over from database-0 to database-1".to_owned());
    assert_eq!(step_of(&all), hands_over, "others are asked to go meanwhile");
    all[0].pods[0].state = State::Ending;
    assert_eq!(step_of(&all), hands_over, "nobody knows how the others do");
    all[0] = part(Component::SESSIONS, &[false; 2]);
    all[1].pods[1].state = State::Ending;
    assert_eq!(step_of(&all), None, "all go");

    let mut shards = part(Component::SESSIONS, &[false; 2]);
    shards.pods[0].state = State::Ending;
    let by_itself = Roles { groups: vec![group("sessions-0", &["sessions-1"])], ..Roles::default() };
    assert_eq!(next(&[shards], |_| by_itself.clone()), None);
}

#[test]
fn another_member_leads_where_somebody_wants_it() {
    let mut all = vec![part(Component::DATABASE, &[true, false, false])];
    let roles = primary("database-0", &["database-2", "database-1"]);
    let step_for = |all: &[Part], to: Option<&str>| {
        let wish = Wish { component: Component::DATABASE, to: to.map(str::to_owned) };
        next_with(all, |_| roles.clone(), Some(&wish)).unwrap().to_string()
    };
    assert_eq!(step_for(&all, None), "database: handing over from database-0 to database-2", "before the rollout");
    assert_eq!(step_for(&all, Some("database-1")), "database: handing over from database-0 to database-1");
    assert_eq!(step_for(&all, Some("database-0")), "database: handing over from database-0 to database-0");
    let not_yet = Some("no commit waits for database-1 yet".to_owned());
    let joining = Roles { joining: not_yet.clone(), unsettled: not_yet, ..roles.clone() };
    let wish = Wish { component: Component::DATABASE, to: None };
    let step = next_with(&all, |_| joining.clone(), Some(&wish)).unwrap().to_string();
    assert_eq!(step, "waiting for database: no commit waits for database-1 yet");
    let goes_on = "database: handing over from database-0 to database-2";
    assert_eq!(step_for(&all, Some("database-7")), goes_on, "the rollout goes on beside a wish for nobody");
    all[0].pods[0].outdated = false;
    let none = "waiting for database: database-7 is none that could take over";
    assert_eq!(step_for(&all, Some("database-7")), none);
    all[0].pods[1].evicted = true;
    assert_eq!(step_for(&all, Some("database-1")), "replacing database-1 of database", "the drain comes first");
}

/// Three shards and a database, spread over nodes whose volumes cannot move.
struct World {
    parts: Vec<Part>,
    /// For each part its groups: the pods that follow each other as leaders.
    groups: Vec<Vec<Vec<usize>>>,
}

impl World {
    fn serves(&self, part: usize, pod: usize) -> bool {
        self.parts[part].pods[pod].state == State::Ready
    }

    fn roles(&self, component: Component) -> Roles {
        let part = self.parts.iter().position(|part| part.component == component).unwrap();
        let groups = self.groups[part].iter().map(|group| {
            let mut alive = group.iter().filter(|pod| self.serves(part, **pod));
            let name = |pod: &usize| self.parts[part].pods[*pod].name.clone();
            Group { leader: alive.next().map(name).unwrap_or_default(), heirs: alive.map(name).collect() }
        });
        let succession = if component == Component::DATABASE { Succession::Before } else { Succession::ByItself };
        Roles { groups: groups.collect(), succession, ..Roles::default() }
    }
}

proptest! {
    #[test]
    fn whichever_pods_are_evicted_every_group_goes_on_serving(evicted in prop::collection::vec(any::<bool>(), 9)) {
        let mut parts = vec![part(Component::CACHE, &[false; 6]), part(Component::DATABASE, &[false; 3])];
        for (pod, evicted) in parts.iter_mut().flat_map(|part| &mut part.pods).zip(&evicted) {
            pod.evicted = *evicted;
        }
        let mut world = World { parts, groups: vec![vec![vec![0, 3], vec![1, 4], vec![2, 5]], vec![vec![0, 1, 2]]] };
        while let Some(Step { component, act, .. }) = next(&world.parts, |part| world.roles(part.component)) {
            let part = world.parts.iter().position(|part| part.component == component).unwrap();
            let find = |name: &str| world.parts[part].pods.iter().position(|pod| pod.name == name).unwrap();
            match act {
                Act::Replace { pod, .. } => {
                    let index = find(&pod);
                    let pod = &mut world.parts[part].pods[index];
                    prop_assert!(pod.evicted && pod.state == State::Ready);
                    *pod = Pod { evicted: false, state: State::Stranded, ..pod.clone() };
                }
                Act::HandOver { from, to } => {
                    let (from, to) = (find(&from), find(&to));
                    prop_assert!(world.serves(part, to) && !world.parts[part].pods[to].evicted);
                    let group = world.groups[part].iter_mut().find(|group| group.contains(&from)).unwrap();
                    group.retain(|pod| *pod != to);
                    group.insert(0, to);
                }
                Act::Await { .. } | Act::Retry { .. } => break,
            }
            for (part, groups) in world.groups.iter().enumerate() {
                prop_assert!(groups.iter().all(|group| group.iter().any(|pod| world.serves(part, *pod))));
            }
        }
        // Only those are left that nobody could take over from.
        for (part, groups) in world.groups.iter().enumerate() {
            for group in groups {
                let pods = || group.iter().map(|pod| &world.parts[part].pods[*pod]);
                prop_assert!(pods().filter(|pod| pod.evicted).count() <= usize::from(!pods().any(Pod::stays)));
            }
        }
    }

    #[test]
    fn one_pod_at_a_time_and_each_once(outdated in prop::collection::vec(prop::collection::vec(any::<bool>(), 1..5), 3)) {
        let components = [Component::CACHE, Component::SESSIONS, Component::DATABASE];
        let mut parts: Vec<Part> = components.into_iter().zip(&outdated).map(|(component, pods)| part(component, pods)).collect();
        let mut leader = "database-0".to_owned();
        let mut replaced = BTreeSet::new();
        let roles = |part: &Part, leader: &str| match part.component {
            Component::DATABASE => {
                let heirs = part.pods.iter().filter(|pod| pod.name != leader && !pod.outdated);
                primary(leader, &heirs.map(|pod| &*pod.name).collect::<Vec<_>>())
            }
            component => Roles { groups: vec![group(&format!("{component}-0"), &[])], ..Roles::default() },
        };
        while let Some(Step { component, act, .. }) = next(&parts, |part| roles(part, &leader)) {
            match act {
                Act::Replace { pod, .. } => {
                    prop_assert!(replaced.insert(pod.clone()), "{} was replaced twice", pod);
                    let part = parts.iter_mut().find(|part| part.component == component).unwrap();
                    prop_assert!(component != Component::DATABASE || pod != leader || part.pods.len() == 1);
                    part.pods.iter_mut().find(|one| one.name == pod).unwrap().outdated = false;
                }
                Act::HandOver { to, .. } => leader = to,
                Act::Await { why } | Act::Retry { why } => prop_assert!(false, "{}", why),
            }
        }
        prop_assert_eq!(replaced.len(), outdated.iter().flatten().filter(|outdated| **outdated).count());
    }
}
