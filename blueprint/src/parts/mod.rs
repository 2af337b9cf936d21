//! What a platform is made of. All that is said of a part is said in its file; who wants to know it asks [`PARTS`].

mod api;
mod database;
mod gateway;
mod pooler;
mod redis;
mod worker;

pub use api::{Band, bands};
pub use database::{MOST_LAG_TO_LEAD, dynamic_configuration};
pub use redis::{REDIS_NODE_TIMEOUT_MILLISECONDS, RedisCluster};

/// PostgreSQL's settings.
pub(crate) mod postgresql {
    pub(crate) use super::database::{parameters, settings::*};
}

use taskplatform_crds::{Cpu, Resources, Size};

use crate::{
    Component, Credentials, Draft, Effect, Facts, Finding, Level, Object, Platform, Unit, endpoints::Endpoint,
    findings::Nodes, images::Image, network, pod,
};

/// The parts, what others depend on first.
pub static PARTS: [&dyn Part; 7] = [
    &database::Database,
    &pooler::Pooler,
    &RedisCluster::Cache,
    &RedisCluster::Sessions,
    &api::Api,
    &worker::Worker,
    &gateway::Gateway,
];

/// A part of a platform.
pub trait Part: Sync {
    /// Its name.
    fn component(&self) -> Component;

    /// What it consists of, with so many instances of the API.
    fn units(&self, platform: &Draft, instances: i32) -> Vec<Unit>;

    /// Its objects, but for those that every part has.
    fn objects(&self, platform: &Platform, facts: &Facts) -> Vec<Object>;

    /// Where it answers.
    fn endpoints(&self) -> &'static [Endpoint];

    /// What it calls of other parts, and of its own pods.
    fn calls(&self) -> &'static [Endpoint] {
        &[]
    }

    /// The image of its pods.
    fn image(&self) -> Image;

    /// The keys of the passwords that it was made with.
    fn passwords(&self) -> &'static [&'static str] {
        &[]
    }

    /// What its pods read as files, and follows from passwords.
    fn credential_files(&self) -> &'static [CredentialFile] {
        &[]
    }

    /// What keeps a platform from being built.
    fn errors(&self, _: &Draft) -> Vec<Finding> {
        Vec::new()
    }

    /// What will disappoint under load, or when a pod is lost.
    fn warnings(&self, _: &Draft) -> Vec<Finding> {
        Vec::new()
    }

    /// What will disappoint on these nodes, but for the room that they have.
    fn warnings_on(&self, _: &Draft, _: &Nodes) -> Vec<Finding> {
        Vec::new()
    }

    /// What it does to users that all its pods are replaced: so many, as `3 pods`.
    fn replacement(&self, pods: &str) -> Effect {
        Effect::quiet(format!("replaces {pods}; none goes before another one is ready"))
    }

    /// What it does to users that pods go for good.
    fn removal(&self, pods: &str) -> Effect {
        Effect::quiet(format!("removes {pods} after their last requests"))
    }

    /// Whether it survives that its nodes are taken away at any time, so that cheap ones will do.
    fn may_run_on_spot(&self) -> bool {
        false
    }

    /// What a part of a load level gives each of its pods.
    fn proposal(&self, level: &Level, share: Share) -> Proposal;
}

/// A file of the platform's credentials.
#[derive(Clone, Copy, Debug)]
pub struct CredentialFile {
    /// Its key in the Secret.
    pub key: &'static str,
    /// What is in it.
    pub text: fn(&Credentials) -> String,
}

/// The part of what the plan's machines have that there is room for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    /// In thousandths.
    pub thousandths: u64,
}

impl Share {
    /// Whether there is room for everything.
    pub const fn is_whole(self) -> bool {
        self.thousandths == 1000
    }

    /// What the plan's machine has, as far as there is room, but no less than what the part needs to run.
    pub(crate) fn cpu(self, plan: Cpu, least: u64) -> Cpu {
        Cpu::millicores((plan.as_millicores() * self.thousandths / 1000).max(least))
    }

    /// The same of memory, in MiB.
    pub(crate) fn memory(self, plan: Size, least: u64) -> Size {
        Size::mebibytes((plan.as_mebibytes() * self.thousandths / 1000).max(least))
    }

    /// What is proposed for a part of which the plan does not speak.
    pub(crate) fn small(self) -> Proposal {
        let (cpu, memory) = (self.cpu(Cpu::millicores(1000), 25), self.memory(Size::mebibytes(256), 64));
        Proposal { resources: Resources { cpu, memory }, storage: None }
    }
}

/// What is proposed for each pod of a part.
#[derive(Clone, Debug, PartialEq)]
pub struct Proposal {
    /// CPU and memory.
    pub resources: Resources,
    /// The size of its volume.
    pub storage: Option<Size>,
}

/// The part of a name.
pub(crate) fn part(component: &str) -> Option<&'static dyn Part> {
    PARTS.into_iter().find(|part| part.component().name() == component)
}

/// A part's objects, those that every part has first.
pub(crate) fn objects(part: &dyn Part, platform: &Platform, facts: &Facts) -> Vec<Object> {
    let mut objects = vec![network::policy(platform, facts, part), pod::disruption_budget(platform, part.component())];
    objects.extend(part.objects(platform, facts));
    objects
}
