//! The platform's passwords: made once, never replaced, never printed.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use k8s_openapi::{ByteString, api::core::v1::Secret};
use kube::{
    Api, Client, ResourceExt,
    api::{ObjectMeta, Patch, PatchParams, PostParams},
};
use rand::{RngExt, distr::Alphanumeric};
use serde_json::json;
use taskplatform_blueprint::{
    Component, Draft, MANAGED_BY, Platform, complete_credentials, credential_owner, is_derived_credential,
};
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

/// The platform's credentials, by key.
pub(crate) type Credentials = BTreeMap<String, String>;

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
    let mut credentials = existing;
    let is_owned = found.as_ref().is_some_and(|secret| !secret.owner_references().is_empty());
    if found.is_none() || !missing.is_empty() || !was_complete || is_owned {
        write(client, platform, found.as_ref(), &missing).await?;
        credentials.extend(missing);
    }
    Ok(credentials)
}

/// What is to be added: what was known before, and new passwords for parts that have not begun. The keys that are lost, else.
fn missing(
    existing: &Credentials,
    known: Option<&Credentials>,
    has_begun: impl Fn(Component) -> bool,
) -> Result<BTreeMap<String, String>, Vec<String>> {
    let mut base = existing.clone();
    for (key, value) in known.into_iter().flatten().filter(|(key, _)| !is_derived_credential(key)) {
        base.entry(key.clone()).or_insert_with(|| value.clone());
    }
    let mut missing = complete_credentials(&base, password);
    let lost: BTreeSet<&String> = missing
        .keys()
        .filter(|key| !is_derived_credential(key) && credential_owner(key).is_some_and(&has_begun))
        .collect();
    if !lost.is_empty() {
        return Err(lost.into_iter().cloned().collect());
    }
    missing.extend(base.into_iter().filter(|(key, _)| !existing.contains_key(key)));
    Ok(missing)
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
fn new_secret(platform: &Platform, credentials: &BTreeMap<String, String>) -> Secret {
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
        string_data: Some(credentials.clone()),
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
        complete_credentials(&BTreeMap::new(), || "made".to_owned())
    }

    #[test]
    fn a_platform_that_begins_gets_new_passwords() {
        let made = missing(&Credentials::new(), None, |_| false).unwrap();
        assert_eq!(made.len(), all().len());
    }

    #[test]
    fn what_runs_never_gets_others() {
        let mut existing = all();
        existing.remove("cache-password");
        let lost = missing(&existing, None, |part| part == Component::CACHE).unwrap_err();
        assert_eq!(lost, ["cache-password"]);
        assert!(missing(&existing, None, |part| part != Component::CACHE).is_ok(), "a part that begins gets its own");
        assert_eq!(missing(&Credentials::new(), None, |_| true).unwrap_err().len(), 9, "a lost Secret loses all");
    }

    #[test]
    fn what_is_known_is_put_back() {
        let known = all();
        let restored = missing(&Credentials::new(), Some(&known), |_| true).unwrap();
        assert_eq!(restored, known);
        let mut changed = known.clone();
        changed.remove("cache-password");
        changed.insert("tasks-password".to_owned(), "chosen".to_owned());
        let restored = missing(&changed, Some(&known), |_| true).unwrap();
        assert_eq!(restored["cache-password"], "made");
        assert!(!restored.contains_key("tasks-password"), "what the Secret says counts");
        assert!(restored["userlist.txt"].contains("chosen"), "files follow from the passwords");
    }
}
