//! What the cluster offers.

use std::{
    collections::HashMap,
    sync::Mutex,
    time::{Duration, Instant},
};

use k8s_openapi::api::storage::v1::StorageClass;
use kube::{Api, Client};
use taskplatform_blueprint::REQUESTS_PER_SECOND;
use tracing::warn;

use super::lock;

/// How long an answer counts: a metrics provider is not installed every minute.
const FRESH: Duration = Duration::from_mins(1);

/// Finds out, and remembers for a while, what the cluster offers.
#[derive(Default)]
pub(crate) struct Offers {
    requests_per_second: Mutex<Option<(Instant, bool)>>,
    /// Whether the volumes of a storage class can grow, by its name.
    expandable: Mutex<HashMap<String, (Instant, bool)>>,
}

impl Offers {
    /// Whether a provider serves the pods' metric `http_requests_per_second`.
    pub(crate) async fn requests_per_second(&self, client: &Client) -> bool {
        let known = self.requests_per_second.lock().ok().and_then(|known| *known);
        match known {
            Some((at, served)) if at.elapsed() < FRESH => served,
            _ => {
                let served = serves_requests_per_second(client, known.is_some_and(|(_, served)| served)).await;
                if let Ok(mut known) = self.requests_per_second.lock() {
                    *known = Some((Instant::now(), served));
                }
                served
            }
        }
    }
}

impl Offers {
    /// Whether the volumes of a storage class can grow. Where it cannot be read, growing them will tell.
    pub(crate) async fn is_expandable(&self, client: &Client, class: &str) -> bool {
        if class.is_empty() {
            return false;
        }
        let known = lock(&self.expandable).get(class).copied().filter(|(at, _)| at.elapsed() < FRESH);
        if let Some((_, is_expandable)) = known {
            return is_expandable;
        }
        let is_expandable = match Api::<StorageClass>::all(client.clone()).get_opt(class).await {
            Ok(found) => found.is_some_and(|class| class.allow_volume_expansion.unwrap_or_default()),
            Err(error) => {
                warn!(%error, class, "the storage class cannot be read: does the operator's ClusterRole allow it to get storageclasses?");
                return true;
            }
        };
        lock(&self.expandable).insert(class.to_owned(), (Instant::now(), is_expandable));
        is_expandable
    }
}

/// A provider that is down for a moment is not gone: what was known before holds.
async fn serves_requests_per_second(client: &Client, before: bool) -> bool {
    for version in REQUESTS_PER_SECOND.versions {
        match client.list_api_group_resources(version).await {
            Ok(resources) => {
                return resources.resources.iter().any(|resource| resource.name == REQUESTS_PER_SECOND.resource);
            }
            // Without the API there is no Status, either: only the code tells.
            Err(kube::Error::Api(status)) if status.code == 404 => {}
            Err(error) => {
                warn!(%error, version, "the custom metrics API does not answer");
                return before;
            }
        }
    }
    false
}
