//! No request takes for ever.

use std::{convert::Infallible, time::Duration};

use axum::response::Response;
use tokio::time::timeout;

use super::seen::Seen;
use crate::error::ApiError;

/// The longest that a request may take; every part of it has a shorter limit of its own.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(20);

/// The answer, or that it took too long.
pub(super) async fn keep(
    seen: &Seen,
    answer: impl Future<Output = Result<Response, Infallible>>,
) -> Result<Response, ApiError> {
    match timeout(REQUEST_TIMEOUT, answer).await {
        Ok(Ok(response)) => Ok(response),
        Err(_) if seen.is_read() => Err(ApiError::unavailable("this took too long; try again")),
        Err(_) => Err(ApiError::unavailable(
            "this took too long: the change may or may not be there; look before you repeat it",
        )),
    }
}
