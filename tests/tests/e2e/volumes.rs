//! The database's volumes fill up: writes stop cleanly, reads go on, and nobody has to lend a hand when there is room again.

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::{
    core::v1::{PersistentVolume, PersistentVolumeClaim},
    storage::v1::StorageClass,
};
use kube::{
    Api, Client, ResourceExt,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams},
};
use reqwest::{Method, StatusCode};
use serde_json::json;
use taskplatform_tests::{
    cluster, eventually, explained,
    http::{User, unique},
    platform::Platform,
};
use tokio::process::Command;

use crate::{shared_platform, small_with, turn, without_nulls};

const NAME: &str = "e2e-full";
/// Where each node has a file system of its own for a volume.
const PATH: &str = "/var/e2e-full";

/// Runs something on a node of the kind cluster.
async fn on_node(node: &str, script: &str) -> Result<()> {
    let ran = Command::new("docker").args(["exec", node, "sh", "-ec", script]).output().await?;
    ensure!(ran.status.success(), "{script} on {node}: {}", String::from_utf8_lossy(&ran.stderr));
    Ok(())
}

/// File systems in memory, one a node, as volumes of a storage class that lets them grow. Its driver, which makes them larger, is the test.
struct Volumes {
    client: Client,
    nodes: Vec<String>,
}

impl Volumes {
    async fn create(client: Client, mebibytes: u32) -> Result<Self> {
        let nodes = ["worker", "worker2"].map(node).into_iter().collect::<Result<_>>()?;
        let volumes = Self { client, nodes };
        volumes.remove().await?;
        let class = json!({
            "metadata": {"name": NAME}, "provisioner": "kubernetes.io/no-provisioner",
            "allowVolumeExpansion": true, "volumeBindingMode": "WaitForFirstConsumer",
        });
        let classes: Api<StorageClass> = Api::all(volumes.client.clone());
        classes.create(&PostParams::default(), &serde_json::from_value(class)?).await?;
        for node in &volumes.nodes {
            on_node(node, &format!("mkdir -p {PATH}; mount -t tmpfs -o mode=0777,size={mebibytes}m full {PATH}"))
                .await?;
            let on_the_node = json!([{"key": "kubernetes.io/hostname", "operator": "In", "values": [node]}]);
            let volume = json!({
                "metadata": {"name": format!("{NAME}-{node}")},
                "spec": {
                    "capacity": {"storage": format!("{mebibytes}Mi")}, "accessModes": ["ReadWriteOnce"],
                    "storageClassName": NAME, "persistentVolumeReclaimPolicy": "Retain", "local": {"path": PATH},
                    "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": on_the_node}]}},
                },
            });
            volumes.all().create(&PostParams::default(), &serde_json::from_value(volume)?).await?;
        }
        Ok(volumes)
    }

    fn all(&self) -> Api<PersistentVolume> {
        Api::all(self.client.clone())
    }

    /// Makes them as large as their claims ask for, as a driver does.
    async fn grow(&self, claims: &Api<PersistentVolumeClaim>, size: &str) -> Result<()> {
        for node in &self.nodes {
            on_node(node, &format!("mount -o remount,size={} {PATH}", size.trim_end_matches('i'))).await?;
        }
        let capacity = json!({"capacity": {"storage": size}});
        for volume in self.all().list(&ListParams::default()).await?.items {
            if volume.name_any().starts_with(NAME) {
                let grown = Patch::Merge(json!({"spec": capacity}));
                self.all().patch(&volume.name_any(), &PatchParams::default(), &grown).await?;
            }
        }
        for claim in of_database(claims).await? {
            let grown = Patch::Merge(json!({"status": capacity}));
            claims.patch_status(&claim.name_any(), &PatchParams::default(), &grown).await?;
        }
        Ok(())
    }

    async fn remove(&self) -> Result<()> {
        let classes: Api<StorageClass> = Api::all(self.client.clone());
        drop(classes.delete(NAME, &DeleteParams::default()).await);
        for node in &self.nodes {
            drop(self.all().delete(&format!("{NAME}-{node}"), &DeleteParams::default()).await);
            on_node(node, &format!("! mountpoint -q {PATH} || umount -l {PATH}")).await?;
        }
        eventually("the volumes are gone", 60, async || {
            let left = self.all().list(&ListParams::default()).await?.items;
            ensure!(!left.iter().any(|volume| volume.name_any().starts_with(NAME)), "some are left");
            Ok(())
        })
        .await
    }
}

/// A node of the cluster under test.
fn node(name: &str) -> Result<String> {
    let context = std::env::var("KUBE_CONTEXT").unwrap_or_else(|_| "kind-taskplatform".to_owned());
    let cluster = context.strip_prefix("kind-").with_context(|| format!("{context} is no kind cluster"))?;
    Ok(format!("{cluster}-{name}"))
}

async fn of_database(claims: &Api<PersistentVolumeClaim>) -> Result<Vec<PersistentVolumeClaim>> {
    let labels = ListParams::default().labels("app.kubernetes.io/component=database");
    Ok(claims.list(&labels).await?.items)
}

/// Leaves so many mebibytes of the primary's volume. From its node: what a pod writes into memory counts as its own.
async fn leave(platform: &Platform, mebibytes: u32) -> Result<()> {
    let primary = platform.primary().await?;
    let pods = platform.pods("database").await?;
    let pod = pods.into_iter().find(|pod| pod.name_any() == primary).context("no such pod")?;
    let node = pod.spec.and_then(|spec| spec.node_name).context("no node")?;
    let script = format!(
        "free=$(df -m --output=avail {PATH} | tail -1); fallocate -l $((free - {mebibytes}))M {PATH}/ballast-{mebibytes}"
    );
    on_node(&node, &script).await
}

/// Waits until a condition is false for a reason.
async fn until_false(platform: &Platform, type_: &str, reason: &str) -> Result<()> {
    eventually(&format!("{type_} is false: {reason}"), 60, async || {
        let condition = platform.condition(type_).await?;
        ensure!(condition.status == "False" && condition.reason == reason, "{condition:?}");
        Ok(())
    })
    .await
}

#[tokio::test]
#[ignore = "4 min: make test-long"]
async fn a_volume_that_is_full_stops_writes_alone_and_grows() -> Result<()> {
    let _turn = turn().await;
    shared_platform().await?;
    let client = cluster::client().await?;
    cluster::remove_namespace(&client, NAME).await?;
    let volumes = Volumes::create(client.clone(), 512).await?;
    let lived = explained(NAME, Box::pin(fill_up(&volumes))).await;
    // Whatever has happened, the tests that follow need the room.
    let removed = cluster::remove_namespace(&client, NAME).await;
    let cleaned = volumes.remove().await;
    lived.and(removed).and(cleaned)
}

async fn fill_up(volumes: &Volumes) -> Result<()> {
    let spec = without_nulls(small_with(&json!({
        "gateway": {"service": {"type": "ClusterIP", "nodePort": null}, "replicas": 1},
        // What it writes into memory is its own.
        "database": {"resources": {"memory": "768Mi"}, "storage": {"size": "512Mi", "class": NAME, "autogrow": {"limit": "1Gi"}}},
    })));
    let platform = Platform::create(NAME, spec).await?;
    platform.settled().await?;
    platform.wait_for("VolumesHaveRoom", "True", 60).await?;
    let gateway = platform.pods("gateway").await?.first().context("no gateway")?.name_any();
    let url = cluster::forward(&platform.client, NAME, &gateway, 8080).await?;
    let user = User::register(&url, &unique("mary")).await?;
    user.create("There is room").await?;

    leave(&platform, 40).await?;
    let began = std::time::Instant::now();
    eventually("writes are refused cleanly", 30, async || {
        let title = json!({"title": "There is none"});
        user.send(Method::POST, "/api/tasks", Some(title), StatusCode::SERVICE_UNAVAILABLE).await
    })
    .await?;
    ensure!(user.titles().await?.contains(&"There is room".to_owned()), "reads go on");
    until_false(&platform, "VolumesHaveRoom", "Full").await?;
    until_false(&platform, "DatabaseReady", "VolumeFull").await?;
    let claims: Api<PersistentVolumeClaim> = Api::namespaced(platform.client.clone(), NAME);
    eventually("all volumes are to grow", 60, async || {
        for claim in of_database(&claims).await? {
            let asked = claim.spec.and_then(|spec| spec.resources).and_then(|resources| resources.requests);
            let asked = asked.and_then(|asked| asked.get("storage").cloned()).context("it asks for nothing")?;
            ensure!(asked.0 == "1Gi", "it asks for {asked:?}");
        }
        Ok(())
    })
    .await?;
    ensure!(platform.sql("SELECT pg_is_in_recovery()").await? == "f", "the primary has led all the while");

    volumes.grow(&claims, "1Gi").await?;
    eventually("writes go on by themselves", 30, async || user.create("There is room again").await).await?;
    platform.wait_for("VolumesHaveRoom", "True", 60).await?;
    platform.settled().await?;

    leave(&platform, 150).await?;
    until_false(&platform, "VolumesHaveRoom", "AtLimit").await?;
    user.create("There is little room").await?;
    println!("the volume was full and grew within {:?}", began.elapsed());
    Ok(())
}
