//! Compares spanmalloc with other allocators.
//!
//! The tool builds one worker for each allocator with cargo, runs the workloads of the workers in
//! turns (first run: all allocators, second run: all allocators), each run in a process of its own,
//! and shows the least times and the medians of memory. Or it times a whole program, with the
//! allocators preloaded. Or it runs scenarios, and shows memory over time.
//!
//! It allocates from the system's malloc itself, and does nothing while a worker runs.

#![deny(unsafe_code, unsafe_op_in_unsafe_fn)]
#![deny(clippy::undocumented_unsafe_blocks)]

mod allocators;
mod args;
mod bench;
mod build;
mod canvas;
mod chart;
mod child;
mod command;
mod curves;
mod date;
mod failure;
mod figures;
mod json;
mod lines;
mod lock_share;
mod locks;
mod machine;
mod measure;
mod more;
mod outputs;
mod over_time;
mod overview;
mod progress;
mod rows;
mod select;
mod spent;
mod table;
mod workers;

use std::process::ExitCode;

use clap::Parser;
use clap::error::ErrorKind;

use args::Args;
use child::Children;
use failure::{Failure, reason};

fn main() -> ExitCode {
    match run() {
        Ok(status) => status,
        Err(failure) => failure.tell(),
    }
}

fn run() -> Result<ExitCode, Failure> {
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(error) => return tell_usage(&error),
    };
    let children = Children::new().map_err(|error| Failure::new(reason(&error)))?;
    if args.list {
        bench::list(&args, &children)
    } else if args.lock_share {
        lock_share::run(&args, &children)
    } else if args.over_time.is_some() {
        over_time::run(&args, &children)
    } else if args.command.is_empty() {
        bench::bench(&args, &children)
    } else {
        command::time(&args, &children)
    }
}

/// Prints what clap has to say: help and version on standard output; an error is one sentence.
fn tell_usage(error: &clap::Error) -> Result<ExitCode, Failure> {
    if let ErrorKind::DisplayHelp | ErrorKind::DisplayVersion = error.kind() {
        // Nobody to tell if the output is closed.
        let _ = error.print();
        return Ok(ExitCode::SUCCESS);
    }
    let text = error.render().to_string();
    let text = text.strip_prefix("error: ").unwrap_or(&text);
    let first = text.split("\n\n").next().unwrap_or(text);
    let words: Vec<&str> = first.split_whitespace().collect();
    Err(Failure::usage(words.join(" ")))
}
