//! A user of the task API, in front of the gateway.

use anyhow::{Context, Result, ensure};
use reqwest::{Client, Method, Response, StatusCode};
use serde_json::{Value, json};

/// The gateway's address on this host: the port that `kind-config.yaml` passes on.
pub fn gateway() -> String {
    let port = std::env::var("TASKPLATFORM_GATEWAY_PORT").unwrap_or_else(|_| "8081".to_owned());
    format!("http://127.0.0.1:{port}")
}

/// What has come of a write while parts of the platform may be lost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Attempt {
    /// It is stored.
    Acknowledged,
    /// It is not: the answer, which is here, says to come again.
    Refused(String),
    /// The connection broke, the time ran out, or the answer says that it may be stored: nobody knows. Why is here.
    Unknown(String),
}

/// Somebody who is registered.
pub struct User {
    client: Client,
    token: String,
    url: String,
}

impl User {
    /// Registers.
    ///
    /// # Errors
    /// When the API does not take it.
    pub async fn register(url: &str, email: &str) -> Result<Self> {
        Self::enter(url, "register", email, StatusCode::CREATED).await
    }

    /// Logs in.
    ///
    /// # Errors
    /// When the API does not know the user.
    pub async fn login(url: &str, email: &str) -> Result<Self> {
        Self::enter(url, "login", email, StatusCode::OK).await
    }

    async fn enter(url: &str, action: &str, email: &str, expected: StatusCode) -> Result<Self> {
        let client = client()?;
        let body = json!({"email": email, "password": "correct horse battery staple"});
        let response = client.post(format!("{url}/api/auth/{action}")).json(&body).send().await?;
        let answer = answer(response, expected).await?;
        let token = answer["token"].as_str().context("no token")?.to_owned();
        Ok(Self { client, token, url: url.to_owned() })
    }

    /// The same user, in the same session, on connections of their own: those may end at other instances.
    ///
    /// # Errors
    /// When there can be no client.
    pub fn reconnected(&self) -> Result<Self> {
        Ok(Self { client: client()?, token: self.token.clone(), url: self.url.clone() })
    }

    /// Sends a request as this user and expects a status.
    ///
    /// # Errors
    /// When the answer is another one; it is in the error.
    pub async fn send(&self, method: Method, path: &str, body: Option<Value>, expected: StatusCode) -> Result<Value> {
        let mut request = self.client.request(method, format!("{}{path}", self.url)).bearer_auth(&self.token);
        if let Some(body) = body {
            request = request.json(&body);
        }
        answer(request.send().await?, expected).await
    }

    /// Creates a task and returns it.
    ///
    /// # Errors
    /// When it is not created.
    pub async fn create(&self, title: &str) -> Result<Value> {
        self.send(Method::POST, "/api/tasks", Some(json!({"title": title})), StatusCode::CREATED).await
    }

    /// Tries to create a task while parts of the platform may be lost.
    ///
    /// # Errors
    /// When the answer is neither a success nor a problem that says to come again.
    pub async fn attempt(&self, title: &str) -> Result<Attempt> {
        let request = self.client.post(format!("{}/api/tasks", self.url)).bearer_auth(&self.token);
        let response = match request.json(&json!({"title": title})).send().await {
            Ok(response) => response,
            Err(error) => return Ok(Attempt::Unknown(format!("{error:?}"))),
        };
        let status = response.status();
        let is_problem =
            response.headers().get("content-type").is_some_and(|type_| type_ == "application/problem+json");
        let body = match response.text().await {
            Ok(body) => body,
            Err(error) => return Ok(Attempt::Unknown(format!("{status}, then {error:?}"))),
        };
        match status {
            StatusCode::CREATED => Ok(Attempt::Acknowledged),
            StatusCode::SERVICE_UNAVAILABLE if is_problem && body.contains("may or may not") => {
                Ok(Attempt::Unknown(body))
            }
            StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS if is_problem => Ok(Attempt::Refused(body)),
            _ => anyhow::bail!("neither created nor a problem that passes: {status} {body}"),
        }
    }

    /// The titles of all tasks, page by page.
    ///
    /// # Errors
    /// When they cannot be listed.
    pub async fn all_titles(&self) -> Result<Vec<String>> {
        let (mut titles, mut page) = (Vec::new(), "/api/tasks?limit=100".to_owned());
        loop {
            let tasks = self.send(Method::GET, &page, None, StatusCode::OK).await?;
            let items = tasks["items"].as_array().context("no items")?;
            titles.extend(items.iter().map(|task| task["title"].as_str().unwrap_or_default().to_owned()));
            let Some(cursor) = tasks["next_cursor"].as_str() else { return Ok(titles) };
            page = format!("/api/tasks?limit=100&cursor={cursor}");
        }
    }

    /// The titles of the tasks, newest first.
    ///
    /// # Errors
    /// When they cannot be listed.
    pub async fn titles(&self) -> Result<Vec<String>> {
        let tasks = self.send(Method::GET, "/api/tasks", None, StatusCode::OK).await?;
        let items = tasks["items"].as_array().context("no items")?;
        Ok(items.iter().map(|task| task["title"].as_str().unwrap_or_default().to_owned()).collect())
    }
}

fn client() -> Result<Client> {
    Ok(Client::builder().timeout(std::time::Duration::from_secs(10)).build()?)
}

async fn answer(response: Response, expected: StatusCode) -> Result<Value> {
    let (status, url) = (response.status(), response.url().clone());
    let body = response.text().await?;
    ensure!(status == expected, "{url} answers {status} instead of {expected}: {body}");
    Ok(serde_json::from_str(&body).unwrap_or_default())
}

/// An address that no other run has used.
pub fn unique(name: &str) -> String {
    let nanoseconds = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default().as_nanos();
    format!("{name}-{nanoseconds}@example.com")
}
