//! What laps share: the parts of the operator that they use, and what one lap of a platform leaves to the next.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};

use kube::Client;
use taskplatform_blueprint::{Credentials, Facts, Platform};
use tokio::time::Instant;

use crate::{
    apply::Applier,
    config::Config,
    keepers::Keepers,
    metrics::Metrics,
    status::Reporter,
    upgrade::Upgrades,
    world::{Changes, Offers, Snapshot, World, lock},
};

/// What every lap uses.
pub(crate) struct Context {
    pub(crate) client: Client,
    pub(crate) world: Arc<World>,
    pub(crate) applier: Applier,
    pub(crate) keepers: Keepers,
    pub(crate) reporter: Reporter,
    pub(crate) facts: Facts,
    pub(crate) offers: Offers,
    pub(crate) upgrades: Upgrades,
    pub(crate) metrics: Arc<Metrics>,
    /// What is remembered of a platform, by its uid.
    pub(crate) memories: Mutex<HashMap<String, Memory>>,
}

/// What a platform's next lap has to know of the ones before.
#[derive(Clone, Default)]
pub(crate) struct Memory {
    pub(crate) failures: u32,
    /// The credentials, and when they were read.
    pub(crate) credentials: Option<(Arc<Credentials>, Instant)>,
    /// What everything was as it should be for.
    pub(crate) settled: Option<Settled>,
    /// The generation of the spec that was found to keep the rules.
    pub(crate) checked: Option<i64>,
}

/// What a blueprint follows from, and what there was: where nothing of it has changed, nothing has to be built.
#[derive(Clone)]
pub(crate) struct Settled {
    pub(crate) generation: i64,
    pub(crate) facts: Facts,
    pub(crate) snapshot: Snapshot,
}

impl Settled {
    pub(crate) fn is(&self, platform: &Platform, facts: &Facts, snapshot: &Snapshot) -> bool {
        self.generation == platform.generation() && self.snapshot.is(snapshot) && self.facts == *facts
    }
}

impl Context {
    pub(crate) fn new(
        client: &Client,
        config: &Config,
        world: &Arc<World>,
        changes: Changes,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self {
            world: Arc::clone(world),
            applier: Applier::new(client.clone(), Arc::clone(world), Arc::clone(&metrics)),
            keepers: Keepers::new(client.clone(), changes),
            reporter: Reporter::new(client.clone(), &config.identity, Arc::clone(&metrics)),
            facts: Facts {
                images: config.images.clone(),
                operator_namespace: config.namespace.clone(),
                ..Facts::default()
            },
            offers: Offers::default(),
            upgrades: Upgrades::new(config.upgrades_at_once),
            metrics,
            memories: Mutex::default(),
            client: client.clone(),
        }
    }
}

impl Context {
    /// What is remembered of a platform.
    pub(crate) fn memory(&self, uid: &str) -> Memory {
        lock(&self.memories).get(uid).cloned().unwrap_or_default()
    }

    /// Changes what is remembered of a platform.
    pub(crate) fn remember<T>(&self, uid: &str, change: impl FnOnce(&mut Memory) -> T) -> T {
        change(lock(&self.memories).entry(uid.to_owned()).or_default())
    }
}
