//! Counts the words of a directory's text files with several threads, on `SpanMalloc`.
//!
//! ```text
//! cargo run --release --example wordcount -- /usr/share
//! cargo run --release --example wordcount_system -- /usr/share
//! ```
//!
//! The second line runs the same program on the system's allocator, for comparison. How the
//! threads pass memory to one another is told in `shared/wordcount.rs`.

use std::process::ExitCode;

#[path = "shared/wordcount.rs"]
mod wordcount;

#[global_allocator]
static GLOBAL: spanmalloc::SpanMalloc = spanmalloc::SpanMalloc;

fn main() -> ExitCode {
    wordcount::run()
}
