//! A test bed: an API server in memory, and an operator that works against it.
//!
//! The server does what the operator relies on: versions, generations and uids, selectors, pages, watches, preconditions,
//! finalizers, owners, and patches. It does not know schemas: it sets no defaults, and refuses nothing but a few changes of
//! what is immutable. Nothing runs on it: there are no pods but those that a test puts there. Tests that begin with their
//! clock paused wait for nothing: the clock jumps to whatever comes next.

mod fields;
mod garbage;
mod request;
mod server;
mod store;
mod tests;
mod write;

use std::{collections::BTreeSet, net::SocketAddr, sync::Arc};

use kube::Client;
use serde_json::{Value, json};
use taskplatform_blueprint::Images;
use tokio::{sync::watch, task::JoinHandle};

use crate::{
    config::Config,
    controller,
    metrics::{Metrics, Outcome, OutcomeLabel},
    world::{Watched, World},
};

pub(crate) use request::Verb;
pub(crate) use server::{Server, Trouble};

/// Where a test's platform is, and its name.
pub(crate) const NAMESPACE: &str = "shops";
pub(crate) const NAME: &str = "shop";

/// An API server with a client, and operators that are started on it.
pub(crate) struct Bed {
    pub(crate) server: Server,
    pub(crate) client: Client,
}

impl Bed {
    pub(crate) fn new() -> Self {
        let server = Server::default();
        Self { client: server.client(), server }
    }

    /// A bed with a platform that an operator has applied. The operator goes on.
    pub(crate) async fn with_platform(spec: Value) -> (Self, Operator) {
        let bed = Self::new();
        bed.put_platform(spec);
        let operator = bed.operator();
        bed.until_observed().await;
        (bed, operator)
    }

    /// Keeps this spec in the platform, as nobody checks it.
    pub(crate) fn put_platform(&self, spec: Value) -> Value {
        let mut platform = self.find("TaskPlatform", NAME).unwrap_or_else(|| {
            json!({
                "apiVersion": "taskplatform.dev/v1alpha1", "kind": "TaskPlatform",
                "metadata": {"name": NAME, "namespace": NAMESPACE},
            })
        });
        platform["spec"] = spec;
        self.server.put(platform)
    }

    /// Starts an operator that leads.
    pub(crate) fn operator(&self) -> Operator {
        let (stop, stopped) = watch::channel(false);
        let metrics = Arc::new(Metrics::default());
        let (client, in_operator) = (self.client.clone(), Arc::clone(&metrics));
        let unlisted = watch::Sender::default();
        let world = World::watch(&client, &unlisted);
        let listed = unlisted.subscribe();
        let task = tokio::spawn(async move {
            controller::run(client, &config("one"), in_operator, world, listed, stopped).await;
        });
        Operator { metrics, unlisted, stop, task }
    }

    /// An object in the platform's namespace.
    pub(crate) fn find(&self, kind: &str, name: &str) -> Option<Value> {
        self.server.get(kind, NAMESPACE, name)
    }

    /// An object that must be there.
    pub(crate) fn get(&self, kind: &str, name: &str) -> Value {
        self.find(kind, name).unwrap_or_else(|| panic!("there is no {kind} {name}\n{}", self.server))
    }

    pub(crate) fn edit(&self, kind: &str, name: &str, change: impl FnOnce(&mut Value)) {
        self.server.edit(kind, NAMESPACE, name, change);
    }

    pub(crate) fn delete(&self, kind: &str, name: &str) {
        self.server.delete(kind, NAMESPACE, name);
    }

    /// The platform's condition of this type, or null.
    pub(crate) fn condition(&self, type_: &str) -> Value {
        let platform = self.find("TaskPlatform", NAME).unwrap_or_default();
        let conditions = platform["status"]["conditions"].as_array();
        conditions.into_iter().flatten().find(|condition| condition["type"] == type_).cloned().unwrap_or_default()
    }

    pub(crate) async fn until(&self, what: &str, is_so: impl Fn() -> bool) {
        self.server.until(what, is_so).await;
    }

    /// Waits until the status speaks of the platform's spec as it is now.
    pub(crate) async fn until_observed(&self) {
        let is_observed = || {
            let platform = self.get("TaskPlatform", NAME);
            platform["status"]["observedGeneration"] == platform["metadata"]["generation"]
        };
        self.until("the status speaks of the last generation", is_observed).await;
    }
}

/// An operator's settings, with this replica's name.
pub(crate) fn config(identity: &str) -> Config {
    let nowhere = SocketAddr::from(([127, 0, 0, 1], 0));
    Config {
        identity: identity.to_owned(),
        namespace: "taskplatform-system".to_owned(),
        listen: nowhere,
        admission_listen: nowhere,
        upgrades_at_once: 5,
        images: Images::default(),
    }
}

/// An operator that runs until it is stopped, or until the test ends.
pub(crate) struct Operator {
    metrics: Arc<Metrics>,
    /// The kinds that it could not list yet.
    pub(crate) unlisted: watch::Sender<BTreeSet<Watched>>,
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Operator {
    /// How many reconciliations have ended so.
    pub(crate) fn reconciled(&self, outcome: Outcome) -> u64 {
        self.metrics.reconciliations.get_or_create(&OutcomeLabel { outcome }).get()
    }

    /// Asks the operator to stop, and waits for it.
    pub(crate) async fn stop(self) {
        let _ = self.stop.send(true);
        let ended = tokio::time::timeout(std::time::Duration::from_mins(1), self.task).await;
        ended.expect("the operator stops when it is asked to").expect("the operator does not panic");
    }
}
