//! The whole heap against its shadow: the operations of `tests/shadow.rs`, made from bytes.

#![no_main]

#[path = "../../tests/shadow/op.rs"]
mod op;
#[path = "../../tests/shadow/world.rs"]
mod world;

use arbitrary::{Arbitrary, Result, Unstructured};
use libfuzzer_sys::fuzz_target;

use op::{Op, Then};
use world::World;

/// Most operations of one input: more would make it slow and no better.
const OPS_MAX: usize = 300;

fn size(bytes: &mut Unstructured<'_>) -> Result<usize> {
    Ok(op::size(bytes.arbitrary()?, bytes.arbitrary()?))
}

/// One in four times so many that magazines fill and batches travel.
fn count(bytes: &mut Unstructured<'_>) -> Result<usize> {
    let count: u8 = bytes.arbitrary()?;
    Ok(match count {
        ..192 => 1 + usize::from(count % 4),
        _ => 8 * usize::from(count - 191),
    })
}

impl<'a> Arbitrary<'a> for Then {
    fn arbitrary(bytes: &mut Unstructured<'a>) -> Result<Self> {
        Ok(if bytes.ratio(3, 4)? {
            Self::Free
        } else {
            Self::Realloc {
                new_size: size(bytes)?,
            }
        })
    }
}

impl<'a> Arbitrary<'a> for Op {
    fn arbitrary(bytes: &mut Unstructured<'a>) -> Result<Self> {
        let index = |bytes: &mut Unstructured<'a>| bytes.arbitrary::<u16>().map(usize::from);
        Ok(match bytes.int_in_range(0..=31_u8)? {
            0..=10 => Self::Alloc {
                size: size(bytes)?,
                align: op::align(bytes.arbitrary()?),
                count: count(bytes)?,
            },
            11..=13 => Self::AllocZeroed {
                size: size(bytes)?,
                align: op::align(bytes.arbitrary()?),
            },
            14..=20 => Self::Free {
                index: index(bytes)?,
                count: count(bytes)?,
            },
            21..=25 => Self::Realloc {
                index: index(bytes)?,
                new_size: size(bytes)?,
            },
            26..=29 => Self::Handoff {
                index: index(bytes)?,
                count: count(bytes)?,
                helper: bytes.int_in_range(0..=1)?,
                then: bytes.arbitrary()?,
                wait: bytes.arbitrary()?,
            },
            30 => Self::ThreadExit {
                helper: bytes.int_in_range(0..=1)?,
            },
            _ => Self::Trim,
        })
    }
}

fuzz_target!(|bytes: &[u8]| {
    let mut bytes = Unstructured::new(bytes);
    let mut world = World::new();
    for _ in 0..OPS_MAX {
        if bytes.is_empty() {
            break;
        }
        let Ok(op) = bytes.arbitrary::<Op>() else {
            break;
        };
        world.apply(&op);
    }
    world.finish();
});
