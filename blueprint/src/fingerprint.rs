//! What the API server keeps of an object, in eight bytes a value: enough to tell whether it still is as it was applied.

use std::hash::{DefaultHasher, Hash, Hasher};

use kube::core::DynamicObject;
use serde_json::Value;

use crate::applied::{is_empty, thousandths};

/// The values of an object: the hash of each one's path, and of the value. It says the same as the object itself where one asks
/// whether a desired object is [kept](crate::applied::is_kept); that two different values look alike is one chance in some billions.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Fingerprint(Box<[(u32, u32)]>);

impl Fingerprint {
    /// Of all but the status, and of the metadata that an operator applies.
    pub fn of(object: &DynamicObject) -> Self {
        let mut values = Vec::new();
        for (field, value) in object.data.as_object().into_iter().flatten().filter(|(field, _)| *field != "status") {
            collect(Path::ROOT.field(field), value, &mut values);
        }
        let metadata = Path::ROOT.field("metadata");
        let mut note = |field: &str, value: &str| values.push((metadata.field(field).short(), hash_text(value)));
        note("name", object.metadata.name.as_deref().unwrap_or_default());
        note("namespace", object.metadata.namespace.as_deref().unwrap_or_default());
        for (field, map) in [("labels", &object.metadata.labels), ("annotations", &object.metadata.annotations)] {
            for (key, value) in map.iter().flatten() {
                values.push((metadata.field(field).field(key).short(), hash_text(value)));
            }
        }
        let owners = object.metadata.owner_references.as_ref().and_then(|owners| serde_json::to_value(owners).ok());
        collect(metadata.field("ownerReferences"), &owners.unwrap_or(Value::Null), &mut values);
        values.sort_unstable();
        Self(values.into_boxed_slice())
    }

    /// Whether the object has all that is desired. Its type is left out: objects of a listing do not tell theirs.
    pub fn holds(&self, desired: &Value) -> bool {
        let fields = desired.as_object().into_iter().flatten();
        fields
            .filter(|(field, _)| !matches!(field.as_str(), "apiVersion" | "kind"))
            .all(|(field, value)| self.has(Path::ROOT.field(field), value))
    }

    fn has(&self, path: Path, desired: &Value) -> bool {
        match desired {
            Value::Object(fields) => fields.iter().all(|(field, value)| self.has(path.field(field), value)),
            Value::Array(items) => {
                let length = self.find(path.length()).map_or(items.is_empty(), |length| length == hash(&items.len()));
                length && items.iter().enumerate().all(|(index, item)| self.has(path.item(index), item))
            }
            value => self.find(path).map_or_else(|| is_empty(value), |found| found == hash_value(value)),
        }
    }

    fn find(&self, path: Path) -> Option<u32> {
        let at = self.0.binary_search_by_key(&path.short(), |(path, _)| *path).ok()?;
        Some(self.0[at].1)
    }
}

fn collect(path: Path, value: &Value, values: &mut Vec<(u32, u32)>) {
    match value {
        Value::Null => {}
        Value::Object(fields) => fields.iter().for_each(|(field, value)| collect(path.field(field), value, values)),
        Value::Array(items) => {
            values.push((path.length().short(), hash(&items.len())));
            items.iter().enumerate().for_each(|(index, item)| collect(path.item(index), item, values));
        }
        value => values.push((path.short(), hash_value(value))),
    }
}

/// Where a value stands.
#[derive(Clone, Copy)]
struct Path(u64);

impl Path {
    const ROOT: Self = Self(0);

    fn field(self, name: &str) -> Self {
        Self(hash_all(&(self.0, name)))
    }

    fn item(self, index: usize) -> Self {
        Self(hash_all(&(self.0, index)))
    }

    fn length(self) -> Self {
        Self(hash_all(&(self.0, "[]", 0_u8)))
    }

    const fn short(self) -> u32 {
        (self.0 >> 32) as u32
    }
}

fn hash_value(value: &Value) -> u32 {
    match value {
        Value::String(text) => hash_text(text),
        other => hash(&other.to_string()),
    }
}

/// Quantities by their meaning: the API server writes them in its own way.
fn hash_text(text: &str) -> u32 {
    thousandths(text).map_or_else(|| hash(&("text", text)), |thousandths| hash(&("quantity", thousandths)))
}

fn hash(value: &impl Hash) -> u32 {
    (hash_all(value) >> 32) as u32
}

fn hash_all(value: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::applied::is_kept;

    fn object(spec: &Value) -> DynamicObject {
        let metadata = json!({"name": "a", "namespace": "b", "labels": {"size": "1Gi"}, "annotations": {"note": ""}});
        serde_json::from_value(json!({"metadata": metadata, "spec": spec, "status": {"ready": 1}})).unwrap()
    }

    fn value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            (0..3).prop_map(Value::from),
            prop_oneof![Just("1"), Just("1000m"), Just("1Gi"), Just("1024Mi"), Just("x"), Just("")]
                .prop_map(Value::from),
        ];
        leaf.prop_recursive(3, 12, 3, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
                prop::collection::btree_map("[ab]", inner, 0..3).prop_map(|map| map.into_iter().collect()),
            ]
        })
    }

    /// The same value, with what an API server or a stranger adds.
    fn grown(value: &Value) -> Value {
        match value {
            Value::Object(fields) => {
                let fields = fields.iter().map(|(key, value)| (key.clone(), grown(value)));
                fields.chain([("added".to_owned(), json!(7))]).collect()
            }
            Value::Array(items) => items.iter().map(grown).collect(),
            other => other.clone(),
        }
    }

    proptest! {
        #[test]
        fn it_says_of_plain_changes_what_the_object_says(live in value(), desired in value()) {
            let desired = json!({"kind": "X", "metadata": {"name": "a", "labels": {"size": "1024Mi"}}, "spec": desired});
            let (same, other) = (object(&grown(&desired["spec"])), object(&live));
            prop_assert!(is_kept(&same, &desired) && Fingerprint::of(&same).holds(&desired));
            // What has another type in the live object and is empty in the desired one is no difference here.
            if is_kept(&other, &desired) {
                prop_assert!(Fingerprint::of(&other).holds(&desired), "{other:?} {desired}");
            }
        }
    }

    #[test]
    fn a_foreign_edit_is_a_difference() {
        let desired = json!({"spec": {"replicas": 3, "on": true, "ports": [{"port": 80}]}});
        assert!(Fingerprint::of(&object(&desired["spec"])).holds(&desired));
        for live in [
            json!({"replicas": 2, "on": true, "ports": [{"port": 80}]}),
            json!({"replicas": 3, "on": true, "ports": [{"port": 81}]}),
            json!({"replicas": 3, "on": true, "ports": [{"port": 80}, {"port": 443}]}),
            json!({"replicas": 3, "on": false, "ports": [{"port": 80}]}),
            json!({"replicas": "3", "on": true, "ports": [{"port": 80}]}),
            json!({"on": true, "ports": [{"port": 80}]}),
        ] {
            assert!(!Fingerprint::of(&object(&live)).holds(&desired), "{live} was taken for {desired}");
        }
        let labelled = json!({"metadata": {"labels": {"size": "2Gi"}}, "spec": {}});
        assert!(!Fingerprint::of(&object(&json!({}))).holds(&labelled));
    }
}
