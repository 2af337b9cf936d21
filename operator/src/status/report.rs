//! Writes the status where it has changed, and tells of what has.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{
    Api, Client,
    api::{Patch, PatchParams},
    runtime::events::{Event, EventType, Recorder, Reporter as Author},
};
use serde_json::json;
use taskplatform_blueprint::{Draft, MANAGED_BY};
use taskplatform_crds::{Failover, FailoverCause, TaskPlatformStatus};
use tracing::{info, warn};

use super::is_true;
use crate::{metrics::Metrics, world::Found};

/// The API server refuses longer notes.
const LONGEST_NOTE: usize = 1000;
/// Conditions that are false where all is well.
const BAD: [&str; 2] = ["Stalled", "AutoscalingPolicyDegraded"];

/// The status cannot be written.
#[derive(Debug, thiserror::Error)]
#[error("the status cannot be written")]
pub(crate) struct Error(#[source] Box<kube::Error>);

/// Reports of platforms.
pub(crate) struct Reporter {
    client: Client,
    recorder: Recorder,
    metrics: Arc<Metrics>,
}

impl Reporter {
    pub(crate) fn new(client: Client, identity: &str, metrics: Arc<Metrics>) -> Self {
        let author = Author { controller: MANAGED_BY.into(), instance: Some(identity.to_owned()) };
        Self { recorder: Recorder::new(client.clone(), author), client, metrics }
    }

    /// Writes the status if it has changed, and an event for each condition that has.
    pub(crate) async fn report(&self, draft: &Draft, status: &TaskPlatformStatus) -> Result<(), Error> {
        let conditions = status.conditions.iter().filter(|condition| condition.type_ != "Reconciling");
        let conditions = conditions.map(|condition| (condition.type_.as_str(), is_good(condition)));
        self.metrics.note(draft.namespace(), draft.name(), is_true(status, "Ready"), conditions);
        if draft.status() == Some(status) || !self.write(draft, status).await? {
            return Ok(());
        }
        let failovers = failovers(draft.status(), status);
        for (failover, unled) in &failovers {
            self.metrics.note_failover(draft.namespace(), draft.name(), failover.cause, *unled);
        }
        let failovers = failovers.into_iter().map(|(of, unled)| failover(of, unled));
        for event in transitions(draft.status(), status).into_iter().chain(failovers) {
            info!(
                platform = draft.name(),
                namespace = draft.namespace(),
                reason = event.reason,
                note = event.note,
                "transition"
            );
            if let Err(error) = self.recorder.publish(&event, &draft.object_reference()).await {
                warn!(%error, "an event could not be written");
            }
        }
        Ok(())
    }

    /// Only to the TaskPlatform that was looked at, and not to a new one of its name. Whether that one was there.
    async fn write(&self, draft: &Draft, status: &TaskPlatformStatus) -> Result<bool, Error> {
        // The answer may have a spec that cannot be read.
        let api: Api<Found> = Api::namespaced(self.client.clone(), draft.namespace());
        let patch = serde_json::from_value(json!([
            {"op": "test", "path": "/metadata/uid", "value": draft.uid()},
            {"op": "add", "path": "/status", "value": status},
        ]));
        let patch = patch.map_err(|error| Error(Box::new(kube::Error::SerdeError(error))))?;
        let parameters = PatchParams { field_manager: Some(MANAGED_BY.to_owned()), ..PatchParams::default() };
        match api.patch_status(draft.name(), &parameters, &Patch::Json::<()>(patch)).await {
            Ok(_) => Ok(true),
            Err(kube::Error::Api(answer)) if answer.is_not_found() => Ok(false),
            // The test has failed: this one is gone, another one has its name.
            Err(kube::Error::Api(answer)) if answer.is_invalid() && answer.message.contains("test") => Ok(false),
            Err(error) => Err(Error(Box::new(error))),
        }
    }
}

/// The changes of the primary of which it has become known for how many milliseconds nobody led.
fn failovers<'a>(before: Option<&TaskPlatformStatus>, after: &'a TaskPlatformStatus) -> Vec<(&'a Failover, i64)> {
    let known = |status: &TaskPlatformStatus| -> BTreeSet<i64> {
        explored(status).map(|(failover, _)| failover.timeline).collect()
    };
    let known = before.map(known).unwrap_or_default();
    explored(after).filter(|(failover, _)| !known.contains(&failover.timeline)).collect()
}

fn explored(status: &TaskPlatformStatus) -> impl Iterator<Item = (&Failover, i64)> {
    let all = status.database.iter().flat_map(|database| &database.failovers);
    all.filter_map(|failover| Some((failover, failover.unled_milliseconds?)))
}

fn failover(failover: &Failover, unled: i64) -> Event {
    let Failover { primary, former, cause, timeline, detect_milliseconds, unwritten_milliseconds, lost_bytes, .. } =
        failover;
    let is_wanted = *cause == FailoverCause::Switchover;
    let parts = [
        Some(format!(
            "{primary} leads in place of {former}, on timeline {timeline}. Cause: {cause:?}. Nobody led for {unled} ms"
        )),
        detect_milliseconds.map(|detect| format!(", {detect} ms of them until it was noticed")),
        unwritten_milliseconds.map(|unwritten| format!("; users waited {unwritten} ms for a change of a task")),
        lost_bytes
            .filter(|lost| *lost > 0)
            .map(|lost| format!("; {lost} bytes of WAL of the former primary are not on the new one")),
    ];
    let note = parts.into_iter().flatten().chain([".".to_owned()]).collect::<String>();
    Event {
        type_: if is_wanted { EventType::Normal } else { EventType::Warning },
        reason: if is_wanted { "Switchover" } else { "Failover" }.into(),
        note: Some(note),
        // What has the same action is told as a repetition of the first, with its words.
        action: format!("BeginTimeline{timeline}"),
        secondary: None,
    }
}

/// An event for each condition whose status has changed and that says something then.
fn transitions(before: Option<&TaskPlatformStatus>, after: &TaskPlatformStatus) -> Vec<Event> {
    let before: BTreeMap<&str, &str> = before
        .into_iter()
        .flat_map(|status| &status.conditions)
        .map(|condition| (condition.type_.as_str(), condition.status.as_str()))
        .collect();
    let changed = after.conditions.iter().filter(|condition| {
        let before = before.get(condition.type_.as_str());
        let is_bad = BAD.contains(&condition.type_.as_str());
        // At the beginning nothing is ready: that is no news.
        condition.type_ != "Reconciling"
            && before.map_or(is_bad && condition.status == "True", |before| *before != condition.status)
    });
    changed
        .map(|condition| Event {
            type_: if is_good(condition) { EventType::Normal } else { EventType::Warning },
            reason: format!("{}{}", condition.type_, condition.status),
            note: Some(shortened(&condition.message)),
            action: "Reconcile".into(),
            secondary: None,
        })
        .collect()
}

fn is_good(condition: &Condition) -> bool {
    (condition.status == "True") != BAD.contains(&condition.type_.as_str())
}

fn shortened(text: &str) -> String {
    if text.len() <= LONGEST_NOTE {
        return text.to_owned();
    }
    format!("{}…", &text[..text.floor_char_boundary(LONGEST_NOTE - '…'.len_utf8())])
}

#[cfg(test)]
mod tests {
    use taskplatform_crds::DatabaseStatus;

    use super::*;

    #[test]
    fn a_failover_is_told_once_and_not_before_it_is_known_for_how_long_nobody_led() {
        let with = |unled_milliseconds| {
            let failover =
                Failover { timeline: 2, unled_milliseconds, detect_milliseconds: Some(500), ..Failover::default() };
            let database = DatabaseStatus { failovers: vec![failover], ..DatabaseStatus::default() };
            TaskPlatformStatus { database: Some(database), ..TaskPlatformStatus::default() }
        };
        let (seen, explored) = (with(None), with(Some(812)));
        assert!(failovers(None, &seen).is_empty());
        let [(of, unled)] = failovers(Some(&seen), &explored)[..] else { panic!("one event") };
        let note = failover(of, unled).note.unwrap();
        assert!(note.ends_with("Nobody led for 812 ms, 500 ms of them until it was noticed."), "{note}");
        assert!(failovers(Some(&explored), &explored).is_empty());
    }
}
