//! That the server does what a real one does, where that is subtle.

use std::{collections::BTreeSet, time::Duration};

use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::{
    Api, Client, Error, ResourceExt,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams, Preconditions, PropagationPolicy},
    core::{ApiResource, DynamicObject, GroupVersionKind, Status},
    runtime::watcher::{self, Event, watcher},
};
use serde_json::{Value, json};
use taskplatform_crds::TaskPlatform;
use tokio::time::timeout;

use super::*;

fn deployments(client: &Client) -> Api<DynamicObject> {
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk("apps", "v1", "Deployment"));
    Api::namespaced_with(client.clone(), NAMESPACE, &resource)
}

fn deployment(name: &str, spec: &Value) -> Value {
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name, "namespace": NAMESPACE}, "spec": spec})
}

fn labelled(name: &str, label: &str) -> Value {
    let mut object = deployment(name, &json!({"replicas": 1}));
    object["metadata"]["labels"] = json!({"is": label});
    object
}

fn owned_by(mut object: Value, owners: &[&Value]) -> Value {
    let reference = |owner: &&Value| json!({"apiVersion": owner["apiVersion"], "kind": owner["kind"], "name": owner["metadata"]["name"], "uid": owner["metadata"]["uid"]});
    object["metadata"]["ownerReferences"] = owners.iter().map(reference).collect();
    object
}

fn refusal<T: std::fmt::Debug>(result: Result<T, Error>) -> Box<Status> {
    match result {
        Err(Error::Api(status)) => status,
        other => panic!("it was not refused: {other:?}"),
    }
}

async fn apply(bed: &Bed, manager: &str, spec: &Value) -> Result<DynamicObject, Error> {
    deployments(&bed.client).patch("a", &PatchParams::apply(manager), &Patch::Apply(deployment("a", spec))).await
}

async fn merge(bed: &Bed, change: &Value) -> Result<DynamicObject, Error> {
    deployments(&bed.client).patch("a", &PatchParams::default(), &Patch::Merge(change)).await
}

#[tokio::test]
async fn what_exists_cannot_be_created() {
    let bed = Bed::new();
    let secrets: Api<Secret> = Api::namespaced(bed.client.clone(), NAMESPACE);
    let secret: Secret =
        serde_json::from_value(json!({"metadata": {"name": "a"}, "stringData": {"key": "text"}})).unwrap();
    let created = secrets.create(&PostParams::default(), &secret).await.unwrap();
    assert_eq!(created.data.unwrap()["key"].0, b"text");
    assert!(created.string_data.is_none() && created.metadata.uid.is_some());
    assert!(refusal(secrets.create(&PostParams::default(), &secret).await).is_already_exists());

    let generated: Secret = serde_json::from_value(json!({"metadata": {"generateName": "b-"}})).unwrap();
    for _ in 0..2 {
        let name = secrets.create(&PostParams::default(), &generated).await.expect("another name").name_any();
        assert!(name.starts_with("b-"), "{name}");
    }
}

#[tokio::test]
async fn a_write_is_refused_where_it_means_another_version_or_another_object() {
    let bed = Bed::new();
    assert!(refusal(merge(&bed, &json!({})).await).is_not_found());
    bed.server.put(deployment("a", &json!({"replicas": 1})));

    let other_version = json!({"metadata": {"resourceVersion": "999"}, "spec": {"replicas": 2}});
    assert!(refusal(merge(&bed, &other_version).await).is_conflict());
    let other_uid = json!({"metadata": {"uid": "another"}, "spec": {"replicas": 2}});
    let invalid = refusal(merge(&bed, &other_uid).await);
    assert_eq!((invalid.code, invalid.reason.as_str()), (422, "Invalid"));
    assert_eq!(invalid.details.unwrap().causes[0].field, "metadata.uid");
    let immutable = json!({"spec": {"selector": {"matchLabels": {"a": "b"}}}});
    assert_eq!(refusal(merge(&bed, &immutable).await).code, 422);
    assert_eq!(bed.get("Deployment", "a")["spec"], json!({"replicas": 1}));

    let mut gone = deployment("gone", &json!({}));
    gone["metadata"]["uid"] = "gone".into();
    let applied = deployments(&bed.client).patch("gone", &PatchParams::apply("one"), &Patch::Apply(gone)).await;
    assert!(refusal(applied).is_conflict(), "what is gone is not made anew");

    let replaced: DynamicObject = serde_json::from_value(bed.get("Deployment", "a")).unwrap();
    bed.edit("Deployment", "a", |object| object["spec"]["replicas"] = 3.into());
    let replaced = deployments(&bed.client).replace("a", &PostParams::default(), &replaced).await;
    assert!(refusal(replaced).is_conflict());
}

#[tokio::test]
async fn the_status_of_a_custom_resource_is_written_apart_and_to_whoever_has_the_name() {
    let bed = Bed::new();
    bed.put_platform(json!({}));
    let api: Api<TaskPlatform> = Api::namespaced(bed.client.clone(), NAMESPACE);
    let status = json!({"observedGeneration": 1, "conditions": []});
    let change = json!({"metadata": {"uid": "another"}, "spec": {"api": {"replicas": 9}}, "status": status});
    api.patch_status(NAME, &PatchParams::default(), &Patch::Merge(&change)).await.unwrap();
    let platform = bed.get("TaskPlatform", NAME);
    assert_eq!((&platform["spec"], &platform["status"]), (&json!({}), &status));
    assert_eq!(platform["metadata"]["generation"], 1);

    let change = json!({"spec": {"api": {"replicas": 9}}, "status": {"observedGeneration": 7, "conditions": []}});
    api.patch(NAME, &PatchParams::default(), &Patch::Merge(&change)).await.unwrap();
    let platform = bed.get("TaskPlatform", NAME);
    assert_eq!((&platform["spec"], &platform["status"]), (&json!({"api": {"replicas": 9}}), &status));
    assert_eq!(platform["metadata"]["generation"], 2);

    let late = json!({"metadata": {"resourceVersion": "1"}, "status": {"observedGeneration": 7, "conditions": []}});
    assert!(refusal(api.patch_status(NAME, &PatchParams::default(), &Patch::Merge(&late)).await).is_conflict());
}

#[tokio::test]
async fn what_changes_nothing_is_not_written() {
    let bed = Bed::new();
    let first = apply(&bed, "one", &json!({"replicas": 1})).await.unwrap();
    let again = apply(&bed, "one", &json!({"replicas": 1})).await.unwrap();
    assert_eq!(first.resource_version(), again.resource_version());
    let labelled = merge(&bed, &json!({"metadata": {"labels": {"a": "b"}}})).await.unwrap();
    assert_ne!(first.resource_version(), labelled.resource_version());
    assert_eq!(labelled.metadata.generation, Some(1));
    assert_eq!(merge(&bed, &json!({"spec": {"replicas": 2}})).await.unwrap().metadata.generation, Some(2));
}

#[tokio::test]
async fn applying_removes_what_was_applied_before_and_nothing_else() {
    let bed = Bed::new();
    let container = |name: &str, image: &str| json!({"name": name, "image": image});
    let both = json!({"replicas": 1, "template": {"spec": {"containers": [container("a", "1"), container("b", "1")]}}});
    apply(&bed, "one", &both).await.unwrap();
    let others = json!({"paused": true, "template": {"spec": {"containers": [container("c", "1")]}}});
    apply(&bed, "two", &others).await.unwrap();
    let one = json!({"template": {"spec": {"containers": [container("a", "2")]}}});
    let applied = apply(&bed, "one", &one).await.unwrap();
    let expected =
        json!({"paused": true, "template": {"spec": {"containers": [container("a", "2"), container("c", "1")]}}});
    assert_eq!(applied.data["spec"], expected);
    let managers: Vec<_> = applied.managed_fields().iter().filter_map(|entry| entry.manager.as_deref()).collect();
    assert_eq!(managers, ["two", "one"]);
}

#[tokio::test]
async fn owners_of_others_stay_when_one_takes_its_own_away() {
    let bed = Bed::new();
    let (one, two) = (bed.server.put(deployment("one", &json!({}))), bed.server.put(deployment("two", &json!({}))));
    bed.server.put(owned_by(deployment("a", &json!({})), &[&two]));
    for (owners, expected) in [(vec![&one], 2), (vec![], 1)] {
        let owned = owned_by(deployment("a", &json!({})), &owners);
        let applied =
            deployments(&bed.client).patch("a", &PatchParams::apply("me"), &Patch::Apply(owned)).await.unwrap();
        assert_eq!(applied.owner_references().len(), expected, "{:?}", applied.owner_references());
    }
    assert_eq!(bed.get("Deployment", "a")["metadata"]["ownerReferences"][0]["name"], "two");
}

#[tokio::test]
async fn applying_conflicts_with_what_others_wrote_unless_it_is_forced() {
    let bed = Bed::new();
    apply(&bed, "one", &json!({"replicas": 1})).await.unwrap();
    apply(&bed, "two", &json!({"replicas": 1})).await.expect("they agree");
    let conflict = refusal(apply(&bed, "two", &json!({"replicas": 2})).await);
    assert!(conflict.is_conflict() && conflict.message.contains("spec.replicas"), "{conflict}");

    let forced = PatchParams::apply("two").force();
    let patch = Patch::Apply(deployment("a", &json!({"replicas": 2})));
    deployments(&bed.client).patch("a", &forced, &patch).await.unwrap();
    // It is not the first one's any more, so it stays without it.
    let left = apply(&bed, "one", &json!({})).await.unwrap();
    assert_eq!(left.data["spec"]["replicas"], 2);

    merge(&bed, &json!({"spec": {"replicas": 3}})).await.unwrap();
    assert!(refusal(apply(&bed, "two", &json!({"replicas": 2})).await).is_conflict(), "a merge makes it another's");
    merge(&bed, &json!({"spec": {"replicas": null}})).await.unwrap();
    apply(&bed, "two", &json!({"replicas": 2})).await.expect("what nobody has is anybody's");
}

#[tokio::test]
async fn a_json_patch_is_refused_when_its_test_fails() {
    let bed = Bed::new();
    bed.server.put(deployment("a", &json!({"replicas": 1})));
    let patch = async |expected: i32| {
        let patch = json!([
            {"op": "test", "path": "/spec/replicas", "value": expected},
            {"op": "replace", "path": "/spec/replicas", "value": 5},
        ]);
        let request = http::Request::patch(format!("/apis/apps/v1/namespaces/{NAMESPACE}/deployments/a"))
            .header("content-type", "application/json-patch+json")
            .body(patch.to_string().into_bytes())
            .unwrap();
        bed.client.request::<Value>(request).await
    };
    assert_eq!(refusal(patch(2).await).code, 422);
    assert_eq!(patch(1).await.unwrap()["spec"]["replicas"], 5);
}

#[tokio::test]
async fn lists_come_in_pages_and_as_selectors_say() {
    let bed = Bed::new();
    for name in ["a", "b", "c", "d", "e"] {
        bed.server.put(labelled(name, if name == "c" { "other" } else { "meant" }));
    }
    let api = deployments(&bed.client);
    let mut parameters = ListParams::default().labels("is=meant").limit(3);
    let first = api.list(&parameters).await.unwrap();
    let names = |list: &[DynamicObject]| list.iter().map(ResourceExt::name_any).collect::<Vec<_>>();
    assert_eq!(names(&first.items), ["a", "b", "d"]);
    assert!(first.items[0].types.is_none(), "the items of a list do not tell their type");
    parameters = parameters.continue_token(first.metadata.continue_.as_deref().expect("another page"));
    let second = api.list(&parameters).await.unwrap();
    assert_eq!((names(&second.items), second.metadata.continue_), (vec!["e".to_owned()], None));

    for (selector, count) in [("is", 5), ("!is", 0), ("is!=meant", 1), ("is==meant,is", 4)] {
        let listed = api.list_metadata(&ListParams::default().labels(selector)).await.unwrap();
        assert_eq!(listed.items.len(), count, "{selector}");
    }
    let by_name = api.list(&ListParams::default().fields("metadata.name=c")).await.unwrap();
    assert_eq!(names(&by_name.items), ["c"]);
}

#[tokio::test(start_paused = true)]
async fn a_watch_tells_what_happens_to_what_is_selected() {
    let bed = Bed::new();
    let config = watcher::Config::default().labels("is=meant").page_size(2);
    let mut events = watcher(deployments(&bed.client), config).boxed();
    let mut next = async || timeout(Duration::from_mins(1), events.try_next()).await.expect("an event");
    let mut listed = BTreeSet::new();
    for name in ["a", "b", "c"] {
        bed.server.put(labelled(name, "meant"));
    }
    loop {
        match next().await.unwrap().unwrap() {
            Event::InitApply(object) => drop(listed.insert(object.name_any())),
            Event::InitDone => break,
            _ => {}
        }
    }
    assert_eq!(listed.len(), 3, "{listed:?}");

    bed.server.put(labelled("other", "other"));
    bed.server.put(labelled("a", "other"));
    assert!(matches!(next().await, Ok(Some(Event::Delete(object))) if object.name_any() == "a"));
    bed.server.put(labelled("other", "meant"));
    assert!(matches!(next().await, Ok(Some(Event::Apply(object))) if object.name_any() == "other"));

    bed.server.break_watches(false);
    bed.delete("Deployment", "b");
    assert!(matches!(next().await, Ok(Some(Event::Delete(object))) if object.name_any() == "b"), "nothing is missed");

    bed.delete("Deployment", "c");
    bed.server.break_watches(true);
    let mut seen = Vec::new();
    while !matches!(seen.last(), Some(Ok(Some(Event::Init)))) {
        seen.push(next().await);
    }
    assert!(seen.iter().any(Result::is_err), "what is forgotten is an error: {seen:?}");
}

#[tokio::test]
async fn a_streaming_list_tells_where_its_beginning_ends() {
    let bed = Bed::new();
    bed.server.put(labelled("a", "meant"));
    let config = watcher::Config::default().streaming_lists();
    let mut events = watcher(deployments(&bed.client), config).boxed();
    let mut names = Vec::new();
    while let Some(event) = timeout(Duration::from_mins(1), events.try_next()).await.expect("an event").unwrap() {
        match event {
            Event::InitApply(object) => names.push(object.name_any()),
            Event::InitDone => break,
            _ => {}
        }
    }
    assert_eq!(names, ["a"]);
}

#[tokio::test]
async fn what_is_deleted_goes_when_nothing_holds_it() {
    let bed = Bed::new();
    let api = deployments(&bed.client);
    let put = bed.server.put(deployment("a", &json!({})));
    let other = Preconditions { uid: Some("another".into()), resource_version: None };
    let parameters = DeleteParams { preconditions: Some(other), ..DeleteParams::default() };
    assert!(refusal(api.delete("a", &parameters).await).is_conflict());

    bed.edit("Deployment", "a", |object| object["metadata"]["finalizers"] = json!(["example.com/holds"]));
    api.delete("a", &DeleteParams::background()).await.unwrap();
    let held = bed.get("Deployment", "a");
    assert!(held["metadata"]["deletionTimestamp"].is_string());
    assert_eq!(held["metadata"]["generation"], put["metadata"]["generation"].as_i64().unwrap() + 1);
    bed.edit("Deployment", "a", |object| object["metadata"]["finalizers"] = json!([]));
    assert_eq!(bed.find("Deployment", "a"), None);
    assert!(refusal(api.delete("a", &DeleteParams::default()).await).is_not_found());
}

#[tokio::test]
async fn garbage_is_what_has_lost_all_of_its_owners() {
    let bed = Bed::new();
    let (one, two) = (bed.server.put(deployment("one", &json!({}))), bed.server.put(deployment("two", &json!({}))));
    bed.server.put(owned_by(deployment("ones", &json!({})), &[&one]));
    bed.server.put(owned_by(deployment("boths", &json!({})), &[&one, &two]));

    bed.server.leave_garbage(true);
    bed.delete("Deployment", "one");
    assert!(bed.find("Deployment", "ones").is_some());
    bed.server.leave_garbage(false);
    assert_eq!(bed.find("Deployment", "ones"), None);
    assert_eq!(bed.get("Deployment", "boths")["metadata"]["ownerReferences"].as_array().map(Vec::len), Some(1));

    let orphan = DeleteParams { propagation_policy: Some(PropagationPolicy::Orphan), ..DeleteParams::default() };
    deployments(&bed.client).delete("two", &orphan).await.unwrap();
    assert_eq!(bed.find("Deployment", "two"), None);
    assert!(bed.get("Deployment", "boths")["metadata"]["ownerReferences"].is_null());

    let three = bed.server.put(deployment("three", &json!({})));
    bed.server.put(owned_by(deployment("threes", &json!({})), &[&three]));
    bed.edit("Deployment", "threes", |object| object["metadata"]["finalizers"] = json!(["example.com/holds"]));
    deployments(&bed.client).delete("three", &DeleteParams::foreground()).await.unwrap();
    assert!(bed.find("Deployment", "three").is_some(), "it waits for what it owns");
    bed.edit("Deployment", "threes", |object| object["metadata"]["finalizers"] = json!([]));
    assert_eq!(bed.find("Deployment", "three"), None);
}

#[tokio::test(start_paused = true)]
async fn trouble_lasts_until_it_is_healed() {
    let bed = Bed::new();
    let maps: Api<ConfigMap> = Api::namespaced(bed.client.clone(), NAMESPACE);
    for code in [403, 429, 500] {
        bed.server.trouble(Verb::Get, "ConfigMap", Trouble::Refuse(code));
        assert_eq!(refusal(maps.get("a").await).code, code);
    }
    bed.server.trouble(Verb::Get, "ConfigMap", Trouble::Hang);
    timeout(Duration::from_hours(1), maps.get("a")).await.expect_err("no answer");
    bed.server.trouble(Verb::Get, "ConfigMap", Trouble::Delay(Duration::from_secs(5)));
    timeout(Duration::from_secs(4), maps.get("a")).await.expect_err("no answer yet");
    assert!(refusal(timeout(Duration::from_secs(6), maps.get("a")).await.expect("an answer")).is_not_found());
    assert!(maps.list(&ListParams::default()).await.is_ok(), "other requests have no trouble");
    bed.server.heal();
    timeout(Duration::from_secs(1), maps.get("a")).await.expect("an answer").unwrap_err();
    assert_eq!((bed.server.calls().len(), bed.server.writes().len()), (8, 0));
    assert_eq!(refusal(bed.client.list_api_group_resources("custom.metrics.k8s.io/v1beta2").await).code, 404);
}
