//! What the library does when a program starts with it, and when that ends.
//!
//! The environment is read once, in a constructor: allocations before that, by the dynamic linker and
//! by constructors of other libraries, find the defaults. A program with more rights than its user
//! (`AT_SECURE`: setuid and the like) has no environment here.

use core::fmt::Write;

use spin::Once;

use super::foreign;
use crate::base::line::Line;
use crate::{runtime, stats, sys};

/// A variable that chooses one of a few words.
struct Choice {
    name: &'static str,
    /// The words that it may be; the first is the default.
    words: &'static [&'static str],
}

const FOREIGN: Choice = Choice {
    name: "SPANMALLOC_FOREIGN",
    words: &["report", "abort"],
};
const COUNT: Choice = Choice {
    name: "SPANMALLOC_COUNT",
    words: &["0", "1"],
};
const STATS: Choice = Choice {
    name: "SPANMALLOC_STATS",
    words: &["none", "exit"],
};
const STATS_FILE: &str = "SPANMALLOC_STATS_FILE";

#[used]
#[unsafe(link_section = ".init_array")]
static CONSTRUCTOR: extern "C" fn() = start;

/// The file for statistics, if they go to one. The environment may be gone when they are written.
static STATS_PATH: Once<sys::Path> = Once::new();

extern "C" fn start() {
    sys::stay_loaded(&CONSTRUCTOR);
    runtime::at_fork();
    if FOREIGN.read() == "abort" {
        foreign::set_fatal();
    }
    if COUNT.read() == "1" {
        runtime::count_calls();
    }
    if STATS.read() == "exit" {
        match sys::environment(STATS_FILE) {
            Some(name) if !name.is_empty() => {
                STATS_PATH.call_once(|| sys::Path::new(name));
            }
            _ => sys::keep_stderr(),
        }
        sys::at_exit(write_stats);
    }
}

impl Choice {
    /// The word that the environment has for it. What it may not be is reported.
    fn read(&self) -> &'static str {
        let default = self.words[0];
        let value = sys::environment(self.name).unwrap_or_default();
        if value.is_empty() {
            return default;
        }
        let known = self.words.iter().find(|word| word.as_bytes() == value);
        if let Some(word) = known {
            return word;
        }
        let mut line = Line::new();
        let _ = write!(line, "{}=", self.name);
        line.push(value);
        line.push(b" is not understood; it may be ");
        for (index, word) in self.words.iter().enumerate() {
            let separator = if index == 0 { "" } else { " or " };
            let _ = write!(line, "{separator}{word}");
        }
        let _ = writeln!(line, "; {default} is used");
        line.print();
        default
    }
}

/// Writes the statistics to standard error, or to the file that the environment named, as JSON if its
/// name ends in `.json`.
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
        let _ = write!(line, "{STATS_FILE}=");
        line.push(path.name());
        line.push(b" cannot be written\n");
        return line.print();
    };
    let _ = if path.name().ends_with(b".json") {
        stats.write_json(&mut file)
    } else {
        write!(file, "{stats}")
    };
}
