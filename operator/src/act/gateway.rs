//! Asks through the gateway whether the platform serves: the API answers only after it has written and read.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use futures::{FutureExt, future::select_ok};
use http::{Method, StatusCode};
use kube::core::DynamicObject;
use taskplatform_blueprint::ports;

use crate::{
    act::{address, is_ready},
    http::Http,
};

/// The API's own checks are bounded by less than this.
const TIMEOUT: Duration = Duration::from_secs(8);

/// Whether a task can be written and read through one of the gateway's pods; if not, why. None while no pod can answer.
pub(crate) async fn serves(http: &Http, pods: &[Arc<DynamicObject>]) -> Option<Result<(), String>> {
    let ready = pods.iter().filter(|pod| is_ready(pod)).filter_map(|pod| address(pod));
    let questions: Vec<_> = ready.map(|address| ask(http, address).boxed()).collect();
    if questions.is_empty() {
        return None;
    }
    Some(select_ok(questions).await.map(|_| ()))
}

async fn ask(http: &Http, address: std::net::IpAddr) -> Result<(), String> {
    // Not through the Service: behind its port the rate limits count, and the operator's questions are none of the users'.
    let port = u16::try_from(ports::GATEWAY_OPERATOR).unwrap_or_default();
    let url = format!("http://{}/api/ready", SocketAddr::new(address, port));
    let answer = http.send(Method::GET, &url, None, None, TIMEOUT).await.map_err(|error| crate::describe(&error))?;
    if answer.status == StatusCode::OK {
        return Ok(());
    }
    let problem = answer.json();
    let detail = problem["detail"].as_str().or(problem["title"].as_str()).unwrap_or("no detail");
    Err(format!("{url} answers {}: {detail}", answer.status.as_u16()))
}
