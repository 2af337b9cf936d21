//! Which fields differ.

use std::collections::BTreeSet;

use kube::core::DynamicObject;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::{
    MANAGED_BY,
    applied::{APPLIED, contains, is_empty, same_quantity},
};

/// A field, before and after.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FieldChange {
    /// Where it is, such as `spec.template.spec.containers[redis].image`.
    pub path: String,
    /// What it was; nothing, if it was not there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<Value>,
    /// What it will be; nothing, if it will not be there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<Value>,
}

/// What becomes of fields that only the first value has.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Others {
    /// They are somebody else's, and stay.
    Stay,
    /// They go.
    Go,
}

/// How two values differ.
pub fn differences(before: &Value, after: &Value) -> Vec<FieldChange> {
    let mut changes = Vec::new();
    compare(&mut changes, "", before, after, Others::Go);
    changes
}

/// How a live object differs from the desired one once that is applied: what is said of it and is otherwise, and what was said of it
/// before and is not any more.
pub(super) fn of_object(live: &DynamicObject, desired: &Value) -> Vec<FieldChange> {
    let mut whole = live.data.clone();
    if let Some(whole) = whole.as_object_mut() {
        whole.remove("status");
        whole.insert("metadata".into(), serde_json::to_value(&live.metadata).unwrap_or_default());
    }
    let mut desired = desired.clone();
    if let Some(desired) = desired.as_object_mut() {
        desired.remove("apiVersion");
        desired.remove("kind");
    }
    if let Some(annotations) = desired.pointer_mut("/metadata/annotations").and_then(Value::as_object_mut) {
        annotations.remove(APPLIED);
    }
    let mut changes = Vec::new();
    compare(&mut changes, "", &whole, &desired, Others::Stay);
    let known: BTreeSet<String> = changes.iter().map(|change| change.path.clone()).collect();
    let mut gone = Vec::new();
    for fields in managed(live) {
        taken_away(&mut gone, "", fields, &whole, &desired);
    }
    changes.extend(gone.into_iter().filter(|change| !known.contains(&change.path)));
    changes
}

fn compare(changes: &mut Vec<FieldChange>, path: &str, before: &Value, after: &Value, others: Others) {
    match (before, after) {
        (Value::Object(before), Value::Object(after)) => compare_objects(changes, path, before, after, others),
        (Value::Array(before), Value::Array(after)) => compare_lists(changes, path, before, after, others),
        (Value::String(before), Value::String(after)) if same_quantity(before, after) => {}
        (before, after) if before == after => {}
        (before, after) => changes.push(changed(path, Some(before), Some(after))),
    }
}

fn compare_objects(
    changes: &mut Vec<FieldChange>,
    path: &str,
    before: &Map<String, Value>,
    after: &Map<String, Value>,
    others: Others,
) {
    for (key, after) in after {
        match before.get(key) {
            Some(before) => compare(changes, &field(path, key), before, after, others),
            None if is_empty(after) && others == Others::Stay => {}
            None => changes.push(changed(&field(path, key), None, Some(after))),
        }
    }
    if others == Others::Go {
        let gone = before.iter().filter(|(key, _)| !after.contains_key(*key));
        changes.extend(gone.map(|(key, before)| changed(&field(path, key), Some(before), None)));
    }
}

/// Items with names are compared with their namesakes, whatever their places.
fn compare_lists(changes: &mut Vec<FieldChange>, path: &str, before: &[Value], after: &[Value], others: Others) {
    let equal = before.len() == after.len() && before.iter().zip(after).all(|(before, after)| contains(before, after));
    if equal && others == Others::Stay || before == after {
        return;
    }
    let count = changes.len();
    if let (Some(before), Some(after)) = (by_name(before), by_name(after)) {
        for (name, after) in &after {
            let path = format!("{path}[{name}]");
            match find(&before, name) {
                Some(before) => compare(changes, &path, before, after, others),
                None => changes.push(changed(&path, None, Some(after))),
            }
        }
        let gone = before.iter().filter(|(name, _)| find(&after, name).is_none());
        changes.extend(gone.map(|(name, before)| changed(&format!("{path}[{name}]"), Some(before), None)));
    }
    if changes.len() == count {
        changes.push(changed(path, Some(&before.into()), Some(&after.into())));
    }
}

type Named<'v> = Vec<(&'v str, &'v Value)>;

/// The items by name, if each has one of its own.
fn by_name(items: &[Value]) -> Option<Named<'_>> {
    let named: Named<'_> = items.iter().map(|item| Some((name_of(item)?, item))).collect::<Option<_>>()?;
    let distinct: BTreeSet<&str> = named.iter().map(|(name, _)| *name).collect();
    (distinct.len() == named.len()).then_some(named)
}

/// An item's name: its own, or of an object within an object, that of its metadata.
fn name_of(item: &Value) -> Option<&str> {
    item.get("name").or_else(|| item.pointer("/metadata/name"))?.as_str()
}

fn find<'v>(named: &Named<'v>, name: &str) -> Option<&'v Value> {
    named.iter().find(|(known, _)| *known == name).map(|(_, value)| *value)
}

/// The fields that the operator has applied, as `metadata.managedFields` tells.
fn managed(live: &DynamicObject) -> impl Iterator<Item = &Value> {
    let entries = live.metadata.managed_fields.iter().flatten();
    entries
        .filter(|entry| {
            entry.manager.as_deref() == Some(MANAGED_BY)
                && entry.operation.as_deref() == Some("Apply")
                && entry.subresource.as_deref().unwrap_or_default().is_empty()
        })
        .filter_map(|entry| entry.fields_v1.as_ref().map(|fields| &fields.0))
}

/// What was applied and is not desired any more.
fn taken_away(gone: &mut Vec<FieldChange>, path: &str, fields: &Value, live: &Value, desired: &Value) {
    for (key, fields) in fields.as_object().into_iter().flatten() {
        if let Some(name) = key.strip_prefix("f:") {
            let path = field(path, name);
            if path == format!("metadata.annotations[{APPLIED}]") {
                continue;
            }
            match (live.get(name), desired.get(name)) {
                (Some(live), Some(desired)) => taken_away(gone, &path, fields, live, desired),
                (Some(live), None) if !is_empty(live) => gone.push(changed(&path, Some(live), None)),
                _ => {}
            }
        } else if let Some(keys) = key.strip_prefix("k:") {
            let Ok(keys) = serde_json::from_str::<Value>(keys) else { continue };
            let item = |list: &Value| list.as_array().into_iter().flatten().find(|item| contains(item, &keys)).cloned();
            // An item that is not desired any more was told of when the lists were compared.
            if let (Some(live), Some(desired)) = (item(live), item(desired)) {
                let name = name_of(&live).map_or_else(|| keys.to_string(), str::to_owned);
                taken_away(gone, &format!("{path}[{name}]"), fields, &live, &desired);
            }
        }
    }
}

fn changed(path: &str, before: Option<&Value>, after: Option<&Value>) -> FieldChange {
    FieldChange { path: path.to_owned(), before: before.map(masked), after: after.map(masked) }
}

/// Passwords are not shown, wherever they stand.
fn masked(value: &Value) -> Value {
    match value {
        Value::Object(fields) => fields
            .iter()
            .map(|(key, value)| {
                let secret = ["password", "secret", "token"].iter().any(|word| key.to_lowercase().ends_with(word));
                let value = if secret && value.is_string() { json!("(masked)") } else { masked(value) };
                (key.clone(), value)
            })
            .collect(),
        Value::Array(items) => items.iter().map(masked).collect(),
        other => other.clone(),
    }
}

/// A field's path; names that are no plain words stand in brackets.
fn field(path: &str, name: &str) -> String {
    let plain = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-');
    match (path.is_empty(), plain) {
        (true, true) => name.to_owned(),
        (false, true) => format!("{path}.{name}"),
        (_, false) => format!("{path}[{name}]"),
    }
}
