//! Runs one program to its end: signals pass through, and the system tells what it used.
//!
//! While the program runs, the signals that concern it are blocked in this process and taken one by
//! one by `sigwaitinfo`. So no signal handler is needed, none of them can end this process before
//! the program, and no disposition is changed: the program gets the dispositions that this process
//! was started with (SIGPIPE excepted, which std sets to the default in every child), and its signal
//! mask.
//!
//! The program is in the same process group and on the same terminal. What the terminal sends to the
//! group reaches it directly; what is sent to this process alone is sent on. A signal that somebody
//! sends to the whole group reaches the program twice, other than SIGINT and SIGQUIT.

#![allow(unsafe_code)]

use std::io;
use std::mem::MaybeUninit;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Command, ExitCode, ExitStatus};
use std::ptr;
use std::time::{Duration, Instant};

use libc::{c_int, pid_t, sigaction, sigset_t};

/// What the keyboard sends to the whole group: taken, and left to the program.
const FROM_KEYBOARD: [c_int; 2] = [libc::SIGINT, libc::SIGQUIT];

/// What is sent on to the program.
const FORWARDED: [c_int; 7] = [
    libc::SIGHUP,
    libc::SIGTERM,
    libc::SIGUSR1,
    libc::SIGUSR2,
    libc::SIGALRM,
    libc::SIGCONT,
    libc::SIGWINCH,
];

/// What asks a process to end.
const ENDING: [c_int; 4] = [libc::SIGINT, libc::SIGQUIT, libc::SIGTERM, libc::SIGHUP];

/// How a run ended and what it used.
pub(crate) struct Outcome {
    pub(crate) pid: u32,
    pub(crate) status: ExitStatus,
    pub(crate) usage: Usage,
    /// The last signal that asked this process to end in the meantime.
    pub(crate) asked_to_end: Option<c_int>,
}

/// What a run used, its own children included as far as it waited for them.
#[derive(Clone, Copy)]
pub(crate) struct Usage {
    pub(crate) wall: Duration,
    pub(crate) user: Duration,
    pub(crate) system: Duration,
    /// Of the largest process. The system counts from the fork on, so it is no less than what this
    /// tool has at that time, a few hundred KiB.
    pub(crate) peak_rss_bytes: u64,
}

/// Runs a program to its end. An error says why it could not be started.
pub(crate) fn run(command: &mut Command) -> io::Result<Outcome> {
    run_and_look(command, None, |_| {})
}

/// Runs a program to its end, and calls `look` with its number at the start and then every so often.
pub(crate) fn run_and_look(
    command: &mut Command,
    every: Option<Duration>,
    mut look: impl FnMut(u32),
) -> io::Result<Outcome> {
    let held = Held::new()?;
    let inherited = held.inherited;
    // SAFETY: between fork and exec this closure calls pthread_sigmask and sigaction, which are
    // async-signal-safe; it neither allocates nor locks, and owns copies of what it reads.
    unsafe { command.pre_exec(move || inherited.restore()) };
    let start = Instant::now();
    let pid = command.spawn()?.id();
    let child = pid_t::try_from(pid).map_err(io::Error::other)?;
    let mut asked_to_end = None;
    loop {
        look(pid);
        let Some(signal) = held.wait(every)? else {
            continue;
        };
        if ENDING.contains(&signal) {
            asked_to_end = Some(signal);
        }
        if FORWARDED.contains(&signal) {
            // SAFETY: kill takes numbers only. `child` was not waited for yet, so the number is its.
            // It may have ended; then there is nobody to tell.
            unsafe { libc::kill(child, signal) };
        }
        if signal == libc::SIGCHLD
            && let Some((status, mut usage)) = wait(child)?
        {
            usage.wall = start.elapsed();
            return Ok(Outcome {
                pid,
                status,
                usage,
                asked_to_end,
            });
        }
    }
}

/// The status and usage of the child if it has ended; the wall time is zero.
fn wait(child: pid_t) -> io::Result<Option<(ExitStatus, Usage)>> {
    let mut status = 0;
    let mut usage = MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: both pointers are valid for writes of their types for the whole call.
    let waited = unsafe { libc::wait4(child, &mut status, libc::WNOHANG, usage.as_mut_ptr()) };
    match waited {
        -1 => Err(io::Error::last_os_error()),
        0 => Ok(None),
        _ => {
            // SAFETY: an rusage is integers only, of which all zeros are values; it began as that.
            let usage = unsafe { usage.assume_init() };
            let usage = Usage {
                wall: Duration::ZERO,
                user: duration(usage.ru_utime),
                system: duration(usage.ru_stime),
                peak_rss_bytes: u64::try_from(usage.ru_maxrss).unwrap_or(0) * 1024,
            };
            Ok(Some((ExitStatus::from_raw(status), usage)))
        }
    }
}

fn duration(time: libc::timeval) -> Duration {
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    let micros = u64::try_from(time.tv_usec).unwrap_or(0);
    Duration::from_secs(seconds) + Duration::from_micros(micros)
}

/// What this process inherited and what its child shall inherit in turn.
#[derive(Clone, Copy)]
struct Inherited {
    mask: sigset_t,
    /// Ignored, maybe, in which case the system would forget the child's status.
    sigchld: sigaction,
}

impl Inherited {
    /// Sets this process, or the child before its exec, to what was inherited.
    fn restore(&self) -> io::Result<()> {
        // SAFETY: the action is one that the system returned from this process's inherited state,
        // before any handler was set; the pointer is valid for reads, a null one is allowed.
        check(unsafe { libc::sigaction(libc::SIGCHLD, &self.sigchld, ptr::null_mut()) })?;
        // SAFETY: the mask is one that the system returned; a null pointer is allowed.
        let error =
            unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &self.mask, ptr::null_mut()) };
        check_number(error)
    }
}

/// While it lives, the signals that concern the program wait to be taken.
struct Held {
    signals: sigset_t,
    inherited: Inherited,
}

impl Held {
    fn new() -> io::Result<Self> {
        let taken = FROM_KEYBOARD.iter().chain(&FORWARDED);
        let signals = set(taken.chain(&[libc::SIGCHLD]));
        let mut mask = set([].iter());
        // SAFETY: both pointers are valid, the first for reads and the second for writes.
        check_number(unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &signals, &mut mask) })?;

        // SAFETY: a sigaction of zeros is a value: the default action, no flags, an empty mask.
        let default = unsafe { MaybeUninit::<sigaction>::zeroed().assume_init() };
        let mut sigchld = default;
        // SAFETY: both pointers are valid, the first for reads and the second for writes.
        check(unsafe { libc::sigaction(libc::SIGCHLD, &default, &mut sigchld) })?;
        Ok(Self {
            signals,
            inherited: Inherited { mask, sigchld },
        })
    }

    /// Takes the next signal, and waits for it if there is none: for ever, or for at most so long.
    fn wait(&self, most: Option<Duration>) -> io::Result<Option<c_int>> {
        let most = most.map(|most| libc::timespec {
            tv_sec: libc::time_t::try_from(most.as_secs()).unwrap_or(libc::time_t::MAX),
            tv_nsec: most.subsec_nanos().into(),
        });
        let most = most.as_ref().map_or(ptr::null(), ptr::from_ref);
        loop {
            // SAFETY: the set is valid for reads, and so is the time if there is one; null pointers are
            // allowed for the details and the time.
            let signal = unsafe { libc::sigtimedwait(&self.signals, ptr::null_mut(), most) };
            if signal > 0 {
                return Ok(Some(signal));
            }
            let error = io::Error::last_os_error();
            match error.kind() {
                io::ErrorKind::WouldBlock => return Ok(None),
                // This process was stopped and goes on.
                io::ErrorKind::Interrupted => {}
                _ => return Err(error),
            }
        }
    }
}

impl Drop for Held {
    /// The signals of the program's time are taken by then: the system hands out lower numbers
    /// first, and SIGCHLD is above those that end a process.
    fn drop(&mut self) {
        // It succeeded with the same values before.
        let _ = self.inherited.restore();
    }
}

fn set<'a>(signals: impl Iterator<Item = &'a c_int>) -> sigset_t {
    let mut set = MaybeUninit::uninit();
    // SAFETY: the pointer is valid for writes; sigemptyset makes a value of what is there.
    let mut set: sigset_t = unsafe {
        libc::sigemptyset(set.as_mut_ptr());
        set.assume_init()
    };
    for &signal in signals {
        // SAFETY: `set` is a valid set, and sigaddset checks the number.
        unsafe { libc::sigaddset(&mut set, signal) };
    }
    set
}

/// Sends the program the signal that the keyboard sends for Ctrl-C. To be called while [`run_and_look`] looks.
pub(crate) fn interrupt(pid: u32) {
    if let Ok(child) = pid_t::try_from(pid) {
        // SAFETY: kill takes numbers only. The child was not waited for yet, so the number is its.
        unsafe { libc::kill(child, libc::SIGINT) };
    }
}

/// Ends this process by a signal, as the program ended, without a core dump of its own. If the
/// signal does not end it, the exit code tells.
pub(crate) fn die_by(signal: c_int) -> ExitCode {
    let no_core = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    let only = set([signal].iter());
    // SAFETY: the pointers are valid for reads during the calls, null ones are allowed, and no
    // handler is set. The limit does not hold for cores that go to a program, the flag does.
    unsafe {
        libc::setrlimit(libc::RLIMIT_CORE, &no_core);
        libc::prctl(libc::PR_SET_DUMPABLE, 0, 0, 0, 0);
        libc::signal(signal, libc::SIG_DFL);
        libc::pthread_sigmask(libc::SIG_UNBLOCK, &only, ptr::null_mut());
        libc::raise(signal);
    }
    ExitCode::from(u8::try_from(128 + signal).unwrap_or(u8::MAX))
}

/// The error of a call that returns -1 and sets errno.
fn check(returned: c_int) -> io::Result<()> {
    match returned {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

/// The error of a call that returns its number.
fn check_number(error: c_int) -> io::Result<()> {
    match error {
        0 => Ok(()),
        number => Err(io::Error::from_raw_os_error(number)),
    }
}
