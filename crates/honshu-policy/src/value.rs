//! Comparing values the way conditions do: without regard to case, by glob, by time.
//!
//! Pure functions of their arguments. Times are UTC, in whole seconds since 1970-01-01T00:00:00Z.

use std::borrow::Cow;

/// Folds case character by character, which keeps Japanese as it is and makes `Σ` and `σ` one.
pub(crate) fn fold(text: &str) -> Cow<'_, str> {
    if text
        .bytes()
        .all(|b| b.is_ascii() && !b.is_ascii_uppercase())
    {
        Cow::Borrowed(text)
    } else if text.is_ascii() {
        Cow::Owned(text.to_ascii_lowercase())
    } else {
        Cow::Owned(text.chars().flat_map(fold_char).collect())
    }
}

/// Lower case without regard to the neighbours: the Greek sigma has two lower-case forms.
fn fold_char(c: char) -> std::char::ToLowercase {
    if c == 'ς' { 'σ' } else { c }.to_lowercase()
}

/// Whether a value equals a text that is folded already.
pub(crate) fn equals_folded(folded: &str, value: &str) -> bool {
    if value.is_ascii() {
        return folded.eq_ignore_ascii_case(value);
    }
    folded.chars().eq(value.chars().flat_map(fold_char))
}

/// A pattern such as `/xai.*/`: text with `*` for any run of characters. Not a regular expression.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Glob {
    /// Folded texts between the stars; one text means no star.
    parts: Vec<String>,
}

impl Glob {
    /// Reads the text between the slashes; a backslash makes the next character literal.
    pub(crate) fn new(pattern: &str) -> Glob {
        let mut parts = vec![String::new()];
        let mut chars = pattern.chars();
        while let Some(c) = chars.next() {
            if c == '*' {
                parts.push(String::new());
                continue;
            }
            let literal = if c == '\\' {
                chars.next().unwrap_or('\\')
            } else {
                c
            };
            if let Some(part) = parts.last_mut() {
                part.extend(fold_char(literal));
            }
        }
        Glob { parts }
    }

    pub(crate) fn matches(&self, value: &str) -> bool {
        self.matches_folded(&fold(value))
    }

    /// The same for a value that is folded already.
    pub(crate) fn matches_folded(&self, value: &str) -> bool {
        let (first, rest) = match self.parts.split_first() {
            None => return false,
            Some((only, [])) => return only == value,
            Some(split) => split,
        };
        let Some((last, middle)) = rest.split_last() else {
            return false;
        };
        let Some(mut left) = value.strip_prefix(first.as_str()) else {
            return false;
        };
        for part in middle {
            match left.find(part.as_str()) {
                Some(at) => left = &left[at + part.len()..],
                None => return false,
            }
        }
        left.ends_with(last.as_str())
    }

    /// The texts between the stars, folded: every value that matches has all of them.
    pub(crate) fn parts(&self) -> &[String] {
        &self.parts
    }
}

const DAY_SECONDS: i64 = 86_400;

/// English names of the days, as `request.utc-timestamp.day-of-week` has them.
pub(crate) const WEEKDAYS: [&str; 7] = [
    "Monday",
    "Tuesday",
    "Wednesday",
    "Thursday",
    "Friday",
    "Saturday",
    "Sunday",
];

/// A moment taken apart in UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Civil {
    pub(crate) year: i64,
    /// 1 to 12.
    pub(crate) month: u32,
    /// 1 to 31.
    pub(crate) day: u32,
    /// Seconds since midnight.
    pub(crate) second_of_day: u32,
    /// Index into [`WEEKDAYS`].
    pub(crate) weekday: usize,
}

impl Civil {
    /// Takes seconds since 1970 apart, in the proleptic Gregorian calendar.
    pub(crate) fn from_unix(seconds: i64) -> Civil {
        let days = seconds.div_euclid(DAY_SECONDS);
        let second_of_day = seconds.rem_euclid(DAY_SECONDS);
        // Count from 1 March of year 0, so that the leap day is the last of its year.
        let shifted = days + 719_468;
        let era = shifted.div_euclid(146_097);
        let day_of_era = shifted.rem_euclid(146_097);
        let year_of_era =
            (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let month_from_march = (5 * day_of_year + 2) / 153;
        let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
        let month = if month_from_march < 10 {
            month_from_march + 3
        } else {
            month_from_march - 9
        };
        Civil {
            year: year_of_era + era * 400 + i64::from(month <= 2),
            month: u32::try_from(month).unwrap_or(1),
            day: u32::try_from(day).unwrap_or(1),
            second_of_day: u32::try_from(second_of_day).unwrap_or(0),
            // 1970-01-01 was a Thursday.
            weekday: usize::try_from((days + 3).rem_euclid(7)).unwrap_or(0),
        }
    }

    pub(crate) fn timestamp(&self) -> String {
        format!(
            "{:04}-{:02}-{:02}T{}Z",
            self.year,
            self.month,
            self.day,
            self.time_of_day()
        )
    }

    pub(crate) fn time_of_day(&self) -> String {
        let second = self.second_of_day;
        format!(
            "{:02}:{:02}:{:02}",
            second / 3_600,
            second / 60 % 60,
            second % 60
        )
    }
}

fn days_from_civil(year: i64, month: u32, day: u32) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let month_from_march = i64::from(if month > 2 { month - 3 } else { month + 9 });
    let day_of_year = (153 * month_from_march + 2) / 5 + i64::from(day) - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

/// Reads `YYYY-MM-DDThh:mm:ssZ`, `YYYY-MM-DDThh:mmZ` or `YYYY-MM-DDZ`, the forms of the OCI page on
/// time-based policies. Gives seconds since 1970.
pub(crate) fn parse_timestamp(text: &str) -> Option<i64> {
    let text = text.strip_suffix(['Z', 'z'])?;
    let (date, time) = match text.split_once(['T', 't']) {
        Some((date, time)) => (date, Some(time)),
        None => (text, None),
    };
    let mut fields = date.split('-');
    let year = i64::from(digits(fields.next()?, 4)?);
    let month = digits(fields.next()?, 2)?;
    let day = digits(fields.next()?, 2)?;
    if fields.next().is_some() || year == 0 || !(1..=12).contains(&month) || day == 0 {
        return None;
    }
    let days = days_from_civil(year, month, day);
    // A day that the month does not have would come back as another date.
    let back = Civil::from_unix(days * DAY_SECONDS);
    if (back.month, back.day) != (month, day) {
        return None;
    }
    let second = match time {
        Some(time) => parse_clock(time)?,
        None => 0,
    };
    Some(days * DAY_SECONDS + i64::from(second))
}

/// Reads `hh:mm:ss` or `hh:mm`, with or without a closing `Z`. Gives seconds since midnight.
pub(crate) fn parse_time_of_day(text: &str) -> Option<u32> {
    parse_clock(text.strip_suffix(['Z', 'z']).unwrap_or(text))
}

fn parse_clock(text: &str) -> Option<u32> {
    let mut fields = text.split(':');
    let hour = digits(fields.next()?, 2)?;
    let minute = digits(fields.next()?, 2)?;
    let second = match fields.next() {
        Some(second) => digits(second, 2)?,
        None => 0,
    };
    (fields.next().is_none() && hour < 24 && minute < 60 && second < 60)
        .then_some(hour * 3_600 + minute * 60 + second)
}

fn digits(text: &str, length: usize) -> Option<u32> {
    (text.len() == length && text.bytes().all(|b| b.is_ascii_digit()))
        .then(|| text.parse().ok())
        .flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn globs_match_as_documented() {
        let table = [
            ("HR*", "hr-admins", true),
            ("HR*", "the-hr", false),
            ("*HR", "the-hr", true),
            ("*HR*", "a HR b", true),
            ("*HR*", "rh", false),
            ("a*b*c", "aXbYc", true),
            ("a*b*c", "acb", false),
            ("aba*aba", "aba", false),
            ("aba*aba", "abaaba", true),
            ("*", "", true),
            ("", "", true),
            ("", "x", false),
            ("a.c", "abc", false),
            (r"a\*c", "a*c", true),
            (r"a\*c", "abc", false),
            ("営業*", "営業部", true),
        ];
        for (pattern, value, expected) in table {
            assert_eq!(
                Glob::new(pattern).matches(value),
                expected,
                "{pattern} {value}"
            );
        }
    }

    #[test]
    fn timestamps_are_read_in_the_documented_forms_only() {
        let table = [
            ("1970-01-01T00:00:00Z", Some(0)),
            ("2020-04-01T15:00:00Z", Some(1_585_753_200)),
            ("2020-04-01T05:00Z", Some(1_585_717_200)),
            ("2020-04-01Z", Some(1_585_699_200)),
            ("2000-02-29Z", Some(951_782_400)),
            ("2100-02-29Z", None),
            ("2020-13-01Z", None),
            ("2020-04-31Z", None),
            ("2020-04-01T24:00:00Z", None),
            ("2020-04-01T05:00+09:00", None),
            ("2020-04-01", None),
            ("tomorrow", None),
        ];
        for (text, expected) in table {
            assert_eq!(parse_timestamp(text), expected, "{text}");
        }
        assert_eq!(parse_time_of_day("05:00:30"), Some(18_030));
        assert_eq!(parse_time_of_day("05:00Z"), Some(18_000));
        assert_eq!(parse_time_of_day("5:00"), None);
    }

    #[test]
    fn civil_time_goes_there_and_back_for_every_day_of_five_centuries() {
        for day in -92_000..92_000 {
            let seconds = day * DAY_SECONDS + 3_661;
            let civil = Civil::from_unix(seconds);
            assert_eq!(
                parse_timestamp(&civil.timestamp()),
                Some(seconds),
                "{civil:?}"
            );
        }
        assert_eq!(WEEKDAYS[Civil::from_unix(1_769_299_200).weekday], "Sunday");
    }

    #[test]
    fn case_is_folded_for_every_script() {
        assert!(equals_folded(&fold("ΣΊΣΥΦΟΣ"), "Σίσυφος"));
        assert!(equals_folded("oci", "OCI"));
        assert!(equals_folded(&fold("コンパートメント"), "コンパートメント"));
        assert!(!equals_folded("a", "b"));
    }
}
