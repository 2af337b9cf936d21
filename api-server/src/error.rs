//! What can go wrong. How it is told to clients is in [`crate::problem`].

use std::borrow::Cow;

use axum::response::{IntoResponse, Response};
use task_api_cluster::redis::RedisFailure;
use task_api_domain::validation::{FieldError, Invalid};
use task_api_resilience::memory::Full;
use task_api_sessions::SessionError;
use task_api_store::StoreError;
use thiserror::Error;

use crate::{
    auth::password::PasswordError,
    problem::{Kind, Problem},
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
    /// The OpenAPI document.
    #[error("can't write the OpenAPI document: {0}")]
    Document(#[from] serde_json::Error),
    /// The cache's URL.
    #[error("CACHE_URL is {0}")]
    Cache(RedisFailure),
    /// Signals can't be received.
    #[error("can't wait for SIGTERM: {0}")]
    Signals(std::io::Error),
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
    /// 403: no more tasks or text for this user.
    #[error("you have as many tasks or as much text as you may, or would with these; delete some that are done")]
    QuotaExceeded,
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
    /// 412: the task is not at the version that `If-Match` names.
    #[error("the task has changed since it was read; get it again, and repeat the change with its new ETag")]
    PreconditionFailed,
    /// 413: more than [`crate::http::MAX_BODY`].
    #[error("the body is larger than 1 MiB")]
    TooLarge,
    /// 414: more than [`crate::middleware::limits::MAX_URI`].
    #[error("the address is longer than 8 KiB; a filter or cursor of this API never makes it so long")]
    UriTooLong,
    /// 415: neither JSON nor nothing.
    #[error("the body must be JSON: send Content-Type: application/json")]
    UnsupportedMediaType,
    /// 422: readable, but not acceptable.
    #[error("the request does not pass validation; see errors")]
    Invalid(Vec<FieldError>),
    /// 422: the idempotency key was used before, for something else.
    #[error("this Idempotency-Key was used for another request; take a new one")]
    KeyReused,
    /// 431: more than [`crate::middleware::limits::MAX_HEADERS`].
    #[error("the headers are larger than 32 KiB together; drop cookies that are not for this API")]
    HeadersTooLarge,
    /// 429: see [`crate::auth::throttle`].
    #[error("too many wrong passwords for this account; try again later, or from a browser that was logged in to it")]
    TooManyTries,
    /// 429: more of this user's under way than [`task_api_resilience::memory`] allows.
    #[error("too much of yours is under way at once; wait for an answer before you send the next")]
    TooMuchAtOnce,
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

    fn kind(&self) -> Kind {
        match self {
            Self::BadRequest(_) => Kind::BAD_REQUEST,
            Self::Unauthorized => Kind::UNAUTHORIZED,
            Self::WrongCredentials => Kind::WRONG_CREDENTIALS,
            Self::CrossSite => Kind::CROSS_SITE,
            Self::QuotaExceeded => Kind::QUOTA_EXCEEDED,
            Self::NotFound => Kind::NOT_FOUND,
            Self::MethodNotAllowed => Kind::METHOD_NOT_ALLOWED,
            Self::RequestTimeout => Kind::REQUEST_TIMEOUT,
            Self::EmailTaken => Kind::EMAIL_TAKEN,
            Self::PreconditionFailed => Kind::PRECONDITION_FAILED,
            Self::TooLarge => Kind::BODY_TOO_LARGE,
            Self::UriTooLong => Kind::URI_TOO_LONG,
            Self::UnsupportedMediaType => Kind::UNSUPPORTED_MEDIA_TYPE,
            Self::Invalid(_) => Kind::INVALID,
            Self::KeyReused => Kind::KEY_REUSED,
            Self::HeadersTooLarge => Kind::HEADERS_TOO_LARGE,
            Self::TooManyTries => Kind::TOO_MANY_TRIES,
            Self::TooMuchAtOnce => Kind::TOO_MUCH_AT_ONCE,
            Self::Unavailable { .. } => Kind::UNAVAILABLE,
            Self::Internal(_) => Kind::INTERNAL,
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

impl From<Invalid> for ApiError {
    fn from(Invalid(errors): Invalid) -> Self {
        Self::Invalid(errors)
    }
}

impl From<Full> for ApiError {
    fn from(full: Full) -> Self {
        match full {
            Full::All => Self::unavailable("too much is under way; try again"),
            Full::User => Self::TooMuchAtOnce,
        }
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::EmailTaken => Self::EmailTaken,
            StoreError::KeyReused => Self::KeyReused,
            StoreError::QuotaExceeded => Self::QuotaExceeded,
            StoreError::TooMuchAtOnce => Self::TooMuchAtOnce,
            StoreError::Overloaded => Self::unavailable("too much waits for the database; try again"),
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

impl From<ApiError> for Problem {
    fn from(error: ApiError) -> Self {
        let (kind, detail) = (error.kind(), error.to_string());
        let errors = if let ApiError::Invalid(errors) = error { errors } else { Vec::new() };
        Self::new(kind, detail, errors)
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let cause = self.cause();
        let mut response = Problem::from(self).into_response();
        if let Some(cause) = cause {
            response.extensions_mut().insert(cause);
        }
        response
    }
}
