//! Calendar months in UTC, which spend limits and partitions go by.

use chrono::{DateTime, Datelike, Months, NaiveDate, NaiveTime};

use crate::domain::Timestamp;

/// A calendar month in UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Month {
    /// Its first day.
    first: NaiveDate,
}

impl Month {
    /// The month that a moment is in. Moments beyond chrono's range count as the epoch's month.
    pub(super) fn of(moment: Timestamp) -> Self {
        let date = DateTime::from_timestamp_micros(moment.micros()).unwrap_or_default().date_naive();
        Self { first: date.with_day(1).unwrap_or(date) }
    }

    /// A month that is written as `2026-05`.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let exact = text.len() == 7 && text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-');
        let first = NaiveDate::parse_from_str(&format!("{text}-01"), "%Y-%m-%d").ok()?;
        exact.then_some(Self { first })
    }

    /// The month after it.
    pub(super) fn next(self) -> Self {
        Self { first: self.first.checked_add_months(Months::new(1)).unwrap_or(NaiveDate::MAX) }
    }

    /// Its first moment.
    pub(super) fn start(self) -> Timestamp {
        Timestamp::from_micros(self.first.and_time(NaiveTime::MIN).and_utc().timestamp_micros())
    }

    /// As `2026_11`.
    pub(super) fn name(self) -> String {
        format!("{:04}_{:02}", self.first.year(), self.first.month())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_month_begins_and_ends_at_midnight_utc() {
        // 2026-12-31T23:59:59Z and one second later.
        let december = Month::of(Timestamp::from_seconds(1_798_761_599));
        let january = Month::of(Timestamp::from_seconds(1_798_761_600));
        assert_eq!(december.name(), "2026_12");
        assert_eq!(december.next(), january);
        assert_eq!(january.start(), Timestamp::from_seconds(1_798_761_600));
        assert_eq!(january.name(), "2027_01");
        assert_eq!(december.start().rfc3339(), "2026-12-01T00:00:00.000Z");
        assert_eq!(Month::parse("2026-12"), Some(december));
        for wrong in ["2026-13", "2026-1", "26-12", "2026-12-01", "+026-12", "december", ""] {
            assert_eq!(Month::parse(wrong), None, "{wrong}");
        }
    }
}
