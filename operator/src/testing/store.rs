//! The objects, every change that they went through, and who watches them.

use std::collections::BTreeMap;

use futures::channel::mpsc;
use http_body_util::combinators::UnsyncBoxBody;
use hyper::body::Bytes;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::request::{Call, Refusal, Resource, selects};

/// The body of an answer: at once, or as long as something is watched.
pub(super) type Answer = UnsyncBoxBody<Bytes, std::convert::Infallible>;

/// Where an object is kept.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key {
    pub(super) kind: &'static str,
    pub(super) namespace: String,
    pub(super) name: String,
}

impl Key {
    pub(super) fn new(kind: &str, namespace: &str, name: &str) -> Self {
        let kind = Resource::of_kind(kind).kind;
        Self { kind, namespace: namespace.to_owned(), name: name.to_owned() }
    }

    pub(super) fn of(call: &Call) -> Self {
        Self::new(call.resource.kind, &call.namespace, &call.name)
    }
}

/// A change of one object.
struct Change {
    version: u64,
    key: Key,
    before: Option<Value>,
    after: Option<Value>,
}

struct Watcher {
    call: Call,
    sender: mpsc::UnboundedSender<Bytes>,
}

pub(super) struct Store {
    /// Of the last change.
    version: u64,
    pub(super) objects: BTreeMap<Key, Value>,
    changes: Vec<Change>,
    /// Changes up to this version are forgotten.
    forgotten: u64,
    watchers: Vec<Watcher>,
    /// How many objects were made: each has a number of its own.
    pub(super) made: u64,
}

impl Default for Store {
    fn default() -> Self {
        // Not 0, which means any version.
        let version = 1;
        let (objects, changes, watchers) = (BTreeMap::new(), Vec::new(), Vec::new());
        Self { version, objects, changes, forgotten: 0, watchers, made: 0 }
    }
}

impl Store {
    pub(super) fn get(&self, call: &Call) -> Result<Value, Refusal> {
        let object = self.objects.get(&Key::of(call)).ok_or_else(|| Refusal::not_found(call))?;
        Ok(shown(call, object))
    }

    pub(super) fn list(&self, call: &Call) -> Result<Value, Refusal> {
        let (version, after) = self.position(call)?;
        let limit = call.parameter("limit").parse().unwrap_or(usize::MAX);
        let mut found: Vec<(&Key, &Value)> = self
            .objects
            .iter()
            .filter(|(key, object)| is_meant(call, key, object) && after.as_ref().is_none_or(|after| *key > after))
            .collect();
        let more = found.len() > limit;
        found.truncate(limit);
        let mut metadata = json!({"resourceVersion": version.to_string()});
        if let Some((last, _)) = found.last().filter(|_| more) {
            metadata["continue"] = format!("{version} {} {}", last.namespace, last.name).into();
        }
        let items: Vec<Value> = found.into_iter().map(|(_, object)| listed(call, object)).collect();
        let (api_version, kind) =
            if call.metadata_only { METADATA } else { (call.resource.api_version, call.resource.kind) };
        Ok(json!({"apiVersion": api_version, "kind": format!("{kind}List"), "metadata": metadata, "items": items}))
    }

    /// The version that a listing speaks of, and the object that it goes on after.
    fn position(&self, call: &Call) -> Result<(u64, Option<Key>), Refusal> {
        let token: Vec<&str> = call.parameter("continue").split(' ').collect();
        let [version, namespace, name] = token[..] else { return Ok((self.version, None)) };
        let version = version.parse().map_err(|_| Refusal::new(400, "the token is none"))?;
        if version < self.forgotten {
            return Err(Refusal::new(410, "The provided continue parameter is too old"));
        }
        Ok((version, Some(Key::new(call.resource.kind, namespace, name))))
    }

    /// The changes from a version on, as lines that never end.
    pub(super) fn watch(&mut self, call: &Call) -> mpsc::UnboundedReceiver<Bytes> {
        let (sender, receiver) = mpsc::unbounded();
        let since = call.parameter("resourceVersion").parse().unwrap_or(0);
        let initial = call.parameter("sendInitialEvents") == "true";
        if since == 0 || initial {
            for object in self.objects.iter().filter(|(key, object)| is_meant(call, key, object)).map(|(_, it)| it) {
                send(&sender, "ADDED", &shown(call, object));
            }
            if initial {
                let end = json!({"resourceVersion": self.version.to_string(), "annotations": {"k8s.io/initial-events-end": "true"}});
                let (api_version, kind) = (call.resource.api_version, call.resource.kind);
                send(&sender, "BOOKMARK", &json!({"apiVersion": api_version, "kind": kind, "metadata": end}));
            }
        } else if since < self.forgotten {
            send(&sender, "ERROR", &Refusal::new(410, format!("too old resource version: {since}")).status());
            return receiver;
        } else {
            for change in self.changes.iter().filter(|change| change.version > since) {
                tell(call, &sender, change);
            }
        }
        self.watchers.push(Watcher { call: call.clone(), sender });
        receiver
    }

    /// Ends every watch; one that goes on from before now is told to list anew where the changes are forgotten, too.
    pub(super) fn break_watches(&mut self, forget_changes: bool) {
        self.watchers.clear();
        if forget_changes {
            self.changes.clear();
            // So that nobody has seen this version.
            self.version += 1;
            self.forgotten = self.version;
        }
    }

    /// Keeps a new object.
    pub(super) fn create(&mut self, key: Key, mut object: Value) -> Value {
        self.made += 1;
        let resource = Resource::of_kind(key.kind);
        (object["apiVersion"], object["kind"]) = (resource.api_version.into(), resource.kind.into());
        let metadata = &mut object["metadata"];
        (metadata["name"], metadata["namespace"]) = (key.name.clone().into(), key.namespace.clone().into());
        metadata["uid"] = format!("00000000-0000-4000-8000-{:012}", self.made).into();
        metadata["generation"] = 1.into();
        metadata["creationTimestamp"] = now();
        self.commit(key, Some(without_what_is_empty(object)))
    }

    /// Keeps an object as it is now. Where nothing has changed, nothing is written.
    pub(super) fn update(&mut self, key: Key, object: Value) -> Value {
        let before = self.objects[&key].clone();
        let mut after = without_what_is_empty(object);
        for field in ["uid", "creationTimestamp", "deletionTimestamp", "generation", "resourceVersion"] {
            keep(&before["metadata"], &mut after["metadata"], field);
        }
        if after == before {
            return before;
        }
        if content(&before) != content(&after) {
            grow_older(&mut after);
        }
        if is_deleted(&after) && finalizers(&after).is_empty() {
            self.commit(key, None);
            return after;
        }
        self.commit(key, Some(after))
    }

    /// Marks an object as deleted where finalizers hold it, and removes it otherwise.
    pub(super) fn delete(&mut self, key: &Key, finalizer: Option<&str>) -> Value {
        let mut object = self.objects[key].clone();
        let mut holding = finalizers(&object);
        holding.extend(finalizer.map(str::to_owned));
        if holding.is_empty() {
            return self.commit(key.clone(), None);
        }
        if is_deleted(&object) {
            return object;
        }
        object["metadata"]["finalizers"] = holding.into();
        object["metadata"]["deletionTimestamp"] = now();
        grow_older(&mut object);
        self.commit(key.clone(), Some(object))
    }

    fn commit(&mut self, key: Key, mut after: Option<Value>) -> Value {
        self.version += 1;
        if let Some(after) = &mut after {
            after["metadata"]["resourceVersion"] = self.version.to_string().into();
        }
        let before = match &after {
            Some(object) => self.objects.insert(key.clone(), object.clone()),
            None => self.objects.remove(&key),
        };
        let change = Change { version: self.version, key, before, after };
        self.watchers.retain(|watcher| !watcher.sender.is_closed());
        for watcher in &self.watchers {
            tell(&watcher.call, &watcher.sender, &change);
        }
        let last = change.after.clone().or(change.before.clone()).unwrap_or_default();
        self.changes.push(change);
        last
    }
}

const METADATA: (&str, &str) = ("meta.k8s.io/v1", "PartialObjectMetadata");

fn is_meant(call: &Call, key: &Key, object: &Value) -> bool {
    key.kind == call.resource.kind
        && (call.namespace.is_empty() || call.namespace == key.namespace)
        && selects(call, object)
}

/// An object as it was asked for.
fn shown(call: &Call, object: &Value) -> Value {
    if !call.metadata_only {
        return object.clone();
    }
    json!({"apiVersion": METADATA.0, "kind": METADATA.1, "metadata": object["metadata"]})
}

/// Lists of built-in kinds do not tell their items' types.
fn listed(call: &Call, object: &Value) -> Value {
    let mut item = shown(call, object);
    if let Some(item) = item.as_object_mut().filter(|_| call.resource.kind != "TaskPlatform" && !call.metadata_only) {
        item.retain(|field, _| field != "apiVersion" && field != "kind");
    }
    item
}

/// Tells a watcher of a change. What does not match its selectors any more is gone for it.
fn tell(call: &Call, sender: &mpsc::UnboundedSender<Bytes>, change: &Change) {
    let meant = |object: &&Value| is_meant(call, &change.key, object);
    match (change.before.as_ref().filter(meant), change.after.as_ref().filter(meant)) {
        (None, Some(after)) => send(sender, "ADDED", &shown(call, after)),
        (Some(_), Some(after)) => send(sender, "MODIFIED", &shown(call, after)),
        (Some(before), None) => {
            let mut last = shown(call, before);
            last["metadata"]["resourceVersion"] = change.version.to_string().into();
            send(sender, "DELETED", &last);
        }
        (None, None) => {}
    }
}

fn send(sender: &mpsc::UnboundedSender<Bytes>, type_: &str, object: &Value) {
    let line = format!("{}\n", json!({"type": type_, "object": object}));
    let _ = sender.unbounded_send(line.into());
}

pub(super) fn is_deleted(object: &Value) -> bool {
    object["metadata"]["deletionTimestamp"].is_string()
}

pub(super) fn finalizers(object: &Value) -> Vec<String> {
    let finalizers = object["metadata"]["finalizers"].as_array().into_iter().flatten();
    finalizers.filter_map(Value::as_str).map(str::to_owned).collect()
}

/// What a generation is of.
fn content(object: &Value) -> Vec<(&String, &Value)> {
    let fields = object.as_object().into_iter().flatten();
    fields.filter(|(field, _)| *field != "metadata" && *field != "status").collect()
}

fn grow_older(object: &mut Value) {
    let generation = object["metadata"]["generation"].as_i64().unwrap_or_default();
    object["metadata"]["generation"] = (generation + 1).into();
}

/// Sets a field to what it was.
pub(super) fn keep(before: &Value, after: &mut Value, field: &str) {
    let Some(after) = after.as_object_mut() else { return };
    match before.get(field) {
        Some(value) => after.insert(field.to_owned(), value.clone()),
        None => after.remove(field),
    };
}

fn without_what_is_empty(mut object: Value) -> Value {
    let is_empty = |value: &Value| match value {
        Value::Null => true,
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        _ => false,
    };
    if let Some(metadata) = object["metadata"].as_object_mut() {
        metadata.retain(|_, value| !is_empty(value));
    }
    object
}

fn now() -> Value {
    Timestamp::from_second(Timestamp::now().as_second()).unwrap_or_default().to_string().into()
}
