//! The OpenAPI document. Handlers say what is special about them; what follows from what they take, such as 401 from a session or 413 from
//! a body, is added here for all of them alike, so that none can forget it.

use std::{collections::BTreeMap, sync::Arc};

use axum::{Extension, http::StatusCode, response::Response};
use utoipa::{
    Modify, OpenApi,
    openapi::{
        self, ContentBuilder, HeaderBuilder, HttpMethod, ObjectBuilder, Ref, RefOr, ResponseBuilder, Type,
        path::{Operation, Parameter, ParameterIn, PathItem},
        security::{ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityScheme},
    },
};

use crate::{
    auth::COOKIE,
    http::{
        answer::Found,
        etag::{ETag, IfNoneMatch},
    },
    problem::{self, Kind, Problem},
};

/// What the document says besides its paths.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "Task API",
        description = "Accounts and their tasks. A user sees only their own; another user's task is not found.\n\n\
            Log in by `POST /api/auth/login`: browsers keep the cookie that the answer sets, other clients send the token as \
            `Authorization: Bearer <token>`.\n\n\
            Lists end with `next_cursor`; send it as `cursor` for the next page. Every answer that is not a success is an RFC 9457 \
            problem. Reads carry an `ETag`: send it as `If-None-Match` to be told 304 where nothing has changed, or as `If-Match` to change \
            a task only as it was read."
    ),
    tags(
        (name = "tasks", description = "A user's tasks"),
        (name = "auth", description = "Accounts and sessions"),
        (name = "health", description = "What load balancers ask"),
        (name = "documents", description = "This document, and a page that shows it")
    ),
    components(schemas(Problem)),
    modifiers(&Schemes)
)]
pub struct Base;

struct Schemes;

impl Modify for Schemes {
    fn modify(&self, document: &mut openapi::OpenApi) {
        let bearer = HttpBuilder::new()
            .scheme(HttpAuthScheme::Bearer)
            .description(Some("The `token` that a log-in answers."))
            .build();
        let cookie = ApiKeyValue::with_description(
            COOKIE,
            "Set by a log-in. Requests of other sites' pages may not use it to change anything.",
        );
        let components = document.components.get_or_insert_default();
        components.add_security_scheme("bearer", SecurityScheme::Http(bearer));
        components.add_security_scheme("cookie", SecurityScheme::ApiKey(ApiKey::Cookie(cookie)));
    }
}

/// The finished document, written once.
#[derive(Debug)]
pub struct Document(Found);

impl Document {
    /// Adds to `api` what handlers don't say.
    pub fn new(mut api: openapi::OpenApi) -> Result<Self, serde_json::Error> {
        for item in api.paths.paths.values_mut() {
            for (method, operation) in operations(item) {
                complete(&method, operation);
            }
        }
        let body = serde_json::to_vec(&api)?;
        Ok(Self(Found { tag: ETag::of_body(&body), body: body.into() }))
    }
}

/// Gets this document
#[utoipa::path(
    get, path = "/api/openapi.json", tag = "documents", params(IfNoneMatch),
    responses((status = 200, description = "The OpenAPI document", body = serde_json::Value))
)]
pub async fn document(Extension(document): Extension<Arc<Document>>, known: IfNoneMatch) -> Response {
    document.0.clone().answer(&known)
}

fn operations(item: &mut PathItem) -> impl Iterator<Item = (HttpMethod, &mut Operation)> {
    [
        (HttpMethod::Get, &mut item.get),
        (HttpMethod::Post, &mut item.post),
        (HttpMethod::Patch, &mut item.patch),
        (HttpMethod::Delete, &mut item.delete),
    ]
    .into_iter()
    .filter_map(|(method, operation)| Some((method, operation.as_mut()?)))
}

fn complete(method: &HttpMethod, operation: &mut Operation) {
    if names(operation).any(|name| name == "If-None-Match") {
        let found = ResponseBuilder::new().description("The client has it already").build();
        operation.responses.responses.insert("304".to_owned(), found.into());
        for status in ["200", "304"] {
            add_header(operation, status, "etag", "Tells this state from others");
        }
    }
    let mut kinds: BTreeMap<StatusCode, Vec<Kind>> = BTreeMap::new();
    for kind in follow(method, operation) {
        let known = kinds.entry(kind.status).or_default();
        if !known.contains(&kind) {
            known.push(kind);
        }
    }
    for (status, kinds) in kinds {
        let response = operation.responses.responses.entry(status.as_str().to_owned());
        response.or_insert_with(|| problem_response(&kinds).into());
    }
    add_header(operation, "401", "www-authenticate", "`Bearer`");
    add_header(operation, "503", "retry-after", "After so many seconds another try makes sense");
    let statuses: Vec<String> = operation.responses.responses.keys().cloned().collect();
    for status in statuses {
        add_header(
            operation,
            &status,
            "x-request-id",
            "Finds the request in the log; the request's own, if it had one",
        );
    }
}

fn parameters(operation: &Operation) -> impl Iterator<Item = &Parameter> {
    let parameters = operation.parameters.iter().flatten();
    parameters.filter_map(|parameter| if let RefOr::T(parameter) = parameter { Some(parameter) } else { None })
}

fn names(operation: &Operation) -> impl Iterator<Item = &str> {
    parameters(operation).map(|parameter| parameter.name.as_str())
}

/// The problems that follow from what an operation takes.
fn follow(method: &HttpMethod, operation: &Operation) -> Vec<Kind> {
    let mut kinds = vec![Kind::URI_TOO_LONG, Kind::HEADERS_TOO_LARGE, Kind::INTERNAL, Kind::UNAVAILABLE];
    let reads = *method == HttpMethod::Get;
    if operation.security.is_some() {
        kinds.push(Kind::UNAUTHORIZED);
        if !reads {
            kinds.extend([Kind::CROSS_SITE, Kind::UNSUPPORTED_MEDIA_TYPE]);
        }
    }
    if operation.request_body.is_some() {
        kinds.extend([Kind::BAD_REQUEST, Kind::REQUEST_TIMEOUT, Kind::BODY_TOO_LARGE]);
        kinds.extend([Kind::UNSUPPORTED_MEDIA_TYPE, Kind::INVALID]);
    }
    for parameter in parameters(operation) {
        match (&parameter.parameter_in, parameter.name.as_str()) {
            (ParameterIn::Path, _) => kinds.push(Kind::NOT_FOUND),
            (ParameterIn::Query, _) => kinds.extend([Kind::BAD_REQUEST, Kind::INVALID]),
            (_, "If-Match") => kinds.extend([Kind::BAD_REQUEST, Kind::PRECONDITION_FAILED]),
            // Requests that make tasks take one.
            (_, "Idempotency-Key") => kinds.extend([Kind::BAD_REQUEST, Kind::KEY_REUSED, Kind::QUOTA_EXCEEDED]),
            _ => kinds.push(Kind::BAD_REQUEST),
        }
    }
    kinds
}

/// The answer with one of these kinds, which share a status.
pub fn problem_response(kinds: &[Kind]) -> openapi::Response {
    let lines = kinds.iter().map(|kind| format!("{} (`{}`)", kind.title, kind.urn));
    let content = ContentBuilder::new().schema(Some(Ref::from_schema_name("Problem"))).build();
    ResponseBuilder::new()
        .description(lines.collect::<Vec<_>>().join("; "))
        .content(problem::CONTENT_TYPE, content)
        .build()
}

/// Adds a header to an answer, if there is that answer.
fn add_header(operation: &mut Operation, status: &str, name: &str, description: &str) {
    if let Some(RefOr::T(response)) = operation.responses.responses.get_mut(status) {
        let schema = ObjectBuilder::new().schema_type(Type::String);
        let header = HeaderBuilder::new().schema(Some(schema)).description(Some(description)).build();
        response.headers.insert(name.to_owned(), header.into());
    }
}
