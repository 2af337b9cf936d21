//! What an instance answers before it serves, and while it drains.

use axum::{
    http::{HeaderValue, header},
    response::Response,
};

use super::seen::Seen;
use crate::{error::ApiError, server::lifecycle::Lifecycle};

/// Before the database is there, only probes are answered.
pub(super) fn check(lifecycle: &Lifecycle, seen: &Seen) -> Result<(), ApiError> {
    if !lifecycle.is_started() && !seen.is_probe() {
        return Err(ApiError::unavailable("this instance starts: it waits for its database; try again"));
    }
    Ok(())
}

/// While it drains, clients are told to connect elsewhere.
pub(super) fn part(lifecycle: &Lifecycle, response: &mut Response) {
    if lifecycle.is_draining() {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
}
