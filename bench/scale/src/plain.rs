//! A plain client: it creates the same objects, and does nothing else.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use futures::{StreamExt, TryStreamExt, stream};
use k8s_openapi::api::core::v1::{Namespace, Secret};
use kube::{
    Api, Client, ResourceExt,
    api::{DeleteParams, PostParams},
    core::{ApiResource, DynamicObject},
};
use serde_json::json;
use taskplatform_blueprint::{Facts, Platform, blueprint};
use tokio::time::sleep;

use crate::{AT_ONCE, per_second, platforms};

const NAMESPACE: &str = "scale-plain";
/// Deleting 43,000 objects takes minutes.
const LONGEST_DELETION: Duration = Duration::from_mins(20);

pub(crate) struct Created {
    pub(crate) platforms: usize,
    pub(crate) objects: usize,
    pub(crate) took: Duration,
}

impl Created {
    pub(crate) fn per_second(&self) -> f64 {
        per_second(self.objects, self.took)
    }
}

pub(crate) async fn create(client: &Client, count: usize) -> Result<Created> {
    platforms::namespace(client, NAMESPACE).await?;
    let mut objects = Vec::new();
    for number in 0..count {
        let platform = Platform::new(&platforms::platform(NAMESPACE, number)?)?;
        for object in blueprint(&platform, &Facts::default()) {
            let resource = ApiResource::from_gvk(&object.kind().group_version_kind());
            let mut value = object.value().clone();
            // The operator looks after what carries its label.
            value["metadata"]["labels"]["app.kubernetes.io/managed-by"] = "nobody".into();
            objects.push((resource, value));
        }
        let secret =
            json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": platform.names().credentials()}});
        objects.push((ApiResource::erase::<Secret>(&()), secret));
    }
    let total = objects.len();
    let began = Instant::now();
    stream::iter(objects)
        .map(async |(resource, value)| {
            let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), NAMESPACE, &resource);
            let object: DynamicObject = serde_json::from_value(value)?;
            api.create(&PostParams::default(), &object).await.with_context(|| object.name_any()).map(drop)
        })
        .buffer_unordered(AT_ONCE)
        .try_collect::<()>()
        .await?;
    Ok(Created { platforms: count, objects: total, took: began.elapsed() })
}

pub(crate) async fn delete(client: &Client) -> Result<()> {
    let api: Api<Namespace> = Api::all(client.clone());
    api.delete(NAMESPACE, &DeleteParams::default()).await?;
    let began = Instant::now();
    while api.get_metadata_opt(NAMESPACE).await?.is_some() {
        ensure!(began.elapsed() < LONGEST_DELETION, "namespace {NAMESPACE} does not go");
        sleep(Duration::from_secs(1)).await;
    }
    Ok(())
}
