//! A platform under test.

use anyhow::{Context, Result, ensure};
use k8s_openapi::{api::core::v1::Pod, apimachinery::pkg::apis::meta::v1::Condition};
use kube::{
    Api, Client, ResourceExt,
    api::{DeleteParams, Patch, PatchParams},
};
use serde_json::{Value, json};
use taskplatform_crds::TaskPlatform;

use crate::{cluster, eventually};

/// A TaskPlatform in a namespace of its own name.
pub struct Platform {
    /// A client of the cluster.
    pub client: Client,
    /// The platform's name, and its namespace's.
    pub name: &'static str,
}

impl Platform {
    /// The platform of this name, created with this spec where it does not exist.
    ///
    /// # Errors
    /// When the API server refuses it.
    pub async fn create(name: &'static str, spec: Value) -> Result<Self> {
        let client = cluster::client().await?;
        cluster::namespace(&client, name).await?;
        let platform = Self { client, name };
        platform.apply(spec).await?;
        Ok(platform)
    }

    /// Its API.
    pub fn api(&self) -> Api<TaskPlatform> {
        Api::namespaced(self.client.clone(), self.name)
    }

    /// Applies a spec as `kubectl apply --server-side` does.
    ///
    /// # Errors
    /// When the API server refuses it.
    pub async fn apply(&self, spec: Value) -> Result<TaskPlatform> {
        let platform = json!({
            "apiVersion": "taskplatform.dev/v1alpha1", "kind": "TaskPlatform",
            "metadata": {"name": self.name}, "spec": spec,
        });
        Ok(self.api().patch(self.name, &PatchParams::apply("e2e").force(), &Patch::Apply(platform)).await?)
    }

    /// Its condition of this type, once it speaks of the spec as it is now.
    ///
    /// # Errors
    /// While there is none.
    pub async fn condition(&self, type_: &str) -> Result<Condition> {
        let platform = self.api().get(self.name).await?;
        let current = platform.metadata.generation;
        let conditions = platform.status.into_iter().flat_map(|status| status.conditions);
        let found = conditions
            .into_iter()
            .find(|condition| condition.type_ == type_ && condition.observed_generation == current);
        found.with_context(|| format!("no condition {type_} of generation {current:?}"))
    }

    /// Waits until a condition has a status.
    ///
    /// # Errors
    /// When it has not within the time; what it said last is in the error.
    pub async fn wait_for(&self, type_: &str, status: &str, seconds: u64) -> Result<Condition> {
        eventually(&format!("{} {type_}={status}", self.name), seconds, async || {
            let condition = self.condition(type_).await?;
            ensure!(
                condition.status == status,
                "{type_} is {}: {} {}",
                condition.status,
                condition.reason,
                condition.message
            );
            Ok(condition)
        })
        .await
    }

    /// Waits until the platform serves and everything is as the spec says.
    ///
    /// # Errors
    /// When it is not within five minutes.
    pub async fn settled(&self) -> Result<()> {
        self.wait_for("Ready", "True", 300).await?;
        self.wait_for("Reconciling", "False", 300).await?;
        Ok(())
    }

    /// The pods of a component.
    ///
    /// # Errors
    /// When the API server does not answer.
    pub async fn pods(&self, component: &str) -> Result<Vec<Pod>> {
        let labels = format!("app.kubernetes.io/instance={},app.kubernetes.io/component={component}", self.name);
        cluster::pods(&self.client, self.name, &labels).await
    }

    /// Says whether every pod of a component is ready and of the latest template, as its condition tells.
    ///
    /// # Errors
    /// While one is not.
    pub async fn all_ready(&self, component: &str) -> Result<()> {
        let condition = self.condition(&format!("{}{}Ready", component[..1].to_uppercase(), &component[1..])).await?;
        ensure!(condition.status == "True", "{}: {}", condition.reason, condition.message);
        let not_ready = self
            .pods(component)
            .await?
            .iter()
            .filter(|pod| !is_ready(pod))
            .map(ResourceExt::name_any)
            .collect::<Vec<_>>();
        ensure!(not_ready.is_empty(), "not ready: {not_ready:?}");
        Ok(())
    }

    /// Kills a pod, as a crash does: it has a second to end. Returns its uid.
    ///
    /// # Errors
    /// When there is none of this name.
    pub async fn kill(&self, pod: &str) -> Result<Option<String>> {
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), self.name);
        let uid = pods.get(pod).await?.uid();
        pods.delete(pod, &DeleteParams::default().grace_period(1)).await?;
        Ok(uid)
    }

    /// The pod of the PostgreSQL primary, as the status names it. It names none after a look that no pod answered.
    ///
    /// # Errors
    /// When it names none within half a minute.
    pub async fn primary(&self) -> Result<String> {
        eventually("a primary is told", 30, async || {
            let status = self.api().get(self.name).await?.status.context("no status")?;
            let primary = status.database.context("no database")?.primary;
            ensure!(!primary.is_empty(), "no primary");
            Ok(primary)
        })
        .await
    }

    /// What the primary answers to a statement of the superuser.
    ///
    /// # Errors
    /// When it fails.
    pub async fn sql(&self, statement: &str) -> Result<String> {
        let primary = self.primary().await?;
        let command = ["psql", "-XAt", "-h", "/tmp", "-U", "postgres", "-d", "tasks", "-c", statement];
        Ok(cluster::exec(&self.client, self.name, &primary, &command).await?.trim().to_owned())
    }

    /// What the Secret has under a key.
    ///
    /// # Errors
    /// When there is nothing.
    pub async fn password(&self, key: &str) -> Result<String> {
        let secrets: Api<k8s_openapi::api::core::v1::Secret> = Api::namespaced(self.client.clone(), self.name);
        let secret = secrets.get(&format!("{}-credentials", self.name)).await?;
        let value = secret.data.unwrap_or_default().remove(key).with_context(|| format!("no key {key}"))?;
        Ok(String::from_utf8(value.0)?)
    }

    /// Logs in to the tasks through a PgBouncer.
    ///
    /// # Errors
    /// When it refuses the user.
    pub async fn logs_in(&self, pod: &Pod, user: &str, password: &str) -> Result<()> {
        let stream = cluster::connect(&self.client, self.name, &pod.name_any(), 6432).await?;
        let mut config = tokio_postgres::Config::new();
        config.user(user).dbname("tasks").password(password);
        let (client, connection) = config.connect_raw(stream, tokio_postgres::NoTls).await?;
        tokio::spawn(connection);
        client.simple_query("SELECT 1").await?;
        Ok(())
    }

    /// PgBouncer's settings, as `SHOW CONFIG` tells them, of one pod.
    ///
    /// # Errors
    /// When PgBouncer does not answer.
    pub async fn pgbouncer_setting(&self, pod: &Pod, setting: &str) -> Result<String> {
        let stream = cluster::connect(&self.client, self.name, &pod.name_any(), 6432).await?;
        // Every second password is another user's.
        let version = self.password("pooler-password.version").await.unwrap_or_default();
        let user = if version.parse().unwrap_or(0) % 2 == 1 { "pgbouncer_2" } else { "pgbouncer" };
        let mut config = tokio_postgres::Config::new();
        config.user(user).dbname("pgbouncer").password(self.password("pooler-password").await?);
        let (client, connection) = config.connect_raw(stream, tokio_postgres::NoTls).await?;
        tokio::spawn(connection);
        for message in client.simple_query("SHOW CONFIG").await? {
            if let tokio_postgres::SimpleQueryMessage::Row(row) = message
                && row.get("key") == Some(setting)
            {
                return Ok(row.get("value").unwrap_or_default().to_owned());
            }
        }
        anyhow::bail!("PgBouncer has no setting {setting}")
    }
}

fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.into_iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}
