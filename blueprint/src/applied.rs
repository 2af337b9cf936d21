//! Whether a live object is as it was applied. The operator applies what is not, and `plan` tells what that would be.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::{ResourceExt, core::DynamicObject};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::Object;

/// The annotation with the digest of what was applied last: it tells when something was taken away.
pub const APPLIED: &str = "taskplatform.dev/applied";

/// An object of the blueprint as it is sent: with its owner, if that takes it along, and with the digest of all that.
pub fn as_sent(object: &Object, owner: &OwnerReference) -> Value {
    let owners: &[&OwnerReference] = if object.is_owned() { &[owner] } else { &[] };
    with_owners(object.value().clone(), owners)
}

/// The same of an object that its owner takes along.
pub fn with_owner(value: Value, owner: &OwnerReference) -> Value {
    with_owners(value, &[owner])
}

fn with_owners(mut value: Value, owners: &[&OwnerReference]) -> Value {
    value["metadata"]["ownerReferences"] = json!(owners);
    let applied = digest(&value);
    value["metadata"]["annotations"][APPLIED] = applied.into();
    value
}

/// Whether what was applied last is what would be applied now.
pub fn was_applied(live: &DynamicObject, desired: &Value) -> bool {
    live.annotations().get(APPLIED).map(String::as_str) == desired["metadata"]["annotations"][APPLIED].as_str()
}

/// Whether the live object has all that is desired. Its type is left out: objects of a listing do not tell theirs.
pub fn is_kept(live: &DynamicObject, desired: &Value) -> bool {
    let Ok(metadata) = serde_json::to_value(&live.metadata) else { return false };
    desired.as_object().into_iter().flatten().all(|(field, desired)| match field.as_str() {
        "apiVersion" | "kind" => true,
        "metadata" => contains(&metadata, desired),
        _ => contains(&live.data[field], desired),
    })
}

/// Whether `live` has all that `desired` says. What the API server adds, such as defaults, does not matter; what it writes
/// in another way, such as quantities, is compared by its meaning.
pub(crate) fn contains(live: &Value, desired: &Value) -> bool {
    match (live, desired) {
        (Value::Object(live), Value::Object(desired)) => desired.iter().all(|(key, desired)| match live.get(key) {
            Some(live) => contains(live, desired),
            // The API server drops what is empty.
            None => is_empty(desired),
        }),
        (Value::Array(live), Value::Array(desired)) => {
            live.len() == desired.len() && live.iter().zip(desired).all(|(live, desired)| contains(live, desired))
        }
        (Value::String(live), Value::String(desired)) => live == desired || same_quantity(live, desired),
        (live, desired) => live == desired,
    }
}

pub(crate) fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        _ => false,
    }
}

/// `1Gi` and `1024Mi`, `0.143` and `143m`: the API server writes a quantity in its own way.
pub(crate) fn same_quantity(one: &str, other: &str) -> bool {
    matches!((thousandths(one), thousandths(other)), (Some(one), Some(other)) if one == other)
}

/// A quantity in thousandths.
pub(crate) fn thousandths(text: &str) -> Option<u128> {
    let units: [(&str, u128); 12] = [
        ("Ki", 1000 << 10),
        ("Mi", 1000 << 20),
        ("Gi", 1000 << 30),
        ("Ti", 1000 << 40),
        ("Pi", 1000 << 50),
        ("k", 1_000_000),
        ("M", 1_000_000_000),
        ("G", 1_000_000_000_000),
        ("T", 1_000_000_000_000_000),
        ("P", 1_000_000_000_000_000_000),
        ("m", 1),
        ("", 1000),
    ];
    let (number, unit) =
        units.iter().find_map(|(suffix, unit)| text.strip_suffix(suffix).map(|number| (number, unit)))?;
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let plain = |digits: &str| digits.len() <= 18 && digits.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || !plain(whole) || !plain(fraction) {
        return None;
    }
    let scale = 10_u128.pow(u32::try_from(fraction.len()).ok()?);
    let digits: u128 = format!("{whole}{fraction}").parse().ok()?;
    digits.checked_mul(*unit).map(|value| value / scale)
}

/// A short digest of a value.
pub fn digest(value: &Value) -> String {
    let hash = Sha256::digest(value.to_string());
    hash.iter().take(12).fold(String::new(), |text, byte| format!("{text}{byte:02x}"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_the_api_server_adds_is_no_difference() {
        let desired = json!({"spec": {"ports": [{"name": "http", "port": 80}], "empty": {}, "off": false}});
        let live =
            json!({"spec": {"ports": [{"name": "http", "port": 80, "protocol": "TCP"}], "clusterIP": "10.0.0.1"}});
        assert!(contains(&live, &desired));
    }

    #[test]
    fn a_foreign_edit_is_a_difference() {
        let desired = json!({"spec": {"replicas": 3, "ports": [{"port": 80}]}});
        for live in [
            json!({"spec": {"replicas": 2, "ports": [{"port": 80}]}}),
            json!({"spec": {"replicas": 3, "ports": [{"port": 81}]}}),
            json!({"spec": {"replicas": 3, "ports": [{"port": 80}, {"port": 443}]}}),
            json!({"spec": {"ports": [{"port": 80}]}}),
        ] {
            assert!(!contains(&live, &desired), "{live} was taken for {desired}");
        }
    }

    #[test]
    fn quantities_are_compared_by_their_meaning() {
        for (one, other) in
            [("1024Mi", "1Gi"), ("0.143", "143m"), ("1000m", "1"), ("1.5Gi", "1536Mi"), ("1000000000", "1G")]
        {
            assert!(same_quantity(one, other), "{one} and {other}");
        }
        for (one, other) in [("1Gi", "1G"), ("100", "100m"), ("abc", "abd"), ("", "0")] {
            assert!(!same_quantity(one, other), "{one} and {other}");
        }
    }
}
