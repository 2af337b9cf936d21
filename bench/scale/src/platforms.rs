//! The platforms, in a namespace whose quota admits no pods.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use futures::{StreamExt, TryStreamExt, stream};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, ResourceQuota};
use kube::{
    Api, Client,
    api::{Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};
use taskplatform_crds::TaskPlatform;
use tokio::time::sleep;

use crate::{AT_ONCE, operator::Operator};

/// So long everything may take.
const LONGEST: Duration = Duration::from_mins(30);
const LONGEST_CHANGE: Duration = Duration::from_mins(1);

pub(crate) struct Platforms {
    client: Client,
    namespace: String,
    count: usize,
    began: Instant,
}

pub(crate) fn name(number: usize) -> String {
    format!("p{number}")
}

/// The smallest there is: what counts are its objects.
pub(crate) fn platform(namespace: &str, number: usize) -> Result<TaskPlatform> {
    let small = json!({"cpu": "100m", "memory": "128Mi"});
    let storage = json!({"size": "1Gi"});
    Ok(serde_json::from_value(json!({
        "apiVersion": "taskplatform.dev/v1alpha1", "kind": "TaskPlatform",
        "metadata": {"name": name(number), "namespace": namespace},
        "spec": {
            "gateway": {"service": {"type": "ClusterIP"}},
            "database": {"resources": {"cpu": "100m", "memory": "512Mi"}, "storage": storage},
            "cache": {"resources": small, "storage": storage}, "sessions": {"resources": small, "storage": storage},
        },
    }))?)
}

/// A namespace in which no pod is made.
pub(crate) async fn namespace(client: &Client, name: &str) -> Result<()> {
    let namespace: Namespace = serde_json::from_value(json!({"metadata": {"name": name}}))?;
    let namespaces: Api<Namespace> = Api::all(client.clone());
    let created = namespaces.create(&PostParams::default(), &namespace).await;
    created.with_context(|| format!("namespace {name}: bench/scale.sh begins with none"))?;
    let quota: ResourceQuota =
        serde_json::from_value(json!({"metadata": {"name": "no-pods"}, "spec": {"hard": {"pods": "0"}}}))?;
    let quotas: Api<ResourceQuota> = Api::namespaced(client.clone(), name);
    quotas.create(&PostParams::default(), &quota).await?;
    Ok(())
}

impl Platforms {
    pub(crate) async fn create(client: &Client, namespace: &str, count: usize) -> Result<Self> {
        self::namespace(client, namespace).await?;
        let began = Instant::now();
        let api: Api<TaskPlatform> = Api::namespaced(client.clone(), namespace);
        stream::iter(0..count)
            .map(async |number| {
                let platform = platform(namespace, number)?;
                api.create(&PostParams::default(), &platform).await.with_context(|| name(number)).map(drop)
            })
            .buffer_unordered(AT_ONCE)
            .try_collect::<()>()
            .await?;
        Ok(Self { client: client.clone(), namespace: namespace.to_owned(), count, began })
    }

    /// Until every object was applied: since the first platform was created.
    pub(crate) async fn await_applied(
        &self,
        operator: &Operator,
        objects: usize,
        say: &impl Fn(&str),
    ) -> Result<Duration> {
        // The Secret is not among what the operator counts as applied.
        let wanted = objects - self.count;
        let mut told = Instant::now();
        loop {
            let applied = operator.applied().await?;
            if applied >= u64::try_from(wanted)? {
                return Ok(self.began.elapsed());
            }
            ensure!(self.began.elapsed() < LONGEST, "{applied} of {wanted} objects are applied after {LONGEST:?}");
            if told.elapsed() > Duration::from_secs(15) {
                told = Instant::now();
                say(&format!("{applied} of {wanted} objects"));
            }
            sleep(Duration::from_millis(500)).await;
        }
    }

    /// Changes platforms one after another; how long each change took to reach the object that it is about.
    pub(crate) async fn change(&self, times: usize) -> Result<Vec<Duration>> {
        let api: Api<TaskPlatform> = Api::namespaced(self.client.clone(), &self.namespace);
        let maps: Api<ConfigMap> = Api::namespaced(self.client.clone(), &self.namespace);
        let mut waits = Vec::new();
        for time in 0..times {
            let name = name(time * 7 % self.count);
            let rate = 1000 + time;
            let change: Value = json!({"spec": {"gateway": {"rateLimits": {"api": {"rate": format!("{rate}r/s")}}}}});
            let began = Instant::now();
            api.patch(&name, &PatchParams::default(), &Patch::Merge(change)).await?;
            loop {
                let map = maps.get(&format!("{name}-gateway")).await?;
                if map.data.iter().flatten().any(|(_, text)| text.contains(&format!("{rate}r/s"))) {
                    break;
                }
                ensure!(began.elapsed() < LONGEST_CHANGE, "a change of {name} is not applied after {LONGEST_CHANGE:?}");
                sleep(Duration::from_millis(20)).await;
            }
            waits.push(began.elapsed());
        }
        Ok(waits)
    }
}
