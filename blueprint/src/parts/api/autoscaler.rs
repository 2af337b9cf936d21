//! The HorizontalPodAutoscaler: it scales the TaskPlatform itself, through the scale subresource.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use taskplatform_crds::Scaling;

use crate::{Component, Facts, Object, Platform, object::Kind};

pub(super) fn object(platform: &Platform, facts: &Facts) -> Object {
    let scaling = &platform.spec().scaling;
    Object::new(
        platform,
        Component::API,
        Kind::HorizontalPodAutoscaler,
        &platform.names().component(Component::API),
        json!({"spec": {
            "scaleTargetRef": {
                "apiVersion": "taskplatform.dev/v1alpha1", "kind": "TaskPlatform", "name": platform.name(),
            },
            "minReplicas": scaling.min_instances,
            "maxReplicas": scaling.max_instances,
            "metrics": metrics(scaling, facts),
            "behavior": behavior(scaling),
        }}),
    )
}

fn metrics(scaling: &Scaling, facts: &Facts) -> Vec<Value> {
    let resource = |name: &str, utilization: i32| {
        json!({
            "type": "Resource",
            "resource": {"name": name, "target": {"type": "Utilization", "averageUtilization": utilization}},
        })
    };
    let mut metrics = vec![resource("cpu", scaling.target_cpu.get()), resource("memory", scaling.target_memory.get())];
    if facts.requests_per_second {
        metrics.push(json!({
            "type": "Pods",
            "pods": {
                "metric": {"name": "http_requests_per_second"},
                "target": {"type": "AverageValue", "averageValue": scaling.target_rps.to_string()},
            },
        }));
    }
    metrics
}

/// `period` is the stabilization window, `cooldown` with its step is the policy. The thresholds are absolute CPU use;
/// the autoscaler knows them as tolerances around the target.
fn behavior(scaling: &Scaling) -> Value {
    let target = scaling.target_cpu.get();
    let rules =
        |window: taskplatform_crds::Duration, pods: i32, cooldown: taskplatform_crds::Duration, tolerance: i32| {
            json!({
                "stabilizationWindowSeconds": window.as_secs(),
                "selectPolicy": "Max",
                "policies": [{"type": "Pods", "value": pods, "periodSeconds": cooldown.as_secs()}],
                "tolerance": format!("{tolerance}m"),
            })
        };
    let (up, down) = (&scaling.scale_up, &scaling.scale_down);
    json!({
        "scaleUp": rules(up.period, up.increment.get(), up.cooldown, thousandths(up.threshold.get() - target, target)),
        "scaleDown": rules(down.period, down.decrement.get(), down.cooldown, thousandths(target - down.threshold.get(), target)),
    })
}

/// Between which values of a metric the autoscaler leaves the number of instances as it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Band {
    /// What is measured, as an average over the instances.
    pub metric: String,
    /// What it is measured in.
    pub unit: String,
    /// What the autoscaler aims at.
    pub target: i32,
    /// Above it adds instances.
    pub above: i32,
    /// Below it removes some, if every other metric is below its own.
    pub below: i32,
}

/// The bands of a spec. A HorizontalPodAutoscaler has one tolerance for all metrics, which follows from the thresholds of CPU use; so it gives
/// the others bands of their own.
pub fn bands(scaling: &Scaling, requests_per_second: bool) -> Vec<Band> {
    let cpu = scaling.target_cpu.get();
    let up = thousandths(scaling.scale_up.threshold.get() - cpu, cpu);
    let down = thousandths(cpu - scaling.scale_down.threshold.get(), cpu);
    let part = |target: i32, thousandths: i32| {
        let value = i64::from(target) * i64::from(thousandths);
        i32::try_from((value + 500) / 1000).unwrap_or(i32::MAX)
    };
    let band = |metric: &str, unit: &str, target: i32| Band {
        metric: metric.to_owned(),
        unit: unit.to_owned(),
        target,
        above: part(target, 1000 + up),
        below: part(target, 1000 - down),
    };
    let mut bands = vec![band("CPU", " %", cpu), band("memory", " %", scaling.target_memory.get())];
    if requests_per_second {
        bands.push(band("requests", "/s", scaling.target_rps.get()));
    }
    bands
}

/// The quotient in thousandths, rounded up: the band includes its threshold.
const fn thousandths(dividend: i32, divisor: i32) -> i32 {
    (dividend * 1000 + divisor - 1) / divisor
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_documented_thresholds_are_the_documented_tolerances() {
        let behavior = behavior(&Scaling::default());
        assert_eq!(behavior["scaleUp"]["tolerance"], "143m");
        assert_eq!(behavior["scaleDown"]["tolerance"], "572m");
    }

    #[test]
    fn one_tolerance_gives_each_metric_its_band() {
        let bands = bands(&Scaling::default(), true);
        let numbers: Vec<_> = bands.iter().map(|band| (band.below, band.target, band.above)).collect();
        assert_eq!(numbers, [(30, 70, 80), (34, 80, 91), (428, 1000, 1143)]);
    }
}
