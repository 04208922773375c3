//! Records what the program does with C's interface: a raw stream, which `spanmalloc run --record` makes a trace of.
//!
//! The file is mapped, and a record is written at the place that the next number of one counter gives: the order
//! of the numbers is the order of the records, for all threads, and there are no buffers to be written out when a
//! thread or the process ends, whatever way. A free is recorded before it is done and an allocation afterwards, so an
//! address is never recorded twice without a free between.
//!
//! All calls are counted while this is on, so that each is a slow one. The child of a `fork` is not recorded.

#![allow(unsafe_code)]

pub(crate) mod raw;

use core::ffi::c_void;
use core::fmt::Write;

use spin::Once;

use crate::base::line::Line;
use crate::config::{self, RECORD};
use crate::sync::Mutex;
use crate::sync::atomic::{
    AtomicBool, AtomicU64,
    Ordering::{Acquire, Relaxed, Release},
};
use crate::sys;
use raw::{Kind, MAGIC, RECORD_BYTES, RECORD_WORDS, VERSION, encode};

/// Address space for the file: two thousand million records.
const MAPPED_BYTES: usize = 64 << 30;
/// What the file grows by.
const GROWTH_BYTES: usize = 16 << 20;

/// **Any thread; atomic.** On from the start, until something fails.
static ON: AtomicBool = AtomicBool::new(false);
/// The number of the next record. **Any thread; atomic.**
static NEXT: AtomicU64 = AtomicU64::new(0);
/// Bytes of the file that may be written. **Grows under `GROWING`, read by anyone.**
static READY_BYTES: AtomicU64 = AtomicU64::new(0);
/// Who lets the file grow.
static GROWING: Mutex<()> = Mutex::new(());

struct Log {
    path: sys::Path,
    words: &'static [AtomicU64],
}

static LOG: Once<Option<Log>> = Once::new();

/// Whether calls are recorded.
#[inline]
pub(crate) fn is_on() -> bool {
    // Relaxed: what a record needs is seen by way of `LOG`.
    ON.load(Relaxed)
}

/// Begins, if the environment says so. In the constructor, before there are other threads.
pub(crate) fn begin() -> bool {
    let Some(name) = config::path(RECORD) else {
        return false;
    };
    let log = LOG.call_once(|| {
        let path = sys::Path::new(name).numbered(1);
        let words = sys::map_log(path.as_c_str()?, MAPPED_BYTES)?;
        Some(Log { path, words })
    });
    if log
        .as_ref()
        .is_none_or(|log| !grows(log, RECORD_BYTES as u64))
    {
        tell(name, "cannot be written: nothing is recorded");
        return false;
    }
    ON.store(true, Relaxed);
    write([MAGIC, VERSION, 0, 0]);
    is_on()
}

/// In the child of a `fork`: the file is the parent's.
pub(crate) fn has_forked() {
    ON.store(false, Relaxed);
}

/// Records something about an object. `align` is a power of two.
#[cold]
#[inline(never)]
pub(crate) fn note(kind: Kind, object: *mut c_void, size: usize, align: usize) {
    let head = encode(kind, align.trailing_zeros());
    write([
        head,
        sys::thread_id() as u64,
        object.addr() as u64,
        size as u64,
    ]);
}

fn write([head, rest @ ..]: [u64; RECORD_WORDS]) {
    let Some(Some(log)) = LOG.get() else { return };
    // Relaxed: who gets an object by way of the allocator or another thread gets a higher number too.
    let number = NEXT.fetch_add(1, Relaxed);
    let end = (number + 1) * RECORD_BYTES as u64;
    // Acquire pairs with the Release in `grows`.
    if end > READY_BYTES.load(Acquire) && !grows(log, end) {
        return;
    }
    let first = number as usize * RECORD_WORDS;
    let Some(record) = log.words.get(first..first + RECORD_WORDS) else {
        return;
    };
    for (word, value) in record[1..].iter().zip(rest) {
        word.store(value, Relaxed);
    }
    // Who reads a head has the rest.
    record[0].store(head, Release);
}

/// Lets the file grow to that length at least; false, and nothing is recorded any more, if it does not.
#[cold]
#[inline(never)]
fn grows(log: &Log, end: u64) -> bool {
    let growing = GROWING.lock();
    let mut ready = READY_BYTES.load(Relaxed);
    while ready < end {
        let has_room = ready + GROWTH_BYTES as u64 <= MAPPED_BYTES as u64;
        let name = log.path.as_c_str().filter(|_| has_room);
        if !name.is_some_and(|name| sys::grow_log(name, ready, GROWTH_BYTES as u64)) {
            let was_on = ON.swap(false, Relaxed);
            drop(growing);
            if was_on {
                tell(log.path.name(), "cannot grow: nothing more is recorded");
            }
            return false;
        }
        ready += GROWTH_BYTES as u64;
        READY_BYTES.store(ready, Release);
    }
    true
}

fn tell(path: &[u8], what: &str) {
    let mut line = Line::new();
    let _ = write!(line, "{RECORD}=");
    line.push(path);
    let _ = writeln!(line, " {what}");
    line.print();
}
