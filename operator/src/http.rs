//! A small HTTP client for what runs in the cluster: Patroni's REST API and the gateway.

use std::time::Duration;

use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use serde_json::Value;

/// Longer answers than this are nothing that the operator asks for.
const LONGEST_ANSWER: usize = 1 << 20;

/// A request that got no answer, or none that can be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("{method} {url}: no answer within {seconds} s")]
    Timeout { method: Method, url: String, seconds: u64 },
    #[error("{method} {url}: no connection")]
    Connect { method: Method, url: String, source: hyper_util::client::legacy::Error },
    #[error("{method} {url}: the answer broke off")]
    Body { method: Method, url: String, source: Box<dyn std::error::Error + Send + Sync> },
    #[error("{url} is no URL")]
    Request { url: String, source: http::Error },
}

/// An answer: its status, and its body as text.
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) body: String,
}

impl Answer {
    /// The body as JSON, or null.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_default()
    }
}

/// The client. Cloning it is cheap.
#[derive(Clone)]
pub(crate) struct Http(Client<HttpConnector, Full<Bytes>>);

impl Default for Http {
    fn default() -> Self {
        let mut connector = HttpConnector::new();
        connector.set_connect_timeout(Some(Duration::from_secs(2)));
        // Pods come and go: a connection is not worth keeping.
        Self(Client::builder(TokioExecutor::new()).pool_max_idle_per_host(0).build(connector))
    }
}

impl Http {
    /// Sends a request, with basic authentication and a JSON body where given, and reads the answer.
    pub(crate) async fn send(
        &self,
        method: Method,
        url: &str,
        authorization: Option<&str>,
        body: Option<&Value>,
        timeout: Duration,
    ) -> Result<Answer, Error> {
        let mut request = Request::builder().method(method.clone()).uri(url);
        if let Some(authorization) = authorization {
            request = request.header(header::AUTHORIZATION, authorization);
        }
        if body.is_some() {
            request = request.header(header::CONTENT_TYPE, "application/json");
        }
        let body = body.map(Value::to_string).unwrap_or_default();
        let request =
            request.body(Full::from(body)).map_err(|source| Error::Request { url: url.to_owned(), source })?;
        tokio::time::timeout(timeout, self.exchange(&method, url, request)).await.unwrap_or_else(|_| {
            Err(Error::Timeout { method: method.clone(), url: url.to_owned(), seconds: timeout.as_secs() })
        })
    }

    async fn exchange(&self, method: &Method, url: &str, request: Request<Full<Bytes>>) -> Result<Answer, Error> {
        let response = self.0.request(request).await.map_err(|source| Error::Connect {
            method: method.clone(),
            url: url.to_owned(),
            source,
        })?;
        let status = response.status();
        let body = http_body_util::Limited::new(response.into_body(), LONGEST_ANSWER)
            .collect()
            .await
            .map_err(|source| Error::Body { method: method.clone(), url: url.to_owned(), source })?
            .to_bytes();
        Ok(Answer { status, body: String::from_utf8_lossy(&body).into_owned() })
    }
}
