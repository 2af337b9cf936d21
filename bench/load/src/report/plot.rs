//! Plots over the number of connections, as SVG.

use std::path::Path;

use plotters::prelude::*;

use super::{ReportError, Summary};
use crate::measurement::{Cell, Load};

const SIZE: (u32, u32) = (760, 420);
/// Told apart by those who see no red or green, too.
const COLORS: [RGBColor; 3] = [RGBColor(0x99, 0x99, 0x99), RGBColor(0x00, 0x72, 0xb2), RGBColor(0xd5, 0x5e, 0x00)];

/// Requests a second.
pub(crate) fn throughput(path: &Path, servers: &[Summary]) -> Result<(), ReportError> {
    draw(path, servers, "requests a second", |cell| cell.throughput)
}

/// The latency that 95 % of the requests stay below.
pub(crate) fn p95(path: &Path, servers: &[Summary]) -> Result<(), ReportError> {
    draw(path, servers, "p95 in milliseconds", |cell| cell.latency.p95)
}

fn draw(path: &Path, servers: &[Summary], what: &str, value: fn(&Cell) -> f64) -> Result<(), ReportError> {
    let lines: Vec<(&str, Vec<(f64, f64)>)> =
        servers.iter().map(|server| (server.server.as_str(), points(server, value))).collect();
    let all = || lines.iter().flat_map(|(_, points)| points).copied();
    let (Some(left), Some(right)) =
        (all().map(|(x, _)| x).min_by(f64::total_cmp), all().map(|(x, _)| x).max_by(f64::total_cmp))
    else {
        return Ok(());
    };
    let top = all().map(|(_, y)| y).fold(0.0, f64::max) * 1.3;
    let root = SVGBackend::new(path, SIZE).into_drawing_area();
    let drawn = || {
        root.fill(&WHITE)?;
        let mut chart = ChartBuilder::on(&root)
            .caption(format!("{what} over connections (closed loop)"), ("sans-serif", 18))
            .margin(12)
            .x_label_area_size(36)
            .y_label_area_size(64)
            .build_cartesian_2d((left * 0.9..right * 1.1).log_scale(), 0.0..top)?;
        chart
            .configure_mesh()
            .light_line_style(TRANSPARENT)
            .x_desc("connections")
            .x_label_formatter(&|x| format!("{x:.0}"))
            .y_label_formatter(&|y| format!("{y:.0}"))
            .draw()?;
        for ((name, points), color) in lines.iter().zip(COLORS) {
            chart
                .draw_series(LineSeries::new(points.iter().copied(), color.stroke_width(3)).point_size(4))?
                .label(*name)
                .legend(move |(x, y)| PathElement::new([(x, y), (x + 24, y)], color.stroke_width(3)));
        }
        chart.configure_series_labels().position(SeriesLabelPosition::UpperLeft).draw()?;
        root.present()
    };
    drawn().map_err(|error: DrawingAreaErrorKind<_>| ReportError::Plot(error.to_string()))
}

fn points(server: &Summary, value: fn(&Cell) -> f64) -> Vec<(f64, f64)> {
    let point = |cell: &Cell| match cell.load {
        Load::Closed { connections } => Some((f64::from(connections), value(cell))),
        Load::Open { .. } => None,
    };
    server.cells.iter().filter_map(point).collect()
}
