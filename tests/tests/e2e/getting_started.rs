//! Somebody who has never seen this gets from a number of users to a platform that serves, by what the commands print.

use std::{
    io::{BufRead, BufReader},
    process::{Child, Command, Output, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::{Value, json};
use taskplatform_tests::{
    cluster, eventually, explained,
    http::{User, unique},
    platform::Platform,
};

use crate::{command_line, deletion::until_nothing_is_left, turn};

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
    let client = cluster::client().await?;
    let lived = explained(NAME, async {
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
        let with_volumes = Patch::Merge(json!({"spec": {"deletionPolicy": "Delete"}}));
        platform.api().patch("tasks", &PatchParams::default(), &with_volumes).await?;
        platform.api().delete("tasks", &DeleteParams::background()).await?;
        until_nothing_is_left(&client, NAME).await
    })
    .await;
    // Whatever has happened, the tests that follow need the room.
    lived.and(cluster::remove_namespace(&client, NAME).await)
}

/// Does what `apply` says at its end, and writes and reads a task there.
async fn serves_where_it_says(applied: &str) -> Result<Background> {
    let way = applied.lines().find_map(|line| line.strip_prefix("From here: ")).context(applied.to_owned())?;
    let (command, url) = way.split_once(", then ").context("no address")?;
    // The documented port may be taken on this host: kubectl chooses another.
    let command = command.strip_suffix(" 8080:80").with_context(|| format!("another port: {way}"))?;
    let host = url.strip_suffix(":8080").with_context(|| format!("another port: {way}"))?;
    let mut words = command.split(' ');
    let mut forward = Command::new(words.next().context("no command")?);
    if let Ok(context) = std::env::var("KUBE_CONTEXT") {
        forward.args(["--context", &context]);
    }
    let mut forwarding = Background(forward.args(words).arg(":80").stdout(Stdio::piped()).spawn()?);
    let url = format!("{host}:{}", forwarded_port(&mut forwarding).await?);
    let user = eventually("the address answers", 30, async || User::register(&url, &unique("grace")).await).await?;
    user.create("Find the bug").await?;
    ensure!(user.titles().await? == ["Find the bug"], "the task is not there");
    Ok(forwarding)
}

/// The port that kubectl has chosen, as it prints it.
async fn forwarded_port(forwarding: &mut Background) -> Result<u16> {
    let mut output = BufReader::new(forwarding.0.stdout.take().context("no output")?);
    let reading = tokio::task::spawn_blocking(move || {
        let mut line = String::new();
        output.read_line(&mut line).map(|_| (line, output.into_inner()))
    });
    let read = tokio::time::timeout(Duration::from_mins(1), reading).await;
    let (line, output) = read.context("kubectl prints nothing")???;
    // kubectl ends when nobody could read what it prints.
    forwarding.0.stdout = Some(output);
    let port = line.strip_prefix("Forwarding from 127.0.0.1:").and_then(|rest| rest.split(' ').next());
    Ok(port.with_context(|| format!("no port: {line:?}"))?.parse()?)
}
