//! Whether nodes get the platform's images.

use std::collections::BTreeMap;

use futures::future::join_all;
use serde_json::{Value, json};
use taskplatform_blueprint::{Facts, Images, Object, PARTS, blueprint};

use super::{
    GROUP, Trial,
    pods::{Obstacle, has_image, pod},
};
use crate::check::{Target, outcome::Outcome};

pub(super) const NAME: &str = "the images can be pulled";

/// Without what the operator runs with, nobody knows which they are.
pub(super) async fn check(trial: &Trial, target: &Target, images: Result<Images, String>) -> Vec<Outcome> {
    let images = match images {
        Ok(images) => images,
        Err(why) => {
            let detail = format!("nobody knows which they are: {why}");
            return vec![GROUP.warning(NAME, detail, "ask for the role in docs/check.md, or have somebody else check")];
        }
    };
    let images = used(&blueprint(&target.platform, &Facts { images, ..Facts::default() }));
    join_all(images.iter().map(|(image, component)| pulled(trial, image, component))).await
}

/// The images of a platform's workloads, each with a component that it is of.
fn used(objects: &[Object]) -> BTreeMap<String, String> {
    let mut images = BTreeMap::new();
    for object in objects {
        let containers = object.value().pointer("/spec/template/spec/containers").and_then(Value::as_array);
        for image in containers.into_iter().flatten().filter_map(|container| container["image"].as_str()) {
            images.entry(image.to_owned()).or_insert_with(|| object.component().to_owned());
        }
    }
    images
}

async fn pulled(trial: &Trial, image: &str, component: &str) -> Outcome {
    let name = format!("image {image} can be pulled");
    // Each tells something about itself and ends. What it says does not matter: its image is there.
    let part = PARTS.iter().find(|part| part.component().name() == component);
    let arguments = part.map(|part| part.image().trial());
    let container = json!({"args": Vec::from_iter(arguments)});
    let pod_name = format!("image-{component}");
    match trial.pod(&pod_name, pod(&pod_name, image, container), has_image).await {
        Ok(pod) => {
            let node = pod.spec.and_then(|spec| spec.node_name).unwrap_or_default();
            GROUP.pass(name, format!("{node} has it"))
        }
        Err(obstacle @ Obstacle::Image { .. }) => GROUP.failure(
            name,
            obstacle.to_string(),
            "push it to a registry that the nodes can pull from, and name that in the operator's RELATED_IMAGE_* variables",
        ),
        Err(obstacle) => GROUP.failure(name, obstacle.to_string(), "make room for the pod, or give a longer --timeout"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use taskplatform_blueprint::{Image, Platform};

    #[test]
    fn every_image_is_tried_once() {
        let manifest = json!({
            "apiVersion": "taskplatform.dev/v1alpha1", "kind": "TaskPlatform", "metadata": {"name": "tasks"},
            "spec": {"api": {"image": "example.com/task-api:own"}},
        });
        let platform = Platform::new(&serde_json::from_value(manifest).unwrap()).unwrap();
        let facts = Facts::default();
        let images = used(&blueprint(&platform, &facts));
        let expected = [
            facts.images.get(Image::Postgres),
            facts.images.get(Image::Pgbouncer),
            facts.images.get(Image::Redis),
            facts.images.get(Image::Gateway),
            "example.com/task-api:own",
        ];
        assert_eq!(images.len(), expected.len(), "{images:?}");
        assert!(expected.iter().all(|image| images.contains_key(*image)), "{images:?}");
    }
}
