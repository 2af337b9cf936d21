//! Times as databases keep them: numbers that count from some day on, or text.
//!
//! Nothing that can be read in two ways is read. So a column is looked through before (see [`Judge`]), and what it leaves open has to be said in
//! the mapping.

mod texts;
mod units;

use std::fmt;

use jiff::Timestamp;
use rusqlite::types::ValueRef;
use serde::Deserialize;

pub(super) use texts::Zone;
use texts::{Place, Written};
use units::Number;
pub(super) use units::Unit;

/// How the times of a column are kept, as a mapping says it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub(super) enum Spelling {
    /// As numbers that count this.
    Numbers(Unit),
    /// As text, or digits, of this format, in the words of `strptime`.
    Format(String),
}

impl TryFrom<String> for Spelling {
    type Error = String;

    fn try_from(said: String) -> Result<Self, String> {
        match Unit::from_word(&said) {
            Some(unit) => Ok(Self::Numbers(unit)),
            None if said.contains('%') => Ok(Self::Format(said)),
            None => Err(format!(
                "{said:?} is neither what numbers count ({}) nor a format like %d.%m.%Y %H:%M",
                Unit::words()
            )),
        }
    }
}

impl Spelling {
    fn format(&self) -> Option<&str> {
        match self {
            Self::Numbers(_) => None,
            Self::Format(format) => Some(format),
        }
    }
}

/// A value in a column of times.
enum Content {
    /// NULL, or text of nothing but blanks, which some write for it.
    Nothing,
    Number(Number),
    Written(Written),
}

impl Content {
    fn of(value: ValueRef<'_>, format: Option<&str>) -> Result<Self, String> {
        let text = match value {
            ValueRef::Null => return Ok(Self::Nothing),
            ValueRef::Integer(number) => return Self::of_number(Number::Integer(number), format),
            ValueRef::Real(number) => return Self::of_number(Number::Real(number), format),
            ValueRef::Text(text) => std::str::from_utf8(text).map_err(|_| "is not UTF-8".to_owned())?.trim(),
            ValueRef::Blob(_) => return Err("is a blob, and no time".to_owned()),
        };
        match Number::from_text(text).filter(|_| format.is_none()) {
            _ if text.is_empty() => Ok(Self::Nothing),
            Some(number) => Ok(Self::Number(number)),
            None => Self::of_text(text, format),
        }
    }

    /// With a format, digits are one more way to write it.
    fn of_number(number: Number, format: Option<&str>) -> Result<Self, String> {
        if format.is_none() { Ok(Self::Number(number)) } else { Self::of_text(&number.to_string(), format) }
    }

    fn of_text(text: &str, format: Option<&str>) -> Result<Self, String> {
        let written = match format {
            Some(format) => texts::of_format(text, format),
            None => texts::of_any_kind(text),
        };
        written.map(Self::Written).ok_or_else(|| match format {
            Some(format) => format!("is {text:?}, which is no time of the format {format}"),
            None => format!(
                "is {text:?}, which is no time that is read in one way alone, like 2024-01-31T12:00:00Z; if all are so, say in the mapping how \
                 they are written, like times = \"%d.%m.%Y %H:%M\""
            ),
        })
    }
}

/// How the times of a column are read.
#[derive(Clone, Debug, Default)]
pub(super) struct Way {
    spelling: Option<Spelling>,
    /// Nobody said what numbers count; it was told by how great they are.
    is_guess: bool,
    zone: Option<Zone>,
    /// There is text that does not say its zone.
    is_silent: bool,
}

impl Way {
    /// A time, to the microsecond, where there is one.
    pub(super) fn read(&self, value: ValueRef<'_>) -> Result<Option<Timestamp>, String> {
        let time = match Content::of(value, self.spelling.as_ref().and_then(Spelling::format))? {
            Content::Nothing => return Ok(None),
            Content::Number(number) => self.number(number)?,
            Content::Written(written) => written.time(self.zone.as_ref())?,
        };
        // Cut off, not rounded, as everywhere.
        let micros = i64::try_from(time.as_nanosecond().div_euclid(1_000)).ok();
        let time = micros.and_then(|micros| Timestamp::from_microsecond(micros).ok());
        time.map(Some).ok_or_else(|| "is too far away".to_owned())
    }

    fn number(&self, number: Number) -> Result<Timestamp, String> {
        let Some(unit) = self.unit() else {
            return Err(format!("is {number}, and nothing says what it counts"));
        };
        let time = unit.at(number).ok_or_else(|| format!("is {number}, which is too far away in {unit}"))?;
        if self.is_guess && units::is_early(time) {
            return Err(format!(
                "is {number}, which is {time} if it counts {unit} as others here do; if so, say it in the mapping (times = \"{unit}\")"
            ));
        }
        Ok(time)
    }

    /// What numbers count, if there are numbers.
    pub(super) fn unit(&self) -> Option<Unit> {
        match &self.spelling {
            Some(Spelling::Numbers(unit)) => Some(*unit),
            Some(Spelling::Format(_)) | None => None,
        }
    }

    /// The zone that text is taken to be of that does not say its own, if there is any.
    pub(super) fn zone_of_silent(&self) -> Option<String> {
        let zone = || self.zone.as_ref().map_or_else(|| "UTC".to_owned(), Zone::to_string);
        self.is_silent.then(zone)
    }
}

/// A column of the file, for people.
#[derive(Clone, Copy, Debug)]
pub(super) struct Name<'n> {
    /// What the mapping calls the table.
    pub(super) section: &'static str,
    /// What the file calls it.
    pub(super) table: &'n str,
    /// What the mapping calls the column.
    pub(super) column: &'static str,
}

impl fmt::Display for Name<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.table, self.column)
    }
}

/// Looks through a column for what could be read in two ways.
#[derive(Debug, Default)]
pub(super) struct Judge {
    /// The number that is farthest from zero.
    greatest: Option<Number>,
    /// A time whose zone it leaves open.
    open: Option<Written>,
    /// Whether there is text that does not say its zone.
    is_silent: bool,
}

impl Judge {
    /// Takes in a value. One that can't be read at all is told with its row, when that is read.
    pub(super) fn see(&mut self, value: ValueRef<'_>, spelling: Option<&Spelling>) {
        match Content::of(value, spelling.and_then(Spelling::format)) {
            Ok(Content::Number(number)) => {
                if self.greatest.is_none_or(|greatest| greatest.size() < number.size()) {
                    self.greatest = Some(number);
                }
            }
            Ok(Content::Written(written)) => {
                self.is_silent |= matches!(written.place, Place::Sqlite | Place::Unsaid);
                if self.open.is_none() && matches!(written.place, Place::Name(_) | Place::Unsaid) {
                    self.open = Some(written);
                }
            }
            Ok(Content::Nothing) | Err(_) => {}
        }
    }

    /// How the column is read, given what the mapping says of it. What the mapping has to say, too, is added to `questions`.
    pub(super) fn way(
        self,
        name: Name<'_>,
        (spelling, zone): (Option<&Spelling>, Option<&Zone>),
        questions: &mut Vec<String>,
    ) -> Way {
        let Name { section, column, .. } = name;
        // What numbers count is of no interest where there are none.
        let spelling = spelling.filter(|said| said.format().is_some() || self.greatest.is_some()).cloned();
        let zone = zone.cloned();
        if let Some(open) = self.open.filter(|_| zone.is_none()) {
            questions.push(format!(
                "{name} has times like {open}, which leave open their zone: name it, like zone = \"UTC\", or [{section}] \
                 zones = {{ {column} = \"Europe/Berlin\" }}"
            ));
        }
        let mut way = Way { spelling, is_guess: false, zone, is_silent: self.is_silent };
        if let Some(greatest) = self.greatest.filter(|_| way.spelling.is_none()) {
            way.is_guess = true;
            match Unit::guess(greatest, Timestamp::now()) {
                Ok(unit) => way.spelling = Some(Spelling::Numbers(unit)),
                Err(readings) => questions.push(format!(
                    "{name} has numbers up to {greatest}, which may be {}: say what they count or how they are written, like [{section}] \
                     times = {{ {column} = \"{}\" }}",
                    listed(&readings),
                    readings.first().map_or_else(|| "%Y%m%d".to_owned(), |(unit, _)| unit.to_string()),
                )),
            }
        }
        way
    }
}

/// What a number would be in each of these units.
fn listed(readings: &[(Unit, Timestamp)]) -> String {
    let each: Vec<_> = readings.iter().map(|(unit, time)| format!("{time} as {unit}")).collect();
    if each.is_empty() { "anything".to_owned() } else { each.join(" or ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAME: Name<'static> = Name { section: "tasks", table: "todos", column: "due_date" };

    fn spelling(said: &str) -> Spelling {
        Spelling::try_from(said.to_owned()).unwrap()
    }

    fn zone(said: &str) -> Zone {
        Zone::try_from(said.to_owned()).unwrap()
    }

    /// How a column with these values is read, and what has to be asked before.
    fn judged(values: &[ValueRef<'_>], said: Option<&str>, place: Option<&str>) -> (Way, Vec<String>) {
        let (spelling, zone) = (said.map(spelling), place.map(zone));
        let (mut judge, mut questions) = (Judge::default(), Vec::new());
        for value in values {
            judge.see(*value, spelling.as_ref());
        }
        let way = judge.way(NAME, (spelling.as_ref(), zone.as_ref()), &mut questions);
        (way, questions)
    }

    fn text(text: &str) -> ValueRef<'_> {
        ValueRef::Text(text.as_bytes())
    }

    fn read(way: &Way, value: ValueRef<'_>) -> Result<Option<String>, String> {
        way.read(value).map(|time| time.map(|time| time.to_string()))
    }

    #[expect(clippy::unnecessary_wraps, reason = "it is compared with what may fail")]
    fn some(time: &str) -> Result<Option<String>, String> {
        Ok(Some(time.to_owned()))
    }

    #[test]
    fn what_is_clear_is_not_asked() {
        let values = [
            ValueRef::Null,
            text(""),
            text(" "),
            text("2024-03-10 08:16:00.1234567+00:00"),
            text("2024-03-10 08:16:00"),
        ];
        let (way, questions) = judged(&values, None, None);
        assert_eq!(questions, [""; 0]);
        assert_eq!((way.unit(), way.zone_of_silent().as_deref()), (None, Some("UTC")));
        let times = values.map(|value| read(&way, value));
        let expected =
            [Ok(None), Ok(None), Ok(None), some("2024-03-10T08:16:00.123456Z"), some("2024-03-10T08:16:00Z")];
        assert_eq!(times, expected);
        assert!(way.read(text("soon")).unwrap_err().contains("mapping"));
        assert!(way.read(ValueRef::Blob(b"x")).is_err());
        assert!(way.read(ValueRef::Integer(7)).is_err(), "there were no numbers");
    }

    #[test]
    fn text_of_no_zone_is_asked_for() {
        for open in ["2024-03-10T08:16:00", "2024-03-10 08:16:00.123456", "2024-03-10 08:16:00 CET"] {
            let (way, questions) = judged(&[text("2024-03-10T08:16:00Z"), text(open)], None, None);
            assert!(questions.len() == 1 && questions[0].contains("[tasks] zones = { due_date = "), "{questions:?}");
            assert!(way.read(text(open)).is_err());
        }
        let (way, questions) = judged(&[text("2024-03-10T08:16:00")], None, Some("+02:00"));
        assert_eq!(questions, [""; 0]);
        assert_eq!(way.zone_of_silent().as_deref(), Some("+02:00"));
        assert_eq!(read(&way, text("2024-03-10T08:16:00")), some("2024-03-10T06:16:00Z"));
        assert_eq!(read(&way, text("2024-03-10T08:16:00Z")), some("2024-03-10T08:16:00Z"));
    }

    #[test]
    fn numbers_that_count_several_things_are_asked_for() {
        let (_, questions) = judged(&[ValueRef::Integer(731_751_360)], None, None);
        assert!(questions[0].contains("2024-03-10T08:16:00Z as apple_seconds"), "{questions:?}");
        assert!(questions[0].contains("times = { due_date = \"apple_seconds\" }"), "{questions:?}");
        let (way, questions) = judged(&[ValueRef::Integer(731_751_360)], Some("apple_seconds"), None);
        assert_eq!(questions, [""; 0]);
        assert_eq!(read(&way, ValueRef::Integer(731_751_360)), some("2024-03-10T08:16:00Z"));
        assert_eq!(read(&way, text("731751360")), some("2024-03-10T08:16:00Z"));
    }

    #[test]
    fn a_guess_is_no_licence() {
        let (way, questions) = judged(&[ValueRef::Integer(7), ValueRef::Integer(1_710_058_560_000)], None, None);
        assert_eq!(questions, [""; 0]);
        assert_eq!(way.unit(), Some(Unit::Milliseconds));
        assert_eq!(read(&way, ValueRef::Real(1_710_058_560_000.5)), some("2024-03-10T08:16:00.0005Z"));
        assert_eq!(read(&way, text("1710058560000")), some("2024-03-10T08:16:00Z"));
        for other in [7, 0, -5, 1_710_058_560] {
            assert!(way.read(ValueRef::Integer(other)).unwrap_err().contains("mapping"), "{other}");
        }
        let (way, _) = judged(&[ValueRef::Integer(0)], Some("milliseconds"), None);
        assert_eq!(read(&way, ValueRef::Integer(0)), some("1970-01-01T00:00:00Z"));
        let (way, _) = judged(&[text("2024-03-10")], Some("milliseconds"), None);
        assert_eq!(way.unit(), None, "there is nothing to count");
    }

    #[test]
    fn a_format_is_for_text_and_digits() {
        let values = [text("20240310"), ValueRef::Integer(20_240_310)];
        let (_, questions) = judged(&values, Some("%Y%m%d"), None);
        assert_eq!(questions.len(), 1, "{questions:?}");
        let (way, questions) = judged(&values, Some("%Y%m%d"), Some("UTC"));
        assert_eq!(questions, [""; 0]);
        for value in values {
            assert_eq!(read(&way, value), some("2024-03-10T00:00:00Z"));
        }
        assert!(way.read(text("2024-03-10")).is_err());
        let (_, questions) = judged(&values, None, None);
        assert!(questions[0].contains("%Y%m%d"), "{questions:?}");
    }

    #[test]
    fn a_spelling_is_a_unit_or_a_format() {
        assert_eq!(spelling("filetime"), Spelling::Numbers(Unit::Filetime));
        assert_eq!(spelling("%d.%m.%Y"), Spelling::Format("%d.%m.%Y".to_owned()));
        assert!(Spelling::try_from("fortnights".to_owned()).unwrap_err().contains("julian_days"));
    }
}
