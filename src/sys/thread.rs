//! Threads: one of the allocator's own, and what others are doing.

#![allow(unsafe_code)]

use core::ffi::{CStr, c_int, c_long, c_void};
use core::mem::MaybeUninit;
use core::ptr;
use core::sync::atomic::AtomicU32;

use super::cgroup::read;
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

/// The name of the calling thread, and zeros.
#[cfg(feature = "profile")]
pub(crate) fn thread_name() -> [u8; 16] {
    let _errno = KeepErrno::new();
    let mut name = [0; 16];
    // SAFETY: the kernel writes at most 16 bytes.
    unsafe { libc::prctl(libc::PR_GET_NAME, name.as_mut_ptr()) };
    name
}

/// Whether the 8 bytes at an address can be read. A system call that reads a set of signals from there, and
/// refuses to do anything with it, says so.
#[cfg(any(test, feature = "profile"))]
pub(crate) fn is_readable(address: usize) -> bool {
    let _errno = KeepErrno::new();
    const NO_SUCH_CHANGE: c_int = -1;
    // SAFETY: the kernel checks the address; nothing is changed.
    unsafe {
        let nowhere = ptr::null_mut::<u8>();
        libc::syscall(
            libc::SYS_rt_sigprocmask,
            NO_SUCH_CHANGE,
            address,
            nowhere,
            8,
        );
        *libc::__errno_location() == libc::EINVAL
    }
}

/// Copies memory of this process that other threads may be writing. False if the kernel does not permit it.
#[cfg(feature = "profile")]
pub(crate) fn copy_own_memory(from: usize, to: &mut [usize]) -> bool {
    let _errno = KeepErrno::new();
    let bytes = size_of_val(to);
    let local = libc::iovec {
        iov_base: to.as_mut_ptr().cast(),
        iov_len: bytes,
    };
    let remote = libc::iovec {
        iov_base: ptr::with_exposed_provenance_mut(from),
        iov_len: bytes,
    };
    // SAFETY: `to` is valid for writes of its length; the kernel checks the other address.
    let copied = unsafe { libc::process_vm_readv(libc::getpid(), &local, 1, &remote, 1, 0) };
    usize::try_from(copied) == Ok(bytes)
}

/// Nanoseconds since the Unix epoch.
#[cfg(feature = "profile")]
pub(crate) fn wall_clock_ns() -> i64 {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: `time` is valid for writes.
    unsafe { libc::clock_gettime(libc::CLOCK_REALTIME, &mut time) };
    time.tv_sec * 1_000_000_000 + time.tv_nsec
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

/// Whether a thread of this process waits in a system call of its own, or of a signal handler that began
/// before. False if the kernel does not tell.
fn is_in_system_call(thread: i32) -> bool {
    let mut text = [0; 32];
    // "running"; or "-1" and registers, if it waits for something else (a page); or the number of the call.
    read_of_task(thread, "syscall", &mut text).is_some_and(is_number_of_wait)
}

/// Calls that are no waits of the thread itself: where a signal handler ends, what it interrupted is under way
/// again; and the child of a `vfork` runs in its parent's memory, also in what is the thread's own.
const NO_WAITS: &[i64] = &[
    libc::SYS_rt_sigreturn,
    // With another mask meanwhile: nothing tells whether this is in a handler.
    libc::SYS_rt_sigsuspend,
    libc::SYS_clone,
    libc::SYS_clone3,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_vfork,
];

/// Whether a text begins with the number of a system call that may wait.
fn is_number_of_wait(text: &[u8]) -> bool {
    let end = text.iter().position(|byte| *byte == b' ');
    let digits = text.get(..end.unwrap_or(text.len())).unwrap_or_default();
    number(digits, 10).is_some_and(|call| !NO_WAITS.iter().any(|no_wait| *no_wait as u64 == call))
}

/// A thread of this process that waits, outside of signal handlers: as far as one look tells, until
/// [`Wait::lasts`] says so.
///
/// A handler that waits may have interrupted anything. While it runs its own signal is blocked; so a thread is
/// in none if it blocks no signal that has a handler. (Not seen is one that lets its own signal through
/// meanwhile: `SA_NODEFER`, `SA_RESETHAND` or a mask of its own. A thread that always blocks a signal that has a
/// handler looks as if it was in it.)
pub(crate) struct Wait {
    thread: i32,
    /// How often the thread had ceased to run.
    waits_begun: u64,
}

impl Wait {
    /// `None` if the thread runs, may be in a handler, or the kernel does not tell.
    pub(crate) fn of(thread: i32) -> Option<Self> {
        let status = Status::of(thread)?;
        (status.waits && !status.may_be_in_handler).then_some(Self {
            thread,
            waits_begun: status.waits_begun,
        })
    }

    /// Whether it is in a system call of the thread, and has been all the time: then the thread has been in the
    /// middle of nothing.
    pub(crate) fn lasts(&self) -> bool {
        // It waits now, and has not begun to wait since the first look, so it did all the time, with this mask.
        Status::of(self.thread).is_some_and(|mask| !mask.may_be_in_handler)
            && is_in_system_call(self.thread)
            && Status::of(self.thread).is_some_and(|now| now.waits_begun == self.waits_begun)
    }
}

/// Bytes of the longest status that is understood: about 1,500, and 8 for each group of the user.
const STATUS_BYTES: usize = 4096;

/// What the kernel says of a thread.
#[derive(Debug, PartialEq, Eq)]
struct Status {
    /// Whether it does not run, nor is it ready to.
    waits: bool,
    /// Whether it blocks a signal that has a handler.
    may_be_in_handler: bool,
    /// How often it ceased to run.
    waits_begun: u64,
}

impl Status {
    fn of(thread: i32) -> Option<Self> {
        let mut text = [0; STATUS_BYTES];
        Self::from_text(thread, read_of_task(thread, "status", &mut text)?)
    }

    /// From the text of `status`, if it has all that is looked for and is about that thread: where `/proc` is
    /// that of another namespace of processes, the number there is another one's.
    fn from_text(thread: i32, text: &[u8]) -> Option<Self> {
        let line = |name: &[u8]| {
            let mut lines = text.split(|byte| *byte == b'\n');
            lines.find_map(|line| line.strip_prefix(name))
        };
        let field = |name: &[u8], base| number(line(name)?.trim_ascii(), base);
        // Its numbers in all namespaces, its own last.
        if let Some(numbers) = line(b"NSpid:") {
            let own = numbers.rsplit(|byte| *byte == b'\t').next()?;
            if number(own, 10)? != u64::try_from(thread).ok()? {
                return None;
            }
        }
        let state = line(b"State:")?.trim_ascii().first()?;
        Some(Self {
            waits: matches!(state, b'S' | b'D'),
            may_be_in_handler: field(b"SigBlk:", 16)? & field(b"SigCgt:", 16)? != 0,
            waits_begun: field(b"voluntary_ctxt_switches:", 10)?
                .wrapping_add(field(b"nonvoluntary_ctxt_switches:", 10)?),
        })
    }
}

/// The number that a text is; `None` if it is none.
fn number(text: &[u8], base: u32) -> Option<u64> {
    let text = str::from_utf8(text).ok()?;
    u64::from_str_radix(text, base).ok()
}

/// Threads of this process. The main one counts also when it has ended. `None` if the system does not
/// tell (`/proc` is not there).
pub(crate) fn thread_count() -> Option<usize> {
    let _errno = KeepErrno::new();
    // SAFETY: an all-zero `stat` is valid.
    let mut stat: libc::stat = unsafe { core::mem::zeroed() };
    // SAFETY: a string; `stat` is valid for writes.
    if unsafe { libc::stat(c"/proc/self/task".as_ptr(), &mut stat) } != 0 {
        return None;
    }
    // A directory for each thread, and two more links.
    Some((stat.st_nlink as usize).saturating_sub(2))
}

/// Whether the main thread and all others but the calling one have ended: it keeps the process alive.
pub(crate) fn is_last_thread() -> bool {
    // The main one stays until the process ends.
    if thread_count().is_none_or(|count| count > 2) {
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
    let mut path = Name {
        bytes: [0; NAME_BYTES],
        len: 0,
    };
    write!(path, "/proc/self/task/{thread}/{file}\0").ok()?;
    read(
        CStr::from_bytes_with_nul(path.bytes.get(..path.len)?).ok()?,
        text,
    )
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

#[cfg(test)]
mod tests {
    use core::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    #[test]
    fn call_is_a_wait_unless_another_one_goes_on_meanwhile() {
        assert!(is_number_of_wait(b"0 0x3 0x7f"));
        assert!(is_number_of_wait(b"202 0x55"));
        for text in ["running\n", "-1 0x7ffc 0x7f", "", "\n", "x", " 1"] {
            assert!(!is_number_of_wait(text.as_bytes()), "{text:?}");
        }
        for call in NO_WAITS {
            let text = std::format!("{call} 0x0");
            assert!(!is_number_of_wait(text.as_bytes()), "{text}");
        }
    }

    #[test]
    fn status_tells_signals_and_waits() {
        let status = |blocked, caught| {
            Status::from_text(
                7,
                std::format!(
                    "Name:\tSigBlk:\nState:\tS (sleeping)\nNSpid:\t30\t7\nSigBlk:\t{blocked:016x}\nSigCgt:\t{caught:016x}\n\
                     voluntary_ctxt_switches:\t150\nnonvoluntary_ctxt_switches:\t545\n"
                )
                .as_bytes(),
            )
        };
        for (blocked, caught, may_be_in_handler) in [
            (0, 0, false),
            (0xff, 0x100, false),
            (1_u64 << 63, u64::MAX, true),
        ] {
            let expected = Status {
                waits: true,
                may_be_in_handler,
                waits_begun: 695,
            };
            assert_eq!(status(blocked, caught), Some(expected));
        }
        assert_eq!(Status::from_text(7, b"SigBlk:\t0\nSigCgt:\t0\n"), None);
        assert_eq!(Status::from_text(7, b""), None);
        let counts = "voluntary_ctxt_switches:\t1\nnonvoluntary_ctxt_switches:\t1\n";
        for (numbers, is_this) in [("", true), ("NSpid:\t7\n", true), ("NSpid:\t7\t2\n", false)] {
            let text =
                std::format!("State:\tR (running)\n{numbers}SigBlk:\t0\nSigCgt:\t0\n{counts}");
            assert_eq!(
                Status::from_text(7, text.as_bytes()).is_some(),
                is_this,
                "{numbers}"
            );
        }
    }

    #[test]
    fn status_of_this_thread_is_understood() {
        let status = Status::of(kernel_thread_id()).unwrap();
        // Who reads it runs.
        assert!(!status.waits);
    }

    #[test]
    #[cfg(target_env = "gnu")] // The C library's way to end a thread from outside.
    fn thread_that_is_to_be_cancelled_is_not_while_a_file_is_read() {
        static HAS_READ: AtomicBool = AtomicBool::new(false);
        extern "C" fn read_when_cancelled(_: *mut c_void) -> *mut c_void {
            // SAFETY: the thread ends at the next point where it can be cancelled, if it comes to one.
            unsafe { libc::pthread_cancel(libc::pthread_self()) };
            let _ = Wait::of(kernel_thread_id()).is_some_and(|wait| wait.lasts());
            is_in_system_call(kernel_thread_id());
            is_last_thread();
            HAS_READ.store(true, Ordering::Relaxed);
            ptr::null_mut()
        }
        let mut thread = MaybeUninit::uninit();
        // SAFETY: the thread is joined; it has no arguments.
        unsafe {
            let none = (ptr::null(), ptr::null_mut());
            libc::pthread_create(thread.as_mut_ptr(), none.0, read_when_cancelled, none.1);
            libc::pthread_join(thread.assume_init(), ptr::null_mut());
        }
        assert!(HAS_READ.load(Ordering::Relaxed));
    }
}
