//! What the end-to-end tests share: a way to the cluster, waiting for conditions, and an explanation when a test fails.
//!
//! The tests look at a platform from the outside, as its users do: through kubectl's API and through the gateway.

pub mod cluster;
pub mod explain;
pub mod http;
pub mod ledger;
pub mod platform;

use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};

/// Asks again until there is an answer. What was missing last is in the error. A question that nobody answers, such as
/// one on a connection that is lost, is given up and asked again.
///
/// # Errors
/// When `seconds` have passed without an answer.
pub async fn eventually<T>(what: &str, seconds: u64, mut ask: impl AsyncFnMut() -> Result<T>) -> Result<T> {
    let began = Instant::now();
    let patience = seconds.max(30);
    loop {
        // Boxed, as a question may be large.
        let error = match tokio::time::timeout(Duration::from_secs(patience), Box::pin(ask())).await {
            Ok(Ok(answer)) => return Ok(answer),
            Ok(Err(error)) => error,
            Err(_) => anyhow!("no answer within {patience} s"),
        };
        if began.elapsed() > Duration::from_secs(seconds) {
            return Err(error).with_context(|| format!("not within {seconds} s: {what}"));
        }
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
}

/// Runs a test of a platform; when it fails, prints the platform's conditions, events, pods and logs.
///
/// # Errors
/// The test's own.
pub async fn explained(namespace: &str, test: impl Future<Output = Result<()>>) -> Result<()> {
    let result = test.await;
    if let Err(error) = &result {
        eprintln!("\n--- failed in namespace {namespace}: {error:#}");
        match cluster::client().await {
            Ok(client) => explain::explain(&client, namespace).await,
            Err(error) => bail!("the cluster cannot be reached to explain the failure: {error:#}"),
        }
    }
    result
}
