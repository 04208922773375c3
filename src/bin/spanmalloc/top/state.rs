//! What the view shows: the last moments, and what its keys have changed.

use std::collections::VecDeque;
use std::time::Duration;

use super::page::Class;
use super::sample::{Published, Rates};

/// Moments of which the rates are a mean: a second.
const MOMENTS: usize = 5;
/// Values of the RSS that are kept for its curve.
const CURVE: usize = 240;

/// By what the size classes are sorted, the most first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Order {
    #[default]
    LiveBytes,
    LiveObjects,
    Allocations,
    Size,
}

impl Order {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::LiveBytes => "live bytes",
            Self::LiveObjects => "live objects",
            Self::Allocations => "allocations",
            Self::Size => "size",
        }
    }

    fn next(self) -> Self {
        match self {
            Self::LiveBytes => Self::LiveObjects,
            Self::LiveObjects => Self::Allocations,
            Self::Allocations => Self::Size,
            Self::Size => Self::LiveBytes,
        }
    }
}

/// A row of the table of size classes.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Row {
    pub(crate) class: Class,
    /// Allocations and frees a second; none if they are not known.
    pub(crate) rates: Option<[f64; 2]>,
}

impl Row {
    pub(crate) fn live_bytes(&self) -> u64 {
        self.class.live_objects * self.class.object_bytes
    }
}

/// A view of one program.
#[derive(Default)]
pub(crate) struct State {
    pub(crate) program: String,
    pub(crate) pid: u32,
    pub(crate) elapsed: Duration,
    pub(crate) rss_bytes: u64,
    pub(crate) peak_rss_bytes: u64,
    /// The oldest first.
    pub(crate) curve: VecDeque<u64>,
    pub(crate) order: Order,
    pub(crate) is_paused: bool,
    moments: VecDeque<Published>,
}

impl State {
    pub(crate) fn new(program: String) -> Self {
        Self {
            program,
            ..Self::default()
        }
    }

    /// Takes over what was found, unless the view is paused.
    pub(crate) fn note(
        &mut self,
        pid: u32,
        elapsed: Duration,
        rss_bytes: Option<u64>,
        published: Option<Published>,
    ) {
        // What was started may have started what publishes.
        self.pid = published
            .as_ref()
            .map_or(pid, |published| published.process);
        if self.is_paused {
            return;
        }
        self.elapsed = elapsed;
        if let Some(bytes) = rss_bytes {
            self.rss_bytes = bytes;
            self.peak_rss_bytes = self.peak_rss_bytes.max(bytes);
            self.curve.push_back(bytes);
            if self.curve.len() > CURVE {
                self.curve.pop_front();
            }
        }
        let Some(published) = published else { return };
        if self
            .last()
            .is_some_and(|last| last.time_ns >= published.time_ns)
        {
            return;
        }
        self.moments.push_back(published);
        if self.moments.len() > MOMENTS {
            self.moments.pop_front();
        }
    }

    pub(crate) fn sort_next(&mut self) {
        self.order = self.order.next();
    }

    /// The newest moment; none before the library has published one.
    pub(crate) fn last(&self) -> Option<&Published> {
        self.moments.back()
    }

    /// Rates over the last moments; none if they are not known.
    pub(crate) fn rates(&self) -> Option<Rates> {
        let (old, new) = self.span()?;
        Rates::between(old, new)
    }

    /// The size classes that are in use, sorted.
    pub(crate) fn rows(&self) -> Vec<Row> {
        let Some(last) = self.last() else {
            return Vec::new();
        };
        let of_row = |row| {
            let (old, new) = self.span()?;
            Rates::of_class(old, new, row)
        };
        let mut rows: Vec<Row> = last
            .classes
            .iter()
            .enumerate()
            .map(|(row, class)| Row {
                class: *class,
                rates: of_row(row),
            })
            .filter(|row| row.class.refilled > 0)
            .collect();
        let allocations = |row: &Row| row.rates.map_or(0.0, |[allocations, _]| allocations);
        match self.order {
            Order::LiveBytes => rows.sort_by_key(|row| row.live_bytes()),
            Order::LiveObjects => rows.sort_by_key(|row| row.class.live_objects),
            Order::Allocations => rows.sort_by(|a, b| allocations(a).total_cmp(&allocations(b))),
            Order::Size => rows.sort_by_key(|row| row.class.object_bytes),
        }
        rows.reverse();
        rows
    }

    /// The first and the last of the moments, if calls are counted.
    fn span(&self) -> Option<(&Published, &Published)> {
        let (old, new) = (self.moments.front()?, self.last()?);
        new.is_counted.then_some((old, new))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn class(object_bytes: u64, live_objects: u64, allocations: u64) -> Class {
        Class {
            object_bytes,
            live_objects,
            allocations,
            refilled: live_objects.max(allocations),
            ..Class::default()
        }
    }

    fn moment(second: u64) -> Published {
        Published {
            process: 1,
            time_ns: second * 1_000_000_000,
            is_counted: true,
            classes: vec![
                class(8, 100, 5 * second),
                class(16, 90, 50 * second),
                class(32, 0, 0),
                class(64, 10, 500 * second),
                class(1024, 5, 0),
            ],
            ..Published::default()
        }
    }

    fn sizes(state: &State) -> Vec<u64> {
        state
            .rows()
            .iter()
            .map(|row| row.class.object_bytes)
            .collect()
    }

    #[test]
    fn classes_in_use_are_sorted_by_each_order_in_turn() {
        let mut state = State::default();
        assert_eq!(state.rows(), []);
        for second in 1..=9 {
            state.note(1, Duration::ZERO, Some(second), Some(moment(second)));
        }
        let mut seen = Vec::new();
        for _ in 0..5 {
            seen.push((state.order.name(), sizes(&state)));
            state.sort_next();
        }
        let expected = [
            ("live bytes", vec![1024, 16, 8, 64]),
            ("live objects", vec![8, 16, 64, 1024]),
            ("allocations", vec![64, 16, 8, 1024]),
            ("size", vec![1024, 64, 16, 8]),
            ("live bytes", vec![1024, 16, 8, 64]),
        ];
        // Equal ones may come in any order: there is none.
        assert_eq!(seen, expected);
        assert_eq!(state.rows()[1].rates, Some([50.0, 0.0]));
    }

    #[test]
    fn paused_view_keeps_what_it_shows() {
        let mut state = State::default();
        state.note(1, Duration::from_secs(1), Some(10), Some(moment(1)));
        state.is_paused = true;
        state.note(1, Duration::from_secs(2), Some(20), Some(moment(2)));
        assert_eq!((state.rss_bytes, state.elapsed.as_secs()), (10, 1));
        assert_eq!(state.last(), Some(&moment(1)));
        state.is_paused = false;
        state.note(1, Duration::from_secs(3), Some(5), Some(moment(3)));
        assert_eq!((state.rss_bytes, state.peak_rss_bytes), (5, 10));
        assert_eq!(state.curve, [10, 5]);
    }

    #[test]
    fn rates_need_two_moments_and_counted_calls() {
        let mut state = State::default();
        state.note(1, Duration::ZERO, None, Some(moment(1)));
        // The same moment again, as nothing new was published.
        state.note(1, Duration::ZERO, None, Some(moment(1)));
        assert_eq!(state.rates(), None);
        state.note(1, Duration::ZERO, None, Some(moment(2)));
        assert!(state.rates().is_some());
        let uncounted = Published {
            is_counted: false,
            ..moment(3)
        };
        state.note(1, Duration::ZERO, None, Some(uncounted));
        assert_eq!(state.rates(), None);
        assert_eq!(state.rows()[0].rates, None);
    }
}
