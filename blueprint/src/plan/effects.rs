//! What a change does to what runs.

use kube::core::DynamicObject;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::FieldChange;
use crate::{Kind, Object};

/// Something that happens to what runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Effect {
    /// Whether users may notice.
    pub disruptive: bool,
    /// What happens.
    pub text: String,
}

impl Effect {
    fn quiet(text: impl Into<String>) -> Self {
        Self { disruptive: false, text: text.into() }
    }

    fn disruptive(text: impl Into<String>) -> Self {
        Self { disruptive: true, text: text.into() }
    }
}

/// Volumes cannot change in a StatefulSet: it is made anew around its running pods.
pub(super) fn is_replaced(kind: Kind, fields: &[FieldChange]) -> bool {
    kind == Kind::StatefulSet && touches(fields, "spec.volumeClaimTemplates")
}

pub(super) fn of_change(object: &Object, live: &DynamicObject, fields: &[FieldChange]) -> Vec<Effect> {
    if !matches!(object.kind(), Kind::Deployment | Kind::StatefulSet) {
        return Vec::new();
    }
    let replicas = |value: &Value| value["spec"]["replicas"].as_i64().unwrap_or(1);
    let (before, after) = (replicas(&live.data), replicas(object.value()));
    let mut effects = Vec::new();
    if touches(fields, "spec.template") {
        effects.push(restart(object, before.min(after)));
    }
    if is_replaced(object.kind(), fields) {
        effects.push(Effect::quiet(
            "grows the volumes in place, where the StorageClass allows that; no pod restarts for it",
        ));
    }
    match (after - before, object.component()) {
        (0, _) => {}
        (more @ 1.., _) => effects.push(Effect::quiet(format!("adds {}", pods(more)))),
        (fewer, "cache" | "sessions") => effects.push(Effect::quiet(format!(
            "removes {}, which give away the data that only they hold before; their volumes stay",
            pods(-fewer)
        ))),
        (fewer, "database") => effects.push(Effect::quiet(format!("removes {}; their volumes stay", pods(-fewer)))),
        (fewer, _) => effects.push(Effect::quiet(format!("removes {} after their last requests", pods(-fewer)))),
    }
    effects
}

pub(super) fn of_deletion(kind: Kind, live: &DynamicObject) -> Vec<Effect> {
    if !matches!(kind, Kind::Deployment | Kind::StatefulSet) {
        return Vec::new();
    }
    let running = live.data["spec"]["replicas"].as_i64().unwrap_or(1);
    vec![Effect::disruptive(format!("ends {}", pods(running)))]
}

fn restart(object: &Object, running: i64) -> Effect {
    let pods = pods(running);
    match object.component() {
        "database" => Effect::disruptive(format!(
            "restarts {pods} one after another, the primary last and after a switchover, for which writes wait some seconds"
        )),
        "cache" | "sessions" => Effect::disruptive(format!(
            "restarts {pods} one after another; a master's turn is a failover of some seconds for its part of the keys"
        )),
        _ => Effect::quiet(format!("replaces {pods}; none goes before another one is ready")),
    }
}

fn pods(count: i64) -> String {
    if count == 1 { "1 pod".to_owned() } else { format!("{count} pods") }
}

fn touches(fields: &[FieldChange], path: &str) -> bool {
    fields.iter().any(|field| {
        let rest = field.path.strip_prefix(path);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
    })
}
