//! What the operator would do: the blueprint beside what is there, object by object and field by field.

mod effects;
mod fields;
mod settings;

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::{ResourceExt, core::DynamicObject};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    Kind, Object,
    applied::{as_sent, is_kept, was_applied},
};
pub use effects::Effect;
pub use fields::{FieldChange, differences};
pub use settings::{SettingChange, settings};

/// What becomes of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// It is not there yet.
    Create,
    /// Fields of it change in place.
    Change,
    /// It is deleted and made anew, since what changes cannot change in place. What belongs to it goes on.
    Replace,
    /// It is not wanted any more.
    Delete,
}

/// An object, and what becomes of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Change {
    /// The component that the object belongs to.
    pub component: String,
    /// The object's kind.
    pub kind: String,
    /// The object's name.
    pub name: String,
    /// What becomes of it.
    pub action: Action,
    /// Which fields change; none where the object is created or deleted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fields: Vec<FieldChange>,
    /// What that does to what runs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub effects: Vec<Effect>,
}

/// What the operator would do to a platform's objects; `live` are those that are there, `owner` is the TaskPlatform, if that is.
pub fn plan(desired: &[Object], live: &[(Kind, DynamicObject)], owner: Option<&OwnerReference>) -> Vec<Change> {
    let known: BTreeMap<(Kind, String), &DynamicObject> =
        live.iter().map(|(kind, object)| ((*kind, object.name_any()), object)).collect();
    let mut changes: Vec<Change> = desired
        .iter()
        .filter_map(|object| match known.get(&(object.kind(), object.name().to_owned())) {
            None => Some(create(object)),
            Some(live) => change(object, live, owner),
        })
        .collect();
    let wanted: BTreeSet<(Kind, &str)> = desired.iter().map(|object| (object.kind(), object.name())).collect();
    let unwanted = live.iter().filter(|(kind, object)| {
        let is_ours = owner.is_some_and(|owner| object.owner_references().iter().any(|one| one.uid == owner.uid));
        is_ours
            && object.metadata.deletion_timestamp.is_none()
            && !wanted.contains(&(*kind, object.name_any().as_str()))
    });
    changes.extend(unwanted.map(|(kind, object)| delete(*kind, object)));
    changes
}

fn create(object: &Object) -> Change {
    Change {
        component: object.component().to_owned(),
        kind: object.kind().name().to_owned(),
        name: object.name().to_owned(),
        action: Action::Create,
        fields: Vec::new(),
        effects: Vec::new(),
    }
}

fn delete(kind: Kind, object: &DynamicObject) -> Change {
    Change {
        component: object.labels().get("app.kubernetes.io/component").cloned().unwrap_or_default(),
        kind: kind.name().to_owned(),
        name: object.name_any(),
        action: Action::Delete,
        fields: Vec::new(),
        effects: effects::of_deletion(kind, object),
    }
}

/// What changes of an object; nothing, if it is as it should be.
fn change(object: &Object, live: &DynamicObject, owner: Option<&OwnerReference>) -> Option<Change> {
    let desired = match owner {
        Some(owner) => as_sent(object, owner),
        None => object.value().clone(),
    };
    if was_applied(live, &desired) && is_kept(live, &desired) {
        return None;
    }
    let fields = fields::of_object(live, &desired);
    if fields.is_empty() {
        return None;
    }
    let action = if effects::is_replaced(object.kind(), &fields) { Action::Replace } else { Action::Change };
    let effects = effects::of_change(object, live, &fields);
    Some(Change { action, fields, effects, ..create(object) })
}

/// How many objects are created, changed (or replaced), and deleted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Totals {
    /// Created.
    pub create: usize,
    /// Changed in place.
    pub change: usize,
    /// Made anew.
    pub replace: usize,
    /// Deleted.
    pub delete: usize,
}

impl Totals {
    /// Counts changes.
    pub fn of(changes: &[Change]) -> Self {
        let count = |action| changes.iter().filter(|change| change.action == action).count();
        Self {
            create: count(Action::Create),
            change: count(Action::Change),
            replace: count(Action::Replace),
            delete: count(Action::Delete),
        }
    }
}

/// A value as a person reads it in a line.
pub fn in_a_line(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}
