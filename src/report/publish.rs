//! The page of figures that other processes may read: see [`super::page`].

use core::fmt::Write;

use super::page::{
    CLASS_COUNT, CLASS_WORDS, CLASSES, CLASSES_MAX, Class, FIGURES, Figures, HAS_ENDED, IS_COUNTED,
    MAGIC, PAGE_BYTES, PROCESS, SEQUENCE, TIME, VERSION, WORDS,
};
use crate::base::line::Line;
use crate::base::size_class::{MAGAZINES, SizeClass};
use crate::config::PUBLISH;
use crate::counters::{self, calls};
use crate::mcache::{self, MCache};
use crate::stats;
use crate::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use crate::sync::sequence;
use crate::sys;

const _: () = assert!(MAGAZINES - 1 <= CLASSES_MAX);

/// Time between two looks: 250 ms.
const PERIOD_NS: u64 = 250_000_000;

/// The page, while this process publishes. **Written before there is another thread that publishes, and in
/// the child of a `fork`.**
static PAGE: spin::Once<Option<&'static [AtomicU64; WORDS]>> = spin::Once::new();

/// Whether this process is a child of the one that publishes. **Any thread; atomic.**
static IS_CHILD: AtomicBool = AtomicBool::new(false);

/// When the next look is due. **By who makes reports.**
static NEXT_NS: AtomicU64 = AtomicU64::new(0);

/// Maps the page that the environment names. False if there is none or another process has it.
pub(super) fn begin(name: &[u8]) -> bool {
    let path = sys::Path::new(name);
    let page = PAGE.call_once(|| {
        let words = path
            .as_c_str()
            .and_then(|name| sys::map_shared(name, PAGE_BYTES))
            .and_then(|words| words.first_chunk());
        if words.is_none() {
            let mut line = Line::new();
            let _ = write!(line, "{PUBLISH}=");
            line.push(path.name());
            let _ = writeln!(
                line,
                " is no file of {PAGE_BYTES} bytes that can be written"
            );
            line.print();
        }
        words.filter(|words| takes(words))
    });
    page.is_some()
}

/// Takes the page for this process; false if another one has it.
fn takes(words: &[AtomicU64; WORDS]) -> bool {
    let id = sys::process_id() as u64;
    // Relaxed: the sequence number publishes the rest.
    match words[PROCESS].compare_exchange(0, id, Relaxed, Relaxed) {
        Ok(_) => true,
        // What this process was before an `exec`.
        Err(there) => there == id,
    }
}

fn page() -> Option<&'static [AtomicU64; WORDS]> {
    let page = (*PAGE.get()?)?;
    (!IS_CHILD.load(Relaxed)).then_some(page)
}

/// In the child of a `fork`: the page is the parent's.
pub(super) fn has_forked() {
    IS_CHILD.store(true, Relaxed);
}

pub(super) fn is_due(now_ns: u64) -> bool {
    page().is_some() && now_ns >= NEXT_NS.load(Relaxed)
}

/// Nanoseconds until the next look.
pub(super) fn until_due(now_ns: u64) -> u64 {
    match page() {
        Some(_) => NEXT_NS.load(Relaxed).saturating_sub(now_ns),
        None => u64::MAX,
    }
}

/// Writes the figures of this moment. One thread at a time.
pub(super) fn publish(has_ended: bool) {
    let Some(words) = page() else { return };
    let now_ns = sys::now_ns();
    NEXT_NS.store(now_ns + PERIOD_NS, Relaxed);
    let classes = (1..MAGAZINES).map(|index| class(SizeClass::new(index)));
    let (figures, are_counted) = figures(classes.clone());

    let put = |at: usize, word: u64| words[at].store(word, Relaxed);
    put(0, MAGIC);
    put(1, VERSION);
    sequence::write(&words[SEQUENCE], || {
        put(HAS_ENDED, has_ended.into());
        put(TIME, now_ns);
        put(IS_COUNTED, are_counted.into());
        put(CLASS_COUNT, MAGAZINES as u64 - 1);
        for (offset, word) in figures.to_words().into_iter().enumerate() {
            put(FIGURES + offset, word);
        }
        for (row, class) in classes.enumerate() {
            for (offset, word) in class.to_words().into_iter().enumerate() {
                put(CLASSES + row * CLASS_WORDS + offset, word);
            }
        }
    });
}

/// What is known of a class.
fn class(class: SizeClass) -> Class {
    let index = class.index();
    let (detached_allocated, detached_freed) = counters::detached(class);
    let mut counts = Class {
        object_bytes: class.object_bytes() as u64,
        live_objects: 0,
        allocations: detached_allocated,
        frees: detached_freed,
        refilled: detached_allocated,
        flushed: detached_freed,
    };
    let mut held = 0;
    for mcache in mcache::all() {
        let counters = &mcache.counters;
        counts.allocations += counters.allocated[index].get();
        counts.frees += counters.freed[index].get();
        counts.refilled += counters.refilled[index].get();
        counts.flushed += counters.flushed[index].get();
        held += mcache.len(class) as u64;
    }
    counts.live_objects = counts.refilled.saturating_sub(counts.flushed + held);
    counts
}

/// What is known of all, and whether calls are counted.
fn figures(classes: impl Iterator<Item = Class> + Clone) -> (Figures, bool) {
    let stats = stats::stats();
    let sum = |of: fn(&Class) -> u64| classes.clone().map(|class| of(&class)).sum::<u64>();
    let magazine_bytes: usize = mcache::all().map(bytes_held).sum();
    let small_bytes = stats
        .live_bytes
        .saturating_sub(stats.large_live_bytes + stats.huge_live_bytes);
    let used_bytes = small_bytes + stats.large_live_bytes + magazine_bytes;
    let calls = stats.calls.unwrap_or_default();
    let figures = Figures {
        live_objects: stats.live_objects as u64,
        live_bytes: stats.live_bytes as u64,
        large_live_bytes: stats.large_live_bytes as u64,
        huge_live_bytes: stats.huge_live_bytes as u64,
        magazine_bytes: magazine_bytes as u64,
        central_bytes: stats.in_use_bytes.saturating_sub(used_bytes) as u64,
        cached_bytes: stats.cached_bytes as u64,
        dirty_bytes: stats.dirty_bytes as u64,
        released_bytes: stats.released_bytes as u64,
        record_bytes: stats.record_bytes as u64,
        backed_bytes: stats.backed_bytes as u64,
        threads: stats.threads as u64,
        allocations: calls.allocations,
        allocated_bytes: calls.allocated_bytes,
        frees: calls.frees,
        refilled: sum(|class| class.refilled),
        flushed: sum(|class| class.flushed),
    };
    (figures, calls::are_counted())
}

/// Bytes of the objects in the magazines of an mcache.
fn bytes_held(mcache: &MCache) -> usize {
    let classes = (1..MAGAZINES).map(SizeClass::new);
    classes
        .map(|class| mcache.len(class) * class.object_bytes())
        .sum()
}
