//! Breaks the quickstart in every way that it should survive, under writers outside of it that keep a ledger of what was acknowledged:
//! how long nothing was, how many requests failed, and what is lost or there twice. `bench/chaos.sh` runs it.

mod harm;
mod ledger;
mod target;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use clap::{Parser, ValueEnum};
use k8s_openapi::jiff::Timestamp;
use serde::Serialize;
use tokio::time::sleep;

use harm::Scenario;
use ledger::{Ledger, Reconciled, Users};
use target::Target;

/// How long it is watched that all is well before anything is done to it.
const BEFORE: Duration = Duration::from_secs(2);
/// Writes that go on for so long in a row mean that it is over.
const AFTER: Duration = Duration::from_secs(6);
/// Nothing may take longer.
const LONGEST: Duration = Duration::from_mins(3);

#[derive(Parser)]
#[command(after_help = "Example: bench/chaos.sh --scenario primary-deleted --runs 20")]
struct Arguments {
    /// What is done; everything, where nothing is named.
    #[arg(long = "scenario", value_enum)]
    scenarios: Vec<Scenario>,
    /// How often.
    #[arg(long, default_value_t = 10)]
    runs: usize,
    /// Between two writes of each of the four users, in milliseconds: a person's pace.
    #[arg(long, default_value_t = 25)]
    pause: u64,
    /// The gateway.
    #[arg(long, default_value = "http://127.0.0.1:8080")]
    url: String,
    /// The platform.
    #[arg(long, default_value = "quickstart")]
    name: String,
    /// Its namespace.
    #[arg(long, default_value = "default")]
    namespace: String,
}

/// What one run did to the users.
#[derive(Debug)]
struct Run {
    without_a_write: Duration,
    since: Timestamp,
    /// How long the acknowledged writes took: half of them no longer, and 95 in a hundred.
    took: [Duration; 2],
    ledger: Reconciled,
}

/// What all runs of a scenario did to the users.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Row {
    scenario: String,
    runs: usize,
    seconds_without_a_write_p50: f64,
    seconds_without_a_write_p95: f64,
    seconds_without_a_write_longest: f64,
    /// Of the middle run.
    milliseconds_a_write_p50: f64,
    milliseconds_a_write_p95: f64,
    acknowledged: usize,
    refused: usize,
    unknown: usize,
    wrong: usize,
    lost: usize,
    doubled: usize,
    failed_but_there: usize,
    sessions_lost: usize,
}

#[tokio::main]
async fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let target = Target::new(&arguments.name, &arguments.namespace, &arguments.url).await?;
    target.settled().await?;
    let users = Users::register(&target.url, Duration::from_millis(arguments.pause)).await?;
    let mut count = 0;
    let scenarios =
        if arguments.scenarios.is_empty() { Scenario::value_variants().to_vec() } else { arguments.scenarios };
    for scenario in scenarios {
        let mut runs = Vec::new();
        for number in 1..=arguments.runs {
            count += 1;
            let run =
                run(&target, scenario, &users, count).await.with_context(|| format!("{scenario}, run {number}"))?;
            let Run { without_a_write, since, took: [half, most], ledger } = &run;
            eprintln!(
                "{scenario} {number}: {:.2} s without a write since {since:.1}; p50 {half:.1?}, p95 {most:.1?}; {ledger}",
                without_a_write.as_secs_f64()
            );
            runs.push(run);
        }
        println!("{}", serde_json::to_string(&row(scenario, &runs))?);
    }
    Ok(())
}

async fn run(target: &Target, scenario: Scenario, users: &Arc<Users>, number: usize) -> Result<Run> {
    target.settled().await?;
    let ledger = Ledger::open(users, number);
    let harming = async {
        let harmed = harm(target, scenario, &ledger).await;
        // The writers end whatever came of it.
        ledger.close();
        harmed
    };
    let (written, harmed) = tokio::join!(ledger.write(), harming);
    harmed?;
    let written = written?;
    target.settled().await?;
    let (without_a_write, since) = written.longest_gap();
    let took = [written.took(50), written.took(95)];
    Ok(Run { without_a_write, since, took, ledger: written.reconcile().await? })
}

async fn harm(target: &Target, scenario: Scenario, ledger: &Ledger) -> Result<()> {
    sleep(BEFORE).await;
    let mut harm = scenario.begin(target).await?;
    await_writes(ledger, Instant::now()).await?;
    if harm.end(target).await? {
        await_writes(ledger, Instant::now()).await?;
    }
    Ok(())
}

/// Until writes have gone on for a while.
async fn await_writes(ledger: &Ledger, since: Instant) -> Result<()> {
    loop {
        sleep(Duration::from_millis(250)).await;
        if since.elapsed() > AFTER && ledger.is_written_for(AFTER) {
            return Ok(());
        }
        ensure!(since.elapsed() < LONGEST, "no writes for {LONGEST:?}");
    }
}

fn row(scenario: Scenario, runs: &[Run]) -> Row {
    let mut gaps: Vec<Duration> = runs.iter().map(|run| run.without_a_write).collect();
    gaps.sort_unstable();
    let quantile = |percent: usize| {
        let place = (gaps.len() * percent).div_ceil(100).saturating_sub(1);
        gaps.get(place).map_or(f64::NAN, Duration::as_secs_f64)
    };
    let milliseconds = |of: usize| {
        let mut times: Vec<Duration> = runs.iter().map(|run| run.took[of]).collect();
        times.sort_unstable();
        times.get(times.len() / 2).map_or(f64::NAN, |time| time.as_secs_f64() * 1000.0)
    };
    let sum = |of: fn(&Reconciled) -> usize| runs.iter().map(|run| of(&run.ledger)).sum();
    Row {
        scenario: scenario.to_string(),
        runs: runs.len(),
        seconds_without_a_write_p50: quantile(50),
        seconds_without_a_write_p95: quantile(95),
        seconds_without_a_write_longest: quantile(100),
        milliseconds_a_write_p50: milliseconds(0),
        milliseconds_a_write_p95: milliseconds(1),
        acknowledged: sum(|ledger| ledger.acknowledged),
        refused: sum(|ledger| ledger.refused.len()),
        unknown: sum(|ledger| ledger.unknown.len()),
        wrong: sum(|ledger| ledger.wrong.len()),
        lost: sum(|ledger| ledger.lost),
        doubled: sum(|ledger| ledger.doubled),
        failed_but_there: sum(|ledger| ledger.failed_but_there),
        sessions_lost: sum(|ledger| ledger.sessions_lost),
    }
}
