//! The example `wordcount` on the system's allocator: what it is measured against.

use std::process::ExitCode;

#[path = "shared/wordcount.rs"]
mod wordcount;

fn main() -> ExitCode {
    wordcount::run()
}
