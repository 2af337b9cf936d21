//! Creating, changing and deleting objects.

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

use super::{
    fields,
    request::{Call, Refusal, Verb},
    store::{Key, Store, keep},
};

/// What cannot be changed of a kind.
const IMMUTABLE: [(&str, &[&str]); 3] = [
    ("Deployment", &["/spec/selector"]),
    ("RoleBinding", &["/roleRef"]),
    ("StatefulSet", &["/spec/selector", "/spec/serviceName", "/spec/volumeClaimTemplates"]),
];

pub(super) fn create(store: &mut Store, call: &Call) -> Result<Value, Refusal> {
    let mut call = call.clone();
    if call.name.is_empty() {
        let prefix = call.body["metadata"]["generateName"].as_str().unwrap_or_default();
        call.name = format!("{prefix}{:05}", store.made);
    }
    if store.objects.contains_key(&Key::of(&call)) {
        return Err(Refusal::already_exists(&call));
    }
    let mut object = new(call.body.clone());
    fields::track(&Value::Null, &mut object, call.manager());
    Ok(store.create(Key::of(&call), object))
}

/// An object as it begins: without a status, and with what only the server gives it taken out.
fn new(mut object: Value) -> Value {
    keep(&Value::Null, &mut object, "status");
    for field in ["uid", "resourceVersion", "deletionTimestamp"] {
        keep(&Value::Null, &mut object["metadata"], field);
    }
    with_encoded_secrets(object)
}

pub(super) fn replace(store: &mut Store, call: &Call) -> Result<Value, Refusal> {
    let before = existing(store, call)?;
    let mut after = call.body.clone();
    keep(&before["metadata"], &mut after["metadata"], "managedFields");
    change(store, call, &before, after)
}

pub(super) fn patch(store: &mut Store, call: &Call) -> Result<Value, Refusal> {
    if call.content_type == "application/apply-patch+yaml" {
        return apply(store, call);
    }
    let before = existing(store, call)?;
    let mut after = before.clone();
    match call.content_type.as_str() {
        // Lists of a strategic merge are replaced here, not merged.
        "application/merge-patch+json" | "application/strategic-merge-patch+json" => {
            json_patch::merge(&mut after, &call.body);
        }
        "application/json-patch+json" => {
            let patch: json_patch::Patch =
                serde_json::from_value(call.body.clone()).map_err(|error| Refusal::new(400, error.to_string()))?;
            json_patch::patch(&mut after, &patch).map_err(|error| Refusal::new(422, error.to_string()))?;
        }
        other => return Err(Refusal::new(415, format!("{other} is no patch"))),
    }
    change(store, call, &before, after)
}

fn apply(store: &mut Store, call: &Call) -> Result<Value, Refusal> {
    let force = call.parameter("force") == "true";
    let before = store.objects.get(&Key::of(call)).cloned();
    if before.is_none() && call.body["metadata"]["uid"].is_string() {
        return Err(Refusal::conflict(call, "uid mismatch: no existing object was found"));
    }
    let live = before.clone().unwrap_or_else(|| json!({"metadata": {}}));
    let after = fields::apply(&live, &call.body, call.manager(), force)
        .map_err(|conflicts| Refusal::conflict(call, &format!("fields of other managers: {}", conflicts.join(", "))))?;
    let Some(before) = before else { return Ok(store.create(Key::of(call), new(after))) };
    update(store, call, &before, after)
}

fn change(store: &mut Store, call: &Call, before: &Value, mut after: Value) -> Result<Value, Refusal> {
    if call.subresource.is_empty() {
        after = with_encoded_secrets(after);
        fields::track(before, &mut after, call.manager());
    }
    update(store, call, before, after)
}

/// Keeps what was written, as far as it may be written there.
fn update(store: &mut Store, call: &Call, before: &Value, mut after: Value) -> Result<Value, Refusal> {
    let differs = |field: &str| {
        let given = &after["metadata"][field];
        given.as_str().is_some_and(|given| !given.is_empty() && before["metadata"][field] != given)
    };
    if differs("resourceVersion") {
        return Err(Refusal::conflict(
            call,
            "the object has been modified; please apply your changes to the latest version and try again",
        ));
    }
    if call.subresource == "status" {
        // As for every custom resource: the metadata are not looked at, not even the uid.
        let status = after["status"].take();
        let mut after = before.clone();
        after["status"] = status;
        return Ok(store.update(Key::of(call), after));
    }
    if differs("uid") && call.verb == Verb::Update {
        return Err(Refusal::conflict(call, "Precondition failed: UID in precondition does not match"));
    }
    if differs("uid") {
        return Err(Refusal::immutable(call, "metadata.uid"));
    }
    let immutable = IMMUTABLE.iter().filter(|(kind, _)| *kind == call.resource.kind).flat_map(|(_, fields)| *fields);
    if let Some(field) = immutable.copied().find(|field| before.pointer(field) != after.pointer(field)) {
        return Err(Refusal::immutable(call, field));
    }
    keep(before, &mut after, "status");
    Ok(store.update(Key::of(call), after))
}

pub(super) fn delete(store: &mut Store, call: &Call) -> Result<Value, Refusal> {
    let object = existing(store, call)?;
    for precondition in ["uid", "resourceVersion"] {
        let wanted = &call.body["preconditions"][precondition];
        if wanted.is_string() && *wanted != object["metadata"][precondition] {
            return Err(Refusal::conflict(call, &format!("the {precondition} in the precondition does not match")));
        }
    }
    let finalizer = match call.body["propagationPolicy"].as_str() {
        Some("Orphan") => Some("orphan"),
        Some("Foreground") => Some("foregroundDeletion"),
        _ => None,
    };
    let last = store.delete(&Key::of(call), finalizer);
    if store.objects.contains_key(&Key::of(call)) {
        return Ok(last);
    }
    Ok(json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"}))
}

fn existing(store: &Store, call: &Call) -> Result<Value, Refusal> {
    if !matches!(call.subresource.as_str(), "" | "status") {
        return Err(Refusal::new(404, format!("the server could not find the subresource {}", call.subresource)));
    }
    store.objects.get(&Key::of(call)).cloned().ok_or_else(|| Refusal::not_found(call))
}

/// What is written as text into a Secret can only be read as its data.
fn with_encoded_secrets(mut object: Value) -> Value {
    if let Value::Object(texts) = object["stringData"].take() {
        for (key, text) in texts {
            object["data"][key] = STANDARD.encode(text.as_str().unwrap_or_default()).into();
        }
    }
    keep(&Value::Null, &mut object, "stringData");
    object
}
