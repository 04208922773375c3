//! The raw stream of a recorded program: its form, for who writes and who reads it.
//!
//! A file of records of four words of 8 bytes, in the byte order of the machine, in the order in which things
//! happened. The first record has [`MAGIC`] and [`VERSION`]. The others:
//!
//! | word | what |
//! |---|---|
//! | 0 | [`Kind`]; from bit 8 on the alignment that was asked for, as its logarithm; 0 if the record was never finished |
//! | 1 | the thread: a number that no other thread has at the time |
//! | 2 | the address of the object |
//! | 3 | its size in bytes, as it was asked for |
//!
//! Behind the last record are zeros.

/// The first word.
pub(crate) const MAGIC: u64 = u64::from_ne_bytes(*b"spanmrec");
pub(crate) const VERSION: u64 = 1;
pub(crate) const RECORD_WORDS: usize = 4;
#[allow(dead_code, reason = "not for each who reads or writes")]
pub(crate) const RECORD_BYTES: usize = RECORD_WORDS * 8;

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Kind {
    /// An object was allocated.
    Alloc = 1,
    /// An object is about to be freed.
    Free,
    /// A call begins that may do both: what this thread records before its end is a part of it, but for calls
    /// that begin and end meanwhile. The object is the one that is resized, or null.
    Begin,
    /// The call has ended; the object is the one that came of it, or null and nothing has changed.
    EndResized,
    /// The same, and the object is a new one of zeros.
    EndZeroed,
}

const KINDS: [Kind; 5] = [
    Kind::Alloc,
    Kind::Free,
    Kind::Begin,
    Kind::EndResized,
    Kind::EndZeroed,
];

/// The first word of a record.
#[allow(dead_code, reason = "for who writes")]
pub(crate) fn encode(kind: Kind, align_log2: u32) -> u64 {
    kind as u64 | u64::from(align_log2) << 8
}

/// Kind and alignment of a record; none if it was never finished, or is no record.
#[allow(dead_code, reason = "for who reads")]
pub(crate) fn decode(word: u64) -> Option<(Kind, u32)> {
    let kind = KINDS.iter().find(|kind| **kind as u64 == word & 0xff)?;
    Some((*kind, u32::try_from(word >> 8).ok()?))
}
