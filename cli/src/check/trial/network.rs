//! Whether network policies are enforced: a Redis admits one pod, and another one tries as well.

use k8s_openapi::api::{core::v1::Pod, networking::v1::NetworkPolicy};
use kube::{Api, api::PostParams};
use serde_json::{Value, json};

use super::{
    GROUP, Trial,
    pods::{Obstacle, exit_code, has_ended, is_ready, pod},
};
use crate::check::outcome::{Outcome, message};

pub(super) const NAME: &str = "NetworkPolicies are enforced";

const SERVER: &str = "server";
const ADMITTED: &str = "admitted";
const REFUSED: &str = "refused";

/// Ends well as soon as the server answers.
const REACHES: &str = r#"
for attempt in $(seq 15); do
  timeout 2 redis-cli -h "$SERVER" ping | grep -q PONG && exit 0
  sleep 1
done
exit 1
"#;

/// Ends well when the server has not answered three times on end: policies may need some seconds to take hold, and a
/// single failure may have another cause. A try that is answered takes a second, one that is not takes three.
const REACHES_NOT: &str = r#"
failures=0
for attempt in $(seq 30); do
  if timeout 2 redis-cli -h "$SERVER" ping | grep -q PONG; then failures=0; else failures=$((failures + 1)); fi
  [ "$failures" -lt 3 ] || exit 0
  sleep 1
done
exit 1
"#;

pub(super) async fn check(trial: &Trial, redis: &str) -> Outcome {
    if let Err(error) = admit(trial).await {
        return GROUP.failure(NAME, format!("the trial's NetworkPolicy is refused: {error}"), "see what refuses it");
    }
    match attempts(trial, redis).await {
        Ok((reached, kept_out)) => judge(reached, kept_out),
        Err(Obstacle::Image { .. }) => {
            GROUP.skipped(NAME, "not tried: the image of Redis, which it takes, cannot be pulled")
        }
        Err(obstacle) => GROUP.failure(NAME, obstacle.to_string(), "make room for the pod, or give a longer --timeout"),
    }
}

/// The policy is there before the pods that it is about.
async fn admit(trial: &Trial) -> Result<(), String> {
    let policy: NetworkPolicy = serde_json::from_value(json!({
        "metadata": {"name": SERVER},
        "spec": {
            "podSelector": {"matchLabels": {"role": SERVER}},
            "policyTypes": ["Ingress"],
            "ingress": [{
                "from": [{"podSelector": {"matchLabels": {"role": ADMITTED}}}],
                "ports": [{"port": 6379, "protocol": "TCP"}],
            }],
        },
    }))
    .map_err(|error| error.to_string())?;
    let api: Api<NetworkPolicy> = trial.api();
    api.create(&PostParams::default(), &policy).await.map_err(|error| message(&error))?;
    Ok(())
}

/// Whether the admitted pod reached the server, and whether the other one was kept out.
async fn attempts(trial: &Trial, redis: &str) -> Result<(bool, bool), Obstacle> {
    let server = trial.pod(SERVER, server(redis), is_ready).await?;
    let address = server.status.and_then(|status| status.pod_ip).unwrap_or_default();
    let (admitted, refused) = tokio::try_join!(
        trial.pod(ADMITTED, client(redis, ADMITTED, &address, REACHES), has_ended),
        trial.pod(REFUSED, client(redis, REFUSED, &address, REACHES_NOT), has_ended),
    )?;
    let well = |pod: &Pod| exit_code(pod) == Some(0);
    Ok((well(&admitted), well(&refused)))
}

fn server(redis: &str) -> Value {
    let container = json!({
        "command": ["redis-server", "--port", "6379", "--protected-mode", "no", "--save", "", "--appendonly", "no"],
        // Asked from within: whether a node may reach a pod that policies select is up to the network.
        "readinessProbe": {"exec": {"command": ["redis-cli", "ping"]}, "periodSeconds": 1, "timeoutSeconds": 5},
    });
    pod(SERVER, redis, container)
}

fn client(redis: &str, name: &str, address: &str, script: &str) -> Value {
    let container = json!({"command": ["sh", "-c", script], "env": [{"name": "SERVER", "value": address}]});
    pod(name, redis, container)
}

fn judge(reached: bool, kept_out: bool) -> Outcome {
    match (reached, kept_out) {
        (true, true) => GROUP.pass(NAME, "a pod that is admitted reached Redis, and another one did not"),
        (true, false) => GROUP.warning(
            NAME,
            "NetworkPolicies are not enforced: every pod may reach the databases' ports, passwords are what is left",
            "use a CNI that enforces them, such as Cilium or Calico",
        ),
        (false, _) => GROUP.failure(
            NAME,
            "a pod that is admitted did not reach another pod either: the pods of a platform would not, too",
            "see whether pods reach each other across nodes, and what else denies it (kubectl get networkpolicies -A)",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::outcome::Verdict;

    #[test]
    fn a_pod_that_reaches_nothing_proves_nothing() {
        assert_eq!(judge(true, true).verdict, Verdict::Pass);
        assert_eq!(judge(true, false).verdict, Verdict::Warning);
        assert_eq!(judge(false, true).verdict, Verdict::Failure);
        assert_eq!(judge(false, false).verdict, Verdict::Failure);
    }
}
