//! Everything at once, for `SPANMALLOC_TEST_STRESS_SECONDS` (5): threads that allocate, resize, free and hand
//! over objects of all kinds, threads that come and go, forks whose children check and go on, changes of
//! the configuration, trims, statistics and their laws, heap profiles, and times of scarcity, in which the
//! address space or a hard memory limit refuses allocations.
//!
//! All bytes of all objects are verified (`common::Object`). The numbers that decide come from
//! `SPANMALLOC_TEST_STRESS_SEED` (1), the number of a thread's place, and how many threads had it before;
//! a failure prints them. Variables of the allocator hold as they do for any program. C's interface has the
//! same in `preload/stress.c`.

#![cfg(not(miri))] // Starts processes.

mod common;
#[path = "stats/laws.rs"]
mod laws;
#[path = "stress/watch.rs"]
mod watch;

use std::alloc::{GlobalAlloc, Layout};
use std::env;
use std::ffi::c_void;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process;
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, TryLockError};
use std::thread;
use std::time::{Duration, Instant};

use common::{Numbers, Object, address_space_bytes, alone};
use laws::check_always;
use spanmalloc::{HugePages, MemoryLimit, Release, ReleaseBy, SpanMalloc, background, stats, trim};
use watch::Watch;

const MIB: usize = 1 << 20;

/// Threads at a time.
const PLACES: usize = 4;
/// Most objects of a thread.
const OBJECTS: usize = 600;
/// Most bytes of a thread's objects, nearly.
const THREAD_BYTES: usize = 48 * MIB;
/// Objects that may be on their way from thread to thread.
const EXCHANGE: usize = 64;
/// Most steps of a thread before another one takes its place.
const THREAD_STEPS: usize = 20_000;
/// Steps of the child of a fork.
const CHILD_STEPS: usize = 300;
/// Seconds after which a child that hangs is ended.
const CHILD_SECONDS: u32 = 120;
/// Time without a step of one of the places after which the test fails. A child that hangs is ended before.
const PATIENCE: Duration = Duration::from_secs(180);

/// The allocator, as what the standard library asks for must not fail: that would end the process. Where
/// it is refused, scarcity ends. Objects come from [`SpanMalloc`] itself, and may be refused.
struct Served;

impl Served {
    fn ask(mut ask: impl FnMut() -> *mut u8) -> *mut u8 {
        loop {
            let object = ask();
            if !object.is_null() {
                return object;
            }
            end_scarcity();
        }
    }
}

// SAFETY: all is passed on, once it succeeds.
unsafe impl GlobalAlloc for Served {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's contract.
        Self::ask(|| unsafe { SpanMalloc.alloc(layout) })
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's contract.
        Self::ask(|| unsafe { SpanMalloc.alloc_zeroed(layout) })
    }

    unsafe fn realloc(&self, object: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        // SAFETY: the caller's contract; what is refused changes nothing.
        Self::ask(|| unsafe { SpanMalloc.realloc(object, layout, new_size) })
    }

    unsafe fn dealloc(&self, object: *mut u8, layout: Layout) {
        // SAFETY: the caller's contract.
        unsafe { SpanMalloc.dealloc(object, layout) }
    }
}

#[global_allocator]
static GLOBAL: Served = Served;

/// What a place has; the objects that a thread leaves are the next one's.
struct Place {
    number: usize,
    threads: u64,
    numbers: Numbers,
    objects: Vec<Object>,
    bytes: usize,
    forks: bool,
}

static PLACE: [Mutex<Option<Place>>; PLACES] = [const { Mutex::new(None) }; PLACES];
static ON_THE_WAY: [Mutex<Option<Object>>; EXCHANGE] = [const { Mutex::new(None) }; EXCHANGE];

static SEED: AtomicU64 = AtomicU64::new(0);
static STOP: AtomicBool = AtomicBool::new(false);
/// Steps of each place.
static STEPS: [AtomicUsize; PLACES] = [const { AtomicUsize::new(0) }; PLACES];
static REFUSED: AtomicUsize = AtomicUsize::new(0);
static FORKS: AtomicUsize = AtomicUsize::new(0);

/// A number from the environment.
fn number(name: &str, otherwise: u64) -> u64 {
    env::var(name).map_or(otherwise, |text| text.parse().expect(name))
}

fn set_address_space(bytes: u64) {
    let limit = libc::rlimit {
        rlim_cur: bytes,
        rlim_max: libc::RLIM_INFINITY,
    };
    // SAFETY: `limit` is valid for reads.
    unsafe { libc::setrlimit(libc::RLIMIT_AS, &limit) };
}

fn end_scarcity() {
    set_address_space(libc::RLIM_INFINITY);
    spanmalloc::set_config(spanmalloc::config().hard_limit(false));
}

/// The lock, if nobody has it. In the child of a fork, who had it then has it for ever.
fn try_lock<T>(mutex: &Mutex<T>) -> Option<MutexGuard<'_, T>> {
    match mutex.try_lock() {
        Ok(guard) => Some(guard),
        Err(TryLockError::WouldBlock) => None,
        Err(TryLockError::Poisoned(_)) => unreachable!("a panic ends the process"),
    }
}

impl Place {
    /// Most objects are small; one in some hundreds is large, one in some thousands has its own mapping.
    fn any_size(&mut self) -> usize {
        match self.numbers.below(4000) {
            0 => 64 * MIB + self.numbers.below(8 * MIB),
            1..40 => 100_000 + self.numbers.below(4 * MIB),
            40..300 => 8_000 + self.numbers.below(92_000),
            300..700 => 1 + self.numbers.below(16),
            _ => self.numbers.size(12),
        }
    }

    fn any_align(&mut self) -> usize {
        match self.numbers.below(200) {
            0 => 1 << self.numbers.below(27),
            1..40 => 1 << self.numbers.below(13),
            _ => 8,
        }
    }

    fn keep(&mut self, object: Option<Object>) {
        match object {
            Some(object) => {
                self.bytes += object.size();
                self.objects.push(object);
            }
            None => {
                REFUSED.fetch_add(1, Relaxed);
            }
        }
    }

    fn remove_any(&mut self) -> Option<Object> {
        if self.objects.is_empty() {
            return None;
        }
        let index = self.numbers.below(self.objects.len());
        let object = self.objects.swap_remove(index);
        self.bytes -= object.size();
        Some(object)
    }

    fn allocate(&mut self) {
        let (size, align) = (self.any_size(), self.any_align());
        let seed = self.numbers.below(1 << 16) as u64;
        let object = match self.numbers.below(4) {
            0 => Object::try_zeroed(size, align, seed),
            _ => Object::try_new(size, align, seed),
        };
        self.keep(object);
    }

    fn resize(&mut self) {
        let Some(mut object) = self.remove_any() else {
            return;
        };
        let size = match self.numbers.below(3) {
            0 if object.size() < 64 * MIB => object.size() + object.size() / 2 + 1,
            _ => self.any_size(),
        };
        object.check();
        if !object.try_resize(size) {
            REFUSED.fetch_add(1, Relaxed);
        }
        self.keep(Some(object));
    }

    fn send(&mut self) {
        let index = self.numbers.below(EXCHANGE);
        if let Some(mut slot) = try_lock(&ON_THE_WAY[index])
            && slot.is_none()
        {
            *slot = self.remove_any();
        }
    }

    fn receive(&mut self) {
        let index = self.numbers.below(EXCHANGE);
        let received = try_lock(&ON_THE_WAY[index]).and_then(|mut slot| slot.take());
        if let Some(object) = received {
            object.check();
            self.keep(Some(object));
        }
    }

    fn check_all(&self) {
        self.objects.iter().for_each(Object::check);
    }

    fn change_config(&mut self) {
        let config = spanmalloc::config();
        let config = match self.numbers.below(4) {
            0 => config.release([Release::Lazily, Release::AtOnce][self.numbers.below(2)]),
            1 => config.release_by([ReleaseBy::DontNeed, ReleaseBy::Free][self.numbers.below(2)]),
            2 => config.huge_pages(
                [HugePages::Auto, HugePages::Always, HugePages::Never][self.numbers.below(3)],
            ),
            _ => config.background(self.numbers.below(2) == 0),
        };
        spanmalloc::set_config(config);
        if self.numbers.below(4) == 0 {
            background::start();
        }
    }

    /// A profile can be made at any time.
    fn profile(&mut self) {
        #[cfg(feature = "profile")]
        {
            let mut profile = Vec::new();
            spanmalloc::profile::heap(&mut profile).unwrap();
            assert!(profile.starts_with(&[0x1f, 0x8b]));
        }
    }

    fn fork(&mut self) {
        // SAFETY: the child calls nothing but the allocator and what needs no lock of other threads.
        match unsafe { libc::fork() } {
            -1 => {} // There was no memory for it.
            0 => {
                // SAFETY: no precondition.
                unsafe { libc::alarm(CHILD_SECONDS) };
                let is_whole = self.reporting(Self::be_child).is_some();
                // SAFETY: no precondition.
                unsafe { libc::_exit(i32::from(!is_whole)) }
            }
            child => {
                FORKS.fetch_add(1, Relaxed);
                let mut status = -1;
                // SAFETY: `status` is valid for writes.
                assert_eq!(unsafe { libc::waitpid(child, &mut status, 0) }, child);
                assert_eq!(status, 0, "status of a child");
            }
        }
    }

    /// The child has the objects of its thread, and those that were on their way.
    fn be_child(&mut self) {
        self.forks = false;
        self.check_all();
        for slot in &ON_THE_WAY {
            if let Some(Some(object)) = try_lock(slot).as_deref() {
                object.check();
            }
        }
        self.work(CHILD_STEPS);
        check_always(&stats());
        if self.numbers.below(4) == 0 {
            self.profile();
        }
        self.objects.clear();
        trim();
    }

    fn step(&mut self) {
        let is_full = self.objects.len() >= OBJECTS - 1 || self.bytes > THREAD_BYTES;
        match self.numbers.below(4000) {
            ..1680 if !is_full => self.allocate(),
            1680..1920 if !is_full => self.receive(),
            1920..2160 => self.send(),
            2160..2640 => self.resize(),
            3990 if self.forks => self.fork(),
            3991 => drop(trim()),
            3992 => self.profile(),
            3993..3995 => check_always(&stats()),
            3995..3998 => self.check_all(),
            3998.. => self.change_config(),
            _ => while self.remove_any().is_some() && self.bytes > THREAD_BYTES {},
        }
        STEPS[self.number].fetch_add(1, Relaxed);
    }

    fn work(&mut self, steps: usize) {
        for _ in 0..steps {
            if STOP.load(Relaxed) {
                break;
            }
            self.step();
        }
    }

    /// Runs `body`; if it panics, `None`, and who it was is told.
    fn reporting(&mut self, body: impl FnOnce(&mut Self)) -> Option<()> {
        let done = catch_unwind(AssertUnwindSafe(|| body(self)));
        if done.is_err() {
            let (seed, number, threads) = (SEED.load(Relaxed), self.number, self.threads);
            eprintln!(
                "seed {seed}, place {number}, thread {threads}, process {}",
                process::id()
            );
        }
        done.ok()
    }
}

/// A thread that the standard library knows nothing of, which would need memory to start it.
extern "C" fn run(place: *mut c_void) -> *mut c_void {
    let number = place.addr();
    let mut place = PLACE[number].lock().unwrap();
    let place = place.as_mut().unwrap();
    let seed = SEED.load(Relaxed) * 1_000_003 + number as u64 * 7_919 + place.threads;
    place.numbers = Numbers(seed);
    let done = place.reporting(|place| {
        let most = [50, THREAD_STEPS, THREAD_STEPS][place.numbers.below(3)];
        let steps = 1 + place.numbers.below(most);
        place.work(steps);
    });
    if done.is_none() {
        process::abort();
    }
    place.threads += 1;
    ptr::null_mut()
}

/// Starts threads where there are none. One that the system refuses is tried again later.
fn start_threads(threads: &mut [Option<libc::pthread_t>; PLACES]) {
    for (number, thread) in threads.iter_mut().enumerate() {
        // The system says what has ended: a mark that a thread of few steps sets comes before its start is noted.
        // SAFETY: started below; once it is joined, another one or none takes its place.
        let runs = |thread| unsafe { libc::pthread_tryjoin_np(thread, ptr::null_mut()) } != 0;
        if thread.is_some_and(runs) {
            continue;
        }
        let mut started = 0;
        let place = ptr::without_provenance_mut(number);
        // SAFETY: `run` takes the number of a place; the thread is joined once.
        let error = unsafe { libc::pthread_create(&mut started, ptr::null(), run, place) };
        *thread = (error == 0).then_some(started);
    }
}

fn join(thread: &mut Option<libc::pthread_t>) {
    if let Some(thread) = thread.take() {
        // SAFETY: started by `start_threads`, and not joined yet.
        unsafe { libc::pthread_join(thread, ptr::null_mut()) };
    }
}

/// Makes memory scarce, or plenty.
fn change_weather(numbers: &mut Numbers) {
    let bytes = 30 * MIB + numbers.below(200 * MIB);
    let is_hard = numbers.below(2) == 0;
    match numbers.below(6) {
        0 => {
            spanmalloc::set_config(spanmalloc::config().hard_limit(is_hard));
            spanmalloc::set_memory_limit(MemoryLimit::Bytes(bytes));
        }
        // Not where something else in the process (a sanitizer) cannot do without address space.
        1 if number("SPANMALLOC_TEST_STRESS_LIMITS", 1) != 0 => {
            let more = numbers.below(16 * MIB);
            set_address_space((address_space_bytes() + more) as u64);
        }
        2 => end_scarcity(),
        3 => spanmalloc::set_memory_limit(MemoryLimit::None),
        4 => spanmalloc::set_memory_limit(MemoryLimit::Auto),
        _ => {}
    }
}

#[test]
fn everything_at_once_leaves_every_byte_where_it_was() {
    alone(|| {
        let time = Duration::from_secs(number("SPANMALLOC_TEST_STRESS_SECONDS", 5));
        SEED.store(number("SPANMALLOC_TEST_STRESS_SEED", 1), Relaxed);
        for (number, place) in PLACE.iter().enumerate() {
            *place.lock().unwrap() = Some(Place {
                number,
                threads: 0,
                numbers: Numbers(0),
                objects: Vec::with_capacity(OBJECTS),
                bytes: 0,
                forks: true,
            });
        }
        let mut weather = Numbers(SEED.load(Relaxed));
        let mut threads = [None; PLACES];
        let start = Instant::now();
        let steps = || STEPS.each_ref().map(|steps| steps.load(Relaxed));
        let mut watch = Watch::new(PATIENCE);
        // A machine that is busy may need longer than that to meet all of it.
        let has_met_all = || FORKS.load(Relaxed) > 0 && REFUSED.load(Relaxed) > 0;
        while start.elapsed() < time || !has_met_all() && start.elapsed() < time + PATIENCE {
            start_threads(&mut threads);
            change_weather(&mut weather);
            thread::sleep(Duration::from_millis(2 + weather.below(8) as u64));
            watch.look(steps());
        }
        STOP.store(true, Relaxed);
        end_scarcity();
        threads.iter_mut().for_each(join);
        for place in &PLACE {
            place.lock().unwrap().take();
        }
        for slot in &ON_THE_WAY {
            slot.lock().unwrap().take();
        }
        check_always(&stats());
        let (refused, forks) = (REFUSED.load(Relaxed), FORKS.load(Relaxed));
        let steps: usize = steps().iter().sum();
        println!("{steps} steps, {refused} allocations were refused, {forks} forks");
        assert!(
            steps > 0 && forks > 0 && refused > 0,
            "{steps}, {forks}, {refused}"
        );
    });
}
