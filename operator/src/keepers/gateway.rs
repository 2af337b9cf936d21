//! Asks through the gateway whether the platform serves: the API answers only after it has written and read.

use std::time::Duration;

use http::{Method, StatusCode};
use taskplatform_blueprint::{Component, Kind, Platform};

use super::{Brief, Keeper, Seen, pace::Mood};
use crate::{describe, http::Http};

/// The API's own checks are bounded by less than this.
const TIMEOUT: Duration = Duration::from_secs(8);

/// Users' way in.
pub(super) struct Gateway(Http);

impl Gateway {
    pub(super) const fn new(http: Http) -> Self {
        Self(http)
    }
}

impl Keeper for Gateway {
    type Sight = ();

    /// Asks only when somebody can answer.
    async fn look(&mut self, brief: &Brief) -> Seen<()> {
        let ready = |component| {
            let deployment = brief.snapshot.get(Kind::Deployment, &brief.platform.names().component(component));
            deployment.is_some_and(|deployment| deployment.data["status"]["readyReplicas"].as_i64().unwrap_or(0) > 0)
        };
        if ready(Component::Api) && ready(Component::Gateway) {
            Some(serves(&self.0, &brief.platform).await)
        } else {
            None
        }
    }

    fn mood((): &()) -> Mood {
        Mood::Settled
    }
}

/// Whether a task can be written and read through the gateway; if not, why.
async fn serves(http: &Http, platform: &Platform) -> Result<(), String> {
    let service = platform.names().component(Component::Gateway);
    let url = format!("http://{service}.{}.svc/api/ready", platform.namespace());
    let answer = http.send(Method::GET, &url, None, None, TIMEOUT).await.map_err(|error| describe(&error))?;
    if answer.status == StatusCode::OK {
        return Ok(());
    }
    let problem = answer.json();
    let detail = problem["detail"].as_str().or(problem["title"].as_str()).unwrap_or("no detail");
    Err(format!("{url} answers {}: {detail}", answer.status.as_u16()))
}
