use super::*;
use crate::alone::alone;
use crate::base::size_class::class_for;
use crate::{malloc, mcache};
use std::vec::Vec;

/// Objects of a class that nothing else uses.
const BYTES: usize = 21760;

fn class() -> ClassStats {
    let stats = stats();
    *stats
        .classes
        .iter()
        .find(|class| class.object_bytes == BYTES)
        .unwrap()
}

/// Bytes of the slots of the class that threads have to themselves, as the spans' bitmaps tell.
fn private_bytes() -> usize {
    let class = class_for(BYTES, 16);
    mcache::all()
        .map(|mcache| mcache.private_slots(class))
        .sum::<usize>()
        * BYTES
}

#[test]
fn what_was_taken_from_spans_and_is_not_free_is_live() {
    alone(|| {
        let before = class();
        let mut objects: Vec<usize> = Vec::new();
        let live = || class().live_objects - before.live_objects;
        for round in 1..=3 {
            objects.extend((0..100).map(|_| malloc::alloc(BYTES, 16).expose_provenance()));
            assert_eq!(live(), objects.len(), "round {round}");
            let kept = objects.split_off(objects.len() / 2);
            let freed = core::mem::replace(&mut objects, kept);
            // Half of them in another thread, which exits.
            let (here, there) = freed.split_at(freed.len() / 2);
            here.iter().for_each(free);
            let there = there.to_vec();
            std::thread::spawn(move || there.iter().for_each(free))
                .join()
                .unwrap();
            assert_eq!(live(), objects.len(), "round {round}");
            // Two more counts of the same: by magazines, and by the bitmaps.
            let now = class();
            let came = now.allocated_objects - now.freed_objects;
            assert_eq!(came as usize, now.live_objects + now.magazine_objects);
            assert!(private_bytes() <= now.current_free_bytes, "{now:?}");
        }
        objects.iter().for_each(free);
        assert_eq!(live(), 0);
    });
}

#[allow(unsafe_code)]
fn free(object: &usize) {
    // SAFETY: an object of that Layout, freed once.
    unsafe { malloc::free(core::ptr::with_exposed_provenance_mut(*object), BYTES, 16) }
}
