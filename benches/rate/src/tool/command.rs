//! Times a whole program on several allocators, in turns.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use spanmalloc_rate::Answer;

use crate::allocators::{self, Allocator, OURS, Source};
use crate::args::Args;
use crate::build::{Workspace, library_name};
use crate::child::{Children, Outcome, Output};
use crate::failure::{Failure, complain, reason};
use crate::outputs::{Outputs, status};
use crate::progress;
use crate::rows::{Row, Timing};
use crate::table;
use crate::workers::{under, understood};

/// Runs the program of the command line, and shows what it took.
pub fn time(args: &Args, children: &Children) -> Result<ExitCode, Failure> {
    let allocators = allocators::chosen(args)?;
    let outputs = Outputs::create(args)?;
    let workload = shown(&args.command);
    let mut rows = Vec::new();
    let mut libraries = Vec::new();
    for allocator in &allocators {
        let library = library(args, allocator, children)?;
        if let Err(error) = &library {
            complain(&format!("{} is {error}", allocator.name));
        }
        let failure = library.as_ref().err().cloned();
        rows.push(row(&workload, allocator, failure));
        libraries.push(library.unwrap_or_default());
    }

    let bar = progress::bar(allocators.len() as u64 * u64::from(args.reps()));
    for _ in 0..args.reps() {
        for (row, library) in rows.iter_mut().zip(&libraries) {
            bar.set_message(row.allocator.clone());
            if row.failure.is_none() {
                match run(args, library.as_ref(), children)? {
                    Ok(outcome) => {
                        row.runs.push(answer(&workload, &outcome));
                        row.cpu += outcome.user + outcome.system;
                    }
                    Err(error) => {
                        let sentence = format!("on {} the command {error}", row.allocator);
                        bar.suspend(|| complain(&sentence));
                        row.failure = Some(error);
                    }
                }
            }
            bar.inc(1);
        }
    }
    bar.finish_and_clear();
    // Nobody to tell if standard output is closed.
    let _ = write!(io::stdout(), "{workload}\n\n{}", table::of_command(&rows));
    outputs.write(&rows)?;
    Ok(status(&rows, allocators.iter().map(|it| it.name.as_str())))
}

/// The row of an allocator, before any run.
fn row(workload: &str, allocator: &Allocator, failure: Option<String>) -> Row {
    Row {
        workload: workload.to_owned(),
        allocator: allocator.name.clone(),
        threads: None,
        runs: Vec::new(),
        timing: Timing::Median,
        cpu: Duration::ZERO,
        failure,
    }
}

/// The command on one line.
fn shown(command: &[OsString]) -> String {
    let words: Vec<_> = command.iter().map(|word| word.to_string_lossy()).collect();
    words.join(" ")
}

/// What is preloaded, `None` for the system's malloc. The inner error is why it can't be.
fn library(
    args: &Args,
    allocator: &Allocator,
    children: &Children,
) -> Result<Result<Option<PathBuf>, String>, Failure> {
    if let Source::Library(path) = &allocator.source {
        return Ok(Ok(Some(path.clone())));
    }
    if allocator.name != OURS {
        return Ok(Ok(None));
    }
    if let Some(directory) = &args.workers {
        let path = directory.join(library_name());
        let found = path.canonicalize().map(Some);
        return Ok(
            found.map_err(|error| format!("not there: {}: {}", path.display(), reason(&error)))
        );
    }
    let bar = progress::bar(1);
    bar.set_message(format!("building {}", library_name()));
    let workspace = Workspace::find(children)?;
    let built = workspace.library(children)?;
    bar.finish_and_clear();
    let log = workspace.log(&library_name());
    Ok(built
        .map(Some)
        .map_err(|error| format!("not built: {error} (log: {})", log.display())))
}

/// The inner error is what the table says.
fn run(
    args: &Args,
    library: Option<&PathBuf>,
    children: &Children,
) -> Result<Result<Outcome, String>, Failure> {
    let [program, arguments @ ..] = args.command.as_slice() else {
        return Err(Failure::usage("no command is named"));
    };
    let mut command = Command::new(program);
    command
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null());
    under(&mut command, library.map(PathBuf::as_path));
    let result = children.errors(&mut command, args.timeout);
    let result = result.map(|(outcome, stderr)| {
        let stdout = Vec::new();
        (outcome, Output { stdout, stderr })
    });
    Ok(understood(result, args.timeout)?.map(|(outcome, _)| outcome))
}

/// A run as one operation.
fn answer(workload: &str, outcome: &Outcome) -> Answer {
    let ns = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
    let (wall_ns, user_ns, system_ns) = (ns(outcome.wall), ns(outcome.user), ns(outcome.system));
    let more = [
        ("wall_ns", wall_ns),
        ("user_ns", user_ns),
        ("system_ns", system_ns),
    ];
    Answer {
        workload: workload.to_owned(),
        threads: 1,
        operations: 1,
        wall_ns,
        user_ns,
        system_ns,
        user_cycles: None,
        user_instructions: None,
        kernel_cycles: None,
        peak_rss_bytes: outcome.peak_rss_bytes,
        more: more
            .map(|(name, value)| (name.to_owned(), value as f64))
            .into_iter()
            .collect::<BTreeMap<_, _>>(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rows::Clock;

    #[test]
    fn the_time_of_a_command_is_a_median() {
        let outcome = |millis| Outcome {
            status: std::process::ExitStatus::default(),
            timed_out: false,
            wall: Duration::from_millis(1),
            user: Duration::from_millis(millis),
            system: Duration::ZERO,
            peak_rss_bytes: 1,
        };
        let system = Allocator {
            name: allocators::SYSTEM.to_owned(),
            source: Source::Ready(PathBuf::new()),
        };
        let mut row = row("ls", &system, None);
        row.runs = [5, 9, 2].map(|it| answer("ls", &outcome(it))).to_vec();
        assert_eq!(Clock::of(std::slice::from_ref(&row)), Clock::CpuTime);
        assert_eq!(Clock::CpuTime.time(&row), Some(5e6));
        assert_eq!(row.more()["user_ns"], 5e6);
    }
}
