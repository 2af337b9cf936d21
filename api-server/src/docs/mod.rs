//! `/api/docs`: Swagger UI, which needs nothing but what is in this binary.
//!
//! Its files are those of the npm package swagger-ui-dist, compressed; `dev/swagger-ui.sh` renews them.

use std::sync::{Arc, LazyLock};

use axum::{
    Router,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use sha2::{Digest, Sha256};

use crate::{
    app::App,
    http::etag::{ETag, IfNoneMatch},
};

/// The page loads its own files, asks this API, and nothing else. Swagger UI sets styles of its own and has small pictures in its style sheet.
const POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; connect-src 'self'; \
     base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
);

/// A file under a name that changes with its content, so that clients may keep it (plan section 4.1: 30 days).
struct File {
    path: String,
    content_type: HeaderValue,
    /// Every browser understands gzip, so there is no other form of a file that is kept like this.
    gzip: bool,
    content: &'static [u8],
}

impl File {
    fn new(name: &str, extension: &str, content_type: &'static str, gzip: bool, content: &'static [u8]) -> Self {
        let hash = URL_SAFE_NO_PAD.encode(&Sha256::digest(content)[..9]);
        let path = format!("/api/docs/{name}-{hash}.{extension}");
        Self { path, content_type: HeaderValue::from_static(content_type), gzip, content }
    }

    fn answer(&self) -> Response {
        let headers = [
            (header::CONTENT_TYPE, self.content_type.clone()),
            (header::CACHE_CONTROL, HeaderValue::from_static("public, max-age=2592000, immutable")),
            (header::VARY, HeaderValue::from_static("accept-encoding")),
        ];
        let encoding = self.gzip.then_some([(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"))]);
        (headers, encoding, self.content).into_response()
    }
}

struct Files {
    bundle: File,
    style: File,
    start: File,
    icon: File,
}

impl Files {
    fn all(&'static self) -> [&'static File; 4] {
        [&self.bundle, &self.style, &self.start, &self.icon]
    }
}

static FILES: LazyLock<Files> = LazyLock::new(|| Files {
    bundle: File::new(
        "swagger-ui",
        "js",
        "text/javascript; charset=utf-8",
        true,
        include_bytes!("swagger-ui/swagger-ui-bundle.js.gz"),
    ),
    style: File::new(
        "swagger-ui",
        "css",
        "text/css; charset=utf-8",
        true,
        include_bytes!("swagger-ui/swagger-ui.css.gz"),
    ),
    start: File::new("start", "js", "text/javascript; charset=utf-8", false, include_bytes!("swagger-ui/start.js")),
    icon: File::new("icon", "png", "image/png", false, include_bytes!("swagger-ui/favicon-32x32.png")),
});

static PAGE: LazyLock<String> = LazyLock::new(|| {
    let Files { bundle, style, start, icon } = &*FILES;
    let (bundle, style, start, icon) = (&bundle.path, &style.path, &start.path, &icon.path);
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<title>Task API</title>\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <link rel=\"icon\" type=\"image/png\" href=\"{icon}\">\n<link rel=\"stylesheet\" href=\"{style}\">\n</head>\n<body>\n\
         <div id=\"swagger-ui\"></div>\n<script src=\"{bundle}\"></script>\n<script src=\"{start}\"></script>\n</body>\n</html>\n"
    )
});

/// Shows this document to people
#[utoipa::path(
    get, path = "/api/docs", tag = "documents", params(IfNoneMatch),
    responses((status = 200, description = "A page", body = String, content_type = "text/html; charset=utf-8"))
)]
pub async fn page(known: IfNoneMatch) -> Response {
    let tag = ETag::of_body(PAGE.as_bytes());
    let headers = [
        (header::ETAG, tag.to_header()),
        (header::CACHE_CONTROL, HeaderValue::from_static("public, no-cache")),
        (header::VARY, HeaderValue::from_static("accept-encoding")),
        (header::CONTENT_SECURITY_POLICY, POLICY),
    ];
    if known.has(&tag) {
        return (StatusCode::NOT_MODIFIED, headers).into_response();
    }
    (headers, [(header::CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"))], PAGE.as_str())
        .into_response()
}

/// What the page loads.
pub fn files() -> Router<Arc<App>> {
    FILES
        .all()
        .into_iter()
        .fold(Router::new(), |router, file| router.route(&file.path, get(move || async { file.answer() })))
}
