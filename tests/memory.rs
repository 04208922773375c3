//! Memory of the process: what goes back to the system by `trim`, what is touched, what zeroing and
//! resizing cost, and what happens when there is no more.

#![cfg(not(miri))] // Starts processes, and reads what Linux says of them.

mod common;

use std::alloc::{GlobalAlloc, Layout};
use std::fs;
use std::iter;
use std::slice;
use std::thread;

use common::{
    Numbers, Object, address_space_bytes, alone, fill, holds, is_all, limit_address_space,
    peak_rss_bytes, rss_bytes, stay_on_one_cpu,
};
use spanmalloc::{ClassStats, Config, HugePages, SpanMalloc, set_config, stats, trim};

#[global_allocator]
static GLOBAL: SpanMalloc = SpanMalloc;

const MIB: usize = 1 << 20;

#[test]
fn a_peak_of_small_objects_goes_back_by_trim() {
    alone(|| {
        let peak = {
            let (mut objects, mut numbers, mut bytes) = (Vec::new(), Numbers(1), 0);
            while bytes < 1024 * MIB {
                objects.push(Object::new(numbers.size(13), 1, objects.len() as u64));
                bytes += objects.last().unwrap().size();
            }
            rss_bytes()
        };
        assert!(peak > 1024 * MIB, "{peak} bytes at the peak");
        trim();
        let after = rss_bytes();
        assert!(
            after < peak / 10,
            "{after} of {peak} bytes are left, {:?}",
            stats()
        );
        assert!(stats().in_use_bytes < 8 * MIB, "{:?}", stats());
    });
}

#[test]
fn spans_drain_while_objects_come_and_go_at_random() {
    alone(|| {
        stay_on_one_cpu();
        let size = 288;
        let mut numbers = Numbers(3);
        let mut objects: Vec<_> = (0..60_000).map(|seed| Object::new(size, 1, seed)).collect();
        // A third is left, in no order, and is replaced, in no order.
        while objects.len() > 20_000 {
            objects.swap_remove(numbers.below(objects.len()));
        }
        for seed in 0..800_000 {
            if numbers.below(2) == 0 || objects.len() < 15_000 {
                objects.push(Object::new(size, 1, seed));
            } else {
                objects.swap_remove(numbers.below(objects.len()));
            }
        }
        let stats = stats();
        let class = stats
            .classes
            .iter()
            .find(|class| class.object_bytes == size);
        let class = class.unwrap();
        let live = 100 * class.live_bytes / (class.spans * class.span_bytes);
        assert!(live >= 50, "{live} %, {class:?}");
    });
}

/// 1,000 spans of objects of 288 B, most of them free, and 2,000 objects of work besides those that stay.
struct AfterPeak {
    numbers: Numbers,
    stay: Vec<Object>,
    work: Vec<Object>,
}

impl AfterPeak {
    const SIZE: usize = 288;

    fn new(stay: usize) -> Self {
        stay_on_one_cpu();
        let object = |seed| Object::new(Self::SIZE, 1, seed);
        let mut this = Self {
            numbers: Numbers(3),
            stay: (0..60_000).map(object).collect(),
            work: Vec::new(),
        };
        this.leave(stay);
        this.work.extend((0..2_000).map(object));
        this
    }

    /// Frees of those that stay, in no order, all but so many.
    fn leave(&mut self, count: usize) {
        while self.stay.len() > count {
            let at = self.numbers.below(self.stay.len());
            self.stay.swap_remove(at);
        }
    }

    /// Replaces objects of the work, in no order, and not in turns, so that a magazine serves the better the more it
    /// holds. How many came from spans.
    fn work(&mut self, times: u64) -> u64 {
        let refilled = || stats().refilled_from_current_span + stats().refilled_from_spans;
        let before = refilled();
        for seed in 0..times {
            let count = self.numbers.below(300);
            for _ in 0..count {
                let at = self.numbers.below(self.work.len());
                self.work.swap_remove(at);
            }
            let object = || Object::new(Self::SIZE, 1, seed);
            self.work.extend(iter::repeat_with(object).take(count));
        }
        refilled() - before
    }

    /// As [`Self::work`], with all objects.
    fn work_with_all(&mut self, times: u64) -> u64 {
        self.work.append(&mut self.stay);
        self.work(times)
    }
}

#[test]
fn threads_keep_more_again_where_objects_that_stay_hold_the_spans() {
    alone(|| {
        let mut heap = AfterPeak::new(3_000);
        let at_first = heap.work(100);
        heap.work(3_000);
        let in_the_end = heap.work(100);
        assert!(
            10 * in_the_end < at_first,
            "{at_first} objects from spans at first, then {in_the_end}"
        );
    });
}

#[test]
fn spans_drain_when_most_objects_that_held_them_are_gone() {
    alone(|| {
        let mut heap = AfterPeak::new(20_000);
        let spans = || {
            let of_size = |class: &&ClassStats| class.object_bytes == AfterPeak::SIZE;
            stats().classes.iter().find(of_size).unwrap().spans
        };
        while heap.work(100) > 2_000 {}
        heap.leave(4_000);
        let before = spans();
        heap.work_with_all(2_000);
        assert!(2 * spans() < before, "{before} spans, then {}", spans());
    });
}

#[test]
fn a_peak_in_other_threads_goes_back_by_trim() {
    alone(|| {
        let peak_of = |seed| {
            let mut numbers = Numbers(seed);
            let objects: Vec<_> = (0..50_000)
                .map(|_| Object::new(numbers.size(12), 1, seed))
                .collect();
            let peak = rss_bytes();
            drop(objects);
            peak
        };
        let threads = [1, 2].map(|seed| thread::spawn(move || peak_of(seed)));
        let peaks = threads.map(|thread| thread.join().unwrap());
        let peak = peaks.into_iter().max().unwrap();
        assert!(peak > 64 * MIB, "{peak} bytes at the peak");
        trim();
        let after = rss_bytes();
        assert!(
            after < peak / 4,
            "{after} of {peak} bytes are left, {:?}",
            stats()
        );
    });
}

#[test]
fn trim_tells_the_bytes_that_it_released() {
    alone(|| {
        drop(
            (0..30)
                .map(|seed| Object::new(MIB, 8, seed))
                .collect::<Vec<_>>(),
        );
        let before = stats();
        assert!(
            before.dirty_bytes + before.cached_bytes >= 30 * MIB,
            "{before:?}"
        );
        let (rss, released) = (rss_bytes(), trim());
        assert!(
            released >= 30 * MIB,
            "{released} bytes released, {before:?}"
        );
        assert!(
            rss - rss_bytes() >= 29 * MIB,
            "from {rss} to {} bytes",
            rss_bytes()
        );
        let after = stats();
        assert_eq!((after.dirty_bytes, after.cached_bytes), (0, 0), "{after:?}");
        assert!(trim() < MIB);
    });
}

#[test]
fn zeroed_objects_are_zero_in_used_memory() {
    let small = [
        1,
        2,
        3,
        4,
        5,
        7,
        8,
        9,
        15,
        16,
        17,
        24,
        48,
        100,
        255,
        1000,
        2048,
        2049,
        4096,
        32 << 10,
    ];
    let large = [
        (32 << 10) + 1,
        64 << 10,
        100_000,
        512 << 10,
        MIB,
        3 * MIB + 1,
        20 * MIB,
    ];
    for size in small.into_iter().chain(large) {
        let count = (4 * MIB / size).clamp(3, 300);
        for align in [1, 16, 4096] {
            for round in 0..2 {
                // What the first round leaves is full of its pattern.
                let new =
                    |seed: usize| Object::try_zeroed(size, align, 0xff00 + seed as u64).unwrap();
                let objects: Vec<_> = (0..count).map(new).collect();
                assert!(objects.len() == count, "{round}");
            }
        }
    }
}

#[test]
fn zeroed_objects_are_zero_where_used_and_released_pages_meet() {
    alone(|| {
        let mut numbers = Numbers(2);
        for round in 0..20 {
            let mut objects: Vec<_> = (0..30)
                .map(|seed| Object::try_zeroed(MIB / 8 + numbers.size(20), 1, seed).unwrap())
                .collect();
            while objects.len() > 15 {
                objects.swap_remove(numbers.below(objects.len()));
            }
            if round % 2 == 0 {
                trim();
            }
            drop(
                (0..15)
                    .map(|seed| Object::try_zeroed(MIB / 2, 1, seed).unwrap())
                    .collect::<Vec<_>>(),
            );
        }
    });
}

#[test]
fn zeroed_huge_objects_are_not_touched() {
    alone(|| {
        let layout = Layout::from_size_align(256 * MIB, 1).unwrap();
        let before = rss_bytes();
        // SAFETY: the size is not zero.
        let object = unsafe { SpanMalloc.alloc_zeroed(layout) };
        assert!(!object.is_null());
        let grown = rss_bytes().saturating_sub(before);
        assert!(grown < MIB, "{grown} bytes touched");
        // SAFETY: the object has that many bytes, and is ours.
        assert!(is_all(unsafe { slice::from_raw_parts(object, 4 * MIB) }, 0));
        // SAFETY: the object is ours, and has this Layout.
        unsafe { SpanMalloc.dealloc(object, layout) };
        assert!(rss_bytes() < before + MIB);
    });
}

#[test]
fn huge_objects_get_the_pages_of_those_before() {
    alone(|| {
        drop(Object::new(100 * MIB, 1, 1));
        let (rss, faults) = (rss_bytes(), stats().minor_faults);
        assert!(rss > 100 * MIB, "{rss} bytes");
        for round in 0..10 {
            // Longer ones and shorter ones; those before are cut, and grow.
            for mib in [100, 80, 90, 70] {
                Object::new(mib * MIB, 1, round).check();
            }
        }
        let faults = stats().minor_faults - faults;
        let whole = (10 * 340 * MIB / 4096) as u64;
        assert!(faults < whole / 8, "{faults} page faults of {whole}");
        assert!(peak_rss_bytes() < rss + 4 * MIB, "{}", peak_rss_bytes());
        trim();
        assert!(rss_bytes() < 32 * MIB, "{} bytes are left", rss_bytes());
    });
}

#[test]
fn zeroed_huge_objects_are_zero_where_others_were() {
    alone(|| {
        for (before, mib) in [(100, 100), (100, 90), (80, 120), (128, 64)] {
            Object::new(before * MIB, 1, 1).check();
            let rss = rss_bytes();
            let zeroed = Object::try_zeroed(mib * MIB, 1, 2);
            assert!(rss_bytes() < rss + (mib + 1) * MIB);
            drop(zeroed);
        }
        let layout = Layout::from_size_align(100 * MIB, 1).unwrap();
        // SAFETY: the size is not zero.
        let object = unsafe { SpanMalloc.alloc_zeroed(layout) };
        assert!(!object.is_null());
        assert!(rss_bytes() < 64 * MIB, "{} bytes touched", rss_bytes());
        // SAFETY: the object is ours, and has this Layout.
        unsafe { SpanMalloc.dealloc(object, layout) };
    });
}

/// A byte here and there of a zeroed object costs a small page each, also in a mapping that was kept of one that grew and had
/// huge ones; and the mapping is still one that grows without a copy.
#[test]
fn zeroed_huge_objects_may_be_used_sparsely() {
    alone(|| {
        // Where the mapping that was kept has to grow, and where it is longer than it need be.
        for mib in [120, 90] {
            let mut grown = Object::new(80 * MIB, 1, 1);
            assert!(grown.try_resize(100 * MIB));
            drop(grown);
            let layout = Layout::from_size_align(mib * MIB, 1).unwrap();
            // SAFETY: the size is not zero.
            let object = unsafe { SpanMalloc.alloc_zeroed(layout) };
            assert!(!object.is_null());
            for at in (0..mib).step_by(2) {
                // SAFETY: the object has that many bytes.
                unsafe { object.add(at * MIB).write(1) };
            }
            assert!(rss_bytes() < 16 * MIB, "{} bytes touched", rss_bytes());
            // SAFETY: the object is ours, and has this Layout.
            let object = unsafe { SpanMalloc.realloc(object, layout, 200 * MIB) };
            assert!(!object.is_null());
            assert!(rss_bytes() < 32 * MIB, "{} bytes copied", rss_bytes());
            let layout = Layout::from_size_align(200 * MIB, 1).unwrap();
            // SAFETY: as above.
            unsafe { SpanMalloc.dealloc(object, layout) };
            trim();
        }
    });
}

#[test]
fn what_is_chosen_of_huge_pages_holds_for_huge_objects() {
    let system = "/sys/kernel/mm/transparent_hugepage/enabled";
    if !fs::exists(system).unwrap() {
        return;
    }
    alone(|| {
        let objects =
            [(HugePages::Always, " hg"), (HugePages::Never, " nh")].map(|(choice, flag)| {
                set_config(Config::new().huge_pages(choice));
                (vec![1_u8; 100 * MIB], flag)
            });
        let maps = fs::read_to_string("/proc/self/smaps").unwrap();
        for (object, flag) in objects {
            let start = format!("{:x}-", object.as_ptr().addr());
            let map = maps.split_once(&start).unwrap().1;
            let flags = map.lines().find_map(|line| line.strip_prefix("VmFlags:"));
            assert!(flags.unwrap().contains(flag), "{flags:?}");
        }
    });
}

#[test]
fn zeroed_large_objects_of_fresh_pages_are_not_touched() {
    alone(|| {
        let layout = Layout::from_size_align(16 * MIB, 1).unwrap();
        for _ in 0..3 {
            let before = rss_bytes();
            // SAFETY: the size is not zero.
            let objects = [(); 8].map(|()| unsafe { SpanMalloc.alloc_zeroed(layout) });
            assert!(objects.iter().all(|object| !object.is_null()));
            let grown = rss_bytes().saturating_sub(before);
            assert!(grown < MIB, "{grown} bytes touched");
            for object in objects {
                // SAFETY: the object is ours, and has this Layout; its bytes may be written.
                unsafe {
                    object.write_bytes(1, 16 * MIB);
                    SpanMalloc.dealloc(object, layout);
                }
            }
            trim(); // Released pages are as good as fresh ones.
        }
    });
}

#[test]
fn a_vec_grows_beyond_256_mib_and_keeps_its_contents() {
    alone(|| {
        let mut bytes = Vec::new();
        let mut piece = vec![0_u8; 3 * MIB];
        for seed in 0..100 {
            fill(&mut piece, seed * 257);
            bytes.extend_from_slice(&piece);
        }
        let right = |(seed, piece): (usize, &[u8])| holds(piece, seed as u64 * 257);
        assert!(bytes.chunks(3 * MIB).enumerate().all(right));
        bytes.truncate(10 * MIB);
        bytes.shrink_to_fit();
        assert!(bytes.chunks_exact(3 * MIB).enumerate().all(right));
        drop(bytes);
        trim();
        assert!(
            rss_bytes() < 32 * MIB,
            "{} bytes are left, {:?}",
            rss_bytes(),
            stats()
        );
    });
}

#[test]
fn growth_of_a_huge_object_copies_nothing() {
    alone(|| {
        // The kernel places from the top downwards: the second one can't grow far where it is.
        let above = Object::new(64 * MIB, 1, 4);
        let layout = Layout::from_size_align(100 * MIB, 1).unwrap();
        // SAFETY: the size is not zero.
        let start = unsafe { SpanMalloc.alloc(layout) };
        assert!(!start.is_null());
        // SAFETY: the object has that many bytes, and is ours.
        fill(unsafe { slice::from_raw_parts_mut(start, 100 * MIB) }, 5);
        let rss = rss_bytes();
        // SAFETY: the object is ours, and has this Layout.
        let moved = unsafe { SpanMalloc.realloc(start, layout, 300 * MIB) };
        assert!(!moved.is_null() && moved != start, "the object had to move");
        let peak = peak_rss_bytes();
        assert!(peak < rss + 32 * MIB, "from {rss} to {peak} bytes");
        // SAFETY: the object has more bytes than that, and is ours.
        assert!(holds(unsafe { slice::from_raw_parts(moved, 100 * MIB) }, 5));
        above.check();
        let layout = Layout::from_size_align(300 * MIB, 1).unwrap();
        // SAFETY: the object is ours, and has this Layout.
        unsafe { SpanMalloc.dealloc(moved, layout) };
    });
}

#[test]
fn shrinking_a_huge_object_gives_its_tail_back() {
    alone(|| {
        let mut object = Object::new(300 * MIB, 1, 5);
        let rss = rss_bytes();
        object.resize(70 * MIB);
        let less = rss_bytes();
        assert!(less + 229 * MIB < rss, "from {rss} to {less} bytes");
        object.resize(40 * MIB);
        assert!(
            rss_bytes() + 29 * MIB < less,
            "from {less} to {} bytes",
            rss_bytes()
        );
        object.resize(MIB);
        object.resize(1000);
        assert!(
            rss_bytes() + 35 * MIB < less,
            "from {less} to {} bytes",
            rss_bytes()
        );
    });
}

#[test]
fn a_large_object_grows_in_place_if_the_pages_behind_are_free() {
    alone(|| {
        let mut object = Object::new(4 * MIB, 8, 1);
        let behind = Object::new(2 * MIB, 8, 2);
        let beyond = Object::new(MIB, 8, 3);
        assert_eq!(behind.addr(), object.addr() + 4 * MIB);
        let addr = object.addr();
        drop(behind);
        object.resize(6 * MIB);
        assert_eq!(object.addr(), addr, "the free pages were enough");
        object.resize(6 * MIB + 1);
        assert_ne!(object.addr(), addr, "another object is behind");
        beyond.check();
    });
}

#[test]
fn a_large_object_shrinks_in_place_and_its_tail_is_used_again() {
    alone(|| {
        let mut object = Object::new(4 * MIB, 8, 1);
        let addr = object.addr();
        object.resize(2 * MIB);
        assert_eq!(object.addr(), addr);
        let tail = Object::new(2 * MIB, 8, 2);
        assert_eq!(tail.addr(), addr + 2 * MIB);
    });
}

#[test]
fn a_small_object_stays_in_place_within_its_class() {
    let mut object = Object::new(100, 1, 1);
    let addr = object.addr();
    object.resize(112);
    object.resize(97);
    assert_eq!(object.addr(), addr);
    object.resize(113);
    assert_ne!(object.addr(), addr);
}

#[test]
fn without_address_space_allocation_fails_and_all_memory_can_be_used_again() {
    /// Allocates until null; how many objects there were.
    fn exhaust(numbers: &mut Numbers, next_size: impl Fn(&mut Numbers) -> usize) -> usize {
        let mut objects = Vec::with_capacity(1 << 17);
        while let Some(object) = Object::try_new(next_size(numbers), 1, objects.len() as u64) {
            objects.push(object);
        }
        objects.iter().for_each(Object::check);
        objects.len()
    }
    alone(|| {
        let mut numbers = Numbers(3);
        limit_address_space(address_space_bytes() + 96 * MIB);
        let large = exhaust(&mut numbers, |_| 100_000);
        assert!(
            large * 100_000 > 128 * MIB,
            "{large} objects, {:?}",
            stats()
        );
        for _ in 0..2 {
            let again = exhaust(&mut numbers, |_| 100_000);
            assert!(again >= large * 9 / 10, "{again} objects after {large}");
            let small = exhaust(&mut numbers, |numbers| 500 + numbers.size(9));
            assert!(small * 1000 > 40 * MIB, "{small} objects, {:?}", stats());
            trim();
        }
        // What can't be had at once is null, and no harm.
        assert!(Object::try_new(97 * MIB, 1, 1).is_none());
        assert!(Object::try_new(1 << 40, 1, 1).is_none());
        assert!(Object::try_zeroed(200 * MIB, 1, 1).is_none());
        let mut object = Object::new(MIB, 1, 1);
        assert!(!object.try_resize(200 * MIB));
        assert!(!object.try_resize(1 << 45));
        object.check();
    });
}

/// Each mapping of the process: its line in the table, and the flags that the kernel has for it.
fn mappings() -> Vec<(String, String)> {
    let text = std::fs::read_to_string("/proc/self/smaps").unwrap();
    let mut found = Vec::new();
    let mut head = "";
    for line in text.lines() {
        if let Some(flags) = line.strip_prefix("VmFlags:") {
            found.push((head.to_owned(), flags.to_owned()));
        } else if line
            .split(' ')
            .next()
            .is_some_and(|word| word.contains('-'))
        {
            head = line;
        }
    }
    found
}

#[test]
fn what_is_only_reserved_is_not_dumped() {
    alone(|| {
        let object = Box::new(1_u64);
        let address = (&raw const *object).addr();
        let (mut reserved, mut committed) = (0, 0);
        for (head, flags) in mappings() {
            let (range, rest) = head.split_once(' ').unwrap();
            let (start, end) = range.split_once('-').unwrap();
            let start = usize::from_str_radix(start, 16).unwrap();
            let end = usize::from_str_radix(end, 16).unwrap();
            let is_dumped = !flags.split(' ').any(|flag| flag == "dd");
            if (start..end).contains(&address) {
                assert!(rest.starts_with("rw") && is_dumped, "{head} {flags}");
                committed += 1;
            } else if start / (64 * MIB) == address / (64 * MIB) && rest.starts_with("---") {
                assert!(!is_dumped, "{head} {flags}");
                reserved += 1;
            }
        }
        assert_eq!((reserved, committed), (1, 1));
    });
}

#[test]
fn mappings_have_names_where_the_kernel_can() {
    alone(|| {
        // SAFETY: names memory of this test, which is whole pages or an error.
        let can = unsafe {
            let page = libc::mmap(
                std::ptr::null_mut(),
                4096,
                libc::PROT_NONE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                -1,
                0,
            );
            let name = c"a test".as_ptr();
            libc::prctl(
                libc::PR_SET_VMA,
                libc::PR_SET_VMA_ANON_NAME,
                page,
                4096,
                name,
            ) == 0
        };
        let object = Object::new(100 * MIB, 8, 1);
        for name in ["heap", "huge object", "records"] {
            let name = format!("[anon:spanmalloc: {name}]");
            let found = mappings().iter().any(|(head, _)| head.ends_with(&name));
            assert_eq!(found, can, "{name}");
        }
        drop(object);
    });
}
