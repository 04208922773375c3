//! The page allocator of an arena against one state for each page. The files of the module are the
//! allocator's own, compiled into this program.

#![no_main]

#[path = "../../src/pages/mod.rs"]
#[allow(dead_code, unused_imports, reason = "the module serves the allocator")]
mod pages;

use arbitrary::{Arbitrary, Unstructured};
use libfuzzer_sys::fuzz_target;

use pages::{ARENA_PAGES, ArenaPages, Taken};

/// Most operations of one input.
const OPS_MAX: usize = 200;

/// An operation; numbers are taken modulo what is possible.
#[derive(Arbitrary, Debug)]
enum Op {
    /// Makes pages usable, from the first one that is not.
    Grow {
        count: u16,
    },
    Alloc {
        count: Count,
    },
    AllocAligned {
        count: Count,
        shift: u8,
    },
    AllocAt {
        at: u16,
        count: Count,
    },
    /// Frees pages in use, from the first one at or above `at`.
    Free {
        at: u16,
        count: Count,
        released: bool,
    },
    /// Takes pages to release, and frees them as released.
    Release {
        max: Count,
        shift: u8,
    },
}

/// A count of pages: small, or any.
#[derive(Arbitrary, Debug)]
enum Count {
    Small(u8),
    Any(u16),
}

impl Count {
    fn get(&self) -> u32 {
        match *self {
            Self::Small(count) => u32::from(count % 80) + 1,
            Self::Any(count) => u32::from(count) % ARENA_PAGES + 1,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Unusable,
    Used,
    Dirty,
    Released,
}

impl State {
    fn is_free(self) -> bool {
        matches!(self, Self::Dirty | Self::Released)
    }
}

/// An arena and the naive model of it.
struct World {
    arena: ArenaPages,
    pages: Vec<State>,
}

impl World {
    fn all_free(&self, first: u32, count: u32) -> bool {
        let range = first as usize..(first + count) as usize;
        let pages = self.pages.get(range);
        pages.is_some_and(|pages| pages.iter().all(|page| page.is_free()))
    }

    /// The lowest free range, in one walk: how long the free run before each page is.
    fn lowest(&self, count: u32, align: u32) -> Option<u32> {
        let mut run_start = 0;
        for page in 0..ARENA_PAGES {
            if !self.pages[page as usize].is_free() {
                run_start = page + 1;
            } else if page + 1 >= run_start.next_multiple_of(align) + count {
                return Some(run_start.next_multiple_of(align));
            }
        }
        None
    }

    /// Marks a range used; what the arena must have said.
    fn take(&mut self, first: u32, count: u32) -> Taken {
        let pages = &mut self.pages[first as usize..][..count as usize];
        let released = pages
            .iter()
            .filter(|page| **page == State::Released)
            .count();
        pages.fill(State::Used);
        Taken {
            first,
            count,
            released: released as u32,
        }
    }

    fn free(&mut self, first: u32, count: u32, released: bool) {
        self.arena.free(first, count, released);
        let state = if released {
            State::Released
        } else {
            State::Dirty
        };
        self.pages[first as usize..][..count as usize].fill(state);
    }

    /// The pages in `state` from the first such page at or above `at`, at most `count`.
    fn range_in(&self, state: State, at: u32, count: u32) -> Option<(u32, u32)> {
        let first = (at..ARENA_PAGES).find(|page| self.pages[*page as usize] == state)?;
        let pages = self.pages[first as usize..].iter().take(count as usize);
        Some((
            first,
            pages.take_while(|page| **page == state).count() as u32,
        ))
    }

    fn apply(&mut self, op: &Op) {
        match op {
            Op::Grow { count } => {
                let count = u32::from(*count) % ARENA_PAGES + 1;
                if let Some((first, count)) = self.range_in(State::Unusable, 0, count) {
                    self.arena.grow(first, count);
                    self.pages[first as usize..][..count as usize].fill(State::Released);
                }
            }
            Op::Alloc { count } => {
                let count = count.get();
                let expected = self.lowest(count, 1).map(|first| self.take(first, count));
                assert_eq!(self.arena.alloc(count), expected);
            }
            Op::AllocAligned { count, shift } => {
                let (count, align) = (count.get(), 1 << (shift % 14));
                let expected = self
                    .lowest(count, align)
                    .map(|first| self.take(first, count));
                assert_eq!(self.arena.alloc_aligned(count, align), expected);
            }
            Op::AllocAt { at, count } => {
                let (at, count) = (u32::from(*at) % ARENA_PAGES, count.get());
                let expected = self.all_free(at, count).then(|| self.take(at, count));
                assert_eq!(self.arena.alloc_at(at, count), expected);
            }
            Op::Free {
                at,
                count,
                released,
            } => {
                let at = u32::from(*at) % ARENA_PAGES;
                if let Some((first, count)) = self.range_in(State::Used, at, count.get()) {
                    self.free(first, count, *released);
                }
            }
            Op::Release { max, shift } => self.release(max.get(), 1 << (shift % 14)),
        }
    }

    /// What is taken to be released is free, at most what was asked, and has a dirty page; it is
    /// none only if no page is dirty.
    fn release(&mut self, max: u32, align: u32) {
        let Some(taken) = self.arena.take_releasable(max, align) else {
            assert!(!self.pages.contains(&State::Dirty));
            return;
        };
        assert!(taken.count <= max && self.all_free(taken.first, taken.count));
        assert_eq!(taken, self.take(taken.first, taken.count));
        assert!(taken.released < taken.count);
        self.free(taken.first, taken.count, true);
    }

    fn check(&self) {
        let mut longest = 0;
        let mut run = 0;
        let mut free = 0;
        let mut dirty = 0;
        for (page, state) in (0..).zip(&self.pages) {
            assert_eq!(self.arena.is_free(page), state.is_free(), "page {page}");
            run = if state.is_free() { run + 1 } else { 0 };
            longest = longest.max(run);
            free += u32::from(state.is_free());
            dirty += u32::from(*state == State::Dirty);
        }
        let counts = (
            self.arena.max_run(),
            self.arena.free_pages(),
            self.arena.dirty_pages(),
        );
        assert_eq!(counts, (longest, free, dirty));
        assert_eq!(self.arena.trailing_free(ARENA_PAGES), run);
    }
}

fuzz_target!(|bytes: &[u8]| {
    let mut bytes = Unstructured::new(bytes);
    let mut world = World {
        arena: ArenaPages::new(),
        pages: vec![State::Unusable; ARENA_PAGES as usize],
    };
    world.apply(&Op::Grow {
        count: ARENA_PAGES as u16 / 2,
    });
    for _ in 0..OPS_MAX {
        if bytes.is_empty() {
            break;
        }
        let Ok(op) = bytes.arbitrary::<Op>() else {
            break;
        };
        world.apply(&op);
        world.check();
    }
});
