//! Runs one process to its end, or to the end of its time, and tells what it used.
//!
//! Each child is a process group of its own. When it has ended or its time is over, the whole group
//! is killed, so that nothing is left to disturb the next run. The signals that ask this process to
//! end are blocked from the start and taken while it waits for a child, which is then killed first.
//!
//! Invariant: only this file contains unsafe code.

#![allow(unsafe_code)]

use std::fs::File;
use std::io::{self, Read, Seek};
use std::mem::MaybeUninit;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Command, ExitStatus};
use std::ptr;
use std::time::{Duration, Instant};

use libc::{c_int, pid_t, sigset_t};

/// What asks this process to end.
const ENDING: [c_int; 4] = [libc::SIGINT, libc::SIGQUIT, libc::SIGTERM, libc::SIGHUP];

/// How a run ended and what it used, its own children included as far as it waited for them.
#[derive(Clone, Copy, Debug)]
pub struct Outcome {
    pub status: ExitStatus,
    /// It was killed because its time was over.
    pub timed_out: bool,
    pub wall: Duration,
    pub user: Duration,
    pub system: Duration,
    /// Of the largest process. The system counts from the fork on, so it is no less than what this
    /// tool has at that time.
    pub peak_rss_bytes: u64,
}

/// What a program wrote.
#[derive(Debug, Default)]
pub struct Output {
    pub stdout: Vec<u8>,
    pub stderr: Vec<u8>,
}

/// Why there is no outcome.
#[derive(Debug)]
pub enum Stop {
    /// The child could not be started, or not be waited for.
    Error(io::Error),
    /// This process was asked to end; the child was killed.
    Signal(c_int),
}

impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Self {
        Self::Error(error)
    }
}

/// Runs children, one at a time, while the signals that concern them are blocked in this process.
pub struct Children {
    taken: sigset_t,
    inherited: sigset_t,
}

impl Children {
    /// To be called before this process starts threads, which inherit what is blocked.
    pub fn new() -> io::Result<Self> {
        let taken = set(ENDING.iter().chain(&[libc::SIGCHLD]));
        let mut inherited = set([].iter());
        // SAFETY: the default action is valid for every signal. Were SIGCHLD ignored, the system
        // would forget the status of a child.
        unsafe { libc::signal(libc::SIGCHLD, libc::SIG_DFL) };
        // SAFETY: both pointers are valid, the first for reads and the second for writes.
        match unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &taken, &mut inherited) } {
            0 => Ok(Self { taken, inherited }),
            number => Err(io::Error::from_raw_os_error(number)),
        }
    }

    /// Runs a program to its end, or kills it after `timeout`.
    pub fn run(&self, command: &mut Command, timeout: Option<Duration>) -> Result<Outcome, Stop> {
        let mask = self.inherited;
        let restore = move || {
            // SAFETY: the mask is one that the system returned; a null pointer is allowed.
            match unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &mask, ptr::null_mut()) } {
                0 => Ok(()),
                number => Err(io::Error::from_raw_os_error(number)),
            }
        };
        // SAFETY: between fork and exec the closure calls pthread_sigmask only, which is
        // async-signal-safe; it neither allocates nor locks, and owns a copy of what it reads.
        unsafe { command.pre_exec(restore) };
        let start = Instant::now();
        let child = command.process_group(0).spawn()?;
        let child = pid_t::try_from(child.id()).map_err(io::Error::other)?;
        let deadline = timeout.map(|timeout| start + timeout);
        let mut timed_out = false;
        while !has_ended(child)? {
            match self.take(deadline)? {
                Some(libc::SIGCHLD) => {}
                Some(signal) => {
                    kill_group(child);
                    reap(child)?;
                    return Err(Stop::Signal(signal));
                }
                None => {
                    timed_out = true;
                    break;
                }
            }
        }
        let wall = start.elapsed();
        kill_group(child);
        let outcome = reap(child)?;
        Ok(Outcome {
            timed_out,
            wall,
            ..outcome
        })
    }

    /// Runs a program, and keeps what it writes.
    pub fn output(
        &self,
        command: &mut Command,
        timeout: Option<Duration>,
    ) -> Result<(Outcome, Output), Stop> {
        // Files, as a pipe would have to be read while the program runs, and could stay open.
        let mut stdout = tempfile::tempfile()?;
        command.stdout(stdout.try_clone()?);
        let (outcome, stderr) = self.errors(command, timeout)?;
        let stdout = contents(&mut stdout)?;
        Ok((outcome, Output { stdout, stderr }))
    }

    /// Runs a program, and keeps what it writes to its standard error.
    pub fn errors(
        &self,
        command: &mut Command,
        timeout: Option<Duration>,
    ) -> Result<(Outcome, Vec<u8>), Stop> {
        let mut stderr = tempfile::tempfile()?;
        command.stderr(stderr.try_clone()?);
        let outcome = self.run(command, timeout)?;
        Ok((outcome, contents(&mut stderr)?))
    }

    /// Waits for the next signal; `None` if the time is over before one comes.
    fn take(&self, deadline: Option<Instant>) -> io::Result<Option<c_int>> {
        loop {
            // Without a deadline it waits an hour again and again.
            let rest = deadline.map_or(Duration::from_secs(3600), |deadline| {
                deadline.saturating_duration_since(Instant::now())
            });
            let timeout = libc::timespec {
                tv_sec: rest.as_secs() as libc::time_t,
                tv_nsec: rest.subsec_nanos() as libc::c_long,
            };
            // SAFETY: the pointers are valid for reads; a null one for the details is allowed.
            let signal = unsafe { libc::sigtimedwait(&self.taken, ptr::null_mut(), &timeout) };
            if signal > 0 {
                return Ok(Some(signal));
            }
            let error = io::Error::last_os_error();
            match error.raw_os_error() {
                Some(libc::EAGAIN) if deadline.is_some_and(|it| it <= Instant::now()) => {
                    return Ok(None);
                }
                // This process was stopped and goes on, or there is more time.
                Some(libc::EAGAIN | libc::EINTR) => {}
                _ => return Err(error),
            }
        }
    }
}

fn contents(file: &mut File) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.rewind()?;
    file.read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Whether the child has ended; it stays to be waited for, so that its number stays its own.
fn has_ended(child: pid_t) -> io::Result<bool> {
    let mut details = MaybeUninit::<libc::siginfo_t>::zeroed();
    let options = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
    // SAFETY: the pointer is valid for writes of its type for the whole call.
    match unsafe { libc::waitid(libc::P_PID, child as u32, details.as_mut_ptr(), options) } {
        -1 => Err(io::Error::last_os_error()),
        // SAFETY: all zeros are a value of the details, and they began as that; the number of the
        // process in them is set if it has ended, and zero otherwise.
        _ => Ok(unsafe { details.assume_init().si_pid() } != 0),
    }
}

/// Kills what there is of the child's group.
fn kill_group(child: pid_t) {
    // SAFETY: kill takes numbers only. The child was not waited for yet, so the number is still
    // that of its group. There may be nobody left to kill.
    unsafe { libc::kill(-child, libc::SIGKILL) };
}

/// Waits for the child; the wall time of the outcome is zero.
fn reap(child: pid_t) -> io::Result<Outcome> {
    let mut status = 0;
    let mut usage = MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: both pointers are valid for writes of their types for the whole call.
    while unsafe { libc::wait4(child, &mut status, 0, usage.as_mut_ptr()) } == -1 {
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
    // SAFETY: an rusage is integers only, of which all zeros are values; it began as that.
    let usage = unsafe { usage.assume_init() };
    Ok(Outcome {
        status: ExitStatus::from_raw(status),
        timed_out: false,
        wall: Duration::ZERO,
        user: duration(usage.ru_utime),
        system: duration(usage.ru_stime),
        peak_rss_bytes: u64::try_from(usage.ru_maxrss).unwrap_or(0) * 1024,
    })
}

fn duration(time: libc::timeval) -> Duration {
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    let micros = u64::try_from(time.tv_usec).unwrap_or(0);
    Duration::from_secs(seconds) + Duration::from_micros(micros)
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
