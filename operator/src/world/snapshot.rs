//! A platform's objects at one instant.

use std::{collections::BTreeMap, sync::Arc};

use taskplatform_blueprint::{Component, Kind};

use super::{Child, Loss, LostNodes, Watched};

/// The objects of one platform, by kind and name.
pub(super) type Objects = BTreeMap<(Watched, Box<str>), Arc<Child>>;

/// What the API server knew of a platform at one instant. A lap takes it once, at its start; applying answers with what it is then.
#[derive(Clone, Debug, Default)]
pub(crate) struct Snapshot {
    pub(super) objects: Arc<Objects>,
    pub(super) lost_nodes: Arc<LostNodes>,
}

impl Snapshot {
    /// An object of the platform.
    pub(crate) fn get(&self, kind: Kind, name: &str) -> Option<&Arc<Child>> {
        self.objects.get(&(Watched::Object(kind), name.into()))
    }

    /// Everything of the platform, each with its kind.
    pub(crate) fn all(&self) -> impl Iterator<Item = (Watched, &Arc<Child>)> {
        self.objects.iter().map(|((watched, _), child)| (*watched, child))
    }

    /// The claims of the platform's volumes.
    pub(crate) fn claims(&self) -> impl Iterator<Item = &Arc<Child>> {
        self.all().filter(|(watched, _)| *watched == Watched::Claim).map(|(_, claim)| claim)
    }

    /// The pods of a component.
    pub(crate) fn pods(&self, component: Component) -> impl Iterator<Item = &Arc<Child>> {
        let pods = self.all().filter(|(watched, _)| *watched == Watched::Pod).map(|(_, pod)| pod);
        pods.filter(move |pod| pod.component == Some(component))
    }

    /// The nodes on which nothing answers (see `silence.rs`).
    pub(crate) fn lost_nodes(&self) -> &LostNodes {
        &self.lost_nodes
    }

    /// How far a pod's node is lost, if it is.
    pub(crate) fn loss(&self, pod: &Child) -> Option<Loss> {
        self.lost_nodes.get(pod.node()?).copied()
    }

    /// What the API server answered last to a StatefulSet that wanted to make a pod.
    pub(crate) fn refusal(&self, set: &str) -> Option<String> {
        Some(self.objects.get(&(Watched::Refusal, set.into()))?.data()["message"].as_str()?.to_owned())
    }

    /// Whether anything of a component is left but its volumes.
    pub(crate) fn has_any(&self, component: Component) -> bool {
        self.all().any(|(watched, child)| watched != Watched::Claim && child.component == Some(component))
    }

    /// Whether it is the very same, which nothing has changed since.
    pub(crate) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.objects, &other.objects)
    }

    /// The same with an object as the API server answered.
    pub(crate) fn put(&mut self, watched: Watched, child: Arc<Child>) {
        Arc::make_mut(&mut self.objects).insert((watched, child.name.clone()), child);
    }
}
