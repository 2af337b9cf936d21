//! The storage classes that the volumes are of.

use std::collections::BTreeMap;

use k8s_openapi::api::storage::v1::StorageClass;
use kube::{Api, ResourceExt, api::ListParams};
use taskplatform_blueprint::{Draft, units};

use super::{
    Target,
    outcome::{Group, Outcome},
};
use crate::cluster::Cluster;

const GROUP: Group = Group::Storage;
const DEFAULT: &str = "storageclass.kubernetes.io/is-default-class";

/// The classes that a spec names, each with the components whose volumes are of it; none is the cluster's default.
pub(super) fn wanted(platform: &Draft) -> BTreeMap<Option<String>, Vec<&'static str>> {
    let mut classes: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for unit in units(platform, platform.api_instances(None)) {
        if let Some(storage) = unit.storage {
            classes.entry(storage.class).or_default().push(unit.component.name());
        }
    }
    classes
}

pub(super) async fn check(cluster: &Cluster, target: &Target) -> Vec<Outcome> {
    let api: Api<StorageClass> = Api::all(cluster.client.clone());
    match api.list(&ListParams::default()).await {
        Ok(classes) => {
            let wanted = wanted(&target.platform);
            wanted.iter().flat_map(|(class, components)| judge(&classes.items, class.as_deref(), components)).collect()
        }
        Err(error) => vec![GROUP.unread("the volumes have a class", "StorageClasses", &error)],
    }
}

fn judge(classes: &[StorageClass], wanted: Option<&str>, components: &[&str]) -> Vec<Outcome> {
    let of = format!("the volumes of {}", components.join(", "));
    let Some(class) = find(classes, wanted) else { return vec![missing(classes, wanted, &of)] };
    let name = class.name_any();
    vec![GROUP.pass(format!("{of} have a class"), format!("{name}, {}", class.provisioner)), grows(class), binds(class)]
}

/// The class of that name, or the default; of several defaults the API server takes the youngest.
fn find<'a>(classes: &'a [StorageClass], wanted: Option<&str>) -> Option<&'a StorageClass> {
    match wanted {
        Some(name) => classes.iter().find(|class| class.name_any() == name),
        None => classes
            .iter()
            .filter(|class| class.annotations().get(DEFAULT).is_some_and(|default| default == "true"))
            .max_by_key(|class| class.metadata.creation_timestamp.as_ref().map(|time| time.0)),
    }
}

fn missing(classes: &[StorageClass], wanted: Option<&str>, of: &str) -> Outcome {
    let names: Vec<String> = classes.iter().map(ResourceExt::name_any).collect();
    let there =
        if names.is_empty() { "there is none at all".to_owned() } else { format!("there are {}", names.join(", ")) };
    let name = format!("{of} have a class");
    match wanted {
        Some(wanted) => GROUP.failure(
            name,
            format!("there is no StorageClass {wanted}; {there}"),
            "name one of the cluster in storage.class, or leave it out for the default",
        ),
        None => GROUP.failure(
            name,
            format!("no StorageClass is the default; {there}"),
            format!(
                "name one in storage.class, or make one the default (kubectl annotate storageclass NAME {DEFAULT}=true)"
            ),
        ),
    }
}

fn grows(class: &StorageClass) -> Outcome {
    let name = format!("volumes of class {} can grow", class.name_any());
    if class.allow_volume_expansion == Some(true) {
        return GROUP.pass(name, "");
    }
    GROUP.warning(
        name,
        "it does not allow expansion: a larger storage.size would come to nothing",
        "use a class with allowVolumeExpansion: true, or begin with large volumes",
    )
}

fn binds(class: &StorageClass) -> Outcome {
    let name = format!("volumes of class {} are made where their pods run", class.name_any());
    let mode = class.volume_binding_mode.as_deref().unwrap_or("Immediate");
    if mode == "WaitForFirstConsumer" {
        return GROUP.pass(name, "");
    }
    GROUP.warning(
        name,
        format!("its volumeBindingMode is {mode}: a volume may be made in a zone that has no room for its pod"),
        "use a class with volumeBindingMode: WaitForFirstConsumer",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::outcome::Verdict::{self, Failure, Pass, Warning};
    use serde_json::{Value, json};
    use taskplatform_crds::TaskPlatform;

    fn class(name: &str, default: bool, made: &str, more: Value) -> StorageClass {
        let mut class = json!({
            "apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "provisioner": "example.com/disk",
            "metadata": {"name": name, "creationTimestamp": made, "annotations": {DEFAULT: default.to_string()}},
        });
        if let (Some(class), Value::Object(more)) = (class.as_object_mut(), more) {
            class.extend(more);
        }
        serde_json::from_value(class).unwrap()
    }

    fn verdicts(classes: &[StorageClass], wanted: Option<&str>) -> Vec<Verdict> {
        judge(classes, wanted, &["cache"]).iter().map(|outcome| outcome.verdict).collect()
    }

    #[test]
    fn the_default_or_the_named_class_is_looked_at() {
        let good = json!({"allowVolumeExpansion": true, "volumeBindingMode": "WaitForFirstConsumer"});
        let classes = [
            class("plain", false, "2026-01-01T00:00:00Z", json!({})),
            class("old", true, "2026-01-01T00:00:00Z", json!({})),
            class("good", true, "2026-02-01T00:00:00Z", good),
        ];
        assert_eq!(verdicts(&classes, None), [Pass, Pass, Pass]);
        assert_eq!(verdicts(&classes, Some("plain")), [Pass, Warning, Warning]);
        assert_eq!(verdicts(&classes, Some("other")), [Failure]);
        assert_eq!(verdicts(&classes[..1], None), [Failure]);
    }

    #[test]
    fn components_of_one_class_are_told_together() {
        let spec = serde_json::from_value(json!({"cache": {"storage": {"size": "1Gi", "class": "fast"}}})).unwrap();
        let platform = Draft::from(&TaskPlatform::new("tasks", spec));
        let expected = BTreeMap::from([(None, vec!["database", "sessions"]), (Some("fast".to_owned()), vec!["cache"])]);
        assert_eq!(wanted(&platform), expected);
    }
}
