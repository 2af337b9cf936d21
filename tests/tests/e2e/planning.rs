//! `taskplatform plan` says what the operator then does, and `apply` applies what was planned.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, ListParams},
    core::{ApiResource, DynamicObject},
};
use proptest::{
    prelude::{Just, Strategy, any, prop, prop_oneof},
    strategy::ValueTree,
    test_runner::{Config, RngAlgorithm, TestRng, TestRunner},
};
use serde_json::{Value, json};
use taskplatform_blueprint::{Kind, applied::APPLIED};
use taskplatform_tests::{cluster, eventually, explained, platform::Platform};

use crate::{taskplatform, turn};

const NAME: &str = "planned";

fn document(spec: &Value) -> String {
    let platform = json!({
        "apiVersion": "taskplatform.dev/v1alpha1", "kind": "TaskPlatform",
        "metadata": {"name": NAME, "namespace": NAME}, "spec": spec,
    });
    platform.to_string()
}

fn plan(spec: &Value) -> Result<Value> {
    let output = taskplatform(&["plan", "-f", "-", "-o", "json"], &document(spec))?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(serde_json::from_slice(&output.stdout)?)
}

fn apply(spec: &Value) -> Result<()> {
    let output = taskplatform(&["apply", "-f", "-", "--yes", "--no-wait"], &document(spec))?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

/// Specs that can follow each other: nothing shrinks that must not.
fn specs() -> impl Strategy<Value = Value> {
    let resources =
        prop_oneof![Just(json!({"cpu": "25m", "memory": "96Mi"})), Just(json!({"cpu": "0.5", "memory": "1Gi"}))];
    // Nodes of Redis leave only when they have given away what they hold, and members of the database when one that stays leads, which
    // takes pods: their numbers stay.
    let numbers = (1..4, 0..4, 1..4, 1..4);
    let choices = (any::<bool>(), any::<bool>(), any::<bool>(), prop::sample::select(vec!["1MB", "2MB"]));
    (resources, numbers, choices).prop_map(
        |(resources, (min, more, gateways, poolers), (image, delete, parameters, work))| {
            let storage = json!({"size": "1Gi"});
            let mut spec = json!({
                "api": {"resources": resources},
                "scaling": {"minInstances": min, "maxInstances": min + more},
                "gateway": {"replicas": gateways, "service": {"type": if image { "ClusterIP" } else { "LoadBalancer" }}},
                "database": {"readReplicas": 1, "storage": storage, "resources": resources},
                "pooler": {"replicas": poolers, "defaultPoolSize": 10 + poolers},
                "cache": {"storage": storage, "ttl": format!("{}s", 60 + more)},
                "sessions": {"storage": storage, "resources": resources},
                "deletionPolicy": if delete { "Delete" } else { "Retain" },
            });
            if parameters {
                spec["database"]["parameters"] = json!({"work_mem": work});
            }
            if image {
                spec["api"]["image"] = json!("example.com/task-api:other");
            }
            spec
        },
    )
}

/// What the operator made: kind and name, with what tells one state from another.
async fn objects(platform: &Platform) -> Result<BTreeMap<(String, String), (String, Value)>> {
    let labels =
        ListParams::default().labels(&format!("app.kubernetes.io/instance={NAME},app.kubernetes.io/name=taskplatform"));
    let mut objects = BTreeMap::new();
    for kind in Kind::ALL {
        let resource = ApiResource::from_gvk(&kind.group_version_kind());
        let api: Api<DynamicObject> = Api::namespaced_with(platform.client.clone(), NAME, &resource);
        for object in api.list(&labels).await? {
            let state = if let Some(generation) = object.metadata.generation {
                json!(generation)
            } else {
                // This kind does not count its changes.
                let mut data = object.data.clone();
                data.as_object_mut().context("no object")?.remove("status");
                let mut annotations = object.annotations().clone();
                annotations.remove(APPLIED);
                json!([data, object.labels(), annotations])
            };
            // No kind counts those.
            let state = json!([state, object.owner_references()]);
            objects.insert((kind.name().to_owned(), object.name_any()), (object.uid().unwrap_or_default(), state));
        }
    }
    Ok(objects)
}

async fn applied(platform: &Platform) -> Result<()> {
    eventually("the operator has applied the spec", 60, async || {
        let now = platform.api().get(NAME).await?;
        let seen = now.status.context("no status")?.observed_generation;
        ensure!(now.metadata.generation == Some(seen), "{:?} is not {seen}", now.metadata.generation);
        Ok(())
    })
    .await
}

/// What became of each object.
fn outcome(
    before: &BTreeMap<(String, String), (String, Value)>,
    after: &BTreeMap<(String, String), (String, Value)>,
) -> BTreeMap<(String, String), &'static str> {
    let mut outcome = BTreeMap::new();
    for (object, (uid, state)) in after {
        match before.get(object) {
            None => outcome.insert(object.clone(), "create"),
            Some((before, _)) if before != uid => outcome.insert(object.clone(), "replace"),
            Some((_, before)) if before != state => outcome.insert(object.clone(), "change"),
            Some(_) => None,
        };
    }
    let gone = before.keys().filter(|object| !after.contains_key(*object));
    outcome.extend(gone.map(|object| (object.clone(), "delete")));
    outcome
}

fn planned(plan: &Value) -> BTreeMap<(String, String), &str> {
    let changes = plan["changes"].as_array().into_iter().flatten();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    changes
        .map(|change| ((text(&change["kind"]), text(&change["name"])), change["action"].as_str().unwrap_or_default()))
        .collect()
}

/// Removes the platform, and what a run that failed has left of one.
async fn remove(platform: &Platform) -> Result<()> {
    match platform.api().delete(NAME, &DeleteParams::background()).await {
        Err(kube::Error::Api(status)) if status.is_not_found() => {}
        deleted => drop(deleted?),
    }
    let claims: Api<PersistentVolumeClaim> = Api::namespaced(platform.client.clone(), NAME);
    claims.delete_collection(&DeleteParams::default(), &ListParams::default()).await?;
    eventually("everything of it is gone", 120, async || {
        remove_kept(platform).await?;
        let left = objects(platform).await?;
        ensure!(left.is_empty(), "{:?}", left.keys());
        Ok(())
    })
    .await
}

/// What is kept with the volumes belongs to nobody.
async fn remove_kept(platform: &Platform) -> Result<()> {
    let labels = ListParams::default().labels(&format!("app.kubernetes.io/instance={NAME}"));
    for kind in Kind::ALL {
        let resource = ApiResource::from_gvk(&kind.group_version_kind());
        let api: Api<DynamicObject> = Api::namespaced_with(platform.client.clone(), NAME, &resource);
        for object in api.list(&labels).await?.into_iter().filter(|object| object.owner_references().is_empty()) {
            api.delete(&object.name_any(), &DeleteParams::default()).await?;
        }
    }
    Ok(())
}

/// How many specs follow each other; `PLANNED_SPECS` may ask for more.
fn count() -> usize {
    std::env::var("PLANNED_SPECS").ok().and_then(|count| count.parse().ok()).unwrap_or(8)
}

/// On a real API server, but without a pod: the plans are about objects.
#[tokio::test]
async fn a_plan_is_what_the_operator_does() -> Result<()> {
    // Another test takes the operator away.
    let _turn = turn().await;
    explained(NAME, async {
        let client = cluster::client().await?;
        cluster::namespace_without_pods(&client, NAME).await?;
        let platform = Platform { client, name: NAME };
        remove(&platform).await?;

        let seed: [u8; 32] = std::array::from_fn(|index| (std::process::id() >> (index % 4 * 8)).to_le_bytes()[0]);
        let mut runner = TestRunner::new_with_rng(Config::default(), TestRng::from_seed(RngAlgorithm::ChaCha, &seed));
        // How many the autoscaler wants.
        let instances = async || {
            let now = platform.api().get_opt(NAME).await?;
            anyhow::Ok(now.and_then(|now| now.spec.api.replicas))
        };
        for step in 0..count() {
            let spec = specs().new_tree(&mut runner).map_err(|reason| anyhow::anyhow!("{reason}"))?.current();
            let wanted = instances().await?;
            let told = plan(&spec)?;
            ensure!(told["new"] == json!(step == 0), "{told}");
            let before = objects(&platform).await?;
            apply(&spec)?;
            applied(&platform).await?;
            let after = objects(&platform).await?;
            let (mut promised, mut done) = (planned(&told), outcome(&before, &after));
            // After the plan was made, the autoscaler wrote another number: what becomes of the instances is not told.
            if step > 0 && instances().await? != wanted {
                let api = ("Deployment".to_owned(), format!("{NAME}-api"));
                promised.remove(&api);
                done.remove(&api);
            }
            ensure!(
                promised == done,
                "step {step} of seed {seed:?}, {spec}: planned {promised:#?}, but done was {done:#?}"
            );
            // What the autoscaler has just written takes the operator a moment.
            eventually("nothing is left to do", 30, async || {
                let again = plan(&spec)?;
                ensure!(again["changes"] == json!([]) && again["spec"] == json!([]), "{again:#}");
                Ok(())
            })
            .await?;
        }
        an_old_plan_is_refused(&platform).await?;
        remove(&platform).await
    })
    .await
}

/// What was planned is applied, and nothing else.
async fn an_old_plan_is_refused(platform: &Platform) -> Result<()> {
    let file = std::env::temp_dir().join(format!("plan-{}.json", std::process::id()));
    let name = file.display().to_string();
    let spec = |gateways: i32| json!({"gateway": {"replicas": gateways}, "database": {"storage": {"size": "1Gi"}}, "cache": {"storage": {"size": "1Gi"}}, "sessions": {"storage": {"size": "1Gi"}}});
    apply(&spec(2))?;
    applied(platform).await?;
    std::fs::write(&file, plan(&spec(3))?.to_string())?;
    apply(&spec(4))?;
    applied(platform).await?;
    let arguments = ["apply", "-f", "-", "--no-wait", "--plan", &name];
    let refused = taskplatform(&arguments, &document(&spec(3)))?;
    let why = String::from_utf8_lossy(&refused.stderr).into_owned();
    ensure!(!refused.status.success() && why.contains("Nothing was applied"), "{why}");
    ensure!(platform.api().get(NAME).await?.spec.gateway.replicas.get() == 4, "it was applied all the same");

    // The autoscaler may write between the two, which makes the plan an old one.
    eventually("a new plan is applied", 30, async || {
        std::fs::write(&file, plan(&spec(3))?.to_string())?;
        let taken = taskplatform(&arguments, &document(&spec(3)))?;
        ensure!(taken.status.success(), "{}", String::from_utf8_lossy(&taken.stderr));
        Ok(())
    })
    .await?;
    ensure!(platform.api().get(NAME).await?.spec.gateway.replicas.get() == 3, "the new plan was not applied");
    std::fs::remove_file(&file)?;
    Ok(())
}
