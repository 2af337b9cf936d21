//! Times as text: what languages, their libraries and people write.

use std::fmt;

use jiff::{
    Timestamp,
    civil::{DateTime, Time},
    fmt::{
        strtime,
        temporal::{DateTimeParser, Pieces},
    },
    tz::{Offset, TimeZone},
};
use serde::Deserialize;

/// How times are written without a zone, beside the ways of ISO 8601. Nothing here can be read in two ways: the year is first, or the month
/// has a name.
const FORMATS: [&str; 8] = [
    // With digits that ISO 8601 would have two of, as Rust's `time` writes them.
    "%Y-%m-%d %H:%M:%S%.f",
    "%Y/%m/%d %H:%M:%S%.f",
    "%Y/%m/%d %H:%M",
    "%Y/%m/%d",
    // E-mails and HTTP.
    "%a, %d %b %Y %H:%M:%S",
    "%d %b %Y %H:%M:%S",
    // JavaScript.
    "%a %b %d %Y %H:%M:%S",
    // C, Java and Ruby.
    "%a %b %d %H:%M:%S%.f %Y",
];

/// A time as text says it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Written {
    /// What clocks show then.
    at: DateTime,
    /// Where they do.
    pub(super) place: Place,
}

/// Where clocks show a time, as far as its text says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// So far from Greenwich.
    Offset(Offset),
    /// In a zone by its full name, which is there once.
    Zone(TimeZone),
    /// In a zone by a short name, such as CST, which is there more than once.
    Name(String),
    /// It does not say, and looks as SQLite's own functions write UTC.
    Sqlite,
    /// It does not say.
    Unsaid,
}

/// A zone that a mapping names.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub(in crate::import) struct Zone {
    name: String,
    zone: TimeZone,
}

impl TryFrom<String> for Zone {
    type Error = String;

    fn try_from(name: String) -> Result<Self, String> {
        // That one is known also where there is no database of zones.
        let zone = if is_utc(&name) { Ok(TimeZone::UTC) } else { DateTimeParser::new().parse_time_zone(&name) };
        match zone {
            Ok(zone) => Ok(Self { name, zone }),
            Err(error) => Err(format!(
                "{name:?} is no zone that is known here ({error}); give a name like Europe/Berlin, an offset like +01:00, or a rule like \
                 CET-1CEST,M3.5.0,M10.5.0/3"
            )),
        }
    }
}

impl fmt::Display for Zone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

impl Zone {
    /// The time when clocks show `at` there, and the zone is called `name`.
    fn named(&self, at: DateTime, name: &str) -> Result<Timestamp, String> {
        let ambiguous = self.zone.to_ambiguous_timestamp(at);
        [ambiguous.earlier(), ambiguous.later()]
            .into_iter()
            .flatten()
            .filter(|time| self.zone.to_datetime(*time) == at)
            .find(|time| self.zone.to_offset_info(*time).abbreviation().eq_ignore_ascii_case(name))
            .ok_or_else(|| format!("is {at} {name}, and {self} is not called {name} then"))
    }
}

impl Written {
    /// When it is. `zone` is for what does not say where.
    pub(super) fn time(&self, zone: Option<&Zone>) -> Result<Timestamp, String> {
        match (&self.place, zone) {
            (Place::Offset(offset), _) => self.at_offset(*offset),
            (Place::Zone(zone), _) => self.at_zone(zone, "its zone"),
            (Place::Name(name), Some(zone)) => zone.named(self.at, name),
            (Place::Sqlite | Place::Unsaid, Some(zone)) => self.at_zone(&zone.zone, &zone.name),
            (Place::Sqlite, None) => self.at_offset(Offset::UTC),
            (Place::Name(_) | Place::Unsaid, None) => {
                Err(format!("is {self}, and nothing says which zone that is of: name it in the mapping (zone = …)"))
            }
        }
    }

    fn at_offset(&self, offset: Offset) -> Result<Timestamp, String> {
        offset.to_timestamp(self.at).map_err(|_| format!("is {self}, which is too far away"))
    }

    fn at_zone(&self, zone: &TimeZone, name: &str) -> Result<Timestamp, String> {
        // In the night when clocks are put back, an hour is there twice; when they are put forward, it is not there.
        zone.to_ambiguous_timestamp(self.at).unambiguous().map_err(|_| {
            format!(
                "is {self}, which clocks of {name} show twice or never: write it with its offset, like {self}+01:00"
            )
        })
    }
}

impl fmt::Display for Written {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.at)?;
        match &self.place {
            Place::Name(name) => write!(f, " {name}"),
            _ => Ok(()),
        }
    }
}

/// Reads text of this format.
pub(super) fn of_format(text: &str, format: &str) -> Option<Written> {
    let parsed = strtime::parse(format, text).ok()?;
    if let Some(time) = parsed.timestamp() {
        return Some(Written { at: Offset::UTC.to_datetime(time), place: Place::Offset(Offset::UTC) });
    }
    let place = match (parsed.offset(), parsed.iana_time_zone()) {
        (Some(offset), _) => Place::Offset(offset),
        (None, Some(name)) => Place::Zone(TimeZone::get(name).ok()?),
        (None, None) => Place::Unsaid,
    };
    Some(Written { at: parsed.to_datetime().ok().filter(has_whole_year)?, place })
}

/// Reads text that is known to be a time in one way.
pub(super) fn of_any_kind(text: &str) -> Option<Written> {
    // Go adds what another of its clocks said,
    let text = text.split_once(" m=").map_or(text, |(time, _)| time);
    // and JavaScript what the zone is called in words.
    let (text, zone) = text.strip_suffix(')').and_then(|text| text.split_once(" (")).unwrap_or((text, ""));
    let written = iso(text).or_else(|| {
        let (at, place) = without_zone(text)?;
        Some(Written { at: clock(&at)?, place })
    })?;
    // Where it says nothing else, those words are what there is of a zone.
    let is_all = !zone.is_empty() && matches!(written.place, Place::Sqlite | Place::Unsaid);
    Some(if is_all { Written { place: Place::Name(zone.to_owned()), ..written } } else { written })
}

/// Reads what ISO 8601 allows, with the zone in brackets that RFC 9557 adds. An offset tells more than a zone: it counts.
fn iso(text: &str) -> Option<Written> {
    let pieces = Pieces::parse(text).ok()?;
    let place = match pieces.to_numeric_offset() {
        Some(offset) => Place::Offset(offset),
        None => match pieces.to_time_zone().ok()? {
            Some(zone) => Place::Zone(zone),
            None if is_of_sqlite(text) => Place::Sqlite,
            None => Place::Unsaid,
        },
    };
    Some(Written { at: at(&pieces), place })
}

fn at(pieces: &Pieces<'_>) -> DateTime {
    pieces.date().to_datetime(pieces.time().unwrap_or_else(Time::midnight))
}

/// Whether `date()`, `datetime()` or `CURRENT_TIMESTAMP` write so, which say UTC.
fn is_of_sqlite(text: &str) -> bool {
    let shape: String = text.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
    matches!(&*shape, "0000-00-00" | "0000-00-00 00:00:00" | "0000-00-00 00:00:00.000")
}

/// Takes the zone off the end: an offset, a name, or both, as in `+1100 AEDT` and `+0330 +0330`, where the offset counts.
fn without_zone(text: &str) -> Option<(String, Place)> {
    let mut words: Vec<&str> = text.split_ascii_whitespace().collect();
    // With C's order of words, the year comes after the zone.
    if let [.., zone, year] = words.as_mut_slice()
        && year.len() == 4
        && year.bytes().all(|byte| byte.is_ascii_digit())
        && is_zone(zone)
    {
        std::mem::swap(zone, year);
    }
    let zones = words.iter().rev().take_while(|word| is_zone(word)).count();
    let (at, zone) = words.split_at(words.len() - zones);
    let place = match (zone.iter().find_map(|word| offset(word)), zone) {
        (Some(offset), _) => Place::Offset(offset),
        (None, []) => Place::Unsaid,
        (None, [name]) if is_utc(name) => Place::Offset(Offset::UTC),
        (None, [name]) if name.contains('/') => Place::Zone(TimeZone::get(name).ok()?),
        (None, [name]) => Place::Name((*name).to_owned()),
        (None, _) => return None,
    };
    Some((at.join(" "), place))
}

/// Reads a time without a zone.
fn clock(text: &str) -> Option<DateTime> {
    let is_without = |pieces: &Pieces<'_>| pieces.offset().is_none() && pieces.time_zone_annotation().is_none();
    let iso = Pieces::parse(text).ok().filter(is_without);
    let read = |format: &&str| DateTime::strptime(format, text).ok().filter(has_whole_year);
    iso.as_ref().map(at).or_else(|| FORMATS.iter().find_map(read))
}

/// A year of two digits would be one of antiquity.
fn has_whole_year(at: &DateTime) -> bool {
    at.year() >= 1000
}

fn is_zone(word: &str) -> bool {
    let is_long_name = word.contains('/') && word.starts_with(|first: char| first.is_ascii_alphabetic());
    let is_short_name = (1..=5).contains(&word.len()) && word.bytes().all(|byte| byte.is_ascii_alphabetic());
    let is_half_of_day = ["am", "pm"].iter().any(|half| word.eq_ignore_ascii_case(half));
    offset(word).is_some() || is_long_name || (is_short_name && !is_half_of_day)
}

fn is_utc(name: &str) -> bool {
    ["utc", "gmt", "z", "ut", "uct", "zulu"].iter().any(|utc| name.eq_ignore_ascii_case(utc))
}

/// `+0100`, `+01:00`, `+01`, or `GMT+0100`. `GMT+1` would be east for people and west for POSIX.
fn offset(word: &str) -> Option<Offset> {
    let after_name = ["GMT", "UTC"].iter().find_map(|name| word.strip_prefix(*name)).filter(|offset| offset.len() >= 5);
    let digits = after_name.unwrap_or(word);
    let zone = digits.starts_with(['+', '-']).then(|| DateTimeParser::new().parse_time_zone(digits))?;
    zone.ok()?.to_fixed_offset().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn time(text: &str) -> Option<String> {
        of_any_kind(text)?.time(None).ok().map(|time| time.to_string())
    }

    #[test]
    fn one_time_in_many_spellings() {
        let spellings = [
            "2024-03-10T08:16:00Z",
            "2024-03-10t08:16:00.000z",
            "2024-03-10 08:16Z",
            "2024-03-10 08:16:00Z",
            "2024-03-10 08:16:00.000000+00:00",
            "2024-03-10 10:16:00+02",
            "2024-03-10T10:16:00.0000000+0200",
            "2024-03-10T10:16:00+02:00[Europe/Berlin]",
            "20240310T081600Z",
            "2024-03-10 10:16:00.000 +02:00",
            "2024-03-10 10:16:00 +0200",
            "2024-03-10 08:16:00 +0000 UTC",
            "2024-03-10 19:16:00.000000000 +1100 AEDT m=+12.345678901",
            "2024-03-10 19:16:00 +1100 AEDT m=-0.5",
            "2024-03-10 11:46:00 +0330 +0330",
            "2024-03-10 08:16:00 UTC",
            "2024-03-10 08:16:00.000 GMT",
            "2024-03-10 08:16:00 Z",
            "2024-03-10 8:16:00.0 +00:00:00",
            "2024/03/10 08:16:00 +0000",
            "2024/3/10 08:16 UTC",
            "Sun, 10 Mar 2024 08:16:00 GMT",
            "Sun, 10 Mar 2024 09:16:00 +0100",
            "10 Mar 2024 08:16:00 +0000",
            "Sun Mar 10 2024 09:16:00 GMT+0100 (Central European Standard Time)",
            "Sun Mar 10 08:16:00 UTC 2024",
            "Sun Mar 10 09:16:00 2024 +0100",
        ];
        for text in spellings {
            assert_eq!(time(text).as_deref(), Some("2024-03-10T08:16:00Z"), "{text}");
        }
    }

    #[test]
    fn fractions_and_days() {
        assert_eq!(time("2024-02-07 10:00:00.123456789+10:00").as_deref(), Some("2024-02-07T00:00:00.123456789Z"));
        assert_eq!(time("2024-02-06 12:00:00.5 +0330 +0330").as_deref(), Some("2024-02-06T08:30:00.5Z"));
        assert_eq!(time("2024-03-10 +0200").as_deref(), Some("2024-03-09T22:00:00Z"));
    }

    #[test]
    fn sqlite_writes_utc_and_others_do_not_say() {
        for (text, expected) in [
            ("2024-03-10", "2024-03-10T00:00:00Z"),
            ("2024-03-10 08:16:00", "2024-03-10T08:16:00Z"),
            ("2024-03-10 08:16:00.125", "2024-03-10T08:16:00.125Z"),
        ] {
            assert_eq!(of_any_kind(text).unwrap().place, Place::Sqlite, "{text}");
            assert_eq!(time(text).as_deref(), Some(expected), "{text}");
        }
        let silent = [
            "2024-03-10T08:16:00",
            "2024-03-10 08:16",
            "2024-03-10 08:16:00.123456",
            "2024-03-10 08:16:00.1234567",
            "20240310T081600",
            "2024/03/10 08:16:00",
            "Sun Mar 10 08:16:00 2024",
        ];
        for text in silent {
            assert_eq!(of_any_kind(text).unwrap().place, Place::Unsaid, "{text}");
            assert_eq!(time(text), None, "{text}");
        }
    }

    #[test]
    fn what_is_no_time_or_more_than_one_is_not_read() {
        let others = [
            "yesterday",
            "10:16:00",
            "03/10/2024",
            "10.03.2024 08:16:00",
            "3/10/2024 8:16:00 PM",
            "24/03/10 08:16:00",
            "2024-02-30",
            "2024-03-10 25:00:00Z",
            "2024-03-10 08:16:00 CET CEST",
            "Mon Mar 10 2024 09:16:00 GMT+0100",
            "0000-00-00 00:00:00",
            "2024-03-10 08:16:00 and more",
        ];
        for text in others {
            assert_eq!(of_any_kind(text), None, "{text}");
        }
    }

    fn zone(name: &str) -> Zone {
        Zone::try_from(name.to_owned()).unwrap()
    }

    /// A rule, so that it does not need a database of zones.
    const BERLIN: &str = "CET-1CEST,M3.5.0,M10.5.0/3";

    #[test]
    fn a_mapping_names_the_zone_of_what_does_not_say() {
        let time =
            |text: &str, name: &str| of_any_kind(text).unwrap().time(Some(&zone(name))).map(|time| time.to_string());
        assert_eq!(time("2024-03-10T08:16:00", "UTC").as_deref(), Ok("2024-03-10T08:16:00Z"));
        assert_eq!(time("2024-03-10 08:16:00", "+02:00").as_deref(), Ok("2024-03-10T06:16:00Z"));
        assert_eq!(time("2024-03-10T08:16:00", BERLIN).as_deref(), Ok("2024-03-10T07:16:00Z"));
        assert_eq!(time("2024-07-10T08:16:00", BERLIN).as_deref(), Ok("2024-07-10T06:16:00Z"));
        assert_eq!(time("2024-07-10T08:16:00-03:00", BERLIN).as_deref(), Ok("2024-07-10T11:16:00Z"), "it says where");
        for twice_or_never in ["2024-10-27T02:30:00", "2024-03-31T02:30:00"] {
            assert!(time(twice_or_never, BERLIN).is_err(), "{twice_or_never}");
        }
        for bad in ["Nowhere/Atall", "", "1"] {
            assert!(Zone::try_from(bad.to_owned()).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_short_name_means_what_the_mapping_s_zone_means_by_it() {
        let at = |text: &str, zone: Option<&Zone>| of_any_kind(text).unwrap().time(zone).map(|time| time.to_string());
        let berlin = zone(BERLIN);
        assert!(at("2024-03-10 08:16:00 CET", None).unwrap_err().contains("zone"));
        assert_eq!(at("2024-03-10 08:16:00 CET", Some(&berlin)).as_deref(), Ok("2024-03-10T07:16:00Z"));
        assert_eq!(at("Sun Mar 10 08:16:00 CET 2024", Some(&berlin)).as_deref(), Ok("2024-03-10T07:16:00Z"));
        assert_eq!(at("2024-10-27 02:30:00 CEST", Some(&berlin)).as_deref(), Ok("2024-10-27T00:30:00Z"));
        assert_eq!(at("2024-10-27 02:30:00 CET", Some(&berlin)).as_deref(), Ok("2024-10-27T01:30:00Z"));
        assert!(at("2024-07-10 08:16:00 CET", Some(&berlin)).is_err(), "it is summer there");
        assert!(at("2024-03-10 08:16:00 EST", Some(&berlin)).is_err());
    }

    #[test]
    fn a_format_says_how_to_read() {
        let time = |text: &str, format: &str| {
            of_format(text, format).map(|written| written.time(None).map(|time| time.to_string()))
        };
        let read = Some(Ok("2024-03-10T20:16:00Z".to_owned()));
        assert_eq!(time("10.03.2024 20:16 +0000", "%d.%m.%Y %H:%M %z"), read);
        assert_eq!(time("3/10/2024 8:16:00 PM +00:00", "%m/%d/%Y %I:%M:%S %p %:z"), read);
        assert_eq!(time("1710101760", "%s"), read);
        assert_eq!(of_format("20240310", "%Y%m%d").unwrap().place, Place::Unsaid);
        for (text, format) in [("10.03.24", "%d.%m.%Y"), ("31.02.2024", "%d.%m.%Y"), ("x", "%d"), ("x", "%!")] {
            assert_eq!(of_format(text, format), None, "{text} {format}");
        }
    }
}
