//! `--over-time`: what is resident while a program's need goes up and down.

mod chart;
mod rows;

use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Duration;

use indicatif::ProgressBar;
use spanmalloc_rate::over_time::{SCENARIOS, Scenario};

use crate::allocators::{self, OURS};
use crate::args::Args;
use crate::bench::{abouts, how, workspace};
use crate::child::Children;
use crate::failure::{Failure, complain};
use crate::outputs::Outputs;
use crate::progress;
use crate::select::select;
use crate::workers::{self, Worker};
use rows::OverTime;

/// What a run may take: the longest scenario takes a minute on a machine that keeps up with it.
const TIMEOUT: Duration = Duration::from_secs(600);

/// Runs the scenarios on all allocators, in turns, and shows how they went.
pub fn run(args: &Args, children: &Children) -> Result<ExitCode, Failure> {
    let scenarios = scenarios(args.over_time.as_deref().unwrap_or_default())?;
    let allocators = allocators::chosen(args)?;
    let outputs = Outputs::create(args)?;
    let workspace = workspace(args, children)?;
    let bar = progress::bar(allocators.len() as u64);
    let ready = args.workers.as_deref();
    let workers = workers::make_ready(allocators, ready, &workspace, children, &bar)?;
    bar.finish_and_clear();
    let abouts = abouts(args, &workers, children)?;
    say(&how(args, &workers, &abouts, &workspace));
    say(&format!("\n{}\n", rows::HEADING));

    let runs = scenarios.len() * workers.len() * args.reps() as usize;
    let bar = progress::bar(runs as u64);
    let mut rows = Vec::new();
    for scenario in &scenarios {
        let of_scenario = measure(args, scenario, &workers, children, &bar)?;
        // As soon as it is known: all of them take long.
        bar.suspend(|| say(&format!("\n{}", rows::table(&of_scenario))));
        rows.push(of_scenario);
    }
    bar.finish_and_clear();
    outputs.write_json_lines(&rows::records(&rows))?;
    if let Some(directory) = outputs.charts() {
        rows.iter()
            .try_for_each(|of_scenario| chart::draw(directory, of_scenario))?;
    }
    Ok(status(&rows.concat()))
}

/// Nobody to tell if standard output is closed.
fn say(text: &str) {
    let _ = write!(io::stdout(), "{text}");
    let _ = io::stdout().flush();
}

/// Those that the command line asks for.
fn scenarios(patterns: &[String]) -> Result<Vec<Scenario>, Failure> {
    select(SCENARIOS.to_vec(), patterns, |it| it.name)
        .map_err(|pattern| Failure::usage(format!("--over-time: there is no scenario {pattern}")))
}

/// A row for each allocator. One that failed is not run again.
fn measure(
    args: &Args,
    scenario: &Scenario,
    workers: &[Worker],
    children: &Children,
    bar: &ProgressBar,
) -> Result<Vec<OverTime>, Failure> {
    let row = |worker: &Worker| OverTime::new(scenario.name, &worker.allocator.name);
    let mut rows: Vec<OverTime> = workers.iter().map(row).collect();
    let scale = if args.quick { "quick" } else { "full" };
    let timeout = args.timeout.unwrap_or(TIMEOUT);
    for _ in 0..args.reps() {
        for (row, worker) in rows.iter_mut().zip(workers) {
            bar.set_message(format!("{} on {}", row.scenario, row.allocator));
            if row.failure.is_none() {
                match worker.over_time(scenario.name, scale, timeout, children)? {
                    Ok(course) => row.runs.push(course),
                    Err(error) => {
                        if worker.program.is_ok() {
                            let (scenario, allocator) = (&row.scenario, &row.allocator);
                            let sentence = format!("{scenario} on {allocator}: {error}");
                            bar.suspend(|| complain(&sentence));
                        }
                        row.failure = Some(error);
                    }
                }
            }
            bar.inc(1);
        }
    }
    Ok(rows)
}

/// Success if all rows of ours were measured; without ours, if anything was.
fn status(rows: &[OverTime]) -> ExitCode {
    let mut ours = rows.iter().filter(|row| row.allocator == OURS).peekable();
    let good = match ours.peek() {
        Some(_) => ours.all(OverTime::is_measured),
        None => rows.iter().any(OverTime::is_measured),
    };
    if good {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scenarios_have_names() {
        let names = |patterns: &[&str]| -> Option<Vec<&str>> {
            let patterns: Vec<String> = patterns.iter().map(|it| it.to_string()).collect();
            let chosen = scenarios(&patterns).ok()?;
            Some(chosen.iter().map(|it| it.name).collect())
        };
        assert_eq!(names(&[]).unwrap().len(), SCENARIOS.len());
        let expected = ["burst", "burst-calls", "sawtooth"];
        assert_eq!(names(&["sawtooth", "burst*"]).unwrap(), expected);
        assert_eq!(names(&["none"]), None);
    }
}
