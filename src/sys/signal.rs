//! Signals that ask for something.
//!
//! A handler here does what its caller's function does, which may be nothing but atomic operations and a
//! wake, and then what was done before it: a handler that the program had installed is called. Where the
//! program installs one of its own later, that one is in its place, and this one is called no more unless
//! that one calls it.

#![allow(unsafe_code)]

use core::ffi::{c_int, c_void};
use core::mem::{MaybeUninit, transmute};
use core::ptr;

use spin::Once;

use super::linux::KeepErrno;

/// The signals that are free for programs to use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Signal {
    Usr1,
    Usr2,
}

impl Signal {
    fn number(self) -> c_int {
        match self {
            Self::Usr1 => libc::SIGUSR1,
            Self::Usr2 => libc::SIGUSR2,
        }
    }
}

/// What happens at a signal.
struct Caught {
    then: fn(Signal),
    before: libc::sigaction,
}

/// Of [`Signal::Usr1`] and [`Signal::Usr2`]. **Fixed before the handler is installed.**
static CAUGHT: [Once<Caught>; 2] = [const { Once::new() }; 2];

/// Has `then` called at each signal of that kind, in whichever thread gets it. It may do only what is safe in
/// the middle of anything (async-signal-safe). The first call for a signal counts. False if it cannot be done.
pub(crate) fn on_signal(signal: Signal, then: fn(Signal)) -> bool {
    let _errno = KeepErrno::new();
    let mut before = MaybeUninit::<libc::sigaction>::uninit();
    // SAFETY: without a new action, the call only writes the present one.
    let before = unsafe {
        if libc::sigaction(signal.number(), ptr::null(), before.as_mut_ptr()) != 0 {
            return false;
        }
        before.assume_init()
    };
    let mut is_first = false;
    CAUGHT[signal as usize].call_once(|| {
        is_first = true;
        Caught { then, before }
    });
    if !is_first {
        return true;
    }
    let handler: extern "C" fn(c_int, *mut libc::siginfo_t, *mut c_void) = handle;
    // SAFETY: an all-zero `sigaction` is valid: an empty mask, no flags.
    let mut action: libc::sigaction = unsafe { core::mem::zeroed() };
    action.sa_sigaction = handler as usize;
    // System calls of the program go on, and threads with a stack for signals use it.
    action.sa_flags = libc::SA_SIGINFO | libc::SA_RESTART | libc::SA_ONSTACK;
    // SAFETY: the handler keeps errno and does only what is async-signal-safe.
    unsafe { libc::sigaction(signal.number(), &action, ptr::null_mut()) == 0 }
}

extern "C" fn handle(number: c_int, info: *mut libc::siginfo_t, context: *mut c_void) {
    let _errno = KeepErrno::new();
    let signal = match number {
        libc::SIGUSR1 => Signal::Usr1,
        _ => Signal::Usr2,
    };
    let Some(caught) = CAUGHT[signal as usize].get() else {
        return;
    };
    (caught.then)(signal);
    let before = &caught.before;
    match before.sa_sigaction {
        libc::SIG_DFL | libc::SIG_IGN => {}
        // SAFETY: the program's handler, of the kind that the flag tells, gets what this one got.
        address if before.sa_flags & libc::SA_SIGINFO != 0 => unsafe {
            transmute::<usize, extern "C" fn(c_int, *mut libc::siginfo_t, *mut c_void)>(address)(
                number, info, context,
            );
        },
        // SAFETY: as above.
        address => unsafe { transmute::<usize, extern "C" fn(c_int)>(address)(number) },
    }
}
