//! A line of text for standard error, without an allocation.

use core::fmt;

use crate::sys;

/// Bytes of the longest line; what is beyond is cut off.
const LINE_BYTES: usize = 512;

/// A line that begins with the name of the allocator.
pub(crate) struct Line {
    bytes: [u8; LINE_BYTES],
    len: usize,
}

impl Line {
    pub(crate) fn new() -> Self {
        let mut line = Self::empty();
        line.push(b"spanmalloc: ");
        line
    }

    /// Text that becomes part of a line.
    pub(crate) fn empty() -> Self {
        Self {
            bytes: [0; LINE_BYTES],
            len: 0,
        }
    }

    /// What is in it, if that is text.
    pub(crate) fn text(&self) -> &str {
        str::from_utf8(&self.bytes[..self.len]).unwrap_or_default()
    }

    /// Adds bytes as they are.
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        for (slot, byte) in self.bytes[self.len..].iter_mut().zip(bytes) {
            *slot = *byte;
            self.len += 1;
        }
    }

    /// Writes the line, in one call.
    pub(crate) fn print(&mut self) {
        if self.len == LINE_BYTES {
            self.bytes[LINE_BYTES - 1] = b'\n';
        }
        sys::write_stderr(&self.bytes[..self.len]);
    }
}

impl fmt::Write for Line {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.push(text.as_bytes());
        Ok(())
    }
}
