//! Markdown tables.

use std::fmt::Write;

use super::{Summary, targets::Target};
use crate::measurement::{Cell, Load};

/// A cell in one line, for whoever waits.
pub fn line(cell: &Cell) -> String {
    let Cell { load, throughput, latency, errors, cpu, memory, .. } = cell;
    let errors: u64 = errors.values().sum();
    format!(
        "{load}: {throughput:.0} requests/s, p50 {:.1} p95 {:.1} p99 {:.1} ms, {errors} errors, CPU µs a request {:.0} server {:.0} stores {:.0} generator, {memory:.0} MiB",
        latency.p50, latency.p95, latency.p99, cpu.server, cpu.stores, cpu.generator,
    )
}

/// All of the report.
pub(crate) fn tables(conditions: &str, servers: &[Summary], targets: &[Target]) -> String {
    let mut text = format!("{conditions}\n\n");
    text += &target_table(targets);
    text += "\nClosed loop: each connection asks again as soon as it is answered.\n\n";
    text += &load_table(servers, |load| matches!(load, Load::Closed { .. }));
    text +=
        "\nOpen loop: users think, each on a connection of their own; latency counts from when a request was due.\n\n";
    text += &load_table(servers, |load| matches!(load, Load::Open { .. }));
    text += "\n";
    for server in servers {
        let Summary { server, runs, load_average, start, .. } = server;
        let _ = writeln!(
            text,
            "- {server}: median of {runs} runs; first answer {start:.0} ms after the start; {load_average:.1} processes wanted to run when a run began."
        );
    }
    text += &failures(servers);
    text
}

fn target_table(targets: &[Target]) -> String {
    let mut text = "| target | wanted | measured | |\n|---|---|---|---|\n".to_owned();
    for Target { what, wanted, measured, reached } in targets {
        let measured = match measured {
            None => "–".to_owned(),
            Some(infinite) if infinite.is_infinite() => "rate not held".to_owned(),
            Some(measured) if *measured < 10.0 => format!("{measured:.2}"),
            Some(measured) => format!("{measured:.0}"),
        };
        let reached = reached.map_or("not measured", |reached| if reached { "reached" } else { "**missed**" });
        let _ = writeln!(text, "| {what} | {wanted} | {measured} | {reached} |");
    }
    text
}

fn load_table(servers: &[Summary], wanted: fn(&Load) -> bool) -> String {
    let mut text = "| load | server | requests/s | p50 ms | p95 ms | p99 ms | errors | CPU µs: server | stores | generator | MiB |\n\
                    |---|---|---|---|---|---|---|---|---|---|---|\n"
        .to_owned();
    let mut loads: Vec<Load> = servers.iter().flat_map(|server| &server.cells).map(|cell| cell.load).collect();
    loads.sort_unstable();
    loads.dedup();
    for load in loads.into_iter().filter(wanted) {
        for (server, cell) in servers.iter().filter_map(|server| Some((&server.server, server.cell(load)?))) {
            let Cell { throughput, latency, error_rate, cpu, memory, .. } = cell;
            let _ = writeln!(
                text,
                "| {load} | {server} | {throughput:.0} | {:.1} | {:.1} | {:.1} | {:.2} % | {:.0} | {:.0} | {:.0} | {memory:.0} |",
                latency.p50,
                latency.p95,
                latency.p99,
                error_rate * 100.0,
                cpu.server,
                cpu.stores,
                cpu.generator,
            );
        }
    }
    text
}

/// What failed, and how often in all runs together.
fn failures(servers: &[Summary]) -> String {
    let mut text = String::new();
    for server in servers {
        for cell in &server.cells {
            for (why, count) in &cell.errors {
                let _ = writeln!(text, "- {}, {}: {count} × {why}.", server.server, cell.load);
            }
        }
    }
    text
}
