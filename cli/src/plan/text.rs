//! A plan as people read it.

use std::collections::BTreeSet;

use anstyle::{AnsiColor, Style};
use serde_json::Value;
use similar::{ChangeTag, TextDiff};
use taskplatform_blueprint::{Action, Band, Change, Effect, FieldChange, SettingChange, Totals, in_a_line};

use super::{CostChange, Plan, Range};
use crate::{cost::money, output};

const CREATED: Style = AnsiColor::Green.on_default();
const CHANGED: Style = AnsiColor::Yellow.on_default();
const DELETED: Style = AnsiColor::Red.on_default();
const DISRUPTIVE: Style = AnsiColor::Red.on_default().bold();
const TITLE: Style = Style::new().bold();

/// Values that are longer stand on lines of their own.
const LONG: usize = 60;

pub(crate) fn of(plan: &Plan) -> String {
    let Plan { name, namespace, new, spec, changes, settings, bands, cost, warnings, totals } = plan;
    let mut parts = vec![title(&format!("TaskPlatform {name} in namespace {namespace}"))];
    if plan.is_empty() {
        parts.push("  nothing changes\n".to_owned());
    } else if *new {
        parts.push(format!("  {CREATED}+ is made{CREATED:#}\n"));
    }
    parts.extend(spec.iter().map(|field| self::field(&format!("spec.{}", field.path), field, 2)));
    let components: BTreeSet<&str> = changes.iter().map(|change| change.component.as_str()).collect();
    for component in components {
        parts.push("\n".to_owned());
        parts.push(title(component));
        parts.extend(changes.iter().filter(|change| change.component == component).map(object));
        if component == "database" {
            parts.push(postgresql(settings));
        }
    }
    parts.extend(["\n".to_owned(), scaling(bands), costs(cost)]);
    parts.extend(warnings.iter().map(|warning| output::wrapped(&format!("Warning: {warning}"), 0)));
    let Totals { create, change, replace, delete } = totals;
    let replaced = if *replace > 0 { format!(", {replace} to replace") } else { String::new() };
    parts.push(title(&format!("Plan: {create} to create, {change} to change{replaced}, {delete} to delete")));
    parts.concat()
}

fn title(text: &str) -> String {
    format!("{TITLE}{text}{TITLE:#}\n")
}

fn object(change: &Change) -> String {
    let (style, sign, what) = match change.action {
        Action::Create => (CREATED, "+", ""),
        Action::Change => (CHANGED, "~", ""),
        Action::Replace => (CHANGED, "±", " is made anew"),
        Action::Delete => (DELETED, "-", ""),
    };
    let mut parts = vec![format!("  {style}{sign} {} {}{what}{style:#}\n", change.kind, change.name)];
    parts.extend(change.fields.iter().map(|field| self::field(&field.path, field, 6)));
    parts.extend(change.effects.iter().map(effect));
    parts.concat()
}

fn effect(Effect { disruptive, text }: &Effect) -> String {
    let (style, sign) = if *disruptive { (DISRUPTIVE, "!") } else { (Style::new(), ">") };
    format!("      {style}{sign} {text}{style:#}\n")
}

fn field(path: &str, field: &FieldChange, indent: usize) -> String {
    let FieldChange { path: _, before, after } = field;
    let margin = " ".repeat(indent);
    if let (Some(Value::String(before)), Some(Value::String(after))) = (before, after)
        && (before.contains('\n') || after.contains('\n'))
    {
        return format!("{margin}{path}:\n{}", lines(before, after, indent + 2));
    }
    let (style, sign) = match (before, after) {
        (None, _) => (CREATED, "+"),
        (_, None) => (DELETED, "-"),
        _ => (CHANGED, "~"),
    };
    let values: Vec<String> = before.iter().chain(after).map(in_a_line).collect();
    let long = values.iter().any(|value| value.len() > LONG);
    let values = values.join(if long { "\n            -> " } else { " -> " });
    let between = if long { "\n               " } else { " " };
    format!("{margin}{style}{sign} {path}:{style:#}{between}{values}\n")
}

/// The lines that differ.
fn lines(before: &str, after: &str, indent: usize) -> String {
    let margin = " ".repeat(indent);
    let difference = TextDiff::from_lines(before, after);
    let changed = difference.iter_all_changes().filter_map(|change| {
        let line = change.value().trim_end();
        match change.tag() {
            ChangeTag::Equal => None,
            ChangeTag::Delete => Some(format!("{margin}{DELETED}- {line}{DELETED:#}\n")),
            ChangeTag::Insert => Some(format!("{margin}{CREATED}+ {line}{CREATED:#}\n")),
        }
    });
    changed.collect()
}

fn postgresql(settings: &[SettingChange]) -> String {
    if settings.is_empty() {
        return String::new();
    }
    let value = |value: &Option<String>| value.clone().unwrap_or_else(|| "PostgreSQL's default".to_owned());
    let mut parts = vec![format!("  {CHANGED}~ PostgreSQL's settings, through Patroni{CHANGED:#}\n")];
    parts.extend(settings.iter().map(|setting| {
        let (before, after) = (value(&setting.before), value(&setting.after));
        format!("      {CHANGED}~ {}:{CHANGED:#} {before} -> {after}\n", setting.name)
    }));
    let restarts = settings.iter().any(|setting| setting.restarts);
    parts.push(effect(&Effect {
        disruptive: restarts,
        text: if restarts {
            "PostgreSQL restarts on one member after another, the replicas first; writes wait some seconds for the primary's turn"
        } else {
            "they are reloaded: nothing restarts"
        }
        .to_owned(),
    }));
    parts.concat()
}

fn scaling(bands: &[Band]) -> String {
    let mut rows = vec![["Autoscaler", "adds instances above", "aims at", "removes below"].map(str::to_owned).to_vec()];
    rows.extend(bands.iter().map(|band| {
        let Band { metric, unit, target, above, below } = band;
        vec![metric.clone(), format!("{above}{unit}"), format!("{target}{unit}"), format!("{below}{unit}")]
    }));
    output::table(&rows, 1)
}

fn costs(cost: &CostChange) -> String {
    let CostChange { currency, before, after } = cost;
    let range = |Range { minimum, maximum }: &Range| format!("{} to {}", money(*minimum), money(*maximum));
    let before = before
        .as_ref()
        .filter(|before| *before != after)
        .map_or(String::new(), |before| format!("{} -> ", range(before)));
    format!("Cost: {before}{} {currency} a month, by the number of instances\n", range(after))
}
