//! Stacks for people, on standard error, in the middle of anything: at a crime, or in a handler of a signal.
//!
//! ```text
//!     allocated by thread 4711:
//!       #0 0x55d0c0de1233 /usr/bin/server+0x1233
//! ```
//!
//! Behind a file's name is the address as it is in the file's symbols, for `addr2line -e FILE 0x1233`. What is
//! called returns behind the call; one less is in it, and that is what is told.
//!
//! Nothing is allocated. A thread may be on a small stack for signals, so what takes room is static, under a
//! lock that nobody waits for longer than [`PATIENCE_NS`]: without it, there are addresses alone.

use core::fmt::Write;
use core::ops::Range;

use crate::base::line::Line;
use crate::sync::Mutex;
use crate::sys::{self, LINE_BYTES};

/// How long a report waits for a lock: a second. The thread that has it may be the one that reports.
pub(crate) const PATIENCE_NS: u64 = 1_000_000_000;

/// Bytes of a file's name that are told: the last ones.
const NAME_BYTES: usize = 400;

/// What the first frame of a stack is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum First {
    /// Where a call returns to, as all others are.
    Returns,
    /// The instruction itself.
    #[cfg_attr(not(feature = "guarded"), allow(dead_code))]
    Is,
}

struct Scratch {
    /// Lines of the list of mappings.
    lines: [u8; 2 * LINE_BYTES],
    /// The file that the last address was in.
    file: File,
}

static SCRATCH: Mutex<Scratch> = Mutex::new(Scratch {
    lines: [0; 2 * LINE_BYTES],
    file: File::NONE,
});

/// A mapping of a file.
struct File {
    range: Range<usize>,
    /// What addresses in the file's symbols are less.
    bias: usize,
    name: [u8; NAME_BYTES],
    len: usize,
}

impl File {
    const NONE: Self = Self {
        range: 0..0,
        bias: 0,
        name: [0; NAME_BYTES],
        len: 0,
    };

    fn name(&self) -> &[u8] {
        self.name.get(..self.len).unwrap_or_default()
    }

    fn set_name(&mut self, path: &[u8]) {
        let told = path
            .get(path.len().saturating_sub(NAME_BYTES)..)
            .unwrap_or_default();
        for (place, byte) in self.name.iter_mut().zip(told) {
            *place = *byte;
        }
        self.len = told.len();
    }
}

impl Scratch {
    /// Finds the file that an address is in.
    fn find(&mut self, address: usize) {
        if self.file.range.contains(&address) {
            return;
        }
        let Self { lines, file } = self;
        *file = File::NONE;
        // Of the file whose mappings come now, where it begins in memory.
        let mut begin = 0;
        sys::for_each_mapping(lines, |mapping| {
            if mapping.file_offset == 0 || mapping.path.is_empty() {
                begin = mapping.start;
            }
            let range = mapping.start..mapping.limit;
            let is_it = range.contains(&address);
            if is_it {
                file.set_name(mapping.path);
                file.range = range;
                file.bias = if is_fixed(begin) { 0 } else { begin };
            }
            is_it
        });
    }
}

/// Whether the ELF file at an address is one that is for a place in memory, so that its symbols are addresses.
fn is_fixed(begin: usize) -> bool {
    const EXECUTABLE: u16 = 2; // ET_EXEC
    let mut head = [0_usize; 3];
    sys::copy_own_memory(begin, &mut head)
        && head[0].to_le_bytes().starts_with(b"\x7fELF")
        && head[2] as u16 == EXECUTABLE
}

/// Prints a stack with what was done there, and by which thread if that is known.
pub(crate) fn stack(done: &str, thread: Option<i32>, frames: &[usize], first: First) {
    let mut line = Line::empty();
    let _ = match thread {
        Some(thread) => writeln!(line, "    {done} by thread {thread}:"),
        None => writeln!(line, "    {done}:"),
    };
    line.print();
    let deadline_ns = sys::now_ns().saturating_add(PATIENCE_NS);
    let mut scratch = match SCRATCH.comes_free(deadline_ns) {
        true => SCRATCH.try_lock(),
        false => None,
    };
    for (index, address) in frames.iter().enumerate() {
        if *address == 0 {
            continue; // Not known.
        }
        let returns = index > 0 || first == First::Returns;
        let address = address - usize::from(returns);
        let mut line = Line::empty();
        let _ = write!(line, "      #{index} {address:#x}");
        if let Some(scratch) = &mut scratch {
            scratch.find(address);
            let file = &scratch.file;
            if !file.name().is_empty() {
                line.push(b" ");
                line.push(file.name());
                let _ = write!(line, "+{:#x}", address.wrapping_sub(file.bias));
            }
        }
        line.push(b"\n");
        line.print();
    }
}
