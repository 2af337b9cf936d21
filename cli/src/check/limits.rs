//! Quotas and limits of the namespace: what the API server would refuse to make.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::core::v1::{LimitRange, LimitRangeItem, ResourceQuota},
    apimachinery::pkg::api::resource::Quantity,
};
use kube::{Api, ResourceExt, api::ListParams};
use serde_json::Value;
use taskplatform_blueprint::{Facts, Object, Platform, blueprint};
use taskplatform_crds::TaskPlatform;

use super::{
    Target,
    outcome::{Group, Outcome},
    room::thousandths,
};
use crate::cluster::Cluster;

const GROUP: Group = Group::Limits;

pub(super) async fn check(cluster: &Cluster, target: &Target) -> Vec<Outcome> {
    let namespace = target.platform.namespace();
    let quotas: Api<ResourceQuota> = Api::namespaced(cluster.client.clone(), namespace);
    let limits: Api<LimitRange> = Api::namespaced(cluster.client.clone(), namespace);
    let everything = ListParams::default();
    let platforms: Api<TaskPlatform> = Api::namespaced(cluster.client.clone(), namespace);
    let (quotas, limits, running) = tokio::join!(
        quotas.list(&everything),
        limits.list(&everything),
        platforms.get_metadata_opt(target.platform.name())
    );
    let wanted = Wanted::all(&target.platform);
    let limits = match limits {
        Ok(limits) => judge_limits(&limits.items, &wanted),
        Err(error) => vec![GROUP.unread(ALLOWED, "limitranges", &error)],
    };
    let quotas = match quotas {
        // What runs is counted already.
        _ if running.is_ok_and(|running| running.is_some()) => Vec::new(),
        Ok(quotas) => judge_quotas(&quotas.items, &wanted),
        Err(error) => vec![GROUP.unread(ADMITTED, "resourcequotas", &error)],
    };
    limits.into_iter().chain(quotas).collect()
}

const ALLOWED: &str = "the namespace's limits allow each pod and volume";
const ADMITTED: &str = "the namespace's quotas admit the platform";
const WAY_OUT: &str = "ask whoever made it for more, ask for less in the spec, or use another namespace";

/// What a unit asks for.
struct Wanted {
    component: String,
    pods: u64,
    /// Each container of a pod.
    containers: Vec<Asked>,
    /// A pod as a whole.
    pod: Asked,
    /// The volume of each pod.
    volume: Option<u64>,
}

#[derive(Default)]
struct Asked {
    requests: BTreeMap<String, u64>,
    limits: BTreeMap<String, u64>,
}

impl Wanted {
    /// Of a platform that begins: with the fewest instances.
    fn all(platform: &Platform) -> Vec<Self> {
        blueprint(platform, &Facts::default()).iter().filter_map(Self::of).collect()
    }

    fn of(object: &Object) -> Option<Self> {
        let spec = &object.value()["spec"];
        let pod = spec["template"].get("spec")?;
        // Whatever begins before the others stays with them.
        let containers = [&pod["initContainers"], &pod["containers"]].into_iter().filter_map(Value::as_array).flatten();
        let containers: Vec<Asked> = containers.map(|container| Asked::of(&container["resources"])).collect();
        let volume = &spec["volumeClaimTemplates"][0]["spec"]["resources"]["requests"]["storage"];
        Some(Self {
            component: object.component().to_owned(),
            pods: spec["replicas"].as_u64()?,
            pod: Asked::sum(&containers),
            containers,
            volume: volume.as_str().and_then(thousandths),
        })
    }
}

impl Asked {
    fn of(resources: &Value) -> Self {
        Self { requests: amounts(&resources["requests"]), limits: amounts(&resources["limits"]) }
    }

    fn sum(all: &[Self]) -> Self {
        let mut sum = Self::default();
        for one in all {
            for (total, part) in [(&mut sum.requests, &one.requests), (&mut sum.limits, &one.limits)] {
                for (name, amount) in part {
                    *total.entry(name.clone()).or_default() += amount;
                }
            }
        }
        sum
    }
}

fn amounts(resources: &Value) -> BTreeMap<String, u64> {
    let amounts = resources.as_object().into_iter().flatten();
    amounts.filter_map(|(name, amount)| Some((name.clone(), thousandths(amount.as_str()?)?))).collect()
}

fn judge_limits(limits: &[LimitRange], wanted: &[Wanted]) -> Vec<Outcome> {
    let refusals: Vec<Outcome> = limits
        .iter()
        .flat_map(|limit| limit.spec.iter().flat_map(|spec| &spec.limits).map(move |item| (limit.name_any(), item)))
        .filter_map(|(name, item)| {
            let refused: Vec<String> = wanted.iter().filter_map(|unit| refusal(item, unit)).collect();
            (!refused.is_empty())
                .then(|| GROUP.failure(ALLOWED, format!("LimitRange {name} refuses {}", refused.join("; ")), WAY_OUT))
        })
        .collect();
    if refusals.is_empty() { vec![GROUP.pass(ALLOWED, count(limits.len(), "LimitRange"))] } else { refusals }
}

/// What a limit has against the containers, pods or volumes of a unit.
fn refusal(item: &LimitRangeItem, unit: &Wanted) -> Option<String> {
    let component = &unit.component;
    match item.type_.as_str() {
        "Container" => unit.containers.iter().find_map(|container| bounds(item, component, "containers", container)),
        "Pod" => bounds(item, component, "pods", &unit.pod),
        "PersistentVolumeClaim" => {
            let (size, resource) = (unit.volume?, "storage");
            let bound = |bounds: &Option<BTreeMap<String, Quantity>>| thousandths(&bounds.as_ref()?.get(resource)?.0);
            let is_refused =
                bound(&item.max).is_some_and(|most| size > most) || bound(&item.min).is_some_and(|least| size < least);
            is_refused.then(|| format!("{component}, whose volumes are of {}", shown(resource, size)))
        }
        _ => None,
    }
}

fn bounds(item: &LimitRangeItem, component: &str, whose: &str, asked: &Asked) -> Option<String> {
    ["cpu", "memory"].into_iter().find_map(|resource| {
        let (request, limit) = (*asked.requests.get(resource)?, *asked.limits.get(resource)?);
        let bound = |bounds: &Option<BTreeMap<String, Quantity>>| {
            let quantity = bounds.as_ref()?.get(resource)?;
            Some((quantity.0.clone(), thousandths(&quantity.0)?))
        };
        if let Some((most, _)) = bound(&item.max).filter(|(_, most)| limit > *most) {
            let limit = shown(resource, limit);
            return Some(format!("{component}, whose {whose} may use {limit} {resource}, above {most}"));
        }
        if let Some((least, _)) = bound(&item.min).filter(|(_, least)| request < *least) {
            let request = shown(resource, request);
            return Some(format!("{component}, whose {whose} ask for {request} {resource}, below {least}"));
        }
        let ratio = bound(&item.max_limit_request_ratio)
            .filter(|(_, ratio)| u128::from(limit) * 1000 > u128::from(request) * u128::from(*ratio));
        ratio.map(|(ratio, _)| {
            format!("{component}, whose {whose} may use more than {ratio} times the {resource} that they ask for")
        })
    })
}

fn judge_quotas(quotas: &[ResourceQuota], wanted: &[Wanted]) -> Vec<Outcome> {
    let refusals: Vec<Outcome> = quotas
        .iter()
        // One with scopes counts some pods only.
        .filter(|quota| quota.spec.as_ref().is_some_and(|spec| spec.scopes.is_none() && spec.scope_selector.is_none()))
        .filter_map(|quota| {
            let short = shortages(quota, wanted);
            let detail = || format!("ResourceQuota {} leaves {}", quota.name_any(), short.join(", "));
            (!short.is_empty()).then(|| GROUP.failure(ADMITTED, detail(), WAY_OUT))
        })
        .collect();
    if refusals.is_empty() { vec![GROUP.pass(ADMITTED, count(quotas.len(), "ResourceQuota"))] } else { refusals }
}

fn shortages(quota: &ResourceQuota, wanted: &[Wanted]) -> Vec<String> {
    let status = quota.status.as_ref();
    let hard = quota.spec.iter().flat_map(|spec| spec.hard.iter().flatten());
    let used =
        |name: &str| status.and_then(|status| thousandths(&status.used.as_ref()?.get(name)?.0)).unwrap_or_default();
    hard.filter_map(|(name, hard)| {
        let left = thousandths(&hard.0)?.saturating_sub(used(name));
        let needed = needed(name, wanted)?;
        let resource = name.rsplit('.').next().unwrap_or(name);
        (needed > left)
            .then(|| format!("{} of the {} {name} that it needs", shown(resource, left), shown(resource, needed)))
    })
    .collect()
}

/// What all units take of a resource that quotas count, in thousandths.
fn needed(name: &str, wanted: &[Wanted]) -> Option<u64> {
    let sum = |of: &dyn Fn(&Wanted) -> u64| Some(wanted.iter().map(|unit| unit.pods * of(unit)).sum());
    let amount = |amounts: &BTreeMap<String, u64>, resource: &str| amounts.get(resource).copied().unwrap_or_default();
    match name {
        "pods" | "count/pods" => sum(&|_| 1000),
        "cpu" | "requests.cpu" => sum(&|unit| amount(&unit.pod.requests, "cpu")),
        "memory" | "requests.memory" => sum(&|unit| amount(&unit.pod.requests, "memory")),
        "limits.cpu" => sum(&|unit| amount(&unit.pod.limits, "cpu")),
        "limits.memory" => sum(&|unit| amount(&unit.pod.limits, "memory")),
        "persistentvolumeclaims" => sum(&|unit| if unit.volume.is_some() { 1000 } else { 0 }),
        "requests.storage" => sum(&|unit| unit.volume.unwrap_or_default()),
        _ => None,
    }
}

fn shown(resource: &str, thousandths: u64) -> String {
    match resource {
        "memory" | "storage" => format!("{}Mi", (thousandths / 1000) >> 20),
        "cpu" if !thousandths.is_multiple_of(1000) => format!("{thousandths}m"),
        _ => (thousandths / 1000).to_string(),
    }
}

fn count(number: usize, what: &str) -> String {
    if number == 0 { format!("there is no {what}") } else { String::new() }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::check::outcome::Verdict::{Failure, Pass};

    fn wanted() -> Vec<Wanted> {
        let spec = json!({"cache": {"storage": {"size": "1Gi"}}});
        let manifest = TaskPlatform::new("tasks", serde_json::from_value(spec).unwrap());
        Wanted::all(&Platform::new(&manifest).unwrap())
    }

    #[test]
    fn a_limit_that_some_pod_exceeds_is_told() {
        let judge = |limits: Value| {
            let range = json!({"metadata": {"name": "team"}, "spec": {"limits": [limits]}});
            judge_limits(&[serde_json::from_value(range).unwrap()], &wanted()).remove(0)
        };
        let refused = judge(json!({"type": "Container", "max": {"cpu": "500m", "memory": "1Gi"}}));
        assert_eq!(refused.verdict, Failure);
        assert!(refused.detail.contains("LimitRange team") && refused.detail.contains("gateway"), "{refused:?}");
        assert_eq!(judge(json!({"type": "Container", "max": {"cpu": "64", "memory": "64Gi"}})).verdict, Pass);
        assert_eq!(judge(json!({"type": "Pod", "min": {"memory": "2Gi"}})).verdict, Failure);
        assert_eq!(judge(json!({"type": "Container", "maxLimitRequestRatio": {"cpu": "1"}})).verdict, Failure);
        let volumes = judge(json!({"type": "PersistentVolumeClaim", "min": {"storage": "2Gi"}}));
        assert!(volumes.detail.contains("cache, whose volumes are of 1024Mi"), "{volumes:?}");
    }

    #[test]
    fn a_quota_that_leaves_too_little_is_told() {
        let judge = |hard: Value, used: Value| {
            let quota = json!({"metadata": {"name": "team"}, "spec": {"hard": hard}, "status": {"used": used}});
            judge_quotas(&[serde_json::from_value(quota).unwrap()], &wanted()).remove(0)
        };
        let refused = judge(json!({"pods": "30", "services": "5"}), json!({"pods": "10"}));
        assert_eq!(refused.detail, "ResourceQuota team leaves 20 of the 24 pods that it needs");
        assert_eq!(judge(json!({"pods": "40", "limits.cpu": "1k"}), json!({"pods": "10"})).verdict, Pass);
        assert_eq!(judge(json!({"requests.storage": "10Gi"}), json!({})).verdict, Failure);
    }
}
