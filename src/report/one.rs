//! One kind of report: when it is due, and where it goes.

use core::fmt::Write;

use spin::Once;

use crate::base::line::Line;
use crate::config::{self, STATS_FILE, Triggers};
#[cfg(feature = "profile")]
use crate::config::{PROFILE_FILE, PROFILE_FILE_DEFAULT};
#[cfg(feature = "profile")]
use crate::profile;
use crate::stats;
use crate::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};
use crate::sync::request::Request;
use crate::sys::{self, Signal};

const SECOND_NS: u64 = 1_000_000_000;

/// A kind of report.
pub(super) struct Report {
    which: config::Report,
    /// Where to; none if it is standard error. The environment may be gone when it is made.
    path: Once<Option<sys::Path>>,
    /// Reports that were made. **By who makes reports.**
    number: AtomicU32,
    /// Whether a signal has asked for one.
    asked: Request,
    /// When the next one is due, if it is every so often. **By who makes reports.**
    next_ns: AtomicU64,
    /// Whether it was told that the file cannot be written. **By who makes reports.**
    has_complained: AtomicBool,
}

impl Report {
    pub(super) const fn new(which: config::Report) -> Self {
        Self {
            which,
            path: Once::new(),
            number: AtomicU32::new(0),
            asked: Request::none(),
            next_ns: AtomicU64::new(u64::MAX),
            has_complained: AtomicBool::new(false),
        }
    }

    pub(super) fn triggers(&self) -> Triggers {
        config::triggers(self.which)
    }

    /// Notes where it goes and when the first one is due.
    pub(super) fn begin(&self) {
        if !self.triggers().are_any() {
            return;
        }
        let name = match self.which {
            config::Report::Stats => config::path(STATS_FILE),
            #[cfg(feature = "profile")]
            config::Report::Profile => {
                config::path(PROFILE_FILE).or(Some(PROFILE_FILE_DEFAULT.as_bytes()))
            }
            #[cfg(not(feature = "profile"))]
            config::Report::Profile => None,
        };
        let path = self.path.call_once(|| name.map(sys::Path::new));
        if path.is_none() {
            sys::keep_stderr();
        }
        self.next_from(sys::now_ns());
    }

    /// As at the start, in the child of a `fork`.
    pub(super) fn begin_again(&self) {
        // Relaxed, here and below: who makes reports is one at a time (`MAKING`).
        self.number.store(0, Relaxed);
        self.asked.take();
        self.next_from(sys::now_ns());
    }

    fn next_from(&self, ns: u64) {
        let next_ns = match self.triggers().every_s {
            0 => u64::MAX,
            seconds => ns + u64::from(seconds) * SECOND_NS,
        };
        self.next_ns.store(next_ns, Relaxed);
    }

    /// A signal came: async-signal-safe.
    pub(super) fn note(&self, signal: Signal) {
        let triggers = self.triggers();
        let is_meant = match signal {
            Signal::Usr1 => triggers.at_usr1,
            Signal::Usr2 => triggers.at_usr2,
        };
        if is_meant {
            self.asked.make();
        }
    }

    pub(super) fn is_asked(&self) -> bool {
        self.asked.is_made()
    }

    /// Whether one is to be made now, as a signal asked for it or it is time; the next call says no.
    pub(super) fn is_due(&self, now_ns: u64) -> bool {
        let was_asked = self.asked.take();
        let next_ns = self.next_ns.load(Relaxed);
        let is_time = now_ns >= next_ns;
        if is_time {
            let period_ns = u64::from(self.triggers().every_s) * SECOND_NS;
            // Those that were missed while the process was stopped are not made up for.
            let missed_ns = (now_ns - next_ns) / period_ns.max(1) * period_ns;
            self.next_from(next_ns + missed_ns);
        }
        was_asked || is_time
    }

    /// Nanoseconds until the next one is due.
    pub(super) fn until_due(&self, now_ns: u64) -> u64 {
        match self.next_ns.load(Relaxed) {
            u64::MAX => u64::MAX,
            next_ns => next_ns.saturating_sub(now_ns),
        }
    }

    /// Makes one, the last of the process or another.
    pub(super) fn make(&self, is_last: bool) {
        let number = self.number.load(Relaxed) + 1;
        self.number.store(number, Relaxed);
        let Some(path) = self.path.get() else { return };
        let Some(path) = path else {
            return self.make_on_stderr(is_last);
        };
        if !self.write_file(&path.numbered(number)) && !self.has_complained.swap(true, Relaxed) {
            let mut line = Line::new();
            let _ = write!(line, "{}=", self.variable());
            line.push(path.name());
            line.push(b" cannot be written\n");
            line.print();
        }
    }

    fn make_on_stderr(&self, is_last: bool) {
        let Some(mut output) = sys::Output::kept_stderr() else {
            return;
        };
        if !is_last {
            // Among lines of the program, and of other reports.
            let id = sys::process_id();
            let _ = writeln!(output, "spanmalloc: statistics of process {id}:");
        }
        let _ = write!(output, "{}", stats::stats());
    }

    /// False if the file cannot be written.
    fn write_file(&self, path: &sys::Path) -> bool {
        let Some(name) = path.as_c_str() else {
            return false;
        };
        match self.which {
            config::Report::Stats => {
                let stats = stats::stats();
                let Some(mut file) = sys::Output::create(name) else {
                    return false;
                };
                let _ = stats::write_file(&stats, path.name(), &mut file);
                true
            }
            #[cfg(feature = "profile")]
            config::Report::Profile => profile::output::write_file(name),
            #[cfg(not(feature = "profile"))]
            config::Report::Profile => false,
        }
    }

    fn variable(&self) -> &'static str {
        match self.which {
            config::Report::Stats => STATS_FILE,
            #[cfg(feature = "profile")]
            config::Report::Profile => PROFILE_FILE,
            #[cfg(not(feature = "profile"))]
            config::Report::Profile => "",
        }
    }
}
