//! Files that the process writes, and its end.

#![allow(unsafe_code)]

use core::ffi::{CStr, c_int};
use core::fmt::{self, Write};
use core::sync::atomic::{AtomicI32, AtomicU64, Ordering::Relaxed};

use super::linux::KeepErrno;

/// Has a function called when the process ends by `exit`. Nothing happens if there is no memory.
pub(crate) fn at_exit(function: extern "C" fn()) {
    let _errno = KeepErrno::new();
    // SAFETY: a plain function of this library.
    unsafe { libc::atexit(function) };
}

/// The number of the process.
pub(crate) fn process_id() -> i32 {
    // SAFETY: no precondition.
    unsafe { libc::getpid() }
}

/// Bytes of the longest path, with the zero at its end.
const PATH_BYTES: usize = libc::PATH_MAX as usize;

/// The name of a file, with `%p` for the number of the process and `%n` for a number that the caller has.
/// One that is too long names none.
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

    /// The name with numbers in it.
    pub(crate) fn numbered(&self, number: u32) -> Self {
        let mut path = Self::new(b"");
        let mut rest = self.name();
        while let Some((&byte, others)) = rest.split_first() {
            if let Some(others) = rest.strip_prefix(b"%p") {
                let _ = write!(path, "{}", process_id());
                rest = others;
            } else if let Some(others) = rest.strip_prefix(b"%n") {
                let _ = write!(path, "{number}");
                rest = others;
            } else {
                path.push(byte);
                rest = others;
            }
        }
        path
    }

    /// As a string of C; `None` if it is too long or has a zero in it.
    pub(crate) fn as_c_str(&self) -> Option<&CStr> {
        CStr::from_bytes_with_nul(self.bytes.get(..self.len + 1)?).ok()
    }
}

impl fmt::Write for Path {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        text.bytes().for_each(|byte| self.push(byte));
        Ok(())
    }
}

/// Maps the beginning of a file, which is there and has that many bytes, as words that others may read and
/// write. They stay for ever. `None` if that cannot be done.
pub(crate) fn map_shared(name: &CStr, bytes: usize) -> Option<&'static [AtomicU64]> {
    let _errno = KeepErrno::new();
    // SAFETY: a string; an all-zero `stat` is valid, and valid for writes; the file is closed by nobody else; the
    // mapping is at a place of the kernel's choice, and replaces nothing.
    unsafe {
        let file = libc::open(name.as_ptr(), libc::O_RDWR | libc::O_CLOEXEC);
        if file < 0 {
            return None;
        }
        let mut stat: libc::stat = core::mem::zeroed();
        let is_large_enough = libc::fstat(file, &mut stat) == 0
            && stat.st_mode & libc::S_IFMT == libc::S_IFREG
            && usize::try_from(stat.st_size).is_ok_and(|there| there >= bytes);
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let place = if is_large_enough {
            libc::mmap(
                core::ptr::null_mut(),
                bytes,
                protection,
                libc::MAP_SHARED,
                file,
                0,
            )
        } else {
            libc::MAP_FAILED
        };
        libc::close(file);
        if place == libc::MAP_FAILED {
            return None;
        }
        // SAFETY: the mapping is of so many words, aligned to a page, and never unmapped; any bytes are valid,
        // and others who change them do not race with atomics.
        Some(core::slice::from_raw_parts(
            place.cast(),
            bytes / size_of::<AtomicU64>(),
        ))
    }
}

/// Creates a file, or empties it, and maps it as words, also those beyond its end, which may not be touched before
/// [`grow_log`]. They stay for ever. `None` if that cannot be done.
#[cfg(feature = "preload")]
pub(crate) fn map_log(name: &CStr, bytes: usize) -> Option<&'static [AtomicU64]> {
    let _errno = KeepErrno::new();
    let flags = libc::O_RDWR | libc::O_CREAT | libc::O_TRUNC | libc::O_CLOEXEC;
    // SAFETY: a string; the file is closed by nobody else; the mapping is at a place of the kernel's choice.
    let place = unsafe {
        let file = libc::open(name.as_ptr(), flags, 0o600);
        if file < 0 {
            return None;
        }
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_SHARED | libc::MAP_NORESERVE;
        let place = libc::mmap(core::ptr::null_mut(), bytes, protection, flags, file, 0);
        libc::close(file);
        place
    };
    if place == libc::MAP_FAILED {
        return None;
    }
    // SAFETY: as in `map_shared`; the words beyond the end of the file are not touched before it has grown.
    Some(unsafe { core::slice::from_raw_parts(place.cast(), bytes / size_of::<AtomicU64>()) })
}

/// Lets a file grow by so many bytes from its end, and makes sure that there is room for them. False if that
/// cannot be done.
#[cfg(feature = "preload")]
pub(crate) fn grow_log(name: &CStr, end: u64, bytes: u64) -> bool {
    let _errno = KeepErrno::new();
    let (Ok(end), Ok(bytes)) = (libc::off_t::try_from(end), libc::off_t::try_from(bytes)) else {
        return false;
    };
    // By its name, as a program may close files that it does not know.
    // SAFETY: a string; the file is closed by nobody else; no memory is involved but the mapping of the log, which
    // gets longer.
    unsafe {
        let file = libc::open(name.as_ptr(), libc::O_RDWR | libc::O_CLOEXEC);
        if file < 0 {
            return false;
        }
        let mut has_grown = libc::fallocate(file, 0, end, bytes) == 0;
        if !has_grown && super::linux::error() == libc::EOPNOTSUPP {
            has_grown = libc::ftruncate(file, end + bytes) == 0;
        }
        libc::close(file);
        has_grown
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
    /// Whether the file is closed when this is dropped.
    closes: bool,
    buffer: [u8; BUFFER_BYTES],
    len: usize,
}

impl Output {
    /// Creates a file, or empties it. `None` if that cannot be done.
    pub(crate) fn create(name: &CStr) -> Option<Self> {
        let flags = libc::O_WRONLY | libc::O_CREAT | libc::O_TRUNC | libc::O_CLOEXEC;
        let _errno = KeepErrno::new();
        // SAFETY: a string.
        let file = unsafe { libc::open(name.as_ptr(), flags, 0o644) };
        (file >= 0).then(|| Self::new(file, true))
    }

    fn new(file: c_int, closes: bool) -> Self {
        Self {
            file,
            closes,
            buffer: [0; BUFFER_BYTES],
            len: 0,
        }
    }

    /// Standard error, which stays open.
    #[cfg(feature = "preload")]
    pub(crate) fn stderr() -> Self {
        Self::new(libc::STDERR_FILENO, false)
    }

    /// Standard error as it was when [`keep_stderr`] was called, if it is still open, there or as a
    /// copy; a program that closed it may have another file in its place.
    pub(crate) fn kept_stderr() -> Option<Self> {
        let identity_then = KEPT_IDENTITY.each_ref().map(|part| part.load(Relaxed));
        [KEPT_STDERR.load(Relaxed), libc::STDERR_FILENO]
            .into_iter()
            .find(|file| identity(*file) == Some(identity_then))
            .map(|file| Self::new(file, false))
    }

    /// Writes the buffer out; errors are ignored.
    fn flush(&mut self) {
        let _errno = KeepErrno::new();
        let mut rest = &self.buffer[..self.len];
        while !rest.is_empty() {
            // SAFETY: `rest` is valid for reads of its length.
            let written = unsafe { libc::write(self.file, rest.as_ptr().cast(), rest.len()) };
            match usize::try_from(written).ok().and_then(|n| rest.get(n..)) {
                Some(after) => rest = after,
                // A signal came before anything was written.
                None if super::linux::error() == libc::EINTR => {}
                None => break,
            }
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
        if self.closes {
            let _errno = KeepErrno::new();
            // SAFETY: the file was opened by `create`, and nobody else has it.
            unsafe { libc::close(self.file) };
        }
    }
}
