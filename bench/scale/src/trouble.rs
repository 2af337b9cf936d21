//! Platforms whose parts do not answer: their pods have addresses behind which nobody is, and the API server refuses one of their objects.

use anyhow::Result;
use futures::{StreamExt, TryStreamExt, stream};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Pod};
use kube::{
    Api, Client,
    api::{Patch, PatchParams, PostParams},
};
use serde_json::json;
use taskplatform_blueprint::{Draft, MANAGED_BY, labels, units};
use taskplatform_crds::TaskPlatform;

use crate::{AT_ONCE, platforms};

const NAMESPACE: &str = "scale-troubled";

pub(crate) async fn begin(client: &Client, count: usize) -> Result<()> {
    let namespaces: Api<Namespace> = Api::all(client.clone());
    let namespace: Namespace = serde_json::from_value(json!({"metadata": {"name": NAMESPACE}}))?;
    namespaces.create(&PostParams::default(), &namespace).await?;
    stream::iter(0..count).map(|number| one(client, number)).buffer_unordered(AT_ONCE).try_collect::<()>().await
}

async fn one(client: &Client, number: usize) -> Result<()> {
    let platform = platforms::platform(NAMESPACE, number)?;
    let draft = Draft::from(&platform);
    // Somebody else's object of a name that it needs.
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), NAMESPACE);
    let map: ConfigMap = serde_json::from_value(json!({"metadata": {"name": format!("{}-gateway", draft.name())}}))?;
    maps.create(&PostParams::default(), &map).await?;
    let pods: Api<Pod> = Api::namespaced(client.clone(), NAMESPACE);
    for (place, unit) in (1..).zip(units(&draft, 2)) {
        for ordinal in 0..2 {
            let name = format!("{}-{ordinal}", unit.name);
            // Never scheduled, so that no node says anything of it.
            let pod: Pod = serde_json::from_value(json!({
                "metadata": {"name": name, "labels": labels(draft.name(), unit.component)},
                "spec": {"schedulingGates": [{"name": "taskplatform.dev/never"}], "containers": [{"name": "none", "image": "none"}]},
            }))?;
            pods.create(&PostParams::default(), &pod).await?;
            // TEST-NET-1: packets to it are lost.
            let address = format!("192.0.2.{}", place * 10 + ordinal);
            let status = json!({"status": {
                "podIP": address, "podIPs": [{"ip": address}],
                "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"}],
            }});
            pods.patch_status(&name, &PatchParams::apply(MANAGED_BY), &Patch::Merge(status)).await?;
        }
    }
    let api: Api<TaskPlatform> = Api::namespaced(client.clone(), NAMESPACE);
    api.create(&PostParams::default(), &platform).await?;
    Ok(())
}
