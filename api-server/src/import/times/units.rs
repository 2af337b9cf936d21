//! Numbers that are times: what they count, and from when on.

use std::fmt;

use jiff::Timestamp;

/// What a number that is a time counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::import) enum Unit {
    /// Seconds since 1970, perhaps with a fraction.
    Seconds,
    /// Milliseconds since 1970, as JavaScript counts.
    Milliseconds,
    /// Microseconds since 1970, as this program does.
    Microseconds,
    /// Nanoseconds since 1970.
    Nanoseconds,
    /// Days since 1970.
    Days,
    /// Days since noon of 4714-11-24 before our era, as SQLite's own `julianday()` counts.
    JulianDays,
    /// Seconds since 2001, as Apple's Core Data counts.
    AppleSeconds,
    /// Nanoseconds since 2001.
    AppleNanoseconds,
    /// Microseconds since 1601, as browsers count.
    WebkitMicroseconds,
    /// Tenths of microseconds since 1601, as Windows counts.
    Filetime,
    /// Tenths of microseconds since the year 1, as .NET counts.
    DotnetTicks,
    /// Days since 1899-12-30, as spreadsheets and Delphi count.
    OleDays,
}

/// A day in nanoseconds.
const DAY: i64 = 86_400_000_000_000;

/// The second that a year begins with. When SQLite came, which what the greatest number of a column stands for is hardly older than.
const YEAR_2000: i64 = 946_684_800;
/// When Core Data came.
const YEAR_2005: i64 = 1_104_537_600;
/// How far ahead the greatest number of a column may be, in seconds.
const TEN_YEARS: i64 = 10 * 366 * 86_400;
/// What stands for an older time than this counts something else, or nothing.
const YEAR_1980: i64 = 315_532_800;

impl Unit {
    const ALL: [Self; 12] = [
        Self::Seconds,
        Self::Milliseconds,
        Self::Microseconds,
        Self::Nanoseconds,
        Self::Days,
        Self::JulianDays,
        Self::AppleSeconds,
        Self::AppleNanoseconds,
        Self::WebkitMicroseconds,
        Self::Filetime,
        Self::DotnetTicks,
        Self::OleDays,
    ];

    /// What a mapping calls it, how many nanoseconds one of it is, and the second since 1970 that it counts from.
    const fn facts(self) -> (&'static str, i64, i64) {
        match self {
            Self::Seconds => ("seconds", 1_000_000_000, 0),
            Self::Milliseconds => ("milliseconds", 1_000_000, 0),
            Self::Microseconds => ("microseconds", 1_000, 0),
            Self::Nanoseconds => ("nanoseconds", 1, 0),
            Self::Days => ("days", DAY, 0),
            Self::JulianDays => ("julian_days", DAY, -210_866_760_000),
            Self::AppleSeconds => ("apple_seconds", 1_000_000_000, 978_307_200),
            Self::AppleNanoseconds => ("apple_nanoseconds", 1, 978_307_200),
            Self::WebkitMicroseconds => ("webkit_microseconds", 1_000, -11_644_473_600),
            Self::Filetime => ("filetime", 100, -11_644_473_600),
            Self::DotnetTicks => ("dotnet_ticks", 100, -62_135_596_800),
            Self::OleDays => ("ole_days", DAY, -2_209_161_600),
        }
    }

    /// The one that a mapping calls so.
    pub(in crate::import) fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|unit| unit.facts().0 == word)
    }

    /// What all of them are called.
    pub(in crate::import) fn words() -> String {
        Self::ALL.map(|unit| unit.facts().0).join(", ")
    }

    /// The unit that numbers count of which this is the greatest. If that is not sure, all that they may count, and what it would be.
    pub(super) fn guess(greatest: Number, now: Timestamp) -> Result<Self, Vec<(Self, Timestamp)>> {
        let latest = now.as_second() + TEN_YEARS;
        let readings: Vec<_> = Self::ALL
            .into_iter()
            .filter_map(|unit| Some((unit, unit.at(greatest)?)))
            .filter(|(unit, at)| (unit.earliest()..=latest).contains(&at.as_second()))
            .collect();
        let sure = match readings.as_slice() {
            [(unit, _)] if unit.is_common() => Some(*unit),
            _ => None,
        };
        sure.ok_or(readings)
    }

    const fn earliest(self) -> i64 {
        match self {
            Self::AppleSeconds | Self::AppleNanoseconds => YEAR_2005,
            _ => YEAR_2000,
        }
    }

    /// The others are too rare to be taken for granted.
    const fn is_common(self) -> bool {
        matches!(self, Self::Seconds | Self::Milliseconds | Self::Microseconds | Self::Nanoseconds | Self::JulianDays)
    }

    /// The time that a number of it is, to the microsecond: what is finer is cut off.
    pub(super) fn at(self, number: Number) -> Option<Timestamp> {
        let (_, nanoseconds, epoch) = self.facts();
        let micros = match number {
            Number::Integer(number) => (i128::from(number) * i128::from(nanoseconds)).div_euclid(1_000),
            Number::Real(number) => {
                // A fraction of a day is no more exact than a millisecond: SQLite's own functions round it so, too.
                let finest = if nanoseconds == DAY { 1_000_000 } else { 1_000 };
                i128::from(rounded(number, nanoseconds, finest)?) * i128::from(finest / 1_000)
            }
        };
        let micros = i64::try_from(micros + i128::from(epoch) * 1_000_000).ok()?;
        Timestamp::from_microsecond(micros).ok()
    }
}

impl fmt::Display for Unit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.facts().0)
    }
}

/// So many `nanoseconds`, counted in what is the finest.
#[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, reason = "a float is no more exact")]
fn rounded(number: f64, nanoseconds: i64, finest: i64) -> Option<i64> {
    number.is_finite().then(|| (number * (nanoseconds as f64 / finest as f64)).round() as i64)
}

/// Whether a time is before all that a number is likely to stand for whose unit was guessed.
pub(super) fn is_early(at: Timestamp) -> bool {
    at.as_second() < YEAR_1980
}

/// A number as SQLite has it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Number {
    /// A whole number.
    Integer(i64),
    /// Any other.
    Real(f64),
}

impl Number {
    /// A number that was written as text.
    pub(super) fn from_text(text: &str) -> Option<Self> {
        // `parse` alone would take "inf" too.
        if !text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'.' | b'-')) {
            return None;
        }
        text.parse().map(Self::Integer).or_else(|_| text.parse().map(Self::Real)).ok()
    }

    /// How far it is from zero.
    pub(super) fn size(self) -> f64 {
        match self {
            #[expect(clippy::cast_precision_loss, reason = "only its size is looked at")]
            Self::Integer(number) => (number as f64).abs(),
            Self::Real(number) => number.abs(),
        }
    }
}

impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Integer(number) => write!(f, "{number}"),
            Self::Real(number) => write!(f, "{number}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use jiff::{civil::date, tz::Offset};

    use super::*;

    fn now() -> Timestamp {
        "2026-03-04T05:06:07Z".parse().unwrap()
    }

    fn at(word: &str, number: Number) -> String {
        Unit::from_word(word).unwrap().at(number).unwrap().to_string()
    }

    #[test]
    fn units_count_from_their_day_on() {
        let epochs = [
            (Unit::Seconds, date(1970, 1, 1).at(0, 0, 0, 0)),
            (Unit::JulianDays, date(-4713, 11, 24).at(12, 0, 0, 0)),
            (Unit::AppleSeconds, date(2001, 1, 1).at(0, 0, 0, 0)),
            (Unit::AppleNanoseconds, date(2001, 1, 1).at(0, 0, 0, 0)),
            (Unit::WebkitMicroseconds, date(1601, 1, 1).at(0, 0, 0, 0)),
            (Unit::Filetime, date(1601, 1, 1).at(0, 0, 0, 0)),
            (Unit::DotnetTicks, date(1, 1, 1).at(0, 0, 0, 0)),
            (Unit::OleDays, date(1899, 12, 30).at(0, 0, 0, 0)),
        ];
        for (unit, epoch) in epochs {
            let epoch = Offset::UTC.to_timestamp(epoch).unwrap();
            for zero in [Number::Integer(0), Number::Real(0.0)] {
                assert_eq!(unit.at(zero), Some(epoch), "{unit}");
            }
        }
        for (year, second) in [(1980, YEAR_1980), (2000, YEAR_2000), (2005, YEAR_2005)] {
            let begin = Offset::UTC.to_timestamp(date(year, 1, 1).at(0, 0, 0, 0)).unwrap();
            assert_eq!(begin.as_second(), second);
        }
    }

    #[test]
    fn each_unit_tells_the_same_time() {
        use Number::{Integer, Real};
        let numbers = [
            ("seconds", Integer(1_710_058_560)),
            ("seconds", Real(1_710_058_560.0)),
            ("milliseconds", Integer(1_710_058_560_000)),
            ("microseconds", Integer(1_710_058_560_000_000)),
            ("nanoseconds", Integer(1_710_058_560_000_000_999)),
            ("julian_days", Real(2_460_379.844_444_444_4)),
            ("apple_seconds", Integer(731_751_360)),
            ("apple_nanoseconds", Integer(731_751_360_000_000_000)),
            ("webkit_microseconds", Integer(13_354_532_160_000_000)),
            ("filetime", Integer(133_545_321_600_000_000)),
            ("dotnet_ticks", Integer(638_456_553_600_000_000)),
            ("ole_days", Real(45_361.344_444_444_45)),
        ];
        for (word, number) in numbers {
            assert_eq!(at(word, number), "2024-03-10T08:16:00Z", "{number} {word}");
        }
        assert_eq!(at("days", Integer(19_792)), "2024-03-10T00:00:00Z");
        assert_eq!(at("seconds", Real(1_700_000_000.25)), "2023-11-14T22:13:20.25Z");
        assert_eq!(at("seconds", Integer(-1)), "1969-12-31T23:59:59Z");
        assert_eq!(at("nanoseconds", Integer(-1)), "1969-12-31T23:59:59.999999Z");
    }

    #[test]
    fn too_great_is_no_time() {
        for number in [Number::Integer(i64::MAX), Number::Real(1e300), Number::Real(f64::INFINITY)] {
            assert_eq!(Unit::Days.at(number), None, "{number}");
            assert_eq!(Unit::Seconds.at(number), None, "{number}");
        }
    }

    #[test]
    fn only_what_is_sure_is_guessed() {
        use Number::{Integer, Real};
        let sure = [
            (Integer(1_700_000_000), Unit::Seconds),
            (Real(1_700_000_000.5), Unit::Seconds),
            (Integer(1_700_000_000_000), Unit::Milliseconds),
            (Integer(1_700_000_000_000_000), Unit::Microseconds),
            (Integer(1_700_000_000_000_000_000), Unit::Nanoseconds),
            (Real(2_460_379.844), Unit::JulianDays),
        ];
        for (greatest, unit) in sure {
            assert_eq!(Unit::guess(greatest, now()), Ok(unit), "{greatest}");
        }
        let readings = |greatest| {
            Unit::guess(greatest, now())
                .map_err(|readings| readings.into_iter().map(|(unit, _)| unit).collect::<Vec<_>>())
        };
        let open = [
            (Integer(1_000_000_000), vec![Unit::Seconds, Unit::AppleSeconds]),
            (Integer(731_751_360), vec![Unit::AppleSeconds]),
            (Integer(731_751_360_000_000_000), vec![Unit::AppleNanoseconds]),
            (Integer(13_354_532_160_000_000), vec![Unit::WebkitMicroseconds]),
            (Integer(133_545_321_600_000_000), vec![Unit::AppleNanoseconds, Unit::Filetime]),
            (Integer(638_456_553_600_000_000), vec![Unit::AppleNanoseconds, Unit::DotnetTicks]),
            (Real(45_361.5), vec![Unit::OleDays]),
            (Integer(19_792), vec![Unit::Days]),
            // 2024-03-10 and 2024-03-10 08:16:00 in digits; the end of 9999 in seconds; nothing.
            (Integer(20_240_310), vec![]),
            (Integer(20_240_310_081_600), vec![]),
            (Integer(253_402_300_799), vec![]),
            (Integer(0), vec![]),
            (Real(f64::INFINITY), vec![]),
        ];
        for (greatest, units) in open {
            assert_eq!(readings(greatest), Err(units), "{greatest}");
        }
    }

    #[test]
    fn numbers_in_text() {
        assert_eq!(Number::from_text("1700000000"), Some(Number::Integer(1_700_000_000)));
        assert_eq!(Number::from_text("-1.5"), Some(Number::Real(-1.5)));
        for other in ["", "-", ".", "inf", "NaN", "2024-03-10", "1.2.3", "0x10", "1e9"] {
            assert_eq!(Number::from_text(other), None, "{other}");
        }
    }
}
