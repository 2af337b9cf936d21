//! `taskplatform status` says how a platform is, and what is wrong with it first.

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::Namespace;
use kube::{Api, api::DeleteParams};
use serde_json::{Value, json};
use taskplatform_tests::{cluster, eventually, explained, platform::Platform};

use crate::{shared_platform, small, taskplatform, turn};

fn status(name: &str, more: &[&str]) -> Result<String> {
    let output = taskplatform(&[&["status", name, "-n", name], more].concat(), "")?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?)
}

fn figures<'a>(tree: &'a Value, component: &str) -> Result<&'a Value> {
    let components = tree["components"].as_array().context("no components")?;
    let found = components.iter().find(|found| found["name"] == component);
    Ok(&found.with_context(|| format!("no {component} in {tree:#}"))?["figures"])
}

fn sum(rows: &Value, column: &str) -> i64 {
    rows.as_array().into_iter().flatten().filter_map(|row| row[column].as_i64()).sum()
}

#[tokio::test]
async fn the_figures_of_every_component_are_told() -> Result<()> {
    let _turn = turn().await;
    explained("e2e", async {
        let platform = shared_platform().await?;
        // The CPU of pods that have just come is measured after a minute or two.
        eventually("the figures are those of a platform that serves", 150, async || {
            let tree: Value = serde_json::from_str(&status("e2e", &["-o", "json"])?)?;
            ensure!(tree["ready"] == true, "{tree:#}");

            let database = figures(&tree, "database")?;
            let members = database["members"].as_array().context("no members")?;
            let of = |role: &str| members.iter().filter(|member| member["role"] == role).collect::<Vec<_>>();
            let (primaries, replicas) = (of("primary"), of("replica"));
            ensure!(primaries.len() == 1 && primaries[0]["pod"] == database["primary"], "{database:#}");
            ensure!(replicas.len() == 1 && replicas[0]["lagBytes"].is_i64(), "{database:#}");

            let poolers = &figures(&tree, "pooler")?["instances"];
            ensure!(poolers.as_array().is_some_and(|poolers| poolers.len() == 2), "{poolers:#}");
            ensure!(sum(poolers, "clients") > 0 && sum(poolers, "waiting") == 0, "{poolers:#}");

            for cluster in ["cache", "sessions"] {
                let nodes = &figures(&tree, cluster)?["nodes"];
                ensure!(nodes.as_array().is_some_and(|nodes| nodes.len() == 6), "{nodes:#}");
                ensure!(sum(nodes, "slots") == 16384 && sum(nodes, "usedMemoryBytes") > 0, "{nodes:#}");
            }

            let metrics = &figures(&tree, "autoscaler")?["metrics"];
            let cpu = metrics.as_array().and_then(|metrics| metrics.iter().find(|metric| metric["metric"] == "CPU"));
            let cpu = cpu.context("no CPU")?;
            ensure!(cpu["current"].is_i64() && cpu["below"] == 30 && cpu["above"] == 80, "{cpu:#}");
            Ok(())
        })
        .await?;

        let text = eventually("the primary is told", 30, async || {
            let (text, primary) = (status("e2e", &[])?, platform.primary().await?);
            ensure!(text.starts_with("e2e in namespace e2e: serves") && text.contains(&primary), "{text}");
            Ok(text)
        })
        .await?;
        ensure!(!text.contains('\x1b'), "colours are for terminals:\n{text}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn what_is_wrong_is_told_first() -> Result<()> {
    const NAME: &str = "untold";
    let _turn = turn().await;
    explained(NAME, async {
        let client = cluster::client().await?;
        cluster::namespace_without_pods(&client, NAME).await?;
        let mut spec = small();
        spec["gateway"]["service"] = json!({"type": "ClusterIP"});
        let platform = Platform { client: client.clone(), name: NAME };
        platform.apply(spec).await?;

        eventually("status tells of the quota", 60, async || {
            let text = status(NAME, &[])?;
            let lines: Vec<&str> = text.lines().collect();
            ensure!(lines.first().is_some_and(|line| line.ends_with("does not serve")), "{text}");
            let first =
                lines.iter().find(|line| line.starts_with('✗') || line.starts_with('✓')).context("no component")?;
            ensure!(first.starts_with("✗ database 0/2"), "{text}");
            ensure!(text.contains("exceeded quota: no-pods"), "{text}");
            ensure!(lines.iter().all(|line| line.chars().count() <= 80 || !line.contains(' ')), "{text}");
            Ok(())
        })
        .await?;
        let missing = taskplatform(&["status", "nobody", "-n", NAME], "")?;
        let why = String::from_utf8_lossy(&missing.stderr).into_owned();
        ensure!(!missing.status.success() && why.contains("there is no TaskPlatform nobody"), "{why}");

        platform.api().delete(NAME, &DeleteParams::foreground()).await?;
        let namespaces: Api<Namespace> = Api::all(client);
        namespaces.delete(NAME, &DeleteParams::background()).await?;
        Ok(())
    })
    .await
}
