//! Has pods without state stand apart again. After a node was lost or drained, all pods of a part may be on the other: Kubernetes leaves them
//! there, and the next loss takes all of them. While another node takes pods, one of them is deleted, and the scheduler places the next.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use k8s_openapi::api::core::v1::Pod as KubernetesPod;
use kube::{
    Api, Client,
    api::{DeleteParams, Preconditions},
};
use taskplatform_blueprint::{Component, Unit, units};
use tokio::time::Instant;
use tracing::{info, warn};

use super::{Brief, Keeper, Seen, pace::Mood};
use crate::{
    describe,
    rest::{Rest, Rests},
    world::any_takes_pods,
};

/// They stand together for so long before one moves: whatever has brought them there may go on.
const SETTLED: Duration = Duration::from_secs(30);
/// A part of which a pod was moved in vain is left alone for so long, and each time for twice as long as before, up to the second.
const AGAIN: Rests = [Duration::from_mins(10), Duration::from_hours(24)];

/// What is remembered of the parts of one platform.
pub(super) struct Spread {
    client: Client,
    /// Since when the pods of a part stand together.
    together: BTreeMap<Component, Instant>,
    /// Since a pod of the part was moved.
    rests: BTreeMap<Component, Rest>,
}

/// A pod, and where it is.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Standing<'a> {
    component: Component,
    pod: &'a str,
    uid: &'a str,
    node: Option<&'a str>,
    /// It is ready, and does not end.
    stays: bool,
    has_state: bool,
}

/// A part whose pods stand together: one of them, and the nodes that it could go to.
#[derive(Debug, PartialEq, Eq)]
struct Crowd<'a> {
    one: Standing<'a>,
    elsewhere: BTreeSet<&'a str>,
}

impl Spread {
    pub(super) const fn new(client: Client) -> Self {
        Self { client, together: BTreeMap::new(), rests: BTreeMap::new() }
    }

    /// Those that have stood together for long enough, and of which none was moved lately.
    fn due<'a>(&mut self, crowds: Vec<Crowd<'a>>) -> Vec<Crowd<'a>> {
        self.together.retain(|component, _| crowds.iter().any(|crowd| crowd.one.component == *component));
        let is_due = |crowd: &Crowd<'_>| {
            let since = *self.together.entry(crowd.one.component).or_insert_with(Instant::now);
            since.elapsed() >= SETTLED
        };
        let crowds: Vec<_> = crowds.into_iter().filter(is_due).collect();
        crowds.into_iter().filter(|crowd| !self.rests(crowd.one.component)).collect()
    }

    fn rests(&self, component: Component) -> bool {
        self.rests.get(&component).is_some_and(|rest| !rest.is_over())
    }

    async fn move_away(&mut self, namespace: &str, one: &Standing<'_>) -> Result<(), kube::Error> {
        let api: Api<KubernetesPod> = Api::namespaced(self.client.clone(), namespace);
        let preconditions = Preconditions { uid: Some(one.uid.to_owned()), resource_version: None };
        let parameters = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() };
        let rest = Rest::after(self.rests.get(&one.component).copied(), AGAIN);
        self.rests.insert(one.component, rest);
        info!(pod = one.pod, namespace, node = one.node, "all pods of the part are on one node: this one is replaced");
        api.delete(one.pod, &parameters).await.map(drop)
    }
}

impl Keeper for Spread {
    type Sight = ();

    async fn look(&mut self, brief: &Brief) -> Seen<()> {
        if !brief.may_act || !brief.is_applied {
            return None;
        }
        let standing = standing(brief);
        let crowds = crowds(&standing);
        if standing.iter().all(|pod| pod.stays) {
            // What was moved stands apart now.
            self.rests.retain(|component, _| crowds.iter().any(|crowd| crowd.one.component == *component));
        }
        let is_waited_for = crowds.iter().any(|crowd| !self.rests(crowd.one.component));
        for Crowd { one, elsewhere } in self.due(crowds) {
            let moved = async {
                if any_takes_pods(&self.client, elsewhere.iter().copied()).await? {
                    return self.move_away(brief.platform.namespace(), &one).await;
                }
                self.together.insert(one.component, Instant::now());
                Ok(())
            };
            if let Err(error) = moved.await {
                let (platform, error) = (brief.platform.name(), describe(&error));
                warn!(platform, pod = one.pod, error, "it stays beside the others of its part");
                return Some(Err(error));
            }
        }
        is_waited_for.then_some(Ok(()))
    }

    fn mood((): &()) -> Mood {
        Mood::Working
    }
}

/// All pods of the platform's units.
fn standing(brief: &Brief) -> Vec<Standing<'_>> {
    let units = units(&brief.platform, brief.platform.api_instances(None));
    let pods_of = |unit: &Unit| {
        let (component, has_state) = (unit.component, unit.is_stateful());
        brief.snapshot.pods(component).map(move |pod| Standing {
            component,
            pod: &pod.name,
            uid: &pod.uid,
            node: pod.node().filter(|_| brief.snapshot.loss(pod).is_none()),
            stays: pod.is_ready() && !pod.is_ending(),
            has_state,
        })
    };
    units.iter().flat_map(pods_of).collect()
}

/// The parts without state whose pods stand together, while nothing of the platform is away.
fn crowds<'a>(standing: &[Standing<'a>]) -> Vec<Crowd<'a>> {
    if !standing.iter().all(|pod| pod.stays && pod.node.is_some()) {
        return Vec::new();
    }
    let nodes: BTreeSet<&str> = standing.iter().filter_map(|pod| pod.node).collect();
    let mut parts: BTreeMap<Component, Vec<&Standing<'a>>> = BTreeMap::new();
    for pod in standing.iter().filter(|pod| !pod.has_state) {
        parts.entry(pod.component).or_default().push(pod);
    }
    let together = parts.into_values().filter_map(|pods| {
        let one = *pods.first()?;
        let are_together = pods.len() > 1 && pods.iter().all(|pod| pod.node == one.node);
        let elsewhere: BTreeSet<&str> = nodes.iter().copied().filter(|node| Some(*node) != one.node).collect();
        (are_together && !elsewhere.is_empty()).then(|| Crowd { one: one.clone(), elsewhere })
    });
    together.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Bed;

    fn standing<'a>(component: Component, pod: &'a str, node: &'a str) -> Standing<'a> {
        let has_state = component == Component::DATABASE;
        Standing { component, pod, uid: pod, node: Some(node), stays: true, has_state }
    }

    #[test]
    fn pods_that_stand_together_are_found_while_all_is_well() {
        let together = [
            standing(Component::API, "api-1", "a"),
            standing(Component::API, "api-2", "a"),
            standing(Component::GATEWAY, "gateway-1", "a"),
            standing(Component::GATEWAY, "gateway-2", "b"),
            standing(Component::WORKER, "worker-1", "a"),
            standing(Component::DATABASE, "database-0", "a"),
            standing(Component::DATABASE, "database-1", "a"),
        ];
        let found = crowds(&together);
        assert_eq!(found, [Crowd { one: together[0].clone(), elsewhere: BTreeSet::from(["b"]) }]);
        let mut one_is_away = together.clone();
        one_is_away[4].stays = false;
        assert_eq!(crowds(&one_is_away), []);
        assert_eq!(crowds(&together[..2]), [], "there is no other node");
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_was_moved_in_vain_is_left_alone() {
        let mut spread = Spread::new(Bed::new().client);
        let one = standing(Component::API, "api-1", "a");
        let due =
            |spread: &mut Spread| spread.due(vec![Crowd { one: one.clone(), elsewhere: BTreeSet::from(["b"]) }]).len();
        assert_eq!(due(&mut spread), 0, "it has just come to it");
        tokio::time::advance(SETTLED).await;
        assert_eq!(due(&mut spread), 1);
        spread.rests.insert(Component::API, Rest::after(None, AGAIN));
        tokio::time::advance(SETTLED).await;
        assert_eq!(due(&mut spread), 0);
        tokio::time::advance(AGAIN[0]).await;
        assert_eq!(due(&mut spread), 1);
    }
}
