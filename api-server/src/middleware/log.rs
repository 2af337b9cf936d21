//! A line in the log for each request.

use std::time::Duration;

use axum::{http::StatusCode, response::Response};

use super::seen::Seen;
use crate::error::Cause;

/// A request that takes longer is logged.
const SLOW: Duration = Duration::from_secs(1);

/// Tells of a request and its answer.
pub(super) fn write(seen: &Seen, response: &Response, took: Duration) {
    let status = response.status();
    // The level has to be known where the line is, so there is a line for each.
    macro_rules! line {
        ($level:ident, $message:literal) => {
            tracing::$level!(
                http.request.method = seen.method,
                url.path = seen.uri.path(),
                http.response.status_code = status.as_u16(),
                event.duration = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX),
                error.message = response.extensions().get::<Cause>().map(|Cause(cause)| cause.as_str()),
                $message
            )
        };
    }
    if status == StatusCode::INTERNAL_SERVER_ERROR {
        line!(error, "request failed");
    } else if status.is_server_error() && !seen.is_probe() {
        line!(warn, "request refused");
    } else if took > SLOW {
        line!(info, "slow request");
    } else {
        line!(debug, "request");
    }
}
