//! Accesses that the system forbids: a handler of SIGSEGV that looks first and then lets happen what would have
//! happened without it.
//!
//! The handler that was there before is called as the kernel would have called it: on the same stack, with the
//! same signals blocked, with the same arguments, and with the default in its place if it is to be called once.
//! Where there was none, the default is put back and the access made again, so that the process ends as ever,
//! with its core dump. Who installs a handler later takes the place of this one, as is usual.

#![allow(unsafe_code)]

use core::ffi::{c_int, c_void};
use core::mem::{MaybeUninit, transmute, zeroed};
use core::ptr;
use core::sync::atomic::{AtomicBool, Ordering::Relaxed};

use spin::Once;

use super::caller::Caller;
use super::linux::KeepErrno;

/// An access that failed.
pub(crate) struct Fault {
    /// What was accessed.
    pub(crate) address: usize,
    /// The instruction that did, as if it was returned to, and the frame pointer there.
    pub(crate) caller: Caller,
    pub(crate) stack_pointer: usize,
}

struct Caught {
    look: fn(&Fault),
    before: libc::sigaction,
}

/// **Fixed before the handler is installed.**
static CAUGHT: Once<Caught> = Once::new();

/// Whether somebody has begun to install the handler. **Any thread; atomic.** Never unset.
static HAS_BEGUN: AtomicBool = AtomicBool::new(false);

/// Has `look` called at each access that fails, before what happens otherwise. It may do only what is safe in
/// the middle of anything. The first call counts, and the others do not wait for it: `sigaction` may be the
/// program's own, which may allocate, and the child of a `fork` meanwhile would wait for ever.
pub(crate) fn on_fault(look: fn(&Fault)) {
    // Relaxed: the flag publishes nothing but itself.
    if HAS_BEGUN.load(Relaxed) || HAS_BEGUN.swap(true, Relaxed) {
        return;
    }
    let _errno = KeepErrno::new();
    let mut before = MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: without a new action, the call only writes the present one; zeros are valid as well.
    let before = unsafe {
        libc::sigaction(libc::SIGSEGV, ptr::null(), before.as_mut_ptr());
        before.assume_init()
    };
    let caught = CAUGHT.call_once(|| Caught { look, before });
    let handler: extern "C" fn(c_int, *mut libc::siginfo_t, *mut c_void) = handle;
    let mut action = caught.before;
    action.sa_sigaction = handler as usize;
    // Whose stack and mask: those of the handler before, as it is called from this one.
    let kept = libc::SA_ONSTACK | libc::SA_NODEFER | libc::SA_RESTART;
    action.sa_flags = match caught.before.sa_sigaction {
        libc::SIG_DFL | libc::SIG_IGN => libc::SA_ONSTACK,
        _ => caught.before.sa_flags & kept,
    } | libc::SA_SIGINFO;
    // SAFETY: the handler keeps errno and does only what is async-signal-safe.
    unsafe { libc::sigaction(libc::SIGSEGV, &action, ptr::null_mut()) };
}

extern "C" fn handle(number: c_int, info: *mut libc::siginfo_t, context: *mut c_void) {
    let Some(caught) = CAUGHT.get() else {
        return;
    };
    // SAFETY: the kernel's description of the signal. A positive code says that it comes from the kernel.
    let is_fault = unsafe { (*info).si_code } > 0;
    if is_fault {
        let _errno = KeepErrno::new();
        // SAFETY: the arguments of this handler, of an access that failed.
        (caught.look)(&unsafe { fault_of(info, context) });
    }
    pass_on(&caught.before, is_fault, (number, info, context));
}

/// Lets happen what would have happened without this handler.
fn pass_on(
    before: &libc::sigaction,
    is_fault: bool,
    (number, info, context): (c_int, *mut libc::siginfo_t, *mut c_void),
) {
    let address = before.sa_sigaction;
    let is_handled = ![libc::SIG_DFL, libc::SIG_IGN].contains(&address);
    if !is_handled && !is_fault && address == libc::SIG_IGN {
        return;
    }
    if !is_handled || before.sa_flags & libc::SA_RESETHAND != 0 {
        let _errno = KeepErrno::new();
        // SAFETY: an all-zero `sigaction` is the default.
        unsafe { libc::sigaction(number, &zeroed(), ptr::null_mut()) };
    }
    if is_handled {
        // SAFETY: the program's handler, of the kind that the flag tells, gets what this one got.
        unsafe {
            if before.sa_flags & libc::SA_SIGINFO != 0 {
                transmute::<usize, extern "C" fn(c_int, *mut libc::siginfo_t, *mut c_void)>(
                    address,
                )(number, info, context);
            } else {
                transmute::<usize, extern "C" fn(c_int)>(address)(number);
            }
        }
    } else if !is_fault {
        // Sent by somebody: an access that is made again would not fail.
        // SAFETY: no precondition. It comes when this handler returns, as it is blocked until then.
        unsafe { libc::syscall(libc::SYS_tgkill, libc::getpid(), libc::gettid(), number) };
    }
}

/// # Safety
/// The arguments are those of a handler of SIGSEGV that the kernel sent.
unsafe fn fault_of(info: *mut libc::siginfo_t, context: *mut c_void) -> Fault {
    // SAFETY: the caller's promise; the kernel's description has an address and registers.
    let (address, machine) = unsafe {
        let context = context.cast::<libc::ucontext_t>();
        ((*info).si_addr().addr(), &(*context).uc_mcontext)
    };
    #[cfg(target_arch = "x86_64")]
    let [frame, instruction, stack_pointer] = [libc::REG_RBP, libc::REG_RIP, libc::REG_RSP]
        .map(|register| machine.gregs[register as usize] as usize);
    #[cfg(target_arch = "aarch64")]
    let [frame, instruction, stack_pointer] =
        [machine.regs[29], machine.pc, machine.sp].map(|register| register as usize);
    Fault {
        address,
        caller: Caller::new(frame, instruction),
        stack_pointer,
    }
}
