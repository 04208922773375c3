//! The secure mode: crimes are found early, and attackers kept out. Feature `secure`.
//!
//! It is decided once, when the first thread gets its mcache, and costs nothing where it is off: in secure
//! mode all threads have the face of their mcache with magazines that are always empty and full, so that each
//! call is a slow one, and the slow calls ask [`is_on`]. Allocations end in [`alloc`] then, frees in [`free`],
//! and changes of size in [`realloc`]; objects with a slot are the business of `small`, those of whole pages
//! of `pages`.
//!
//! * *checks*: each slot has a word beside its span's record (`states`), which says whether the program has
//!   the object, and of which size. A free exchanges it. Large objects have it in the record.
//! * *canary*: an object is at least one byte shorter than its slot, and the bytes behind it are the canary
//!   (`bytes`), which a free and a change of size look at.
//! * *fill*: freed slots are filled, and verified when they are handed out again, and when their span goes; what it
//!   leaves stays filled, and is verified in the next use of its pages (`filled`).
//! * *quarantine*: each mcache keeps the objects that its thread freed last, and a random one of them goes on
//!   when there is no more room (`quarantine`).
//! * *random*: a random object of the magazine is handed out, and arenas lie at random addresses.
//! * *retire*: freed objects of whole pages wait, the largest without access (`protect`).
//! * *protect*: all of them wait without access.
//! * *guards*: a page without access behind each span and large object (`guards`).
//! * *zero*: freed objects are filled with zeros.
//!
//! Objects that were made before the mode was decided (by the dynamic linker) have no canary; their states
//! say so.
//!
//! Invariants:
//!
//! 1. A slot whose state is live is the program's; in all other states its memory is the allocator's.
//! 2. Who changes a state from live to another one frees the object, and nobody else does.

#[cfg(feature = "secure")]
mod bytes;
#[cfg(feature = "secure")]
mod filled;
#[cfg(feature = "secure")]
mod guards;
#[cfg(not(feature = "secure"))]
mod off;
#[cfg(feature = "secure")]
mod on;
#[cfg(feature = "secure")]
mod pages;
#[cfg(feature = "secure")]
mod protect;
#[cfg(feature = "secure")]
mod quarantine;
#[cfg(feature = "secure")]
mod random;
#[cfg(feature = "secure")]
mod small;
#[cfg(feature = "secure")]
mod states;

#[cfg(not(feature = "secure"))]
pub(crate) use off::*;
#[cfg(feature = "secure")]
pub(crate) use on::*;
