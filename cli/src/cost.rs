//! `taskplatform cost`: what a TaskPlatform costs a month, over the range of the autoscaler.

use std::{fs, io, path::PathBuf};

use serde::Serialize;
use taskplatform_blueprint::{Capacity, ComponentCost, Estimate, LEVELS, Platform, PriceBook, Unpriced, estimate};

use crate::{
    output::{self, Format},
    source::{self, Files},
};

/// The prices that are used unless others are given.
const PRICES: &str = include_str!("../prices.yaml");

#[derive(clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    files: Files,
    #[command(flatten)]
    assumptions: Assumptions,
    /// How it is written.
    #[arg(short, long, value_enum, default_value_t = Format::Text)]
    output: Format,
}

/// What a cost depends on beside the TaskPlatform.
#[derive(clap::Args)]
pub(crate) struct Assumptions {
    /// A price book in place of the one that comes with this program; taskplatform prices prints that one.
    #[arg(long, value_name = "FILE")]
    prices: Option<PathBuf>,
    /// The part of the API's instances that may run on spot nodes, from 0 to 1.
    #[arg(long, default_value_t = 0.7, value_parser = ratio)]
    spot_ratio: f64,
    /// So many of the API's instances run on demand at least.
    #[arg(long, default_value_t = 3)]
    on_demand_minimum: u16,
}

fn ratio(text: &str) -> Result<f64, String> {
    let ratio = text.parse().ok().filter(|ratio| (0.0..=1.0).contains(ratio));
    ratio.ok_or_else(|| "it is a number from 0 to 1, such as 0.7".to_owned())
}

/// Why a cost cannot be told.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error(transparent)]
    Source(#[from] source::Error),
    #[error(transparent)]
    Output(#[from] output::Error),
    #[error("the price book {file} cannot be read")]
    Read { file: String, source: io::Error },
    #[error("{file} is no price book: {source}")]
    Prices { file: String, source: Box<serde_saphyr::Error> },
    #[error(transparent)]
    Unpriced(#[from] Unpriced),
}

impl Assumptions {
    pub(crate) fn prices(&self) -> Result<PriceBook, Error> {
        let (file, text) = match &self.prices {
            None => ("the price book of this program".to_owned(), PRICES.to_owned()),
            Some(file) => {
                let name = file.display().to_string();
                let text = fs::read_to_string(file).map_err(|source| Error::Read { file: name.clone(), source })?;
                (name, text)
            }
        };
        serde_saphyr::from_str(&text).map_err(|source| Error::Prices { file, source: Box::new(source) })
    }

    pub(crate) fn capacity(&self) -> Capacity {
        Capacity { spot_ratio: self.spot_ratio, on_demand_minimum: self.on_demand_minimum.into() }
    }
}

/// What one TaskPlatform costs.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Cost {
    platform: String,
    currency: String,
    minimum: Estimate,
    typical: Estimate,
    maximum: Estimate,
    levels: Vec<AtLevel>,
}

/// What it costs at one of the plan's load levels (plan 8.1).
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct AtLevel {
    level: &'static str,
    users: u32,
    plan_instances: i32,
    plan_total: Option<f64>,
    estimate: Estimate,
}

pub(crate) fn run(arguments: &Arguments) -> Result<(), Error> {
    let Arguments { files, assumptions, output } = arguments;
    let prices = assumptions.prices()?;
    let platforms = files.read()?.platforms()?;
    let costs: Vec<Cost> =
        platforms.iter().map(|platform| cost(platform, assumptions.capacity(), &prices)).collect::<Result<_, _>>()?;
    match output {
        Format::Json => output::json(&costs)?,
        Format::Text => {
            let texts: Vec<String> = costs.iter().map(|cost| text(cost, &prices)).collect();
            output::write(&texts.join("\n"))?;
        }
    }
    Ok(())
}

/// A third of the way up: what the autoscaler is at most of the day (assumed, as nothing has run yet).
pub(crate) fn typical(platform: &Platform) -> i32 {
    let scaling = &platform.spec().scaling;
    let (min, max) = (scaling.min_instances.get(), scaling.max_instances.get());
    min + (max - min) / 3
}

fn cost(platform: &Platform, capacity: Capacity, prices: &PriceBook) -> Result<Cost, Error> {
    let scaling = &platform.spec().scaling;
    let (min, max) = (scaling.min_instances.get(), scaling.max_instances.get());
    let at = |instances: i32| estimate(platform, instances, capacity, prices);
    let levels = LEVELS.iter().map(|level| {
        let estimate = at(level.instances.clamp(min, max))?;
        let (users, plan_instances) = (level.users, level.instances);
        Ok(AtLevel { level: level.name, users, plan_instances, plan_total: level.plan_month, estimate })
    });
    Ok(Cost {
        platform: platform.name().to_owned(),
        currency: prices.currency.clone(),
        minimum: at(min)?,
        typical: at(typical(platform))?,
        maximum: at(max)?,
        levels: levels.collect::<Result<_, Unpriced>>()?,
    })
}

pub(crate) fn money(amount: f64) -> String {
    format!("{amount:.0}")
}

fn text(cost: &Cost, prices: &PriceBook) -> String {
    let Cost { platform, currency, minimum, typical, maximum, levels } = cost;
    let mut rows: Vec<Vec<String>> =
        vec![["component", "pods", "on node", "minimum", "typical", "maximum"].map(str::to_owned).into()];
    for (index, component) in minimum.components.iter().enumerate() {
        let of = |estimate: &Estimate| estimate.components.get(index).map_or(0.0, ComponentCost::total);
        let most = maximum.components.get(index).map_or(component.pods, |component| component.pods);
        let pods = if most == component.pods { most.to_string() } else { format!("{}-{most}", component.pods) };
        rows.push(vec![
            component.component.clone(),
            pods,
            component.node.clone(),
            money(of(minimum)),
            money(of(typical)),
            money(of(maximum)),
        ]);
    }
    let all = [minimum, typical, maximum];
    let line = |name: &str, values: [String; 3]| {
        let mut row: Vec<String> = vec![name.to_owned(), String::new(), String::new()];
        row.extend(values);
        row
    };
    rows.push(line("load balancer", all.map(|estimate| money(estimate.load_balancer))));
    rows.push(line("all", all.map(|estimate| money(estimate.total))));
    rows.push(line("API instances", all.map(|estimate| estimate.instances.to_string())));
    let api = |estimate: &Estimate| estimate.components.iter().find(|component| component.component == "api").cloned();
    rows.push(line("  of them on spot", all.map(|estimate| api(estimate).map_or(0, |api| api.spot_pods).to_string())));
    let components = output::table(&rows, 3);

    let mut rows: Vec<Vec<String>> =
        vec![["load", "users up to", "API instances", "a month", "plan"].map(str::to_owned).into()];
    rows.extend(levels.iter().map(|at| {
        vec![
            at.level.to_owned(),
            at.users.to_string(),
            at.estimate.instances.to_string(),
            money(at.estimate.total),
            at.plan_total.map_or_else(|| "-".to_owned(), money),
        ]
    }));
    let levels = output::table(&rows, 1);
    let PriceBook { region, as_of, .. } = prices;
    format!(
        "\
TaskPlatform {platform}: {currency} a month

{components}
At the load levels of the scalability plan (8.1, and 1.2 for 20,000 users):

{levels}
Prices: {region}, {as_of}. A pod pays for its share of the node on which it is cheapest.
The plan pays for a whole machine for each instance, for one database and one
cache machine without replicas, and at managed services' prices; it does not say
what each part costs. Traffic, backups and the control plane are in neither.
"
    )
}

/// `taskplatform prices`: the price book that comes with this program, to be changed.
pub(crate) fn show_prices() -> Result<(), Error> {
    Ok(output::write(PRICES)?)
}
