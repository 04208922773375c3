//! Reports while a program runs and at its end: statistics, and heap profiles.
//!
//! `SPANMALLOC_STATS` and `SPANMALLOC_PROFILE` say when: at the end by `exit`, at a signal, every so many
//! seconds. `SPANMALLOC_STATS_FILE` and `SPANMALLOC_PROFILE_FILE` say where to; `%p` there is the number of the
//! process, and `%n` counts the reports of a kind from 1 on. Without `%n` each report takes the place of the
//! one before.
//!
//! Under the preloaded library the variables work by themselves. A Rust program asks for it, early in `main`:
//!
//! ```
//! spanmalloc::report::from_environment();
//! ```
//!
//! A signal and the time are seen to by the background thread, which starts with the next call that allocates
//! and is slow (nearly always one of the first), whatever `SPANMALLOC_BACKGROUND` says. The handler of a signal
//! only notes that it came and wakes the thread. A handler that the program had installed before is called
//! as well; one that it installs later takes this one's place, and the signal makes no reports then.
//!
//! The report at the end is made by the thread that calls `exit`. If that is the handler of a signal that came
//! in the middle of a call of the allocator, whose locks it may hold, there is a line that says so instead.
//!
//! `SPANMALLOC_PUBLISH` names a page of figures that other processes read while the program runs.
//!
//! In the child of a `fork` the same triggers hold, numbers begin at 1, and a new background thread starts like
//! the first one.

mod one;
mod page;
mod publish;

use core::fmt::Write;

use crate::base::line::Line;
use crate::config::{self, Triggers};
use crate::sync::atomic::{AtomicBool, Ordering::Relaxed};
use crate::sync::request::Turn;
use crate::sys::{self, Signal};
use crate::{runtime, scavenge};
use one::Report;

const KINDS: usize = if cfg!(feature = "profile") { 2 } else { 1 };

/// All kinds.
static REPORTS: [Report; KINDS] = [
    Report::new(config::Report::Stats),
    #[cfg(feature = "profile")]
    Report::new(config::Report::Profile),
];

/// Whether what the environment says holds. **Any thread; atomic.** Set once.
static BEGUN: AtomicBool = AtomicBool::new(false);

/// Whether the background thread has something to do here. **Any thread; atomic.** Set at the start, and in the
/// child of a `fork`.
static NEEDS_THREAD: AtomicBool = AtomicBool::new(false);

/// Who makes reports has it. Nobody waits for it without a bound.
static MAKING: Turn = Turn::free();

/// Time for which the end of the process waits for the report that the background thread makes: 10 s.
const WAIT_NS: u64 = 10_000_000_000;
/// Time in which each lock has to come free at the end: 1 s.
const LOCKS_NS: u64 = 1_000_000_000;

/// Makes reports when the environment says, from here on: see the text of this module. True if it says
/// anything.
///
/// For Rust programs; under the preloaded library it has been done already for the library's heap, and this
/// is about the heap of the program. To be called once, early in `main`, by a thread that holds no lock which
/// starting a thread may need.
pub fn from_environment() -> bool {
    config::init();
    if !begin() {
        return false;
    }
    if needs_thread() {
        let _ = scavenge::start();
        // If there was one already, it sleeps too long.
        scavenge::wake_for_report();
    }
    true
}

/// Does what the environment says from here on. True if it says anything.
pub(crate) fn begin() -> bool {
    let all = || REPORTS.iter().map(Report::triggers);
    let page = config::path(config::PUBLISH);
    if page.is_none() && !all().any(Triggers::are_any) {
        return false;
    }
    // Relaxed, here and below: the flags publish nothing but themselves.
    if BEGUN.swap(true, Relaxed) {
        return true;
    }
    REPORTS.iter().for_each(Report::begin);
    let publishes = page.is_some_and(publish::begin);
    if publishes || all().any(|triggers| triggers.at_exit) {
        sys::at_exit(at_exit);
    }
    if all().any(|triggers| triggers.at_usr1) {
        sys::on_signal(Signal::Usr1, came);
    }
    if all().any(|triggers| triggers.at_usr2) {
        sys::on_signal(Signal::Usr2, came);
    }
    if publishes || all().any(Triggers::are_during_the_run) {
        NEEDS_THREAD.store(true, Relaxed);
    }
    true
}

/// Whether there is to be a background thread for reports.
#[inline]
pub(crate) fn needs_thread() -> bool {
    NEEDS_THREAD.load(Relaxed)
}

/// A signal came: async-signal-safe.
fn came(signal: Signal) {
    for report in &REPORTS {
        report.note(signal);
    }
    scavenge::wake_for_report();
}

/// Whether a signal has asked for a report that was not made yet.
pub(crate) fn is_asked() -> bool {
    REPORTS.iter().any(Report::is_asked)
}

/// Makes the reports that are due or asked for; the nanoseconds until the next one is due. The background
/// thread calls.
pub(crate) fn make_those_due() -> u64 {
    if !needs_thread() {
        return u64::MAX;
    }
    for report in &REPORTS {
        // If the process is about to end, it makes its last ones.
        if report.is_due(sys::now_ns()) && begin_making(0) {
            report.make(false);
            MAKING.give();
        }
    }
    if publish::is_due(sys::now_ns()) && begin_making(0) {
        publish::publish(false);
        MAKING.give();
    }
    let now_ns = sys::now_ns();
    let until = |report: &Report| report.until_due(now_ns);
    let until_page = publish::until_due(now_ns);
    REPORTS.iter().map(until).fold(until_page, u64::min)
}

/// The end of the process, by `exit`. No report is made after it.
extern "C" fn at_exit() {
    let deadline_ns = sys::now_ns() + LOCKS_NS;
    if !runtime::is_whole(deadline_ns) {
        return skipped(
            "exit was called in the middle of a call of the allocator, by a signal handler",
        );
    }
    if !begin_making(WAIT_NS) {
        return skipped("another report is not finished");
    }
    for report in &REPORTS {
        if report.triggers().at_exit {
            report.make(true);
        }
    }
    publish::publish(true);
}

fn skipped(why: &str) {
    if !REPORTS.iter().any(|report| report.triggers().at_exit) {
        return;
    }
    let mut line = Line::new();
    let _ = writeln!(line, "no report at exit: {why}");
    line.print();
}

/// The calling thread makes reports from here on, and nobody else; false if somebody else does for that time.
fn begin_making(wait_ns: u64) -> bool {
    let begin_ns = sys::now_ns();
    while !MAKING.try_take() {
        if sys::now_ns() - begin_ns >= wait_ns {
            return false;
        }
        sys::yield_now();
    }
    true
}

/// In the child of a `fork`: what was under way or asked for is the parent's.
pub(crate) fn after_fork_in_child() {
    MAKING.give();
    REPORTS.iter().for_each(Report::begin_again);
    publish::has_forked();
    let needs_thread = REPORTS
        .iter()
        .any(|report| report.triggers().are_during_the_run());
    if !needs_thread {
        NEEDS_THREAD.store(false, Relaxed);
    }
}
