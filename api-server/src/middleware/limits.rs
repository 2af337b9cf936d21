//! How large a request's head may be. What is larger than hyper reads at all, it refuses itself, without a body.

use axum::http::{HeaderMap, Uri};

use crate::error::ApiError;

/// The most bytes in an address.
pub const MAX_URI: usize = 8 << 10;
/// The most bytes in the names and values of all headers.
pub const MAX_HEADERS: usize = 32 << 10;

/// Refuses a head that is too large.
pub fn check(uri: &Uri, headers: &HeaderMap) -> Result<(), ApiError> {
    let uri = uri.path_and_query().map_or(0, |uri| uri.as_str().len());
    if uri > MAX_URI {
        return Err(ApiError::UriTooLong);
    }
    let headers: usize = headers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
    if headers > MAX_HEADERS {
        return Err(ApiError::HeadersTooLarge);
    }
    Ok(())
}
