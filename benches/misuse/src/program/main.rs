//! The misuses in Rust: commits one, on the allocator that it was built with.
//!
//! ```text
//! misuse-program --list
//! misuse-program MISUSE BYTES
//! ```

#![deny(unsafe_code, unsafe_op_in_unsafe_fn)]
#![deny(clippy::undocumented_unsafe_blocks)]

mod double_free;
mod invalid_free;
mod overflow;
mod program;
mod sized_free;
mod stale;

use std::env;
use std::process::ExitCode;

use program::{free, misuse, object, of_free_span, prepare, resize, returned, say, work};

#[cfg(feature = "spanmalloc")]
#[global_allocator]
static GLOBAL: spanmalloc::SpanMalloc = spanmalloc::SpanMalloc;

#[cfg(feature = "mimalloc")]
#[global_allocator]
static GLOBAL: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[cfg(feature = "jemalloc")]
#[global_allocator]
static GLOBAL: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// One misuse, of an object of so many bytes.
type Program = (&'static str, fn(usize));

/// Nothing wrong: what an allocator must never stop.
const INNOCENT: [Program; 1] = [("none", |size| {
    misuse(std::ptr::null());
    let kept = object(size);
    work(size);
    let kept = resize(kept, size, 2 * size);
    of_free_span(size);
    returned();
    work(size);
    free(kept, 2 * size);
})];

fn main() -> ExitCode {
    let mut arguments = env::args().skip(1);
    let name = arguments.next().unwrap_or_default();
    let size = arguments.next().and_then(|text| text.parse().ok());
    let families: [&[Program]; 6] = [
        &double_free::PROGRAMS,
        &invalid_free::PROGRAMS,
        &sized_free::PROGRAMS,
        &overflow::PROGRAMS,
        &stale::PROGRAMS,
        &INNOCENT,
    ];
    let mut programs = families.into_iter().flatten();
    if name == "--list" {
        programs.for_each(|(name, _)| println!("{name}"));
        return ExitCode::SUCCESS;
    }
    let program = programs.find(|it| it.0 == name);
    let (Some((_, commit)), Some(size)) = (program, size) else {
        return ExitCode::from(2);
    };
    prepare();
    commit(size);
    say("end");
    ExitCode::SUCCESS
}
