//! The operator's own upgrade: a few platforms at a time follow it, and none goes back by an older operator.

use std::{collections::HashMap, sync::Mutex, time::Duration};

use taskplatform_blueprint::Platform;
use tokio::time::Instant;

use crate::{
    status::{Hold, RELEASE},
    world::lock,
};

/// One that has not settled within this time makes room for the next: it may be in trouble of its own.
const LONGEST: Duration = Duration::from_mins(10);

/// The platforms that follow an upgrade now.
pub(crate) struct Upgrades {
    at_once: usize,
    following: Mutex<HashMap<String, Instant>>,
}

impl Upgrades {
    pub(crate) fn new(at_once: usize) -> Self {
        Self { at_once, following: Mutex::default() }
    }

    /// Why a platform is not to be applied by this release yet.
    pub(crate) fn hold(&self, platform: &Platform) -> Option<Hold> {
        let applied_by = platform.status()?.release.as_deref()?;
        let (applied, own) = (version(applied_by)?, version(RELEASE)?);
        if applied > own {
            return Some(Hold::OlderOperator(applied_by.to_owned()));
        }
        (applied < own && !self.admit(platform.uid())).then_some(Hold::UpgradeWaits)
    }

    /// Makes room for the next.
    pub(crate) fn settled(&self, uid: &str) {
        lock(&self.following).remove(uid);
    }

    fn admit(&self, uid: &str) -> bool {
        let mut following = lock(&self.following);
        following.retain(|_, since| since.elapsed() < LONGEST);
        let admitted = following.contains_key(uid) || following.len() < self.at_once;
        if admitted {
            following.entry(uid.to_owned()).or_insert_with(Instant::now);
        }
        admitted
    }
}

fn version(release: &str) -> Option<[u64; 3]> {
    let numbers: Vec<u64> = release.split('.').map(str::parse).collect::<Result<_, _>>().ok()?;
    numbers.try_into().ok()
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use taskplatform_crds::TaskPlatform;

    use super::*;

    fn platform(uid: &str, release: Option<&str>) -> Platform {
        let document = json!({
            "metadata": {"name": "a", "uid": uid}, "spec": {}, "status": {"release": release, "conditions": []},
        });
        Platform::new(&serde_json::from_value::<TaskPlatform>(document).unwrap()).unwrap()
    }

    #[test]
    fn a_few_at_a_time_follow() {
        let upgrades = Upgrades::new(2);
        let hold = |uid| upgrades.hold(&platform(uid, Some("0.0.9")));
        assert_eq!([hold("a"), hold("b"), hold("a")], [None, None, None]);
        assert_eq!(hold("c"), Some(Hold::UpgradeWaits));
        upgrades.settled("a");
        assert_eq!([hold("c"), hold("b")], [None, None]);
        assert_eq!(hold("d"), Some(Hold::UpgradeWaits));
    }

    #[test]
    fn an_older_operator_takes_nothing_back() {
        let upgrades = Upgrades::new(2);
        assert_eq!(upgrades.hold(&platform("a", Some("99.0.0"))), Some(Hold::OlderOperator("99.0.0".into())));
        for same_or_new in [Some(RELEASE), None, Some("")] {
            assert_eq!(upgrades.hold(&platform("a", same_or_new)), None);
        }
    }
}
