//! Loads a task API and measures it (`load run`), and reports what several servers did side by side (`load report`).

use std::process::ExitCode;

use clap::Parser;
use load::{
    report::{self, ReportArgs},
    run::{self, RunArgs},
};

/// Loads a task API and measures it
#[derive(Debug, Parser)]
#[command(name = "load")]
enum Args {
    /// Start a server, load it and append what was measured to a file
    Run(RunArgs),
    /// Put measurements together: tables, plots, ratios
    Report(ReportArgs),
}

fn main() -> ExitCode {
    let result = match Args::parse() {
        Args::Run(args) => run::run(&args),
        Args::Report(args) => report::report(&args).map_err(Into::into),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
