//! What was sampled: live samples by address, and sums by stack, thread name and class.
//!
//! All of it lies in the allocator's own records, which are bounded in number; what finds no place is
//! counted. One lock guards it. A sample is rare (one in half a megabyte), so nobody waits for it for long.
//!
//! Invariants:
//!
//! 1. A live sample is in the chain of its address, once, and its amount is in its bucket's `live`.
//! 2. `LIVE_HINTS` of an address's chain is not null while a sample is in it.

#![allow(unsafe_code)]

use core::ptr::NonNull;

use super::snapshot::{Amount, FRAMES_MAX, Lifetime, StackKind};
use super::stack::Stack;
use crate::meta;
use crate::sync::Mutex;
use crate::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

/// Bytes of a thread's name in Linux.
pub(super) const NAME_BYTES: usize = 16;

const LIFETIMES: usize = 4;
const SAMPLE_CHAINS: usize = 1 << 13;
const STACK_CHAINS: usize = 1 << 10;
const BUCKET_CHAINS: usize = 1 << 10;
/// Most records of a kind: 16 MiB of samples (128 GiB of heap at the default distance), 9 MiB of stacks,
/// 14 MiB of buckets.
const SAMPLES_MAX: usize = 1 << 18;
const STACKS_MAX: usize = 1 << 14;
const BUCKETS_MAX: usize = 1 << 16;

type Link<T> = Option<NonNull<T>>;

/// An object that is a sample.
struct Sample {
    next: Link<Sample>,
    address: usize,
    bucket: NonNull<Bucket>,
    amount: Amount,
    allocated_at_ns: u64,
}

/// A stack, once.
struct StackRecord {
    next: Link<StackRecord>,
    hash: u64,
    frames: [usize; FRAMES_MAX],
    len: usize,
    kind: StackKind,
}

/// What objects share that are told together.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Key {
    stack: NonNull<StackRecord>,
    pub(super) thread: [u8; NAME_BYTES],
    pub(super) class_bytes: usize,
}

struct Bucket {
    next: Link<Bucket>,
    /// The bucket made before this one.
    made_before: Link<Bucket>,
    key: Key,
    sums: Sums,
}

/// What a bucket tells.
#[derive(Clone, Copy)]
pub(super) struct Sums {
    pub(super) live: Amount,
    pub(super) peak: Amount,
    /// By [`Lifetime`], from the shortest on.
    pub(super) freed: [Amount; LIFETIMES],
}

/// A bucket as it was at one moment.
pub(super) struct Told {
    pub(super) frames: [usize; FRAMES_MAX],
    pub(super) len: usize,
    pub(super) kind: StackKind,
    pub(super) key: Key,
    pub(super) sums: Sums,
}

struct Table {
    samples: [Link<Sample>; SAMPLE_CHAINS],
    stacks: [Link<StackRecord>; STACK_CHAINS],
    buckets: [Link<Bucket>; BUCKET_CHAINS],
    newest_bucket: Link<Bucket>,
    free_samples: Link<Sample>,
    sample_count: usize,
    stack_count: usize,
    bucket_count: usize,
    live_bytes: f64,
    peak_bytes: f64,
}

// SAFETY: the records belong to the table, and are reached under its lock.
unsafe impl Send for Table {}

static TABLE: Mutex<Table> = Mutex::new(Table {
    samples: [None; SAMPLE_CHAINS],
    stacks: [None; STACK_CHAINS],
    buckets: [None; BUCKET_CHAINS],
    newest_bucket: None,
    free_samples: None,
    sample_count: 0,
    stack_count: 0,
    bucket_count: 0,
    live_bytes: 0.0,
    peak_bytes: 0.0,
});

/// Samples in each chain. **Written under the lock, read by anyone**: a hint whether to look.
static LIVE_HINTS: [AtomicU32; SAMPLE_CHAINS] = [const { AtomicU32::new(0) }; SAMPLE_CHAINS];

/// Samples that found no place. **Any thread; atomic**, a counter.
static DROPPED: AtomicU64 = AtomicU64::new(0);

/// A new peak is one that is higher by this much: all sums are looked at then.
const PEAK_FACTOR: f64 = 1.03125;
const PEAK_BYTES: f64 = (256 << 10) as f64;

fn chain_of(address: usize) -> usize {
    // Objects of classes lie at multiples of 64 KiB, others at pages of 8 KiB.
    (address >> 13).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (usize::BITS - SAMPLE_CHAINS.ilog2())
}

/// Notes a sample, which is live from now on.
pub(super) fn add(
    address: usize,
    amount: Amount,
    class_bytes: usize,
    thread: [u8; NAME_BYTES],
    stack: &Stack,
    now_ns: u64,
) {
    let mut table = TABLE.lock();
    if !table.add(address, amount, class_bytes, thread, stack, now_ns) {
        dropped();
    }
}

/// Counts a sample that is not noted.
pub(super) fn dropped() {
    DROPPED.fetch_add(1, Relaxed);
}

pub(super) fn dropped_count() -> u64 {
    DROPPED.load(Relaxed)
}

/// Whether there may be a sample at an address. Without the lock.
pub(super) fn may_have(address: usize) -> bool {
    // Relaxed: who holds the object got it after it was noted.
    LIVE_HINTS[chain_of(address)].load(Relaxed) != 0
}

/// Notes that the object at an address was freed, if it is a sample that was allocated before `until_ns`.
pub(super) fn remove(address: usize, now_ns: u64, until_ns: u64) {
    TABLE.lock().remove(address, now_ns, until_ns);
}

/// The stack of the allocation of the live sample at an address. `None` if there is none, or the table is not
/// free in time.
pub(super) fn stack_of(address: usize, deadline_ns: u64) -> Option<([usize; FRAMES_MAX], usize)> {
    if !may_have(address) || !TABLE.comes_free(deadline_ns) {
        return None;
    }
    let table = TABLE.lock();
    let mut next = table.samples[chain_of(address)];
    while let Some(found) = next {
        // SAFETY: as in `add`.
        let sample = unsafe { found.as_ref() };
        if sample.address == address {
            // SAFETY: as above.
            let stack = unsafe { sample.bucket.as_ref().key.stack.as_ref() };
            return Some((stack.frames, stack.len));
        }
        next = sample.next;
    }
    None
}

/// Notes that a sample has another place and length.
pub(super) fn change(old: usize, new: usize, bytes: usize) {
    TABLE.lock().change(old, new, bytes);
}

impl Table {
    fn add(
        &mut self,
        address: usize,
        amount: Amount,
        class_bytes: usize,
        thread: [u8; NAME_BYTES],
        stack: &Stack,
        now_ns: u64,
    ) -> bool {
        // An older one was freed without a trace.
        self.remove(address, now_ns, u64::MAX);
        let Some(stack) = self.stack(stack) else {
            return false;
        };
        let key = Key {
            stack,
            thread,
            class_bytes,
        };
        let (Some(mut bucket), Some(sample)) = (self.bucket(key), self.take_sample()) else {
            return false;
        };
        let chain = chain_of(address);
        // SAFETY: records live for ever, and are reached under the lock only; this one is in no list.
        unsafe {
            sample.write(Sample {
                next: self.samples[chain].replace(sample),
                address,
                bucket,
                amount,
                allocated_at_ns: now_ns,
            });
            bucket.as_mut().sums.live.add(amount);
        }
        LIVE_HINTS[chain].fetch_add(1, Relaxed);
        self.live_bytes += amount.bytes;
        if self.live_bytes > self.peak_bytes * PEAK_FACTOR + PEAK_BYTES {
            self.note_peak();
        }
        true
    }

    /// All sums are those of the peak.
    fn note_peak(&mut self) {
        self.peak_bytes = self.live_bytes;
        let mut next = self.newest_bucket;
        while let Some(mut bucket) = next {
            // SAFETY: as in `add`.
            let bucket = unsafe { bucket.as_mut() };
            bucket.sums.peak = bucket.sums.live;
            next = bucket.made_before;
        }
    }

    /// Takes the sample of an address out of its chain.
    fn unlink(&mut self, address: usize, until_ns: u64) -> Link<Sample> {
        let chain = chain_of(address);
        let mut link = &mut self.samples[chain];
        loop {
            let mut found = (*link)?;
            // SAFETY: as in `add`.
            let sample = unsafe { found.as_mut() };
            if sample.address == address {
                if sample.allocated_at_ns > until_ns {
                    return None;
                }
                *link = sample.next;
                LIVE_HINTS[chain].fetch_sub(1, Relaxed);
                return Some(found);
            }
            link = &mut sample.next;
        }
    }

    fn remove(&mut self, address: usize, now_ns: u64, until_ns: u64) {
        let Some(mut found) = self.unlink(address, until_ns) else {
            return;
        };
        // SAFETY: as in `add`.
        let sample = unsafe { found.as_mut() };
        // SAFETY: as above.
        let sums = unsafe { &mut sample.bucket.as_mut().sums };
        sums.live.sub(sample.amount);
        let lifetime = lifetime(now_ns.saturating_sub(sample.allocated_at_ns));
        if let Some(sum) = sums.freed.get_mut(lifetime as usize - 1) {
            sum.add(sample.amount);
        }
        self.live_bytes -= sample.amount.bytes;
        sample.next = self.free_samples.replace(found);
    }

    fn change(&mut self, old: usize, new: usize, bytes: usize) {
        let Some(mut found) = self.unlink(old, u64::MAX) else {
            return;
        };
        let chain = chain_of(new);
        // SAFETY: as in `add`.
        let sample = unsafe { found.as_mut() };
        let changed = Amount {
            objects: sample.amount.objects,
            bytes: sample.amount.objects * bytes as f64,
        };
        // SAFETY: as above.
        let live = unsafe { &mut sample.bucket.as_mut().sums.live };
        live.sub(sample.amount);
        live.add(changed);
        self.live_bytes += changed.bytes - sample.amount.bytes;
        (sample.address, sample.amount) = (new, changed);
        sample.next = self.samples[chain].replace(found);
        LIVE_HINTS[chain].fetch_add(1, Relaxed);
    }

    fn take_sample(&mut self) -> Link<Sample> {
        if let Some(sample) = self.free_samples {
            // SAFETY: as in `add`.
            self.free_samples = unsafe { sample.as_ref() }.next;
            return Some(sample);
        }
        take_new(&mut self.sample_count, SAMPLES_MAX)
    }

    /// The record of a stack.
    fn stack(&mut self, stack: &Stack) -> Link<StackRecord> {
        let hash = stack.hash();
        let head = &mut self.stacks[(hash >> 40) as usize % STACK_CHAINS];
        let mut next = *head;
        while let Some(found) = next {
            // SAFETY: as in `add`.
            let record = unsafe { found.as_ref() };
            if record.hash == hash && record.frames.get(..record.len) == Some(stack.frames()) {
                return Some(found);
            }
            next = record.next;
        }
        let new: NonNull<StackRecord> = take_new(&mut self.stack_count, STACKS_MAX)?;
        let mut frames = [0; FRAMES_MAX];
        let len = stack.frames().len();
        frames[..len].copy_from_slice(stack.frames());
        // SAFETY: as in `add`.
        unsafe {
            new.write(StackRecord {
                next: head.replace(new),
                hash,
                frames,
                len,
                kind: stack.kind,
            });
        }
        Some(new)
    }

    /// The bucket of a key.
    fn bucket(&mut self, key: Key) -> Link<Bucket> {
        let name = u128::from_ne_bytes(key.thread);
        let hash = (key.stack.addr().get() as u64 >> 6 ^ name as u64 ^ (name >> 64) as u64)
            .wrapping_add(key.class_bytes as u64)
            .wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let head = &mut self.buckets[(hash >> 40) as usize % BUCKET_CHAINS];
        let mut next = *head;
        while let Some(found) = next {
            // SAFETY: as in `add`.
            let bucket = unsafe { found.as_ref() };
            if bucket.key == key {
                return Some(found);
            }
            next = bucket.next;
        }
        let new: NonNull<Bucket> = take_new(&mut self.bucket_count, BUCKETS_MAX)?;
        // SAFETY: as in `add`.
        unsafe {
            new.write(Bucket {
                next: head.replace(new),
                made_before: self.newest_bucket.replace(new),
                key,
                sums: Sums {
                    live: Amount::default(),
                    peak: Amount::default(),
                    freed: [Amount::default(); LIFETIMES],
                },
            });
        }
        Some(new)
    }
}

/// A record, not initialised. `None` if there are too many, or the system has no memory.
fn take_new<T>(count: &mut usize, most: usize) -> Link<T> {
    if *count == most {
        return None;
    }
    *count += 1;
    meta::alloc()
}

fn lifetime(ns: u64) -> Lifetime {
    match ns {
        0..1_000_000 => Lifetime::UnderMillisecond,
        1_000_000..1_000_000_000 => Lifetime::UnderSecond,
        1_000_000_000..60_000_000_000 => Lifetime::UnderMinute,
        _ => Lifetime::Longer,
    }
}

/// Tells of each bucket, without the lock while `each` runs: it may allocate.
pub(super) fn for_each(mut each: impl FnMut(Told)) {
    let mut next = TABLE.lock().newest_bucket;
    while let Some(found) = next {
        let table = TABLE.lock();
        // SAFETY: as in `add`.
        let bucket = unsafe { found.as_ref() };
        // SAFETY: as above.
        let stack = unsafe { bucket.key.stack.as_ref() };
        let told = Told {
            frames: stack.frames,
            len: stack.len,
            kind: stack.kind,
            key: bucket.key,
            sums: bucket.sums,
        };
        next = bucket.made_before;
        drop(table);
        each(told);
    }
}

impl Amount {
    fn add(&mut self, other: Self) {
        self.objects += other.objects;
        self.bytes += other.bytes;
    }

    fn sub(&mut self, other: Self) {
        // What rounding leaves is none.
        self.objects = (self.objects - other.objects).max(0.0);
        self.bytes = (self.bytes - other.bytes).max(0.0);
    }
}

/// Whether the lock of this file comes free in time: see [`Mutex::comes_free`].
pub(crate) fn locks_come_free(deadline_ns: u64) -> bool {
    TABLE.comes_free(deadline_ns)
}

/// For `fork`: the lock of this file.
pub(crate) fn lock_for_fork() {
    TABLE.lock_for_fork();
}

/// For `fork`: gives the lock back.
///
/// # Safety
/// As for [`Mutex::unlock_after_fork`].
pub(super) unsafe fn unlock_after_fork() {
    // SAFETY: the caller's contract.
    unsafe { TABLE.unlock_after_fork() };
}
