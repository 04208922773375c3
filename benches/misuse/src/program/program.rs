//! What the programs share: how they tell how far they are, and the ordinary work after a misuse.
//!
//! They are the programs in C, told the same way: see `programs/program.h` for the lines that they
//! write.
//!
//! From the misuse on, nothing here allocates but what is tried.
//!
//! The functions here are safe to call and yet do what must not be done, as that is what this program
//! is for. Invariant: only this file contains unsafe code.

#![allow(unsafe_code)]

use std::alloc::{self, Layout};
use std::cell::RefCell;
use std::hint::black_box;
use std::process;
use std::ptr;
use std::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};
use std::thread;

const WORK_BYTES: usize = 32 << 20;
const WORK_MIN: usize = 4;
const WORK_MAX: usize = 2048;
/// A table of what was handed out: a power of two, at least twice [`WORK_MAX`].
const SLOTS: usize = 1 << 13;
const PROTECTED_MAX: usize = 64;
/// Seconds after which a program that hangs is ended.
const TIME_SECONDS: u32 = 20;

/// The objects of the work, and of others that need as many.
pub static OBJECTS: [AtomicPtr<u8>; WORK_MAX] =
    [const { AtomicPtr::new(ptr::null_mut()) }; WORK_MAX];

thread_local! {
    static PROTECTED: RefCell<Vec<(usize, usize)>> = const { RefCell::new(Vec::new()) };
}

/// No core file, and an end for a program that hangs.
pub fn prepare() {
    let limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: the pointer is valid for reads; alarm takes a number only.
    unsafe {
        libc::setrlimit(libc::RLIMIT_CORE, &limit);
        libc::alarm(TIME_SECONDS);
    }
    PROTECTED.with_borrow_mut(|all| all.reserve(PROTECTED_MAX));
}

/// Writes a line at once, as whoever is stopped does not come to write what it kept.
pub fn say(line: &str) {
    say_what("", line);
}

fn say_what(word: &str, text: &str) {
    let parts = [word, text, "\n"].map(|part| libc::iovec {
        iov_base: part.as_ptr().cast_mut().cast(),
        iov_len: part.len(),
    });
    // SAFETY: the parts are valid for reads, which is all that is done to them.
    if unsafe { libc::writev(1, parts.as_ptr(), 3) } < 0 {
        process::exit(3);
    }
}

/// The misuse comes next.
pub fn misuse(at: *const u8) {
    say(&format!("misuse {:#x}", at.addr()));
}

/// It was committed.
pub fn returned() {
    say("returned");
}

pub fn harm(what: &str) -> ! {
    say_what("harm ", what);
    // SAFETY: it ends the process, without what is done at its exit.
    unsafe { libc::_exit(0) }
}

pub fn absent(what: &str) -> ! {
    say_what("absent ", what);
    // SAFETY: as above.
    unsafe { libc::_exit(0) }
}

pub fn layout(size: usize) -> Layout {
    layout_aligned(size, 8)
}

pub fn layout_aligned(size: usize, align: usize) -> Layout {
    match Layout::from_size_align(size.max(1), align) {
        Ok(layout) => layout,
        Err(_) => process::exit(3),
    }
}

/// An object whose first byte is written.
pub fn object(size: usize) -> *mut u8 {
    let object = try_object(size);
    if object.is_null() {
        say("no memory");
        process::exit(3);
    }
    fill(object, 1, 1);
    object
}

/// An object, or null.
pub fn try_object(size: usize) -> *mut u8 {
    // SAFETY: no Layout here is of no bytes.
    black_box(unsafe { alloc::alloc(layout(size)) })
}

/// Frees, rightly or wrongly.
pub fn free(object: *mut u8, size: usize) {
    free_as(object, layout(size));
}

/// Frees, rightly or wrongly.
pub fn free_as(object: *mut u8, layout: Layout) {
    // SAFETY: none if it is a misuse, of which it is to be seen what comes.
    unsafe { alloc::dealloc(black_box(object), black_box(layout)) }
}

/// Resizes, rightly or wrongly.
pub fn resize(object: *mut u8, size: usize, new_size: usize) -> *mut u8 {
    // SAFETY: none if it is a misuse, of which it is to be seen what comes.
    black_box(unsafe { alloc::realloc(black_box(object), layout(size), new_size) })
}

/// Writes the same byte many times, rightly or wrongly.
pub fn fill(start: *mut u8, byte: u8, count: usize) {
    // SAFETY: none if it is a misuse, of which it is to be seen what comes.
    unsafe { ptr::write_bytes(black_box(start), byte, count) };
    black_box(start);
}

/// Changes a byte, so that it is seen whatever was there. Returns what is there then.
pub fn change(at: *mut u8) -> u8 {
    // SAFETY: none if it is a misuse, of which it is to be seen what comes.
    unsafe {
        let changed = at.read_volatile() ^ 0x41;
        at.write_volatile(changed);
        changed
    }
}

pub fn read(at: *const u8) -> u8 {
    // SAFETY: none if it is a misuse, of which it is to be seen what comes.
    unsafe { black_box(at).read_volatile() }
}

/// A mapping of its own.
pub fn map(bytes: usize) -> *mut u8 {
    let access = libc::PROT_READ | libc::PROT_WRITE;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    // SAFETY: an anonymous mapping at an address of the system's choice takes nobody's memory.
    unsafe { libc::mmap(ptr::null_mut(), bytes, access, flags, -1, 0) }.cast()
}

/// Runs a function in a thread, to its end.
pub fn in_thread<T: Send>(function: impl FnOnce() -> T + Send) -> T {
    thread::scope(|scope| scope.spawn(function).join()).unwrap_or_else(|_| process::exit(3))
}

/// Frees in a thread of its own.
pub fn free_in_thread(object: *mut u8, size: usize) {
    let address = object.expose_provenance();
    in_thread(move || free(ptr::with_exposed_provenance_mut(address), size));
}

/// Allocates many objects of a size in a thread of its own, which frees them all and ends; then asks
/// for free memory to be given back. Returns one of them.
pub fn of_free_span(size: usize) -> *mut u8 {
    let address = in_thread(move || {
        let objects: Vec<_> = (0..work_count(size)).map(|_| object(size)).collect();
        objects.iter().for_each(|object| free(*object, size));
        objects[objects.len() / 2].expose_provenance()
    });
    give_back();
    ptr::with_exposed_provenance_mut(address)
}

#[cfg(feature = "spanmalloc")]
pub fn give_back() {
    spanmalloc::trim();
}

#[cfg(all(not(feature = "spanmalloc"), target_env = "gnu"))]
pub fn give_back() {
    // SAFETY: it takes a number only.
    unsafe { libc::malloc_trim(0) };
}

#[cfg(all(not(feature = "spanmalloc"), not(target_env = "gnu")))]
pub fn give_back() {}

/// Memory that is in use: whatever is handed out may not overlap it.
pub fn protect(start: *const u8, bytes: usize) {
    let range = (start.addr(), start.addr() + bytes);
    PROTECTED.with_borrow_mut(|all| all.push(range));
}

/// How many objects the work has.
pub fn work_count(size: usize) -> usize {
    (WORK_BYTES / size).clamp(WORK_MIN, WORK_MAX)
}

/// The ordinary work: hands out objects of a size, looks whether each is free to be used, and frees
/// them all.
pub fn work(size: usize) {
    static SEEN: [AtomicUsize; SLOTS] = [const { AtomicUsize::new(0) }; SLOTS];
    SEEN.iter()
        .for_each(|slot| slot.store(0, Ordering::Relaxed));
    let objects = &OBJECTS[..work_count(size)];
    for slot in objects {
        let object = try_object(size);
        if object.is_null() {
            harm("no memory was handed out");
        }
        let range = object.addr()..object.addr() + size;
        let is_over = |it: &(usize, usize)| range.start < it.1 && it.0 < range.end;
        if PROTECTED.with_borrow(|all| all.iter().any(is_over)) {
            harm("memory in use was handed out");
        }
        if !is_first(&SEEN, range.start) {
            harm("one object was handed out twice");
        }
        fill(object, 1, 1);
        slot.store(object, Ordering::Relaxed);
    }
    for slot in objects {
        free(slot.load(Ordering::Relaxed), size);
    }
}

/// Puts an address into the table; whether it was not there.
fn is_first(table: &[AtomicUsize; SLOTS], address: usize) -> bool {
    let hash = (address >> 4).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (64 - SLOTS.ilog2());
    for index in (hash..SLOTS).chain(0..hash) {
        match table[index].load(Ordering::Relaxed) {
            0 => {
                table[index].store(address, Ordering::Relaxed);
                return true;
            }
            found if found == address => return false,
            _ => {}
        }
    }
    true
}
