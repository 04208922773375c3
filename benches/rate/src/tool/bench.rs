//! Runs the workloads on all allocators, in turns.

use std::env;
use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Instant;

use spanmalloc_rate::Listed;
use spanmalloc_rate::over_time::{SCENARIOS, Scenario};

use crate::allocators::{self, OURS, SYSTEM};
use crate::args::Args;
use crate::build::Workspace;
use crate::child::Children;
use crate::date;
use crate::failure::Failure;
use crate::machine;
use crate::measure::{Job, measure, replays, timeout};
use crate::outputs::{Outputs, status};
use crate::overview::{self, Made};
use crate::progress;
use crate::select::select;
use crate::spent;
use crate::table;
use crate::workers::{self, Worker};

/// Runs all that the command line asks for, and shows it.
pub fn bench(args: &Args, children: &Children) -> Result<ExitCode, Failure> {
    let allocators = allocators::chosen(args)?;
    if args.overview.is_some() && allocators.iter().all(|it| it.name != OURS) {
        let sentence = format!("--overview: {OURS} is none of the allocators");
        return Err(Failure::usage(sentence));
    }
    let outputs = Outputs::create(args)?;
    let replays = replays(args)?;
    let workspace = workspace(args, children)?;
    let bar = progress::bar(allocators.len() as u64);
    let ready = args.workers.as_deref();
    let workers = workers::make_ready(allocators, ready, &workspace, children, &bar)?;
    bar.finish_and_clear();
    let jobs = if replays.is_empty() {
        let workloads = chosen(args, &workers, children)?;
        let job = |workload| Job::workload(args, workload, args.threads);
        workloads.iter().map(job).collect()
    } else {
        replays
    };

    let abouts = abouts(args, &workers, children)?;
    let how = how(args, &workers, &abouts, &workspace);
    // Nobody to tell if standard output is closed.
    let _ = writeln!(io::stdout(), "{how}");
    let start = Instant::now();
    let rows = measure(args, &workers, &jobs, children)?;
    let spent = spent::text(&rows, start.elapsed());
    let _ = write!(io::stdout(), "{}", table::of_workloads(&rows, &spent));
    outputs.write(&rows)?;
    outputs.write_overview(|| {
        let version = |(worker, about): (&Worker, &Option<String>)| {
            let mut version = worker.allocator.origin(&workspace);
            if let Some(about) = about {
                version += &format!("; {about}");
            }
            (worker.allocator.name.clone(), version)
        };
        let made = Made {
            date: date::today(),
            machine: machine::text(),
            reps: args.reps(),
            versions: workers.iter().zip(&abouts).map(version).collect(),
            arguments: env::args_os().skip(1).collect(),
        };
        overview::text(&rows, &made)
    })?;
    Ok(status(
        &rows,
        workers.iter().map(|it| it.allocator.name.as_str()),
    ))
}

/// Shows the workloads, the scenarios and the allocators.
pub fn list(args: &Args, children: &Children) -> Result<ExitCode, Failure> {
    let allocators = allocators::chosen(args)?;
    let workspace = workspace(args, children)?;
    let bar = progress::bar(1);
    // One worker knows the workloads of all; the system's is there whatever else is.
    let mut one = allocators.clone();
    one.sort_by_key(|it| it.name != SYSTEM);
    one.truncate(1);
    let workers = workers::make_ready(one, args.workers.as_deref(), &workspace, children, &bar)?;
    bar.finish_and_clear();
    let workloads = chosen(args, &workers, children)?;

    let mut text = "Workloads:\n".to_owned();
    let threads = |it: &Listed| match (it.threads, it.threads_can_be_chosen) {
        (1, false) => String::new(),
        (1, true) => ", 1 thread or --threads".to_owned(),
        (count, false) => format!(", {count} threads"),
        (count, true) => format!(", {count} threads or --threads"),
    };
    let line = |it: &Listed| {
        let name = it.name.clone();
        let about = it.about.trim_end_matches('.');
        vec![
            name,
            format!("{about}; operation: {}{}", it.operation, threads(it)),
        ]
    };
    text += &table::of_texts(workloads.iter().map(line).collect());
    text += "\nScenarios of --over-time:\n";
    let line = |it: &Scenario| [it.name, it.about].map(str::to_owned).to_vec();
    text += &table::of_texts(SCENARIOS.iter().map(line).collect());
    text += "\nAllocators:\n";
    let line = |it: &allocators::Allocator| vec![it.name.clone(), it.how(&workspace)];
    text += &table::of_texts(allocators.iter().map(line).collect());
    if args.workers.is_none() {
        text += &format!("Workers are built by {}.\n", Workspace::command());
    }
    let _ = write!(io::stdout(), "{text}");
    Ok(ExitCode::SUCCESS)
}

/// Where workers are built, if any are to be.
pub fn workspace(args: &Args, children: &Children) -> Result<Workspace, Failure> {
    match args.workers {
        Some(_) => Ok(Workspace::nowhere()),
        None => Workspace::find(children),
    }
}

/// The workloads that the command line asks for, as the first worker that answers knows them.
pub fn chosen(
    args: &Args,
    workers: &[Worker],
    children: &Children,
) -> Result<Vec<Listed>, Failure> {
    let timeout = timeout(args);
    let mut error = String::new();
    for worker in workers {
        match worker.list(timeout, children)? {
            Err(reason) => error = format!("{}: {reason}", worker.allocator.name),
            Ok(all) => {
                return select(all, &args.workloads, |it| &it.name).map_err(|pattern| {
                    Failure::usage(format!("--workloads: there is no workload {pattern}"))
                });
            }
        }
    }
    Err(Failure::new(format!(
        "no worker tells its workloads: {error}"
    )))
}

/// What each worker says about its allocator.
pub fn abouts(
    args: &Args,
    workers: &[Worker],
    children: &Children,
) -> Result<Vec<Option<String>>, Failure> {
    let timeout = timeout(args);
    let about = |worker: &Worker| worker.about(timeout, children);
    workers.iter().map(about).collect()
}

/// Where each allocator comes from, a line each.
pub fn how(
    args: &Args,
    workers: &[Worker],
    abouts: &[Option<String>],
    workspace: &Workspace,
) -> String {
    let mut lines = Vec::new();
    for (worker, about) in workers.iter().zip(abouts) {
        let mut how = worker.allocator.how(workspace);
        if let Some(about) = about {
            how += &format!("; {about}");
        }
        if worker.program.is_err() {
            how += "; NOT BUILT";
        }
        lines.push(vec![worker.allocator.name.clone(), how]);
    }
    let mut text = table::of_texts(lines);
    if args.workers.is_none() {
        text += &format!("Built by {}.\n", Workspace::command());
    }
    text
}
