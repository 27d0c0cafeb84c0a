//! `strftime_now`: dates as C's `strftime` writes them, in UTC and in English.

use std::fmt::Write;
use std::time::{SystemTime, UNIX_EPOCH};

/// 26 July 2024, noon: the date that LLaMA 3's templates fall back to. Training data is rendered
/// with it, since a run that goes on another day must see the same text.
pub(super) const FIXED: i64 = 1_721_995_200;

const DAY: i64 = 86_400;
const WEEKDAYS: [&str; 7] =
    ["Thursday", "Friday", "Saturday", "Sunday", "Monday", "Tuesday", "Wednesday"];
const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];

/// Seconds since 1970.
pub(super) fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(FIXED, |since| i64::try_from(since.as_secs()).unwrap_or(FIXED))
}

/// A moment written as `format` says.
pub(super) fn format(format: &str, seconds: i64) -> Result<String, String> {
    let mut written = String::new();
    let mut characters = format.chars();
    while let Some(character) = characters.next() {
        if character != '%' {
            written.push(character);
            continue;
        }
        let directive = characters.next();
        // `%-d` is `%d` without the zero in front.
        let (plain, directive) =
            if directive == Some('-') { (true, characters.next()) } else { (false, directive) };
        let text = directive.and_then(|directive| of(directive, seconds));
        let text = text
            .ok_or_else(|| format!("strftime_now(\"{format}\"): a directive is not supported"))?;
        written += if plain && text.len() > 1 { text.trim_start_matches('0') } else { &text };
    }
    Ok(written)
}

fn of(directive: char, seconds: i64) -> Option<String> {
    let (days, second) = (seconds.div_euclid(DAY), seconds.rem_euclid(DAY));
    let (year, month, day) = civil(days);
    let (hour, minute) = (second / 3600, second / 60 % 60);
    let mut text = String::new();
    match directive {
        'Y' => write!(text, "{year}"),
        'y' => write!(text, "{:02}", year.rem_euclid(100)),
        'm' => write!(text, "{month:02}"),
        'B' => write!(text, "{}", MONTHS[month - 1]),
        'b' | 'h' => write!(text, "{}", &MONTHS[month - 1][..3]),
        'd' => write!(text, "{day:02}"),
        'e' => write!(text, "{day:2}"),
        'j' => write!(text, "{:03}", days - days_before(year) + 1),
        'A' => write!(text, "{}", WEEKDAYS[days.rem_euclid(7) as usize]),
        'a' => write!(text, "{}", &WEEKDAYS[days.rem_euclid(7) as usize][..3]),
        'H' => write!(text, "{hour:02}"),
        'I' => write!(text, "{:02}", (hour + 11) % 12 + 1),
        'p' => write!(text, "{}", if hour < 12 { "AM" } else { "PM" }),
        'M' => write!(text, "{minute:02}"),
        'S' => write!(text, "{:02}", second % 60),
        'F' => write!(text, "{year}-{month:02}-{day:02}"),
        'T' => write!(text, "{hour:02}:{minute:02}:{:02}", second % 60),
        'Z' => write!(text, "UTC"),
        '%' => write!(text, "%"),
        _ => return None,
    }
    .ok()?;
    Some(text)
}

/// Days from 1970 to the first of January of a year.
fn days_before(year: i64) -> i64 {
    let past = year - 1;
    365 * (year - 1970) + past.div_euclid(4) - past.div_euclid(100) + past.div_euclid(400) - 477
}

/// Year, month from 1 and day from 1 of a number of days since 1970.
fn civil(days: i64) -> (i64, usize, i64) {
    let mut year = 1970 + days.div_euclid(366);
    while days_before(year + 1) <= days {
        year += 1;
    }
    let leap = days_before(year + 1) - days_before(year) == 366;
    let lengths = [31, if leap { 29 } else { 28 }, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let mut day = days - days_before(year);
    let mut month = 0;
    while day >= lengths[month] {
        day -= lengths[month];
        month += 1;
    }
    (year, month + 1, day + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_the_calendar() {
        let cases = [
            (0, "Thursday 01 January 1970 001"),
            (951_782_400, "Tuesday 29 February 2000 060"),
            (1_735_603_200, "Tuesday 31 December 2024 366"),
            (4_107_542_400, "Monday 01 March 2100 060"),
            (FIXED, "Friday 26 July 2024 208"),
        ];
        for (seconds, expected) in cases {
            assert_eq!(format("%A %d %B %Y %j", seconds).unwrap(), expected);
        }
    }

    #[test]
    fn directives_are_those_of_strftime() {
        assert_eq!(
            format("%-d %b %y, %a %e.%-m. %I:%M:%S %p = %T %F 100%%", 1_000_000_000).unwrap(),
            "9 Sep 01, Sun  9.9. 01:46:40 AM = 01:46:40 2001-09-09 100%"
        );
        assert!(format("%Q", 0).unwrap_err().contains("%Q"));
        assert!(format("100%", 0).is_err());
    }
}
