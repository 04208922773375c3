//! What the allocator was told: by its defaults, the program, the environment, and calls.
//!
//! `options` is the one table of what there is; `parse` reads the forms; `environment` takes over what
//! the environment says and tells what is wrong with it; `state` is what is in effect; `values` has the
//! types that programs name.
//!
//! From the weakest to the strongest: the defaults, what the program was compiled with
//! ([`SpanMalloc::with`](crate::SpanMalloc::with)), the environment, and calls ([`set_config`]). Before
//! the environment is read, which the first slow call does, what is weaker holds.
//!
//! Other floors ask the functions here, each one or two relaxed loads, and ask again whenever they need
//! to know: a call may change any value at any time.
//!
//! Invariant: nothing here allocates, waits or takes a lock, and errno stays as it is.

mod environment;
mod options;
mod parse;
mod secure;
mod state;
mod triggers;
mod values;

use options::Choice;
#[cfg(feature = "preload")]
pub(crate) use options::RECORD;
#[cfg(feature = "profile")]
pub(crate) use options::{PROFILE_FILE, PROFILE_FILE_DEFAULT, PROFILE_RATE_DEFAULT};
pub(crate) use options::{PUBLISH, Report, STATS_FILE};
use state::{Layer, State};
pub(crate) use triggers::Triggers;

pub use secure::Secure;
pub use values::{Config, HugePages, MemoryLimit, Release, ReleaseBy};

use crate::sync::atomic::{AtomicBool, Ordering::Relaxed};
use crate::sys;

/// What is in effect.
static STATE: State = State::new();

/// Whether the environment was read, or is being read. **Any thread; atomic.**
///
/// Who comes while another thread reads does not wait, and finds what held before: the reader may be
/// in the middle of the process's first allocation, or gone in the child of a `fork`.
static BEGUN: AtomicBool = AtomicBool::new(false);

/// Whether the program's own `Config` was taken over. **Any thread; atomic.**
static HAS_PROGRAMS: AtomicBool = AtomicBool::new(false);

/// Takes over what the environment says, once.
#[inline]
pub(crate) fn init() {
    // Relaxed, here and below: the flags publish nothing but themselves.
    if !BEGUN.load(Relaxed) {
        init_slow();
    }
}

#[cold]
fn init_slow() {
    if !sys::has_environment() || BEGUN.swap(true, Relaxed) {
        return;
    }
    environment::apply(&STATE, sys::variables(), auto_bytes, |line| line.print());
}

/// Takes over what the program was compiled with, before its first object is made: once, and before
/// the environment, whose complaints name the defaults.
#[inline]
pub(crate) fn begin(config: &Config) {
    if !HAS_PROGRAMS.load(Relaxed) {
        begin_slow(config);
    }
}

#[cold]
#[inline(never)]
fn begin_slow(config: &Config) {
    STATE.set(*config, Layer::Program, auto_bytes);
    HAS_PROGRAMS.store(true, Relaxed);
    init();
}

/// When free memory goes back to the system.
#[inline]
pub(crate) fn release() -> Release {
    state::release(STATE.chosen(Choice::Release))
}

/// Whether memory that goes back stays until the system needs it.
#[inline]
pub(crate) fn releases_lazily() -> bool {
    state::release_by(STATE.chosen(Choice::ReleaseBy)) == ReleaseBy::Free
}

/// Whether a background thread is to give memory back while the program is idle.
#[inline]
pub(crate) fn background() -> bool {
    STATE.chosen(Choice::Background) != 0
}

/// Bytes that the allocator may take; `usize::MAX` for no limit.
#[inline]
pub(crate) fn memory_limit_bytes() -> usize {
    STATE.limit_bytes()
}

/// Whether allocations beyond the limit fail.
#[inline]
pub(crate) fn is_limit_hard() -> bool {
    STATE.chosen(Choice::HardLimit) != 0
}

/// Whether the heap asks for transparent huge pages.
#[inline]
pub(crate) fn huge_pages() -> HugePages {
    state::huge_pages(STATE.chosen(Choice::HugePages))
}

/// What the secure mode is to do, and whether that is the last word: the environment was read.
#[cfg(feature = "secure")]
pub(crate) fn secure() -> (Secure, bool) {
    (STATE.secure(), BEGUN.load(Relaxed))
}

/// Of how many slow calls that allocate one guards its object; zero for none.
#[cfg(feature = "guarded")]
#[inline]
pub(crate) fn guarded() -> u32 {
    STATE.guarded()
}

/// Whether somebody has asked for that number.
#[cfg(feature = "guarded")]
pub(crate) fn guarded_is_asked() -> bool {
    STATE.guarded() != options::GUARDED_DEFAULT
}

#[cfg(all(test, feature = "guarded"))]
pub(crate) fn set_guarded(one_in: u32) {
    STATE.set_guarded(one_in, Layer::Call);
}

/// Whether the environment was read.
#[cfg(feature = "guarded")]
pub(crate) fn has_begun() -> bool {
    BEGUN.load(Relaxed)
}

/// Whether a foreign pointer ends the process.
#[cfg(feature = "preload")]
pub(crate) fn is_foreign_fatal() -> bool {
    STATE.chosen(Choice::Foreign) != 0
}

/// Whether each call is counted.
#[cfg(feature = "preload")]
pub(crate) fn counts_calls() -> bool {
    STATE.chosen(Choice::Count) != 0
}

/// When a report is made.
pub(crate) fn triggers(report: Report) -> Triggers {
    STATE.triggers(report)
}

/// Allocated bytes between two samples of the heap profile, on the average; zero for no samples.
#[cfg(feature = "profile")]
pub(crate) fn profile_rate() -> usize {
    STATE.profile_rate()
}

#[cfg(all(test, feature = "profile"))]
pub(crate) fn set_profile_rate(bytes: usize) {
    STATE.set_profile_rate(bytes);
}

/// The path that a variable of this name has, if the environment has it: as long as nobody changes it.
pub(crate) fn path(name: &str) -> Option<&'static [u8]> {
    sys::environment(name).filter(|path| !path.is_empty())
}

/// What is in effect. Other threads may change it meanwhile. Takes no lock and does not fail.
///
/// ```
/// println!("{:?}", spanmalloc::config());
/// ```
pub fn config() -> Config {
    init();
    STATE.config()
}

/// Changes what is in effect, whatever was said before. The next decisions of the allocator follow it;
/// memory that it has is not touched by the call itself. Any thread may call it; of two at a time each
/// option has one's value. Options that were not asked for are set as well, to what `config` says: take
/// that from [`config()`]. Takes no lock and does not fail.
///
/// ```
/// use spanmalloc::Release;
///
/// spanmalloc::set_config(spanmalloc::config().release(Release::AtOnce));
/// assert_eq!(spanmalloc::config().releases(), Release::AtOnce);
/// ```
pub fn set_config(config: Config) {
    init();
    STATE.set(config, Layer::Call, auto_bytes);
}

/// Changes the memory limit, and nothing else; as [`set_config`].
///
/// [`MemoryLimit::Auto`] looks up what the process may have, also if it was chosen before: it reads some
/// small files of `/proc` and `/sys/fs/cgroup`. One that cannot be read sets no limit.
///
/// ```
/// use spanmalloc::MemoryLimit;
///
/// spanmalloc::set_memory_limit(MemoryLimit::Bytes(512 << 20));
/// assert_eq!(spanmalloc::config().limit(), MemoryLimit::Bytes(512 << 20));
/// ```
pub fn set_memory_limit(limit: MemoryLimit) {
    init();
    STATE.set_limit(limit, Layer::Call, auto_bytes);
}

/// The program wants the background thread; as [`set_config`], and nothing else changes.
pub(crate) fn want_background() {
    init();
    STATE.choose(Choice::Background, 1, Layer::Call);
}

/// Bytes that [`MemoryLimit::Auto`] is; `usize::MAX` if nothing limits the process.
fn auto_bytes() -> usize {
    sys::memory_allowed_bytes().map_or(usize::MAX, less_a_margin)
}

/// Least bytes that are left for memory that is not the allocator's: the program, its libraries and
/// stacks.
const MARGIN_BYTES_MIN: usize = 4 << 20;
/// Parts of what is allowed of which one is left.
const MARGIN_PARTS: usize = 16;

/// What the allocator may have of what the process may have.
fn less_a_margin(allowed_bytes: usize) -> usize {
    let margin = (allowed_bytes / MARGIN_PARTS).max(MARGIN_BYTES_MIN);
    allowed_bytes - margin.min(allowed_bytes / 2)
}

#[cfg(test)]
mod tests {
    use super::less_a_margin;

    #[test]
    fn margin_is_a_sixteenth_but_at_least_4_mib_and_at_most_half() {
        let mib = 1 << 20;
        assert_eq!(less_a_margin(1600 * mib), 1500 * mib);
        assert_eq!(less_a_margin(64 * mib), 60 * mib);
        assert_eq!(less_a_margin(32 * mib), 28 * mib);
        assert_eq!(less_a_margin(8 * mib), 4 * mib);
        assert_eq!(less_a_margin(6 * mib), 3 * mib);
        assert_eq!(less_a_margin(1), 1);
        assert_eq!(less_a_margin(0), 0);
    }
}
