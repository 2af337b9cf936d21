//! What to do about PostgreSQL's members, out of what Patroni says of them.

use std::fmt;

use serde_json::{Map, Value, json};
use taskplatform_blueprint::MOST_LAG_TO_LEAD;
use taskplatform_crds::Durability;

use super::cluster::{Cluster, Member, Pending};
use crate::{
    procedure::rollout::{Group, Roles, Succession},
    world::ordinal,
};

/// Settings that PostgreSQL requires to be at least as high on a standby as on its primary. Patroni starts a standby with the primary's
/// values where those are higher, and goes on saying that it waits for a restart.
const AS_HIGH_ON_A_STANDBY: [&str; 5] = [
    "max_connections",
    "max_locks_per_transaction",
    "max_prepared_transactions",
    "max_wal_senders",
    "max_worker_processes",
];

/// Something that the operator does.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Step {
    /// Change the settings that all members share.
    Configure { change: Value },
    /// Restart PostgreSQL on a member, for the settings that wait for it.
    Restart { pod: String, pending: Vec<Pending> },
    /// Have a replica take over in order: the primary is about to go.
    SwitchOver { from: String, to: String },
    /// Make the copy of a replica anew, which does not follow any more.
    Reclone { pod: String },
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Configure { change } => write!(f, "changing PostgreSQL's settings: {change}"),
            Self::Restart { pod, pending } => {
                let changes: Vec<String> = pending.iter().map(ToString::to_string).collect();
                write!(f, "restarting PostgreSQL on {pod} for {}", changes.join(", "))
            }
            Self::Reclone { pod } => write!(f, "making the copy of {pod} anew, which has not followed for minutes"),
            Self::SwitchOver { from, to } => write!(f, "switching over from {from}, which is to go, to {to}"),
        }
    }
}

/// How the database is to be.
pub(super) struct Wanted<'a> {
    pub(super) configuration: &'a Value,
    /// How many members: the ordinals from 0. Those beyond are about to go.
    pub(super) members: i32,
    /// How far behind a replica may be that takes over in order, in bytes.
    pub(super) most_lag: i64,
    /// What a commit waits for.
    pub(super) durability: Durability,
    /// Replicas that run and have not followed the primary for long.
    pub(super) left_behind: &'a [String],
    /// Whether every member has had the time to learn the settings as they are. One that has not does not say that it waits for a restart.
    pub(super) members_know: bool,
}

/// The next steps: the settings first, then at most one restart or switchover, while everything runs.
pub(super) fn plan(cluster: &Cluster, configuration: &Value, wanted: &Wanted<'_>) -> Vec<Step> {
    let Some(primary) = cluster.primary() else {
        return lift(cluster, configuration, wanted).into_iter().collect();
    };
    let change = difference(configuration, wanted.configuration);
    let configure = change.as_object().is_some_and(|change| !change.is_empty()).then_some(Step::Configure { change });
    let leave = ordinal(&primary.pod).is_some_and(|ordinal| ordinal >= wanted.members);
    let next = if leave {
        // The surplus members go only when none of them leads.
        successors(&cluster.members, wanted.most_lag, wanted.members, wanted.durability)
            .into_iter()
            .next()
            .map(|to| Step::SwitchOver { from: primary.pod.clone(), to })
    } else {
        restart(&cluster.members).filter(|_| configure.is_none() && wanted.members_know)
    };
    configure.into_iter().chain(next.or_else(|| reclone(&cluster.members, wanted.left_behind))).collect()
}

/// A replica whose history has parted from the primary's, or that lacks what the primary has not any more, never follows again by itself.
/// One at a time is copied.
fn reclone(members: &[Member], left_behind: &[String]) -> Option<Step> {
    let is_copied = members.iter().any(|member| member.state == "creating replica");
    left_behind.first().filter(|_| !is_copied).map(|pod| Step::Reclone { pod: pod.clone() })
}

/// While a database that was made anew around its volumes has no primary, only a member that has everything may lead. When all are there,
/// they compare themselves, and the most advanced may though it has not.
fn lift(cluster: &Cluster, configuration: &Value, wanted: &Wanted<'_>) -> Option<Step> {
    let running = cluster.members.iter().filter(|member| matches!(member.state.as_str(), "running" | "streaming"));
    let all_are_there = i32::try_from(running.count()).is_ok_and(|running| running >= wanted.members);
    let usual = &wanted.configuration[MOST_LAG_TO_LEAD];
    (all_are_there && configuration[MOST_LAG_TO_LEAD] == 0)
        .then(|| Step::Configure { change: json!({MOST_LAG_TO_LEAD: usual}) })
}

/// Who leads, and who could next. All is whole while every replica streams closely; and where commits wait for a replica, each has to be
/// one that they may wait for: if the others went, they would wait for none. Those on the primary's own node are waited for only while
/// there is no other (see `patroni-awake`).
pub(super) fn roles(members: &[Member], most_lag: i64, stay: i32, durability: Durability) -> Roles {
    let Some(primary) = members.iter().find(|member| member.leads && member.state == "running") else {
        return Roles::unserved("no primary is running".to_owned());
    };
    let replicas = || members.iter().filter(|member| !member.leads);
    let behind = || replicas().find(|member| !streams_closely(member, most_lag));
    let elsewhere = replicas().any(|member| member.synchronous && !member.is_beside(primary));
    let is_left_out = |member: &&Member| !member.synchronous && elsewhere && member.is_beside(primary);
    let unasked =
        replicas().find(|member| streams_closely(member, most_lag) && !member.synchronous && !is_left_out(member));
    let spare = replicas().filter(is_left_out).filter(|member| streams_closely(member, most_lag)).count();
    let joining = unasked
        .filter(|_| durability != Durability::Async)
        .map(|member| format!("no commit waits for {} yet", member.pod));
    let unsettled = behind().map(|member| format!("{} is {}", member.pod, member.state)).or_else(|| joining.clone());
    Roles {
        groups: vec![Group { leader: primary.pod.clone(), heirs: successors(members, most_lag, stay, durability) }],
        succession: Succession::Before,
        // One that is left out steps in at once.
        least_heirs: usize::from(durability == Durability::SyncStrict).saturating_sub(spare),
        unserved: None,
        unsettled,
        joining,
    }
}

/// The replicas that could take over in order, of those that stay: first the one that has read the most. Where commits wait for replicas,
/// Patroni takes none that they do not wait for.
fn successors(members: &[Member], most_lag: i64, stay: i32, durability: Durability) -> Vec<String> {
    let mut fit: Vec<&Member> = members.iter().filter(|member| streams_closely(member, most_lag)).collect();
    fit.retain(|member| member.synchronous || durability == Durability::Async);
    fit.retain(|member| ordinal(&member.pod).is_some_and(|ordinal| ordinal < stay));
    fit.sort_by_key(|member| member.lag);
    fit.into_iter().map(|member| member.pod.clone()).collect()
}

fn streams_closely(member: &Member, most_lag: i64) -> bool {
    member.streams() && member.lag.is_some_and(|lag| lag <= most_lag)
}

/// The member that restarts next. Replicas come before the primary, but not for what is lowered there and must stay as high as on the
/// primary: for that the primary comes first, and they follow.
fn restart(members: &[Member]) -> Option<Step> {
    let all_run = members.iter().all(|member| matches!(member.state.as_str(), "running" | "streaming"));
    let (primary, replicas): (Vec<&Member>, Vec<&Member>) = members.iter().partition(|member| member.leads);
    let primary_waits = primary.iter().any(|member| !member.pending.is_empty());
    let mut replicas = replicas.into_iter();
    let next = replicas
        .find(|member| member.pending.iter().any(|setting| !primary_waits || !follows_the_primary(setting)))
        .or_else(|| primary.into_iter().find(|member| !member.pending.is_empty()));
    next.filter(|_| all_run).map(|member| Step::Restart { pod: member.pod.clone(), pending: member.pending.clone() })
}

fn follows_the_primary(setting: &Pending) -> bool {
    let number = |text: &str| text.parse::<i64>().ok();
    let lowered = number(&setting.before).zip(number(&setting.after)).is_some_and(|(before, after)| after < before);
    AS_HIGH_ON_A_STANDBY.contains(&setting.name.as_str()) && lowered
}

/// What to send so that `current` becomes `desired`: what differs, and null for each setting that is not wanted any more.
fn difference(current: &Value, desired: &Value) -> Value {
    let mut change = Map::new();
    for (key, desired) in desired.as_object().into_iter().flatten() {
        match (&current[key], desired) {
            (current @ Value::Object(_), desired @ Value::Object(_)) => {
                let nested = difference(current, desired);
                if nested.as_object().is_some_and(|nested| !nested.is_empty()) {
                    change.insert(key.clone(), nested);
                }
            }
            (current, desired) if current != desired => {
                change.insert(key.clone(), desired.clone());
            }
            _ => {}
        }
    }
    // Everything below `parameters` is the operator's; elsewhere Patroni has settings of its own.
    if let (Some(current), Some(desired)) = (current["parameters"].as_object(), desired["parameters"].as_object()) {
        let gone = current.keys().filter(|name| !desired.contains_key(*name));
        let gone: Map<String, Value> = gone.map(|name| (name.clone(), Value::Null)).collect();
        if !gone.is_empty() {
            let parameters = change.entry("parameters").or_insert_with(|| json!({}));
            if let Some(parameters) = parameters.as_object_mut() {
                parameters.extend(gone);
            }
        }
    }
    Value::Object(change)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn only_what_differs_is_changed() {
        let current = json!({"ttl": 30, "loop_wait": 5, "postgresql": {"use_pg_rewind": true, "parameters": {"work_mem": "1MB", "jit": "off", "geqo": "on"}}});
        let desired = json!({"ttl": 20, "loop_wait": 5, "postgresql": {"use_pg_rewind": true, "parameters": {"work_mem": "2MB", "jit": "off"}}});
        assert_eq!(
            difference(&current, &desired),
            json!({"ttl": 20, "postgresql": {"parameters": {"work_mem": "2MB", "geqo": null}}})
        );
        assert_eq!(difference(&desired, &desired), json!({}));
    }

    /// Members as PostgreSQL and Patroni have them: a standby starts with what its primary has where that is higher.
    struct Members {
        configured: BTreeMap<&'static str, i64>,
        running: Vec<BTreeMap<&'static str, i64>>,
        restarts: Vec<u32>,
    }

    impl Members {
        fn members(&self) -> Vec<Member> {
            let pending = |running: &BTreeMap<&'static str, i64>| {
                let differs = self.configured.iter().filter(|(name, value)| running[*name] != **value);
                differs
                    .map(|(name, value)| Pending {
                        name: (*name).to_owned(),
                        before: running[name].to_string(),
                        after: value.to_string(),
                    })
                    .collect()
            };
            let member = |(index, running): (usize, &BTreeMap<_, _>)| Member {
                pod: index.to_string(),
                leads: index == 0,
                state: if index == 0 { "running" } else { "streaming" }.to_owned(),
                pending: pending(running),
                ..Member::default()
            };
            self.running.iter().enumerate().map(member).collect()
        }

        fn restart(&mut self, pod: usize) {
            let primary = self.running[0].clone();
            let effective = self.configured.iter().map(|(name, value)| {
                let held = pod > 0 && AS_HIGH_ON_A_STANDBY.contains(name);
                (*name, if held { (*value).max(primary[name]) } else { *value })
            });
            self.running[pod] = effective.collect();
            self.restarts[pod] += 1;
            for name in AS_HIGH_ON_A_STANDBY.iter().filter(|name| self.configured.contains_key(*name)) {
                for standby in &self.running[1..] {
                    assert!(standby[name] >= self.running[0][name], "{name}: a standby below its primary stops");
                }
            }
        }
    }

    proptest! {
        #[test]
        fn each_member_restarts_twice_at_most_and_none_stops(
            before in prop::collection::vec(1_i64..4, 3), after in prop::collection::vec(1_i64..4, 3), replicas in 0_usize..4
        ) {
            let names = ["max_connections", "max_worker_processes", "shared_buffers"];
            let values = |values: &[i64]| names.into_iter().zip(values.iter().copied()).collect::<BTreeMap<_, _>>();
            let running = vec![values(&before); replicas + 1];
            let mut all = Members { configured: values(&after), running, restarts: vec![0; replicas + 1] };
            while let Some(Step::Restart { pod, .. }) = restart(&all.members()) {
                let pod: usize = pod.parse().unwrap();
                all.restart(pod);
                prop_assert!(all.restarts[pod] <= 2, "{} restarts for {:?} -> {:?}", all.restarts[pod], before, after);
            }
            prop_assert!(all.running.iter().all(|running| *running == all.configured));
        }
    }

    #[test]
    fn a_primary_that_is_to_go_hands_over_to_the_best_that_stays() {
        let member = |pod: &str, leads, lag| Member {
            pod: pod.to_owned(),
            leads,
            state: if leads { "running" } else { "streaming" }.to_owned(),
            lag,
            ..Member::default()
        };
        let (empty, most_lag) = (json!({}), 100);
        let wanted = |members| Wanted {
            configuration: &empty,
            members,
            most_lag,
            durability: Durability::Async,
            left_behind: &[],
            members_know: true,
        };
        let cluster = Cluster {
            members: vec![
                member("a-0", false, Some(90)),
                member("a-1", false, Some(10)),
                member("a-2", false, Some(0)),
                member("a-3", true, None),
            ],
            ..Cluster::default()
        };
        assert_eq!(plan(&cluster, &empty, &wanted(4)), []);
        let switch = Step::SwitchOver { from: "a-3".to_owned(), to: "a-1".to_owned() };
        assert_eq!(plan(&cluster, &empty, &wanted(2)), [switch]);
        let far =
            Cluster { members: vec![member("a-0", false, Some(101)), member("a-1", true, None)], ..Cluster::default() };
        assert_eq!(plan(&far, &empty, &wanted(1)), [], "it waits until the other has caught up");
    }

    #[test]
    fn a_replica_that_does_not_follow_any_more_is_copied_anew_one_at_a_time() {
        let member = |pod: &str, state: &str| Member {
            pod: pod.to_owned(),
            leads: pod == "a-0",
            state: state.to_owned(),
            ..Member::default()
        };
        let (empty, left_behind) = (json!({}), ["a-1".to_owned(), "a-2".to_owned()]);
        let wanted = Wanted {
            configuration: &empty,
            members: 3,
            most_lag: 100,
            durability: Durability::Sync,
            left_behind: &left_behind,
            members_know: true,
        };
        let steps = |one: &str, other: &str, primary: &str| {
            let members = vec![member("a-0", primary), member("a-1", one), member("a-2", other)];
            plan(&Cluster { members, ..Cluster::default() }, &empty, &wanted)
        };
        assert_eq!(steps("running", "running", "running"), [Step::Reclone { pod: "a-1".to_owned() }]);
        assert_eq!(steps("creating replica", "running", "running"), []);
        assert_eq!(steps("running", "running", "stopped"), [], "there is nobody to copy from");
    }

    #[test]
    fn the_next_goes_once_commits_wait_for_the_one_before() {
        let member = |pod: &str, leads, synchronous| Member {
            pod: pod.to_owned(),
            leads,
            synchronous,
            state: if leads { "running" } else { "streaming" }.to_owned(),
            lag: Some(0),
            ..Member::default()
        };
        let members = [member("a-0", true, false), member("a-1", false, true), member("a-2", false, false)];
        let unsettled = |members, durability| roles(members, 100, 3, durability).unsettled;
        assert_eq!(unsettled(&members, Durability::Sync).unwrap(), "no commit waits for a-2 yet");
        assert_eq!(unsettled(&members, Durability::Async), None);
        let heirs = |durability| roles(&members, 100, 3, durability).groups.remove(0).heirs;
        assert_eq!(heirs(Durability::Sync), ["a-1"], "Patroni refuses the other");
        assert_eq!(heirs(Durability::Async), ["a-1", "a-2"]);
        let ready = roles(&members[..2], 100, 2, Durability::SyncStrict);
        assert_eq!((ready.unsettled, ready.unserved, ready.least_heirs), (None, None, 1));
        assert_eq!(ready.groups, [Group { leader: "a-0".into(), heirs: vec!["a-1".into()] }]);
    }

    #[test]
    fn a_replica_beside_the_primary_is_not_waited_for_while_there_is_another() {
        let member = |pod: &str, node: &str, leads, synchronous| Member {
            pod: pod.to_owned(),
            leads,
            synchronous,
            node: Some(node.to_owned()),
            state: if leads { "running" } else { "streaming" }.to_owned(),
            lag: Some(0),
            ..Member::default()
        };
        let primary = member("a-0", "one", true, false);
        let beside = member("a-1", "one", false, false);
        let other = |synchronous| member("a-2", "two", false, synchronous);
        let roles = |other| roles(&[primary.clone(), beside.clone(), other], 100, 3, Durability::SyncStrict);
        let settled = roles(other(true));
        assert_eq!((settled.unsettled, settled.joining, settled.least_heirs), (None, None, 0));
        assert_eq!(settled.groups[0].heirs, ["a-2"]);
        assert_eq!(roles(other(false)).unsettled.unwrap(), "no commit waits for a-1 yet");
    }

    #[test]
    fn nothing_restarts_while_a_member_does_not_run() {
        let values = |value| BTreeMap::from([("max_connections", value)]);
        let all = Members { configured: values(100), running: vec![values(200), values(200)], restarts: vec![0, 0] };
        let mut members = all.members();
        assert_eq!(
            restart(&members).unwrap().to_string(),
            "restarting PostgreSQL on 0 for max_connections (200 -> 100)"
        );
        members[1].state = "starting".into();
        assert_eq!(restart(&members), None);
    }
}
