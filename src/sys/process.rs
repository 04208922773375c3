//! The process: its end, and files that it writes.

#![allow(unsafe_code)]

use core::ffi::{CStr, c_int, c_void};
use core::fmt::{self, Write};
use core::sync::atomic::{AtomicI32, AtomicU64, Ordering::Relaxed};

use super::linux::KeepErrno;

/// Has a function called when the process ends by `exit`. Nothing happens if there is no memory.
pub(crate) fn at_exit(function: extern "C" fn()) {
    // SAFETY: a plain function of this library.
    unsafe { libc::atexit(function) };
}

/// Whether the program's `malloc` is that of this library: it was preloaded, or is part of the program.
fn is_the_programs() -> bool {
    let (start, end, malloc): (usize, usize, usize);
    // SAFETY: takes two addresses that the linker defines, of the first and behind the last byte of
    // this library, and reads an entry of its global offset table.
    unsafe {
        #[cfg(target_arch = "x86_64")]
        core::arch::asm!(
            ".hidden __ehdr_start",
            ".hidden _end",
            "lea {start}, [rip + __ehdr_start]",
            "lea {end}, [rip + _end]",
            "mov {malloc}, qword ptr [rip + malloc@GOTPCREL]",
            start = out(reg) start,
            end = out(reg) end,
            malloc = out(reg) malloc,
            options(nostack, preserves_flags, pure, readonly),
        );
        #[cfg(target_arch = "aarch64")]
        core::arch::asm!(
            ".hidden __ehdr_start",
            ".hidden _end",
            "adrp {start}, __ehdr_start",
            "add {start}, {start}, :lo12:__ehdr_start",
            "adrp {end}, _end",
            "add {end}, {end}, :lo12:_end",
            "adrp {malloc}, :got:malloc",
            "ldr {malloc}, [{malloc}, :got_lo12:malloc]",
            start = out(reg) start,
            end = out(reg) end,
            malloc = out(reg) malloc,
            options(nostack, preserves_flags, pure, readonly),
        );
    }
    (start..end).contains(&malloc)
}

/// Keeps the library that has `within` loaded until the process ends: threads and handlers of `fork` call
/// its functions. Only one that was opened late can be closed at all, and only then it costs anything.
pub(crate) fn stay_loaded<T>(within: &T) {
    if is_the_programs() {
        return;
    }
    let _errno = KeepErrno::new();
    let flags = libc::RTLD_LAZY | libc::RTLD_NOLOAD | libc::RTLD_NODELETE;
    // SAFETY: an all-zero `Dl_info` is valid, and valid for writes; the name, if there is one, is a
    // string that lives as long as the library.
    unsafe {
        let mut info: libc::Dl_info = core::mem::zeroed();
        let address = core::ptr::from_ref(within).cast();
        if libc::dladdr(address, &mut info) != 0 && !info.dli_fname.is_null() {
            libc::dlopen(info.dli_fname, flags);
        }
    }
}

/// The number of the process.
fn process_id() -> i32 {
    // SAFETY: no precondition.
    unsafe { libc::getpid() }
}

/// Bytes of the longest path, with the zero at its end.
const PATH_BYTES: usize = libc::PATH_MAX as usize;

/// The name of a file, with `%p` for the number of the process. One that is too long names none.
pub(crate) struct Path {
    bytes: [u8; PATH_BYTES],
    len: usize,
}

impl Path {
    pub(crate) fn new(name: &[u8]) -> Self {
        let mut path = Self {
            bytes: [0; PATH_BYTES],
            len: 0,
        };
        name.iter().for_each(|byte| path.push(*byte));
        path
    }

    fn push(&mut self, byte: u8) {
        if let Some(slot) = self.bytes.get_mut(self.len) {
            *slot = byte;
        }
        self.len += 1;
    }

    /// The name as it was given.
    pub(crate) fn name(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or(&self.bytes)
    }

    /// Creates the file, or empties it. `None` if that cannot be done.
    pub(crate) fn create(&self) -> Option<Output> {
        let mut path = Self::new(b"");
        let mut rest = self.name();
        while let Some((&byte, others)) = rest.split_first() {
            if let Some(others) = rest.strip_prefix(b"%p") {
                let _ = write!(path, "{}", process_id());
                rest = others;
            } else {
                path.push(byte);
                rest = others;
            }
        }
        let name = CStr::from_bytes_with_nul(path.bytes.get(..path.len + 1)?).ok()?;
        let flags = libc::O_WRONLY | libc::O_CREAT | libc::O_TRUNC | libc::O_CLOEXEC;
        let _errno = KeepErrno::new();
        // SAFETY: a string.
        let file = unsafe { libc::open(name.as_ptr(), flags, 0o644) };
        (file >= 0).then(|| Output::new(file))
    }
}

impl fmt::Write for Path {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        text.bytes().for_each(|byte| self.push(byte));
        Ok(())
    }
}

/// A stream of C's standard library.
pub(crate) struct Stream(*mut libc::FILE);

impl Stream {
    /// # Safety
    /// `stream` is a `FILE *` that is open for writing, for as long as the result is used.
    pub(crate) unsafe fn new(stream: *mut c_void) -> Self {
        Self(stream.cast())
    }
}

impl fmt::Write for Stream {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        // SAFETY: the promise of `new`; `text` is valid for reads of its length.
        let written = unsafe { libc::fwrite(text.as_ptr().cast(), 1, text.len(), self.0) };
        if written == text.len() {
            Ok(())
        } else {
            Err(fmt::Error)
        }
    }
}

/// A copy of standard error, or -1, and the identity of its file. **Any thread; atomic.** Set once, at
/// the start.
static KEPT_STDERR: AtomicI32 = AtomicI32::new(-1);
static KEPT_IDENTITY: [AtomicU64; 2] = [const { AtomicU64::new(0) }; 2];

/// Where the copy of standard error is looked for: above the numbers that programs count on.
const KEPT_FROM: c_int = 100;

/// Keeps standard error for the end of the process: many programs close it in a function that runs
/// at exit, so that errors of writing do not go unseen.
pub(crate) fn keep_stderr() {
    let _errno = KeepErrno::new();
    // SAFETY: no memory is involved.
    let copy = unsafe { libc::fcntl(libc::STDERR_FILENO, libc::F_DUPFD_CLOEXEC, KEPT_FROM) };
    if let Some(parts) = identity(libc::STDERR_FILENO) {
        for (kept, part) in KEPT_IDENTITY.iter().zip(parts) {
            kept.store(part, Relaxed);
        }
    }
    KEPT_STDERR.store(copy, Relaxed);
}

/// Device and number of an open file.
fn identity(file: c_int) -> Option<[u64; 2]> {
    let _errno = KeepErrno::new();
    // SAFETY: an all-zero `stat` is valid.
    let mut stat: libc::stat = unsafe { core::mem::zeroed() };
    // SAFETY: `stat` is valid for writes.
    let done = unsafe { libc::fstat(file, &mut stat) };
    (done == 0).then_some([stat.st_dev, stat.st_ino])
}

const BUFFER_BYTES: usize = 1024;

/// A file that is written to, with a small buffer that is written out when dropped.
pub(crate) struct Output {
    file: c_int,
    buffer: [u8; BUFFER_BYTES],
    len: usize,
}

impl Output {
    fn new(file: c_int) -> Self {
        Self {
            file,
            buffer: [0; BUFFER_BYTES],
            len: 0,
        }
    }

    /// Standard error, which stays open.
    pub(crate) fn stderr() -> Self {
        Self::new(libc::STDERR_FILENO)
    }

    /// Standard error as it was when [`keep_stderr`] was called, if it is still open, there or as a
    /// copy; a program that closed it may have another file in its place.
    pub(crate) fn kept_stderr() -> Option<Self> {
        let identity_then = KEPT_IDENTITY.each_ref().map(|part| part.load(Relaxed));
        [KEPT_STDERR.load(Relaxed), libc::STDERR_FILENO]
            .into_iter()
            .find(|file| identity(*file) == Some(identity_then))
            .map(Self::new)
    }

    /// Writes the buffer out; errors are ignored.
    fn flush(&mut self) {
        let _errno = KeepErrno::new();
        let mut rest = &self.buffer[..self.len];
        while !rest.is_empty() {
            // SAFETY: `rest` is valid for reads of its length.
            let written = unsafe { libc::write(self.file, rest.as_ptr().cast(), rest.len()) };
            let Some(after) = usize::try_from(written).ok().and_then(|n| rest.get(n..)) else {
                break;
            };
            rest = after;
        }
        self.len = 0;
    }
}

impl fmt::Write for Output {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            if self.len == BUFFER_BYTES {
                self.flush();
            }
            self.buffer[self.len] = byte;
            self.len += 1;
        }
        Ok(())
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        self.flush();
        if self.file != libc::STDERR_FILENO {
            let _errno = KeepErrno::new();
            // SAFETY: the file was opened by `create` and nobody else has it.
            unsafe { libc::close(self.file) };
        }
    }
}
