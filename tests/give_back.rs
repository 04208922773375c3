//! Memory goes back to the system when it is not needed any more, and the memory limit holds.

#![cfg(not(miri))] // Starts processes, and reads what Linux says of them.

mod common;

use std::alloc::{Layout, alloc, alloc_zeroed, dealloc, realloc};
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::{Duration, Instant};

use common::{Object, alone, peak_rss_bytes, rss_bytes};
use spanmalloc::{
    HugePages, MemoryLimit, Release, SpanMalloc, config, set_config, set_memory_limit, stats,
};

#[global_allocator]
static GLOBAL: SpanMalloc = SpanMalloc;

const MIB: usize = 1 << 20;
/// Time for what has to happen: many times what it takes, since the machine may be busy.
const PATIENCE: Duration = Duration::from_secs(120);

/// Frees a peak of 512 MiB, then does what is given until nearly all of it has gone back.
fn peak_goes_back(mut meanwhile: impl FnMut()) {
    let objects: Vec<_> = (0..64).map(|seed| Object::new(8 * MIB, 8, seed)).collect();
    let peak = rss_bytes();
    assert!(peak > 512 * MIB, "{peak} bytes at the peak");
    drop(objects);
    let start = Instant::now();
    while rss_bytes() > 32 * MIB {
        assert!(
            start.elapsed() < PATIENCE,
            "{} bytes, {:?}",
            rss_bytes(),
            stats()
        );
        meanwhile();
    }
}

#[test]
fn free_memory_goes_back_by_slow_calls() {
    alone(|| peak_goes_back(|| drop(Object::new(MIB, 8, 1))));
}

#[test]
fn free_memory_goes_back_by_calls_for_large_objects_that_the_thread_keeps() {
    alone(|| peak_goes_back(|| drop(Object::new(50_000, 8, 1))));
}

#[test]
fn free_memory_goes_back_by_the_background_thread() {
    alone(|| {
        assert!(spanmalloc::background::start());
        // Reading /proc allocates, but no more than magazines have.
        peak_goes_back(|| thread::sleep(Duration::from_millis(50)));
    });
}

#[test]
fn free_memory_goes_back_at_once_if_it_is_to() {
    alone(|| {
        set_config(config().release(Release::AtOnce));
        let objects: Vec<_> = (0..64).map(|seed| Object::new(8 * MIB, 8, seed)).collect();
        drop(objects);
        assert!(rss_bytes() < 32 * MIB, "{} bytes", rss_bytes());
        assert_eq!(stats().dirty_bytes, 0);
    });
}

/// A freed huge object goes back while the program does what is given.
fn huge_object_goes_back(mut meanwhile: impl FnMut()) {
    drop(Object::new(200 * MIB, 8, 1));
    assert!(rss_bytes() > 200 * MIB, "{} bytes", rss_bytes());
    let start = Instant::now();
    while rss_bytes() > 32 * MIB {
        assert!(start.elapsed() < PATIENCE, "{:?}", stats());
        meanwhile();
    }
    assert!(stats().huge_free_bytes < 32 * MIB, "{:?}", stats());
}

#[test]
fn huge_objects_go_back_by_slow_calls() {
    alone(|| huge_object_goes_back(|| drop(Object::new(MIB, 8, 1))));
}

#[test]
fn huge_objects_go_back_by_the_background_thread() {
    alone(|| {
        assert!(spanmalloc::background::start());
        huge_object_goes_back(|| thread::sleep(Duration::from_millis(50)));
    });
}

#[test]
fn huge_objects_go_back_at_once_if_they_are_to() {
    alone(|| {
        set_config(config().release(Release::AtOnce));
        drop(Object::new(200 * MIB, 8, 1));
        assert!(rss_bytes() < 32 * MIB, "{} bytes", rss_bytes());
        assert_eq!(stats().huge_free_bytes, 0);
    });
}

#[test]
fn free_huge_objects_make_room_for_others_under_a_limit() {
    alone(|| {
        set_memory_limit(MemoryLimit::Bytes(160 * MIB));
        for seed in 0..3 {
            drop(Object::new(100 * MIB, 8, seed));
            let objects: Vec<_> = (0..12).map(|seed| Object::new(8 * MIB, 8, seed)).collect();
            assert!(rss_bytes() < 180 * MIB, "{} bytes", rss_bytes());
            drop(objects);
        }
        assert!(peak_rss_bytes() < 200 * MIB, "{}", peak_rss_bytes());
    });
}

/// Whether the page of an address has memory.
fn is_resident(address: *mut u8) -> bool {
    let mut state = 0;
    let page = address.map_addr(|address| address & !4095);
    // SAFETY: a page of this process, and one byte for its state.
    let done = unsafe { libc::mincore(page.cast(), 1, &raw mut state) == 0 };
    done && state & 1 == 1
}

/// Whether the kernel backs pages on request: from 5.14 on.
fn prefaults() -> bool {
    let mut pages = vec![0_u8; 64 << 10];
    let start = pages.as_mut_ptr();
    let start = start.wrapping_add(start.align_offset(32 << 10));
    // SAFETY: advice changes no contents.
    unsafe { libc::madvise(start.cast(), 32 << 10, libc::MADV_POPULATE_WRITE) == 0 }
}

/// Makes 16 MiB of objects that nobody touches: how many of the last half have memory, and how many they are.
fn count_resident(bytes: usize, alloc: unsafe fn(Layout) -> *mut u8) -> (usize, usize) {
    set_config(config().huge_pages(HugePages::Never));
    let layout = Layout::from_size_align(bytes, 8).unwrap();
    // SAFETY: the layout has a size.
    let allocate = || unsafe { alloc(layout) };
    let objects: Vec<_> = (0..16 * MIB / bytes).map(|_| allocate()).collect();
    let half = &objects[objects.len() / 2..];
    let resident = half.iter().filter(|object| is_resident(**object)).count();
    let result = (resident, half.len());
    for object in objects {
        // SAFETY: allocated above.
        unsafe { dealloc(object, layout) };
    }
    result
}

#[test]
fn small_objects_of_a_large_heap_come_with_their_memory() {
    alone(|| {
        let (resident, all) = count_resident(2048, alloc);
        assert!(resident == all || !prefaults(), "{resident} of {all}");
    });
}

#[test]
fn larger_objects_have_no_memory_before_they_are_touched() {
    alone(|| {
        let (resident, all) = count_resident(16 << 10, alloc);
        assert!(resident < all / 8, "{resident} of {all}");
    });
}

#[test]
fn zeroed_objects_of_up_to_128_kib_come_with_their_memory() {
    alone(|| {
        let (resident, all) = count_resident(128 << 10, alloc_zeroed);
        assert!(resident == all || !prefaults(), "{resident} of {all}");
    });
}

#[test]
fn larger_zeroed_objects_have_no_memory_before_they_are_touched() {
    alone(|| {
        let (resident, all) = count_resident(136 << 10, alloc_zeroed);
        assert!(resident < all / 8, "{resident} of {all}");
    });
}

#[test]
fn idle_threads_keep_little() {
    const THREADS: usize = 50;
    alone(|| {
        assert!(spanmalloc::background::start());
        let barrier = Arc::new(Barrier::new(THREADS + 1));
        let threads: Vec<_> = (0..THREADS as u64)
            .map(|seed| {
                let barrier = Arc::clone(&barrier);
                thread::spawn(move || {
                    barrier.wait();
                    barrier.wait();
                    let objects: Vec<_> = (0..3000_usize)
                        .map(|number| Object::new(16 << (number % 11), 8, seed))
                        .collect();
                    drop(objects);
                    let large: Vec<_> = (40..60)
                        .map(|kib| Object::new(kib << 10, 8, seed))
                        .collect();
                    drop(large);
                    barrier.wait();
                    barrier.wait();
                    // It works as before.
                    drop(Object::new(100, 8, seed));
                })
            })
            .collect();
        // With the stacks of all threads.
        barrier.wait();
        let before = rss_bytes();
        barrier.wait();
        barrier.wait();
        let start = Instant::now();
        while rss_bytes() > before + THREADS * (64 << 10) {
            assert!(
                start.elapsed() < PATIENCE,
                "{} bytes of {before}, {:?}",
                rss_bytes(),
                stats()
            );
            thread::sleep(Duration::from_millis(50));
        }
        barrier.wait();
        threads
            .into_iter()
            .for_each(|thread| thread.join().unwrap());
    });
}

#[test]
fn soft_limit_holds_while_the_need_is_below_it() {
    alone(|| {
        set_memory_limit(MemoryLimit::Bytes(64 * MIB));
        let mut most = 0;
        for round in 0..40_usize {
            // Holes that the next round cannot use.
            let objects: Vec<_> = (0..16)
                .map(|seed| Object::new(MIB + round * 40_000, 8, seed))
                .collect();
            most = most.max(rss_bytes());
            drop(objects);
        }
        assert!(most < 80 * MIB, "{most} bytes");
        assert!(stats().backed_bytes <= 64 * MIB, "{:?}", stats());
    });
}

#[test]
fn soft_limit_below_the_need_lets_the_program_go_on() {
    alone(|| {
        set_memory_limit(MemoryLimit::Bytes(16 * MIB));
        let objects: Vec<_> = (0..4000).map(|seed| Object::new(10_000, 8, seed)).collect();
        assert!(stats().backed_bytes > 16 * MIB);
        drop(objects);
    });
}

#[test]
fn hard_limit_refuses_what_does_not_fit_and_nothing_is_lost() {
    alone(|| {
        set_config(
            config()
                .memory_limit(MemoryLimit::Bytes(64 * MIB))
                .hard_limit(true),
        );
        for size in [1000, 100_000, 3 * MIB, 80 * MIB] {
            let layout = Layout::from_size_align(size, 8).unwrap();
            let mut objects = Vec::with_capacity(70_000);
            // SAFETY: the layout is not empty; each object is filled before it is read, within its size,
            // and freed once with its layout.
            unsafe {
                loop {
                    let object = alloc(layout);
                    if object.is_null() {
                        break;
                    }
                    assert!(objects.len() < objects.capacity(), "nothing is refused");
                    object.write_bytes(objects.len() as u8, size);
                    objects.push(object);
                }
                let held = objects.len() * size;
                assert!(size > 64 * MIB || held > 40 * MIB, "{held} bytes of {size}");
                for (number, object) in objects.into_iter().enumerate() {
                    assert_eq!(*object, number as u8, "{number} of {size}");
                    assert_eq!(*object.add(size - 1), number as u8);
                    dealloc(object, layout);
                }
            }
        }
        assert!(peak_rss_bytes() < 76 * MIB, "{} bytes", peak_rss_bytes());
        let layout = Layout::from_size_align(MIB, 8).unwrap();
        // SAFETY: as above.
        unsafe {
            let object = alloc(layout);
            assert!(!object.is_null(), "nothing is allocated any more");
            dealloc(object, layout);
        }
    });
}

#[test]
fn growth_under_a_hard_limit_gets_what_caches_keep() {
    alone(|| {
        let (before, after) = (80 * MIB, 82 * MIB);
        let layout = Layout::from_size_align(before, 8).unwrap();
        // SAFETY: the layout is not empty; the object is written within its size, and freed once with the
        // layout that it has by then.
        unsafe {
            let object = alloc(layout);
            assert!(!object.is_null());
            object.write(1);
            // Runs of 512 KiB, which stay near at hand when they are freed.
            drop([(); 4].map(|()| vec![1_u8; 512 << 10]));
            let backed = stats().backed_bytes;
            assert_eq!(stats().dirty_bytes >> 20, 0, "{:?}", stats());
            set_config(
                config()
                    .memory_limit(MemoryLimit::Bytes(backed + MIB))
                    .hard_limit(true),
            );
            let grown = realloc(object, layout, after);
            // What fails below may need memory to say so.
            set_config(config().hard_limit(false));
            assert!(!grown.is_null(), "{:?}", stats());
            assert_eq!(grown.read(), 1);
            assert!(stats().backed_bytes <= backed + MIB);
            dealloc(grown, Layout::from_size_align(after, 8).unwrap());
        }
    });
}
