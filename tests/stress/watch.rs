//! Whether all of a stress goes on; and if not, where its threads and the children of its forks are: who reads of
//! it an hour later can't look any more.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::{self, Command};
use std::time::{Duration, Instant};

use crate::common::alone;

/// The steps of each place, and since when they are so many.
pub struct Watch<const PLACES: usize> {
    seen: [(usize, Instant); PLACES],
    patience: Duration,
}

impl<const PLACES: usize> Watch<PLACES> {
    /// One that fails if a place takes no step for so long.
    pub fn new(patience: Duration) -> Self {
        Self {
            seen: [(0, Instant::now()); PLACES],
            patience,
        }
    }

    /// Fails if a place takes no step any more. So many were taken so far.
    pub fn look(&mut self, steps: [usize; PLACES]) {
        for (place, (seen, steps)) in self.seen.iter_mut().zip(steps).enumerate() {
            if seen.0 != steps {
                *seen = (steps, Instant::now());
            } else if seen.1.elapsed() >= self.patience {
                panic!(
                    "no thread of place {place} takes a step any more\n{}",
                    end_children()
                );
            }
        }
    }
}

/// Ends the children of this process, which would keep its output open. Returns where its threads and theirs were.
fn end_children() -> String {
    let own = process::id();
    let mut told = threads_of(own);
    for child in numbers_in("/proc") {
        if parent_of(child) == Some(own) {
            told += &threads_of(child);
            // SAFETY: no memory is involved.
            unsafe { libc::kill(child.cast_signed(), libc::SIGKILL) };
        }
    }
    told
}

/// Where the threads of a process are: their names and states, the place in the kernel, the system call. Its first
/// argument may be the address of a lock; so the first line says where the program is.
fn threads_of(process: u32) -> String {
    let maps = text_of(&format!("/proc/{process}/maps"));
    let mut told = format!("process {process}: {}\n", maps.lines().next().unwrap_or(""));
    let tasks = format!("/proc/{process}/task");
    for thread in numbers_in(&tasks) {
        let text_of = |file| text_of(&format!("{tasks}/{thread}/{file}"));
        let (stat, place, call) = (text_of("stat"), text_of("wchan"), text_of("syscall"));
        let [name, state, ..] = fields(&stat)[..] else {
            continue;
        };
        told += &format!(
            "  {thread} {name}, {state}, in {place}, call {}\n",
            call.trim_end()
        );
    }
    told
}

fn parent_of(process: u32) -> Option<u32> {
    let stat = text_of(&format!("/proc/{process}/stat"));
    fields(&stat).get(2)?.parse().ok()
}

/// What `stat` says, from the name on, in which anything may stand.
fn fields(stat: &str) -> Vec<&str> {
    let Some((name, behind)) = stat.rsplit_once(')') else {
        return Vec::new();
    };
    let name = name.split_once('(').map(|(_, name)| name);
    name.into_iter().chain(behind.split_whitespace()).collect()
}

/// The names in a directory that are numbers.
fn numbers_in(directory: &str) -> Vec<u32> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let numbers = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    numbers.collect()
}

/// What a file says; nothing if it is gone.
fn text_of(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

#[test]
fn a_place_that_stands_still_fails_and_tells_where_all_threads_are() {
    alone(|| {
        let mut child = Command::new("sleep").arg("1000").spawn().unwrap();
        let mut watch = Watch::new(Duration::ZERO);
        watch.look([1, 1]);
        let failure = catch_unwind(AssertUnwindSafe(|| watch.look([2, 1]))).unwrap_err();
        let told = failure.downcast::<String>().unwrap();
        assert!(told.starts_with("no thread of place 1 takes"), "{told}");
        assert!(told.contains(" sleep, "), "{told}");
        assert!(!child.wait().unwrap().success());
    });
}
