//! What holds for every spec that is admitted.

#![expect(clippy::unwrap_used, reason = "a test fails by a panic")]

use std::collections::BTreeSet;

use k8s_openapi::{
    api::{
        apps::v1::{Deployment, StatefulSet},
        autoscaling::v2::HorizontalPodAutoscaler,
        core::v1::{ConfigMap, Service, ServiceAccount},
        networking::v1::NetworkPolicy,
        policy::v1::PodDisruptionBudget,
        rbac::v1::{Role, RoleBinding},
    },
    apimachinery::pkg::apis::meta::v1::OwnerReference,
};
use kube::core::DynamicObject;
use proptest::prelude::*;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};
use taskplatform_blueprint::{Action, Facts, Kind, Object, Platform, Totals, applied::as_sent, blueprint, plan, units};
use taskplatform_crds::{Cpu, Size, TaskPlatform};

prop_compose! {
    fn spec()(
        (min, more) in (1..60, 0..60),
        (down, target, up) in (1..50, 51..80, 81..=100),
        (window, cooldown, step) in (0..3600, 1..1800, 1..20),
        (gateways, auth_rate, burst, service) in (1..5, 1..1000, 0..5000, prop::sample::select(vec!["NodePort", "LoadBalancer", "ClusterIP"])),
        (interval, healthy) in (1..60, 1..5),
        (read_replicas, memory, disk) in (0..8, 64..65536, 1..2000),
        (poolers, pool, reserve) in (1..5, 1..100, 0..50),
        (shards, copies) in (3..8, 0..3),
        workers in 1..4,
        retain in any::<bool>(),
        replicas in prop::option::of(1_i32..200),
    ) -> Value {
        let mut spec = json!({
            "api": {},
            "scaling": {
                "minInstances": min, "maxInstances": min + more, "targetCPU": target,
                "scaleUp": {"threshold": up, "period": format!("{window}s"), "cooldown": format!("{cooldown}s"), "increment": step},
                "scaleDown": {"threshold": down},
            },
            "gateway": {
                "replicas": gateways,
                "service": {"type": service},
                "rateLimits": {"auth": {"rate": format!("{auth_rate}r/m"), "burst": burst}},
                "healthCheck": {"interval": format!("{interval}s"), "timeout": "1s", "healthyThreshold": healthy},
            },
            "database": {
                "readReplicas": read_replicas,
                "storage": {"size": format!("{disk}Gi"), "class": "standard"},
                "resources": {"cpu": "250m", "memory": format!("{memory}Mi")},
                "parameters": {"work_mem": "2MB"},
            },
            "pooler": {"replicas": poolers, "defaultPoolSize": pool, "minPoolSize": 0, "reservePoolSize": reserve},
            "cache": {"shards": shards, "replicasPerShard": copies},
            "sessions": {"shards": shards, "ttl": "2h"},
            "worker": {"replicas": workers},
            "deletionPolicy": if retain { "Retain" } else { "Delete" },
        });
        if let Some(replicas) = replicas {
            spec["api"]["replicas"] = Value::from(replicas);
        }
        spec
    }
}

fn parse(spec: &Value) -> Platform {
    let document = json!({
        "apiVersion": "taskplatform.dev/v1alpha1", "kind": "TaskPlatform",
        "metadata": {"name": "a-name-of-exactly-32-characters-", "namespace": "shop"}, "spec": spec,
    });
    let mut document = document;
    document["metadata"]["name"] = "n".repeat(32).into();
    Platform::new(&TaskPlatform::parse(document).unwrap()).unwrap()
}

fn owner() -> OwnerReference {
    OwnerReference { name: "n".repeat(32), uid: "0-1-2-3".to_owned(), ..OwnerReference::default() }
}

/// The objects as an API server has them after the operator applied them.
fn applied(objects: &[Object]) -> Vec<(Kind, DynamicObject)> {
    /// Which fields the operator manages.
    fn fields(value: &Value) -> Value {
        let inner = value.as_object().into_iter().flatten();
        inner.map(|(name, value)| (format!("f:{name}"), fields(value))).collect()
    }
    let apply = |object: &Object| {
        let mut value = as_sent(object, &owner());
        let fields = fields(&value);
        value["metadata"]["managedFields"] = json!([{
            "manager": "taskplatform-operator", "operation": "Apply", "apiVersion": value["apiVersion"],
            "fieldsType": "FieldsV1", "fieldsV1": fields,
        }]);
        (object.kind(), serde_json::from_value(value).unwrap())
    };
    objects.iter().map(apply).collect()
}

/// The object read as its type and written again: what the type does not know is lost.
fn through_its_type(object: &Object) -> Value {
    fn through<K: Serialize + DeserializeOwned>(value: &Value) -> Value {
        serde_json::to_value(serde_json::from_value::<K>(value.clone()).unwrap()).unwrap()
    }
    let read = match object.kind() {
        Kind::NetworkPolicy => through::<NetworkPolicy>,
        Kind::ServiceAccount => through::<ServiceAccount>,
        Kind::Role => through::<Role>,
        Kind::RoleBinding => through::<RoleBinding>,
        Kind::ConfigMap => through::<ConfigMap>,
        Kind::Service => through::<Service>,
        Kind::PodDisruptionBudget => through::<PodDisruptionBudget>,
        Kind::StatefulSet => through::<StatefulSet>,
        Kind::Deployment => through::<Deployment>,
        Kind::HorizontalPodAutoscaler => through::<HorizontalPodAutoscaler>,
    };
    read(object.value())
}

/// The pod specs in an object.
fn pod_spec(object: &Object) -> Option<&Value> {
    matches!(object.kind(), Kind::Deployment | Kind::StatefulSet).then(|| &object.value()["spec"]["template"]["spec"])
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn every_object_is_well_formed(spec in spec(), requests_per_second in any::<bool>()) {
        let platform = parse(&spec);
        let facts = Facts { requests_per_second, ..Facts::default() };
        let objects = blueprint(&platform, &facts);

        prop_assert_eq!(&objects, &blueprint(&platform, &facts), "the same in, the same out");
        let names: BTreeSet<_> = objects.iter().map(|object| (object.kind(), object.name())).collect();
        prop_assert_eq!(names.len(), objects.len(), "no object stands there twice");
        prop_assert!(objects.is_sorted_by_key(Object::kind), "in the order of the kinds");

        for object in &objects {
            prop_assert_eq!(&through_its_type(object), object.value(), "a field that its kind does not have");
            prop_assert!(object.name().len() <= 63, "{} is too long for a name", object.name());
            prop_assert!(object.name().starts_with(platform.name()));
            let metadata = &object.value()["metadata"];
            prop_assert_eq!(&metadata["namespace"], platform.namespace());
            prop_assert_eq!(&metadata["labels"]["app.kubernetes.io/instance"], platform.name());
            prop_assert_eq!(&metadata["labels"]["app.kubernetes.io/managed-by"], "taskplatform-operator");
        }
    }

    #[test]
    fn every_pod_is_restricted_bounded_probed_and_guarded(spec in spec()) {
        let platform = parse(&spec);
        let objects = blueprint(&platform, &Facts::default());
        for (object, pod) in objects.iter().filter_map(|object| Some((object, pod_spec(object)?))) {
            let name = object.name();
            prop_assert_eq!(&pod["securityContext"]["runAsNonRoot"], true, "{}", name);
            prop_assert_eq!(&pod["securityContext"]["seccompProfile"]["type"], "RuntimeDefault", "{}", name);
            let main = pod["containers"].as_array().unwrap();
            for container in main.iter().chain(pod["initContainers"].as_array().into_iter().flatten()) {
                let security = &container["securityContext"];
                prop_assert_eq!(&security["allowPrivilegeEscalation"], false, "{}", name);
                prop_assert_eq!(&security["readOnlyRootFilesystem"], true, "{}", name);
                prop_assert_eq!(&security["capabilities"]["drop"], &json!(["ALL"]), "{}", name);
                for bound in ["requests", "limits"] {
                    for resource in ["cpu", "memory"] {
                        prop_assert!(container["resources"][bound][resource].is_string(), "{} has no {} of {}", name, bound, resource);
                    }
                }
            }
            for container in main {
                prop_assert!(container["readinessProbe"].is_object() && container["livenessProbe"].is_object(), "{}", name);
            }
            let component = object.component();
            for kind in [Kind::PodDisruptionBudget, Kind::NetworkPolicy] {
                prop_assert!(
                    objects.iter().any(|other| other.kind() == kind && other.component() == component),
                    "{} has no {:?}", component, kind
                );
            }
            let selector = &object.value()["spec"]["selector"]["matchLabels"];
            let labels = &object.value()["spec"]["template"]["metadata"]["labels"];
            for (key, value) in selector.as_object().unwrap() {
                prop_assert_eq!(&labels[key], value, "{} does not select its own pods", name);
            }
        }
    }

    #[test]
    fn no_disruption_budget_blocks_a_drain(spec in spec()) {
        let objects = blueprint(&parse(&spec), &Facts::default());
        for object in objects.iter().filter(|object| object.kind() == Kind::PodDisruptionBudget) {
            let budget = &object.value()["spec"];
            prop_assert!(budget["maxUnavailable"].as_i64().unwrap() >= 1 && budget["minAvailable"].is_null(), "{}", object.name());
        }
    }

    #[test]
    fn nothing_is_planned_for_what_is_applied(spec in spec()) {
        let objects = blueprint(&parse(&spec), &Facts::default());
        prop_assert_eq!(plan(&objects, &applied(&objects), Some(&owner())), []);
    }

    #[test]
    fn a_plan_names_what_differs(before in spec(), after in spec()) {
        let (before, after) = (blueprint(&parse(&before), &Facts::default()), blueprint(&parse(&after), &Facts::default()));
        let changes = plan(&after, &applied(&before), Some(&owner()));
        let planned: BTreeSet<_> = changes.iter().map(|change| (change.kind.as_str(), change.name.as_str())).collect();
        let same = |object: &&Object| before.iter().any(|before| before == *object);
        let expected: BTreeSet<_> =
            after.iter().filter(|object| !same(object)).map(|object| (object.kind().name(), object.name())).collect();
        prop_assert_eq!(planned, expected);
        for change in &changes {
            prop_assert!(change.action == Action::Create || !change.fields.is_empty(), "{:?}", change);
        }
    }

    #[test]
    fn what_is_not_there_is_created_and_what_is_not_wanted_deleted(spec in spec()) {
        let objects = blueprint(&parse(&spec), &Facts::default());
        let count = Totals::of(&plan(&objects, &[], None));
        prop_assert_eq!((count.create, count.change, count.replace, count.delete), (objects.len(), 0, 0, 0));
        let count = Totals::of(&plan(&[], &applied(&objects), Some(&owner())));
        let owned = objects.iter().filter(|object| object.is_owned()).count();
        prop_assert_eq!((count.create, count.change, count.replace, count.delete), (0, 0, 0, owned));
        let stranger = OwnerReference { uid: "another".to_owned(), ..owner() };
        prop_assert_eq!(plan(&[], &applied(&objects), Some(&stranger)), [], "what another owns is not touched");
    }

    #[test]
    fn units_are_what_the_pods_ask_for(spec in spec()) {
        let platform = parse(&spec);
        for unit in units(&platform, platform.api_instances(None)) {
            let objects = blueprint(&platform, &Facts::default());
            let workload = objects.iter().find(|object| object.kind() == unit.kind() && object.name() == unit.name).unwrap();
            prop_assert_eq!(workload.component(), unit.component.name());
            let pod = pod_spec(workload).unwrap();
            let containers = [&pod["initContainers"], &pod["containers"]].into_iter().filter_map(Value::as_array).flatten();
            let requests: Vec<&Value> = containers.map(|container| &container["resources"]["requests"]).collect();
            let cpu: u64 = requests.iter().map(|asked| serde_json::from_value::<Cpu>(asked["cpu"].clone()).unwrap().as_millicores()).sum();
            let memory: u64 = requests.iter().map(|asked| serde_json::from_value::<Size>(asked["memory"].clone()).unwrap().as_bytes()).sum();
            prop_assert_eq!(&workload.value()["spec"]["replicas"], unit.pods);
            prop_assert_eq!((cpu, memory), (unit.resources.cpu.as_millicores(), unit.resources.memory.as_bytes()));
            let claim = &workload.value()["spec"]["volumeClaimTemplates"][0]["spec"]["resources"]["requests"]["storage"];
            prop_assert_eq!(claim, &json!(unit.storage.as_ref().map(|storage| storage.size)));
        }
    }

    #[test]
    fn instances_stay_within_their_bounds(spec in spec()) {
        let platform = parse(&spec);
        let (min, max) = (spec["scaling"]["minInstances"].as_i64().unwrap(), spec["scaling"]["maxInstances"].as_i64().unwrap());
        prop_assert!((min..=max).contains(&i64::from(platform.api_instances(None))));
    }

    #[test]
    fn postgresql_accepts_what_the_poolers_open(spec in spec()) {
        let platform = parse(&spec);
        let pooler = &platform.spec().pooler;
        let opened = pooler.replicas.get() * (pooler.default_pool_size.get() + pooler.reserve_pool_size.get()) * 2;
        let parameters = taskplatform_blueprint::dynamic_configuration(&platform)["postgresql"]["parameters"].clone();
        let accepted: i32 = parameters["max_connections"].as_str().unwrap().parse().unwrap();
        prop_assert!(opened < accepted, "the poolers may open {} connections, PostgreSQL accepts {}", opened, accepted);
        prop_assert_eq!(&parameters["work_mem"], "2MB", "what the user says comes first");
    }

    #[test]
    fn postgresql_can_use_what_follows_from_the_spec(spec in spec()) {
        let platform = parse(&spec);
        let mut parameters = taskplatform_blueprint::dynamic_configuration(&platform)["postgresql"]["parameters"].clone();
        // The operator's own: whoever writes it is refused.
        parameters.as_object_mut().unwrap().remove("wal_log_hints");
        let mut said = spec;
        said["database"]["parameters"] = parameters;
        parse(&said);
    }
}

#[test]
fn without_a_provider_the_autoscaler_does_not_ask_for_requests_per_second() {
    let platform = parse(&json!({}));
    let metrics = |requests_per_second| {
        let objects = blueprint(&platform, &Facts { requests_per_second, ..Facts::default() });
        let autoscaler = objects.iter().find(|object| object.kind() == Kind::HorizontalPodAutoscaler).unwrap();
        autoscaler.value()["spec"]["metrics"].as_array().unwrap().len()
    };
    assert_eq!((metrics(false), metrics(true)), (2, 3));
}
