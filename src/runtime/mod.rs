//! Threads and `fork`: who has which mcache.
//!
//! A thread is attached on its first slow call: it gets an mcache, from those of threads that have
//! exited or fresh, and the exit hook is set. The hook detaches it: its mcache goes back to the free
//! ones, and the thread's slot says [`DETACHED`]. What destructors allocate and free after that goes
//! straight to mcentral, under its lock.
//!
//! A few mcaches, about one a CPU, are free *with* what they hold (as Go's Ps keep their mcache when
//! no thread runs on them), so that programs with many short threads do not fill and empty a cache
//! for each. All others are emptied first.
//!
//! Around `fork` all locks are held, so that the child finds every shared structure whole. The
//! child keeps the forking thread's mcache. What other threads' mcaches held stays allocated in the
//! child: their owners may have been in the middle of anything.
//!
//! An idle thread's mcache is emptied by others ([`idle`]).
//!
//! Invariant: a thread's slot is `EMPTY`, [`DETACHED`], or a face of an mcache that no other thread
//! has.

#![allow(unsafe_code)]

mod idle;

pub(crate) use idle::{Idle, empty as empty_idle};

use core::ffi::c_void;
use core::iter::successors;
use core::ops::Deref;
use core::ptr::{self, NonNull};

use spin::Once;

use crate::base::size_class::SizeClass;
use crate::mcache::{DETACHED, Face, MCache, budget};
use crate::shards::{shard_count, shard_here};
use crate::sync::Mutex;
use crate::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use crate::sync::fork_owner;
#[cfg(feature = "lock-stats")]
use crate::sync::usage::LockUse;
use crate::sys::ExitHook;
use crate::{
    config, counters, guarded, mcentral, meta, mheap, profile, report, scavenge, secure, sys, tiny,
};

/// Mcaches that no thread has.
struct FreeMCaches {
    /// Those that hold objects, and their number: at most [`warm_max`].
    warm: Option<NonNull<MCache>>,
    warm_count: usize,
    /// Those that are empty.
    empty: Option<NonNull<MCache>>,
}

/// Most free mcaches that keep what they hold.
fn warm_max() -> usize {
    shard_count()
}

// SAFETY: the mcaches in the list belong to the list alone.
unsafe impl Send for FreeMCaches {}

static REGISTRY: Mutex<FreeMCaches> = Mutex::new(FreeMCaches {
    warm: None,
    warm_count: 0,
    empty: None,
});

/// Mcaches that threads have. **Any thread; atomic**, a counter.
static ATTACHED: AtomicUsize = AtomicUsize::new(0);

/// Whether a second thread has ever used the allocator, or the only one was detached. **Any thread; atomic.**
/// Never cleared.
static HAS_COMPANY: AtomicBool = AtomicBool::new(false);

/// When the first thread got an mcache, or zero. **Any thread; atomic.** Set once.
static STARTED_NS: AtomicU64 = AtomicU64::new(0);

/// Nanoseconds since the allocator was first used.
pub(crate) fn uptime_ns() -> u64 {
    match STARTED_NS.load(Relaxed) {
        0 => 0,
        started => sys::now_ns().saturating_sub(started),
    }
}

/// The key whose destructor detaches a thread; `None` inside if the process had no key left: threads do
/// without mcaches then.
static EXIT_HOOK: Once<Option<ExitHook>> = Once::new();

/// This thread's mcache, of which the fast paths use the magazines; or a sentinel.
#[inline(always)] // Part of the fast path.
pub(crate) fn magazines() -> Face {
    // SAFETY: the slot holds `EMPTY`, or what `Face::as_word` gave.
    unsafe { Face::from_word(sys::thread_slot()) }
}

/// This thread's mcache; attaches the thread if it has none. `None` for a thread that was detached,
/// and if the system has no memory.
#[inline]
pub(crate) fn mcache() -> Option<Entered> {
    own_mcache().or_else(mcache_slow)
}

/// This thread's mcache, if it has one at once.
#[inline]
pub(crate) fn own_mcache() -> Option<Entered> {
    let magazines = magazines();
    // SAFETY: mcaches live for ever, and the one in a thread's slot is the thread's.
    let mcache = unsafe { magazines.mcache.get()?.as_ref() };
    mcache.enter();
    let entered = Entered(mcache);
    // Else it was taken back just now.
    (self::magazines() == magazines).then_some(entered)
}

#[cold]
#[inline(never)]
fn mcache_slow() -> Option<Entered> {
    loop {
        if let Some(entered) = own_mcache() {
            return Some(entered);
        }
        let magazines = magazines();
        match magazines.mcache.get() {
            Some(_) => {}
            None if magazines == Face::of_sentinel(&DETACHED) => return None,
            None if idle::has_again() => {}
            None => attach()?,
        }
    }
}

/// Whether this slow call is one that looks at the clock: of a thread with an mcache one in eight, since a look
/// takes longer than much that is slow (a seventh of a large object that nobody touches).
#[inline]
pub(crate) fn looks_at_clock() -> bool {
    // SAFETY: mcaches live for ever, and the one in a thread's slot is the thread's.
    let mcache = magazines()
        .mcache
        .get()
        .map(|mcache| unsafe { mcache.as_ref() });
    mcache.is_none_or(MCache::looks_at_clock)
}

/// This thread's mcache, which nobody takes back meanwhile.
pub(crate) struct Entered(&'static MCache);

impl Deref for Entered {
    type Target = MCache;

    #[inline]
    fn deref(&self) -> &MCache {
        self.0
    }
}

impl Drop for Entered {
    #[inline]
    fn drop(&mut self) {
        self.0.leave();
    }
}

/// Gives this thread an mcache.
#[cold]
fn attach() -> Option<()> {
    let free = REGISTRY.lock().take(); // The guard ends here.
    let mcache = match free {
        Some(mcache) => mcache,
        None => MCache::new()?,
    };
    // SAFETY: mcaches live for ever, and this one is ours.
    let own = unsafe { mcache.as_ref() };
    if ATTACHED.fetch_add(1, Relaxed) > 0 {
        HAS_COMPANY.store(true, Relaxed);
    }
    // The face depends on what the environment says.
    config::init();
    if !secure::is_decided() && secure::decide() {
        idle::all_attach_again();
    }
    // Then the slot: what the system allocates from here on finds the thread attached.
    sys::set_thread_slot(own.face().as_word());
    let hook = EXIT_HOOK.call_once(|| {
        STARTED_NS.store(sys::now_ns(), Relaxed);
        // The preloaded library does it in its constructor: this may be a call of the C library that
        // holds the lock of its list of handlers.
        #[cfg(not(feature = "preload"))]
        {
            at_fork();
            at_exit();
        }
        ExitHook::new(detach)
    });
    if hook.is_some_and(|hook| hook.set(mcache.cast())) {
        idle::may_be_emptied(own);
        return Some(());
    }
    // Nobody would empty it when the thread exits.
    sys::set_thread_slot(Face::of_sentinel(&DETACHED).as_word());
    HAS_COMPANY.store(true, Relaxed);
    ATTACHED.fetch_sub(1, Relaxed);
    empty_and_free(mcache);
    None
}

/// Has the handlers called around each `fork`.
pub(crate) fn at_fork() {
    sys::at_fork(before_fork, after_fork_in_parent, after_fork_in_child);
}

/// Has what waits in caches looked at when the process ends by `exit`.
pub(crate) fn at_exit() {
    sys::at_exit(free_at_exit);
}

/// Time in which each lock has to come free at the end: 0.1 s.
const LOCKS_AT_EXIT_NS: u64 = 100_000_000;

/// The end of the process: what was freed and still waits in this thread's mcache, in those that no thread
/// has, or in a depot, goes to its spans, whose bits tell what was freed wrongly.
extern "C" fn free_at_exit() {
    if !is_whole(sys::now_ns() + LOCKS_AT_EXIT_NS) {
        return; // In a signal handler, in the middle of a call.
    }
    if idle::own().is_some()
        && let Some(mcache) = mcache()
    {
        mcache.flush_all();
    }
    empty_free_mcaches();
    mcentral::drain_depots();
}

impl FreeMCaches {
    fn take(&mut self) -> Option<NonNull<MCache>> {
        self.take_warm().or_else(|| pop(&mut self.empty))
    }

    /// Bytes of the magazines' budget that the warm ones hold.
    fn warm_bytes(&self) -> usize {
        // SAFETY: mcaches live for ever, and those of the list belong to it.
        let mcache = |link: Option<NonNull<MCache>>| link.map(|mcache| unsafe { mcache.as_ref() });
        let warm = successors(mcache(self.warm), |mcache_before| {
            mcache(mcache_before.next_free.get())
        });
        warm.map(MCache::budget_bytes).sum()
    }

    fn take_warm(&mut self) -> Option<NonNull<MCache>> {
        let mcache = pop(&mut self.warm)?;
        self.warm_count -= 1;
        Some(mcache)
    }
}

fn pop(list: &mut Option<NonNull<MCache>>) -> Option<NonNull<MCache>> {
    let mcache = (*list)?;
    // SAFETY: mcaches live for ever, and this one is the list's.
    *list = unsafe { mcache.as_ref() }.next_free.take();
    Some(mcache)
}

fn push(list: &mut Option<NonNull<MCache>>, mcache: NonNull<MCache>) {
    // SAFETY: mcaches live for ever, and the caller gives this one to the list.
    unsafe { mcache.as_ref() }
        .next_free
        .set(list.replace(mcache));
}

/// The exit hook: the thread's mcache is free from here on.
unsafe extern "C" fn detach(mcache: *mut c_void) {
    let Some(mcache) = NonNull::new(mcache.cast::<MCache>()) else {
        return;
    };
    sys::set_thread_slot(Face::of_sentinel(&DETACHED).as_word());
    HAS_COMPANY.store(true, Relaxed);
    let threads_left = ATTACHED.fetch_sub(1, Relaxed) - 1;
    scavenge::wake_if_last(threads_left);
    let mut free = REGISTRY.lock();
    // SAFETY: mcaches live for ever, and this one is ours. From here on nobody takes it back: the
    // thread's slot is gone soon.
    unsafe { mcache.as_ref() }.owner.set(None);
    if free.warm_count < warm_max() {
        push(&mut free.warm, mcache);
        free.warm_count += 1;
        return;
    }
    drop(free);
    empty_and_free(mcache);
}

/// Gives back all that a free mcache holds; it is free and empty then.
fn empty_and_free(mcache: NonNull<MCache>) {
    // SAFETY: mcaches live for ever, and the caller has this one.
    unsafe { mcache.as_ref() }.flush_all();
    push(&mut REGISTRY.lock().empty, mcache);
}

/// Counts each call of this thread, and of those that attach from here on.
#[cfg(feature = "preload")]
pub(crate) fn count_calls() {
    counters::calls::start();
    turn_face();
}

/// Decides about the secure mode, if that can be told; the calling thread follows at once.
#[cold]
pub(crate) fn decide_secure() {
    config::init();
    if secure::decide() {
        turn_face();
        idle::all_attach_again();
    }
}

/// Gives the calling thread the face of its mcache that each call is to find from here on.
fn turn_face() {
    if let Some(mcache) = mcache() {
        sys::set_thread_slot(mcache.face().as_word());
    }
}

/// Whether no other thread than the calling one, which has an mcache, has ever used the allocator. One that
/// begins to at this very moment may be missed.
#[cfg(feature = "secure")]
#[inline]
pub(crate) fn is_alone() -> bool {
    // Relaxed: starting a thread makes what it does before and after that visible.
    !HAS_COMPANY.load(Relaxed)
}

/// Mcaches that threads have.
pub(crate) fn attached() -> usize {
    ATTACHED.load(Relaxed)
}

/// One object of `class` without an mcache, straight from mcentral. Null if the system has no
/// memory.
#[cold]
pub(crate) fn alloc_detached(class: SizeClass) -> *mut u8 {
    let mut object = ptr::null_mut();
    mcentral::take_shared(class.span_class(), shard_here(), 1, |taken, _| {
        object = taken
    });
    if object.is_null() {
        return object;
    }
    counters::detached_allocated(class);
    if class.is_tiny() {
        tiny::set_single(object);
    }
    object
}

/// Frees an object of `class` without an mcache, straight to mcentral.
#[cold]
pub(crate) fn free_detached(class: SizeClass, object: *mut u8) {
    counters::detached_freed(class);
    mcentral::put(class, &mut [object]);
}

/// Gives back what the calling thread, idle ones, free mcaches and depots hold, and what run caches do.
pub(crate) fn empty_caches() {
    // A thread that has none gets none: that may allocate, and the caller has the scavenger's lock.
    if idle::own().is_some()
        && let Some(mcache) = mcache()
    {
        mcache.flush_all();
    }
    idle::empty(Idle::Now, 0..usize::MAX);
    empty_free_mcaches();
    profile::empty_stash();
    mcentral::drain_depots();
    secure::drain_waiting();
    mheap::run_cache::drain();
}

/// Gives the heap the free pages that the calling thread keeps, and all that wait for any thread; how many.
pub(crate) fn empty_page_caches() -> usize {
    if let Some(mcache) = own_mcache() {
        mcache.flush_large();
    }
    secure::drain_waiting();
    mheap::run_cache::drain()
}

/// Empties the mcaches that no thread has.
pub(crate) fn empty_free_mcaches() {
    loop {
        let warm = REGISTRY.lock().take_warm(); // The guard ends here.
        let Some(mcache) = warm else { break };
        empty_and_free(mcache);
    }
}

/// The use of the lock of this floor.
#[cfg(feature = "lock-stats")]
pub(crate) fn lock_uses(each: &mut impl FnMut(LockUse)) {
    each(LockUse::of("registry", 0, None, REGISTRY.usage()));
}

/// Whether the calling thread may use the allocator: it is not in a handler of a signal that came in the
/// middle of a call of the allocator. All locks have to come free until that time, of a thread's clock.
pub(crate) fn is_whole(deadline_ns: u64) -> bool {
    let is_busy = idle::own().is_some_and(MCache::is_busy_now);
    #[cfg(feature = "preload")]
    let is_busy = is_busy || !crate::zero::locks_come_free(deadline_ns);
    !is_busy
        && REGISTRY.comes_free(deadline_ns)
        && mcentral::locks_come_free(deadline_ns)
        && secure::locks_come_free(deadline_ns)
        && mheap::spans::locks_come_free(deadline_ns)
        && mheap::run_cache::locks_come_free(deadline_ns)
        && mheap::locks_come_free(deadline_ns)
        && guarded::locks_come_free(deadline_ns)
        && profile::locks_come_free(deadline_ns)
        && meta::locks_come_free(deadline_ns)
}

unsafe extern "C" fn before_fork() {
    // The C library takes the lock of its list of streams after this function, and who has that may
    // wait for a thread that waits for one of ours.
    sys::lock_streams();
    scavenge::lock_for_fork();
    lock_floors();
    fork_owner::set_here();
}

/// Takes all locks of the floors, outermost first.
fn lock_floors() {
    REGISTRY.lock_for_fork();
    mcentral::lock_for_fork();
    secure::lock_for_fork();
    #[cfg(feature = "preload")]
    crate::zero::lock_for_fork();
    mheap::spans::lock_for_fork();
    mheap::run_cache::lock_for_fork();
    mheap::lock_for_fork();
    guarded::lock_for_fork();
    profile::lock_for_fork();
    meta::lock_for_fork();
}

/// Gives back what [`lock_floors`] took.
///
/// # Safety
/// As for [`Mutex::unlock_after_fork`].
unsafe fn unlock_floors() {
    // SAFETY: the caller's contract.
    unsafe {
        meta::unlock_after_fork();
        profile::unlock_after_fork();
        guarded::unlock_after_fork();
        mheap::unlock_after_fork();
        mheap::run_cache::unlock_after_fork();
        mheap::spans::unlock_after_fork();
        secure::unlock_after_fork();
        #[cfg(feature = "preload")]
        crate::zero::unlock_after_fork();
        mcentral::unlock_after_fork();
        REGISTRY.unlock_after_fork();
    }
}

/// Calls `look` while the calling thread holds all locks that guard where memory is, as around a `fork`.
/// `look` allocates nothing and takes no lock. The caller holds none, or all of them.
pub(crate) fn while_all_locked(look: impl FnOnce()) {
    if fork_owner::is_here() {
        return look(); // In another library's handler of `fork`.
    }
    lock_floors();
    look();
    // SAFETY: taken above.
    unsafe { unlock_floors() };
}

unsafe extern "C" fn after_fork_in_parent() {
    give_locks_back();
    sys::unlock_streams();
}

fn give_locks_back() {
    fork_owner::clear();
    // SAFETY: `before_fork` took all these locks, in this thread or the one that it is the copy of.
    unsafe {
        unlock_floors();
        scavenge::unlock_after_fork();
    }
}

unsafe extern "C" fn after_fork_in_child() {
    let mcache = idle::own();
    idle::forget_others(mcache);
    let own_bytes = mcache.map_or(0, MCache::budget_bytes);
    // SAFETY: `before_fork` took the lock, in the thread that this is the copy of, and no other
    // thread runs yet.
    let warm_bytes = unsafe { REGISTRY.value_for_fork() }.warm_bytes();
    budget::reset(own_bytes + warm_bytes);
    ATTACHED.store(usize::from(mcache.is_some()), Relaxed);
    give_locks_back();
    scavenge::after_fork_in_child();
    report::after_fork_in_child();
    #[cfg(feature = "preload")]
    crate::record::has_forked();
    sys::reset_streams();
}
