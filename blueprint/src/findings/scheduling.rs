//! Whether the pods find room on nodes of a given size.

use std::str::FromStr;

use taskplatform_crds::{Cpu, Resources, Size};

use super::{Code, Finding};
use crate::{Draft, Unit, units};

/// Nodes that a platform is to run on: so many of a size, or several sizes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Nodes(Vec<Node>);

/// What a node has for pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Node {
    /// CPU that they may ask for.
    pub cpu: Cpu,
    /// Memory that they may ask for.
    pub memory: Size,
    /// How many there may be, whatever they ask for.
    pub pods: u64,
}

/// The text does not say what nodes there are.
#[derive(Debug, thiserror::Error)]
#[error("{0:?} does not describe nodes: write how many, and what each has for pods, such as 3x4cpu,16Gi")]
pub struct InvalidNodes(String);

impl Nodes {
    /// The nodes of a cluster: what each has for pods. None, if there are none.
    pub fn new(nodes: Vec<Node>) -> Option<Self> {
        (!nodes.is_empty()).then_some(Self(nodes))
    }

    /// How many there are.
    pub fn count(&self) -> i32 {
        i32::try_from(self.0.len()).unwrap_or(i32::MAX)
    }
}

impl FromStr for Nodes {
    type Err = InvalidNodes;

    /// Reads `3x4cpu,16Gi`.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parse = || {
            let (count, size) = text.split_once('x')?;
            let (cpu, memory) = size.split_once(',')?;
            let count = count.trim().parse().ok().filter(|count| (1..=5000).contains(count))?;
            let node = Node {
                cpu: cpu.trim().strip_suffix("cpu")?.parse().ok()?,
                memory: memory.trim().parse().ok()?,
                pods: u64::MAX,
            };
            Some(Self(vec![node; count]))
        };
        parse().ok_or_else(|| InvalidNodes(text.to_owned()))
    }
}

pub(super) fn warnings(platform: &Draft, nodes: &Nodes) -> Vec<Finding> {
    let scaling = &platform.spec().scaling;
    let at = |instances| units(platform, instances);
    let least = at(scaling.min_instances.get());
    let mut findings: Vec<Finding> = least.iter().filter_map(|unit| too_large(unit, nodes)).collect();
    // Pods that fit on no node are told of already.
    if findings.is_empty() {
        let bounds = [("min", scaling.min_instances.get()), ("max", scaling.max_instances.get())];
        findings
            .extend(bounds.into_iter().find_map(|(bound, instances)| too_few(bound, instances, &at(instances), nodes)));
    }
    findings.extend((nodes.count() == 1).then(alone));
    findings
}

/// Nothing is left when the only node is lost.
fn alone() -> Finding {
    Finding::new(
        Code::NodeLoss,
        "",
        "there is one node: with it everything is lost until it is back, replicas included".to_owned(),
        "use at least 2 nodes, and 3 for a majority of masters to be left",
    )
}

fn too_large(unit: &Unit, nodes: &Nodes) -> Option<Finding> {
    let (component, Resources { cpu, memory }) = (unit.component, unit.resources);
    let fits = nodes.0.iter().any(|node| cpu <= node.cpu && memory <= node.memory);
    (!fits).then(|| {
        Finding::new(
            Code::PodTooLarge,
            &format!("spec.{component}.resources"),
            format!("no node has the {cpu} CPU and {memory} memory that each pod asks for"),
            "use larger nodes, or ask for less",
        )
    })
}

fn too_few(bound: &str, instances: i32, units: &[Unit], nodes: &Nodes) -> Option<Finding> {
    let homeless = homeless(units, nodes);
    if homeless == 0 {
        return None;
    }
    let pods: i32 = units.iter().map(|unit| unit.pods).sum();
    let cpu = of_all(units, |unit| unit.resources.cpu.as_millicores());
    let memory = of_all(units, |unit| unit.resources.memory.as_mebibytes());
    Some(Finding::new(
        Code::TooFewNodes,
        &format!("spec.scaling.{bound}Instances"),
        format!(
            "with {instances} instances of the API, {homeless} of the {pods} pods find no room on {} nodes: together they ask for {} CPU and {memory} MiB",
            nodes.count(),
            Cpu::millicores(cpu)
        ),
        "use more or larger nodes, ask for less, or lower it",
    ))
}

fn of_all(units: &[Unit], of_each: fn(&Unit) -> u64) -> u64 {
    units.iter().map(|unit| of_each(unit) * u64::from(unit.pods.unsigned_abs())).sum()
}

/// How many pods find no room when the largest are placed first, each where the most memory is left.
fn homeless(units: &[Unit], nodes: &Nodes) -> usize {
    let mut rooms: Vec<Room> = nodes.0.iter().map(Room::of).collect();
    let mut pods: Vec<(u64, u64)> = units
        .iter()
        .flat_map(|unit| {
            let pods = usize::try_from(unit.pods).unwrap_or_default();
            std::iter::repeat_n((unit.resources.memory.as_bytes(), unit.resources.cpu.as_millicores()), pods)
        })
        .collect();
    pods.sort_unstable_by(|one, other| other.cmp(one));
    pods.into_iter().filter(|(memory, cpu)| !place(*memory, *cpu, &mut rooms)).count()
}

/// What is left of a node.
struct Room {
    memory: u64,
    cpu: u64,
    pods: u64,
}

impl Room {
    const fn of(node: &Node) -> Self {
        Self { memory: node.memory.as_bytes(), cpu: node.cpu.as_millicores(), pods: node.pods }
    }
}

/// Whether there is room for a pod, which it then takes.
fn place(memory: u64, cpu: u64, rooms: &mut [Room]) -> bool {
    let fitting = rooms.iter_mut().filter(|room| room.memory >= memory && room.cpu >= cpu && room.pods > 0);
    let Some(room) = fitting.max_by_key(|room| room.memory) else { return false };
    *room = Room { memory: room.memory - memory, cpu: room.cpu - cpu, pods: room.pods - 1 };
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Component, unit::Workload};

    #[test]
    fn a_pod_needs_memory_cpu_and_a_place() {
        let node = |millicores, mebibytes, pods| Node {
            cpu: Cpu::millicores(millicores),
            memory: Size::mebibytes(mebibytes),
            pods,
        };
        let unit = Unit {
            component: Component::API,
            name: "tasks-api".to_owned(),
            workload: Workload::Deployment,
            pods: 4,
            resources: Resources { cpu: Cpu::millicores(100), memory: Size::mebibytes(100) },
            storage: None,
        };
        for (nodes, expected) in [
            (vec![node(400, 400, 4)], 0),
            (vec![node(399, 400, 4)], 1),
            (vec![node(400, 399, 4)], 1),
            (vec![node(400, 400, 3)], 1),
            (vec![node(200, 900, 9), node(900, 200, 9)], 0),
            (vec![node(0, 0, 0)], 4),
        ] {
            let nodes = Nodes::new(nodes).unwrap();
            assert_eq!(homeless(std::slice::from_ref(&unit), &nodes), expected, "{nodes:?}");
        }
        assert_eq!(Nodes::new(Vec::new()), None);
    }
}
