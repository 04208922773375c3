//! Reports: the page that other processes read, and what signals ask of a thread that may sleep.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize as GhostUsize, Ordering::SeqCst};

use loom::cell::UnsafeCell;
use loom::sync::atomic::{
    AtomicU32, AtomicU64, AtomicUsize,
    Ordering::{Acquire, Relaxed},
    fence,
};
use loom::thread;

use super::check;
use crate::sync::request::{self, ASLEEP, AWAKE, Request, Turn};
use crate::sync::{Sleepers, sequence, sleeps};

/// Words of the page, and its sequence number.
struct Page {
    sequence: AtomicU64,
    words: [AtomicU64; 2],
}

impl Page {
    /// Writes this number to all words.
    fn publish(&self, number: u64) {
        sequence::write(&self.sequence, || {
            for word in &self.words {
                word.store(number, Relaxed);
            }
        });
    }

    /// The words and their sequence number, as `Published::read` of the tool reads them: none if they do not
    /// belong together.
    fn read(&self) -> Option<([u64; 2], u64)> {
        let before = self.sequence.load(Relaxed);
        fence(Acquire);
        let words = [&self.words[0], &self.words[1]].map(|word| word.load(Relaxed));
        fence(Acquire);
        let is_whole = before % 2 == 0 && self.sequence.load(Relaxed) == before;
        is_whole.then_some((words, before))
    }
}

/// A reader meets `writes` of a page whose sequence number was `first`.
fn read_while_written(first: u64, writes: u64) {
    let whole = Arc::new(GhostUsize::new(0));
    let torn = Arc::new(GhostUsize::new(0));
    let (of_whole, of_torn) = (Arc::clone(&whole), Arc::clone(&torn));
    check(move || {
        let page = Arc::new(Page {
            sequence: AtomicU64::new(first),
            words: [AtomicU64::new(0), AtomicU64::new(0)],
        });
        let writer = {
            let page = Arc::clone(&page);
            thread::spawn(move || (1..=writes).for_each(|number| page.publish(number)))
        };
        match page.read() {
            Some((words, sequence)) => {
                // Each write counts two, from the even number on.
                assert_eq!(words, [(sequence - (first & !1)) / 2; 2], "{sequence}");
                of_whole.fetch_add(1, SeqCst);
            }
            None => {
                of_torn.fetch_add(1, SeqCst);
            }
        }
        writer.join().unwrap();
        assert_eq!(page.read(), Some(([writes; 2], (first & !1) + 2 * writes)));
    });
    assert!(whole.load(SeqCst) > 0 && torn.load(SeqCst) > 0);
}

#[test]
fn words_of_the_page_belong_together_or_are_not_believed() {
    read_while_written(0, 2);
}

#[test]
fn page_of_a_process_that_was_replaced_in_the_middle_is_whole_again() {
    read_while_written(3, 1);
}

#[test]
fn what_a_signal_asks_for_is_done_by_a_thread_that_falls_asleep_just_then() {
    const ASKED: usize = 2;
    let sleeps_before = sleeps();
    check(|| {
        let request = Arc::new((
            Request::none(),
            AtomicU32::new(AWAKE),
            Sleepers::new(),
            AtomicUsize::new(0),
        ));
        let sleeper = {
            let request = Arc::clone(&request);
            thread::spawn(move || {
                let (asked, state, sleepers, last) = &*request;
                loop {
                    // Several that were asked for are done at once; the last one is not missed.
                    if asked.take() && last.load(Relaxed) == ASKED {
                        break;
                    }
                    // Without a bound of time, so that a lost wake-up is a deadlock.
                    if request::falls_asleep(state, || asked.is_made()) == Some(true) {
                        sleepers.wait(|| state.load(Relaxed) == ASLEEP);
                    }
                    request::wakes_up(state);
                }
            })
        };
        let (asked, state, sleepers, last) = &*request;
        for number in 1..=ASKED {
            last.store(number, Relaxed);
            asked.make();
            request::wake(state);
            sleepers.wake();
        }
        sleeper.join().unwrap();
    });
    assert!(sleeps() > sleeps_before, "the thread never sleeps");
}

/// What belongs to who makes reports.
struct Reports {
    turn: Turn,
    made: UnsafeCell<usize>,
}

// SAFETY: `made` is reached by who has the turn: what the model checks.
unsafe impl Sync for Reports {}
// SAFETY: as above.
unsafe impl Send for Reports {}

impl Reports {
    /// Makes one, if nobody else does; whether it did.
    fn make(&self) -> bool {
        let has_turn = self.turn.try_take();
        if has_turn {
            // SAFETY: the calling thread has the turn; the checker would say if another one had it as well.
            self.made.with_mut(|made| unsafe { *made += 1 });
            self.turn.give();
        }
        has_turn
    }
}

#[test]
fn reports_are_made_by_one_thread_at_a_time() {
    check(|| {
        let reports = Arc::new(Reports {
            turn: Turn::free(),
            made: UnsafeCell::new(0),
        });
        let others = [(); 2].map(|()| {
            let reports = Arc::clone(&reports);
            thread::spawn(move || reports.make())
        });
        let made = usize::from(reports.make());
        let made = others.into_iter().fold(made, |made, other| {
            made + usize::from(other.join().unwrap())
        });
        assert!(made > 0);
        assert!(reports.make(), "the turn was not given back");
        // SAFETY: the others have ended.
        let counted = reports.made.with(|made| unsafe { *made });
        assert_eq!(counted, made + 1);
    });
}
