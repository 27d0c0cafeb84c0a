//! The last number of a reply.
//!
//! A number is read as a person reads it: "1,234" and "12 000" are one number, "$-3.50" is negative
//! and "10-5" is not, "3/4" is three quarters and "1 1/2" one and a half, a sentence's full stop is
//! no decimal point.

/// How far an answer may be from the right one.
const TOLERANCE: f64 = 1e-3;

/// Whether two numbers are the same answer.
pub(super) fn same(found: f64, expected: f64) -> bool {
    (found - expected).abs() <= TOLERANCE
}

/// A whole text as a number, thousands separators left out.
pub(super) fn whole(text: &str) -> Option<f64> {
    let text = text.trim();
    let start = text.len() - text.trim_start_matches(['-', '+']).len();
    let spaced =
        grouped_by_spaces(text, start).is_some_and(|end| decimal_end(text, end) == text.len());
    let number = if spaced { without_separators(text) } else { text.replace(',', "") };
    number.parse().ok().filter(|number: &f64| number.is_finite())
}

/// The last number of a text.
pub(super) fn last_number(text: &str) -> Option<f64> {
    let (mut at, mut last) = (0, None);
    while at < text.len() {
        match number(text, at) {
            Some((value, end)) => {
                last = Some(value).filter(|value| value.is_finite()).or(last);
                at = end;
            }
            None => at += 1,
        }
    }
    last
}

/// The number that begins at a byte with its first digit or its decimal point, and where it ends.
fn number(text: &str, start: usize) -> Option<(f64, usize)> {
    let (magnitude, end) = mixed(text, start)?;
    Some((if is_negative(text, start) { -magnitude } else { magnitude }, end))
}

/// A decimal number, a fraction, or a whole number with a fraction behind it.
fn mixed(text: &str, start: usize) -> Option<(f64, usize)> {
    let (value, end) = decimal(text, start)?;
    if let Some(fraction) = fraction(text, start) {
        return Some(fraction);
    }
    let whole = text[start..end].bytes().all(|byte| byte.is_ascii_digit());
    let behind = fraction(text, end + 1).filter(|_| whole && byte(text, end) == Some(b' '));
    Some(match behind.filter(|(part, _)| *part < 1.0) {
        Some((part, end)) => (value + part, end),
        None => (value, end),
    })
}

/// Digits, a slash, digits: no date, and nothing over zero.
fn fraction(text: &str, start: usize) -> Option<(f64, usize)> {
    let slash = digits(text, start);
    let end = digits(text, slash + 1);
    let is_one = slash > start && byte(text, slash) == Some(b'/') && end > slash + 1;
    let in_date = start.checked_sub(1).is_some_and(|before| byte(text, before) == Some(b'/'))
        || byte(text, end) == Some(b'/');
    let decimal = byte(text, end) == Some(b'.') && digits(text, end + 1) > end + 1;
    if !is_one || in_date || decimal {
        return None;
    }
    let value =
        text[start..slash].parse::<f64>().ok()? / text[slash + 1..end].parse::<f64>().ok()?;
    value.is_finite().then_some((value, end))
}

/// Digits with or without thousands separators, a fractional part, an exponent.
fn decimal(text: &str, start: usize) -> Option<(f64, usize)> {
    let whole = grouped(text, start);
    let end = decimal_end(text, whole);
    let has_point = byte(text, whole) == Some(b'.') && digits(text, whole + 1) > whole + 1;
    if has_point && whole == start {
        let after_a_digit = start
            .checked_sub(1)
            .and_then(|before| byte(text, before))
            .is_some_and(|b| b.is_ascii_digit());
        if after_a_digit {
            return None;
        }
    }
    if end == start {
        return None;
    }
    let end = exponent(text, end);
    without_separators(&text[start..end]).parse().ok().map(|value| (value, end))
}

/// Where the fractional part ends of a number whose whole part ends here.
fn decimal_end(text: &str, whole: usize) -> usize {
    let end = digits(text, whole + 1);
    if byte(text, whole) == Some(b'.') && end > whole + 1 { end } else { whole }
}

fn without_separators(number: &str) -> String {
    number.chars().filter(|character| *character != ',' && !SPACES.contains(character)).collect()
}

/// Where the digits end that begin here, groups of three behind commas or spaces included.
fn grouped(text: &str, start: usize) -> usize {
    let first = digits(text, start);
    let mut end = first;
    while (1..=3).contains(&(first - start))
        && byte(text, end) == Some(b',')
        && digits(text, end + 1) == end + 4
    {
        end += 4;
    }
    if end > first { end } else { grouped_by_spaces(text, start).unwrap_or(first) }
}

/// The spaces that stand between groups of three digits: a plain one, and those that do not break
/// or are thin.
const SPACES: [char; 5] = [' ', '\u{a0}', '\u{2007}', '\u{2009}', '\u{202f}'];

/// Where the last group ends of digits that begin here and are set in groups of three, all with the
/// same space between.
///
/// A space also stands between two numbers. So the first group has one to three digits and no
/// leading zero, and neither before nor behind the groups stands another number: "in 2019 300
/// people" and "1 200 30" are no such groups.
fn grouped_by_spaces(text: &str, start: usize) -> Option<usize> {
    let first = digits(text, start);
    let space = text.get(first..)?.chars().next().filter(|next| SPACES.contains(next))?;
    let is_group = (1..=3).contains(&(first - start)) && byte(text, start) != Some(b'0');
    if !is_group || follows_a_number(text, start) {
        return None;
    }
    let mut end = first;
    while text[end..].starts_with(space) {
        let group = end + space.len_utf8();
        match digits(text, group) - group {
            0 => break,
            3 => end = group + 3,
            _ => return None,
        }
    }
    let next = byte(text, end);
    let behind = end + 1;
    let goes_on = matches!(next, Some(b'/' | b',')) && digits(text, behind) > behind;
    (end > first && !goes_on).then_some(end)
}

/// Whether another number stands before, with nothing but a space between.
fn follows_a_number(text: &str, start: usize) -> bool {
    let before = text[..start].chars().rev();
    let mut before = before.skip_while(|character| SPACES.contains(character));
    start > 0 && before.next().is_some_and(|character| character.is_ascii_digit())
}

/// Where an exponent ends, if one begins here.
fn exponent(text: &str, start: usize) -> usize {
    if !matches!(byte(text, start), Some(b'e' | b'E')) {
        return start;
    }
    let sign = usize::from(matches!(byte(text, start + 1), Some(b'+' | b'-')));
    let end = digits(text, start + 1 + sign);
    if end > start + 1 + sign { end } else { start }
}

/// Whether a minus stands before the number, with a currency sign between them or none. Between two
/// numbers or words it is a dash.
fn is_negative(text: &str, start: usize) -> bool {
    let before = text[..start].trim_end_matches(['$', '€', '£']);
    let Some(rest) = before.strip_suffix(['-', '−']) else { return false };
    let left = rest.chars().next_back();
    left.is_none_or(|left| !left.is_alphanumeric() && !")]-−".contains(left))
}

/// Where the digits end that begin at a byte.
fn digits(text: &str, start: usize) -> usize {
    let rest = text.as_bytes().get(start..).unwrap_or_default();
    start + rest.iter().take_while(|byte| byte.is_ascii_digit()).count()
}

fn byte(text: &str, at: usize) -> Option<u8> {
    text.as_bytes().get(at).copied()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_last_number_is_read_as_a_person_reads_it() {
        for (reply, expected) in [
            ("20 - 7 = 13. The answer is 13.", 13.0),
            ("The answer is -15.0", -15.0),
            ("a loss of $-1,234.50.", -1234.5),
            ("-$20", -20.0),
            ("\u{2212}3", -3.0),
            ("10-5", 5.0),
            ("in 2024-05-06", 6.0),
            ("1,234", 1234.0),
            ("1,2", 2.0),
            ("12,345,678 people", 12_345_678.0),
            ("1234,567", 567.0),
            ("12 000 people", 12_000.0),
            ("12\u{a0}000 people", 12_000.0),
            ("12\u{2009}000\u{202f}5", 5.0),
            ("1\u{202f}234\u{202f}567.5", 1_234_567.5),
            ("-12 000", -12_000.0),
            ("in 2019 300 people", 300.0),
            ("in 2019 300 500", 500.0),
            ("1 200 30", 30.0),
            ("12 00", 0.0),
            ("12 0000", 0.0),
            ("0 100", 100.0),
            ("12  000", 0.0),
            ("12 345,678", 345_678.0),
            ("5 100/200", 5.5),
            ("3 000.", 3000.0),
            ("1,234 567", 567.0),
            ("9.8 gallons", 9.8),
            (".5", 0.5),
            ("1.2.3", 3.0),
            ("3/4", 0.75),
            ("1 1/2 cups", 1.5),
            ("3 4/2", 2.0),
            ("3/4/2020", 2020.0),
            ("5/0", 0.0),
            ("60/2 = 30", 30.0),
            ("1/2.5", 2.5),
            ("2e3", 2000.0),
            ("3 eggs", 3.0),
            ("50%", 50.0),
            ("5th", 5.0),
            ("x2", 2.0),
            ("−4 °C …", -4.0),
        ] {
            assert_eq!(last_number(reply), Some(expected), "{reply}");
        }
        assert_eq!(last_number("no number"), None);
        assert_eq!(last_number("7 and 1e999"), Some(7.0));
    }

    #[test]
    fn a_thousandth_is_near_enough() {
        assert!(same(1.8333, 1.833_333_333_333_333_5) && same(0.9991, 1.0) && !same(0.9989, 1.0));
    }

    #[test]
    fn a_gold_answer_is_a_number_from_end_to_end() {
        assert_eq!(
            (whole(" 1,234.5 "), whole("12 apples"), whole(""), whole("inf")),
            (Some(1234.5), None, None, None)
        );
        assert_eq!(
            [
                whole("12 000"),
                whole("-1\u{a0}234.5"),
                whole("12 00"),
                whole("1 2"),
                whole("12 000 5")
            ],
            [Some(12_000.0), Some(-1234.5), None, None, None]
        );
    }

    proptest! {
        #[test]
        fn no_text_is_too_strange(text in "[0-9,./$ e−\\-xé\u{a0}\u{2009}]{0,20}") {
            last_number(&text);
        }

        #[test]
        fn a_number_is_found_behind_any_words(
            before in "[a-z ]{0,10} ",
            value in -1_000_000i64..1_000_000,
            cents in 0u8..100,
        ) {
            let written = format!("{before}{value}.{cents:02}.");
            let expected: f64 = format!("{value}.{cents:02}").parse().unwrap();
            prop_assert_eq!(last_number(&written), Some(expected));
        }
    }
}
