//! What is said of a text that does not match its pattern.

use serde_json::Value;

use crate::{
    Cpu,
    duration::{self, InvalidDuration},
    network::{self, InvalidNetwork},
    quantity::{self, InvalidQuantity},
    rate::{self, InvalidRate},
    spec::PATH_PATTERN,
};

/// Why a value is not taken where a pattern is asked for, and the way out; nothing, if the pattern is not known here.
pub(crate) fn refusal(pattern: &str, given: &Value) -> Option<String> {
    let text = given.as_str().map_or_else(|| given.to_string(), ToOwned::to_owned);
    match pattern {
        duration::PATTERN => Some(InvalidDuration(text).to_string()),
        network::PATTERN => Some(InvalidNetwork::Text(text).to_string()),
        rate::PATTERN => Some(InvalidRate(text).to_string()),
        quantity::SIZE_PATTERN => Some(InvalidQuantity::Size(text).to_string()),
        quantity::CPU_PATTERN => Some(cpu(text, given.is_number())),
        PATH_PATTERN => Some(format!(
            "{text:?} is not a path: begin it with a slash, and use letters, digits and the characters - . _ ~ /"
        )),
        _ => None,
    }
}

/// A fraction is an amount of CPU, but Kubernetes takes it in quotes alone: a definition can't admit it without them.
fn cpu(text: String, is_number: bool) -> String {
    match text.parse::<Cpu>() {
        Ok(cpu) if is_number => format!("{text} is a fraction without quotes: write {cpu}, or \"{text}\" in quotes"),
        _ => InvalidQuantity::Cpu(text).to_string(),
    }
}
