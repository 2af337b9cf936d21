//! What can go wrong, and how it is told: RFC 9457 `application/problem+json`.

use std::borrow::Cow;

use axum::{
    body::Body,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;
use thiserror::Error;

use crate::{
    auth::{password::PasswordError, session::SessionError},
    store::StoreError,
};

/// Why the process can't start, or stops.
#[derive(Debug, Error)]
pub enum StartError {
    /// An address is taken or not this host's.
    #[error("can't listen on {address}: {cause}; free the port, or choose another with --listen and --metrics-listen")]
    Listen {
        /// The address.
        address: std::net::SocketAddr,
        /// Why not.
        cause: std::io::Error,
    },
    /// The database file.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The session store's URL.
    #[error(transparent)]
    Sessions(#[from] SessionError),
    /// Signals can't be received.
    #[error("can't wait for SIGTERM: {0}")]
    Signals(std::io::Error),
}

/// One thing wrong with one field.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FieldError {
    /// The field, as the client calls it; empty for the body as a whole.
    pub field: Cow<'static, str>,
    /// What it should be.
    pub message: String,
}

/// Every answer that is not a success.
#[derive(Debug, Error)]
pub enum ApiError {
    /// 400: the request can't be read at all.
    #[error("{0}")]
    BadRequest(Cow<'static, str>),
    /// 401: no session, or one that ended.
    #[error("log in: this needs a live session, as the cookie SESSIONID or as `Authorization: Bearer <token>`")]
    Unauthorized,
    /// 401: no such account, or not its password. Which of them is not told.
    #[error("the e-mail or the password is wrong")]
    WrongCredentials,
    /// 403: a page of another site sent the cookie.
    #[error("requests that change something may not come from another site")]
    CrossSite,
    /// 404: nothing there, or nothing of this user's.
    #[error("there is nothing here")]
    NotFound,
    /// 405: the path is there, the method is not; `Allow` says which are.
    #[error("this method is not allowed here; see the Allow header")]
    MethodNotAllowed,
    /// 408: the body did not arrive in time.
    #[error("the request's body did not arrive in time; send it again")]
    RequestTimeout,
    /// 409: another account has the e-mail.
    #[error("an account with this e-mail exists; log in, or register with another")]
    EmailTaken,
    /// 413: more than [`crate::http::MAX_BODY`].
    #[error("the body is larger than 1 MiB")]
    TooLarge,
    /// 415: neither JSON nor nothing.
    #[error("the body must be JSON: send Content-Type: application/json")]
    UnsupportedMediaType,
    /// 422: readable, but not acceptable.
    #[error("the request does not pass validation; see errors")]
    Invalid(Vec<FieldError>),
    /// 503: a dependency is away, or this instance starts, stops or is overloaded. The cause is logged and not told.
    #[error("{detail}")]
    Unavailable {
        /// What the client is told.
        detail: Cow<'static, str>,
        /// What the log is told; empty where the answer says it all.
        cause: String,
    },
    /// 500: a mistake of ours. The cause is logged and not told.
    #[error("something went wrong here; the request id in x-request-id finds it in the log")]
    Internal(String),
}

impl ApiError {
    /// 503 with a detail that may be told and needs no cause.
    pub fn unavailable(detail: impl Into<Cow<'static, str>>) -> Self {
        Self::Unavailable { detail: detail.into(), cause: String::new() }
    }

    fn status(&self) -> StatusCode {
        match self {
            Self::BadRequest(_) => StatusCode::BAD_REQUEST,
            Self::Unauthorized | Self::WrongCredentials => StatusCode::UNAUTHORIZED,
            Self::CrossSite => StatusCode::FORBIDDEN,
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::RequestTimeout => StatusCode::REQUEST_TIMEOUT,
            Self::EmailTaken => StatusCode::CONFLICT,
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::UnsupportedMediaType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::Invalid(_) => StatusCode::UNPROCESSABLE_ENTITY,
            Self::Unavailable { .. } => StatusCode::SERVICE_UNAVAILABLE,
            Self::Internal(_) => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    fn cause(&self) -> Option<Cause> {
        match self {
            Self::Unavailable { cause, .. } | Self::Internal(cause) if !cause.is_empty() => Some(Cause(cause.clone())),
            _ => None,
        }
    }
}

/// Goes with a response to the log, and no further.
#[derive(Clone, Debug)]
pub struct Cause(pub String);

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::EmailTaken => Self::EmailTaken,
            StoreError::Unavailable(cause) => {
                Self::Unavailable { detail: "the database does not answer; try again".into(), cause }
            }
            StoreError::Unknown(cause) => Self::Unavailable {
                detail: "the database went away while it wrote: the change may or may not be there; look before you repeat it"
                    .into(),
                cause,
            },
            StoreError::Broken(cause) => Self::Internal(cause),
        }
    }
}

impl From<SessionError> for ApiError {
    fn from(error: SessionError) -> Self {
        match error {
            SessionError::Unavailable(cause) => {
                Self::Unavailable { detail: "the session store does not answer; try again".into(), cause }
            }
            SessionError::Url(_) | SessionError::Random(_) => Self::Internal(error.to_string()),
        }
    }
}

impl From<PasswordError> for ApiError {
    fn from(error: PasswordError) -> Self {
        match error {
            PasswordError::Busy => Self::unavailable("too many log-ins at once; try again"),
            PasswordError::Broken(cause) => Self::Internal(cause),
        }
    }
}

/// The body of an [`ApiError`].
#[derive(Debug, Serialize)]
struct Problem<'a> {
    r#type: &'static str,
    title: &'static str,
    status: u16,
    detail: String,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    errors: &'a [FieldError],
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let status = self.status();
        let problem = Problem {
            r#type: "about:blank",
            title: status.canonical_reason().unwrap_or_default(),
            status: status.as_u16(),
            detail: self.to_string(),
            errors: if let Self::Invalid(errors) = &self { errors } else { &[] },
        };
        let mut response = Response::new(Body::from(serde_json::to_vec(&problem).unwrap_or_default()));
        *response.status_mut() = status;
        if let Some(cause) = self.cause() {
            response.extensions_mut().insert(cause);
        }
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        match self {
            Self::Unauthorized | Self::WrongCredentials => {
                headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            }
            Self::Unavailable { .. } => {
                headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
            }
            _ => {}
        }
        response
    }
}
