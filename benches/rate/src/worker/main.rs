//! The worker: runs one workload on the allocator that it was built with.
//!
//! ```text
//! rate-worker --list
//! rate-worker --allocator
//! rate-worker --replay FILE [--scale quick|full] [--rounds N]
//! rate-worker --over-time SCENARIO [--scale quick|full] [--speed X] [--shrink N]
//! rate-worker WORKLOAD [--scale quick|full] [--threads N]
//! ```
//!
//! Answers on standard output, in JSON.

mod allocators;
#[cfg(feature = "lock_share")]
mod locks;
mod measure;
mod over_time;
mod random;
mod replay;
mod workloads;

use std::env;
use std::process::ExitCode;

use spanmalloc_rate::{Listed, Scale};
use workloads::{Size, WORKLOADS, Workload};

fn main() -> ExitCode {
    match answer() {
        Ok(text) => {
            println!("{text}");
            ExitCode::SUCCESS
        }
        Err(sentence) => {
            eprintln!("rate-worker: {sentence}");
            ExitCode::FAILURE
        }
    }
}

fn answer() -> Result<String, String> {
    let mut arguments = env::args().skip(1);
    let first = arguments.next().ok_or("no workload is named")?;
    match first.as_str() {
        "--list" => {
            let list: Vec<Listed> = WORKLOADS.iter().copied().map(listed).collect();
            return serde_json::to_string(&list).map_err(|error| error.to_string());
        }
        "--replay" => return replay::answer(arguments),
        "--over-time" => return over_time::answer(arguments),
        "--allocator" => return Ok(allocators::description()),
        _ => {}
    }
    let workload = WORKLOADS
        .iter()
        .find(|workload| workload.name == first)
        .ok_or_else(|| format!("there is no workload {first}"))?;
    let mut size = Size {
        scale: Scale::Full,
        threads: workload.threads,
    };
    while let Some(option) = arguments.next() {
        let value = arguments
            .next()
            .ok_or_else(|| format!("{option} needs a value"))?;
        match (option.as_str(), value.as_str()) {
            ("--scale", "quick") => size.scale = Scale::Quick,
            ("--scale", "full") => size.scale = Scale::Full,
            ("--threads", number) if workload.threads_can_be_chosen => {
                size.threads = number
                    .parse()
                    .ok()
                    .filter(|threads| (1..=1024).contains(threads))
                    .ok_or_else(|| format!("{number} is no number of threads, 1 to 1024"))?;
            }
            _ => return Err(format!("{option} {value} is not understood")),
        }
    }
    let answer = measure::answer(workload, &size);
    serde_json::to_string(&answer).map_err(|error| error.to_string())
}

fn listed(workload: &Workload) -> Listed {
    Listed {
        name: workload.name.to_owned(),
        about: workload.about.to_owned(),
        operation: workload.operation.to_owned(),
        threads: workload.threads,
        threads_can_be_chosen: workload.threads_can_be_chosen,
    }
}
