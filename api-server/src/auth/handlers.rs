//! The requests about accounts and sessions.

use std::{sync::Arc, time::Duration};

use axum::{
    extract::State,
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{AppendHeaders, IntoResponse, Response},
};
use serde::Serialize;
use task_api_domain::{
    user::{Email, Login, PasswordChange, Registration, User},
    validation::FieldError,
};
use task_api_sessions::Token;
use task_api_store::NewUser;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{
    app::App,
    auth::{COOKIE, CurrentUser, password::Passwords, throttle},
    error::ApiError,
    http::{
        JsonBody,
        answer::{Found, JSON, json},
        etag::IfNoneMatch,
    },
    problem::Problem,
};

/// Their routes.
pub fn routes() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::new()
        .routes(routes!(register))
        .routes(routes!(login))
        .routes(routes!(logout))
        .routes(routes!(logout_all))
        .routes(routes!(change_password))
        .routes(routes!(me))
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
    let (user, password) = verified(&app, &headers, login).await?.ok_or(ApiError::WrongCredentials)?;
    renew(&app, &user, password).await;
    log_in(&app, &headers, StatusCode::OK, user).await
}

/// Changes the password
///
/// All sessions of the user end. The answer has a new one for who has changed it.
#[utoipa::path(
    post, path = "/api/auth/password", tag = "auth", request_body = PasswordChange, security(("bearer" = []), ("cookie" = [])),
    responses((status = 200, description = "A session in place of all others", body = LoggedIn,
        headers(("set-cookie" = String, description = "The session's cookie"))))
)]
pub async fn change_password(
    State(app): State<Arc<App>>,
    headers: HeaderMap,
    user: CurrentUser,
    body: JsonBody,
) -> Result<Response, ApiError> {
    let PasswordChange { current_password, new_password } = PasswordChange::from_form(body.form)?;
    let user = app.store.user(user.id, user.wrote).await?.ok_or(ApiError::Unauthorized)?;
    let login = Login { email: user.email, password: current_password };
    let (user, password) = verified(&app, &headers, login).await?.ok_or_else(not_the_password)?;
    let hash = app.passwords.hash(new_password).await?;
    if !app.store.set_password(user.id, &password.hash, &hash).await? {
        return Err(not_the_password());
    }
    app.sessions.end_all(user.id).await?;
    log_in(&app, &headers, StatusCode::OK, user).await
}

fn not_the_password() -> ApiError {
    let message = "must be the account's password".to_owned();
    ApiError::Invalid(vec![FieldError { field: "current_password".into(), message }])
}

/// A password that was given, and the hash that it is right for.
struct Verified {
    password: String,
    hash: String,
}

/// The account that somebody wants to log in to, and its password's hash.
async fn account(app: &App, login: &Login) -> Result<Option<(User, String)>, ApiError> {
    for key in login.email_keys() {
        if let Some(account) = app.store.credentials(&key).await? {
            return Ok(Some(account));
        }
    }
    Ok(None)
}

/// The account, if its password is right; who guesses too often is refused.
async fn verified(app: &App, headers: &HeaderMap, login: Login) -> Result<Option<(User, Verified)>, ApiError> {
    let who = app.throttle.who(&login.email_key(), headers);
    app.throttle.tries(who)?;
    let verified = verify(app, login).await;
    match &verified {
        Ok(Some(_)) => app.throttle.right(who),
        Ok(None) => {}
        // The database or the hasher is away, which is nobody's guess.
        Err(_) => app.throttle.not_tried(who),
    }
    verified
}

/// The account, if its password is right. Without an account it takes as long.
async fn verify(app: &App, login: Login) -> Result<Option<(User, Verified)>, ApiError> {
    let (mut user, hash) = account(app, &login).await?.unzip();
    for password in login.passwords() {
        if app.passwords.verify(password.clone(), hash.clone()).await? {
            let hash = hash.clone().unwrap_or_default();
            return Ok(user.take().map(|user| (user, Verified { password, hash })));
        }
    }
    Ok(None)
}

/// Hashes a password anew where its hash was made at another cost than is asked for now. Who logs in does not wait in vain for it.
async fn renew(app: &App, user: &User, Verified { password, hash }: Verified) {
    if !Passwords::is_outdated(&hash) {
        return;
    }
    let renewed = async {
        let renewed = app.passwords.hash(password).await?;
        Ok::<_, ApiError>(app.store.set_password(user.id, &hash, &renewed).await?)
    };
    if let Err(error) = renewed.await {
        tracing::warn!(user_id = user.id, "the hash of a password is renewed at the next log-in: {error}");
    }
}

/// Ends all of the user's sessions
#[utoipa::path(
    post, path = "/api/auth/logout-all", tag = "auth", security(("bearer" = []), ("cookie" = [])),
    responses((status = 204, description = "They have ended",
        headers(("set-cookie" = String, description = "Has browsers forget the session's cookie"))))
)]
pub async fn logout_all(
    State(app): State<Arc<App>>,
    headers: HeaderMap,
    user: CurrentUser,
) -> Result<Response, ApiError> {
    app.sessions.end_all(user.id).await?;
    Ok(logged_out(&headers))
}

/// Ends the session
#[utoipa::path(
    post, path = "/api/auth/logout", tag = "auth", security(("bearer" = []), ("cookie" = [])),
    responses((status = 204, description = "It has ended",
        headers(("set-cookie" = String, description = "Has browsers forget the session's cookie"))))
)]
pub async fn logout(State(app): State<Arc<App>>, headers: HeaderMap, user: CurrentUser) -> Result<Response, ApiError> {
    app.sessions.end(&user.token).await?;
    Ok(logged_out(&headers))
}

fn logged_out(headers: &HeaderMap) -> Response {
    let forget = set_cookie("", Duration::ZERO, headers);
    (StatusCode::NO_CONTENT, [(header::SET_COOKIE, forget)], NO_STORE).into_response()
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
    let session = set_cookie(&token, app.sessions.ttl(), headers);
    let device = app.throttle.cookie(&Email::key_of(&user.email)).map(|device| {
        let attributes = format!("Path=/api/auth; HttpOnly; SameSite=Lax; Max-Age={}", throttle::KNOWN_FOR);
        AppendHeaders([(header::SET_COOKIE, format!("{}={device}; {attributes}{}", throttle::COOKIE, secure(headers)))])
    });
    let body = json(&LoggedIn { user, token })?;
    Ok((status, [(header::SET_COOKIE, session)], device, NO_STORE, JSON, body).into_response())
}

/// Nobody may keep an answer with a token.
const NO_STORE: [(header::HeaderName, HeaderValue); 1] =
    [(header::CACHE_CONTROL, HeaderValue::from_static("no-store"))];

/// The cookie is `Secure` where the client came by HTTPS; whoever lies about that harms only their own cookie.
fn set_cookie(token: &str, ttl: Duration, headers: &HeaderMap) -> String {
    format!("{COOKIE}={token}; Path=/; HttpOnly; SameSite=Lax; Max-Age={}{}", ttl.as_secs(), secure(headers))
}

fn secure(headers: &HeaderMap) -> &'static str {
    let https = headers.get("x-forwarded-proto").is_some_and(|scheme| scheme == "https");
    if https { "; Secure" } else { "" }
}
