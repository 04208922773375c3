//! The depot: batches and their records change hands.

use core::ptr::{self, NonNull};
use std::boxed::Box;
use std::sync::Arc;
use std::vec::Vec;

use loom::thread;

use super::check;
use crate::base::size_class::{CLASSES, SizeClass};
use crate::depot::{Batch, BatchRef, Depot, capacity};
use crate::sync::Mutex;

/// Batches that the producer of the model makes, and its fresh records.
const BATCHES: usize = 3;

/// A class whose depot keeps two batches, so that the producer meets a full one too.
fn depot_class() -> SizeClass {
    let mut classes = (1..CLASSES).map(SizeClass::new);
    let found = classes.find(|class| capacity(*class) == 2);
    found.unwrap_or_else(|| unreachable!("a class for the model"))
}

fn object(number: usize) -> *mut u8 {
    ptr::without_provenance_mut(number)
}

/// Numbers of the objects in a batch.
fn numbers(batch: &mut BatchRef) -> Vec<usize> {
    batch
        .get()
        .objects()
        .iter()
        .map(|object| object.addr())
        .collect()
}

#[test]
fn a_depot_loses_and_doubles_neither_objects_nor_records() {
    check(|| {
        let records: Vec<NonNull<Batch>> = (0..BATCHES)
            .map(|_| {
                // SAFETY: all-zero bytes are a valid, empty batch.
                let batch = unsafe { Box::<Batch>::new_zeroed().assume_init() };
                NonNull::from(Box::leak(batch))
            })
            .collect();
        // SAFETY: valid, alive to the end of the model, and each made into one `BatchRef`.
        let mut fresh: Vec<BatchRef> = records
            .iter()
            .map(|record| unsafe { BatchRef::new(*record) })
            .collect();
        let depot = Arc::new(Mutex::new(Depot::new()));

        let consumer = {
            let depot = Arc::clone(&depot);
            thread::spawn(move || {
                let (mut seen, mut spare) = (Vec::new(), None);
                for _ in 0..2 {
                    let batch = depot.lock().take(&mut spare); // The guard ends here.
                    if let Some(mut batch) = batch {
                        assert!(spare.is_none(), "the depot left the spare");
                        seen.extend(numbers(&mut batch));
                        spare = Some(batch);
                    }
                }
                (seen, spare)
            })
        };

        let (mut seen, mut kept) = (Vec::new(), None::<BatchRef>);
        for number in 0..BATCHES {
            let Some(mut batch) = kept.take().or_else(|| fresh.pop()) else {
                unreachable!("a record for each batch")
            };
            batch
                .get()
                .fill(&[object(2 * number + 1), object(2 * number + 2)]);
            match depot.lock().put(batch, depot_class()) {
                Ok(empty) => kept = empty,
                Err(mut batch) => {
                    seen.extend(numbers(&mut batch)); // To their spans.
                    kept = Some(batch);
                }
            }
        }
        let (taken, spare) = consumer.join().unwrap();
        seen.extend(taken);

        let mut depot = depot.lock();
        let mut left: Vec<BatchRef> = fresh.into_iter().chain(kept).chain(spare).collect();
        assert!(depot.full_batches() <= 2);
        while let Some(mut batch) = depot.take(&mut None) {
            seen.extend(numbers(&mut batch));
            left.push(batch);
            assert!(left.len() <= BATCHES, "the depot hands out a record twice");
        }
        assert_eq!(depot.full_batches(), 0);
        seen.sort_unstable();
        assert_eq!(
            seen,
            (1..=2 * BATCHES).collect::<Vec<_>>(),
            "the objects, each once"
        );
        // A full batch buys an empty record out of the depot, and is taken back at once.
        while let Some(batch) = left.pop() {
            let Ok(empty) = depot.put(batch, depot_class()) else {
                unreachable!("it is empty")
            };
            let batch = depot.take(&mut None).unwrap();
            if let Some(empty) = empty {
                left.extend([batch, empty]);
                continue;
            }
            left.push(batch);
            break;
        }
        let mut found: Vec<_> = left
            .iter_mut()
            .map(|batch| NonNull::from(batch.get()))
            .collect();
        found.sort_unstable();
        let mut made = records.clone();
        made.sort_unstable();
        assert_eq!(found, made, "the records, each once");
        drop(left);
        for record in records {
            // SAFETY: boxed above, and no `BatchRef` of it is left.
            drop(unsafe { Box::from_raw(record.as_ptr()) });
        }
    });
}
