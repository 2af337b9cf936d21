//! Asks through the gateway whether the platform serves: the API answers only after it has written and read.

use std::time::Duration;

use http::{Method, StatusCode};
use taskplatform_blueprint::{Component, Platform};

use crate::http::Http;

/// The API's own checks are bounded by less than this.
const TIMEOUT: Duration = Duration::from_secs(8);

/// Whether a task can be written and read through the gateway; if not, why.
pub(crate) async fn serves(http: &Http, platform: &Platform) -> Result<(), String> {
    let service = platform.names().component(Component::Gateway);
    let url = format!("http://{service}.{}.svc/api/ready", platform.namespace());
    let answer = http.send(Method::GET, &url, None, None, TIMEOUT).await.map_err(|error| crate::describe(&error))?;
    if answer.status == StatusCode::OK {
        return Ok(());
    }
    let problem = answer.json();
    let detail = problem["detail"].as_str().or(problem["title"].as_str()).unwrap_or("no detail");
    Err(format!("{url} answers {}: {detail}", answer.status.as_u16()))
}
