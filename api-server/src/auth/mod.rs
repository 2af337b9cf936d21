//! Accounts and sessions: who is asking.

pub mod handlers;
pub mod password;
pub mod throttle;

use std::sync::Arc;

use axum::{
    extract::FromRequestParts,
    http::{HeaderMap, Method, header, request::Parts},
};
use task_api_domain::mark::Mark;
use task_api_sessions::Token;
use task_api_telemetry::context;

use crate::{
    app::App,
    error::ApiError,
    http::{ContentType, content_type, cookies::cookie},
};

/// The session's cookie.
pub const COOKIE: &str = "SESSIONID";

/// Who asks: handlers that take it answer 401 to everyone else.
#[derive(Debug)]
pub struct CurrentUser {
    /// The user's id.
    pub id: i64,
    /// The session's token.
    pub token: Token,
    /// The user's last write, which what they read must show.
    pub wrote: Option<Mark>,
}

impl FromRequestParts<Arc<App>> for CurrentUser {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, ApiError> {
        let token = token(&parts.method, &parts.headers)?;
        let session = app.sessions.find(&token).await?.ok_or(ApiError::Unauthorized)?;
        context::is_of(token.user_id());
        Ok(Self { id: token.user_id(), token, wrote: session.wrote })
    }
}

/// The token in `Authorization`, else in the cookie.
fn token(method: &Method, headers: &HeaderMap) -> Result<Token, ApiError> {
    let token = if let Some(value) = headers.get(header::AUTHORIZATION) {
        value
            .to_str()
            .ok()
            .and_then(|value| value.split_once(' '))
            .and_then(|(scheme, token)| scheme.eq_ignore_ascii_case("bearer").then_some(token.trim()))
    } else {
        let token = cookie(headers, COOKIE);
        if token.is_some() && !method.is_safe() {
            refuse_cross_site(headers)?;
        }
        token
    };
    token.and_then(|token| token.parse().ok()).ok_or(ApiError::Unauthorized)
}

/// A browser sends the cookie along whoever made it ask, unless `SameSite` stops it. Old browsers don't know `SameSite`; for them:
/// a form of another site can only send the three content types that are no JSON, and a script can send no other without
/// asking first, which nothing here allows. Newer ones say where the request comes from.
fn refuse_cross_site(headers: &HeaderMap) -> Result<(), ApiError> {
    if headers.get("sec-fetch-site").is_some_and(|site| site == "cross-site") {
        return Err(ApiError::CrossSite);
    }
    // Log-out and delete have no body, so nothing to say about it.
    if content_type(headers) == ContentType::Other {
        return Err(ApiError::UnsupportedMediaType);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN: &str = "7.AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

    fn headers(pairs: &[(&'static str, String)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect()
    }

    fn found(method: &Method, pairs: &[(&'static str, String)]) -> Result<i64, String> {
        token(method, &headers(pairs)).map(|token| token.user_id()).map_err(|error| format!("{error:?}"))
    }

    #[test]
    fn a_token_comes_by_header_or_cookie() {
        let get = |name, value: String| found(&Method::GET, &[(name, value)]);
        assert_eq!(get("authorization", format!("Bearer {TOKEN}")), Ok(7));
        assert_eq!(get("authorization", format!("bearer  {TOKEN}")), Ok(7));
        assert_eq!(get("cookie", format!("a=b; SESSIONID={TOKEN}; c=d")), Ok(7));
        for (name, value) in [
            ("authorization", format!("Basic {TOKEN}")),
            ("authorization", TOKEN.to_owned()),
            ("cookie", format!("XSESSIONID={TOKEN}")),
            ("cookie", "SESSIONID=".to_owned()),
            ("x-token", TOKEN.to_owned()),
        ] {
            assert_eq!(get(name, value.clone()), Err("Unauthorized".to_owned()), "{name}: {value}");
        }
    }

    #[test]
    fn other_sites_may_not_use_the_cookie() {
        let cookie = || ("cookie", format!("SESSIONID={TOKEN}"));
        let form = || ("content-type", "application/x-www-form-urlencoded".to_owned());
        let cross = || ("sec-fetch-site", "cross-site".to_owned());
        assert_eq!(found(&Method::POST, &[cookie()]), Ok(7));
        assert_eq!(found(&Method::GET, &[cookie(), cross()]), Ok(7));
        assert_eq!(found(&Method::POST, &[cookie(), form()]), Err("UnsupportedMediaType".to_owned()));
        assert_eq!(found(&Method::DELETE, &[cookie(), cross()]), Err("CrossSite".to_owned()));
        let bearer = ("authorization", format!("Bearer {TOKEN}"));
        assert_eq!(found(&Method::POST, &[bearer, cross()]), Ok(7));
    }
}
