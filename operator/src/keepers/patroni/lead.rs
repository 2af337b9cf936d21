//! Ends the lead of a member whose container has ended. Patroni would have the others wait for its lease, 20 s, or for the kubelet to start the
//! container again, which takes ten seconds and more where that has happened before. There is nothing to wait for: the kubelet says that no process
//! of it runs.

use std::time::Duration;

use k8s_openapi::api::core::v1::{Endpoints, Pod};
use kube::{
    Api, Client, ResourceExt,
    api::{Patch, PatchParams},
};
use serde_json::{Value, json};
use taskplatform_blueprint::{Component, Endpoint};
use tokio::time::timeout;
use tracing::{info, warn};

use super::super::Brief;
use crate::describe;

/// What Patroni names the member in that leads.
const LEADER: &str = "leader";
/// The container of PostgreSQL and Patroni.
const CONTAINER: &str = "postgres";
const TIMEOUT: Duration = Duration::from_secs(3);

/// Ends the lead of a member that has ended. Should that fail, its lease does.
pub(super) async fn end(client: &Client, brief: &Brief) {
    let mut pods = brief.snapshot.pods(Component::DATABASE);
    if !brief.may_act || !pods.any(|pod| has_ended(&pod.data()["status"]["containerStatuses"])) {
        return;
    }
    let (platform, namespace) = (brief.platform.name(), brief.platform.namespace());
    let name = Endpoint::PRIMARY.host(&brief.platform);
    match timeout(TIMEOUT, end_of(client, namespace, &name)).await {
        Ok(Ok(Some(pod))) => info!(platform, namespace, pod, "the primary's container has ended, and its lead with it"),
        Ok(Ok(None)) => {}
        Ok(Err(error)) => {
            warn!(
                platform,
                namespace,
                error = describe(&error),
                "a primary that has ended leads until its lease is over, 20 s"
            );
        }
        Err(_) => {
            warn!(
                platform,
                namespace, "a primary that has ended leads until its lease is over, 20 s: no answer within {TIMEOUT:?}"
            );
        }
    }
}

/// The pod whose lead was ended, if one leads that has ended.
async fn end_of(client: &Client, namespace: &str, name: &str) -> Result<Option<String>, kube::Error> {
    let leads: Api<Endpoints> = Api::namespaced(client.clone(), namespace);
    let Some(lead) = leads.get_opt(name).await? else { return Ok(None) };
    let Some(leader) = lead.annotations().get(LEADER) else { return Ok(None) };
    // As it is by now. A container that has started again since writes to the lead before PostgreSQL runs there: the version differs then.
    let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let statuses = pods.get_opt(leader).await?.and_then(|pod| pod.status?.container_statuses);
    if !has_ended(&json!(statuses)) {
        return Ok(None);
    }
    let released = json!({"metadata": {"resourceVersion": lead.resource_version(), "annotations": {LEADER: null}}});
    match leads.patch(name, &PatchParams::default(), &Patch::Merge(released)).await {
        Err(kube::Error::Api(status)) if status.is_conflict() => Ok(None),
        released => released.map(|_| Some(leader.clone())),
    }
}

/// Whether PostgreSQL's container has run and does not any more, by what the kubelet says of the containers.
fn has_ended(statuses: &Value) -> bool {
    let postgres = statuses.as_array().into_iter().flatten().find(|status| status["name"] == CONTAINER);
    postgres.is_some_and(|status| {
        let ended = |state: &str| status[state].get("terminated").is_some_and(|terminated| !terminated.is_null());
        let is_running = status["state"].get("running").is_some_and(|running| !running.is_null());
        !is_running && (ended("state") || ended("lastState"))
    })
}

#[cfg(test)]
mod tests {
    use tokio::time::sleep;

    use super::*;
    use crate::testing::{Bed, NAMESPACE, Trouble, Verb};

    /// A bed where the first of two members leads, and its container is in this state.
    fn bed(state: &Value) -> Bed {
        let bed = Bed::new();
        let annotations = json!({LEADER: "shop-database-0", "renewTime": "1"});
        bed.server.put(json!({
            "apiVersion": "v1", "kind": "Endpoints",
            "metadata": {"name": "shop-database-primary", "namespace": NAMESPACE, "annotations": annotations},
        }));
        bed.server.put(json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "shop-database-0", "namespace": NAMESPACE},
            "status": {"containerStatuses": [{"name": CONTAINER, "state": state}]},
        }));
        bed
    }

    fn leader(bed: &Bed) -> Value {
        bed.get("Endpoints", "shop-database-primary")["metadata"]["annotations"][LEADER].clone()
    }

    #[tokio::test(start_paused = true)]
    async fn the_lead_of_a_container_that_has_ended_is_ended() {
        let bed = bed(&json!({"terminated": {"exitCode": 137}}));
        let ended = end_of(&bed.client, NAMESPACE, "shop-database-primary").await.unwrap();
        assert_eq!((ended.as_deref(), leader(&bed)), (Some("shop-database-0"), Value::Null));
        let kept = bed.get("Endpoints", "shop-database-primary")["metadata"]["annotations"]["renewTime"].clone();
        assert_eq!(kept, "1", "what else Patroni has written stays");
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_runs_by_now_leads_on() {
        let bed = bed(&json!({"running": {}}));
        let ended = end_of(&bed.client, NAMESPACE, "shop-database-primary").await.unwrap();
        assert_eq!((ended, leader(&bed)), (None, json!("shop-database-0")));
    }

    #[tokio::test(start_paused = true)]
    async fn a_lead_that_was_written_to_meanwhile_is_left() {
        let bed = bed(&json!({"terminated": {"exitCode": 137}}));
        bed.server.trouble(Verb::Patch, "Endpoints", Trouble::Delay(Duration::from_secs(1)));
        let renewed = async {
            sleep(Duration::from_millis(500)).await;
            bed.edit("Endpoints", "shop-database-primary", |lead| {
                lead["metadata"]["annotations"]["renewTime"] = "2".into();
            });
        };
        let (ended, ()) = tokio::join!(end_of(&bed.client, NAMESPACE, "shop-database-primary"), renewed);
        assert_eq!((ended.unwrap(), leader(&bed)), (None, json!("shop-database-0")));
    }

    fn postgres(state: &Value, last: &Value) -> bool {
        let other = json!({"name": "other", "state": {"terminated": {}}});
        has_ended(&json!([other, {"name": "postgres", "state": state, "lastState": last}]))
    }

    #[test]
    fn only_a_container_that_ran_and_does_not_run_has_ended() {
        let terminated = json!({"terminated": {"exitCode": 137}});
        let (waiting, running) = (json!({"waiting": {"reason": "CrashLoopBackOff"}}), json!({"running": {}}));
        assert!(postgres(&terminated, &json!({})));
        assert!(postgres(&waiting, &terminated), "it waits to be started again");
        assert!(!postgres(&waiting, &json!({})), "it has never run");
        assert!(!postgres(&running, &terminated), "it runs again");
        assert!(!has_ended(&json!([{"name": "other", "state": terminated}])));
        assert!(!has_ended(&Value::Null));
    }
}
