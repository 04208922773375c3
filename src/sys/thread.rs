//! Threads: one of the allocator's own, and what others are doing.

#![allow(unsafe_code)]

use core::ffi::{c_int, c_long, c_void};
use core::mem::MaybeUninit;
use core::ptr;
use core::sync::atomic::AtomicU32;

use super::linux::KeepErrno;

/// Bytes of the thread's stack, of which what is touched takes memory. It needs a page or two, or what writing
/// a profile takes; and if it is the last thread of the process, the C library runs the functions of `atexit`
/// there.
const STACK_BYTES: usize = 1 << 20;

/// What the thread is called, with the zero at its end; at most 16 bytes.
const NAME: &core::ffi::CStr = c"spanmalloc";

/// Starts a detached thread that runs `function`, with all signals blocked. False if that cannot be done.
/// Calls the C library, which allocates: the caller holds no lock.
pub(crate) fn start_thread(function: extern "C" fn(*mut c_void) -> *mut c_void) -> bool {
    let _errno = KeepErrno::new();
    let mut all = MaybeUninit::<libc::sigset_t>::uninit();
    let mut before = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: each set is filled by the call that takes it first, before another one reads it. The new
    // thread inherits the mask of signals, which is as before afterwards.
    unsafe {
        libc::sigfillset(all.as_mut_ptr());
        if libc::pthread_sigmask(libc::SIG_SETMASK, all.as_ptr(), before.as_mut_ptr()) != 0 {
            return false;
        }
    }
    // Where a program has much thread-local memory, which is part of the stack, only the default is
    // large enough.
    let started = start_with_stack(function, Some(STACK_BYTES)) || start_with_stack(function, None);
    // SAFETY: as above.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, before.as_ptr(), ptr::null_mut()) };
    started
}

fn start_with_stack(
    function: extern "C" fn(*mut c_void) -> *mut c_void,
    stack_bytes: Option<usize>,
) -> bool {
    let mut attributes = MaybeUninit::<libc::pthread_attr_t>::uninit();
    let mut thread = MaybeUninit::<libc::pthread_t>::uninit();
    // SAFETY: `attributes` is filled by the first call; the others take it only if that was done.
    unsafe {
        let attributes = attributes.as_mut_ptr();
        if libc::pthread_attr_init(attributes) != 0 {
            return false;
        }
        libc::pthread_attr_setdetachstate(attributes, libc::PTHREAD_CREATE_DETACHED);
        let may =
            stack_bytes.is_none_or(|bytes| libc::pthread_attr_setstacksize(attributes, bytes) == 0);
        let thread = thread.as_mut_ptr();
        let started =
            may && libc::pthread_create(thread, attributes, function, ptr::null_mut()) == 0;
        libc::pthread_attr_destroy(attributes);
        started
    }
}

/// Gives the calling thread its name.
pub(crate) fn name_thread() {
    let _errno = KeepErrno::new();
    // SAFETY: a string.
    unsafe { libc::prctl(libc::PR_SET_NAME, NAME.as_ptr()) };
}

/// Sleeps while `*word == expected`, until [`super::futex_wake`], for at most so many nanoseconds. May
/// return early.
pub(crate) fn futex_wait_for(word: &AtomicU32, expected: u32, ns: u64) {
    let _errno = KeepErrno::new();
    let op = libc::FUTEX_WAIT | libc::FUTEX_PRIVATE_FLAG;
    let timeout = libc::timespec {
        tv_sec: (ns / 1_000_000_000) as libc::time_t,
        tv_nsec: (ns % 1_000_000_000) as c_long,
    };
    // SAFETY: `word` is a live, aligned u32, and the kernel only reads it and the time.
    unsafe {
        libc::syscall(
            libc::SYS_futex,
            word.as_ptr(),
            op,
            expected,
            &raw const timeout,
        )
    };
}

/// Lets other threads run.
pub(crate) fn yield_now() {
    let _errno = KeepErrno::new();
    // SAFETY: no precondition.
    unsafe { libc::sched_yield() };
}

/// The kernel's number of the calling thread.
pub(crate) fn kernel_thread_id() -> i32 {
    // SAFETY: no precondition; no error.
    unsafe { libc::syscall(libc::SYS_gettid) as i32 }
}

const MEMBARRIER_PRIVATE_EXPEDITED: c_int = 1 << 3;
const MEMBARRIER_REGISTER_PRIVATE_EXPEDITED: c_int = 1 << 4;

/// A full memory barrier in all running threads of the process. False if the kernel has none (before
/// 4.14) or does not permit it.
pub(crate) fn barrier_in_all_threads() -> bool {
    let _errno = KeepErrno::new();
    // SAFETY: no memory is involved.
    let membarrier =
        |command: c_int| unsafe { libc::syscall(libc::SYS_membarrier, command, 0, 0) } == 0;
    // Fails the first time in a process, and after it was replaced.
    membarrier(MEMBARRIER_PRIVATE_EXPEDITED)
        || (membarrier(MEMBARRIER_REGISTER_PRIVATE_EXPEDITED)
            && membarrier(MEMBARRIER_PRIVATE_EXPEDITED))
}

/// Whether a thread of this process waits in a system call, so that it is in the middle of nothing. False
/// if the kernel does not tell.
pub(crate) fn is_in_system_call(thread: i32) -> bool {
    let mut text = [0; 32];
    // "running"; or "-1" and registers, if it waits for something else (a page); or the number of the call.
    read_of_task(thread, "syscall", &mut text)
        .is_some_and(|text| text.first().is_some_and(u8::is_ascii_digit))
}

/// Whether the main thread and all others but the calling one have ended: it keeps the process alive.
pub(crate) fn is_last_thread() -> bool {
    let _errno = KeepErrno::new();
    // SAFETY: an all-zero `stat` is valid.
    let mut stat: libc::stat = unsafe { core::mem::zeroed() };
    // SAFETY: a string; `stat` is valid for writes.
    if unsafe { libc::stat(c"/proc/self/task".as_ptr(), &mut stat) } != 0 {
        return false;
    }
    // A directory for each thread, and two more links. The main one stays until the process ends.
    if stat.st_nlink > 4 {
        return false;
    }
    // SAFETY: no precondition.
    let main = unsafe { libc::getpid() };
    let mut text = [0; 64];
    let state = read_of_task(main, "stat", &mut text).and_then(|text| {
        let behind_name = text.iter().rposition(|byte| *byte == b')')?;
        text.get(behind_name + 2).copied()
    });
    state == Some(b'Z')
}

/// The beginning of a file about a thread of this process.
fn read_of_task<'a>(thread: i32, file: &str, text: &'a mut [u8]) -> Option<&'a [u8]> {
    use core::fmt::Write;
    let _errno = KeepErrno::new();
    let mut path = Name {
        bytes: [0; NAME_BYTES],
        len: 0,
    };
    write!(path, "/proc/self/task/{thread}/{file}\0").ok()?;
    // SAFETY: a string, as `write!` has put the zero at its end; `text` is valid for writes of its
    // length; the file is closed by nobody else.
    unsafe {
        let file = libc::open(path.bytes.as_ptr().cast(), libc::O_RDONLY | libc::O_CLOEXEC);
        if file < 0 {
            return None;
        }
        let read = libc::read(file, text.as_mut_ptr().cast(), text.len());
        libc::close(file);
        text.get(..usize::try_from(read).ok()?)
    }
}

/// Longest path that is needed.
const NAME_BYTES: usize = 64;

/// A short text.
struct Name {
    bytes: [u8; NAME_BYTES],
    len: usize,
}

impl core::fmt::Write for Name {
    fn write_str(&mut self, text: &str) -> core::fmt::Result {
        let end = self.len + text.len();
        let place = self.bytes.get_mut(self.len..end).ok_or(core::fmt::Error)?;
        place.copy_from_slice(text.as_bytes());
        self.len = end;
        Ok(())
    }
}
