//! What the library does when a program starts with it, and when that ends.
//!
//! The environment is read once ([`config::init`]), by the first allocation after the C library has
//! begun, and at the latest by the constructor here. Allocations before that, by the dynamic linker,
//! find the defaults. Calls are counted from the constructor on.

use core::fmt::Write;

use spin::Once;

use crate::base::line::Line;
use crate::{config, runtime, stats, sys};

#[used]
#[unsafe(link_section = ".init_array")]
static CONSTRUCTOR: extern "C" fn() = start;

/// The file for statistics, if they go to one. The environment may be gone when they are written.
static STATS_PATH: Once<sys::Path> = Once::new();

extern "C" fn start() {
    config::init();
    sys::stay_loaded(&CONSTRUCTOR);
    runtime::at_fork();
    if config::counts_calls() {
        runtime::count_calls();
    }
    if config::writes_stats() {
        match config::stats_file() {
            Some(name) => {
                STATS_PATH.call_once(|| sys::Path::new(name));
            }
            None => sys::keep_stderr(),
        }
        sys::at_exit(write_stats);
    }
}

/// Writes the statistics to standard error, or to the file that the environment named, in the form that its
/// name ends in.
extern "C" fn write_stats() {
    let stats = stats::stats();
    let Some(path) = STATS_PATH.get() else {
        if let Some(mut output) = sys::Output::kept_stderr() {
            let _ = write!(output, "{stats}");
        }
        return;
    };
    let Some(mut file) = path.create() else {
        let mut line = Line::new();
        let _ = write!(line, "{}=", config::STATS_FILE);
        line.push(path.name());
        line.push(b" cannot be written\n");
        return line.print();
    };
    let _ = stats::write_file(&stats, path.name(), &mut file);
}
