//! Writes traces.

use super::varint::{put, zigzag};
use super::{Action, Event, Header, Live, MAX_THREADS};

/// A trace in the making. It is in memory until all events are there, as the header has their number.
#[derive(Default)]
pub struct Writer {
    events: Vec<u8>,
    count: u64,
    threads: u32,
    sizes: Vec<u32>,
    live: Live,
    /// The id in the event before.
    object: u32,
}

impl Writer {
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds an event, if it is possible after those before. An id must be one that was used, or the next
    /// one.
    pub fn push(&mut self, event: Event) -> Result<(), String> {
        if event.thread >= MAX_THREADS {
            return Err(format!("thread {} is too many", event.thread));
        }
        if self.count == u64::from(u32::MAX) {
            return Err("the trace has too many events".to_owned());
        }
        let new = event.object as usize == self.sizes.len();
        if new {
            self.sizes.push(0);
        }
        if let Err(why) = self.live.apply(&event, &mut self.sizes) {
            if new {
                self.sizes.pop();
            }
            return Err(why);
        }
        let head = |kind: u64| (u64::from(event.thread) << 2) | kind;
        let object = zigzag(i64::from(event.object) - i64::from(self.object));
        match event.action {
            Action::Alloc {
                size,
                align_log2,
                zeroed,
            } => self.put(&[
                head(u64::from(zeroed)),
                object,
                u64::from(size),
                u64::from(align_log2),
            ]),
            Action::Realloc { size } => self.put(&[head(2), object, u64::from(size)]),
            Action::Free => self.put(&[head(3), object]),
        }
        self.object = event.object;
        self.threads = self.threads.max(event.thread + 1);
        self.count += 1;
        Ok(())
    }

    fn put(&mut self, numbers: &[u64]) {
        for &number in numbers {
            put(&mut self.events, number);
        }
    }

    /// The trace, plain.
    pub fn into_bytes(mut self) -> Vec<u8> {
        let header = Header {
            threads: self.threads.max(1),
            objects: self.sizes.len() as u32,
            events: self.count,
            peak_live_bytes: self.live.peak_bytes,
            events_bytes: self.events.len() as u64,
        };
        self.events.splice(0..0, header.to_bytes());
        self.events
    }
}
