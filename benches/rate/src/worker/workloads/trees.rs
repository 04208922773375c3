//! Trees: the allocation of programs that are made of small nodes.
//!
//! `binary-trees` is after the description of that name in the Computer Language Benchmarks Game, an
//! adaptation of Hans Boehm's GCBench. `btree-map` is an ordinary index: the map of the standard
//! library, with strings.

use std::collections::BTreeMap;
use std::hint::black_box;

use spanmalloc_rate::Scale;

use super::object::array;
use super::{Size, Workload};
use crate::measure::Meter;
use crate::random::Random;

pub const BINARY_TREES: Workload = Workload::in_one_thread(
    "binary-trees",
    "many short-lived trees of depth 4 to 18 beside a long-lived one (Benchmarks Game, GCBench)",
    "allocation and free of one node",
    binary_trees,
);

pub const BTREE_MAP: Workload = Workload::in_one_thread(
    "btree-map",
    "a BTreeMap<u64, String> of 100,000 random keys grows, changes and empties",
    "insertion and removal of one entry",
    btree_map,
);

const DEPTH_MIN: u32 = 4;

struct Tree {
    children: Option<(Box<Tree>, Box<Tree>)>,
}

impl Tree {
    fn grow(depth: u32) -> Self {
        let child = || Box::new(Self::grow(depth - 1));
        Self {
            children: (depth > 0).then(|| (child(), child())),
        }
    }

    fn nodes(&self) -> u64 {
        match &self.children {
            Some((left, right)) => 1 + left.nodes() + right.nodes(),
            None => 1,
        }
    }

    /// Nodes of this tree, which must be of that depth.
    fn check(&self, depth: u32) -> u64 {
        let nodes = self.nodes();
        assert!(nodes == (2 << depth) - 1, "a tree lost nodes");
        nodes
    }
}

fn binary_trees(size: &Size, meter: &mut Meter) {
    let depth_max = match size.scale {
        Scale::Full => 18,
        Scale::Quick => 14,
    };
    meter.run(|| {
        let tree = |depth| black_box(Tree::grow(depth));
        let mut nodes = tree(depth_max + 1).check(depth_max + 1);
        let long_lived = tree(depth_max);
        for depth in (DEPTH_MIN..=depth_max).step_by(2) {
            for _ in 0..1 << (depth_max - depth + DEPTH_MIN) {
                nodes += tree(depth).check(depth);
            }
        }
        nodes + long_lived.check(depth_max)
    });
}

/// Keys of the full map.
const KEYS: usize = 100_000;

/// What the strings are made of.
const TEXT: &str =
    "the quick brown fox jumps over the lazy dog while five boxing wizards pack my box";

/// The string of a key: 8 to 64 bytes.
fn text(key: u64) -> &'static str {
    let len = 8 + (key >> 8) as usize % 57;
    let start = key as usize % (TEXT.len() - len + 1);
    &TEXT[start..start + len]
}

fn btree_map(size: &Size, meter: &mut Meter) {
    let replaced = size.of(1_200_000);
    let keys = array(KEYS, 0);
    let mut random = Random::new(61);
    meter.run(|| {
        let mut map = BTreeMap::new();
        let mut insert = |map: &mut BTreeMap<_, _>| {
            let key = random.next();
            let before = map.insert(key, text(key).to_owned());
            assert!(before.is_none(), "a key came twice");
            key
        };
        for key in keys.iter_mut() {
            *key = insert(&mut map);
        }
        let mut choose = Random::new(62);
        for _ in 0..replaced {
            let key = &mut keys[choose.below(keys.len())];
            remove(&mut map, *key);
            *key = insert(&mut map);
        }
        choose.shuffle(keys);
        for &key in keys.iter() {
            remove(&mut map, key);
        }
        assert!(map.is_empty(), "the map has more than was inserted");
        replaced + keys.len() as u64
    });
}

fn remove(map: &mut BTreeMap<u64, String>, key: u64) {
    let value: Option<String> = map.remove(&key);
    assert!(
        value.as_deref() == Some(text(key)),
        "a string was overwritten"
    );
}
