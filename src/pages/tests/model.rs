//! [`ArenaPages`] against a naive model.
//!
//! The model is one state for each page and finds everything by walking. Operations are data, so
//! that a failing list of them can be read and made smaller. After each operation the arena checks
//! its own invariants, which recounts every summary.

use std::vec::Vec;

use proptest::prelude::*;

use super::super::{ARENA_PAGES, ArenaPages, CHUNK_PAGES, Taken};

/// An operation on an arena and on its model.
#[derive(Clone, Debug)]
enum Op {
    /// Makes up to `count` pages usable from the first unusable page at or above `at`.
    Grow {
        at: u32,
        count: u32,
    },
    Alloc {
        count: u32,
    },
    AllocAligned {
        count: u32,
        align: u32,
    },
    AllocAt {
        at: u32,
        count: u32,
    },
    /// Frees up to `count` pages from the first allocated page at or above `at`.
    Free {
        at: u32,
        count: u32,
        released: bool,
    },
    /// Frees `count` pages at each multiple of `stride` from `at` on, `teeth` times: holes.
    FreeComb {
        at: u32,
        count: u32,
        stride: u32,
        teeth: u32,
        released: bool,
    },
    /// Takes pages to release, and frees them as released.
    Release {
        max: u32,
        align: u32,
    },
}

/// State of a page in the model.
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
    fn new() -> Self {
        Self {
            arena: ArenaPages::new(),
            pages: std::vec![State::Unusable; ARENA_PAGES as usize],
        }
    }

    /// Whether all of `first..first + count` is in the arena and free.
    fn all_free(&self, first: u32, count: u32) -> bool {
        let range = first as usize..first as usize + count as usize;
        self.pages
            .get(range)
            .is_some_and(|pages| pages.iter().all(|page| page.is_free()))
    }

    /// The lowest free range, as the specification has it.
    fn lowest(&self, count: u32, align: u32) -> Option<u32> {
        (0..ARENA_PAGES).step_by(align as usize).find(|&first| {
            // The last page first, which makes the walk over full arenas quick.
            (first + count <= ARENA_PAGES)
                && self.pages[(first + count - 1) as usize].is_free()
                && self.all_free(first, count)
        })
    }

    /// Marks a range allocated in the model and returns what the arena must have said.
    fn take(&mut self, first: u32, count: u32) -> Taken {
        let pages = &mut self.pages[first as usize..][..count as usize];
        let released = pages
            .iter()
            .filter(|&&page| page == State::Released)
            .count() as u32;
        pages.fill(State::Used);
        Taken {
            first,
            count,
            released,
        }
    }

    /// The pages in `state` from the first such page at or above `at`, at most `count`.
    fn range_in(&self, state: State, at: u32, count: u32) -> Option<(u32, u32)> {
        let first = (at..ARENA_PAGES).find(|&page| self.pages[page as usize] == state)?;
        let pages = &self.pages[first as usize..];
        let count = pages
            .iter()
            .take(count as usize)
            .take_while(|&&page| page == state)
            .count();
        Some((first, count as u32))
    }

    fn free(&mut self, at: u32, count: u32, released: bool) {
        let Some((first, count)) = self.range_in(State::Used, at, count) else {
            return;
        };
        let state = if released {
            State::Released
        } else {
            State::Dirty
        };
        self.arena.free(first, count, released);
        self.pages[first as usize..][..count as usize].fill(state);
    }

    /// What [`ArenaPages::take_releasable`] must take, as the specification has it.
    fn releasable(&self, max: u32, align: u32) -> Option<(u32, u32)> {
        let dirty = |page: u32| self.pages[page as usize] == State::Dirty;
        let good = |&first: &u32| self.all_free(first, align) && (first..first + align).any(dirty);
        let mut groups = (0..ARENA_PAGES).step_by(align as usize).rev();
        if align <= max
            && let Some(mut first) = groups.by_ref().find(good)
        {
            let end = first + align;
            for group in groups.take_while(good) {
                if end - group > max {
                    break;
                }
                first = group;
            }
            return Some((first, end - first));
        }
        let last = (0..ARENA_PAGES).rev().find(|&page| dirty(page))?;
        let count = (0..=last)
            .rev()
            .take(max as usize)
            .take_while(|&page| dirty(page))
            .count();
        Some((last + 1 - count as u32, count as u32))
    }

    fn apply(&mut self, op: &Op) {
        match *op {
            Op::Grow { at, count } => {
                if let Some((first, count)) = self.range_in(State::Unusable, at, count) {
                    self.arena.grow(first, count);
                    self.pages[first as usize..][..count as usize].fill(State::Released);
                }
            }
            Op::Alloc { count } => {
                let expected = self.lowest(count, 1).map(|first| self.take(first, count));
                assert_eq!(self.arena.alloc(count), expected);
            }
            Op::AllocAligned { count, align } => {
                let expected = self
                    .lowest(count, align)
                    .map(|first| self.take(first, count));
                assert_eq!(self.arena.alloc_aligned(count, align), expected);
            }
            Op::AllocAt { at, count } => {
                let expected = self.all_free(at, count).then(|| self.take(at, count));
                assert_eq!(self.arena.alloc_at(at, count), expected);
            }
            Op::Free {
                at,
                count,
                released,
            } => self.free(at, count, released),
            Op::FreeComb {
                at,
                count,
                stride,
                teeth,
                released,
            } => {
                for at in (at..ARENA_PAGES)
                    .step_by(stride as usize)
                    .take(teeth as usize)
                {
                    self.free(at, count, released);
                }
            }
            Op::Release { max, align } => {
                let expected = self
                    .releasable(max, align)
                    .map(|run| self.take(run.0, run.1));
                assert_eq!(self.arena.take_releasable(max, align), expected);
                if let Some(taken) = expected {
                    self.arena.check_invariants();
                    self.free(taken.first, taken.count, true);
                }
            }
        }
    }

    /// Panics if the arena and the model differ, or the arena is inconsistent in itself.
    fn check(&self, probe: u32) {
        self.arena.check_invariants();
        let dirty = self
            .pages
            .iter()
            .filter(|&&page| page == State::Dirty)
            .count();
        assert_eq!(self.arena.dirty_pages(), dirty as u32);
        for (page, state) in (0..).zip(&self.pages) {
            assert_eq!(self.arena.is_free(page), state.is_free(), "page {page}");
        }
        let below = &self.pages[..probe as usize];
        let trailing = below.iter().rev().take_while(|page| page.is_free()).count();
        assert_eq!(self.arena.trailing_free(probe), trailing as u32);
    }
}

/// A count of pages: mostly small, often at the edge of a word or of a chunk.
fn count() -> impl Strategy<Value = u32> {
    prop_oneof![
        6 => 1..=32_u32,
        2 => 60..=70_u32,
        2 => 120..=300_u32,
        1 => 505..=520_u32,
        1 => 1..=ARENA_PAGES,
    ]
}

/// A page: anywhere, or near the edge of a chunk.
fn page() -> impl Strategy<Value = u32> {
    prop_oneof![
        0..ARENA_PAGES,
        (1..16_u32, 0..6_u32).prop_map(|(chunk, page)| chunk * CHUNK_PAGES + page - 3),
        0..600_u32,
    ]
}

/// A power of two of at most [`ARENA_PAGES`].
fn align() -> impl Strategy<Value = u32> {
    (0..=13_u32).prop_map(|shift| 1 << shift)
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        1 => (page(), count()).prop_map(|(at, count)| Op::Grow { at, count }),
        4 => count().prop_map(|count| Op::Alloc { count }),
        3 => (count(), align()).prop_map(|(count, align)| Op::AllocAligned { count, align }),
        2 => (page(), count()).prop_map(|(at, count)| Op::AllocAt { at, count }),
        4 => (page(), count(), any::<bool>())
            .prop_map(|(at, count, released)| Op::Free { at, count, released }),
        2 => (page(), 1..80_u32, 2..100_u32, 1..200_u32, any::<bool>()).prop_map(
            |(at, count, stride, teeth, released)| {
                Op::FreeComb { at, count, stride, teeth, released }
            }
        ),
        3 => (count(), align()).prop_map(|(max, align)| Op::Release { max, align }),
    ]
}

/// How the arena is before the operations: all of `grown` usable, of which the lower `used` in use.
fn start() -> impl Strategy<Value = (u32, u32)> {
    prop_oneof![Just(ARENA_PAGES), 1..=ARENA_PAGES, Just(0)]
        .prop_flat_map(|grown| (Just(grown), prop_oneof![Just(grown), 0..=grown]))
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 128,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn an_arena_agrees_with_one_state_for_each_page(
        (grown, used) in start(),
        ops in prop::collection::vec((op(), page()), 1..80),
    ) {
        let mut world = World::new();
        if grown > 0 {
            world.apply(&Op::Grow { at: 0, count: grown });
        }
        if used > 0 {
            world.apply(&Op::Alloc { count: used });
        }
        for (op, probe) in &ops {
            world.apply(op);
            world.check(*probe);
        }
    }
}
