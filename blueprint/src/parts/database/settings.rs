//! What PostgreSQL 17 knows of its settings: which there are, and what it takes for the value of each.

use std::sync::LazyLock;

use taskplatform_crds::nearest;

/// `pg_settings` of the PostgreSQL that the images have, names in small letters, with the choices that it accepts but does not list.
/// A choice between on and off has more spellings: see [`Kind::Choice`].
static SETTINGS: LazyLock<Vec<Setting>> = LazyLock::new(|| {
    let table = include_str!("settings.tsv");
    table.lines().skip(1).filter_map(Setting::of_row).collect()
});

/// A setting.
pub(crate) struct Setting {
    name: &'static str,
    context: &'static str,
    kind: Kind,
}

enum Kind {
    Switch,
    /// With on and off, their other spellings are taken, too.
    Choice(Vec<&'static str>),
    Number(Range),
    Text,
}

/// Which numbers a setting takes.
struct Range {
    is_whole: bool,
    unit: Option<Unit>,
    least: f64,
    most: f64,
}

/// What a number without a unit counts.
struct Unit {
    name: &'static str,
    /// In the first of the known units.
    size: f64,
    known: &'static [(&'static str, f64)],
}

const MEMORY: [(&str, f64); 5] =
    [("B", 1.0), ("kB", 1024.0), ("MB", 1_048_576.0), ("GB", 1_073_741_824.0), ("TB", 1_099_511_627_776.0)];

const TIME: [(&str, f64); 6] = [("us", 1.0), ("ms", 1e3), ("s", 1e6), ("min", 60e6), ("h", 3_600e6), ("d", 86_400e6)];

/// Why PostgreSQL would not use a setting, and the way out.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) reason: String,
    pub(crate) remedy: String,
}

/// The setting of a name, if PostgreSQL has it. Those of extensions, which have a dot, nobody knows before they are loaded.
pub(crate) fn setting(name: &str) -> Option<&'static Setting> {
    SETTINGS.iter().find(|setting| setting.name == name)
}

/// The setting that somebody may have meant.
pub(crate) fn likely(name: &str) -> Option<&'static str> {
    nearest(name, SETTINGS.iter().filter(|setting| setting.can_be_set()).map(|setting| setting.name))
}

impl Setting {
    fn of_row(row: &'static str) -> Option<Self> {
        let mut columns = row.split('\t');
        let (name, context, kind) = (columns.next()?, columns.next()?, columns.next()?);
        let mut column = || columns.next().unwrap_or_default();
        let (unit, least, most, choices) = (column(), column(), column(), column());
        let kind = match kind {
            "bool" => Kind::Switch,
            "enum" => Kind::Choice(choices.split('|').collect()),
            "string" => Kind::Text,
            _ => Kind::Number(Range {
                is_whole: kind == "integer",
                unit: Unit::of(unit),
                least: least.parse().ok()?,
                most: most.parse().ok()?,
            }),
        };
        Some(Self { name, context, kind })
    }

    /// Whether PostgreSQL has to be restarted for a change of it.
    pub(crate) fn is_read_at_start(&self) -> bool {
        self.context == "postmaster"
    }

    /// Whether it can be set at all; others only tell something.
    pub(crate) fn can_be_set(&self) -> bool {
        self.context != "internal"
    }

    /// A value as a whole number: of bytes, where the setting has a unit of memory.
    pub(crate) fn whole(&self, text: &str) -> Option<u64> {
        let Kind::Number(range) = &self.kind else { return None };
        let size = range.unit.as_ref().map_or(1.0, |unit| unit.size);
        // Whole numbers of 32 bits, of up to a megabyte each.
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a float is brought into the range"
        )]
        range.read(text).map(|number| (number * size) as u64)
    }

    /// Whether PostgreSQL can use a value.
    pub(crate) fn check(&self, text: &str) -> Result<(), Refusal> {
        if !self.can_be_set() {
            let reason = "PostgreSQL tells it, but does not let it be set".to_owned();
            return Err(Refusal { reason, remedy: "leave it out".to_owned() });
        }
        let unreadable = |remedy| Err(Refusal { reason: format!("PostgreSQL cannot read {text:?}"), remedy });
        match &self.kind {
            Kind::Text => Ok(()),
            Kind::Switch if is_switch(text) => Ok(()),
            Kind::Switch => unreadable("write on or off".to_owned()),
            Kind::Choice(choices) if is_choice(choices, text) => Ok(()),
            Kind::Choice(choices) => unreadable(format!("write {}", choices.join(" or "))),
            Kind::Number(range) => match range.read(text) {
                None => unreadable(range.way_to_write(text)),
                Some(number) if (range.least..=range.most).contains(&number) => Ok(()),
                Some(number) => Err(Refusal {
                    reason: format!("{text:?} is out of range, it is {}", range.shown(number)),
                    remedy: range.way_to_write(text),
                }),
            },
        }
    }
}

/// Beginnings of these words are enough, if they are beginnings of one only.
fn is_switch(text: &str) -> bool {
    let text = text.to_ascii_lowercase();
    let begins = |word: &str, least: usize| text.len() >= least && word.starts_with(&text);
    ["1", "0"].contains(&text.as_str())
        || [("true", 1), ("false", 1), ("yes", 1), ("no", 1), ("on", 2), ("off", 2)]
            .into_iter()
            .any(|(word, least)| begins(word, least))
}

fn is_choice(choices: &[&str], text: &str) -> bool {
    let others: &[&str] = if choices.contains(&"on") { &["true", "false", "yes", "no", "1", "0"] } else { &[] };
    choices.iter().chain(others).any(|choice| choice.eq_ignore_ascii_case(text))
}

impl Range {
    /// The number in the setting's unit.
    fn read(&self, text: &str) -> Option<f64> {
        let (number, unit) = numeral(text, self.is_whole)?;
        let number = match (&self.unit, unit) {
            (_, "") => number,
            (Some(base), unit) => number * base.known.iter().find(|(name, _)| *name == unit)?.1 / base.size,
            (None, _) => return None,
        };
        Some(if self.is_whole { number.round_ties_even() } else { number })
    }

    /// How to write what was likely meant, or how to write any.
    fn way_to_write(&self, text: &str) -> String {
        let is_right = |text: &String| self.read(text).is_some_and(|number| (self.least..=self.most).contains(&number));
        let kind = if self.is_whole { "a whole number" } else { "a number" };
        let range = if self.most > 1e300 {
            format!("{} or more", self.shown(self.least))
        } else {
            format!("{} to {}", self.shown(self.least), self.shown(self.most))
        };
        let meant = [text.replace(',', "."), self.with_likely_unit(text)].into_iter().find(is_right);
        match (&self.unit, meant) {
            (_, Some(meant)) => format!("write {meant}"),
            (None, None) => format!("write {kind}: {range}"),
            (Some(unit), None) => {
                let units: Vec<_> = unit.known.iter().map(|(name, _)| *name).collect();
                format!(
                    "write {kind} and one of {}: {range} (without a unit it counts {})",
                    units.join(", "),
                    unit.name
                )
            }
        }
    }

    /// `2Gi` as `2GB`, `30 sec` as `30s`.
    fn with_likely_unit(&self, text: &str) -> String {
        let end = text.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(text.len());
        let (number, given) = (text[..end].trim(), text[end..].to_ascii_lowercase());
        let units = self.unit.iter().flat_map(|unit| unit.known.iter().map(|(name, _)| *name));
        let begins = |unit: &&str| given.starts_with(&unit.to_ascii_lowercase());
        // Kubernetes' units, of which the first letter is the same.
        let is_kubernetes = |unit: &&str| unit.len() == 2 && unit.ends_with('B') && begins(&&unit[..1]);
        let unit =
            units.clone().filter(begins).max_by_key(|unit| unit.len()).or_else(|| units.clone().find(is_kubernetes));
        format!("{number}{}", unit.unwrap_or_default())
    }

    /// A number in the largest unit in which it is whole.
    fn shown(&self, number: f64) -> String {
        let Some(unit) = self.unit.as_ref().filter(|_| number > 0.0) else { return number.to_string() };
        let size = number * unit.size;
        let fits = |(_, each): &&(&str, f64)| (size / each).fract() == 0.0;
        let (name, each) = unit.known.iter().rev().find(fits).unwrap_or(&unit.known[0]);
        format!("{}{name}", size / each)
    }
}

impl Unit {
    fn of(name: &'static str) -> Option<Self> {
        let size = |known: &[(&str, f64)], name| known.iter().find(|(known, _)| *known == name).map(|(_, size)| *size);
        let (size, known) = match name {
            "8kB" => (8.0 * 1024.0, MEMORY.as_slice()),
            _ => size(&MEMORY, name)
                .map(|size| (size, MEMORY.as_slice()))
                .or_else(|| Some((size(&TIME, name)?, TIME.as_slice())))?,
        };
        Some(Self { name, size, known })
    }
}

/// The number at the beginning, as C reads it, and the unit after it. Whole numbers that begin with a zero are octal.
fn numeral(text: &str, is_whole: bool) -> Option<(f64, &str)> {
    let text = text.trim_matches(|c: char| c.is_ascii_whitespace());
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    let (begin, radix) = if unsigned.starts_with("0x") || unsigned.starts_with("0X") { (2, 16) } else { (0, 10) };
    let (digits, rest) = unsigned.split_at(begin).1.split_at(match radix {
        16 => unsigned[begin..].find(|c: char| !c.is_ascii_hexdigit()).unwrap_or(unsigned.len() - begin),
        _ => decimal(unsigned),
    });
    let is_octal = radix == 10 && is_whole && digits.len() > 1 && digits.starts_with('0');
    let number: f64 = match radix {
        10 if is_octal && digits.bytes().all(|digit| digit.is_ascii_digit()) => {
            u32::from_str_radix(digits, 8).ok()?.into()
        }
        10 => digits.parse().ok()?,
        radix => u32::from_str_radix(digits, radix).ok()?.into(),
    };
    let unit = rest.trim_start_matches(|c: char| c.is_ascii_whitespace());
    Some((if text.starts_with('-') { -number } else { number }, unit))
}

/// How long the decimal number at the beginning is.
fn decimal(text: &str) -> usize {
    let digits = |text: &str| text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let mut end = digits(text);
    if let Some(fraction) = text[end..].strip_prefix('.') {
        end += 1 + digits(fraction);
    }
    if let Some(exponent) = text[end..].strip_prefix(['e', 'E']) {
        let sign = usize::from(exponent.starts_with(['+', '-']));
        let length = digits(&exponent[sign..]);
        end += if length > 0 { 1 + sign + length } else { 0 };
    }
    end
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_is_a_setting() {
        let rows = include_str!("settings.tsv").lines().count() - 1;
        assert_eq!(SETTINGS.len(), rows);
        assert!(SETTINGS.iter().is_sorted_by_key(|setting| setting.name));
        let contexts = ["internal", "postmaster", "sighup", "superuser-backend", "superuser", "backend", "user"];
        for setting in SETTINGS.iter() {
            assert!(contexts.contains(&setting.context), "{}", setting.name);
        }
    }

    #[test]
    fn values_are_read_as_postgresql_reads_them() {
        for (name, right, wrong) in [
            ("max_connections", "300 +300 0x12c 0454 3e2 300.4", "x 300kB 0x 08 300,0 262144"),
            (
                "shared_buffers",
                "16384 2GB 2_GB 1.5GB 0.5TB 131072kB 128kB 1073741823",
                "2Gi 2G 2gb 2GBs 15 1073741824 -1",
            ),
            ("work_mem", "64 64kB 65536B 2147483647 1e3", "32 63kB 64K 3TB"),
            ("statement_timeout", "0 30s 1.5h 1d 500_ms 100us", "30_sec 30S -1 25d"),
            ("random_page_cost", "1.1 4 .5 010 1e2", "1,1 -1 4ms 1.1.1 inf nan"),
            ("vacuum_cost_delay", "2 2ms 100us 0.1s", "2s -1"),
            ("jit", "on OFF tr f yes n 1 0", "o 2 enabled truee"),
            ("wal_compression", "on pglz LZ4 yes 0", "zip y"),
            ("client_min_messages", "debug INFO notice", "fatal"),
            ("log_line_prefix", "whatever_%m", ""),
            ("block_size", "", "8192"),
        ] {
            let check = |value: &str| setting(name).unwrap().check(&value.replace('_', " "));
            for value in right.split_whitespace() {
                assert_eq!(check(value), Ok(()), "{name} = {value}");
            }
            for value in wrong.split_whitespace() {
                assert!(check(value).is_err(), "{name} = {value}");
            }
        }
        assert!(setting("jit").unwrap().check("").is_err() && setting("work_mem").unwrap().check("").is_err());
        assert_eq!(setting("ssl_max_protocol_version").unwrap().check(""), Ok(()));
    }

    #[test]
    fn memory_is_counted_in_bytes() {
        for (name, text, bytes) in [
            ("shared_buffers", "16384", Some(128 << 20)),
            ("shared_buffers", "4GB", Some(4 << 30)),
            ("work_mem", "64", Some(64 << 10)),
            ("work_mem", "1.5MB", Some(3 << 19)),
            ("max_connections", "300", Some(300)),
            ("work_mem", "64Mi", None),
        ] {
            assert_eq!(setting(name).unwrap().whole(text), bytes, "{name} = {text}");
        }
    }

    #[test]
    fn a_refusal_has_the_way_out() {
        for (name, value, reason, remedy) in [
            ("shared_buffers", "2Gi", "PostgreSQL cannot read \"2Gi\"", "write 2GB"),
            ("work_mem", "512m", "PostgreSQL cannot read \"512m\"", "write 512MB"),
            (
                "work_mem",
                "32",
                "\"32\" is out of range, it is 32kB",
                "write a whole number and one of B, kB, MB, GB, TB: 64kB to 2147483647kB (without a unit it counts kB)",
            ),
            ("statement_timeout", "30 sec", "PostgreSQL cannot read \"30 sec\"", "write 30s"),
            ("statement_timeout", "5 minutes", "PostgreSQL cannot read \"5 minutes\"", "write 5min"),
            ("random_page_cost", "1,1", "PostgreSQL cannot read \"1,1\"", "write 1.1"),
            ("random_page_cost", "low", "PostgreSQL cannot read \"low\"", "write a number: 0 or more"),
            ("max_connections", "many", "PostgreSQL cannot read \"many\"", "write a whole number: 1 to 262143"),
            ("jit", "maybe", "PostgreSQL cannot read \"maybe\"", "write on or off"),
            ("wal_compression", "zip", "PostgreSQL cannot read \"zip\"", "write pglz or lz4 or zstd or on or off"),
            ("block_size", "8192", "PostgreSQL tells it, but does not let it be set", "leave it out"),
        ] {
            let refusal = setting(name).unwrap().check(value).unwrap_err();
            assert_eq!((refusal.reason.as_str(), refusal.remedy.as_str()), (reason, remedy), "{name} = {value}");
        }
        assert_eq!(likely("max_paralel_workers"), Some("max_parallel_workers"));
        assert_eq!(likely("teleporter"), None);
    }
}
