//! Out of memory: the n-th request to the system fails, for every n.
//!
//! A scenario goes through all operations: each is allowed to return null, and then everything must
//! be as before. Afterwards the system has memory again, and all of it must succeed. The heap is one
//! for the process, so each n has a process of its own, which runs [`child`].

#![allow(unsafe_code)]

use core::slice;
use std::env;
use std::format;
use std::println;
use std::process::Command;
use std::string::String;
use std::thread;
use std::vec::Vec;

use crate::sys::fault;
use crate::{malloc, scavenge, stats};

/// Which request is the first that fails, in the environment of the child.
const FROM: &str = "SPANMALLOC_TEST_FAIL_FROM";
/// How many fail from there on.
const COUNT: &str = "SPANMALLOC_TEST_FAIL_COUNT";
/// Before the number of requests, on the child's standard output.
const MARK: &str = "requests: ";

const MIB: usize = 1 << 20;

/// Bytes at the start and at the end of an object that are written and looked at. The pages between
/// would take most of the time, and are one run.
const LOOKED_AT_BYTES: usize = MIB;

/// An object that is full of one byte.
struct Object {
    start: *mut u8,
    size: usize,
    align: usize,
    byte: u8,
}

// SAFETY: the object's memory belongs to the value alone.
unsafe impl Send for Object {}

impl Object {
    /// The part at the start, then the one at the end; they may be the same.
    fn parts(&self) -> [(*mut u8, usize); 2] {
        let bytes = self.size.min(LOOKED_AT_BYTES);
        [
            (self.start, bytes),
            (self.start.wrapping_add(self.size - bytes), bytes),
        ]
    }

    fn fill(&self) {
        for (start, bytes) in self.parts() {
            // SAFETY: both parts lie inside the object, which is ours.
            unsafe { start.write_bytes(self.byte, bytes) };
        }
    }

    /// Looks at both parts, in a way that is fast in debug builds too.
    fn check(&self) {
        for (start, bytes) in self.parts() {
            // SAFETY: both parts lie inside the object, which is ours, and were initialised.
            let bytes = unsafe { slice::from_raw_parts(start, bytes) };
            let same = bytes[0] == self.byte && bytes[1..] == bytes[..bytes.len() - 1];
            assert!(same, "contents of {} bytes at {:?}", self.size, self.start);
        }
    }

    fn free(self) {
        self.check();
        // SAFETY: the object is ours, has this size and alignment, and is given up.
        unsafe { malloc::free(self.start, self.size, self.align) };
    }
}

/// The live objects, and how often there was no memory.
#[derive(Default)]
struct World {
    live: Vec<Object>,
    nulls: usize,
}

impl World {
    fn alloc(&mut self, size: usize, align: usize) {
        self.keep(malloc::alloc(size, align), size, align);
    }

    fn alloc_zeroed(&mut self, size: usize, align: usize) {
        let start = malloc::alloc_zeroed(size, align);
        if !start.is_null() {
            Object {
                start,
                size,
                align,
                byte: 0,
            }
            .check();
        }
        self.keep(start, size, align);
    }

    fn keep(&mut self, start: *mut u8, size: usize, align: usize) {
        if start.is_null() {
            return self.no_memory();
        }
        assert!(start.addr().is_multiple_of(align));
        let byte = self.live.len() as u8;
        let object = Object {
            start,
            size,
            align,
            byte,
        };
        object.fill();
        self.live.push(object);
    }

    fn resize_last(&mut self, size: usize) {
        let Some(mut object) = self.live.pop() else {
            return;
        };
        // SAFETY: the object is ours and has this size and alignment.
        let moved = unsafe { malloc::realloc(object.start, object.size, object.align, size) };
        if moved.is_null() {
            self.live.push(object);
            return self.no_memory();
        }
        object.start = moved;
        if size < object.size {
            object.size = size.min(LOOKED_AT_BYTES); // Where the end is, nothing was written.
        }
        object.check();
        object.size = size;
        object.fill();
        self.live.push(object);
    }

    /// There was no memory: nothing else may have changed.
    fn no_memory(&mut self) {
        self.nulls += 1;
        self.check();
    }

    fn check(&self) {
        self.live.iter().for_each(Object::check);
    }

    /// Frees every second object.
    fn free_half(&mut self) {
        let (mut index, mut kept) = (0, Vec::new());
        for object in self.live.drain(..) {
            index += 1;
            if index % 2 == 0 {
                object.free()
            } else {
                kept.push(object)
            }
        }
        self.live = kept;
    }

    /// All operations, on all floors.
    fn run(&mut self) {
        for size in [
            1,
            2,
            4,
            8,
            16,
            48,
            100,
            512,
            1000,
            2048,
            5000,
            10_000,
            32 << 10,
        ] {
            (0..20).for_each(|_| self.alloc(size, 1));
        }
        // As many as several spans hold, and more than magazines and depots do.
        (0..3000).for_each(|_| self.alloc(48, 8));
        (0..2000).for_each(|_| self.alloc(1, 1));
        self.free_half();
        for align in [16, 256, 4096, 8192, 64 << 10, MIB, 64 * MIB] {
            self.alloc(100, align);
            self.alloc(20_000, align);
        }
        for size in [40_000, 100_000, MIB, 3 * MIB] {
            self.alloc(size, 8);
            self.alloc_zeroed(size, 8);
            self.resize_last(size + 10_000);
            self.resize_last(2 * size);
            self.alloc(size, 8);
            self.resize_last(size / 2);
        }
        (0..100).for_each(|_| self.alloc_zeroed(300, 8));
        self.run_huge();
        self.run_thread();
        self.free_half();
        scavenge::trim();
        (0..1000).for_each(|_| self.alloc(64, 8));
        self.check();
    }

    fn run_huge(&mut self) {
        // The kernel places from the top downwards: the second one can't grow far where it is, and
        // moves.
        self.alloc(65 * MIB, 8);
        self.alloc(MIB, 8);
        for mib in [17, 30, 65, 66, 200, 18] {
            self.resize_last(mib * MIB);
        }
        for size in [100_000, 1000] {
            self.resize_last(size);
        }
        self.alloc_zeroed(65 * MIB, 8);
        self.alloc(8, 128 * MIB);
        for _ in 0..2 {
            // Of the size of an arena, nearly: a further arena each.
            self.alloc(40 * MIB, 8);
        }
    }

    /// A fresh thread, which has to be attached, goes on with this world and ends.
    fn run_thread(&mut self) {
        let mut world = core::mem::take(self);
        let work = move || {
            for size in [3, 24, 300, 7000] {
                (0..300).for_each(|_| world.alloc(size, 1));
            }
            world.free_half();
            world
        };
        *self = thread::spawn(work).join().unwrap();
    }

    fn free_all(&mut self) {
        self.live.drain(..).for_each(Object::free);
    }
}

/// A number from the environment.
fn number(name: &str) -> Option<usize> {
    env::var(name).ok()?.parse().ok()
}

#[test]
#[ignore = "run by the other tests of this file, in processes of their own"]
fn child() {
    let from = number(FROM).expect(FROM);
    fault::arm(from, number(COUNT).expect(COUNT));
    let mut world = World::default();
    world.run();
    let asked = fault::asked();
    fault::disarm();
    world.check();
    let nulls = world.nulls;
    world.run();
    assert_eq!(world.nulls, nulls, "nothing fails any more");
    world.free_all();
    scavenge::trim();
    let end = stats();
    assert_eq!(end.in_use_bytes, 0, "{end:?}");
    assert_eq!(end.dirty_bytes + end.cached_bytes, 0, "{end:?}");
    println!("{MARK}{asked}");
}

/// Runs the scenario in a process of its own; the requests that it saw.
fn requests_of_child(from: usize, count: usize) -> usize {
    let mut command = Command::new(env::current_exe().unwrap());
    command.args([
        "oom_tests::child",
        "--exact",
        "--ignored",
        "--nocapture",
        "--test-threads=1",
    ]);
    command
        .env(FROM, format!("{from}"))
        .env(COUNT, format!("{count}"));
    let output = command.output().unwrap();
    let stdout = String::from_utf8_lossy(&output.stdout);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "{count} failures from {from} on:\n{stdout}\n{stderr}"
    );
    let told = stdout
        .split_once(MARK)
        .and_then(|(_, rest)| rest.lines().next());
    told.and_then(|number| number.parse().ok())
        .unwrap_or_else(|| panic!("no number in {stdout}"))
}

/// Lets `count` requests fail from each n on, until there are no more. The n are shared by threads.
fn fail_from_every_request(count: usize) {
    const THREADS: usize = 2;
    let work = |mut from: usize| {
        move || {
            while requests_of_child(from, count) >= from {
                from += THREADS;
            }
            from
        }
    };
    let threads: Vec<_> = (1..=THREADS)
        .map(|from| thread::spawn(work(from)))
        .collect();
    for thread in threads {
        let end = thread.join().unwrap();
        assert!(
            end > 15,
            "only {end} requests: the scenario reaches nothing"
        );
    }
}

#[test]
fn any_one_failed_request_leaves_everything_intact() {
    fail_from_every_request(1);
}

#[test]
fn any_last_successful_request_leaves_everything_intact() {
    fail_from_every_request(usize::MAX);
}
