//! The garbage collector: what it does at leisure, all at once.

use std::collections::HashSet;

use serde_json::Value;

use super::store::{Key, Store, finalizers, is_deleted};

/// Collects until nothing is left to collect.
pub(super) fn collect(store: &mut Store) {
    while let Some(key) = first(store) {
        collect_one(store, &key);
    }
}

fn first(store: &Store) -> Option<Key> {
    let uids: HashSet<&str> = store.objects.values().filter_map(uid).collect();
    store.objects.iter().find(|(_, object)| is_garbage(store, object, &uids)).map(|(key, _)| key.clone())
}

fn is_garbage(store: &Store, object: &Value, uids: &HashSet<&str>) -> bool {
    if is_deleted(object) {
        return finalizers(object).iter().any(|finalizer| match finalizer.as_str() {
            "orphan" => true,
            "foregroundDeletion" => {
                let dependents = dependents(store, object);
                dependents.is_empty() || dependents.iter().any(|key| !is_deleted(&store.objects[key]))
            }
            _ => false,
        });
    }
    owners(object).iter().any(|owner| !owner["uid"].as_str().is_some_and(|uid| uids.contains(uid)))
}

fn collect_one(store: &mut Store, key: &Key) {
    let mut object = store.objects[key].clone();
    if !is_deleted(&object) {
        return drop_owners(store, key);
    }
    let dependents = dependents(store, &object);
    for dependent in &dependents {
        if finalizers(&object).contains(&"orphan".to_owned()) {
            release(store, dependent, |owner| owner["uid"] != object["metadata"]["uid"]);
        } else {
            store.delete(dependent, None);
        }
    }
    let done = finalizers(&object).iter().any(|finalizer| finalizer == "orphan") || dependents.is_empty();
    if done {
        let left = finalizers(&object).into_iter().filter(|name| name != "orphan" && name != "foregroundDeletion");
        object["metadata"]["finalizers"] = left.collect();
        store.update(key.clone(), object);
    }
}

/// What has lost all of its owners goes; what has lost some belongs to the others.
fn drop_owners(store: &mut Store, key: &Key) {
    let owners = owners(&store.objects[key]).iter();
    let left: Vec<Value> = owners.filter(|owner| exists(store, owner)).cloned().collect();
    if left.is_empty() {
        store.delete(key, None);
    } else {
        release(store, key, |owner| left.contains(owner));
    }
}

fn release(store: &mut Store, key: &Key, stays: impl Fn(&Value) -> bool) {
    let mut object = store.objects[key].clone();
    object["metadata"]["ownerReferences"] = owners(&object).iter().filter(|owner| stays(owner)).cloned().collect();
    store.update(key.clone(), object);
}

fn owners(object: &Value) -> &[Value] {
    object["metadata"]["ownerReferences"].as_array().map_or(&[], Vec::as_slice)
}

fn uid(object: &Value) -> Option<&str> {
    object["metadata"]["uid"].as_str()
}

fn exists(store: &Store, owner: &Value) -> bool {
    store.objects.values().any(|object| object["metadata"]["uid"] == owner["uid"])
}

fn dependents(store: &Store, owner: &Value) -> Vec<Key> {
    let is_dependent = |object: &Value| owners(object).iter().any(|known| known["uid"] == owner["metadata"]["uid"]);
    store.objects.iter().filter(|(_, object)| is_dependent(object)).map(|(key, _)| key.clone()).collect()
}
