//! The background thread, which gives memory back while the program does nothing.
//!
//! Without it, slow calls of the program give back what is not needed any more, a little at a time; a
//! program that frees much and then makes no calls keeps up to 64 MiB, or a quarter of what it uses.
//! With it, memory that was freed stays for some seconds, in case that it is needed again, and then goes
//! back whatever the program does; so do the caches of threads that sleep. It takes at most 1 % of a
//! CPU, and none while there is nothing to do.
//!
//! The preload library has it (unless `SPANMALLOC_BACKGROUND=0`); programs ask for it, here or with
//! `SPANMALLOC_BACKGROUND=1`.

use crate::{config, scavenge};

/// Starts the background thread, if it does not run yet; false if the system has no thread. In the child
/// of a `fork` it starts by itself, when there is as much memory that it matters (16 MiB).
///
/// The thread has the name `spanmalloc`, a stack of 1 MiB, of which it touches a few pages, and all signals blocked. It never delays the
/// end of the process. To be called from any thread that holds no lock which starting a thread may need.
///
/// ```
/// assert!(spanmalloc::background::start());
/// ```
pub fn start() -> bool {
    config::set_config(config::config().background(true));
    scavenge::start()
}
