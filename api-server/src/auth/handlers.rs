//! The requests about accounts and sessions.

use std::{sync::Arc, time::Duration};

use axum::{
    extract::State,
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{
    App,
    auth::{
        COOKIE, CurrentUser,
        model::{Login, Registration, User},
        session::Token,
    },
    error::ApiError,
    http::{
        JsonBody,
        answer::{Found, JSON, json},
        etag::IfNoneMatch,
    },
    problem::Problem,
    store::NewUser,
};

/// Their routes.
pub fn routes() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::new().routes(routes!(register)).routes(routes!(login)).routes(routes!(logout)).routes(routes!(me))
}

/// Who logged in, and with what to come back.
#[derive(Debug, Serialize, ToSchema)]
pub struct LoggedIn {
    user: User,
    /// What to send as `Authorization: Bearer <token>`.
    #[schema(example = "7.AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA")]
    token: String,
}

/// Makes an account, and logs in to it
///
/// That an e-mail has an account is told here, and nowhere else.
#[utoipa::path(
    post, path = "/api/auth/register", tag = "auth", request_body = Registration,
    responses(
        (status = 201, description = "The account, and a session", body = LoggedIn,
            headers(("set-cookie" = String, description = "The session's cookie"))),
        (status = 409, description = "Another account has this e-mail (`urn:taskplatform:problem:email-taken`)",
            body = Problem, content_type = "application/problem+json")
    )
)]
pub async fn register(State(app): State<Arc<App>>, headers: HeaderMap, body: JsonBody) -> Result<Response, ApiError> {
    let Registration { email, password, name } = Registration::from_form(body.form)?;
    // Rather no account than one whose owner is answered 503 and then told that it exists.
    app.sessions.check().await?;
    let password_hash = app.passwords.hash(password).await?;
    let written = app.store.create_user(&NewUser { email, name, password_hash }).await?;
    app.sessions.remember(written.value.id, written.mark).await;
    log_in(&app, &headers, StatusCode::CREATED, written.value).await
}

/// Logs in
///
/// A wrong e-mail and a wrong password get the same answer after the same time.
#[utoipa::path(
    post, path = "/api/auth/login", tag = "auth", request_body = Login,
    responses(
        (status = 200, description = "A session", body = LoggedIn,
            headers(("set-cookie" = String, description = "The session's cookie"))),
        (status = 401, description = "Wrong e-mail or password (`urn:taskplatform:problem:wrong-credentials`)",
            body = Problem, content_type = "application/problem+json")
    )
)]
pub async fn login(State(app): State<Arc<App>>, headers: HeaderMap, body: JsonBody) -> Result<Response, ApiError> {
    let login = Login::from_form(body.form)?;
    let (user, hash) = app.store.credentials(&login.email_key()).await?.unzip();
    let right = app.passwords.verify(login.password, hash).await?;
    let user = user.filter(|_| right).ok_or(ApiError::WrongCredentials)?;
    log_in(&app, &headers, StatusCode::OK, user).await
}

/// Ends the session
#[utoipa::path(
    post, path = "/api/auth/logout", tag = "auth", security(("bearer" = []), ("cookie" = [])),
    responses((status = 204, description = "It has ended",
        headers(("set-cookie" = String, description = "Has browsers forget the session's cookie"))))
)]
pub async fn logout(State(app): State<Arc<App>>, headers: HeaderMap, user: CurrentUser) -> Result<Response, ApiError> {
    app.sessions.end(&user.token).await?;
    let forget = set_cookie("", Duration::ZERO, &headers);
    Ok((StatusCode::NO_CONTENT, [(header::SET_COOKIE, forget)], NO_STORE).into_response())
}

/// Tells whose session it is
#[utoipa::path(
    get, path = "/api/auth/me", tag = "auth", params(IfNoneMatch), security(("bearer" = []), ("cookie" = [])),
    responses((status = 200, description = "The user", body = User))
)]
pub async fn me(State(app): State<Arc<App>>, user: CurrentUser, known: IfNoneMatch) -> Result<Response, ApiError> {
    let user = app.store.user(user.id, user.wrote).await?.ok_or(ApiError::Unauthorized)?;
    Ok(Found::tagged(&user)?.answer(&known))
}

async fn log_in(app: &App, headers: &HeaderMap, status: StatusCode, user: User) -> Result<Response, ApiError> {
    let token = Token::new(user.id)?;
    app.sessions.begin(&token).await?;
    let token = token.reveal();
    let cookie = set_cookie(&token, app.sessions.ttl(), headers);
    let body = json(&LoggedIn { user, token })?;
    Ok((status, [(header::SET_COOKIE, cookie)], NO_STORE, JSON, body).into_response())
}

/// Nobody may keep an answer with a token.
const NO_STORE: [(header::HeaderName, HeaderValue); 1] =
    [(header::CACHE_CONTROL, HeaderValue::from_static("no-store"))];

/// The cookie is `Secure` where the client came by HTTPS; whoever lies about that harms only their own cookie.
fn set_cookie(token: &str, ttl: Duration, headers: &HeaderMap) -> String {
    let https = headers.get("x-forwarded-proto").is_some_and(|scheme| scheme == "https");
    let secure = if https { "; Secure" } else { "" };
    format!("{COOKIE}={token}; Path=/; HttpOnly; SameSite=Lax; Max-Age={}{secure}", ttl.as_secs())
}
