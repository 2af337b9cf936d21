//! Passwords are changed while people work.

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Result, ensure};
use k8s_openapi::api::core::v1::Secret;
use kube::{
    Api, ResourceExt,
    api::{Patch, PatchParams},
};
use serde_json::json;
use taskplatform_tests::{
    cluster, eventually, explained,
    http::{User, gateway, unique},
    ledger::Ledger,
    platform::Platform,
};
use tokio::sync::watch;

use crate::{shared_platform, turn};

/// All but the signing key, whose predecessor is taken for an hour.
const KEYS: [&str; 8] = [
    "postgres-password",
    "replication-password",
    "rewind-password",
    "patroni-password",
    "tasks-password",
    "pooler-password",
    "cache-password",
    "sessions-password",
];

/// Writes until it is told to stop, and not one write fails.
async fn write(user: User, mut stop: watch::Receiver<bool>) -> Result<Ledger> {
    let mut ledger = Ledger::new(user);
    loop {
        ensure!(ledger.write().await?, "a task was not acknowledged");
        tokio::select! {
            _ = stop.wait_for(|stop| *stop) => break,
            () = tokio::time::sleep(Duration::from_millis(100)) => {}
        }
    }
    Ok(ledger)
}

/// Whether a node of the cache takes a password.
async fn redis_takes(platform: &Platform, password: &str) -> Result<bool> {
    let ping = ["redis-cli", "--no-auth-warning", "-a", password, "PING"];
    let pod = format!("{}-cache-0", platform.name);
    Ok(cluster::exec(&platform.client, platform.name, &pod, &ping).await?.contains("PONG"))
}

/// The kubelet brings what changed in a Secret when it next looks, a minute and a half later, and that twice.
#[tokio::test]
#[ignore = "4 min: make test-long"]
async fn every_password_is_changed_while_users_write_and_none_of_them_notices() -> Result<()> {
    let _turn = turn().await;
    explained("e2e", async {
        let platform = shared_platform().await?;
        platform.settled().await?;
        let (stop, stopped) = watch::channel(false);
        let user = User::register(&gateway(), &unique("rotation")).await?;
        let writer = tokio::spawn(write(user, stopped));

        let former = platform.password("cache-password").await?;
        let former_tasks = platform.password("tasks-password").await?;
        let chosen = KEYS.map(|key| (key, unique(key).replace('@', ".")));
        let chosen: BTreeMap<&str, String> = chosen.into_iter().collect();
        let secrets: Api<Secret> = Api::namespaced(platform.client.clone(), platform.name);
        let name = format!("{}-credentials", platform.name);
        secrets.patch(&name, &PatchParams::default(), &Patch::Merge(json!({"stringData": chosen}))).await?;

        eventually("the passwords before are taken no more", 600, async || {
            let data = secrets.get(&name).await?.data.unwrap_or_default();
            for key in KEYS {
                let slots = [".a", ".b"].iter().filter(|slot| data.contains_key(&format!("{key}{slot}"))).count();
                ensure!(data.contains_key(&format!("{key}.version")), "{key} has not been changed");
                ensure!(slots == 1, "{key}: both are taken");
            }
            Ok(())
        })
        .await?;
        platform.settled().await?;
        ensure!(!writer.is_finished(), "{:?}", writer.await?.err());
        stop.send_replace(true);
        let written = writer.await??.reconcile().await?;
        ensure!(written > 300, "it has written {written} tasks only");

        ensure!(redis_takes(&platform, &chosen["cache-password"]).await?, "the cache takes the chosen one");
        ensure!(!redis_takes(&platform, &former).await?, "the cache takes the former");
        let logins =
            platform.sql("SELECT string_agg(rolname, ',' ORDER BY rolname) FROM pg_roles WHERE rolcanlogin").await?;
        let is_second = platform.password("tasks-password.version").await?.parse::<u32>()? % 2 == 1;
        let wanted = if is_second {
            "postgres,replicator,replicator_2,rewind,rewind_2,tasks,tasks_2"
        } else {
            "postgres,replicator,rewind,tasks"
        };
        ensure!(logins == wanted, "{logins}");
        // As somebody does who knows nothing of second users.
        eventually("the poolers take the chosen one and not the former", 180, async || {
            for pod in platform.pods("pooler").await? {
                let takes = async |password: &str| platform.logs_in(&pod, "tasks", password).await;
                ensure!(takes(&chosen["tasks-password"]).await.is_ok(), "{} does not take it", pod.name_any());
                ensure!(takes(&former_tasks).await.is_err(), "{} takes the former", pod.name_any());
            }
            Ok(())
        })
        .await?;
        let owner = platform.sql("SELECT DISTINCT tableowner FROM pg_tables WHERE tablename = 'tasks'").await?;
        ensure!(owner == "tasks", "{owner}");
        Ok(())
    })
    .await
}
