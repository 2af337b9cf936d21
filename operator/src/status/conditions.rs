//! The conditions, and what they add up to.

use std::{collections::BTreeMap, fmt::Write};

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use taskplatform_blueprint::{Component, Draft};
use taskplatform_crds::{Durability, ProcedureStatus, Size};

use super::{
    Facts, Hold, RELEASE,
    verdict::{self, Verdict},
};
use crate::{
    keepers::patroni,
    volumes::{Growth, Room},
    world::Child,
};

/// The conditions, which keep the time of their last transition.
pub(super) struct Conditions {
    pub(super) list: Vec<Condition>,
    generation: Option<i64>,
    now: Timestamp,
}

impl Conditions {
    pub(super) fn of(draft: &Draft, now: Timestamp) -> Self {
        let list = draft.status().map(|status| status.conditions.clone()).unwrap_or_default();
        Self { list, generation: Some(draft.generation()), now }
    }

    pub(super) fn set(&mut self, type_: &str, status: &str, reason: &str, message: &str) {
        let before = self.list.iter().position(|condition| condition.type_ == type_);
        let last_transition_time = match before.map(|at| &self.list[at]) {
            Some(condition) if condition.status == status => condition.last_transition_time.clone(),
            _ => Time(self.now),
        };
        let condition = Condition {
            type_: type_.to_owned(),
            status: status.to_owned(),
            reason: reason.to_owned(),
            message: message.to_owned(),
            observed_generation: self.generation,
            last_transition_time,
        };
        match before {
            Some(at) => self.list[at] = condition,
            None => self.list.push(condition),
        }
    }

    /// Ready: a task can be written and read through the gateway.
    pub(super) fn serving(&mut self, gateway: Option<&Result<(), String>>, verdicts: &[(Component, Verdict)]) {
        let waiting: Vec<&(Component, Verdict)> = verdicts.iter().filter(|(_, verdict)| verdict.is_err()).collect();
        let list = waiting.iter().map(|(component, _)| component.title()).collect::<Vec<_>>().join(",");
        let details = waiting.iter().filter_map(|(component, verdict)| {
            verdict.as_ref().err().map(|(_, message)| format!("{component}: {message}"))
        });
        let details = details.collect::<Vec<_>>().join("; ");
        match gateway {
            Some(Ok(())) if waiting.is_empty() => {
                self.set("Ready", "True", "Serving", "A task can be written and read through the gateway.");
            }
            Some(Ok(())) => {
                let message =
                    format!("A task can be written and read through the gateway. Not as it should be: {details}");
                self.set("Ready", "True", &format!("Degraded:{list}"), &message);
            }
            Some(Err(error)) => {
                let message = if details.is_empty() { error.clone() } else { format!("{error}; {details}") };
                let reason =
                    if waiting.is_empty() { "GatewayDoesNotServe".into() } else { format!("WaitingFor:{list}") };
                self.set("Ready", "False", &reason, &message);
            }
            None => {
                let reason =
                    if waiting.is_empty() { "WaitingFor:Gateway".into() } else { format!("WaitingFor:{list}") };
                self.set("Ready", "False", &reason, &details);
            }
        }
    }

    /// Reconciling: something is still on its way to what the spec says.
    pub(super) fn settled(
        &mut self,
        facts: &Facts<'_>,
        verdicts: &[(Component, Verdict)],
        late: Option<&ProcedureStatus>,
    ) {
        let failure = facts.failures.first();
        let unready = verdicts.iter().find_map(|(component, verdict)| Some((component, verdict.as_ref().err()?)));
        match (facts.hold, failure, unready) {
            (Some(Hold::Paused), ..) => {
                let message = "spec.paused is true: the platform is only looked at until it is false.";
                self.set("Reconciling", "False", "Paused", message);
            }
            (Some(Hold::Newer(_)), ..) => {
                self.set("Reconciling", "False", "NewerSpec", "Nothing is applied: see Stalled.");
            }
            (Some(Hold::OlderOperator(_)), ..) => {
                self.set("Reconciling", "False", "OlderOperator", "Nothing is applied: see Stalled.");
            }
            (Some(Hold::UpgradeWaits), ..) => {
                let message = format!(
                    "the operator is of release {RELEASE} now: this platform follows when those before it have settled (UPGRADES_AT_ONCE). What runs is looked after meanwhile."
                );
                self.set("Reconciling", "True", "UpgradeWaits", &message);
            }
            (None, Some(failure), _) => {
                let messages: Vec<&str> = facts.failures.iter().map(|failure| failure.message.as_str()).collect();
                self.set("Reconciling", "True", failure.reason, &messages.join("; "));
            }
            (None, None, Some(_)) if let Some(late) = late => {
                let message = format!(
                    "{} since {}: look at that pod's log and events. Taking back the last change of the spec takes back what was rolled out",
                    late.step, late.since
                );
                self.set("Reconciling", "True", "RolloutStuck", &message);
            }
            (None, None, Some((component, (reason, message)))) => {
                self.set("Reconciling", "True", reason, &format!("{component}: {message}"));
            }
            (None, None, None) => self.set("Reconciling", "False", "Settled", "Everything is as the spec says."),
        }
    }

    /// Stalled: it takes a person to go on.
    pub(super) fn stalled(&mut self, hold: Option<&Hold>) {
        match hold {
            Some(Hold::Newer(fields)) => {
                let message = format!(
                    "the spec has fields that this operator does not know ({}): upgrade the operator to the release of its definition. What runs is looked after; nothing is applied until then.",
                    fields.join(", ")
                );
                self.set("Stalled", "True", "NewerSpec", &message);
            }
            Some(Hold::OlderOperator(release)) => {
                let message = format!(
                    "release {release} of the operator has applied it, and this one is {RELEASE}: it takes nothing back. Upgrade the operator or, to go back all the same, empty status.release (kubectl patch --subresource=status). What runs is looked after."
                );
                self.set("Stalled", "True", "OlderOperator", &message);
            }
            Some(Hold::Paused | Hold::UpgradeWaits) | None => {
                self.set("Stalled", "False", "Valid", "The spec can be built.");
            }
        }
    }

    /// Whether a commit is on as many members as the spec says.
    pub(super) fn durable(&mut self, durability: Durability, cluster: &patroni::Cluster) {
        let type_ = "DatabaseDurable";
        match (durability, cluster.synchronous()) {
            (Durability::Async, _) => self.set(
                type_,
                "False",
                "Asynchronous",
                "A commit is on the primary alone when it is acknowledged: the last ones may be lost with it.",
            ),
            (_, 0) if cluster.primary().is_none() => {}
            (Durability::Sync, 0) => self.set(
                type_,
                "False",
                "NoReplica",
                "No replica streams: a commit is on the primary alone until one does.",
            ),
            (Durability::SyncStrict, 0) => {
                self.set(type_, "False", "WritesWait", "No replica streams: writes wait until one does.");
            }
            (_, replicas) => {
                let message = format!("A commit is on the primary and one of {replicas} replicas.");
                if cluster.commits_on_one_node() {
                    let message =
                        format!("{message} They are on the primary's own node: no other has one that streams.");
                    self.set(type_, "True", "OneNode", &message);
                } else {
                    self.set(type_, "True", "QuorumCommit", &message);
                }
            }
        }
    }

    /// Whether the volumes of the database have room, and what is done where they have not.
    pub(super) fn room(&mut self, room: &Room) {
        let type_ = "VolumesHaveRoom";
        let Room { pod, volume, growth } = room;
        let size = Size::mebibytes(volume.size);
        let mut told = format!("the volume of {pod} is {} % full, of {size}", volume.used_percent());
        match volume.full_in_days {
            Some(0) => told.push_str(", and at its rate will be full within a day"),
            Some(days) => _ = write!(told, ", and at its rate will be full in {days} d"),
            None => {}
        }
        let (reason, way) = match growth {
            Growth::Unneeded if !room.is_full_soon() => {
                return self.set(type_, "True", "Room", &format!("Of all the database's volumes {told}."));
            }
            Growth::Unneeded | Growth::Unasked => (
                "FillsUp",
                "raise spec.database.storage.size, or have it grow by itself (spec.database.storage.autogrow)"
                    .to_owned(),
            ),
            Growth::AtLimit(limit) => {
                ("AtLimit", format!("raise spec.database.storage.autogrow.limit, which is {limit}"))
            }
            Growth::Impossible(class) => (
                "CannotGrow",
                format!(
                    "StorageClass {class:?} does not let volumes grow (allowVolumeExpansion). Where the storage can, set that; otherwise create a TaskPlatform with larger volumes, and move the data there"
                ),
            ),
            Growth::To(size) => ("Growing", format!("all of them grow to {size}")),
        };
        if volume.is_full {
            let message =
                format!("{told}: PostgreSQL takes no writes there until there is room; reads go on. Way out: {way}");
            return self.set(type_, "False", "Full", &message);
        }
        self.set(type_, "False", reason, &format!("{told}: {way}"));
    }

    /// Whether the loss of any one node would leave the platform serving, once what can fail over has.
    pub(super) fn survives_node_loss(&mut self, lost: &BTreeMap<String, Vec<String>>) {
        let type_ = "SurvivesNodeLoss";
        if lost.is_empty() {
            return self.set(
                type_,
                "True",
                "Spread",
                "No node holds all pods of a part, or a shard with all its replicas.",
            );
        }
        let nodes: Vec<String> =
            lost.iter().map(|(node, lost)| format!("with node {node} would be lost: {}", lost.join(", "))).collect();
        let message = format!(
            "{}. Give the cluster more nodes; where there are enough, delete one of the pods that are together, and it is placed anew",
            nodes.join("; ")
        );
        self.set(type_, "False", "Together", &message);
    }

    pub(super) fn component(&mut self, component: Component, verdict: &Verdict) {
        self.part(&component.title(), verdict);
    }

    fn part(&mut self, title: &str, verdict: &Verdict) {
        let type_ = format!("{title}Ready");
        match verdict {
            Ok(message) => self.set(&type_, "True", "AsDesired", message),
            Err((reason, message)) => self.set(&type_, "False", reason, message),
        }
    }

    /// Says whether the autoscaler works, which metrics are in force, and whether the API server keeps the tolerances.
    pub(super) fn autoscaler(&mut self, autoscaler: &Child, requests_per_second: bool) {
        self.part("Autoscaler", &verdict::of_autoscaler(autoscaler));
        let data = autoscaler.data();
        let behavior = &data["spec"]["behavior"];
        let kept = ["scaleUp", "scaleDown"].iter().all(|direction| behavior[*direction]["tolerance"].is_string());
        let metrics = if requests_per_second {
            "CPU, memory and requests per second are in force."
        } else {
            "CPU and memory are in force. Requests per second are not: no provider serves the pods' metric http_requests_per_second; install one, such as prometheus-adapter."
        };
        if kept {
            self.set("AutoscalingPolicyDegraded", "False", "AsDocumented", metrics);
        } else {
            let message = format!(
                "The API server does not keep the tolerance of a HorizontalPodAutoscaler, so it scales at ±10 % of the targets instead of at the thresholds: upgrade to Kubernetes 1.35 or enable HPAConfigurableTolerance. {metrics}"
            );
            self.set("AutoscalingPolicyDegraded", "True", "ToleranceDropped", &message);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use taskplatform_crds::TaskPlatform;

    use super::*;

    fn durable(durability: Durability, roles: &[&str]) -> Option<(String, String)> {
        let members = roles.iter().map(|role| json!({"name": "a-0", "role": role, "state": "running"}));
        let cluster = patroni::Cluster::read(&json!({"members": members.collect::<Vec<_>>()}));
        let draft = Draft::from(&TaskPlatform::new("a", taskplatform_crds::TaskPlatformSpec::default()));
        let mut conditions = Conditions::of(&draft, Timestamp::UNIX_EPOCH);
        conditions.durable(durability, &cluster);
        conditions.list.pop().map(|condition| (condition.status, condition.reason))
    }

    #[test]
    fn a_commit_is_durable_while_a_replica_has_it() {
        let told = |status: &str, reason: &str| Some((status.to_owned(), reason.to_owned()));
        let with_a_replica = ["leader", "quorum_standby", "replica"];
        assert_eq!(durable(Durability::Sync, &with_a_replica), told("True", "QuorumCommit"));
        assert_eq!(durable(Durability::SyncStrict, &with_a_replica), told("True", "QuorumCommit"));
        assert_eq!(durable(Durability::Async, &["leader", "replica"]), told("False", "Asynchronous"));
        assert_eq!(durable(Durability::Sync, &["leader", "replica"]), told("False", "NoReplica"));
        assert_eq!(durable(Durability::SyncStrict, &["leader"]), told("False", "WritesWait"));
        assert_eq!(durable(Durability::Sync, &["replica"]), None, "nothing is known while nobody leads");
    }
}
