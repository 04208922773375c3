//! Makes a trace of the raw stream that the library wrote.
//!
//! An address becomes the id of the object that is there, which is one that was free before. The free ids are kept for
//! each thread, as the format asks. What the stream does not have the beginning of is left out: objects that were
//! allocated before it began, or by another allocator.

use std::collections::HashMap;
use std::io::{self, Read};

use super::format::{Action, Event, MAX_ALIGN_LOG2, MAX_SIZE, MAX_THREADS, Writer};
use super::raw::{Kind, MAGIC, RECORD_BYTES, RECORD_WORDS, VERSION, decode};

/// The alignment of objects that were not asked for with one, as its logarithm.
const MALLOC_ALIGN_LOG2: u32 = 4;

/// An object that lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Object {
    id: u32,
    /// The thread whose id it is.
    owner: u32,
}

/// A call that has not ended yet.
#[derive(Clone, Copy, Debug)]
struct Pending {
    address: u64,
    object: Option<Object>,
}

/// A trace in the making.
#[derive(Default)]
pub(crate) struct Converter {
    writer: Writer,
    /// By address.
    live: HashMap<u64, Object>,
    /// Numbers of threads, by what the stream calls them.
    threads: HashMap<u64, u32>,
    /// Of each thread.
    free_ids: Vec<Vec<u32>>,
    /// Of each thread, by what the stream calls it; the innermost last, as the C library may allocate for a
    /// thread in the middle of its first call.
    pending: HashMap<u64, Vec<Pending>>,
    ids: u32,
    pub(crate) events: u64,
    /// Frees and sizes of objects that the stream does not have the beginning of.
    pub(crate) left_out: u64,
}

impl Converter {
    /// The trace of a whole stream.
    pub(crate) fn read(mut stream: impl Read) -> Result<Self, String> {
        let mut converter = Self::default();
        let mut is_first = true;
        loop {
            let mut bytes = [0; RECORD_BYTES];
            match stream.read_exact(&mut bytes) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => break,
                Err(error) => return Err(error.to_string()),
            }
            let mut words = [0; RECORD_WORDS];
            for (word, bytes) in words.iter_mut().zip(bytes.as_chunks().0) {
                *word = u64::from_ne_bytes(*bytes);
            }
            if is_first && words[..2] != [MAGIC, VERSION] {
                return Err("the library wrote something else".to_string());
            }
            if !is_first {
                converter.push(words)?;
            }
            is_first = false;
        }
        match is_first {
            true => Err("the library wrote nothing".to_string()),
            false => Ok(converter),
        }
    }

    /// The trace.
    pub(crate) fn into_bytes(self) -> Vec<u8> {
        self.writer.into_bytes()
    }

    /// How many threads the stream has.
    pub(crate) fn threads(&self) -> usize {
        self.threads.len()
    }

    /// Adds what a record says.
    fn push(&mut self, [head, name, address, size]: [u64; RECORD_WORDS]) -> Result<(), String> {
        // A thread was killed in the middle of it; or it is behind the last one.
        let Some((kind, align_log2)) = decode(head) else {
            return Ok(());
        };
        let thread = self.thread(name);
        let size = u32::try_from(size).unwrap_or(MAX_SIZE).max(1);
        let in_call = self
            .pending
            .get(&name)
            .is_some_and(|calls| !calls.is_empty());
        match kind {
            Kind::Alloc | Kind::Free if in_call => Ok(()), // A part of the call.
            Kind::Alloc => self.allocate(thread, address, size, align_log2, false),
            Kind::Free => match self.live.remove(&address) {
                Some(object) => self.free(thread, object),
                None => self.leave_out(),
            },
            Kind::Begin => {
                let object = self.live.remove(&address);
                let calls = self.pending.entry(name).or_default();
                calls.push(Pending { address, object });
                Ok(())
            }
            Kind::EndResized | Kind::EndZeroed => {
                let Some(pending) = self.pending.get_mut(&name).and_then(Vec::pop) else {
                    return self.leave_out();
                };
                match pending.object {
                    _ if address == 0 => {
                        // It has failed, and the object is as before.
                        if let Some(object) = pending.object {
                            self.live.insert(pending.address, object);
                        }
                        Ok(())
                    }
                    Some(object) => {
                        self.live.insert(address, object);
                        self.add(thread, object.id, Action::Realloc { size })
                    }
                    None => {
                        let zeroed = kind == Kind::EndZeroed;
                        self.allocate(thread, address, size, align_log2, zeroed)
                    }
                }
            }
        }
    }

    /// The number of a thread. There are no more than a trace may have: the others share them.
    fn thread(&mut self, name: u64) -> u32 {
        let next = self.threads.len() as u32 % MAX_THREADS;
        let thread = *self.threads.entry(name).or_insert(next);
        if thread as usize >= self.free_ids.len() {
            self.free_ids.push(Vec::new());
        }
        thread
    }

    fn allocate(
        &mut self,
        thread: u32,
        address: u64,
        size: u32,
        align_log2: u32,
        zeroed: bool,
    ) -> Result<(), String> {
        // Its free was not recorded: it was by another way than C's interface.
        if let Some(object) = self.live.remove(&address) {
            self.free(thread, object)?;
        }
        let id = self.free_ids[thread as usize].pop().unwrap_or_else(|| {
            self.ids += 1;
            self.ids - 1
        });
        let object = Object { id, owner: thread };
        self.live.insert(address, object);
        let align_log2 = match align_log2 {
            // What an object of that size can need.
            ..=MALLOC_ALIGN_LOG2 => size.ilog2().min(MALLOC_ALIGN_LOG2) as u8,
            asked => u8::try_from(asked).map_or(MAX_ALIGN_LOG2, |asked| asked.min(MAX_ALIGN_LOG2)),
        };
        let action = Action::Alloc {
            size,
            align_log2,
            zeroed,
        };
        self.add(thread, id, action)
    }

    fn free(&mut self, thread: u32, object: Object) -> Result<(), String> {
        self.free_ids[object.owner as usize].push(object.id);
        self.add(thread, object.id, Action::Free)
    }

    fn add(&mut self, thread: u32, object: u32, action: Action) -> Result<(), String> {
        self.events += 1;
        self.writer.push(Event {
            thread,
            object,
            action,
        })
    }

    fn leave_out(&mut self) -> Result<(), String> {
        self.left_out += 1;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::format::{HEADER_BYTES, Varints};
    use super::super::raw::encode;
    use super::*;

    const FIRST: [u64; 4] = [MAGIC, VERSION, 0, 0];

    fn record(kind: Kind, thread: u64, address: u64, size: u64) -> [u64; 4] {
        [encode(kind, MALLOC_ALIGN_LOG2), thread, address, size]
    }

    fn convert(records: &[[u64; 4]]) -> Converter {
        let stream: Vec<u8> = [FIRST]
            .iter()
            .chain(records)
            .flatten()
            .flat_map(|word| word.to_ne_bytes())
            .collect();
        Converter::read(&stream[..]).unwrap()
    }

    /// The numbers of the events, as the format has them.
    fn events(records: &[[u64; 4]]) -> Vec<u64> {
        let bytes = convert(records).into_bytes();
        let mut varints = Varints::new(&bytes[HEADER_BYTES..]);
        let mut numbers = Vec::new();
        while !varints.is_empty() {
            numbers.push(varints.take().unwrap());
        }
        numbers
    }

    #[test]
    fn addresses_become_ids_that_are_used_again() {
        use Kind::{Alloc, Free};
        let records = [
            record(Alloc, 7, 0x100, 40),
            record(Alloc, 7, 0x200, 3),
            record(Free, 7, 0x100, 0),
            record(Alloc, 7, 0x300, 0),
            record(Free, 7, 0x300, 0),
        ];
        // Head, difference of the id, size, alignment; head and difference of a free.
        let expected = [0, 0, 40, 4, 0, 2, 3, 1, 3, 1, 0, 0, 1, 0, 3, 0];
        assert_eq!(events(&records), expected);
    }

    #[test]
    fn ids_go_back_to_the_thread_that_took_them() {
        use Kind::{Alloc, Free};
        let records = [
            record(Alloc, 7, 0x100, 1),
            record(Free, 8, 0x100, 0),
            // Another id: the first one is free, but of the other thread.
            record(Alloc, 8, 0x100, 1),
            record(Alloc, 7, 0x200, 1),
        ];
        let expected = [0, 0, 1, 0, 7, 0, 4, 2, 1, 0, 0, 1, 1, 0];
        assert_eq!(events(&records), expected);
    }

    #[test]
    fn call_that_resizes_is_one_event_whatever_it_does() {
        use Kind::{Alloc, Begin, EndResized, Free};
        let records = [
            record(Alloc, 7, 0x100, 8),
            record(Begin, 7, 0x100, 0),
            record(Alloc, 7, 0x200, 500),
            record(Free, 7, 0x100, 0),
            // Another thread gets the place before the call ends.
            record(Alloc, 8, 0x100, 8),
            record(EndResized, 7, 0x200, 500),
            record(Free, 7, 0x200, 0),
            record(Free, 8, 0x100, 0),
        ];
        let expected = [0, 0, 8, 3, 4, 2, 8, 3, 2, 1, 500, 3, 0, 7, 2];
        assert_eq!(events(&records), expected);
        // One that fails changes nothing.
        let records = [
            record(Alloc, 7, 0x100, 8),
            record(Begin, 7, 0x100, 0),
            record(EndResized, 7, 0, 1 << 60),
            record(Free, 7, 0x100, 0),
        ];
        assert_eq!(events(&records), [0, 0, 8, 3, 3, 0]);
    }

    #[test]
    fn call_in_the_middle_of_a_call_is_one_of_its_own() {
        use Kind::{Alloc, Begin, EndZeroed, Free};
        let records = [
            record(Begin, 7, 0, 0),
            record(Begin, 7, 0, 0),
            record(Alloc, 7, 0x100, 16),
            record(EndZeroed, 7, 0x100, 16),
            record(Alloc, 7, 0x200, 99),
            record(EndZeroed, 7, 0x200, 99),
            record(Free, 7, 0x100, 0),
        ];
        assert_eq!(events(&records), [1, 0, 16, 4, 1, 2, 99, 4, 3, 1]);
    }

    #[test]
    fn call_that_zeroes_is_an_allocation() {
        use Kind::{Alloc, Begin, EndZeroed};
        let records = [
            record(Begin, 7, 0, 0),
            record(Alloc, 7, 0x100, 99),
            record(EndZeroed, 7, 0x100, 99),
            record(Begin, 7, 0, 0),
            record(EndZeroed, 7, 0, u64::MAX),
        ];
        assert_eq!(events(&records), [1, 0, 99, 4]);
    }

    #[test]
    fn alignment_that_was_asked_for_and_absurd_sizes_fit_the_format() {
        let mut aligned = record(Kind::Alloc, 1, 0x1000, 10);
        aligned[0] = encode(Kind::Alloc, 12);
        let mut absurd = record(Kind::Alloc, 1, 0x2000, 1 << 40);
        absurd[0] = encode(Kind::Alloc, 40);
        let expected = [0, 0, 10, 12, 0, 2, u64::from(MAX_SIZE), 24];
        assert_eq!(events(&[aligned, absurd]), expected);
    }

    #[test]
    fn what_has_no_beginning_is_left_out() {
        use Kind::{Begin, EndResized, Free};
        let records = [
            record(Free, 7, 0x100, 0),
            [0; 4],
            record(EndResized, 7, 0x200, 9),
            // Resized: from here on it is known.
            record(Begin, 7, 0x300, 0),
            record(EndResized, 7, 0x400, 9),
            record(Free, 7, 0x400, 0),
            [0; 4],
        ];
        assert_eq!(events(&records), [0, 0, 9, 3, 3, 0]);
        let converter = convert(&records);
        assert_eq!((converter.events, converter.left_out), (2, 2));
    }

    #[test]
    fn threads_beyond_those_of_a_trace_share_numbers() {
        let records: Vec<_> = (0..u64::from(MAX_THREADS) + 5)
            .map(|thread| record(Kind::Alloc, 100 + thread, 16 * thread + 16, 1))
            .collect();
        let converter = convert(&records);
        assert_eq!(converter.events, records.len() as u64);
        assert_eq!(converter.threads(), records.len());
    }

    #[test]
    fn stream_that_is_none_is_an_error() {
        assert!(Converter::read(&[][..]).is_err());
        assert!(Converter::read(&[0; 64][..]).is_err());
    }
}
