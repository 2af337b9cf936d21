//! What a change does to what runs.

use kube::core::DynamicObject;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::FieldChange;
use crate::{Kind, Object, parts::part};

/// Something that happens to what runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Effect {
    /// Whether users may notice.
    pub disruptive: bool,
    /// What happens.
    pub text: String,
}

impl Effect {
    pub(crate) fn quiet(text: impl Into<String>) -> Self {
        Self { disruptive: false, text: text.into() }
    }

    pub(crate) fn disruptive(text: impl Into<String>) -> Self {
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
        effects.extend(part(object.component()).map(|part| part.replacement(&pods(before.min(after)))));
    }
    if is_replaced(object.kind(), fields) {
        effects.push(Effect::quiet(
            "grows the volumes in place, where the StorageClass allows that; no pod restarts for it",
        ));
    }
    match after - before {
        0 => {}
        more @ 1.. => effects.push(Effect::quiet(format!("adds {}", pods(more)))),
        fewer => effects.extend(part(object.component()).map(|part| part.removal(&pods(-fewer)))),
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

fn pods(count: i64) -> String {
    if count == 1 { "1 pod".to_owned() } else { format!("{count} pods") }
}

fn touches(fields: &[FieldChange], path: &str) -> bool {
    fields.iter().any(|field| {
        let rest = field.path.strip_prefix(path);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
    })
}
