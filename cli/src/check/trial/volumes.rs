//! Whether volumes are made, and the user that every image runs as can write to them.

use futures::future::join_all;
use k8s_openapi::api::core::v1::{Event, PersistentVolumeClaim};
use kube::{
    Api, ResourceExt,
    api::{ListParams, PostParams},
};
use serde_json::json;

use super::{
    GROUP, Trial,
    pods::{Obstacle, exit_code, has_ended, pod},
};
use crate::check::{
    Target,
    outcome::{Outcome, message},
    storage,
};

const SIZE: &str = "1Gi";

pub(super) async fn check(trial: &Trial, target: &Target, redis: &str) -> Vec<Outcome> {
    let classes = storage::wanted(&target.platform).into_keys().enumerate();
    join_all(classes.map(|(number, class)| writable(trial, redis, number, class))).await
}

async fn writable(trial: &Trial, redis: &str, number: usize, class: Option<String>) -> Outcome {
    let class = class.as_deref();
    let of = class.map_or_else(|| "the default class".to_owned(), |class| format!("class {class}"));
    let title = format!("a volume of {of} is made, and can be written");
    let name = format!("volume-{number}");
    if let Err(why) = claim(trial, &name, class).await {
        return GROUP.failure(title, format!("the claim is refused: {why}"), "see what refuses it, such as a quota");
    }
    let container = json!({
        "command": ["sh", "-c", "echo written > /data/trial && cat /data/trial"],
        "volumeMounts": [{"name": "data", "mountPath": "/data"}],
    });
    let mut pod = pod(&name, redis, container);
    pod["spec"]["volumes"] = json!([{"name": "data", "persistentVolumeClaim": {"claimName": name}}]);
    match trial.pod(&name, pod, has_ended).await {
        Ok(pod) if exit_code(&pod) == Some(0) => GROUP.pass(title, format!("{SIZE}, in a pod without privileges")),
        Ok(_) => GROUP.failure(
            title,
            "it is made, but a pod without privileges cannot write to it",
            "use a class whose volumes obey fsGroup",
        ),
        Err(Obstacle::Image { .. }) => {
            GROUP.skipped(title, "not tried: the image of Redis, which it takes, cannot be pulled")
        }
        Err(obstacle) => GROUP.failure(
            title,
            format!("{obstacle}\n{}", trial.bound(&name).await),
            "see what the class's provisioner says, or give a longer --timeout",
        ),
    }
}

async fn claim(trial: &Trial, name: &str, class: Option<&str>) -> Result<(), String> {
    let mut spec = json!({"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": SIZE}}});
    if let Some(class) = class {
        spec["storageClassName"] = class.into();
    }
    let claim: PersistentVolumeClaim =
        serde_json::from_value(json!({"metadata": {"name": name}, "spec": spec})).map_err(|error| error.to_string())?;
    let api: Api<PersistentVolumeClaim> = trial.api();
    api.create(&PostParams::default(), &claim).await.map_err(|error| message(&error))?;
    Ok(())
}

impl Trial {
    /// How far a claim has come, and what was last said of it.
    async fn bound(&self, name: &str) -> String {
        let claims: Api<PersistentVolumeClaim> = self.api();
        let phase = match claims.get(name).await {
            Ok(claim) => claim.status.and_then(|status| status.phase).unwrap_or_else(|| "unknown".to_owned()),
            Err(error) => return format!("its claim cannot be read: {}", message(&error)),
        };
        let events: Api<Event> = self.api();
        let of_claim = format!("involvedObject.kind=PersistentVolumeClaim,involvedObject.name={name}");
        let events = events.list(&ListParams::default().fields(&of_claim)).await;
        let last = events.ok().and_then(|events| {
            events.items.into_iter().max_by_key(ResourceExt::creation_timestamp).and_then(|event| event.message)
        });
        format!("its claim is {phase}: {}", last.as_deref().unwrap_or("nothing is said of it"))
    }
}
