//! What the cluster offers.

use std::{
    sync::Mutex,
    time::{Duration, Instant},
};

use kube::Client;
use taskplatform_blueprint::REQUESTS_PER_SECOND;
use tracing::warn;

/// How long an answer counts: a metrics provider is not installed every minute.
const FRESH: Duration = Duration::from_mins(1);

/// Finds out, and remembers for a while, what the cluster offers.
#[derive(Default)]
pub(crate) struct Offers {
    requests_per_second: Mutex<Option<(Instant, bool)>>,
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
