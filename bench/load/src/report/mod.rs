//! What several servers did side by side: medians, ratios, tables, plots.

mod plot;
mod table;
mod targets;

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use serde::Serialize;
use thiserror::Error;

use crate::measurement::{Cell, Cpu, Latency, Load, Run};

pub use table::line;

/// Between these lines of the document is what was measured; all else in it is written by hand.
const MARKERS: (&str, &str) = ("<!-- measured: begin -->\n", "<!-- measured: end -->");

/// The arguments of `load report`.
#[derive(Debug, clap::Args)]
pub struct ReportArgs {
    /// JSON lines that `load run` wrote
    #[arg(long)]
    runs: PathBuf,
    /// The folder that gets api.json and the plots
    #[arg(long)]
    results: PathBuf,
    /// The document whose table is replaced
    #[arg(long)]
    document: Option<PathBuf>,
    /// What is said about how it was measured
    #[arg(long)]
    conditions: String,
}

/// Why there is no report.
#[derive(Debug, Error)]
pub enum ReportError {
    /// A file.
    #[error("{0}: {1}")]
    File(PathBuf, io::Error),
    /// A line that `load run` did not write.
    #[error("{0} holds a line that `load run` did not write: {1}; remove the file and measure again")]
    Malformed(PathBuf, serde_json::Error),
    /// The document.
    #[error(
        "{0} has no lines `<!-- measured: begin -->` and `<!-- measured: end -->`; put them where the tables belong"
    )]
    Markers(PathBuf),
    /// The plots.
    #[error("a plot can't be drawn: {0}")]
    Plot(String),
}

/// The medians of a server's runs.
#[derive(Debug, Serialize)]
pub struct Summary {
    /// What it is called.
    pub server: String,
    /// How many runs there were.
    pub runs: usize,
    /// Processes that wanted to run when they began.
    pub load_average: f64,
    /// Milliseconds from the start of the process to its first answer.
    pub start: f64,
    /// By load.
    pub cells: Vec<Cell>,
}

impl Summary {
    /// What it did under a load.
    pub fn cell(&self, load: Load) -> Option<&Cell> {
        self.cells.iter().find(|cell| cell.load == load)
    }
}

#[derive(Serialize)]
struct Results<'a> {
    conditions: &'a str,
    servers: &'a [Summary],
    targets: &'a [targets::Target],
}

/// Writes the report, and says it.
pub fn report(args: &ReportArgs) -> Result<(), ReportError> {
    let servers = summaries(&read(&args.runs)?);
    let targets = targets::check(&servers);
    let tables = table::tables(&args.conditions, &servers, &targets);
    println!("{tables}");

    let results = &args.results;
    fs::create_dir_all(results).map_err(|error| ReportError::File(results.clone(), error))?;
    let json = Results { conditions: &args.conditions, servers: &servers, targets: &targets };
    let json = serde_json::to_string_pretty(&json).map_err(|error| ReportError::Malformed(args.runs.clone(), error))?;
    write(&results.join("api.json"), &format!("{json}\n"))?;
    plot::throughput(&results.join("throughput.svg"), &servers)?;
    plot::p95(&results.join("p95.svg"), &servers)?;
    match &args.document {
        Some(document) => replace_tables(document, &tables),
        None => Ok(()),
    }
}

fn read(path: &Path) -> Result<Vec<Run>, ReportError> {
    let text = fs::read_to_string(path).map_err(|error| ReportError::File(path.to_owned(), error))?;
    let run = |line| serde_json::from_str(line).map_err(|error| ReportError::Malformed(path.to_owned(), error));
    text.lines().map(run).collect()
}

fn write(path: &Path, text: &str) -> Result<(), ReportError> {
    fs::write(path, text).map_err(|error| ReportError::File(path.to_owned(), error))
}

fn replace_tables(document: &Path, tables: &str) -> Result<(), ReportError> {
    let text = fs::read_to_string(document).map_err(|error| ReportError::File(document.to_owned(), error))?;
    let (begin, end) = MARKERS;
    let parts = text.split_once(begin).and_then(|(before, rest)| Some((before, rest.split_once(end)?.1)));
    let (before, after) = parts.ok_or_else(|| ReportError::Markers(document.to_owned()))?;
    write(document, &format!("{before}{begin}{tables}{end}{after}"))
}

/// The medians of each server's runs, servers in the order in which they come first.
fn summaries(runs: &[Run]) -> Vec<Summary> {
    let mut servers: Vec<&str> = Vec::new();
    for run in runs {
        if !servers.contains(&run.server.as_str()) {
            servers.push(&run.server);
        }
    }
    servers.into_iter().map(|server| summary(server, runs)).collect()
}

fn summary(server: &str, runs: &[Run]) -> Summary {
    let runs: Vec<&Run> = runs.iter().filter(|run| run.server == server).collect();
    let mut loads: Vec<Load> = runs.iter().flat_map(|run| run.cells.iter().map(|cell| cell.load)).collect();
    loads.sort_unstable();
    loads.dedup();
    let cells = loads.into_iter().map(|load| {
        let cells: Vec<&Cell> = runs.iter().flat_map(|run| &run.cells).filter(|cell| cell.load == load).collect();
        median_cell(load, &cells)
    });
    Summary {
        server: server.to_owned(),
        runs: runs.len(),
        load_average: median(&runs, |run| run.load_average),
        start: median(&runs, |run| run.start),
        cells: cells.collect(),
    }
}

fn median_cell(load: Load, cells: &[&Cell]) -> Cell {
    let median = |of: fn(&Cell) -> f64| median(cells, |cell| of(cell));
    let mut errors = std::collections::BTreeMap::new();
    for (why, count) in cells.iter().flat_map(|cell| &cell.errors) {
        *errors.entry(why.clone()).or_default() += count;
    }
    Cell {
        load,
        throughput: median(|cell| cell.throughput),
        latency: Latency {
            p50: median(|cell| cell.latency.p50),
            p95: median(|cell| cell.latency.p95),
            p99: median(|cell| cell.latency.p99),
            max: median(|cell| cell.latency.max),
        },
        errors,
        error_rate: median(|cell| cell.error_rate),
        cpu: Cpu {
            server: median(|cell| cell.cpu.server),
            stores: median(|cell| cell.cpu.stores),
            generator: median(|cell| cell.cpu.generator),
        },
        memory: median(|cell| cell.memory),
    }
}

fn median<T>(of: &[T], value: impl Fn(&T) -> f64) -> f64 {
    let mut values: Vec<f64> = of.iter().map(value).collect();
    values.sort_unstable_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => f64::NAN,
        even if even % 2 == 0 => f64::midpoint(values[middle - 1], values[middle]),
        _ => values[middle],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(server: &str, throughput: f64, error: Option<&str>) -> Run {
        let cell = Cell {
            load: Load::Closed { connections: 500 },
            throughput,
            latency: Latency { p50: 1.0, p95: 100_000.0 / throughput, p99: 3.0, max: 4.0 },
            errors: error.into_iter().map(|why| (why.to_owned(), 1)).collect(),
            error_rate: 0.0,
            cpu: Cpu::default(),
            memory: 40.0,
        };
        Run { server: server.to_owned(), load_average: 1.0, start: 20.0, cells: vec![cell] }
    }

    fn some_runs() -> Vec<Run> {
        vec![
            run("baseline", 6000.0, None),
            run("alone", 30_000.0, None),
            run("baseline", 5000.0, Some("status 503")),
            run("baseline", 9000.0, Some("status 503")),
        ]
    }

    #[test]
    fn runs_become_medians() {
        let servers = summaries(&some_runs());
        assert_eq!(
            servers.iter().map(|one| (&*one.server, one.runs)).collect::<Vec<_>>(),
            [("baseline", 3), ("alone", 1)]
        );
        let cell = &servers[0].cells[0];
        assert!((cell.throughput - 6000.0).abs() < f64::EPSILON);
        assert_eq!(cell.errors["status 503"], 2, "errors of every run are told");
        assert!((median(&[1.0, 4.0, 2.0, 3.0], |value| *value) - 2.5).abs() < f64::EPSILON);
    }

    #[test]
    fn targets_are_reached_or_missed() {
        let servers = summaries(&some_runs());
        let targets = targets::check(&servers);
        let target = |what: &str| targets.iter().find(|target| target.what.starts_with(what)).unwrap();
        assert_eq!(target("throughput at 500 connections, alone").reached, Some(true));
        assert_eq!(target("throughput at 500 connections, platform").reached, None, "nothing was measured");
        let slow = summaries(&[run("baseline", 6000.0, None), run("alone", 20_000.0, None)]);
        assert_eq!(targets::check(&slow)[0].reached, Some(false));
    }

    #[test]
    fn only_the_tables_of_the_document_change() {
        let document = std::env::temp_dir().join(format!("load-report-{}.md", std::process::id()));
        let (begin, end) = MARKERS;
        fs::write(&document, format!("before\n{begin}old\n{end}\nafter\n")).unwrap();
        replace_tables(&document, "new\n").unwrap();
        assert_eq!(fs::read_to_string(&document).unwrap(), format!("before\n{begin}new\n{end}\nafter\n"));
        fs::write(&document, "no markers").unwrap();
        assert!(matches!(replace_tables(&document, "new"), Err(ReportError::Markers(_))));
        fs::remove_file(&document).unwrap();
    }
}
