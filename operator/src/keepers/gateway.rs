//! Asks through the gateway whether the platform serves: the API answers only after it has written and read.

use std::{net::IpAddr, time::Duration};

use futures::{FutureExt, future::select_ok};
use http::{Method, StatusCode};
use taskplatform_blueprint::{Component, Endpoint, Kind};

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
        let api = brief.snapshot.get(Kind::Deployment, &brief.platform.names().component(Component::API))?;
        if api.data()["status"]["readyReplicas"].as_i64().unwrap_or(0) == 0 {
            return None;
        }
        let pods = brief.snapshot.pods(Component::GATEWAY).filter(|pod| pod.is_ready());
        let questions: Vec<_> = pods.filter_map(|pod| Some(ask(&self.0, pod.address()?).boxed())).collect();
        if questions.is_empty() {
            return None;
        }
        Some(select_ok(questions).await.map(|_| ()))
    }

    fn mood((): &()) -> Mood {
        Mood::Settled
    }
}

/// Whether a task can be written and read through a pod of the gateway; if not, why.
async fn ask(http: &Http, address: IpAddr) -> Result<(), String> {
    // Not through the Service: behind its port the rate limits count, and the operator's questions are none of the users'.
    let url = format!("http://{}/api/ready", Endpoint::GATEWAY_OPERATOR.at(address));
    let answer = http.send(Method::GET, &url, None, None, TIMEOUT).await.map_err(|error| describe(&error))?;
    if answer.status == StatusCode::OK {
        return Ok(());
    }
    let problem = answer.json();
    let detail = problem["detail"].as_str().or(problem["title"].as_str()).unwrap_or("no detail");
    Err(format!("{url} answers {}: {detail}", answer.status.as_u16()))
}
