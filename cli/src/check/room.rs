//! What nodes have left for pods.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::core::v1::{Container, Node, NodeStatus, Pod, PodSpec},
    apimachinery::pkg::api::resource::Quantity,
};
use taskplatform_blueprint as blueprint;
use taskplatform_crds::{Cpu, Size};

/// CPU in thousandths of a core, and bytes of memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Amount {
    cpu: u64,
    memory: u64,
}

impl Amount {
    fn of(quantities: Option<&BTreeMap<String, Quantity>>) -> Self {
        let read = |name: &str| quantities.and_then(|all| all.get(name)).and_then(|quantity| thousandths(&quantity.0));
        Self { cpu: read("cpu").unwrap_or_default(), memory: read("memory").unwrap_or_default().div_ceil(1000) }
    }

    const fn plus(self, other: Self) -> Self {
        Self { cpu: self.cpu.saturating_add(other.cpu), memory: self.memory.saturating_add(other.memory) }
    }

    const fn minus(self, other: Self) -> Self {
        Self { cpu: self.cpu.saturating_sub(other.cpu), memory: self.memory.saturating_sub(other.memory) }
    }

    fn max(self, other: Self) -> Self {
        Self { cpu: self.cpu.max(other.cpu), memory: self.memory.max(other.memory) }
    }
}

/// A quantity of Kubernetes in thousandths, rounded up: `250m`, `0.5`, `24684084Ki`, `1e3`.
pub(super) fn thousandths(text: &str) -> Option<u64> {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let digits: u128 = format!("{whole}{fraction}").parse().ok()?;
    let scale = 10_u128.checked_pow(u32::try_from(fraction.len()).ok()?)?;
    let (factor, divisor) = factor(unit)?;
    let value = digits.checked_mul(factor)?.checked_mul(1000)?.div_ceil(scale.checked_mul(divisor)?);
    u64::try_from(value).ok()
}

fn factor(unit: &str) -> Option<(u128, u128)> {
    if let Some(exponent) = unit.strip_prefix(['e', 'E']).filter(|exponent| !exponent.is_empty()) {
        let exponent: i32 = exponent.parse().ok()?;
        let power = 10_u128.checked_pow(exponent.unsigned_abs())?;
        return Some(if exponent < 0 { (1, power) } else { (power, 1) });
    }
    Some(match unit {
        "n" => (1, 1_000_000_000),
        "u" => (1, 1_000_000),
        "m" => (1, 1000),
        "" => (1, 1),
        "k" => (1000, 1),
        "M" => (1_000_000, 1),
        "G" => (1_000_000_000, 1),
        "T" => (1_000_000_000_000, 1),
        "P" => (1_000_000_000_000_000, 1),
        "E" => (1_000_000_000_000_000_000, 1),
        "Ki" => (1 << 10, 1),
        "Mi" => (1 << 20, 1),
        "Gi" => (1 << 30, 1),
        "Ti" => (1 << 40, 1),
        "Pi" => (1 << 50, 1),
        "Ei" => (1 << 60, 1),
        _ => return None,
    })
}

fn requests(container: &Container) -> Amount {
    Amount::of(container.resources.as_ref().and_then(|resources| resources.requests.as_ref()))
}

/// What the scheduler reckons a pod to take: its containers and sidecars together, or more while one of the containers that
/// prepare it runs; what is asked for the pod as a whole goes before both.
fn taken(spec: &PodSpec) -> Amount {
    let containers = spec.containers.iter().map(requests).fold(Amount::default(), Amount::plus);
    let (mut sidecars, mut preparing) = (Amount::default(), Amount::default());
    for container in spec.init_containers.iter().flatten() {
        if container.restart_policy.as_deref() == Some("Always") {
            sidecars = sidecars.plus(requests(container));
            preparing = preparing.max(sidecars);
        } else {
            preparing = preparing.max(sidecars.plus(requests(container)));
        }
    }
    let mut amount = containers.plus(sidecars).max(preparing);
    let whole = spec.resources.as_ref().and_then(|resources| resources.requests.as_ref());
    if let Some(whole) = whole {
        let asked = Amount::of(Some(whole));
        amount.cpu = if whole.contains_key("cpu") { asked.cpu } else { amount.cpu };
        amount.memory = if whole.contains_key("memory") { asked.memory } else { amount.memory };
    }
    amount.plus(Amount::of(spec.overhead.as_ref()))
}

/// Why a node takes no pods of a platform, if it does not: they tolerate no taint.
pub(super) fn closed(node: &Node) -> Option<String> {
    let conditions = node.status.iter().flat_map(|status| status.conditions.iter().flatten());
    if !conditions.into_iter().any(|condition| condition.type_ == "Ready" && condition.status == "True") {
        return Some("not Ready".to_owned());
    }
    let spec = node.spec.as_ref()?;
    if spec.unschedulable == Some(true) {
        return Some("cordoned".to_owned());
    }
    let mut taints = spec.taints.iter().flatten();
    let taint = taints.find(|taint| matches!(taint.effect.as_str(), "NoSchedule" | "NoExecute"))?;
    Some(format!("taint {}:{}", taint.key, taint.effect))
}

/// What a node has left beside the pods that are on it.
pub(super) fn left<'a>(node: &Node, pods: impl IntoIterator<Item = &'a Pod>) -> blueprint::Node {
    let allocatable = node.status.as_ref().and_then(|status: &NodeStatus| status.allocatable.as_ref());
    let places = allocatable.and_then(|all| all.get("pods")).and_then(|pods| thousandths(&pods.0));
    let specs: Vec<&PodSpec> = pods.into_iter().filter_map(|pod| pod.spec.as_ref()).collect();
    let used = specs.iter().map(|spec| taken(spec)).fold(Amount::default(), Amount::plus);
    let left = Amount::of(allocatable).minus(used);
    let count = u64::try_from(specs.len()).unwrap_or(u64::MAX);
    blueprint::Node {
        cpu: Cpu::millicores(left.cpu),
        memory: Size::mebibytes(left.memory >> 20),
        pods: places.map_or(u64::MAX, |places| (places / 1000).saturating_sub(count)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    #[test]
    fn quantities_are_read_as_kubernetes_writes_them() {
        for (text, expected) in [
            ("2", Some(2000)),
            ("250m", Some(250)),
            ("0.5", Some(500)),
            ("1.0001", Some(1001)),
            ("100u", Some(1)),
            ("1e3", Some(1_000_000)),
            ("5E-1", Some(500)),
            ("1Ki", Some(1_024_000)),
            ("1.5k", Some(1_500_000)),
            ("24684084Ki", Some(24_684_084 * 1_024_000)),
            ("128974848000m", Some(128_974_848_000)),
            ("", None),
            ("-1", None),
            ("1x", None),
            ("1.2.3", None),
        ] {
            assert_eq!(thousandths(text), expected, "{text}");
        }
    }

    fn pod(spec: &Value) -> Pod {
        serde_json::from_value(json!({"metadata": {}, "spec": spec})).unwrap()
    }

    fn asking(cpu: &str, memory: &str) -> Value {
        json!({"name": "a", "resources": {"requests": {"cpu": cpu, "memory": memory}}})
    }

    fn amount(spec: &Value) -> (u64, u64) {
        let amount = taken(&pod(spec).spec.unwrap());
        (amount.cpu, amount.memory >> 20)
    }

    #[test]
    fn a_pod_takes_what_the_scheduler_reckons() {
        let mut sidecar = asking("50m", "10Mi");
        sidecar["restartPolicy"] = "Always".into();
        let two = json!([asking("100m", "64Mi"), asking("200m", "64Mi")]);
        assert_eq!(amount(&json!({"containers": two})), (300, 128));
        assert_eq!(amount(&json!({"containers": two, "initContainers": [asking("1", "32Mi")]})), (1000, 128));
        assert_eq!(amount(&json!({"containers": two, "initContainers": [sidecar, asking("1", "32Mi")]})), (1050, 138));
        assert_eq!(amount(&json!({"containers": two, "overhead": {"cpu": "10m", "memory": "1Mi"}})), (310, 129));
        assert_eq!(amount(&json!({"containers": two, "resources": {"requests": {"cpu": "2"}}})), (2000, 128));
        assert_eq!(amount(&json!({"containers": [{"name": "a"}]})), (0, 0));
    }

    fn node(spec: &Value, ready: &str) -> Node {
        serde_json::from_value(json!({"metadata": {"name": "a"}, "spec": spec, "status": {
            "conditions": [{"type": "Ready", "status": ready}],
            "allocatable": {"cpu": "2", "memory": "4Gi", "pods": "3"},
        }}))
        .unwrap()
    }

    #[test]
    fn a_node_has_left_what_its_pods_do_not_take() {
        let pods =
            [pod(&json!({"containers": [asking("500m", "1Gi")]})), pod(&json!({"containers": [asking("0", "0")]}))];
        let expected = blueprint::Node { cpu: Cpu::millicores(1500), memory: Size::gibibytes(3), pods: 1 };
        assert_eq!(left(&node(&json!({}), "True"), &pods), expected);
        let full = [pod(&json!({"containers": [asking("9", "9Gi")]}))];
        let expected = blueprint::Node { cpu: Cpu::millicores(0), memory: Size::mebibytes(0), pods: 2 };
        assert_eq!(left(&node(&json!({}), "True"), &full), expected);
    }

    #[test]
    fn only_open_nodes_take_pods() {
        assert_eq!(closed(&node(&json!({}), "True")), None);
        assert_eq!(closed(&node(&json!({"taints": [{"key": "a", "effect": "PreferNoSchedule"}]}), "True")), None);
        assert_eq!(closed(&node(&json!({}), "Unknown")).as_deref(), Some("not Ready"));
        assert_eq!(closed(&node(&json!({"unschedulable": true}), "True")).as_deref(), Some("cordoned"));
        let tainted = node(&json!({"taints": [{"key": "a", "effect": "NoSchedule"}]}), "True");
        assert_eq!(closed(&tainted).as_deref(), Some("taint a:NoSchedule"));
    }
}
