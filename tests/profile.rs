//! The heap profile of a program whose truth is known, read back by another implementation of the format.

// Starts processes. With C's interface in the program, the test's harness is in the profile as well.
#![cfg(not(any(miri, feature = "preload")))]

mod common;

use std::alloc::{Layout, alloc, dealloc};
use std::collections::HashMap;
use std::ffi::c_void;
use std::io::Read;
use std::sync::mpsc;
use std::thread;

use common::alone_with;
use flate2::read::GzDecoder;
use pprof::protos::{Message, Profile};
use spanmalloc::SpanMalloc;

#[global_allocator]
static GLOBAL: SpanMalloc = SpanMalloc;

/// Sizes are those of size classes, or whole pages, so that the profile has nothing to round.
const SIZES: [usize; 10] = [64, 112, 256, 640, 1024, 2048, 4096, 16_384, 32_768, 40_960];
/// Live bytes of each place, all threads together.
const LIVE_BYTES: usize = 24 << 20;
const THREADS: usize = 4;

struct Object {
    memory: *mut u8,
    size: usize,
}

// SAFETY: the memory is the object's.
unsafe impl Send for Object {}

impl Object {
    fn layout(size: usize) -> Layout {
        Layout::from_size_align(size, 8).unwrap()
    }
}

impl Drop for Object {
    fn drop(&mut self) {
        // SAFETY: allocated with that Layout by one of the places.
        unsafe { dealloc(self.memory, Self::layout(self.size)) };
    }
}

macro_rules! places {
    ($($name:ident: $index:literal),+) => {
        $(
            #[inline(never)]
            fn $name() -> Object {
                let size = SIZES[$index];
                // SAFETY: the size is not zero.
                let memory = unsafe { alloc(Object::layout(size)) };
                assert!(!memory.is_null());
                // SAFETY: as large as that.
                unsafe { memory.write($index) };
                Object { memory, size }
            }
        )+
        /// The places that allocate, by name.
        const PLACES: [(&str, fn() -> Object); 10] = [$((stringify!($name), $name)),+];
    };
}

places!(
    place_a: 0, place_b: 1, place_c: 2, place_d: 3, place_e: 4,
    place_f: 5, place_g: 6, place_h: 7, place_i: 8, place_j: 9
);

/// Where the program is loaded.
fn load_bias() -> u64 {
    extern "C" fn first(info: *mut libc::dl_phdr_info, _: usize, bias: *mut c_void) -> i32 {
        // SAFETY: as `dl_iterate_phdr` promises; `bias` is what was given to it.
        unsafe { *bias.cast::<u64>() = (*info).dlpi_addr };
        1
    }
    let mut bias = 0_u64;
    // SAFETY: `first` is called with a valid record, and the address of `bias`.
    unsafe { libc::dl_iterate_phdr(Some(first), (&raw mut bias).cast()) };
    bias
}

/// What the profile says of each place: bytes allocated, and in use.
fn of_places(gzipped: &[u8]) -> HashMap<&'static str, (f64, f64)> {
    let mut bytes = Vec::new();
    GzDecoder::new(gzipped).read_to_end(&mut bytes).unwrap();
    let profile = Profile::parse_from_bytes(&bytes).unwrap();
    let loader = addr2line::Loader::new(std::env::current_exe().unwrap()).unwrap();
    let bias = load_bias();
    let mut place_of = HashMap::new();
    for location in &profile.location {
        let symbol = loader.find_symbol(location.address.wrapping_sub(bias));
        let place = PLACES
            .iter()
            .find(|(name, _)| symbol.is_some_and(|symbol| symbol.contains(name)));
        if let Some((name, _)) = place {
            place_of.insert(location.id, *name);
        }
    }
    let mut sums = HashMap::new();
    for sample in &profile.sample {
        let place = sample.location_id.iter().find_map(|id| place_of.get(id));
        if let Some(place) = place {
            let sum: &mut (f64, f64) = sums.entry(*place).or_default();
            sum.0 += sample.value[1] as f64;
            sum.1 += sample.value[3] as f64;
        }
    }
    sums
}

/// Allocates at all places in turns, half as much again as is to live, and has the rest freed by others.
fn work(to_free: &mpsc::Sender<Object>) -> Vec<Object> {
    let mut live = Vec::new();
    let count = |index: usize| LIVE_BYTES / THREADS / SIZES[index];
    let rounds = count(0);
    for round in 0..rounds {
        for (index, (_, place)) in PLACES.iter().enumerate() {
            // As many of each place as it is to have, spread over the rounds.
            let upto = |round: usize| count(index) * round / rounds;
            for number in upto(round)..upto(round + 1) {
                live.push(place());
                if number % 2 == 0 {
                    to_free.send(place()).unwrap();
                }
            }
        }
    }
    live
}

fn assert_near(name: &str, what: &str, estimate: f64, truth: f64) {
    let error = (estimate - truth).abs() / truth;
    assert!(
        error <= 0.05,
        "{name}: {estimate} bytes {what}, not {truth}"
    );
}

#[test]
fn profile_is_within_five_per_cent_of_the_truth_at_each_place() {
    alone_with(&[("SPANMALLOC_PROFILE_RATE", "2KiB")], || {
        let (sender, receiver) = mpsc::channel();
        let frees = thread::spawn(move || receiver.into_iter().for_each(drop));
        let threads: Vec<_> = (0..THREADS)
            .map(|_| {
                let sender = sender.clone();
                thread::spawn(move || work(&sender))
            })
            .collect();
        drop(sender);
        let live: Vec<Vec<Object>> = threads.into_iter().map(|it| it.join().unwrap()).collect();
        frees.join().unwrap();
        let mut gzipped = Vec::new();
        spanmalloc::profile::heap(&mut gzipped).unwrap();
        let sums = of_places(&gzipped);
        for (index, (name, _)) in PLACES.iter().enumerate() {
            let of_this = live.iter().flatten().filter(|it| it.size == SIZES[index]);
            let truth = (of_this.count() * SIZES[index]) as f64;
            let (allocated, in_use) = sums.get(name).copied().unwrap_or_default();
            assert_near(name, "in use", in_use, truth);
            assert_near(name, "allocated", allocated, truth * 1.5);
        }
        // All that lived is freed, and gone from the profile.
        drop(live);
        gzipped.clear();
        spanmalloc::profile::heap(&mut gzipped).unwrap();
        for (name, (_, in_use)) in of_places(&gzipped) {
            assert!(in_use < 1.0, "{name}: {in_use} bytes in use, not 0");
        }
    });
}
