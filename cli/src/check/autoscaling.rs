//! What the autoscaler needs: metrics, and an API server that keeps its thresholds.

use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use kube::{
    Api,
    api::{ListParams, PostParams},
    core::{ApiResource, DynamicObject, GroupVersionKind},
};
use serde_json::{Value, json};
use taskplatform_blueprint::{Facts, Kind, REQUESTS_PER_SECOND, blueprint};

use super::{
    Target,
    outcome::{Group, Outcome, message},
};
use crate::cluster::Cluster;

const GROUP: Group = Group::Autoscaling;

pub(super) async fn check(cluster: &Cluster, target: &Target) -> Vec<Outcome> {
    let (pods, requests, thresholds) =
        tokio::join!(pod_metrics(cluster, target), requests_per_second(cluster), thresholds(cluster, target));
    vec![pods, requests, thresholds]
}

async fn pod_metrics(cluster: &Cluster, target: &Target) -> Outcome {
    let name = "CPU and memory of pods are measured";
    let lacking = |detail: String| {
        GROUP.failure(
            name,
            detail,
            "install metrics-server (https://github.com/kubernetes-sigs/metrics-server), or see why it does not answer (kubectl get apiservice v1beta1.metrics.k8s.io)",
        )
    };
    match cluster.client.list_api_group_resources("metrics.k8s.io/v1beta1").await {
        Ok(resources) if resources.resources.iter().any(|resource| resource.name == "pods") => {}
        Ok(_) => return lacking("metrics.k8s.io serves no metrics of pods".to_owned()),
        Err(kube::Error::Api(status)) if status.code == 404 => {
            return lacking("there is no metrics.k8s.io: the autoscaler would never scale".to_owned());
        }
        Err(error) => return lacking(format!("metrics.k8s.io does not answer: {}", message(&error))),
    }
    let resource =
        ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk("metrics.k8s.io", "v1beta1", "PodMetrics"), "pods");
    let api: Api<DynamicObject> = Api::namespaced_with(cluster.client.clone(), target.platform.namespace(), &resource);
    match api.list(&ListParams::default()).await {
        // Who may not read them knows at least that they are served.
        Ok(_) => GROUP.pass(name, "metrics.k8s.io answers"),
        Err(kube::Error::Api(status)) if status.code == 403 => GROUP.pass(name, "metrics.k8s.io is served"),
        Err(error) => lacking(format!("metrics.k8s.io does not answer: {}", message(&error))),
    }
}

async fn requests_per_second(cluster: &Cluster) -> Outcome {
    let name = "requests per second are measured";
    let (resource, way_out) =
        (REQUESTS_PER_SECOND.resource, "serve it, as the Prometheus adapter does, to scale by requests, too");
    match cluster.serves_requests_per_second().await {
        Ok(true) => GROUP.pass(name, format!("custom.metrics.k8s.io serves {resource}")),
        Ok(false) => {
            let detail =
                format!("custom.metrics.k8s.io does not serve {resource}: instances follow CPU and memory only");
            GROUP.warning(name, detail, way_out)
        }
        Err(_) => {
            let detail = "custom.metrics.k8s.io does not answer: instances follow CPU and memory only";
            GROUP.warning(name, detail, way_out)
        }
    }
}

/// Has the API server take in the platform's autoscaler without keeping it: it answers what it would have kept.
async fn thresholds(cluster: &Cluster, target: &Target) -> Outcome {
    let name = "the autoscaler's thresholds are kept";
    let Some(mut autoscaler) = autoscaler(target) else {
        return GROUP.skipped(name, "the platform has no autoscaler");
    };
    // The platform's own may be there already.
    autoscaler.metadata.name = None;
    autoscaler.metadata.generate_name = Some("taskplatform-check-".to_owned());
    let api: Api<HorizontalPodAutoscaler> = Api::namespaced(cluster.client.clone(), target.platform.namespace());
    let parameters = PostParams { dry_run: true, ..PostParams::default() };
    match api.create(&parameters, &autoscaler).await {
        Ok(kept) if keeps_tolerance(&kept) => GROUP.pass(name, "tried without keeping anything"),
        Ok(_) => GROUP.warning(
            name,
            "the API server drops the tolerance of a HorizontalPodAutoscaler: it would scale at ±10 % of the targets",
            "upgrade Kubernetes to 1.35 or later, or enable HPAConfigurableTolerance",
        ),
        Err(kube::Error::Api(status)) if matches!(status.code, 403 | 404) => {
            GROUP.skipped(name, format!("not tried: {}", status.message))
        }
        Err(error) => GROUP.failure(
            name,
            format!("the platform's autoscaler is refused: {}", message(&error)),
            "see what refuses it, such as an admission webhook (kubectl get validatingwebhookconfigurations)",
        ),
    }
}

fn autoscaler(target: &Target) -> Option<HorizontalPodAutoscaler> {
    let objects = blueprint(&target.platform, &Facts::default());
    let object = objects.iter().find(|object| object.kind() == Kind::HorizontalPodAutoscaler)?;
    serde_json::from_value(object.value().clone()).ok()
}

fn keeps_tolerance(kept: &HorizontalPodAutoscaler) -> bool {
    let kept = serde_json::to_value(kept).unwrap_or(Value::Null);
    let tolerance = |rules: &str| {
        kept.pointer(&format!("/spec/behavior/{rules}/tolerance")).is_some_and(|kept| *kept != json!(null))
    };
    tolerance("scaleUp") && tolerance("scaleDown")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dropped_tolerance_is_noticed() {
        let autoscaler = |behavior: Value| {
            let value = json!({"metadata": {}, "spec": {"maxReplicas": 2, "scaleTargetRef": {"kind": "A", "name": "a"}, "behavior": behavior}});
            serde_json::from_value::<HorizontalPodAutoscaler>(value).unwrap()
        };
        let kept = json!({"scaleUp": {"tolerance": "143m"}, "scaleDown": {"tolerance": "572m"}});
        assert!(keeps_tolerance(&autoscaler(kept)));
        assert!(!keeps_tolerance(&autoscaler(json!({"scaleUp": {"tolerance": "143m"}, "scaleDown": {}}))));
        assert!(!keeps_tolerance(&autoscaler(json!({}))));
    }
}
