//! What the workloads with several threads have in common.

use std::collections::VecDeque;
use std::process;
use std::sync::{Barrier, Condvar, Mutex};
use std::thread;

/// Ends the process if its thread panics: the others would wait for that thread for ever.
pub struct AbortOnPanic;

impl Drop for AbortOnPanic {
    fn drop(&mut self) {
        if thread::panicking() {
            process::abort();
        }
    }
}

/// Runs `work` in one thread for each state, which it is given with its number. All start at once, and
/// are joined. Returns the sum of what they return.
///
/// To be called in the timed part: a counter follows only the threads that are started after it.
pub fn together<S: Send>(states: Vec<S>, work: impl Fn(usize, S) -> u64 + Sync) -> u64 {
    let start = Barrier::new(states.len());
    thread::scope(|scope| {
        let (start, work) = (&start, &work);
        let run = move |number, state| {
            let _abort = AbortOnPanic;
            start.wait();
            work(number, state)
        };
        let threads: Vec<_> = states
            .into_iter()
            .enumerate()
            .map(|(number, state)| scope.spawn(move || run(number, state)))
            .collect();
        let results = threads
            .into_iter()
            .map(|thread| thread.join().expect("a thread panicked"));
        results.sum()
    })
}

/// A bounded queue of which each producer says when it is done.
///
/// A lock and two conditions, as in most programs; it takes no memory after it is made. On cache lines
/// of its own, so that lines of threads with a queue each share nothing.
#[repr(align(128))]
pub struct Queue<T> {
    state: Mutex<State<T>>,
    not_empty: Condvar,
    not_full: Condvar,
}

/// Under the lock of the queue.
struct State<T> {
    /// At most as long as its capacity.
    items: VecDeque<T>,
    items_max: usize,
    /// Producers that are not done.
    producers: usize,
}

impl<T> Queue<T> {
    pub fn new(items_max: usize, producers: usize) -> Self {
        let state = State {
            items: VecDeque::with_capacity(items_max),
            items_max,
            producers,
        };
        Self {
            state: Mutex::new(state),
            not_empty: Condvar::new(),
            not_full: Condvar::new(),
        }
    }

    /// Appends an item, when there is room.
    pub fn push(&self, item: T) {
        let state = self.state.lock().unwrap();
        let full = |state: &mut State<T>| state.items.len() == state.items_max;
        let mut state = self.not_full.wait_while(state, full).unwrap();
        state.items.push_back(item);
        drop(state);
        self.not_empty.notify_one();
    }

    /// Takes the oldest item, when there is one; none when all producers are done.
    pub fn pop(&self) -> Option<T> {
        let state = self.state.lock().unwrap();
        let empty = |state: &mut State<T>| state.items.is_empty() && state.producers > 0;
        let mut state = self.not_empty.wait_while(state, empty).unwrap();
        let item = state.items.pop_front();
        drop(state);
        self.not_full.notify_one();
        item
    }

    /// One producer is done.
    pub fn done(&self) {
        self.state.lock().unwrap().producers -= 1;
        self.not_empty.notify_all();
    }
}
