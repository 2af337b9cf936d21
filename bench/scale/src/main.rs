//! A thousand platforms in a namespace whose quota admits no pods, beside a plain client that creates the same objects: how many objects
//! a second, what the operator takes of memory and CPU, how soon a restarted one knows them all, and whether platforms in trouble hold up
//! the others. `bench/scale.sh` runs it.

mod operator;
mod plain;
mod platforms;
mod trouble;

use std::time::{Duration, Instant};

use anyhow::Result;
use clap::Parser;
use kube::Client;
use serde::Serialize;

use operator::Operator;
use platforms::Platforms;

/// How many objects are created at once, by the plain client and by those who create platforms: as many as the operator has under way.
const AT_ONCE: usize = 64;

#[derive(Parser)]
struct Arguments {
    /// How many platforms there are.
    #[arg(long, default_value_t = 1000)]
    platforms: usize,
    /// The objects of how many the plain client creates: deleting them again takes longer than that.
    #[arg(long, default_value_t = 200)]
    plain: usize,
    /// How many more are in trouble.
    #[arg(long, default_value_t = 50)]
    troubled: usize,
    /// How often a healthy platform is changed beside them.
    #[arg(long, default_value_t = 40)]
    changes: usize,
}

/// What was measured.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct Measured {
    platforms: usize,
    objects: usize,
    plain_per_second: f64,
    plain_per_second_beside_all: f64,
    operator_per_second: f64,
    ratio: f64,
    memory_mib: f64,
    idle_cores: f64,
    restart_known_seconds: f64,
    restart_writes: u64,
    restart_memory_mib: f64,
    troubled: usize,
    change_p50_seconds: f64,
    change_p95_seconds: f64,
    change_longest_seconds: f64,
}

#[tokio::main]
async fn main() -> Result<()> {
    let Arguments { platforms: count, plain, troubled, changes } = Arguments::parse();
    let client = Client::try_default().await?;
    let mut measured = Measured { platforms: count, troubled, ..Measured::default() };

    let began = Instant::now();
    let say = |what: &str| eprintln!("{:5} s  {what}", began.elapsed().as_secs());
    say(&format!("the plain client creates the objects of {plain} platforms"));
    let plain = plain::create(&client, plain).await?;
    let objects = plain.objects / plain.platforms * count;
    measured.objects = objects;
    measured.plain_per_second = plain.per_second();
    say(&format!("{} objects, {:.0}/s; they are deleted again", plain.objects, plain.per_second()));
    plain::delete(&client).await?;

    say(&format!("{count} platforms are created"));
    let operator = Operator::of(&client).await?;
    let platforms = Platforms::create(&client, "scale", count).await?;
    let took = platforms.await_applied(&operator, objects, &say).await?;
    measured.operator_per_second = per_second(objects, took);
    say(&format!("{:.0} objects/s", measured.operator_per_second));

    say("the plain client does the same again, beside all of them");
    let again = plain::create(&client, plain.platforms).await?;
    measured.plain_per_second_beside_all = again.per_second();
    // Half of the way it would have been as fast as before, and half as now.
    let mean = 2.0 / (1.0 / measured.plain_per_second + 1.0 / measured.plain_per_second_beside_all);
    measured.ratio = measured.operator_per_second / mean;
    say(&format!("{:.0}/s; the operator applies {:.2} of the mean", again.per_second(), measured.ratio));
    plain::delete(&client).await?;

    say("the operator comes to rest");
    operator.await_rest().await?;
    let idle = operator.idle(Duration::from_mins(2)).await?;
    measured.idle_cores = idle.cores;
    measured.memory_mib = idle.memory_mib;
    say(&format!("{:.3} of a core, {:.0} MiB", idle.cores, idle.memory_mib));

    say("the operator is restarted");
    let restarted = operator.restart(count).await?;
    measured.restart_known_seconds = restarted.known.as_secs_f64();
    measured.restart_writes = restarted.writes;
    let operator = Operator::of(&client).await?;
    measured.restart_memory_mib = operator.usage().await?.memory_mib;
    say(&format!("all known {:.1} s after the lease, {} writes", restarted.known.as_secs_f64(), restarted.writes));

    say(&format!("{troubled} platforms whose parts do not answer are added"));
    trouble::begin(&client, troubled).await?;
    let mut waits = platforms.change(changes).await?;
    waits.sort_unstable();
    measured.change_p50_seconds = quantile(&waits, 50);
    measured.change_p95_seconds = quantile(&waits, 95);
    measured.change_longest_seconds = quantile(&waits, 100);
    say(&format!("a change of a healthy one is applied after {:.2} s (p95)", measured.change_p95_seconds));

    println!("{}", serde_json::to_string_pretty(&measured)?);
    Ok(())
}

fn quantile(sorted: &[Duration], percent: usize) -> f64 {
    let last = sorted.len().saturating_sub(1);
    sorted.get((sorted.len() * percent / 100).min(last)).map_or(f64::NAN, Duration::as_secs_f64)
}

#[expect(clippy::cast_precision_loss, reason = "fewer than 2^52 objects")]
fn per_second(objects: usize, took: Duration) -> f64 {
    objects as f64 / took.as_secs_f64()
}
