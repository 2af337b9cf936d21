//! Somebody who has never seen this gets from a number of users to a platform that serves, by what the commands print.

use std::process::{Child, Command, Output, Stdio};

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::Namespace;
use kube::{Api, api::DeleteParams};
use serde_json::{Value, json};
use taskplatform_tests::{
    cluster, eventually, explained,
    http::{User, unique},
    platform::Platform,
};

use crate::{command_line, turn};

const NAME: &str = "started";

/// A command in the background, which ends with the test.
struct Background(Child);

impl Drop for Background {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Runs the command line, and gives what it prints.
async fn run(arguments: &[&str]) -> Result<String> {
    let mut command = command_line(arguments)?;
    let Output { status, stdout, stderr } = tokio::task::spawn_blocking(move || command.output()).await??;
    let (stdout, stderr) = (String::from_utf8(stdout)?, String::from_utf8(stderr)?);
    ensure!(status.success(), "{arguments:?}: {stdout}\n{stderr}");
    Ok(stdout)
}

#[tokio::test]
async fn ten_thousand_users_get_a_platform_by_what_the_commands_print() -> Result<()> {
    let _turn = turn().await;
    explained(NAME, async {
        let client = cluster::client().await?;
        cluster::namespace(&client, NAME).await?;
        let file = std::env::temp_dir().join(format!("tp-{}.yaml", std::process::id()));
        let name = file.display().to_string();

        let proposal = run(&["size", "--users", "10000", "--nodes", "2x1cpu,6Gi"]).await?;
        std::fs::write(&file, &proposal)?;
        for command in ["taskplatform check -f", "taskplatform apply -f"] {
            ensure!(proposal.contains(command), "the proposal does not tell of {command}:\n{proposal}");
        }
        let checked = run(&["check", "-f", &name, "-n", NAME, "--no-trial"]).await?;
        ensure!(checked.contains(" 0 failed"), "{checked}");

        let applied = run(&["apply", "-f", &name, "-n", NAME, "--yes", "--timeout", "10m"]).await?;
        ensure!(applied.contains("0 to change, 0 to delete"), "{applied}");
        let _forwarded = serves_where_it_says(&applied).await?;
        let status =
            applied.lines().find_map(|line| line.strip_prefix("How it is: taskplatform ")).context(applied.clone())?;
        let status: Vec<&str> = status.split(' ').collect();
        // The autoscaler has no metrics of pods that have just come.
        eventually("nothing is wrong with it", 120, async || {
            let told = run(&status).await?;
            ensure!(told.starts_with("tasks in namespace started: serves\n"), "{told}");
            Ok(())
        })
        .await?;

        let again = run(&["plan", "-f", &name, "-n", NAME, "-o", "json"]).await?;
        let again: Value = serde_json::from_str(&again)?;
        ensure!(again["changes"] == json!([]), "nothing is left to do: {again:#}");
        std::fs::remove_file(&file)?;

        let platform = Platform { client: client.clone(), name: NAME };
        platform.api().delete("tasks", &DeleteParams::foreground()).await?;
        let namespaces: Api<Namespace> = Api::all(client);
        namespaces.delete(NAME, &DeleteParams::background()).await?;
        Ok(())
    })
    .await
}

/// Does what `apply` says at its end, and writes and reads a task there.
async fn serves_where_it_says(applied: &str) -> Result<Background> {
    let way = applied.lines().find_map(|line| line.strip_prefix("From here: ")).context(applied.to_owned())?;
    let (command, url) = way.split_once(", then ").context("no address")?;
    // The documented port may be taken on this host.
    let (command, url) = (command.replace("8080:80", "18080:80"), url.replace(":8080", ":18080"));
    let mut words = command.split(' ');
    let mut forward = Command::new(words.next().context("no command")?);
    if let Ok(context) = std::env::var("KUBE_CONTEXT") {
        forward.args(["--context", &context]);
    }
    let forwarding = Background(forward.args(words).stdout(Stdio::null()).spawn()?);
    let user = eventually("the address answers", 30, async || User::register(&url, &unique("grace")).await).await?;
    user.create("Find the bug").await?;
    ensure!(user.titles().await? == ["Find the bug"], "the task is not there");
    Ok(forwarding)
}
