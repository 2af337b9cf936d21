//! `taskplatform`: infrastructure as code for TaskPlatforms. As `kubectl-taskplatform` in the PATH it is found by kubectl,
//! too.

mod render;
mod wait;

use std::{error::Error, io::Write, process::ExitCode};

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(version, about = "Infrastructure as code for TaskPlatforms", arg_required_else_help = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Print the objects that a TaskPlatform becomes. No cluster is needed.
    #[command(after_help = "Example:\n  taskplatform render -f examples/production.yaml | less")]
    Render(render::Arguments),
    /// Wait until a TaskPlatform serves requests, and show what it waits for.
    #[command(after_help = "Example:\n  taskplatform wait quickstart --timeout 5m")]
    Wait(wait::Arguments),
}

fn main() -> ExitCode {
    match run(Arguments::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
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
            let _ = writeln!(std::io::stderr(), "{text}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<(), Box<dyn Error>> {
    match command {
        Command::Render(arguments) => Ok(render::run(&arguments)?),
        Command::Wait(arguments) => {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            Ok(runtime.block_on(wait::run(&arguments))?)
        }
    }
}
