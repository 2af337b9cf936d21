//! What log, metrics and traces tell of a request.

use axum::{
    extract::{MatchedPath, Request},
    http::{Method, Uri},
};

use crate::metrics::Route;

/// See the module.
pub(super) struct Seen {
    pub(super) method: &'static str,
    pub(super) route: Route,
    pub(super) uri: Uri,
}

impl Seen {
    pub(super) fn of(request: &Request) -> Self {
        Self {
            method: method_label(request.method()),
            route: Route(request.extensions().get::<MatchedPath>().cloned()),
            uri: request.uri().clone(),
        }
    }

    pub(super) fn is_read(&self) -> bool {
        matches!(self.method, "GET" | "HEAD" | "OPTIONS")
    }

    /// Probes come every few seconds; what they find is logged when it changes.
    pub(super) fn is_probe(&self) -> bool {
        matches!(self.route.as_str(), "/api/health" | "/api/ready")
    }
}

/// Clients may make up methods; metrics have room for those that exist.
fn method_label(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        Method::OPTIONS => "OPTIONS",
        _ => "other",
    }
}
