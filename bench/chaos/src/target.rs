//! The platform that is broken, and its cluster.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::{
    apps::v1::StatefulSet,
    core::v1::{Endpoints, Pod},
};
use kube::{
    Api, Client, ResourceExt,
    api::{ListParams, Patch, PatchParams},
};
use serde_json::json;
use taskplatform_crds::{SWITCHOVER, TaskPlatform};
use tokio::{process::Command, time::sleep};

/// The namespace of the operator.
pub(crate) const OPERATOR: &str = "taskplatform-system";
const LONGEST_COMMAND: Duration = Duration::from_mins(2);

/// The platform that is broken.
pub(crate) struct Target {
    pub(crate) client: Client,
    pub(crate) name: String,
    pub(crate) namespace: String,
    pub(crate) url: String,
}

impl Target {
    pub(crate) async fn new(name: &str, namespace: &str, url: &str) -> Result<Self> {
        let client = Client::try_default().await?;
        Ok(Self { client, name: name.to_owned(), namespace: namespace.to_owned(), url: url.to_owned() })
    }

    pub(crate) fn pods(&self) -> Api<Pod> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// Until the platform is ready, and every member of the database follows.
    pub(crate) async fn settled(&self) -> Result<()> {
        eventually("everything is as it should be", 300, async || {
            let api: Api<TaskPlatform> = Api::namespaced(self.client.clone(), &self.namespace);
            let status = api.get(&self.name).await?.status.context("no status")?;
            for (type_, wanted) in [
                ("Ready", "True"),
                ("Reconciling", "False"),
                ("DatabaseReady", "True"),
                ("PoolerReady", "True"),
                ("DatabaseDurable", "True"),
                ("SurvivesNodeLoss", "True"),
            ] {
                let condition = status.conditions.iter().find(|condition| condition.type_ == type_);
                let condition = condition.with_context(|| format!("no condition {type_}"))?;
                // Without waiting for a replica, that is how it should be.
                let is_so = condition.status == wanted || condition.reason == "Asynchronous";
                ensure!(is_so, "{type_}: {}", condition.message);
                ensure!(condition.reason != "OneNode", "{type_}: {}", condition.message);
            }
            for pod in self.pods_of("").await? {
                let ready = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
                let is_ready =
                    ready.into_iter().any(|condition| condition.type_ == "Ready" && condition.status == "True");
                ensure!(is_ready && pod.metadata.deletion_timestamp.is_none(), "{} is not ready", pod.name_any());
            }
            let members = self.members().await?.status.unwrap_or_default();
            let (now, wanted) = (members.updated_replicas, Some(members.replicas));
            ensure!(now == wanted, "{now:?} of {wanted:?} members of the database are as they should be");
            self.operator_stands_apart().await
        })
        .await
    }

    /// What the members of the database are made by.
    async fn members(&self) -> Result<StatefulSet> {
        let api: Api<StatefulSet> = Api::namespaced(self.client.clone(), &self.namespace);
        Ok(api.get(&format!("{}-database", self.name)).await?)
    }

    /// The pods of the operator.
    pub(crate) async fn operator(&self) -> Result<Vec<Pod>> {
        let operator: Api<Pod> = Api::namespaced(self.client.clone(), OPERATOR);
        let labels = ListParams::default().labels("app.kubernetes.io/name=taskplatform-operator");
        Ok(operator.list(&labels).await?.items)
    }

    /// Whether a node may be lost without the whole operator.
    async fn operator_stands_apart(&self) -> Result<()> {
        let pods = self.operator().await?;
        let nodes: BTreeSet<_> = pods.iter().filter_map(|pod| pod.spec.as_ref()?.node_name.as_ref()).collect();
        ensure!(nodes.len() > 1, "all replicas of the operator are on one node");
        Ok(())
    }

    /// Gives the members of the database a little more or less.
    pub(crate) async fn change_members(&self) -> Result<()> {
        let api: Api<TaskPlatform> = Api::namespaced(self.client.clone(), &self.namespace);
        let cpu = api.get(&self.name).await?.spec.database.resources.cpu;
        let other = if cpu.as_millicores() == 100 { "101m" } else { "100m" };
        let change = json!({"spec": {"database": {"resources": {"cpu": other}}}});
        api.patch(&self.name, &PatchParams::default(), &Patch::Merge(change)).await?;
        self.change_is_seen().await
    }

    /// Has the operator run PostgreSQL of another image, which is the same one by another name.
    pub(crate) async fn change_image(&self, nodes: &BTreeSet<String>) -> Result<()> {
        const NOW: &str =
            "jsonpath={.spec.template.spec.containers[0].env[?(@.name==\"RELATED_IMAGE_POSTGRES\")].value}";
        const AGAIN: &str = "-again";
        let operator = "deployment/taskplatform-operator";
        let image = command("kubectl", &["get", operator, "-n", OPERATOR, "-o", NOW]).await?;
        let other = image.strip_suffix(AGAIN).map_or_else(|| format!("{image}{AGAIN}"), str::to_owned);
        for node in nodes {
            let (from, to) = (format!("docker.io/{image}"), format!("docker.io/{other}"));
            command("docker", &["exec", node, "ctr", "-n", "k8s.io", "images", "tag", "--force", &from, &to]).await?;
        }
        let change = format!("RELATED_IMAGE_POSTGRES={other}");
        command("kubectl", &["set", "env", operator, "-n", OPERATOR, &change]).await?;
        eventually("the members are to have the other image", 120, async || {
            let members = self.members().await?.spec.and_then(|spec| spec.template.spec).context("no template")?;
            ensure!(members.containers.iter().any(|container| container.image.as_ref() == Some(&other)), "not yet");
            Ok(())
        })
        .await
    }

    /// Until the operator has seen a change, everything is as it was.
    async fn change_is_seen(&self) -> Result<()> {
        let api: Api<TaskPlatform> = Api::namespaced(self.client.clone(), &self.namespace);
        eventually("the change is seen", 60, async || {
            let platform = api.get(&self.name).await?;
            let status = platform.status.context("no status")?;
            ensure!(Some(status.observed_generation) == platform.metadata.generation, "not yet");
            let reconciling = status.conditions.iter().find(|condition| condition.type_ == "Reconciling");
            ensure!(reconciling.is_some_and(|condition| condition.status == "True"), "nothing is on its way");
            Ok(())
        })
        .await
    }

    /// Has another member of the database lead, and waits until it does.
    pub(crate) async fn switch_over(&self) -> Result<()> {
        let api: Api<TaskPlatform> = Api::namespaced(self.client.clone(), &self.namespace);
        let wish = json!({"metadata": {"annotations": {SWITCHOVER: "any"}}});
        api.patch_metadata(&self.name, &PatchParams::default(), &Patch::Merge(wish)).await?;
        eventually("another member leads", 60, async || {
            let annotations = api.get_metadata(&self.name).await?.metadata.annotations.unwrap_or_default();
            ensure!(!annotations.contains_key(SWITCHOVER), "it is still wanted");
            Ok(())
        })
        .await
    }

    /// The pods of a component, or all.
    pub(crate) async fn pods_of(&self, component: &str) -> Result<Vec<Pod>> {
        let mut labels = format!("app.kubernetes.io/instance={}", self.name);
        if !component.is_empty() {
            labels = format!("{labels},app.kubernetes.io/component={component}");
        }
        Ok(self.pods().list(&ListParams::default().labels(&labels)).await?.items)
    }

    /// The pod that leads, as Patroni has written it down.
    pub(crate) async fn primary(&self) -> Result<Pod> {
        let api: Api<Endpoints> = Api::namespaced(self.client.clone(), &self.namespace);
        let endpoints = api.get(&format!("{}-database-primary", self.name)).await?;
        let leader = endpoints.annotations().get("leader").context("nobody leads")?;
        Ok(self.pods().get(leader).await?)
    }
}

/// The node of a pod.
pub(crate) fn node(pod: &Pod) -> Result<String> {
    pod.spec.as_ref().and_then(|spec| spec.node_name.clone()).context("a pod without a node")
}

/// Runs a program of this host.
pub(crate) async fn command(program: &str, arguments: &[&str]) -> Result<String> {
    let run = Command::new(program).args(arguments).kill_on_drop(true).output();
    let output =
        tokio::time::timeout(LONGEST_COMMAND, run).await.with_context(|| format!("{program} does not end"))??;
    ensure!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// Asks again until there is an answer.
pub(crate) async fn eventually<T>(what: &str, seconds: u64, mut ask: impl AsyncFnMut() -> Result<T>) -> Result<T> {
    let began = Instant::now();
    loop {
        match ask().await {
            Ok(answer) => return Ok(answer),
            Err(error) if began.elapsed() > Duration::from_secs(seconds) => {
                return Err(error).with_context(|| format!("not within {seconds} s: {what}"));
            }
            Err(_) => sleep(Duration::from_millis(300)).await,
        }
    }
}
