//! The format of traces, and its writer. The tool writes them, and the bench of allocation rates reads them:
//! `benches/rate/src/trace.rs` describes the format, and takes this module in.

mod live;
mod varint;
mod writer;

pub(crate) use live::Live;
pub(crate) use varint::{Varints, unzigzag};
pub use writer::Writer;

/// A trace's first bytes. No text begins so, and an end of line that was converted shows.
pub const MAGIC: [u8; 8] = *b"\x93trace\r\n";
pub const VERSION: u32 = 1;
/// Most threads of a trace. A replay starts as many.
pub const MAX_THREADS: u32 = 1024;
/// The largest size of an object in bytes: a replay's step has four bytes for it.
pub const MAX_SIZE: u32 = u32::MAX;
/// The largest alignment, 16 MiB: above what programs ask for, and harmless when a trace is wrong.
pub const MAX_ALIGN_LOG2: u8 = 24;

pub(crate) const HEADER_BYTES: usize = 48;

/// What a thread did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    pub thread: u32,
    /// The id of the object.
    pub object: u32,
    pub action: Action,
}

/// What was done to an object. Sizes are in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    Alloc {
        size: u32,
        align_log2: u8,
        zeroed: bool,
    },
    Realloc {
        size: u32,
    },
    Free,
}

/// What a trace says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    pub threads: u32,
    pub objects: u32,
    pub events: u64,
    /// The largest sum of the sizes of the objects that live at a time.
    pub peak_live_bytes: u64,
    /// The length of the events.
    pub events_bytes: u64,
}

impl Header {
    pub(crate) fn to_bytes(self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes[0..8].copy_from_slice(&MAGIC);
        bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.threads.to_le_bytes());
        bytes[16..20].copy_from_slice(&self.objects.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.events.to_le_bytes());
        bytes[32..40].copy_from_slice(&self.peak_live_bytes.to_le_bytes());
        bytes[40..48].copy_from_slice(&self.events_bytes.to_le_bytes());
        bytes
    }
}
