//! Traces of what a program did with its allocator: the format, its reader and its writer.
//!
//! # The format
//!
//! A trace is a file, plain or compressed by gzip: [`Trace::open`] sees which. A plain one is mapped;
//! what is in a compressed one goes to an anonymous mapping, not to the allocator under test. First
//! comes a header of 48 bytes. Its numbers are little endian.
//!
//! | bytes | what |
//! |---|---|
//! | 8 | the magic number, [`MAGIC`]: `93 74 72 61 63 65 0d 0a` |
//! | 4 | the version, [`VERSION`]: 1 |
//! | 4 | the number of threads, 1 to [`MAX_THREADS`] |
//! | 4 | the number of objects' ids: the highest and one |
//! | 4 | zero |
//! | 8 | the number of events |
//! | 8 | the largest sum of the sizes of the objects that live at a time, in bytes |
//! | 8 | the length of the events, in bytes |
//!
//! Then come the events, in the order in which they happened, as varints: seven bits a byte, low ones
//! first, with the highest bit set in all bytes but the last (LEB128), below 2^64 each.
//!
//! | event | its varints |
//! |---|---|
//! | alloc | head, object, size, alignment |
//! | alloc of zeroed memory | head, object, size, alignment |
//! | realloc | head, object, size |
//! | free | head, object |
//!
//! * The *head* is 4 times the number of the thread, plus 0 for an alloc, 1 for one of zeroed memory, 2
//!   for a realloc, and 3 for a free. Threads count from 0.
//! * The *object* is the difference of the object's id to the id in the event before (at first, to 0), in
//!   zigzag: 0, -1, 1, -2, 2 are written as 0, 1, 2, 3, 4. Neighbours in time have neighbouring ids, so
//!   that it mostly takes one byte, and compresses well.
//! * The *size* is in bytes, 1 to [`MAX_SIZE`].
//! * The *alignment* is its logarithm to base 2, 0 to [`MAX_ALIGN_LOG2`]. It stays the object's until
//!   that is freed.
//!
//! # For those who write a recorder
//!
//! `spanmalloc run --record FILE -- PROGRAM` is one. Another one has to know:
//!
//! * An id names one object at a time. It is used again when that was freed, so that the table of
//!   objects stays as small as what lives at a time: take an id that is free, else one above the highest.
//! * Keep the free ids per thread, in a stack, and give an id back to the thread that took it. A replay
//!   with threads waits for the free before it uses an id again, and such waits should not be between
//!   threads.
//! * `malloc` is not told an alignment. Write the largest power of two that is not above the size, and
//!   16 at most: what an object of that size can need.
//! * `malloc(0)` is an object: write it with size 1. `free(NULL)` is no event, `realloc(NULL, n)` is an
//!   alloc, and a realloc that failed is no event either.
//! * Write a free before it is done, and an alloc afterwards, in one order for all threads. A realloc
//!   is written and done under the recorder's lock.
//! * Objects that the program leaves need no free.
//!
//! A trace has sizes and an order, no addresses and no data.

/// With the writer, which the tool `spanmalloc` has.
#[path = "../../../src/bin/spanmalloc/record/format/mod.rs"]
mod format;
pub mod table;
#[cfg(test)]
mod tests;

use std::fs::File;
use std::io::Read;
use std::path::Path;

use flate2::bufread::GzDecoder;
use memmap2::{Mmap, MmapMut};

pub use format::{
    Action, Event, Header, MAGIC, MAX_ALIGN_LOG2, MAX_SIZE, MAX_THREADS, VERSION, Writer,
};
use format::{HEADER_BYTES, Live, Varints, unzigzag};
use table::Table;

/// An event takes two bytes or more, and an alloc, which each id has, four.
const EVENT_BYTES_MIN: u64 = 2;
const ALLOC_BYTES_MIN: u64 = 4;
/// Most bytes of events in a compressed trace: some 300 million events.
const UNPACKED_BYTES_MAX: u64 = 1 << 30;
/// What deflate can make of a byte: 258 bytes take two bits.
const DEFLATE_RATIO_MAX: u64 = 1032;

impl Header {
    /// The header, if its numbers are possible for events of that length: what is allocated for them
    /// is then bounded by the file.
    fn from_bytes(bytes: &[u8; HEADER_BYTES]) -> Result<Self, String> {
        let word = |at: usize| u32::from_le_bytes(std::array::from_fn(|byte| bytes[at + byte]));
        let long = |at: usize| u64::from_le_bytes(std::array::from_fn(|byte| bytes[at + byte]));
        if bytes[..8] != MAGIC {
            return Err("this is no trace".to_owned());
        }
        if word(8) != VERSION {
            return Err(format!("the trace has version {}, not {VERSION}", word(8)));
        }
        let header = Self {
            threads: word(12),
            objects: word(16),
            events: long(24),
            peak_live_bytes: long(32),
            events_bytes: long(40),
        };
        let possible = (1..=MAX_THREADS).contains(&header.threads)
            && word(20) == 0
            && header.events <= u64::from(u32::MAX)
            && header.events <= header.events_bytes / EVENT_BYTES_MIN
            && u64::from(header.objects) <= header.events_bytes / ALLOC_BYTES_MIN;
        if possible {
            Ok(header)
        } else {
            Err("the trace's header has impossible numbers".to_owned())
        }
    }
}

/// A trace that was opened. Its events are checked when they are read.
#[derive(Debug)]
pub struct Trace {
    header: Header,
    bytes: Bytes,
}

/// Where the events are.
#[derive(Debug)]
enum Bytes {
    /// Behind the header, in the file.
    File(Mmap),
    /// From the start on.
    Unpacked(MmapMut),
}

impl Trace {
    /// Opens a trace, plain or compressed. A plain one must not be changed before the [`Trace`] is
    /// dropped.
    pub fn open(path: &Path) -> Result<Self, String> {
        Self::map(path).map_err(|why| format!("{}: {why}", path.display()))
    }

    fn map(path: &Path) -> Result<Self, String> {
        let file = File::open(path).map_err(|error| error.to_string())?;
        let kind = file.metadata().map_err(|error| error.to_string())?;
        if !kind.is_file() {
            return Err("this is no file".to_owned());
        }
        // SAFETY: the file is not changed while it is mapped, as `open` asks. A change would not break
        // the replay, which has what it checked in memory of its own.
        let map = unsafe { Mmap::map(&file) }.map_err(|error| error.to_string())?;
        match map.first_chunk::<4>() {
            Some([0x1f, 0x8b, ..]) => Self::unpack(&map),
            Some([0x28, 0xb5, 0x2f, 0xfd]) => {
                Err("the trace is compressed by zstd, and only gzip is read".to_owned())
            }
            _ => Self::plain(map),
        }
    }

    fn plain(map: Mmap) -> Result<Self, String> {
        let first = map
            .first_chunk()
            .ok_or("the file is shorter than a trace's header")?;
        let header = Header::from_bytes(first)?;
        let events_bytes = (map.len() - HEADER_BYTES) as u64;
        if events_bytes < header.events_bytes {
            return Err("the trace is truncated".to_owned());
        }
        if events_bytes > header.events_bytes {
            return Err("bytes follow the trace's last event".to_owned());
        }
        Ok(Self {
            header,
            bytes: Bytes::File(map),
        })
    }

    /// The trace in a gzip file. The mapping that it goes to is no larger than what the file can hold.
    fn unpack(packed: &[u8]) -> Result<Self, String> {
        let broken = |error: std::io::Error| format!("the trace cannot be decompressed: {error}");
        let mut decoder = GzDecoder::new(packed);
        let mut first = [0; HEADER_BYTES];
        decoder.read_exact(&mut first).map_err(broken)?;
        let header = Header::from_bytes(&first)?;
        let most = UNPACKED_BYTES_MAX.min(packed.len() as u64 * DEFLATE_RATIO_MAX);
        if header.events_bytes > most {
            return Err("the trace is longer than a compressed one of its size can be".to_owned());
        }
        let mut unpacked = MmapMut::map_anon((header.events_bytes as usize).max(1))
            .map_err(|error| error.to_string())?;
        let events = &mut unpacked[..header.events_bytes as usize];
        decoder.read_exact(events).map_err(broken)?;
        // The end is read too, as it has the checksum.
        let more = decoder.read(&mut first).map_err(broken)?;
        if more > 0 || !decoder.into_inner().is_empty() {
            return Err("bytes follow the trace's last event".to_owned());
        }
        Ok(Self {
            header,
            bytes: Bytes::Unpacked(unpacked),
        })
    }

    #[cfg(test)]
    fn from_bytes(bytes: &[u8]) -> Result<Self, String> {
        let mut map = MmapMut::map_anon(bytes.len()).map_err(|error| error.to_string())?;
        map.copy_from_slice(bytes);
        Self::plain(map.make_read_only().map_err(|error| error.to_string())?)
    }

    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Calls `then` with each event, in order, until it or the trace has an error.
    ///
    /// Each event that it is called with is possible: its thread and its object are in the header's
    /// range, its size and alignment in the format's; an alloc's object is not allocated, another's is.
    /// In the end, the events and their peak are the header's.
    pub fn each(&self, mut then: impl FnMut(Event) -> Result<(), String>) -> Result<(), String> {
        let bytes = match &self.bytes {
            Bytes::File(map) => &map[HEADER_BYTES..],
            Bytes::Unpacked(map) => &map[..self.header.events_bytes as usize],
        };
        let mut varints = Varints::new(bytes);
        let mut sizes = Table::zeroed(self.header.objects as usize)?;
        let mut live = Live::default();
        let mut object = 0;
        for number in 0..self.header.events {
            let event = Event::read(&mut varints, &mut object)
                .and_then(|event| self.check(event, &mut live, &mut sizes))
                .map_err(|why| format!("event {number} of the trace: {why}"))?;
            then(event)?;
        }
        if !varints.is_empty() {
            return Err("bytes follow the trace's last event".to_owned());
        }
        if live.peak_bytes != self.header.peak_live_bytes {
            return Err("the trace's objects have another peak than its header tells".to_owned());
        }
        Ok(())
    }

    fn check(&self, event: Event, live: &mut Live, sizes: &mut [u32]) -> Result<Event, String> {
        if event.thread >= self.header.threads {
            return Err(format!("there is no thread {}", event.thread));
        }
        live.apply(&event, sizes)?;
        Ok(event)
    }
}

impl Event {
    /// Reads an event; `object` is the id in the event before, and then the one in this.
    fn read(varints: &mut Varints, object: &mut u32) -> Result<Self, String> {
        let head = varints.take()?;
        let thread = u32::try_from(head >> 2).map_err(|_| "its thread is out of range")?;
        let difference = unzigzag(varints.take()?);
        *object = i64::from(*object)
            .checked_add(difference)
            .and_then(|id| u32::try_from(id).ok())
            .ok_or("its object is out of range")?;
        let mut size =
            || u32::try_from(varints.take()?).map_err(|_| "its size is out of range".to_owned());
        let action = match head & 3 {
            2 => Action::Realloc { size: size()? },
            3 => Action::Free,
            alloc => Action::Alloc {
                size: size()?,
                align_log2: u8::try_from(varints.take()?)
                    .map_err(|_| "its alignment is out of range")?,
                zeroed: alloc == 1,
            },
        };
        Ok(Self {
            thread,
            object: *object,
            action,
        })
    }
}
