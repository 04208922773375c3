//! The background thread, which gives memory back while the program does nothing.
//!
//! Without it, slow calls of the program give back what is not needed any more, a little at a time; a
//! program that frees much and then makes no calls keeps all of it until its next ones, or until
//! [`trim`](crate::trim). With it, memory that was freed stays for 2 s, in case that it is needed again, goes
//! back over the next 4 s, whatever the program does, and so do the caches of threads that sleep. Releases
//! take at most 1 % of a CPU, so that a large peak may take longer; while there is nothing to do, the
//! thread sleeps.
//!
//! The preload library has it (unless `SPANMALLOC_BACKGROUND=0`), from 16 MiB of backed memory on; programs
//! ask for it, here, with [`Config::background`](crate::Config::background) or with
//! `SPANMALLOC_BACKGROUND=1`. It ends when that is turned off.

use crate::{config, scavenge};

/// Turns the background thread on, and starts it now if it does not run yet. False if the system has no
/// thread: slow calls do its work then, and it is not tried again. In the child of a `fork` it starts by
/// itself after ten seconds, when there is as much memory that it matters (16 MiB).
///
/// The thread has the name `spanmalloc`, a stack of 1 MiB, of which it touches a few pages, and
/// all signals blocked. It never delays the end of the process. To be called from any thread that holds no lock
/// which starting a thread may need. Does not panic.
///
/// ```
/// assert!(spanmalloc::background::start());
/// ```
pub fn start() -> bool {
    config::want_background();
    scavenge::start()
}
