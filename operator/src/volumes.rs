//! How much room the volumes of the database have, and to what they grow by themselves. They are all of one size: a replica that had less could not
//! follow.

use std::{collections::BTreeMap, time::Duration};

use taskplatform_blueprint::{Component, Kind, Platform, Unit};
use taskplatform_crds::Size;

use crate::{
    keepers::patroni::{Cluster, Volume},
    world::{Child, Snapshot, ordinal},
};

/// From here on there is too little room, in percent that is used.
const SHORT: u16 = 80;
/// A volume that will be full within this time is told of, though there is room yet.
const SOON: Duration = Duration::from_hours(7 * 24);
/// Volumes grow by one part in so many, to whole gibibytes.
const STEP: u64 = 4;
const GIBIBYTE: u64 = 1 << 30;

/// Of the database's volumes, the one with the least room, and what is done about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Room {
    pub(crate) pod: String,
    pub(crate) volume: Volume,
    pub(crate) growth: Growth,
}

/// To what the volumes grow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Growth {
    /// There is room enough.
    Unneeded,
    /// Nobody has said that they may.
    Unasked,
    /// They are as large as they may be.
    AtLimit(Size),
    /// Their storage class does not let them; its name, where they have one.
    Impossible(String),
    /// They are to be of this size.
    To(Size),
}

impl Room {
    /// Out of what the members say; nothing while none does.
    pub(crate) fn of(platform: &Platform, snapshot: &Snapshot, cluster: &Cluster) -> Option<Self> {
        let volumes = cluster.members.iter().filter_map(|member| Some((&member.pod, member.volume.as_ref()?)));
        let (pod, volume) = volumes.max_by_key(|(_, volume)| (volume.is_full, volume.used))?;
        let growth = if volume.used_percent() < SHORT && !volume.is_full {
            Growth::Unneeded
        } else {
            Growth::of(platform, snapshot)
        };
        Some(Self { pod: pod.clone(), volume: volume.clone(), growth })
    }

    /// Whether it is full soon at its rate.
    pub(crate) fn is_full_soon(&self) -> bool {
        self.volume.full_in_days.is_some_and(|days| u64::from(days) * 24 * 3600 < SOON.as_secs())
    }
}

impl Growth {
    /// To what they grow where there is too little room.
    fn of(platform: &Platform, snapshot: &Snapshot) -> Self {
        let storage = &platform.spec().database.storage;
        let Some(autogrow) = &storage.autogrow else { return Self::Unasked };
        let asked = claims(platform, snapshot).filter_map(asked).max().unwrap_or(storage.size).max(storage.size);
        let is_under_way = claims(platform, snapshot).any(|claim| capacity(claim).is_some_and(|size| size < asked));
        if is_under_way {
            return Self::To(asked);
        }
        if asked >= autogrow.limit {
            return Self::AtLimit(autogrow.limit);
        }
        let more = asked.as_bytes().saturating_add(asked.as_bytes() / STEP).div_ceil(GIBIBYTE).saturating_mul(GIBIBYTE);
        Self::To(Size::bytes(more).min(autogrow.limit))
    }
}

/// The sizes of volumes that are to be larger than the spec says, by the units' names.
pub(crate) fn sizes(
    platform: &Platform,
    units: &[Unit],
    snapshot: &Snapshot,
    room: Option<&Room>,
) -> BTreeMap<String, Size> {
    let size = |unit: &Unit| {
        let wanted = unit.storage.as_ref()?.size;
        // Those that have grown stay as they are, also for pods that are yet to come.
        let template = snapshot.get(Kind::StatefulSet, &unit.name).and_then(|set| template_size(set));
        let grown = match room {
            Some(Room { growth: Growth::To(size), .. }) if unit.component == Component::DATABASE => Some(*size),
            _ => None,
        };
        let claimed = claims(platform, snapshot).filter_map(asked).max();
        let claimed = claimed.filter(|_| unit.component == Component::DATABASE && grows(platform));
        let size = template.max(grown).max(claimed)?;
        (size > wanted).then(|| (unit.name.clone(), size))
    };
    units.iter().filter_map(size).collect()
}

/// The storage class of the database's volumes; empty where they have none.
pub(crate) fn class(platform: &Platform, snapshot: &Snapshot) -> String {
    let class = |claim: &Child| claim.data()["spec"]["storageClassName"].as_str().map(str::to_owned);
    claims(platform, snapshot).find_map(class).unwrap_or_default()
}

fn grows(platform: &Platform) -> bool {
    platform.spec().database.storage.autogrow.is_some()
}

/// The claims of the database's members. Those of members that are not wanted any more keep their size.
fn claims<'a>(platform: &'a Platform, snapshot: &'a Snapshot) -> impl Iterator<Item = &'a Child> {
    let members = platform.database_members();
    let is_wanted = move |claim: &&Child| {
        claim.component == Some(Component::DATABASE)
            && !claim.is_ending()
            && ordinal(&claim.name).is_some_and(|ordinal| ordinal < members)
    };
    snapshot.claims().map(|claim| &**claim).filter(is_wanted)
}

/// The size that a claim asks for.
fn asked(claim: &Child) -> Option<Size> {
    claim.data()["spec"]["resources"]["requests"]["storage"].as_str()?.parse().ok()
}

/// The size that a claim has.
fn capacity(claim: &Child) -> Option<Size> {
    claim.data()["status"]["capacity"]["storage"].as_str()?.parse().ok()
}

fn template_size(set: &Child) -> Option<Size> {
    let data = set.data();
    data["spec"]["volumeClaimTemplates"][0]["spec"]["resources"]["requests"]["storage"].as_str()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use taskplatform_blueprint::units;
    use taskplatform_crds::TaskPlatform;

    use super::*;
    use crate::world::{Watched, World};

    fn platform(storage: &Value) -> Platform {
        let document = json!({
            "metadata": {"name": "shop", "namespace": "shops", "uid": "a"},
            "spec": {"database": {"readReplicas": 1, "storage": storage}},
        });
        Platform::new(&serde_json::from_value::<TaskPlatform>(document).unwrap()).unwrap()
    }

    /// A StatefulSet whose template says so, and claims: what each asks for, and has.
    fn snapshot(template: &str, claims: &[(&str, &str)]) -> Snapshot {
        let world = World::default();
        let put = |watched, name: &str, spec: Value, status: Value| {
            let labels = json!({"app.kubernetes.io/instance": "shop", "app.kubernetes.io/component": "database"});
            let metadata = json!({"name": name, "namespace": "shops", "labels": labels});
            let object = json!({"metadata": metadata, "spec": spec, "status": status});
            world.remember_answer(watched, serde_json::from_value(object).unwrap());
        };
        let of_size = |size: &str| json!({"resources": {"requests": {"storage": size}}, "storageClassName": "fast"});
        let set = json!({"volumeClaimTemplates": [{"spec": of_size(template)}]});
        put(Watched::Object(Kind::StatefulSet), "shop-database", set, Value::Null);
        for (ordinal, (asked, has)) in claims.iter().enumerate() {
            let status = json!({"phase": "Bound", "capacity": {"storage": has}});
            put(Watched::Claim, &format!("data-shop-database-{ordinal}"), of_size(asked), status);
        }
        world.snapshot("shops", "shop")
    }

    fn room(platform: &Platform, snapshot: &Snapshot, used: [u16; 2]) -> Room {
        let member = |used: &u16| {
            let tags = json!({"volume_size": 10 << 10, "volume_used": used, "volume_full": *used > 950});
            json!({"name": format!("shop-database-{used}"), "role": "leader", "state": "running", "tags": tags})
        };
        let cluster = Cluster::read(&json!({"members": used.iter().map(member).collect::<Vec<_>>()}));
        Room::of(platform, snapshot, &cluster).unwrap()
    }

    #[test]
    fn volumes_grow_by_a_quarter_up_to_their_limit_when_one_is_four_fifths_full() {
        let size = |text: &str| text.parse::<Size>().unwrap();
        let (fixed, growing) = (json!({"size": "10Gi"}), json!({"size": "10Gi", "autogrow": {"limit": "15Gi"}}));
        let even = [("10Gi", "10Gi"), ("10Gi", "10Gi")];
        for (storage, claims, used, growth) in [
            (&growing, even, [799, 300], Growth::Unneeded),
            (&fixed, even, [300, 800], Growth::Unasked),
            (&growing, even, [300, 800], Growth::To(size("13Gi"))),
            (&growing, even, [300, 990], Growth::To(size("13Gi"))),
            (&growing, [("13Gi", "13Gi"), ("13Gi", "10Gi")], [800, 800], Growth::To(size("13Gi"))),
            (&growing, [("13Gi", "13Gi"), ("13Gi", "13Gi")], [800, 800], Growth::To(size("15Gi"))),
            (&growing, [("15Gi", "15Gi"), ("15Gi", "15Gi")], [800, 800], Growth::AtLimit(size("15Gi"))),
        ] {
            let platform = platform(storage);
            assert_eq!(room(&platform, &snapshot("10Gi", &claims), used).growth, growth, "{claims:?} {used:?}");
        }
    }

    #[test]
    fn what_has_grown_stays_and_a_member_that_is_to_go_keeps_its_size() {
        let storage = json!({"size": "10Gi", "autogrow": {"limit": "100Gi"}});
        let sizes = |storage: &Value, template: &str, claims: &[(&str, &str)], used| {
            let (platform, snapshot) = (platform(storage), snapshot(template, claims));
            let room = room(&platform, &snapshot, used);
            let sizes = super::sizes(&platform, &units(&platform, 1), &snapshot, Some(&room));
            sizes.get("shop-database").map(ToString::to_string)
        };
        let of = |size: &str| Some(size.to_owned());
        let two = |size: &'static str| [(size, size), (size, size)];
        assert_eq!(sizes(&storage, "10Gi", &two("10Gi"), [500, 500]), None);
        assert_eq!(sizes(&storage, "10Gi", &two("10Gi"), [800, 500]), of("13Gi"));
        assert_eq!(sizes(&storage, "10Gi", &[("13Gi", "13Gi"), ("10Gi", "10Gi")], [500, 500]), of("13Gi"));
        assert_eq!(sizes(&storage, "13Gi", &two("13Gi"), [500, 500]), of("13Gi"), "also for a member that is to come");
        assert_eq!(sizes(&json!({"size": "10Gi"}), "13Gi", &two("13Gi"), [500, 500]), of("13Gi"), "it never shrinks");
        let mut three = two("10Gi").to_vec();
        three.push(("50Gi", "50Gi"));
        assert_eq!(sizes(&storage, "10Gi", &three, [500, 500]), None, "the third one is left of more members");
    }
}
