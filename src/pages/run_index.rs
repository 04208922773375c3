//! The lowest arena with a long enough free run, among all arenas.
//!
//! The longest free run of every arena is a leaf of a tree of maxima with fan-out 64: 65,536 leaves
//! under 1,024 maxima under 16. A search goes down from the top and takes the first number that is
//! large enough on each level, so it looks at no more than 16 + 64 + 64 numbers of two bytes; 64 of
//! them are two cache lines. Arenas that do not exist have a longest run of zero.
//!
//! 1. `groups[g]` is the maximum of `leaves[64 * g..64 * (g + 1)]`, and `top[t]` that of
//!    `groups[64 * t..64 * (t + 1)]`.
//! 2. All-zero bytes are valid and mean that no arena has a free page. In a static the 130 KiB are
//!    zero pages of the program's image, of which only the ones written to take memory.
//!
//! It does not know the pages of an arena: whoever changes an [`ArenaPages`](super::ArenaPages)
//! hands its new maximum to [`RunIndex::set`].

use super::{ARENA_PAGES, MAX_ARENAS};

/// Children of a node: two cache lines of `u16`.
const FAN_OUT: usize = 64;

/// Nodes above the leaves.
const GROUPS: usize = MAX_ARENAS / FAN_OUT;

/// Nodes above the groups.
const TOP: usize = GROUPS / FAN_OUT;

const _: () = assert!(TOP * FAN_OUT * FAN_OUT == MAX_ARENAS && TOP <= FAN_OUT);

/// Longest free run of each arena, in pages, as a tree of maxima.
pub(crate) struct RunIndex {
    /// Maxima of 64 groups each.
    top: [u16; TOP],
    /// Maxima of 64 leaves each.
    groups: [u16; GROUPS],
    /// Longest free run of each arena, in pages.
    leaves: [u16; MAX_ARENAS],
}

impl RunIndex {
    /// The index in which no arena has a free page: all bytes zero.
    pub(crate) const fn new() -> Self {
        Self {
            top: [0; TOP],
            groups: [0; GROUPS],
            leaves: [0; MAX_ARENAS],
        }
    }

    /// Records that the longest free run of `arena` is `max_run` pages, at most [`ARENA_PAGES`].
    ///
    /// `arena` is less than [`MAX_ARENAS`].
    pub(crate) fn set(&mut self, arena: usize, max_run: u32) {
        debug_assert!(max_run <= ARENA_PAGES);
        let new = max_run as u16;
        let old = core::mem::replace(&mut self.leaves[arena], new);
        let group = arena / FAN_OUT;
        let Some((old, new)) =
            raise_or_lower(&mut self.groups[group], &self.leaves, group, old, new)
        else {
            return;
        };
        let top = group / FAN_OUT;
        raise_or_lower(&mut self.top[top], &self.groups, top, old, new);
    }

    /// The lowest arena with a free run of at least `count` pages, `count` at least one.
    pub(crate) fn first_fit(&self, count: u32) -> Option<usize> {
        debug_assert!(count > 0);
        let count = u16::try_from(count).ok()?;
        let top = self.top.iter().position(|&max| max >= count)?;
        let group = first_child(&self.groups, top, count)?;
        first_child(&self.leaves, group, count)
    }
}

/// The children of node `parent` on the level `children`.
#[inline]
fn children_of(children: &[u16], parent: usize) -> &[u16] {
    &children[parent * FAN_OUT..][..FAN_OUT]
}

/// Index on its level of the first child of `parent` that is at least `count`.
#[inline]
fn first_child(children: &[u16], parent: usize, count: u16) -> Option<usize> {
    let child = children_of(children, parent)
        .iter()
        .position(|&max| max >= count)?;
    Some(parent * FAN_OUT + child)
}

/// Repairs `max`, the maximum of the children of `parent`, after one of them went from `old` to
/// `new`. Returns the old and the new maximum if it changed.
#[inline]
fn raise_or_lower(
    max: &mut u16,
    children: &[u16],
    parent: usize,
    old: u16,
    new: u16,
) -> Option<(u16, u16)> {
    let before = *max;
    if new >= before {
        *max = new;
    } else if old == before {
        // The child was a largest one: only now must the others be looked at.
        *max = children_of(children, parent)
            .iter()
            .copied()
            .max()
            .unwrap_or(0);
    }
    (*max != before).then_some((before, *max))
}

#[cfg(test)]
impl RunIndex {
    /// Panics if a maximum is not that of its children.
    pub(crate) fn check_invariants(&self) {
        for (level, children) in [
            (&self.top[..], &self.groups[..]),
            (&self.groups, &self.leaves),
        ] {
            for (parent, &max) in level.iter().enumerate() {
                let children = children_of(children, parent);
                assert_eq!(
                    children.iter().max(),
                    Some(&max),
                    "maximum of node {parent}"
                );
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::boxed::Box;
    use std::vec::Vec;

    use proptest::prelude::*;

    use super::*;

    /// An index on the heap, because it is large for the stack of a test thread.
    fn index() -> Box<RunIndex> {
        static EMPTY: RunIndex = RunIndex::new();
        let mut index = Box::new(RunIndex::new());
        index.leaves.copy_from_slice(&EMPTY.leaves);
        index
    }

    #[test]
    fn an_empty_index_fits_nothing() {
        let index = index();
        assert_eq!(index.first_fit(1), None);
        assert_eq!(index.first_fit(ARENA_PAGES), None);
        assert_eq!(index.first_fit(u32::MAX), None);
        index.check_invariants();
    }

    #[test]
    fn the_first_and_the_last_arena_are_found() {
        let mut index = index();
        index.set(MAX_ARENAS - 1, ARENA_PAGES);
        assert_eq!(index.first_fit(1), Some(MAX_ARENAS - 1));
        assert_eq!(index.first_fit(ARENA_PAGES), Some(MAX_ARENAS - 1));
        assert_eq!(index.first_fit(ARENA_PAGES + 1), None);
        index.set(0, 7);
        assert_eq!(index.first_fit(7), Some(0));
        assert_eq!(index.first_fit(8), Some(MAX_ARENAS - 1));
        index.set(MAX_ARENAS - 1, 0);
        assert_eq!(index.first_fit(8), None);
        index.check_invariants();
    }

    #[test]
    fn lowering_one_of_two_largest_keeps_the_maximum() {
        let mut index = index();
        index.set(64, 9);
        index.set(65, 9);
        index.set(64, 3);
        assert_eq!(index.first_fit(9), Some(65));
        assert_eq!(index.first_fit(3), Some(64));
        index.check_invariants();
    }

    /// An arena, often one of few that share nodes on all levels.
    fn arena() -> impl Strategy<Value = usize> {
        prop_oneof![0..4_usize, 62..67_usize, 4094..4099_usize, 0..MAX_ARENAS]
    }

    proptest! {
        #![proptest_config(ProptestConfig {
            cases: 64,
            failure_persistence: None,
            ..ProptestConfig::default()
        })]

        #[test]
        fn first_fit_agrees_with_a_walk_over_all_arenas(
            sets in prop::collection::vec((arena(), prop_oneof![0..12_u32, 0..=ARENA_PAGES]), 1..60),
        ) {
            let mut index = index();
            let mut naive: Vec<u32> = std::vec![0; MAX_ARENAS];
            for (arena, max_run) in sets {
                index.set(arena, max_run);
                naive[arena] = max_run;
                for count in [1, 2, 11, max_run.max(1), max_run + 1, ARENA_PAGES] {
                    let lowest = naive.iter().position(|&run| run >= count);
                    prop_assert_eq!(index.first_fit(count), lowest);
                }
            }
            index.check_invariants();
        }
    }
}
