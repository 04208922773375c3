//! Dates.

use std::time::{SystemTime, UNIX_EPOCH};

/// The date in UTC, as YYYY-MM-DD.
pub fn today() -> String {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    civil(since.unwrap_or_default().as_secs() / 86_400)
}

/// The date so many days after the first of 1970.
fn civil(days: u64) -> String {
    // Years begin in March here, so that the day that only some years have is the last of its year;
    // and ages of 400 years, which are all of one length, with the year 0.
    const DAYS_OF_AGE: u64 = 146_097;
    let days = days + 719_468;
    let (age, day) = (days / DAYS_OF_AGE, days % DAYS_OF_AGE);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (next_year, month) = match month {
        10.. => (1, month - 9),
        _ => (0, month + 3),
    };
    format!("{:04}-{month:02}-{day:02}", 400 * age + year + next_year)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_the_calendar() {
        for (days, expected) in [
            (0, "1970-01-01"),
            (58, "1970-02-28"),
            (59, "1970-03-01"),
            (364, "1970-12-31"),
            (789, "1972-02-29"),
            (11_016, "2000-02-29"),
            (11_017, "2000-03-01"),
            (20_454, "2026-01-01"),
            (47_540, "2100-02-28"),
            (47_541, "2100-03-01"),
            (157_113, "2400-02-29"),
        ] {
            assert_eq!(civil(days), expected);
        }
    }
}
