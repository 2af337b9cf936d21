//! Who wrote which field, and server-side apply. Fields are the leaves of an object: a list is one, but for those lists whose
//! items are known by a key.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

/// The lists whose items are merged, and what tells the items apart.
const KEYED: [(&str, &str); 6] = [
    ("containers", "name"),
    ("env", "name"),
    ("initContainers", "name"),
    ("ownerReferences", "uid"),
    ("volumeMounts", "mountPath"),
    ("volumes", "name"),
];
/// What nobody owns: it is the server's, tells one object from another, or is written elsewhere.
const NOBODYS: [&str; 3] = ["f:apiVersion", "f:kind", "f:status"];
const NOBODYS_METADATA: [&str; 8] = [
    "f:creationTimestamp",
    "f:deletionTimestamp",
    "f:generation",
    "f:managedFields",
    "f:name",
    "f:namespace",
    "f:resourceVersion",
    "f:uid",
];

/// The way to a field: names after `f:`, keys of items after `k:`, as in `managedFields`.
type Path = Vec<String>;
type Fields = BTreeSet<Path>;

/// One who writes, and in which way: applying and updating are not the same. The API has the fields as a tree.
#[derive(Serialize, Deserialize)]
struct Manager {
    #[serde(rename = "manager")]
    name: String,
    operation: String,
    #[serde(rename = "fieldsV1")]
    fields: Fields,
}

/// What becomes of an object when a manager applies a configuration; or the fields that others hold against it.
pub(super) fn apply(live: &Value, configuration: &Value, manager: &str, force: bool) -> Result<Value, Vec<String>> {
    let wanted = fields(configuration);
    let changed: Fields = wanted.iter().filter(|path| differs(live, configuration, path)).cloned().collect();
    let (own, mut others): (Vec<Manager>, Vec<Manager>) =
        managers(live).into_iter().partition(|known| known.name == manager && known.operation == "Apply");
    let held = changed.iter().filter(|path| others.iter().any(|other| other.fields.contains(*path)));
    let conflicts: Vec<String> = held.map(|path| path.join(".").replace("f:", "")).collect();
    if !conflicts.is_empty() && !force {
        return Err(conflicts);
    }
    let mut object = live.clone();
    let applied_before = own.into_iter().flat_map(|own| own.fields);
    for gone in applied_before.filter(|path| !wanted.contains(path)) {
        if !others.iter().any(|other| other.fields.contains(&gone)) {
            remove(&mut object, &gone);
        }
    }
    merge(&mut object, configuration, None);
    for other in &mut others {
        other.fields.retain(|path| !changed.contains(path));
    }
    others.push(Manager { name: manager.to_owned(), operation: "Apply".to_owned(), fields: wanted });
    note(&mut object, &others);
    Ok(object)
}

/// Notes who owns the fields that somebody changed in another way than by applying.
pub(super) fn track(before: &Value, after: &mut Value, manager: &str) {
    let (old, new) = (fields(before), fields(after));
    let changed: Fields = new.iter().filter(|path| differs(before, after, path)).cloned().collect();
    let mut managers = managers(after);
    for known in &mut managers {
        known.fields.retain(|path| !changed.contains(path) && (new.contains(path) || !old.contains(path)));
    }
    match managers.iter_mut().find(|known| known.name == manager && known.operation == "Update") {
        Some(own) => own.fields.extend(changed),
        None => {
            managers.push(Manager { name: manager.to_owned(), operation: "Update".to_owned(), fields: changed });
        }
    }
    note(after, &managers);
}

fn managers(object: &Value) -> Vec<Manager> {
    serde_json::from_value(object["metadata"]["managedFields"].clone()).unwrap_or_default()
}

fn note(object: &mut Value, managers: &[Manager]) {
    object["metadata"]["managedFields"] =
        managers.iter().filter(|manager| !manager.fields.is_empty()).map(|manager| json!(manager)).collect();
}

/// The fields of an object that somebody can own.
fn fields(object: &Value) -> Fields {
    let mut fields = Fields::new();
    leaves(object, &mut Path::new(), &mut fields);
    fields.retain(|path| match path.as_slice() {
        [first, second, ..] if first == "f:metadata" => !NOBODYS_METADATA.contains(&second.as_str()),
        [first, ..] => !NOBODYS.contains(&first.as_str()) && first != "f:metadata",
        [] => false,
    });
    fields
}

fn leaves(value: &Value, path: &mut Path, fields: &mut Fields) {
    let key = path.last().and_then(|segment| key_of(segment.strip_prefix("f:")?));
    let mut below = |segment: String, value: &Value| {
        path.push(segment);
        leaves(value, path, fields);
        path.pop();
    };
    match (value, key) {
        (Value::Object(map), _) if !map.is_empty() => {
            for (name, value) in map {
                below(format!("f:{name}"), value);
            }
        }
        // Of a list that is merged, only the items are owned.
        (Value::Array(items), Some(key)) => {
            for item in items {
                below(format!("k:{}", json!({key: item[key]})), &without(item, key));
            }
        }
        _ => {
            fields.insert(path.clone());
        }
    }
}

/// An item without its key, which goes with the item.
fn without(item: &Value, key: &str) -> Value {
    let mut item = item.clone();
    item.as_object_mut().map(|item| item.remove(key));
    item
}

fn key_of(list: &str) -> Option<&'static str> {
    KEYED.iter().find(|(name, _)| *name == list).map(|(_, key)| *key)
}

/// Whether an item of a list is the one that a segment names.
fn is_named(item: &Value, name: &str) -> bool {
    let name: Value = serde_json::from_str(name).unwrap_or_default();
    name.as_object().is_some_and(|name| name.iter().all(|(key, value)| item[key] == *value))
}

fn at<'a>(object: &'a Value, path: &[String]) -> Option<&'a Value> {
    path.iter().try_fold(object, |value, segment| match segment.split_at(2) {
        ("k:", name) => value.as_array()?.iter().find(|item| is_named(item, name)),
        (_, name) => value.get(name),
    })
}

/// Whether a field has another value. One that is to have no fields of its own may have those of others.
fn differs(before: &Value, after: &Value, path: &[String]) -> bool {
    let (before, after) = (at(before, path), at(after, path));
    let is_empty = after.and_then(Value::as_object).is_some_and(Map::is_empty);
    before != after && !(is_empty && before.is_some_and(Value::is_object))
}

/// Adds a configuration to what there is. The items of a list that is merged come in its order, those of others after them.
fn merge(live: &mut Value, configuration: &Value, key: Option<&str>) {
    match (live, configuration, key) {
        (Value::Object(live), Value::Object(fields), _) => {
            for (name, value) in fields {
                merge(live.entry(name).or_insert(Value::Null), value, key_of(name));
            }
        }
        (live, Value::Array(items), Some(key)) => {
            let mut others = live.as_array().cloned().unwrap_or_default();
            let mut merged = Vec::new();
            for item in items {
                let known = others.iter().position(|other| other[key] == item[key]);
                let mut known = known.map_or(Value::Null, |known| others.remove(known));
                merge(&mut known, item, None);
                merged.push(known);
            }
            merged.append(&mut others);
            *live = merged.into();
        }
        (live, value, _) => *live = value.clone(),
    }
}

/// Removes a field, and what is empty without it.
fn remove(value: &mut Value, path: &[String]) {
    let [segment, rest @ ..] = path else { return };
    let is_empty = |value: &Value| match value {
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        _ => false,
    };
    match (segment.split_at(2), value) {
        (("k:", name), Value::Array(items)) => {
            let Some(index) = items.iter().position(|item| is_named(item, name)) else { return };
            remove(&mut items[index], rest);
            let only_its_key = items[index].as_object().is_none_or(|item| item.len() <= 1);
            if rest.is_empty() || only_its_key {
                items.remove(index);
            }
        }
        ((_, name), Value::Object(fields)) => {
            let Some(nested) = fields.get_mut(name) else { return };
            remove(nested, rest);
            if rest.is_empty() || is_empty(nested) {
                fields.remove(name);
            }
        }
        _ => {}
    }
}
