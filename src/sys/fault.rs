//! Failures on request: makes the n-th request for memory of this process fail, for tests.
//!
//! Counts every call of the system floor that can run out of memory. A test arms the counter with
//! [`arm`], runs its scenario, and reads how often it was asked with [`asked`].

use core::sync::atomic::{AtomicUsize, Ordering::SeqCst};

/// Requests seen since [`arm`].
static ASKED: AtomicUsize = AtomicUsize::new(0);
/// First request that fails, counted from one; zero for none.
static FAIL_FROM: AtomicUsize = AtomicUsize::new(0);
/// How many requests fail, from that one on.
static FAIL_COUNT: AtomicUsize = AtomicUsize::new(0);

/// Makes `count` requests fail, beginning with the `from`-th from here (counted from one).
pub(crate) fn arm(from: usize, count: usize) {
    FAIL_COUNT.store(count, SeqCst);
    ASKED.store(0, SeqCst);
    FAIL_FROM.store(from, SeqCst);
}

/// Ends all failures.
pub(crate) fn disarm() {
    FAIL_FROM.store(0, SeqCst);
}

/// Requests since the last [`arm`].
pub(crate) fn asked() -> usize {
    ASKED.load(SeqCst)
}

/// Counts one request; whether it is to fail.
pub(super) fn due() -> bool {
    let nth = ASKED.fetch_add(1, SeqCst) + 1;
    let from = FAIL_FROM.load(SeqCst);
    from != 0 && nth >= from && nth - from < FAIL_COUNT.load(SeqCst)
}
