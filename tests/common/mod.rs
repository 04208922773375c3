//! What the tests of the whole allocator share: objects that know what they hold, tests that have a
//! process to themselves, and a look at the memory of the process.

#![allow(dead_code, unused_imports, reason = "each test file uses its part")]

use std::alloc::{GlobalAlloc, Layout};
use std::fs;
use std::mem;
use std::slice;
use std::thread;

use spanmalloc::SpanMalloc;

mod alone;
pub mod crime;

pub use alone::{alone, alone_with, assert_passed, is_alone, run_alone, run_alone_with};

/// Keeps this thread on one CPU: it uses one depot, and the kernel counts its memory in one place.
pub fn stay_on_one_cpu() {
    // SAFETY: an all-zero set is valid; CPU numbers from the kernel fit it.
    unsafe {
        let mut set: libc::cpu_set_t = mem::zeroed();
        libc::CPU_SET(usize::try_from(libc::sched_getcpu()).unwrap(), &mut set);
        assert_eq!(libc::sched_setaffinity(0, size_of_val(&set), &set), 0);
    }
}

/// Bytes of memory that this process has, exactly.
pub fn rss_bytes() -> usize {
    let rollup = fs::read_to_string("/proc/self/smaps_rollup").unwrap();
    kib_after(&rollup, "Rss:") << 10
}

/// Most bytes of memory that this process ever had, nearly exactly.
pub fn peak_rss_bytes() -> usize {
    kib_after(&fs::read_to_string("/proc/self/status").unwrap(), "VmHWM:") << 10
}

/// Bytes of address space that this process has.
pub fn address_space_bytes() -> usize {
    kib_after(&fs::read_to_string("/proc/self/status").unwrap(), "VmSize:") << 10
}

/// Limits the address space of this process, for good.
pub fn limit_address_space(bytes: usize) {
    let limit = libc::rlimit {
        rlim_cur: bytes as libc::rlim_t,
        rlim_max: bytes as libc::rlim_t,
    };
    // SAFETY: `limit` is valid for reads.
    assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_AS, &limit) }, 0);
}

fn kib_after(text: &str, field: &str) -> usize {
    let line = text.lines().find(|line| line.starts_with(field)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// Pseudo-random numbers (a 64-bit linear congruential generator, its high bits).
pub struct Numbers(pub u64);

impl Numbers {
    /// A number below `bound`.
    pub fn below(&mut self, bound: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % bound
    }

    /// A size from 1 to about `2 << bits`, each power of two equally often.
    pub fn size(&mut self, bits: usize) -> usize {
        let power = 1 << self.below(bits + 1);
        power + self.below(power)
    }
}

/// Bytes of a pattern that have one stamp.
const BLOCK_BYTES: usize = 4096;

/// Fills memory with a pattern: each block begins with a stamp of its place, the rest is one byte.
/// Any two seeds below 2^16 differ nearly everywhere, and a prefix of a pattern is a pattern.
pub fn fill(memory: &mut [u8], seed: u64) {
    for (index, block) in memory.chunks_mut(BLOCK_BYTES).enumerate() {
        block.fill((seed >> 8) as u8);
        let stamp = stamp(seed, index);
        let len = block.len().min(stamp.len());
        block[..len].copy_from_slice(&stamp[..len]);
    }
}

/// Whether memory holds the pattern of this seed.
pub fn holds(memory: &[u8], seed: u64) -> bool {
    memory
        .chunks(BLOCK_BYTES)
        .enumerate()
        .all(|(index, block)| {
            let stamp = stamp(seed, index);
            let (head, rest) = block.split_at(block.len().min(stamp.len()));
            head == &stamp[..head.len()] && is_all(rest, (seed >> 8) as u8)
        })
}

fn stamp(seed: u64, block: usize) -> [u8; 8] {
    (seed ^ ((block as u64) << 24)).to_le_bytes()
}

/// Whether all bytes are `byte`. Two comparisons of slices, which are fast in debug builds too.
pub fn is_all(memory: &[u8], byte: u8) -> bool {
    match memory.split_first() {
        None => true,
        Some((first, rest)) => *first == byte && rest == &memory[..rest.len()],
    }
}

/// An object of the allocator that is full of a pattern. When dropped it is checked and freed.
pub struct Object {
    start: *mut u8,
    layout: Layout,
    seed: u64,
}

// SAFETY: the object's memory belongs to the value alone.
unsafe impl Send for Object {}
// SAFETY: a shared reference only reads the memory.
unsafe impl Sync for Object {}

impl Object {
    /// Allocates. `None` if the system has no memory.
    pub fn try_new(size: usize, align: usize, seed: u64) -> Option<Self> {
        let layout = Layout::from_size_align(size, align).unwrap();
        assert!(size > 0);
        // SAFETY: the size is not zero.
        let start = unsafe { SpanMalloc.alloc(layout) };
        Self::filled(start, layout, seed)
    }

    /// Allocates.
    pub fn new(size: usize, align: usize, seed: u64) -> Self {
        Self::try_new(size, align, seed)
            .unwrap_or_else(|| panic!("no memory for {size} bytes at a multiple of {align}"))
    }

    /// Allocates zero bytes, and looks at them. `None` if the system has no memory.
    pub fn try_zeroed(size: usize, align: usize, seed: u64) -> Option<Self> {
        let layout = Layout::from_size_align(size, align).unwrap();
        assert!(size > 0);
        // SAFETY: the size is not zero.
        let start = unsafe { SpanMalloc.alloc_zeroed(layout) };
        if !start.is_null() {
            // SAFETY: the object has `size` bytes, all initialised if it is what it should be.
            let memory = unsafe { slice::from_raw_parts(start, size) };
            assert!(
                is_all(memory, 0),
                "{size} bytes at a multiple of {align} are not all zero"
            );
        }
        Self::filled(start, layout, seed)
    }

    fn filled(start: *mut u8, layout: Layout, seed: u64) -> Option<Self> {
        if start.is_null() {
            return None;
        }
        let (size, align) = (layout.size(), layout.align());
        assert!(
            start.addr().is_multiple_of(align),
            "{size} bytes at {start:?}, for {align}"
        );
        // SAFETY: the object has `size` bytes, and is ours.
        fill(unsafe { slice::from_raw_parts_mut(start, size) }, seed);
        Some(Self {
            start,
            layout,
            seed,
        })
    }

    /// Changes the size; the contents up to the smaller one must stay. False, and all of the
    /// contents must stay, if the system has no memory.
    pub fn try_resize(&mut self, size: usize) -> bool {
        let old = self.layout;
        let layout = Layout::from_size_align(size, old.align()).unwrap();
        // SAFETY: the object is ours, has this Layout, and the new size is good for a Layout.
        let start = unsafe { SpanMalloc.realloc(self.start, old, size) };
        if start.is_null() {
            self.check();
            return false;
        }
        (self.start, self.layout) = (start, layout);
        assert!(start.addr().is_multiple_of(old.align()));
        // SAFETY: the object has `size` bytes, and is ours.
        let memory = unsafe { slice::from_raw_parts_mut(start, size) };
        let kept = old.size().min(size);
        assert!(
            holds(&memory[..kept], self.seed),
            "contents, from {} to {size}",
            old.size()
        );
        fill(memory, self.seed);
        true
    }

    /// Changes the size.
    pub fn resize(&mut self, size: usize) {
        assert!(self.try_resize(size), "no memory for {size} bytes");
    }

    /// Looks at all bytes.
    pub fn check(&self) {
        // SAFETY: the object has that many initialised bytes.
        let memory = unsafe { slice::from_raw_parts(self.start, self.layout.size()) };
        assert!(
            holds(memory, self.seed),
            "contents of {:?}, {:?}",
            self.start,
            self.layout
        );
    }

    /// Address of the first byte.
    pub fn addr(&self) -> usize {
        self.start.addr()
    }

    /// Bytes asked for.
    pub fn size(&self) -> usize {
        self.layout.size()
    }
}

impl Drop for Object {
    fn drop(&mut self) {
        if !thread::panicking() {
            self.check();
        }
        // SAFETY: the object is ours, and has this Layout.
        unsafe { SpanMalloc.dealloc(self.start, self.layout) };
    }
}
