//! The tree as people read it.

use anstyle::{AnsiColor, Style};
use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Condition, jiff::Timestamp};
use serde_json::{Map, Value};

use super::tree::{Component, Event, Tree};
use crate::output::{aligned, wrapped};

const GOOD: Style = AnsiColor::Green.on_default();
const BAD: Style = AnsiColor::Red.on_default();
const DOUBTFUL: Style = AnsiColor::Yellow.on_default();
const TITLE: Style = Style::new().bold();

/// Conditions that say what is on its way, or wrong.
const FALSE_WHERE_ALL_IS_WELL: [&str; 3] = ["Reconciling", "Stalled", "AutoscalingPolicyDegraded"];
/// Figures that stand elsewhere, or that nobody reads.
const HIDDEN: [&str; 3] = ["ready", "selector", "masters"];
/// Of each change of the primary: the one before was the primary of the row above.
const HIDDEN_OF_FAILOVERS: [&str; 2] = ["former", "timeline"];

pub(super) fn of(tree: &Tree, now: Timestamp) -> String {
    let mut parts = vec![head(tree), conditions(tree, now)];
    parts.extend(tree.components.iter().map(|component| self::component(component, now)));
    if !tree.events.is_empty() {
        parts.push(format!("{TITLE}events{TITLE:#}\n"));
        parts.extend(tree.events.iter().map(|event| self::event(event, now)));
    }
    parts.concat()
}

fn head(tree: &Tree) -> String {
    let Tree { name, namespace, ready, generation, observed_generation, .. } = tree;
    let wrong = tree.components.iter().filter(|component| !component.is_as_it_should_be());
    let wrong = wrong.map(|component| words(&component.name)).collect::<Vec<_>>().join(", ");
    let (style, state) = match (observed_generation, ready) {
        (None, _) => (DOUBTFUL, "nothing is known yet".to_owned()),
        (_, true) if wrong.is_empty() => (GOOD, "serves".to_owned()),
        (_, true) => (DOUBTFUL, format!("serves, but with trouble: {wrong}")),
        (_, false) => (BAD, "does not serve".to_owned()),
    };
    let mut parts = vec![format!("{TITLE}{name}{TITLE:#} in namespace {namespace}: {style}{state}{style:#}\n")];
    match (generation, observed_generation) {
        (_, None) => parts.push(wrapped(
            "the operator has not reported: is it running (kubectl -n taskplatform-system get pods)?",
            2,
        )),
        (Some(generation), Some(observed)) if observed < generation => parts.push(wrapped(
            &format!("the operator has not seen the last change yet: it is at generation {observed} of {generation}"),
            2,
        )),
        _ => {}
    }
    parts.concat()
}

/// What is said of the platform as a whole, where it is not what is wished for.
fn conditions(tree: &Tree, now: Timestamp) -> String {
    let of_note = tree.conditions.iter().filter(|condition| {
        let good = if FALSE_WHERE_ALL_IS_WELL.contains(&condition.type_.as_str()) { "False" } else { "True" };
        condition.status != good
    });
    let text = |condition: &Condition| {
        let Condition { type_, status, reason, message, .. } = condition;
        let since = age(condition.last_transition_time.0, now);
        wrapped(&format!("{type_} is {status} since {since} ago, {reason}: {message}"), 2)
    };
    of_note.map(text).collect()
}

fn component(component: &Component, now: Timestamp) -> String {
    let good = component.is_as_it_should_be();
    let (style, sign) = match (&component.condition, good) {
        (None, _) => (Style::new(), "·"),
        (_, true) => (GOOD, "✓"),
        (_, false) => (BAD, "✗"),
    };
    let ready = component.figures.get("ready").and_then(Value::as_str).unwrap_or_default();
    let title = words(&component.name);
    let mut first = format!("{style}{sign}{style:#} {TITLE}{title}{TITLE:#} {ready}").trim_end().to_owned();
    if let Some(condition) = component.condition.as_ref().filter(|_| !good) {
        let (reason, since) = (&condition.reason, age(condition.last_transition_time.0, now));
        first = format!("{first}  {BAD}{reason}{BAD:#} since {since} ago");
    }
    let mut parts = vec![format!("{first}\n")];
    if let Some(condition) = component.condition.as_ref().filter(|_| !good) {
        parts.push(wrapped(&condition.message, 2));
    }
    let told = component.condition.as_ref().map_or("", |condition| &condition.message);
    let pods = component.pods.iter().filter(|remark| good || !told.contains(&remark.why));
    parts.extend(pods.map(|remark| wrapped(&format!("{} {}", remark.pod, remark.why), 2)));
    parts.extend(component.events.iter().map(|event| self::event(event, now)));
    parts.push(figures(&component.figures, now));
    parts.concat()
}

fn event(event: &Event, now: Timestamp) -> String {
    let time = event.time.map_or_else(|| "?".to_owned(), |time| age(time, now));
    let times = if event.count > 1 { format!(" ({} times)", event.count) } else { String::new() };
    let sign = if event.warning { "! " } else { "" };
    wrapped(&format!("{sign}{time} ago{times} {}: {}: {}", event.object, event.reason, event.message), 2)
}

/// Single figures in a line, lists of things as tables.
fn figures(figures: &Map<String, Value>, now: Timestamp) -> String {
    let shown = figures.iter().filter(|(name, value)| !HIDDEN.contains(&name.as_str()) && !is_empty(value));
    let (tables, single): (Vec<_>, Vec<_>) = shown.partition(|(_, value)| rows(value).is_some());
    let single: Vec<String> =
        single.into_iter().map(|(name, value)| format!("{} {}", label(name), figure(name, value, now))).collect();
    let mut parts = Vec::new();
    if !single.is_empty() {
        parts.push(wrapped(&single.join(", "), 2));
    }
    for (name, value) in tables {
        let hidden: &[&str] = if name == "failovers" { &HIDDEN_OF_FAILOVERS } else { &[] };
        parts.extend(rows(value).map(|rows| list(&rows, hidden, now)));
    }
    parts.concat()
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        _ => false,
    }
}

fn rows(value: &Value) -> Option<Vec<&Map<String, Value>>> {
    value.as_array()?.iter().map(Value::as_object).collect()
}

fn list(rows: &[&Map<String, Value>], hidden: &[&str], now: Timestamp) -> String {
    let mut columns: Vec<&String> = Vec::new();
    for name in rows.iter().flat_map(|row| row.keys()) {
        if !hidden.contains(&name.as_str()) && !columns.contains(&name) {
            columns.push(name);
        }
    }
    // What tells things apart comes first.
    columns.sort_by_key(|name| !matches!(name.as_str(), "pod" | "metric" | "name"));
    columns.retain(|name| rows.iter().any(|row| row.get(*name).is_some_and(|value| !is_empty(value))));
    let headings: Vec<Vec<String>> =
        columns.iter().map(|name| label(name).to_uppercase().split(' ').map(str::to_owned).collect()).collect();
    let height = headings.iter().map(Vec::len).max().unwrap_or_default();
    // A heading of several words stands on as many lines, the last of them above the figures.
    let line = |at: usize| {
        let cell = |words: &Vec<String>| (at + words.len()).checked_sub(height).and_then(|at| words.get(at)).cloned();
        headings.iter().map(|words| cell(words).unwrap_or_default()).collect::<Vec<String>>()
    };
    let mut lines: Vec<Vec<String>> = (0..height).map(line).collect();
    for row in rows {
        let cell = |name: &&String| match row.get(*name) {
            Some(value) if !is_empty(value) => match value.as_str().and_then(|text| text.parse::<Timestamp>().ok()) {
                Some(time) => format!("{} ago", age(time, now)),
                None => figure(name, value, now),
            },
            _ => "-".to_owned(),
        };
        lines.push(columns.iter().map(cell).collect());
    }
    let is_number = |column: usize| {
        let name = columns.get(column);
        name.is_some_and(|name| rows.iter().any(|row| row.get(*name).is_some_and(Value::is_number)))
    };
    aligned(&lines, is_number).lines().flat_map(|line| ["  ", line, "\n"]).collect()
}

/// Figures carry their unit in their name.
const UNITS: [&str; 3] = ["Bytes", "Milliseconds", "Percent"];

/// `maxWaitMilliseconds` is labelled `max wait`.
fn label(name: &str) -> String {
    words(UNITS.iter().find_map(|unit| name.strip_suffix(unit)).unwrap_or(name))
}

/// `streamingReplicas` in words.
fn words(name: &str) -> String {
    let mut text = String::new();
    for letter in name.chars() {
        if letter.is_uppercase() && !text.is_empty() {
            text.push(' ');
        }
        text.extend(letter.to_lowercase());
    }
    text
}

fn figure(name: &str, value: &Value, now: Timestamp) -> String {
    match value {
        Value::Number(number) if name.ends_with("Bytes") => number.as_f64().map_or_else(|| number.to_string(), bytes),
        Value::Number(number) if name.ends_with("Milliseconds") => format!("{number} ms"),
        Value::Number(number) if name.ends_with("Percent") => format!("{number} %"),
        Value::String(text) => match text.parse::<Timestamp>() {
            Ok(time) => format!("{} ago ({text})", age(time, now)),
            Err(_) => text.clone(),
        },
        Value::Bool(truth) => if *truth { "yes" } else { "no" }.to_owned(),
        Value::Array(items) => items.iter().map(|item| figure("", item, now)).collect::<Vec<_>>().join(", "),
        Value::Object(fields) => {
            let fields = fields.iter().map(|(name, value)| format!("{} {}", label(name), figure(name, value, now)));
            fields.collect::<Vec<_>>().join(", ")
        }
        other => other.to_string(),
    }
}

fn bytes(number: f64) -> String {
    let mut number = number;
    for unit in ["B", "KiB", "MiB", "GiB"] {
        if number < 1024.0 {
            return if number.fract() == 0.0 { format!("{number} {unit}") } else { format!("{number:.1} {unit}") };
        }
        number /= 1024.0;
    }
    format!("{number:.1} TiB")
}

/// The time since then, in its largest unit: `3m`.
fn age(then: Timestamp, now: Timestamp) -> String {
    let seconds = now.duration_since(then).as_secs().max(0);
    match seconds {
        0..120 => format!("{seconds}s"),
        120..7200 => format!("{}m", seconds / 60),
        7200..172_800 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86400),
    }
}

#[cfg(test)]
mod tests {
    use kube::core::DynamicObject;
    use serde_json::json;

    use super::*;

    fn tree() -> Tree {
        let condition = |type_: &str, status: &str, reason: &str, message: &str| {
            json!({
                "type": type_, "status": status, "reason": reason, "message": message,
                "lastTransitionTime": "2026-01-02T03:00:00Z",
            })
        };
        let platform: DynamicObject = serde_json::from_value(json!({
            "apiVersion": "taskplatform.dev/v1alpha1", "kind": "TaskPlatform",
            "metadata": {"name": "tasks", "namespace": "team", "generation": 3},
            "spec": {},
            "status": {
                "observedGeneration": 3,
                "conditions": [
                    condition("Ready", "True", "Degraded:Messaging", "A task can be written and read through the gateway. Not as it should be: messaging: 2 of 3 nodes are in the quorum"),
                    condition("Reconciling", "False", "Settled", "Everything is as the spec says."),
                    condition("DatabaseReady", "True", "AsDesired", "fine"),
                    condition("DatabaseDurable", "True", "QuorumCommit", "fine"),
                    condition("VolumesHaveRoom", "False", "FillsUp", "the volume of tasks-database-1 is 81 % full, of 100Gi"),
                    condition("MessagingReady", "False", "QuorumAtRisk", "2 of 3 nodes are in the quorum: tasks-messaging-2 is not scheduled: 0/3 nodes are available: 3 Insufficient memory."),
                ],
                "database": {
                    "ready": "2/2", "primary": "tasks-database-1", "timeline": 2, "streamingReplicas": 1,
                    "failovers": [
                        {"time": "2026-01-02T02:04:05Z", "primary": "tasks-database-1", "former": "tasks-database-0", "cause": "Switchover", "timeline": 2, "unledMilliseconds": 812, "detectMilliseconds": 310, "unwrittenMilliseconds": 1240, "lostBytes": 0},
                    ],
                    "members": [
                        {"pod": "tasks-database-0", "role": "replica", "state": "streaming", "timeline": 2, "lagBytes": 1_572_864},
                        {"pod": "tasks-database-1", "role": "primary", "state": "running", "timeline": 2, "lagBytes": null, "volumeSizeBytes": 107_374_182_400_u64, "volumeUsedPercent": 81},
                    ],
                },
                "messaging": {"ready": "2/3", "queuedMessages": 7, "selector": "a=b"},
            },
        }))
        .unwrap();
        let pod: DynamicObject = serde_json::from_value(json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": "tasks-messaging-2", "labels": {"app.kubernetes.io/component": "messaging"}},
            "status": {"conditions": [{"type": "PodScheduled", "status": "False", "message": "0/3 nodes are available: 3 Insufficient memory."}]},
        }))
        .unwrap();
        let event = |name: &str, time: &str| {
            let event = json!({
                "metadata": {"name": name}, "involvedObject": {"kind": "Pod", "name": name},
                "type": "Warning", "reason": "FailedScheduling", "message": "0/3 nodes are available",
                "lastTimestamp": time, "count": 4,
            });
            serde_json::from_value(event).unwrap()
        };
        let events = [
            event("tasks-messaging-2", "2026-01-02T03:03:00Z"),
            event("tasks-messaging-2", "2026-01-02T03:04:00Z"),
            event("tasks-messagingless-0", "2026-01-02T03:04:00Z"),
        ];
        Tree::new(&platform, &[pod], &events)
    }

    #[test]
    fn what_is_wrong_comes_first_whatever_the_operator_reports() {
        let text = of(&tree(), "2026-01-02T03:04:05Z".parse().unwrap());
        let plain = anstream::adapter::strip_str(&text).to_string();
        let expected = "\
tasks in namespace team: serves, but with trouble: messaging
  VolumesHaveRoom is False since 4m ago, FillsUp: the volume of tasks-database-1
  is 81 % full, of 100Gi
✗ messaging 2/3  QuorumAtRisk since 4m ago
  2 of 3 nodes are in the quorum: tasks-messaging-2 is not scheduled: 0/3 nodes
  are available: 3 Insufficient memory.
  ! 5s ago (4 times) Pod tasks-messaging-2: FailedScheduling: 0/3 nodes are
  available
  ! 65s ago (4 times) Pod tasks-messaging-2: FailedScheduling: 0/3 nodes are
  available
  queued messages 7
✓ database 2/2
  primary tasks-database-1, streaming replicas 1, timeline 2
  CAUSE       DETECT  LOST  PRIMARY           TIME      UNLED  UNWRITTEN
  Switchover  310 ms   0 B  tasks-database-1  60m ago  812 ms    1240 ms
                                                            VOLUME  VOLUME
  POD                   LAG  ROLE     STATE      TIMELINE     SIZE    USED
  tasks-database-0  1.5 MiB  replica  streaming         2        -       -
  tasks-database-1        -  primary  running           2  100 GiB    81 %
";
        assert_eq!(plain, expected, "\n{plain}");
    }

    #[test]
    fn every_line_fits_80_columns() {
        for line in anstream::adapter::strip_str(&of(&tree(), Timestamp::UNIX_EPOCH)).to_string().lines() {
            assert!(line.chars().count() <= 80, "{line}");
        }
    }
}
