//! A platform as a tree: its components, what is wrong with them first, with their pods and events.
//!
//! A component is whatever the status has a part or a condition of, so that one that a later operator reports is shown, too.

use k8s_openapi::{
    api::core::v1::Event as CoreEvent,
    apimachinery::pkg::apis::meta::v1::{Condition, Time},
    jiff::{SignedDuration, Timestamp},
};
use kube::{ResourceExt, core::DynamicObject};
use serde::Serialize;
use serde_json::{Map, Value};
use taskplatform_blueprint::trouble;

/// How many events are told of one thing.
const EVENTS: usize = 5;
/// What is told of a restart that is longer ago is nothing.
const RECENT: SignedDuration = SignedDuration::from_hours(1);

/// A platform, as it is.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Tree {
    pub(super) name: String,
    pub(super) namespace: String,
    /// It serves requests.
    pub(super) ready: bool,
    /// The generation of its spec, and the one that the operator has seen.
    pub(super) generation: Option<i64>,
    pub(super) observed_generation: Option<i64>,
    /// What is said of it as a whole.
    pub(super) conditions: Vec<Condition>,
    /// What is wrong comes first, and of that what the others depend on.
    pub(super) components: Vec<Component>,
    /// Its own last events.
    pub(super) events: Vec<Event>,
}

/// A component, as it is.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Component {
    pub(super) name: String,
    pub(super) condition: Option<Condition>,
    /// Its part of the status.
    pub(super) figures: Map<String, Value>,
    /// What is to be said of its pods.
    pub(super) pods: Vec<Remark>,
    /// The last events, of one that is not as it should be.
    pub(super) events: Vec<Event>,
}

/// What is to be said of a pod.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Remark {
    pub(super) pod: String,
    pub(super) why: String,
}

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Event {
    pub(super) time: Option<Timestamp>,
    pub(super) warning: bool,
    /// The object's kind and name.
    pub(super) object: String,
    pub(super) reason: String,
    pub(super) message: String,
    pub(super) count: i32,
}

impl Component {
    pub(super) fn is_as_it_should_be(&self) -> bool {
        self.condition.as_ref().is_none_or(|condition| condition.status == "True")
    }
}

impl Tree {
    pub(super) fn new(platform: &DynamicObject, pods: &[DynamicObject], events: &[CoreEvent]) -> Self {
        let name = platform.name_any();
        let status = &platform.data["status"];
        let conditions: Vec<Condition> = serde_json::from_value(status["conditions"].clone()).unwrap_or_default();
        let (of_components, of_all): (Vec<_>, Vec<_>) =
            conditions.into_iter().partition(|condition| component_of(condition).is_some());

        // The operator lists conditions in the order in which components depend on each other.
        let mut names: Vec<String> = of_components.iter().filter_map(component_of).collect();
        let parts = status.as_object().into_iter().flatten().filter(|(_, part)| part.is_object());
        names.extend(parts.map(|(name, _)| name.clone()));
        let mut components: Vec<Component> = Vec::new();
        for component in names {
            if components.iter().any(|known| known.name == component) {
                continue;
            }
            let condition = of_components.iter().find(|condition| component_of(condition).as_ref() == Some(&component));
            let figures = status[&component].as_object().cloned().unwrap_or_default();
            let pods = remarks(pods, &component);
            components.push(Component {
                name: component,
                condition: condition.cloned(),
                figures,
                pods,
                events: Vec::new(),
            });
        }
        for component in components.iter_mut().filter(|component| !component.is_as_it_should_be()) {
            let prefix = format!("{name}-{}", component.name);
            component.events = last(events, |object| {
                object.strip_prefix(&prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
            });
        }
        components.sort_by_key(Component::is_as_it_should_be);
        Self {
            ready: of_all.iter().any(|condition| condition.type_ == "Ready" && condition.status == "True"),
            namespace: platform.namespace().unwrap_or_default(),
            generation: platform.metadata.generation,
            observed_generation: status["observedGeneration"].as_i64().filter(|generation| *generation >= 0),
            conditions: of_all,
            components,
            events: last(events, |object| object == name),
            name,
        }
    }
}

/// `DatabaseReady` speaks of `database`.
fn component_of(condition: &Condition) -> Option<String> {
    let title = condition.type_.strip_suffix("Ready").filter(|title| !title.is_empty())?;
    let (first, rest) = title.split_at(title.chars().next()?.len_utf8());
    Some(format!("{}{rest}", first.to_lowercase()))
}

fn remarks(pods: &[DynamicObject], component: &str) -> Vec<Remark> {
    let of_component =
        pods.iter().filter(|pod| pod.labels().get("app.kubernetes.io/component").is_some_and(|name| name == component));
    let remark = |pod: &DynamicObject| {
        let stops_by = pod.metadata.deletion_timestamp.as_ref().map(|time| time.0);
        let node = pod.data["spec"]["nodeName"].as_str();
        let why = trouble(&pod.data["status"], stops_by, node, Timestamp::now())
            .map(|trouble| trouble.why)
            .or_else(|| restarted(pod))?;
        Some(Remark { pod: pod.name_any(), why })
    };
    of_component.filter_map(remark).collect()
}

/// A pod that is ready and was started again lately.
fn restarted(pod: &DynamicObject) -> Option<String> {
    let container = &pod.data["status"]["containerStatuses"][0];
    let (count, ended) = (container["restartCount"].as_i64()?, &container["lastState"]["terminated"]);
    let finished: Timestamp = ended["finishedAt"].as_str()?.parse().ok()?;
    let (code, reason) = (ended["exitCode"].as_i64()?, ended["reason"].as_str().unwrap_or("Error"));
    (Timestamp::now().duration_since(finished) < RECENT).then(|| {
        format!("has been started again ({count} in all), at {finished} after it ended with {code} ({reason})")
    })
}

/// The last events of some objects, the latest first.
fn last(events: &[CoreEvent], of: impl Fn(&str) -> bool) -> Vec<Event> {
    let theirs = events.iter().filter(|event| event.involved_object.name.as_deref().is_some_and(&of));
    let mut events: Vec<Event> = theirs.map(event).collect();
    events.sort_by_key(|event| std::cmp::Reverse(event.time));
    events.truncate(EVENTS);
    events
}

fn event(event: &CoreEvent) -> Event {
    let series = event.series.as_ref();
    let time = series
        .and_then(|series| series.last_observed_time.as_ref())
        .or(event.event_time.as_ref())
        .map(|time| time.0)
        .or_else(|| {
            event.last_timestamp.as_ref().or(event.metadata.creation_timestamp.as_ref()).map(|Time(time)| *time)
        });
    let object = &event.involved_object;
    Event {
        time,
        warning: event.type_.as_deref() == Some("Warning"),
        object: [&object.kind, &object.name].into_iter().flatten().cloned().collect::<Vec<_>>().join(" "),
        reason: event.reason.clone().unwrap_or_default(),
        message: event.message.clone().unwrap_or_default().trim().to_owned(),
        count: series.and_then(|series| series.count).or(event.count).unwrap_or(1),
    }
}
