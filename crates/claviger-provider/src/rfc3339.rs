//! Points in time as text: RFC 3339, in its strictest form.
//!
//! The libraries for dates bring a clock with them, and this crate reads none.

use claviger_core::Timestamp;

/// A fraction of a second names nanoseconds at most.
const FRACTION_DIGITS: usize = 9;
const DAY_SECS: i64 = 24 * 60 * 60;
/// Days from 0000-01-01 to 1970-01-01.
const EPOCH_DAYS: i64 = 719_528;

/// Reads `2026-11-20T00:00:00.123456789Z` (RFC 3339 section 5.6), with or without a fraction; what
/// is finer than a millisecond is cut off.
///
/// Only what names a real time in UTC is read. An offset, even of zero, and small letters are
/// refused, and so is the 60th second, which Unix time does not have.
pub(crate) fn read(text: &str) -> Option<Timestamp> {
    let (date, time) = text.strip_suffix('Z')?.split_once('T')?;
    let (year, rest) = date.split_once('-')?;
    let (month, day) = rest.split_once('-')?;
    let (hour, rest) = time.split_once(':')?;
    let (minute, second) = rest.split_once(':')?;
    let (second, fraction) = match second.split_once('.') {
        Some((second, fraction)) => (second, millis(fraction)?),
        None => (second, 0),
    };
    let days = days(number(year, 4)?, number(month, 2)?, number(day, 2)?)?;
    let [hour, minute, second] = [(hour, 23), (minute, 59), (second, 59)]
        .map(|(digits, most)| number(digits, 2).filter(|number| *number <= most));
    let secs = days * DAY_SECS + hour? * 60 * 60 + minute? * 60 + second?;
    Some(Timestamp::from_millis(secs * 1000 + fraction))
}

/// Exactly `length` digits.
fn number(digits: &str, length: usize) -> Option<i64> {
    let fits = digits.len() == length && digits.bytes().all(|byte| byte.is_ascii_digit());
    fits.then(|| digits.parse().ok()).flatten()
}

/// The milliseconds of a fraction.
fn millis(fraction: &str) -> Option<i64> {
    let length = fraction.len();
    if !(1..=FRACTION_DIGITS).contains(&length) {
        return None;
    }
    let fraction = number(fraction, length)?;
    let missing = u32::try_from(FRACTION_DIGITS - length).ok()?;
    Some(fraction * 10_i64.pow(missing) / 1_000_000)
}

/// Days since the epoch, in the calendar of today for all years.
fn days(year: i64, month: i64, day: i64) -> Option<i64> {
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let february = if leap { 29 } else { 28 };
    let months = [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let before = months.get(..usize::try_from(month - 1).ok()?)?;
    let length = months.get(before.len())?;
    if !(1..=*length).contains(&day) {
        return None;
    }
    // The leap days of all years before this one; the year 0 has one.
    let leap_days = (year + 3) / 4 - (year + 99) / 100 + (year + 399) / 400;
    Some(year * 365 + leap_days - EPOCH_DAYS + before.iter().sum::<i64>() + day - 1)
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use proptest::prelude::*;

    use super::*;

    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

    #[test]
    fn strict_times_are_read() {
        let table = [
            ("1970-01-01T00:00:00Z", 0),
            ("1969-12-31T23:59:59.999Z", -1),
            ("2026-11-20T00:00:00Z", 1_795_132_800_000),
            ("2026-11-20T23:59:59Z", 1_795_219_199_000),
            // Fractions of all lengths, cut off and not rounded
            ("2026-11-20T00:00:00.1Z", 1_795_132_800_100),
            ("2026-11-20T00:00:00.12Z", 1_795_132_800_120),
            ("2026-11-20T00:00:00.123Z", 1_795_132_800_123),
            ("2026-11-20T00:00:00.1239Z", 1_795_132_800_123),
            ("2026-11-20T00:00:00.123456789Z", 1_795_132_800_123),
            ("2026-11-20T00:00:00.000999999Z", 1_795_132_800_000),
            ("2026-11-20T00:00:00.999999999Z", 1_795_132_800_999),
            ("2026-11-20T00:00:00.000000000Z", 1_795_132_800_000),
            // Leap days, by 4, not by 100, by 400
            ("2024-02-29T00:00:00Z", 1_709_164_800_000),
            ("2024-03-01T00:00:00Z", 1_709_251_200_000),
            ("2000-02-29T12:00:00Z", 951_825_600_000),
            ("2000-03-01T00:00:00Z", 951_868_800_000),
            ("2100-03-01T00:00:00Z", 4_107_542_400_000),
            // Both ends of what four digits can name
            ("0000-01-01T00:00:00Z", -62_167_219_200_000),
            ("0001-01-01T00:00:00Z", -62_135_596_800_000),
            ("9999-12-31T23:59:59.999999999Z", 253_402_300_799_999),
        ];
        for (text, millis) in table {
            assert_eq!(read(text), Some(Timestamp::from_millis(millis)), "{text}");
        }
    }

    #[test]
    fn what_is_no_time_in_utc_is_refused() {
        let table = [
            "",
            "Z",
            "T",
            "TZ",
            "2026-11-20",
            "2026-11-20T00:00:00",
            "2026-11-20 00:00:00Z",
            "2026-11-20t00:00:00Z",
            "2026-11-20T00:00:00z",
            " 2026-11-20T00:00:00Z",
            "2026-11-20T00:00:00Z ",
            "2026-11-20T00:00:00ZZ",
            // Offsets
            "2026-11-20T00:00:00+00:00",
            "2026-11-20T00:00:00-00:00",
            "2026-11-20T01:00:00+01:00",
            "2026-11-20T01:00:00+01:00Z",
            // No such day
            "2023-02-29T00:00:00Z",
            "1900-02-29T00:00:00Z",
            "2100-02-29T00:00:00Z",
            "2024-02-30T00:00:00Z",
            "2026-04-31T00:00:00Z",
            "2026-00-20T00:00:00Z",
            "2026-13-20T00:00:00Z",
            "2026-11-00T00:00:00Z",
            "2026-12-32T00:00:00Z",
            // No such time
            "2026-11-20T24:00:00Z",
            "2026-11-20T00:60:00Z",
            "2026-11-20T00:00:60Z",
            "2016-12-31T23:59:60Z",
            // Fractions
            "2026-11-20T00:00:00.Z",
            "2026-11-20T00:00:00.1234567890Z",
            "2026-11-20T00:00:00,5Z",
            "2026-11-20T00:00:00.5.5Z",
            "2026-11-20T00:00:00.-5Z",
            "2026-11-20T00:00.5Z",
            // Digits that are too few, too many or none
            "26-11-20T00:00:00Z",
            "12026-11-20T00:00:00Z",
            "2026-1-20T00:00:00Z",
            "2026-11-2T00:00:00Z",
            "2026-11-20T0:00:00Z",
            "2026-11-20T000:00:00Z",
            "2026-11-20T00:00:0Z",
            "+026-11-20T00:00:00Z",
            "-026-11-20T00:00:00Z",
            "2026-+1-20T00:00:00Z",
            "2026-11-20T+0:00:00Z",
            "2026-11-20T00:00: 0Z",
            "20261120T000000Z",
            "2026-W47-5T00:00:00Z",
            "２０２６-11-20T00:00:00Z",
        ];
        for text in table {
            assert_eq!(read(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "\\PC{0,40}|[0-9TZ:.+-]{0,40}") {
            let _ = read(&text);
        }

        /// The dates of HTTP are written by somebody else's calendar.
        #[test]
        fn the_calendar_is_that_of_http(secs in 0_u64..253_402_300_800, nanos in 0_u64..1_000_000_000) {
            let date = httpdate::fmt_http_date(SystemTime::UNIX_EPOCH + Duration::from_secs(secs));
            let words: Vec<_> = date.split(' ').collect();
            let month = MONTHS.iter().position(|month| *month == words[2]).unwrap() + 1;
            let text = format!("{}-{month:02}-{}T{}.{nanos:09}Z", words[3], words[1], words[4]);
            let expected = Timestamp::from_millis((secs * 1000 + nanos / 1_000_000).try_into().unwrap());
            prop_assert_eq!(read(&text), Some(expected), "{}", text);
        }
    }
}
