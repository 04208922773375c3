//! The whole heap against a shadow of it, by random operations of one thread and its helpers.
//!
//! After each operation the shadow knows every live object: none overlaps another, each is aligned
//! and keeps its contents until it is freed or resized, and zeroed memory is zero. When all is freed
//! the page heap has its pages back. The same operations serve the fuzzer (`fuzz/`).

#[path = "shadow/op.rs"]
mod op;
#[path = "shadow/world.rs"]
mod world;

use std::sync::Mutex;

use proptest::prelude::*;

use op::{HUGE_FROM_BYTES, Op, Then};
use world::World;

/// One test at a time uses the heap, since each looks at the statistics of the whole.
static HEAP: Mutex<()> = Mutex::new(());

/// Runs the operations in a fresh world.
fn run(ops: &[Op]) {
    let _guard = HEAP.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let mut world = World::new();
    for op in ops {
        world.apply(op);
    }
    world.finish();
}

fn size() -> impl Strategy<Value = usize> {
    (any::<u8>(), any::<u32>()).prop_map(|(shape, number)| op::size(shape, number))
}

/// Small sizes, of which magazines fill and batches travel.
fn small_size() -> impl Strategy<Value = usize> {
    prop_oneof![1..=4_usize, 5..=64_usize, Just(16_usize), 65..=1024_usize]
}

fn align() -> impl Strategy<Value = usize> {
    any::<u8>().prop_map(op::align)
}

fn count() -> impl Strategy<Value = usize> {
    prop_oneof![3 => 1..4_usize, 1 => 4..700_usize]
}

fn then() -> impl Strategy<Value = Then> {
    prop_oneof![3 => Just(Then::Free), 1 => size().prop_map(|new_size| Then::Realloc { new_size })]
}

fn op() -> impl Strategy<Value = Op> {
    let index = any::<u32>().prop_map(|index| index as usize);
    let handoff = (index.clone(), count(), 0..2_usize, then(), any::<bool>()).prop_map(
        |(index, count, helper, then, wait)| Op::Handoff {
            index,
            count,
            helper,
            then,
            wait,
        },
    );
    prop_oneof![
        12 => (size(), align(), count())
            .prop_map(|(size, align, count)| Op::Alloc { size, align, count }),
        8 => (small_size(), count())
            .prop_map(|(size, count)| Op::Alloc { size, align: 1, count }),
        5 => (size(), align()).prop_map(|(size, align)| Op::AllocZeroed { size, align }),
        14 => (index.clone(), count()).prop_map(|(index, count)| Op::Free { index, count }),
        8 => (index, size()).prop_map(|(index, new_size)| Op::Realloc { index, new_size }),
        8 => handoff,
        1 => (0..2_usize).prop_map(|helper| Op::ThreadExit { helper }),
        1 => Just(Op::Trim),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 96,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn the_heap_agrees_with_its_shadow(ops in prop::collection::vec(op(), 1..200)) {
        run(&ops);
    }
}

#[test]
fn every_small_size_at_every_small_alignment_agrees_with_the_shadow() {
    let layouts = |size| {
        [1, 2, 4, 8, 16, 64].map(|align| Op::Alloc {
            size,
            align,
            count: 3,
        })
    };
    let ops: Vec<Op> = (1..=64).flat_map(layouts).collect();
    run(&ops);
}

#[test]
fn batches_between_three_threads_agree_with_the_shadow() {
    let round = |round: usize| {
        let then = match round % 3 {
            0 => Then::Realloc { new_size: 48 },
            _ => Then::Free,
        };
        let handoff = |helper| Op::Handoff {
            index: 7 * round,
            count: 900,
            helper,
            then,
            wait: false,
        };
        [
            Op::Alloc {
                size: [1, 2, 16, 48, 512][round % 5],
                align: 1,
                count: 2000,
            },
            handoff(0),
            handoff(1),
            Op::Alloc {
                size: 16,
                align: 8,
                count: 300,
            },
        ]
    };
    let ops: Vec<Op> = (0..60).flat_map(round).collect();
    run(&ops);
}

#[test]
fn a_huge_object_keeps_its_ends_as_it_grows_shrinks_and_changes_threads() {
    let resize = |new_size| Op::Realloc { index: 0, new_size };
    let elsewhere = |new_size| {
        let then = Then::Realloc { new_size };
        Op::Handoff {
            index: 0,
            count: 1,
            helper: 0,
            then,
            wait: true,
        }
    };
    run(&[
        Op::AllocZeroed {
            size: HUGE_FROM_BYTES,
            align: 1 << 16,
        },
        resize(3 * HUGE_FROM_BYTES + 1),
        elsewhere(5 * HUGE_FROM_BYTES),
        resize(2 * HUGE_FROM_BYTES - 1),
        resize(1 << 20),
        elsewhere(HUGE_FROM_BYTES - 1),
        resize(100),
        resize(HUGE_FROM_BYTES),
        Op::Trim,
    ]);
}
