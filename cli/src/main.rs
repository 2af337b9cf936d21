//! `taskplatform`: infrastructure as code for TaskPlatforms. As `kubectl-taskplatform` in the PATH it is found by kubectl,
//! too.

mod apply;
mod check;
mod cluster;
mod cost;
mod lint;
mod output;
mod plan;
mod render;
mod size;
mod source;
mod status;
mod switchover;
mod wait;

use std::{error::Error, io, io::Write, path::PathBuf, process::ExitCode};

use clap::{CommandFactory, Parser, Subcommand};
use clap_complete::Shell;

const ABOUT: &str = "Infrastructure as code for TaskPlatforms: see it before you apply it, understand it while it runs";

#[derive(Parser)]
#[command(name = "taskplatform", version, about = ABOUT, arg_required_else_help = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Propose a TaskPlatform for a number of users. No cluster is needed.
    #[command(after_help = "Example:\n  taskplatform size --users 10000 > tp.yaml")]
    Size(size::Arguments),
    /// Tell what is wrong with a TaskPlatform, or will be. No cluster is needed.
    #[command(after_help = "Example:\n  taskplatform lint -f tp.yaml --nodes 3x4cpu,16Gi")]
    Lint(lint::Arguments),
    /// Tell what the code of a finding is about. No cluster is needed.
    #[command(after_help = "Example:\n  taskplatform explain TP101")]
    Explain(lint::ExplainArguments),
    /// Print the objects that a TaskPlatform becomes. No cluster is needed.
    #[command(after_help = "Example:\n  taskplatform render -f examples/production.yaml | less")]
    Render(render::Arguments),
    /// Tell what a TaskPlatform costs a month. No cluster is needed.
    #[command(after_help = "Example:\n  taskplatform cost -f examples/production.yaml --prices prices.yaml")]
    Cost(cost::Arguments),
    /// Print the price book that cost uses, to be changed and given to it. No cluster is needed.
    #[command(after_help = "Example:\n  taskplatform prices > prices.yaml")]
    Prices,
    /// Check whether a cluster has what a TaskPlatform needs, and try it there.
    #[command(
        after_help = "Examples:\n  taskplatform check --pre\n  taskplatform check -f tp.yaml\n  taskplatform check -f tp.yaml --no-trial -o json"
    )]
    Check(check::Arguments),
    /// Show what applying a file would do to a cluster. It only reads.
    #[command(after_help = "Example:\n  taskplatform plan -f tp.yaml")]
    Plan(plan::Arguments),
    /// Show the plan, ask, apply exactly that, and wait until it serves.
    #[command(
        after_help = "Example:\n  taskplatform apply -f tp.yaml\n  taskplatform plan -f tp.yaml -o json > plan.json && taskplatform apply -f tp.yaml --plan plan.json"
    )]
    Apply(apply::Arguments),
    /// Tell how a TaskPlatform is: what is wrong first, down to the pod.
    #[command(after_help = "Example:\n  taskplatform status quickstart --watch")]
    Status(status::Arguments),
    /// Wait until a TaskPlatform serves requests, and show what it waits for.
    #[command(after_help = "Example:\n  taskplatform wait quickstart --timeout 5m")]
    Wait(wait::Arguments),
    /// Have another member of the database lead: users see a pause of a second or two.
    #[command(
        after_help = "Examples:\n  taskplatform switchover quickstart\n  taskplatform switchover quickstart --to quickstart-database-1 --at 2026-01-31T03:00:00Z"
    )]
    Switchover(switchover::Arguments),
    /// Print what makes a shell complete these commands.
    #[command(after_help = "Example:\n  source <(taskplatform completions bash)")]
    Completions {
        /// The shell.
        shell: Shell,
    },
    /// Write the manual pages into a folder.
    #[command(after_help = "Example:\n  taskplatform man /usr/local/share/man/man1")]
    Man {
        /// The folder.
        folder: PathBuf,
    },
    /// Print the version.
    #[command(after_help = "Example:\n  taskplatform version")]
    Version,
}

fn main() -> ExitCode {
    match run(Arguments::parse().command) {
        Ok(code) => code,
        Err(error) => {
            let mut text = format!("error: {error}");
            let mut cause = error.source();
            while let Some(error) = cause {
                let why = error.to_string();
                if !text.contains(&why) {
                    text = format!("{text}\n  because: {why}");
                }
                cause = error.source();
            }
            let _ = writeln!(io::stderr(), "{text}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<ExitCode, Box<dyn Error>> {
    match command {
        Command::Size(arguments) => size::run(&arguments)?,
        Command::Lint(arguments) => return Ok(lint::run(&arguments)?),
        Command::Explain(arguments) => lint::explain(&arguments)?,
        Command::Render(arguments) => render::run(&arguments)?,
        Command::Cost(arguments) => cost::run(&arguments)?,
        Command::Prices => cost::show_prices()?,
        Command::Check(arguments) => return Ok(block_on(check::run(&arguments))??),
        Command::Plan(arguments) => return Ok(block_on(plan::run(&arguments))??),
        Command::Apply(arguments) => block_on(apply::run(&arguments))??,
        Command::Status(arguments) => block_on(status::run(&arguments))??,
        Command::Wait(arguments) => block_on(wait::run(&arguments))??,
        Command::Switchover(arguments) => block_on(switchover::run(&arguments))??,
        Command::Completions { shell } => {
            clap_complete::generate(shell, &mut Arguments::command(), "taskplatform", &mut io::stdout());
        }
        Command::Man { folder } => clap_mangen::generate_to(Arguments::command(), folder)?,
        Command::Version => output::write(&format!("taskplatform {}\n", env!("CARGO_PKG_VERSION")))?,
    }
    Ok(ExitCode::SUCCESS)
}

fn block_on<F: Future>(work: F) -> io::Result<F::Output> {
    Ok(tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(work))
}
