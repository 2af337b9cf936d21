//! The platform's passwords: made once, changed when a person changes them, never printed.

use std::{collections::BTreeMap, sync::Arc};

use jiff::Timestamp;

use k8s_openapi::{ByteString, api::core::v1::Secret};
use kube::{
    Api, Client, ResourceExt,
    api::{ObjectMeta, Patch, PatchParams, PostParams},
};
use rand::{RngExt, distr::Alphanumeric};
use serde_json::json;
use taskplatform_blueprint::{Component, Credentials, Draft, MANAGED_BY, Platform, credential_keys, credential_owner};
use tracing::warn;

use crate::{status::RELEASE, world::Snapshot};

/// Characters of a password: 190 bits.
const LENGTH: usize = 32;
/// The annotation with the release that completed the Secret: what it lacks since then is lost, and not of a later release.
const COMPLETED_BY: &str = "taskplatform.dev/completed-by";

/// The credentials cannot be had.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("Secret {name}: it cannot be {verb}")]
    Api { name: String, verb: &'static str, source: Box<kube::Error> },
    #[error(
        "Secret {name} lacks {missing}, which what runs was made with: new passwords would open nothing. Restore the Secret from where you keep it (kubectl apply -f), or delete the volumes as well to begin anew. What runs goes on, but no pod can start"
    )]
    Lost { name: String, missing: String },
    #[error(
        "Secret {name} exists already and is not this platform's: delete or rename it, or, if its passwords are to be used, give it the labels app.kubernetes.io/name=taskplatform and app.kubernetes.io/instance={platform}"
    )]
    Taken { name: String, platform: String },
}

impl Error {
    /// Whether a person has to act: asking again does not help.
    pub(crate) const fn is_for_a_person(&self) -> bool {
        matches!(self, Self::Lost { .. } | Self::Taken { .. })
    }
}

/// The Secret as it is.
pub(crate) async fn find(client: &Client, platform: &Platform) -> Result<Option<Secret>, Error> {
    let api: Api<Secret> = Api::namespaced(client.clone(), platform.namespace());
    let name = platform.names().credentials();
    let found = api.get_opt(&name).await;
    found.map_err(|source| Error::Api { name, verb: "read", source: Box::new(source) })
}

/// Whether a Secret is a platform's, or was given to it.
pub(crate) fn is_ours(secret: &impl ResourceExt, draft: &Draft) -> bool {
    let is = |label: &str, value: &str| secret.labels().get(label).is_some_and(|found| found == value);
    is("app.kubernetes.io/name", "taskplatform") && is("app.kubernetes.io/instance", draft.name())
}

/// The credentials of the Secret that was found, with what is missing: as they were, where that is `known`; made anew only for parts of
/// which nothing is there yet.
pub(crate) async fn complete(
    client: &Client,
    platform: &Platform,
    found: Option<Secret>,
    known: Option<&Arc<Credentials>>,
    snapshot: &Snapshot,
) -> Result<Credentials, Error> {
    let name = platform.names().credentials();
    if found.as_ref().is_some_and(|secret| !is_ours(secret, platform)) {
        return Err(Error::Taken { name, platform: platform.name().to_owned() });
    }
    let existing = found.as_ref().map(decode).unwrap_or_default();
    let was_complete = found
        .as_ref()
        .is_none_or(|secret| secret.annotations().get(COMPLETED_BY).is_some_and(|release| release == RELEASE));
    let missing = missing(&existing, known.map(|known| &**known), |part| was_complete && has_begun(snapshot, part))
        .map_err(|missing| Error::Lost { name: name.clone(), missing: missing.join(", ") })?;
    let is_owned = found.as_ref().is_some_and(|secret| !secret.owner_references().is_empty());
    if found.is_none() || !missing.is_empty() || !was_complete || is_owned {
        write(client, platform, found.as_ref(), &missing).await?;
    }
    Ok(existing.with(missing))
}

/// What is to be added or changed: what was known before, new passwords for parts that have not begun, and what a person wishes. The keys
/// that are lost, else.
fn missing(
    existing: &Credentials,
    known: Option<&Credentials>,
    has_begun: impl Fn(Component) -> bool,
) -> Result<BTreeMap<String, String>, Vec<String>> {
    let base = known.map_or_else(|| existing.clone(), |known| existing.clone().or(known));
    let lost: Vec<String> = credential_keys()
        .filter(|key| base.wish(key).is_none() && base.current(key).is_none())
        .filter(|key| credential_owner(key).is_some_and(&has_begun))
        .map(str::to_owned)
        .collect();
    if !lost.is_empty() {
        return Err(lost);
    }
    let mut missing = base.complete(password, &Timestamp::now().to_string());
    let restored = base.entries().filter(|(key, _)| !existing.has(key));
    for (key, value) in restored {
        missing.entry(key.clone()).or_insert_with(|| value.clone());
    }
    Ok(missing)
}

/// Takes the passwords before the last out of the Secret: nobody admits them any more.
pub(crate) async fn forget_former(client: &Client, platform: &Platform, keys: &[&str]) -> Result<(), Error> {
    let Some(secret) = find(client, platform).await? else { return Ok(()) };
    let change: BTreeMap<String, Option<ByteString>> = decode(&secret)
        .without_former(keys, &Timestamp::now().to_string())
        .into_iter()
        .map(|(key, text)| (key, text.map(|text| ByteString(text.into_bytes()))))
        .collect();
    let change = json!({"metadata": {"resourceVersion": secret.resource_version()}, "data": change});
    let parameters = PatchParams { field_manager: Some(MANAGED_BY.to_owned()), ..PatchParams::default() };
    let api: Api<Secret> = Api::namespaced(client.clone(), platform.namespace());
    let name = platform.names().credentials();
    let written = api.patch(&name, &parameters, &Patch::Merge(change)).await;
    written.map(drop).map_err(|source| Error::Api {
        name,
        verb: "relieved of former passwords",
        source: Box::new(source),
    })
}

/// Whether a part was made with its passwords: it has objects, or volumes from before.
fn has_begun(snapshot: &Snapshot, part: Component) -> bool {
    snapshot.has_any(part) || snapshot.claims().any(|claim| claim.component == Some(part))
}

async fn write(
    client: &Client,
    platform: &Platform,
    found: Option<&Secret>,
    missing: &BTreeMap<String, String>,
) -> Result<(), Error> {
    let api: Api<Secret> = Api::namespaced(client.clone(), platform.namespace());
    let name = platform.names().credentials();
    let (verb, written) = if let Some(secret) = found {
        // The resource version makes the API server refuse the change when somebody else has changed the Secret.
        let metadata = json!({
            "resourceVersion": secret.resource_version(), "ownerReferences": [], "annotations": {COMPLETED_BY: RELEASE},
        });
        let change = json!({"metadata": metadata, "stringData": missing});
        let parameters = PatchParams { field_manager: Some(MANAGED_BY.to_owned()), ..PatchParams::default() };
        ("completed", api.patch(&name, &parameters, &Patch::Merge(change)).await)
    } else {
        ("created", api.create(&PostParams::default(), &new_secret(platform, missing)).await)
    };
    written.map_err(|source| Error::Api { name: name.clone(), verb, source: Box::new(source) })?;
    if platform.status().is_some() && !missing.is_empty() {
        let keys = missing.keys().cloned().collect::<Vec<_>>().join(", ");
        warn!(secret = name, namespace = platform.namespace(), keys, "the credentials are complete again");
    }
    Ok(())
}

/// Without an owner: what opens the volumes stays as long as they do.
fn new_secret(platform: &Platform, entries: &BTreeMap<String, String>) -> Secret {
    let labels = [
        ("app.kubernetes.io/name", "taskplatform"),
        ("app.kubernetes.io/instance", platform.name()),
        ("app.kubernetes.io/part-of", "taskplatform"),
        ("app.kubernetes.io/managed-by", MANAGED_BY),
    ];
    Secret {
        metadata: ObjectMeta {
            name: Some(platform.names().credentials()),
            namespace: Some(platform.namespace().to_owned()),
            annotations: Some(BTreeMap::from([(COMPLETED_BY.to_owned(), RELEASE.to_owned())])),
            labels: Some(labels.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect()),
            ..ObjectMeta::default()
        },
        string_data: Some(entries.clone()),
        ..Secret::default()
    }
}

fn password() -> String {
    rand::rng().sample_iter(Alphanumeric).take(LENGTH).map(char::from).collect()
}

fn decode(secret: &Secret) -> Credentials {
    let text = |ByteString(bytes): &ByteString| String::from_utf8_lossy(bytes).into_owned();
    secret.data.iter().flatten().map(|(key, value)| (key.clone(), text(value))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all() -> Credentials {
        Credentials::default().complete(|| "made-of-sixteen-".to_owned(), "").into_iter().collect()
    }

    fn without(credentials: &Credentials, lost: &str) -> Credentials {
        let kept = credentials.entries().filter(|(key, _)| !key.starts_with(lost));
        kept.map(|(key, value)| (key.clone(), value.clone())).collect()
    }

    #[test]
    fn a_platform_that_begins_gets_new_passwords() {
        let made = missing(&Credentials::default(), None, |_| false).unwrap();
        assert_eq!(made.len(), all().entries().count());
    }

    #[test]
    fn what_runs_never_gets_others() {
        let existing = without(&all(), "cache-password");
        let lost = missing(&existing, None, |part| part == Component::CACHE).unwrap_err();
        assert_eq!(lost, ["cache-password"]);
        assert!(missing(&existing, None, |part| part != Component::CACHE).is_ok(), "a part that begins gets its own");
        assert_eq!(missing(&Credentials::default(), None, |_| true).unwrap_err().len(), 9, "a lost Secret loses all");
    }

    #[test]
    fn what_is_known_is_put_back() {
        let known = all();
        let restored = missing(&Credentials::default(), Some(&known), |_| true).unwrap();
        assert_eq!(restored.into_iter().collect::<Credentials>(), known);
        let changed = without(&known, "cache-password").with([("tasks-password".into(), "chosen-by-a-person".into())]);
        let restored = missing(&changed, Some(&known), |_| true).unwrap();
        assert_eq!(restored["cache-password"], "made-of-sixteen-");
        assert!(!restored.contains_key("tasks-password"), "what the Secret says counts");
        assert!(restored["userlist.txt"].contains("chosen-by-a-person"), "files follow from the passwords");
    }
}
