//! The platform's passwords: made once, never replaced, never printed.

use std::collections::BTreeMap;

use k8s_openapi::{ByteString, api::core::v1::Secret};
use kube::{
    Api, Client, ResourceExt,
    api::{ObjectMeta, Patch, PatchParams, PostParams},
};
use rand::{RngExt, distr::Alphanumeric};
use serde_json::json;
use taskplatform_blueprint::{MANAGED_BY, Platform, complete_credentials, owner_reference};
use taskplatform_crds::{DeletionPolicy, TaskPlatform};

/// Characters of a password: 190 bits.
const LENGTH: usize = 32;

/// The Secret cannot be had.
#[derive(Debug, thiserror::Error)]
#[error("Secret {name}: it cannot be {verb}")]
pub(crate) struct Error {
    name: String,
    verb: &'static str,
    source: kube::Error,
}

/// The platform's credentials, by key.
pub(crate) type Credentials = BTreeMap<String, String>;

/// The Secret as it is.
pub(crate) async fn find(client: &Client, platform: &Platform) -> Result<Option<Secret>, Error> {
    let api: Api<Secret> = Api::namespaced(client.clone(), platform.namespace());
    let name = platform.names().credentials();
    api.get_opt(&name).await.map_err(|source| Error { name, verb: "read", source })
}

/// The credentials of the Secret that was found, after making what is missing.
pub(crate) async fn complete(
    client: &Client,
    platform: &Platform,
    owner: &TaskPlatform,
    found: Option<Secret>,
) -> Result<Credentials, Error> {
    let api: Api<Secret> = Api::namespaced(client.clone(), platform.namespace());
    let name = platform.names().credentials();
    let failed = |verb| {
        let name = name.clone();
        move |source| Error { name, verb, source }
    };
    let secret = match found {
        Some(secret) => secret,
        None => match api.create(&PostParams::default(), &new_secret(platform, owner)).await {
            Ok(secret) => secret,
            // Somebody was faster: theirs counts.
            Err(kube::Error::Api(status)) if status.is_already_exists() => {
                api.get(&name).await.map_err(failed("read"))?
            }
            Err(error) => return Err(failed("created")(error)),
        },
    };
    let mut credentials = decode(&secret);
    let missing = complete_credentials(&credentials, password);
    let stays = owner.spec.deletion_policy == DeletionPolicy::Retain;
    if !missing.is_empty() || stays != secret.owner_references().is_empty() {
        // The resource version makes the API server refuse the change when somebody else has changed the Secret.
        let change = json!({
            "metadata": {
                "resourceVersion": secret.resource_version(),
                "ownerReferences": if stays { vec![] } else { vec![owner_reference(owner)] },
            },
            "stringData": missing,
        });
        let parameters = PatchParams { field_manager: Some(MANAGED_BY.to_owned()), ..PatchParams::default() };
        api.patch(&name, &parameters, &Patch::Merge(change)).await.map_err(failed("completed"))?;
        credentials.extend(missing);
    }
    Ok(credentials)
}

/// Without an owner where volumes stay: what opens them must stay as well.
fn new_secret(platform: &Platform, owner: &TaskPlatform) -> Secret {
    let labels = [
        ("app.kubernetes.io/name", "taskplatform"),
        ("app.kubernetes.io/instance", platform.name()),
        ("app.kubernetes.io/part-of", "taskplatform"),
        ("app.kubernetes.io/managed-by", MANAGED_BY),
    ];
    let stays = owner.spec.deletion_policy == DeletionPolicy::Retain;
    Secret {
        metadata: ObjectMeta {
            name: Some(platform.names().credentials()),
            namespace: Some(platform.namespace().to_owned()),
            labels: Some(labels.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect()),
            owner_references: (!stays).then(|| vec![owner_reference(owner)]),
            ..ObjectMeta::default()
        },
        string_data: Some(complete_credentials(&BTreeMap::new(), password)),
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
