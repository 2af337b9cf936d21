//! The requests about accounts and sessions.

use std::{sync::Arc, time::Duration};

use axum::{
    Json,
    extract::State,
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;

use crate::{
    App,
    auth::{
        COOKIE, CurrentUser,
        model::{Login, Registration, User},
        session::Token,
    },
    error::ApiError,
    http::JsonBody,
    store::NewUser,
};

/// Who logged in, and with what to come back.
#[derive(Debug, Serialize)]
struct LoggedIn {
    user: User,
    token: String,
}

/// `POST /api/auth/register`
pub async fn register(State(app): State<Arc<App>>, headers: HeaderMap, body: JsonBody) -> Result<Response, ApiError> {
    let Registration { email, password, name } = Registration::from_form(body.form)?;
    // Rather no account than one whose owner is answered 503 and then told that it exists.
    app.sessions.check().await?;
    let password_hash = app.passwords.hash(password).await?;
    let written = app.store.create_user(&NewUser { email, name, password_hash }).await?;
    app.sessions.remember(written.value.id, written.mark).await;
    log_in(&app, &headers, StatusCode::CREATED, written.value).await
}

/// `POST /api/auth/login`
pub async fn login(State(app): State<Arc<App>>, headers: HeaderMap, body: JsonBody) -> Result<Response, ApiError> {
    let login = Login::from_form(body.form)?;
    let (user, hash) = app.store.credentials(&login.email_key()).await?.unzip();
    let right = app.passwords.verify(login.password, hash).await?;
    let user = user.filter(|_| right).ok_or(ApiError::WrongCredentials)?;
    log_in(&app, &headers, StatusCode::OK, user).await
}

/// `POST /api/auth/logout`
pub async fn logout(State(app): State<Arc<App>>, headers: HeaderMap, user: CurrentUser) -> Result<Response, ApiError> {
    app.sessions.end(&user.token).await?;
    let forget = set_cookie("", Duration::ZERO, &headers);
    Ok((StatusCode::NO_CONTENT, [(header::SET_COOKIE, forget)]).into_response())
}

/// `GET /api/auth/me`
pub async fn me(State(app): State<Arc<App>>, user: CurrentUser) -> Result<Json<User>, ApiError> {
    app.store.user(user.id, user.wrote).await?.map(Json).ok_or(ApiError::Unauthorized)
}

async fn log_in(app: &App, headers: &HeaderMap, status: StatusCode, user: User) -> Result<Response, ApiError> {
    let token = Token::new(user.id)?;
    app.sessions.begin(&token).await?;
    let token = token.reveal();
    let cookie = set_cookie(&token, app.sessions.ttl(), headers);
    Ok((status, [(header::SET_COOKIE, cookie)], Json(LoggedIn { user, token })).into_response())
}

/// The cookie is `Secure` where the client came by HTTPS; whoever lies about that harms only their own cookie.
fn set_cookie(token: &str, ttl: Duration, headers: &HeaderMap) -> String {
    let https = headers.get("x-forwarded-proto").is_some_and(|scheme| scheme == "https");
    let secure = if https { "; Secure" } else { "" };
    format!("{COOKIE}={token}; Path=/; HttpOnly; SameSite=Lax; Max-Age={}{secure}", ttl.as_secs())
}
