//! What is written into objects that the program does not have, and behind those that it has.
//!
//! The *canary* is a word that depends on a secret of the process and on the address, none of whose bytes is
//! zero, so that the zero at the end of a string does not pass. It fills the words from the last byte of the
//! object to the end of the slot; of the first word, what the object leaves. A wrong byte passes with the
//! chance 1 in 255.

#![allow(unsafe_code)]

use core::ptr;

use crate::config::Secure;
use crate::sync::atomic::{AtomicU64, Ordering::Relaxed};
use crate::sys;

use super::on::does;

/// **Any thread; atomic.** Set once, before the first canary.
static SECRET: AtomicU64 = AtomicU64::new(0);

/// What freed objects are filled with: a word of it is an address that no program can have.
const FILLED: u8 = 0xd9;
/// Bytes that are verified at once.
const BLOCK_BYTES: usize = 64;
const WORD_BYTES: usize = size_of::<u64>();

// The lowest bytes of a word come first.
const _: () = assert!(cfg!(target_endian = "little"));

pub(super) fn draw_secret() {
    SECRET.store(sys::random(), Relaxed);
}

/// The canary of an object.
fn canary(object: *mut u8) -> u64 {
    let mixed = (SECRET.load(Relaxed) ^ object.addr() as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed ^ mixed >> 32 | 0x0101_0101_0101_0101
}

/// Writes the canary behind `size` bytes of an object, up to `end_bytes`, a multiple of a word that is more.
///
/// # Safety
/// The object begins at a word, has `end_bytes`, and is the caller's.
pub(super) unsafe fn set_canary(object: *mut u8, size: usize, end_bytes: usize) {
    let canary = canary(object);
    let first = size / WORD_BYTES;
    let keeps = !(u64::MAX << (size % WORD_BYTES * 8));
    let words = object.cast::<u64>();
    // SAFETY: the words from `first` on to `end_bytes` lie in the object. Bytes of the program are written
    // as they were, and those of a fresh object may be anything: memory from the system is initialised.
    unsafe {
        let word = words.add(first);
        word.write(word.read() & keeps | canary & !keeps);
        for index in first + 1..end_bytes / WORD_BYTES {
            words.add(index).write(canary);
        }
    }
}

/// Whether the canary behind `size` bytes is as it was written.
///
/// # Safety
/// As for [`set_canary`].
pub(super) unsafe fn canary_lives(object: *mut u8, size: usize, end_bytes: usize) -> bool {
    let canary = canary(object);
    let first = size / WORD_BYTES;
    let keeps = !(u64::MAX << (size % WORD_BYTES * 8));
    let words = object.cast::<u64>();
    // SAFETY: as in `set_canary`.
    unsafe {
        let mut differs = (words.add(first).read() ^ canary) & !keeps;
        for index in first + 1..end_bytes / WORD_BYTES {
            differs |= words.add(index).read() ^ canary;
        }
        differs == 0
    }
}

/// The byte that freed objects are filled with.
fn filling() -> u8 {
    if does(Secure::ZERO) { 0 } else { FILLED }
}

/// Fills a freed object.
///
/// # Safety
/// The object has that many bytes, and is the caller's.
#[inline]
pub(super) unsafe fn fill(object: *mut u8, bytes: usize) {
    // SAFETY: the caller's promise.
    unsafe { object.write_bytes(filling(), bytes) };
}

/// Whether a freed object is as it was filled. `bytes` is a multiple of a word.
///
/// # Safety
/// As for [`fill`]; the object begins at a word.
pub(super) unsafe fn is_filled(object: *mut u8, bytes: usize) -> bool {
    let expected = u64::from_ne_bytes([filling(); WORD_BYTES]);
    // SAFETY: the caller's promise; memory of the heap is initialised.
    let words = unsafe { core::slice::from_raw_parts(object.cast::<u64>(), bytes / WORD_BYTES) };
    let differ = |words: &[u64]| {
        words
            .iter()
            .fold(0, |differ, word| differ | (word ^ expected))
    };
    let blocks = words.chunks_exact(BLOCK_BYTES / WORD_BYTES);
    let rest = differ(blocks.remainder());
    rest == 0 && blocks.map(differ).all(|differ| differ == 0)
}

/// Clears an object for the program.
///
/// # Safety
/// As for [`fill`].
#[inline]
pub(super) unsafe fn clear(object: *mut u8, bytes: usize) {
    // SAFETY: the caller's promise.
    unsafe { object.write_bytes(0, bytes) };
}

/// Copies what an object has to a new one.
///
/// # Safety
/// Two different objects of at least that many bytes: the program gives up the first one, and does not know the
/// second yet.
pub(super) unsafe fn copy(from: *mut u8, to: *mut u8, bytes: usize) {
    // SAFETY: the caller's promise.
    unsafe { ptr::copy_nonoverlapping(from, to, bytes) };
}
