//! Points in time as people write them: a UTC date, or an RFC 3339 time that ends in Z. No I/O, no clock.
//!
//! Owns: [`date`] and [`parse`], for all texts that name a time, and [`span`].
//! Promises: what [`date`] shows, [`parse`] reads as the same second.
//! Does not: know a time zone but UTC, or a leap second.

use thiserror::Error;

/// A text that names no point in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error(
    "a UTC date is expected, such as 2027-01-01 or 2027-01-01T12:00:00Z, or seconds since 1970"
)]
pub struct DateError;

const DAY: u64 = 86_400;
/// The first second after the year 9999.
const END: u64 = 253_402_300_800;
/// Days from 0000-03-01 to 1970-01-01.
const EPOCH: u64 = 719_468;
/// Days of 400 years.
const ERA: u64 = 146_097;

/// The UTC date of `seconds` since 1970, with the time of day where that is not midnight.
pub fn date(seconds: u64) -> String {
    if seconds >= END {
        return format!("{seconds} seconds after 1970");
    }
    // Years begin in March here, so that a leap day is the last one of its year.
    let days = seconds / DAY + EPOCH;
    let (era, day) = (days / ERA, days % ERA);
    let year = (day - day / 1_460 + day / 36_524 - day / (ERA - 1)) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (month, next) = if month < 10 {
        (month + 3, 0)
    } else {
        (month - 9, 1)
    };
    let year = era * 400 + year + next;
    let clock = match seconds % DAY {
        0 => String::new(),
        s => format!("T{:02}:{:02}:{:02}Z", s / 3_600, s / 60 % 60, s % 60),
    };
    format!("{year:04}-{month:02}-{day:02}{clock}")
}

/// Reads `2027-01-01`, `2027-01-01T12:00:00Z` or seconds since 1970.
///
/// # Errors
/// [`DateError`].
pub fn parse(text: &str) -> Result<u64, DateError> {
    let digits = text.bytes().all(|b| b.is_ascii_digit());
    // A year by itself is a date that was cut off, and not half an hour of 1970.
    if digits && (text == "0" || text.len() >= 9) {
        return text.parse().map_err(|_| DateError);
    }
    let (day, clock) = match text.split_once(['T', 't', ' ']) {
        Some((day, clock)) => {
            let clock = clock.strip_suffix(['Z', 'z']).ok_or(DateError)?;
            (day, numbers(clock, ':', [2, 2, 2]).ok_or(DateError)?)
        }
        None => (text, [0, 0, 0]),
    };
    let [year, month, day] = numbers(day, '-', [4, 2, 2]).ok_or(DateError)?;
    let [hour, minute, second] = clock;
    if year < 1970 || !(1..=31).contains(&day) || hour > 23 || minute > 59 || second > 59 {
        return Err(DateError);
    }
    let of_year = match month {
        3..=12 => year,
        1 | 2 => year - 1,
        _ => return Err(DateError),
    };
    let from_march = (month + 9) % 12;
    let days = of_year * 365 + of_year / 4 - of_year / 100
        + of_year / 400
        + (153 * from_march + 2) / 5
        + day
        - 1
        - EPOCH;
    let seconds = days * DAY + hour * 3_600 + minute * 60 + second;
    // A day that its month does not have comes out as another one.
    let shown = date(seconds);
    if shown.starts_with(&format!("{year:04}-{month:02}-{day:02}")) {
        Ok(seconds)
    } else {
        Err(DateError)
    }
}

/// Three numbers of these widths.
fn numbers(text: &str, separator: char, widths: [usize; 3]) -> Option<[u64; 3]> {
    let mut out = [0; 3];
    let mut parts = text.split(separator);
    for (number, width) in out.iter_mut().zip(widths) {
        let part = parts.next()?;
        if part.len() != width || !part.bytes().all(|b| b.is_ascii_digit()) {
            return None;
        }
        *number = part.parse().ok()?;
    }
    parts.next().is_none().then_some(out)
}

/// How long `seconds` are, rounded down to what a person plans by.
pub fn span(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7_200 => format!("{} min", seconds / 60),
        7_200..172_800 => format!("{} h", seconds / 3_600),
        _ => format!("{} days", seconds / DAY),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_the_calendar() {
        for (seconds, text) in [
            (0, "1970-01-01"),
            (951_782_400, "2000-02-29"),
            (951_868_799, "2000-02-29T23:59:59Z"),
            (1_795_478_400, "2026-11-24"),
            (4_107_542_399, "2100-02-28T23:59:59Z"),
            (4_107_542_400, "2100-03-01"),
            (END - 1, "9999-12-31T23:59:59Z"),
        ] {
            assert_eq!(date(seconds), text);
            assert_eq!(parse(text), Ok(seconds), "{text}");
        }
        assert_eq!(date(u64::MAX), format!("{} seconds after 1970", u64::MAX));
    }

    #[test]
    fn every_day_of_four_centuries_is_read_as_it_is_shown() {
        let mut before = String::new();
        for day in 0..ERA + 1 {
            let text = date(day * DAY);
            assert_eq!(parse(&text), Ok(day * DAY), "{text}");
            assert!(text > before, "{before} {text}");
            before = text;
        }
    }

    #[test]
    fn what_is_no_time_is_refused() {
        for text in [
            "",
            "2026",
            "20261124",
            "2026-11",
            "2026-13-01",
            "2026-00-01",
            "2026-02-29",
            "2026-04-31",
            "2026-01-00",
            "1970-01-00",
            "1969-12-31",
            "26-11-24",
            "2026-11-24T12:00:00",
            "2026-11-24T12:00:00+01:00",
            "2026-11-24T24:00:00Z",
            "2026-11-24T12:60:00Z",
            "2026-11-24-01",
            "+2026-11-24",
            "99999999999999999999",
            "-1",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
        assert_eq!(parse("1795478400"), Ok(1_795_478_400));
        assert_eq!(parse("0"), Ok(0));
    }
}
