//! End to end, on a cluster with the operator: `make test` brings one up.

mod admission;
mod chaos;
mod check;
mod deletion;
mod getting_started;
mod mishaps;
mod moves;
mod network;
mod packaging;
mod planning;
mod rotation;
mod services;
mod shared;
mod status;
mod volumes;

use std::{
    io::Write,
    process::{Child, Command, Output, Stdio},
};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use taskplatform_tests::platform::Platform;
use tokio::sync::{Mutex, MutexGuard};

/// One test at a time changes the operator or a platform: what one sees must not come from another.
static TURN: Mutex<()> = Mutex::const_new(());

async fn turn() -> MutexGuard<'static, ()> {
    TURN.lock().await
}

/// A platform that is small, and quick to see what changes.
fn small() -> Value {
    let resources = json!({"cpu": "25m", "memory": "96Mi"});
    let storage = json!({"size": "256Mi"});
    json!({
        "api": {"resources": resources},
        "scaling": {"minInstances": 2, "maxInstances": 4},
        "gateway": {
            "service": {"type": "NodePort", "nodePort": node_port()},
            "rateLimits": {"auth": {"rate": "100r/s", "burst": 100}},
            "healthCheck": {"interval": "2s", "timeout": "2s", "healthyThreshold": 1},
            "resources": resources,
        },
        "database": {"readReplicas": 1, "storage": {"size": "1Gi"}, "resources": {"cpu": "50m", "memory": "384Mi"}},
        "pooler": {"minPoolSize": 1, "resources": resources},
        "cache": {"resources": resources, "storage": storage},
        "sessions": {"resources": resources, "storage": storage},
        "worker": {"resources": resources},
        "deletionPolicy": "Delete",
    })
}

/// The port of every node that `kind-config.yaml` passes on to the tests.
fn node_port() -> i64 {
    std::env::var("TASKPLATFORM_GATEWAY_NODE_PORT").ok().and_then(|port| port.parse().ok()).unwrap_or(30081)
}

/// The small platform with a part of its spec changed.
fn small_with(change: &Value) -> Value {
    fn merge(into: &mut Value, change: &Value) {
        match (into, change) {
            (Value::Object(into), Value::Object(change)) => {
                for (key, value) in change {
                    merge(into.entry(key.clone()).or_insert(Value::Null), value);
                }
            }
            (into, change) => *into = change.clone(),
        }
    }
    let mut spec = small();
    merge(&mut spec, change);
    spec
}

/// The same without the fields that are null.
fn without_nulls(mut spec: serde_json::Value) -> serde_json::Value {
    if let Some(fields) = spec.as_object_mut() {
        fields.retain(|_, value| !value.is_null());
        for value in fields.values_mut() {
            *value = without_nulls(value.take());
        }
    }
    spec
}

/// The platform that most tests share, as it is when nobody has changed it.
async fn shared_platform() -> Result<Platform> {
    let platform = Platform::create("e2e", small()).await?;
    platform.settled().await?;
    Ok(platform)
}

/// The command line, which was built along with the tests, on the cluster under test.
fn command_line(arguments: &[&str]) -> Result<Command> {
    let tests = std::env::current_exe()?;
    let binary = tests.parent().and_then(|deps| deps.parent()).context("no folder")?.join("taskplatform");
    ensure!(binary.exists(), "{} is missing: cargo test --workspace builds it", binary.display());
    let mut command = Command::new(&binary);
    command.args(arguments);
    if matches!(arguments.first(), Some(&"check" | &"plan" | &"apply" | &"status" | &"switchover" | &"wait"))
        && let Ok(context) = std::env::var("KUBE_CONTEXT")
    {
        command.args(["--context", &context]);
    }
    Ok(command)
}

/// Starts it with an input.
fn start(arguments: &[&str], input: &str) -> Result<Child> {
    let mut command = command_line(arguments)?;
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    child.stdin.take().context("no input")?.write_all(input.as_bytes())?;
    Ok(child)
}

/// Runs it with an input.
fn taskplatform(arguments: &[&str], input: &str) -> Result<Output> {
    Ok(start(arguments, input)?.wait_with_output()?)
}
