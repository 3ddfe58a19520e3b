//! Points in time as reports write them: RFC 3339, UTC, microseconds.

use std::fmt;
use std::str::FromStr;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

const MICROS_PER_SECOND: i64 = 1_000_000;
const SECONDS_PER_DAY: i64 = 86_400;
/// 0000-01-01T00:00:00Z and the last microsecond of year 9999, which is as far as RFC 3339 goes.
const FIRST: i64 = -62_167_219_200 * MICROS_PER_SECOND;
const LAST: i64 = 253_402_300_800 * MICROS_PER_SECOND - 1;

/// A point in time, to the microsecond, in the years 0 to 9999; times beyond are moved to the nearest of
/// these.
///
/// # Example
///
/// ```
/// use std::time::{Duration, SystemTime};
/// use waylay_inspect::report::Timestamp;
///
/// let time = Timestamp::from(SystemTime::UNIX_EPOCH + Duration::from_micros(1_700_000_000_000_042));
/// assert_eq!(time.to_string(), "2023-11-14T22:13:20.000042Z");
/// assert_eq!("2023-11-14T22:13:20.000042Z".parse(), Ok(time));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp {
    /// Microseconds since the epoch of Unix.
    micros: i64,
}

impl From<SystemTime> for Timestamp {
    fn from(time: SystemTime) -> Self {
        let micros = match time.duration_since(SystemTime::UNIX_EPOCH) {
            Ok(since) => whole_micros(since),
            Err(error) => -whole_micros(error.duration()),
        };
        Self { micros: micros.clamp(FIRST, LAST) }
    }
}

fn whole_micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (seconds, micros) =
            (self.micros.div_euclid(MICROS_PER_SECOND), self.micros.rem_euclid(MICROS_PER_SECOND));
        let (days, second) = (seconds.div_euclid(SECONDS_PER_DAY), seconds.rem_euclid(SECONDS_PER_DAY));
        let (year, month, day) = civil_from_days(days);
        let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
        write!(f, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{micros:06}Z")
    }
}

/// A text that isn't a time as [`Timestamp`] writes it.
///
/// # Example
///
/// ```
/// use waylay_inspect::report::{Timestamp, TimestampError};
///
/// assert_eq!("2023-02-29T00:00:00.000000Z".parse::<Timestamp>(), Err(TimestampError));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a UTC time with microseconds, such as 2023-11-14T22:13:20.000042Z")]
pub struct TimestampError;

impl FromStr for Timestamp {
    type Err = TimestampError;

    fn from_str(text: &str) -> Result<Self, TimestampError> {
        let time = Self::read(text).ok_or(TimestampError)?;
        // Whatever isn't written back the same was out of range or in another form.
        if time.to_string() == text { Ok(time) } else { Err(TimestampError) }
    }
}

impl Timestamp {
    fn read(text: &str) -> Option<Self> {
        let field = |start: usize, end: usize| text.get(start..end)?.parse::<u32>().ok().map(i64::from);
        let days = days_from_civil(field(0, 4)?, field(5, 7)?, field(8, 10)?);
        let seconds = (field(11, 13)? * 60 + field(14, 16)?) * 60 + field(17, 19)?;
        Some(Self { micros: (days * SECONDS_PER_DAY + seconds) * MICROS_PER_SECOND + field(20, 26)? })
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

/// Year, month and day of a number of days since 1970-01-01, in the Gregorian calendar extended backwards.
///
/// Years are counted from March, which puts the leap day last, and in eras of 400 years, which all have the
/// same length.
fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let (era, day_of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    (era * 400 + year_of_era + i64::from(month <= 2), month, day)
}

/// The inverse of [`civil_from_days`] for dates that exist.
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = year - i64::from(month <= 2);
    let (era, year_of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let month_from_march = (month + 9) % 12;
    let day_of_year = (153 * month_from_march + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_dates() {
        for (micros, text) in [
            (0, "1970-01-01T00:00:00.000000Z"),
            (-1, "1969-12-31T23:59:59.999999Z"),
            (951_782_400_000_000, "2000-02-29T00:00:00.000000Z"),
            (4_107_542_399_000_001, "2100-02-28T23:59:59.000001Z"),
            (FIRST, "0000-01-01T00:00:00.000000Z"),
            (LAST, "9999-12-31T23:59:59.999999Z"),
        ] {
            assert_eq!(Timestamp { micros }.to_string(), text);
            assert_eq!(text.parse(), Ok(Timestamp { micros }));
        }
    }

    #[test]
    fn every_day_of_an_era_follows_the_one_before() {
        let mut previous = civil_from_days(-719_469);
        for days in -719_468..-719_468 + 2 * 146_097 {
            let (year, month, day) = civil_from_days(days);
            let next_day = (previous.0, previous.1, previous.2 + 1);
            let next_month = (previous.0 + previous.1 / 12, previous.1 % 12 + 1, 1);
            assert!((year, month, day) == next_day || (year, month, day) == next_month);
            assert_eq!(days_from_civil(year, month, day), days);
            previous = (year, month, day);
        }
    }

    #[test]
    fn times_beyond_the_notation_are_moved_into_it() {
        let far = Duration::from_secs(1 << 50);
        assert_eq!(Timestamp::from(SystemTime::UNIX_EPOCH + far).micros, LAST);
        assert_eq!(Timestamp::from(SystemTime::UNIX_EPOCH - far).micros, FIRST);
    }

    #[test]
    fn other_notations_are_refused() {
        for text in [
            "",
            "2023-11-14",
            "2023-11-14T22:13:20Z",
            "2023-11-14 22:13:20.000042Z",
            "2023-13-01T00:00:00.000000Z",
        ] {
            assert_eq!(text.parse::<Timestamp>(), Err(TimestampError), "{text}");
        }
    }
}
