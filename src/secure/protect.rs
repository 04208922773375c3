//! Freed objects of whole pages wait before their pages and addresses are used again.
//!
//! First in, first out; bounded by their number, by address space, and by memory. Those that run caches would keep
//! have been filled, and are verified when their pages are used again; with `PROTECT` they have no access meanwhile.
//! The others never have: no memory either, and are only address space.

#![allow(unsafe_code)]

use core::ptr::NonNull;

use super::on::does;
use super::states;
use crate::base::PAGE_BYTES;
use crate::config::Secure;
use crate::counters::PageObjects;
use crate::mheap::{huge, huge_pages, run_cache};
use crate::mspan::MSpan;
use crate::sync::Mutex;
use crate::{backed, config, large, sys};

/// Most objects that wait. Without access each splits a mapping in two.
const OBJECTS_MAX: usize = 64;
/// Most bytes of address space that wait.
const BYTES_MAX: usize = 256 << 20;
/// Most bytes of those that are protected, and keep their memory.
const PROTECTED_BYTES_MAX: usize = 32 << 20;
/// Most bytes of those that are not: what leaves the second level of the processor's caches is verified from memory.
const FILLED_BYTES_MAX: usize = 2 << 20;
/// Largest object that keeps its memory: to have all of it back is a page fault for each page.
const KEPT_OBJECT_BYTES_MAX: usize = 16 << 20;

/// An object that waits.
#[derive(Clone, Copy)]
struct Waiting {
    span: &'static MSpan,
    /// Whether it has no access.
    is_protected: bool,
    /// Whether its memory went back to the system.
    is_released: bool,
}

/// Those that wait, oldest first.
struct Queue {
    objects: [Option<Waiting>; OBJECTS_MAX],
    first: usize,
    len: usize,
    bytes: usize,
    kept_bytes: usize,
    /// Most of the latter.
    kept_bytes_max: usize,
}

/// Those that have access, and those that do not.
static QUEUES: [Mutex<Queue>; 2] = [
    Mutex::new(Queue::new(FILLED_BYTES_MAX)),
    Mutex::new(Queue::new(PROTECTED_BYTES_MAX)),
];

impl Waiting {
    fn kept_bytes(&self) -> usize {
        if self.is_released {
            0
        } else {
            self.span.bytes()
        }
    }
}

impl Queue {
    const fn new(kept_bytes_max: usize) -> Self {
        Self {
            objects: [None; OBJECTS_MAX],
            first: 0,
            len: 0,
            bytes: 0,
            kept_bytes: 0,
            kept_bytes_max,
        }
    }

    fn is_full(&self) -> bool {
        self.len == OBJECTS_MAX || self.bytes > BYTES_MAX || self.kept_bytes > self.kept_bytes_max
    }

    fn push(&mut self, waiting: Waiting) {
        self.objects[(self.first + self.len) % OBJECTS_MAX] = Some(waiting);
        self.len += 1;
        self.bytes += waiting.span.bytes();
        self.kept_bytes += waiting.kept_bytes();
    }

    fn pop(&mut self) -> Option<Waiting> {
        let waiting = self.objects[self.first].take()?;
        self.first = (self.first + 1) % OBJECTS_MAX;
        self.len -= 1;
        self.bytes -= waiting.span.bytes();
        self.kept_bytes -= waiting.kept_bytes();
        Some(waiting)
    }

    fn pop_if_full(&mut self) -> Option<Waiting> {
        self.is_full().then(|| self.pop())?
    }
}

/// Whether a freed object may be used again as it is, with its span, and so is filled and verified. What goes to the
/// heap is in pieces for other uses by then.
pub(super) fn is_used_as_it_is(span: &MSpan) -> bool {
    !span.is_huge() && run_cache::is_cached(span.pages())
}

/// Whether the memory of an object goes back when it waits.
pub(super) fn releases(span: &MSpan) -> bool {
    span.is_huge() || span.bytes() > KEPT_OBJECT_BYTES_MAX
}

/// Puts a freed object among those that wait.
pub(super) fn put(span: &'static MSpan) {
    large::forget_sample(span);
    let waiting = if is_used_as_it_is(span) && !does(Secure::PROTECT) {
        Some(Waiting {
            span,
            is_protected: false,
            is_released: false,
        })
    } else {
        protect(span)
    };
    let Some(waiting) = waiting else {
        return large::free_span(span);
    };
    let queue_of = || QUEUES[usize::from(waiting.is_protected)].lock();
    let mut queue = queue_of();
    // There is room: the loop below leaves it.
    queue.push(waiting);
    loop {
        let oldest = queue.pop_if_full();
        drop(queue);
        let Some(oldest) = oldest else { break };
        give_back(oldest);
        queue = queue_of();
    }
}

/// Takes the access to a freed object away, and its memory, if it loses that. `None` if the system refuses.
fn protect(span: &'static MSpan) -> Option<Waiting> {
    let (base, bytes) = (NonNull::new(span.base())?, span.bytes());
    let is_whole = (base.addr().get() | bytes).is_multiple_of(sys::page_bytes());
    // SAFETY: whole pages of the system, of an object that its owner gave up; here and below.
    if !is_whole || !unsafe { sys::protect(base, bytes) } {
        return None;
    }
    let lazily = config::releases_lazily();
    // SAFETY: as above.
    let release = || unsafe { sys::release(base, bytes, lazily) };
    let is_released = releases(span) && backed::releasing(bytes, release);
    if is_released || span.is_huge() {
        backed::sub(bytes);
    }
    if span.is_huge() {
        large::huge_is_freed(span);
    } else if is_released {
        huge_pages::after_release_in_span(base, bytes);
    }
    Some(Waiting {
        span,
        is_protected: true,
        is_released,
    })
}

/// Gives all that wait back. The caller holds no lock of the page heap's floor.
pub(crate) fn drain() {
    for queue in &QUEUES {
        loop {
            let oldest = queue.lock().pop(); // The guard ends here.
            let Some(oldest) = oldest else { break };
            give_back(oldest);
        }
    }
}

fn give_back(waiting: Waiting) {
    let span = waiting.span;
    let Some(base) = NonNull::new(span.base()) else {
        return;
    };
    if span.is_huge() {
        backed::add(span.bytes()); // As below.
        return huge::unmap(span);
    }
    // SAFETY: as in `protect`. If the system refuses, the object waits for ever.
    if waiting.is_protected && !unsafe { sys::commit(base, span.bytes()) } {
        return;
    }
    if waiting.is_released {
        // Whoever counts it as gone does so again.
        backed::add(span.bytes());
        large::free_released(span);
    } else {
        large::free_span(span);
    }
}

/// The large objects that wait, which are counted as freed when they go on, as freed; and their pages: those
/// that keep their memory, and those that do not.
///
/// # Safety
/// The caller holds all locks of this floor ([`lock_for_fork`]).
pub(crate) unsafe fn waiting() -> (PageObjects, usize, usize) {
    // SAFETY: the caller's promise; the references end with the function.
    let queues = QUEUES
        .each_ref()
        .map(|queue| unsafe { queue.value_for_fork() });
    let mut sum = PageObjects::NONE;
    let mut kept = 0;
    for waiting in queues.iter().flat_map(|queue| queue.objects).flatten() {
        if !waiting.span.is_huge() {
            sum.frees += 1;
            sum.freed_bytes += waiting.span.bytes() as u64;
            kept += waiting.kept_bytes() / PAGE_BYTES;
        }
    }
    (sum, kept, sum.freed_bytes as usize / PAGE_BYTES - kept)
}

/// Whether the locks of this floor come free in time: see [`Mutex::comes_free`].
pub(crate) fn locks_come_free(deadline_ns: u64) -> bool {
    QUEUES.iter().all(|queue| queue.comes_free(deadline_ns)) && states::locks_come_free(deadline_ns)
}

/// For `fork`: the locks of this floor.
pub(crate) fn lock_for_fork() {
    for queue in &QUEUES {
        queue.lock_for_fork();
    }
    states::lock_for_fork();
}

/// For `fork`: gives the locks of this floor back.
///
/// # Safety
/// As for [`Mutex::unlock_after_fork`].
pub(crate) unsafe fn unlock_after_fork() {
    // SAFETY: the caller's contract.
    unsafe {
        states::unlock_after_fork();
        for queue in &QUEUES {
            queue.unlock_after_fork();
        }
    }
}
