//! Runs jobs on all allocators, in turns.

use std::ffi::OsString;
use std::path::Path;
use std::time::Duration;

use indicatif::ProgressBar;
use spanmalloc_rate::Listed;

use crate::args::Args;
use crate::child::Children;
use crate::failure::{Failure, complain};
use crate::progress;
use crate::rows::{Row, Timing};
use crate::workers::Worker;

/// What a run of a workload may take.
const TIMEOUT: Duration = Duration::from_secs(120);

/// What a worker is asked to run: a workload, or a trace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Job {
    /// The workload of the answer.
    pub name: String,
    pub arguments: Vec<OsString>,
    /// `None` if the answer tells.
    pub threads: Option<usize>,
}

impl Job {
    /// A workload with as many threads as it has, or as are asked for where it allows that.
    pub fn workload(args: &Args, workload: &Listed, threads: Option<u16>) -> Self {
        let mut arguments = vec![OsString::from(&workload.name)];
        arguments.extend(scale(args));
        let mut count = workload.threads;
        if let Some(chosen) = threads.filter(|_| workload.threads_can_be_chosen) {
            arguments.extend(["--threads".into(), chosen.to_string().into()]);
            count = usize::from(chosen);
        }
        Self {
            name: workload.name.clone(),
            arguments,
            threads: Some(count),
        }
    }

    fn replay(args: &Args, trace: &Path) -> Self {
        let name = trace.file_name().unwrap_or(trace.as_os_str());
        let mut arguments = vec!["--replay".into(), trace.into()];
        arguments.extend(scale(args));
        Self {
            name: format!("replay:{}", name.to_string_lossy()),
            arguments,
            threads: None,
        }
    }
}

fn scale(args: &Args) -> [OsString; 2] {
    let scale = if args.quick { "quick" } else { "full" };
    ["--scale".into(), scale.into()]
}

/// The replays of the command line. Their files are there, and have names of their own.
pub fn replays(args: &Args) -> Result<Vec<Job>, Failure> {
    let mut jobs: Vec<Job> = Vec::new();
    for trace in &args.replay {
        let data = trace
            .metadata()
            .map_err(|error| Failure::of_file(trace, &error))?;
        if !data.is_file() {
            let sentence = format!("--replay: {} is no file", trace.display());
            return Err(Failure::usage(sentence));
        }
        let job = Job::replay(args, trace);
        if jobs.iter().any(|it| it.name == job.name) {
            let name = job.name.trim_start_matches("replay:");
            let sentence = format!("--replay: two of the files are named {name}");
            return Err(Failure::usage(sentence));
        }
        jobs.push(job);
    }
    Ok(jobs)
}

/// What a run may take.
pub fn timeout(args: &Args) -> Duration {
    args.timeout.unwrap_or(TIMEOUT)
}

/// All rows, job by job.
pub fn measure(
    args: &Args,
    workers: &[Worker],
    jobs: &[Job],
    children: &Children,
) -> Result<Vec<Row>, Failure> {
    let runs = jobs.len() * workers.len() * args.reps() as usize;
    let bar = progress::bar(runs as u64);
    let mut rows = Vec::new();
    for job in jobs {
        rows.extend(measure_one(args, workers, job, children, &bar)?);
    }
    bar.finish_and_clear();
    Ok(rows)
}

/// The rows of a job. An allocator that failed once is not run again.
fn measure_one(
    args: &Args,
    workers: &[Worker],
    job: &Job,
    children: &Children,
    bar: &ProgressBar,
) -> Result<Vec<Row>, Failure> {
    let row = |worker: &Worker| Row {
        workload: job.name.clone(),
        allocator: worker.allocator.name.clone(),
        threads: job.threads,
        runs: Vec::new(),
        timing: Timing::Least,
        cpu: Duration::ZERO,
        failure: None,
    };
    let mut rows: Vec<Row> = workers.iter().map(row).collect();
    for _ in 0..args.reps() {
        for (row, worker) in rows.iter_mut().zip(workers) {
            bar.set_message(format!("{} on {}", row.workload, row.allocator));
            if row.failure.is_none() {
                match worker.run(job, timeout(args), children)? {
                    Ok((answer, cpu)) => {
                        row.runs.push(answer);
                        row.cpu += cpu;
                    }
                    Err(error) => {
                        if worker.program.is_ok() {
                            let (workload, allocator) = (&row.workload, &row.allocator);
                            let sentence = format!("{workload} on {allocator}: {error}");
                            bar.suspend(|| complain(&sentence));
                        }
                        row.failure = Some(error);
                    }
                }
            }
            bar.inc(1);
        }
    }
    if job.threads.is_none() {
        let told = rows.iter().find_map(|row| Some(row.runs.first()?.threads));
        rows.iter_mut().for_each(|row| row.threads = told);
    }
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    fn args(arguments: &[&str]) -> Args {
        Args::try_parse_from(["spanmalloc-rate"].iter().chain(arguments)).unwrap()
    }

    #[test]
    fn threads_are_for_the_workloads_that_allow_them() {
        let mut workload = Listed {
            name: "w".to_owned(),
            about: String::new(),
            operation: String::new(),
            threads: 2,
            threads_can_be_chosen: true,
        };
        let job = Job::workload(&args(&[]), &workload, Some(7));
        assert_eq!(job.arguments, ["w", "--scale", "full", "--threads", "7"]);
        assert_eq!(job.threads, Some(7));
        workload.threads_can_be_chosen = false;
        let job = Job::workload(&args(&["--quick"]), &workload, Some(7));
        assert_eq!(job.arguments, ["w", "--scale", "quick"]);
        assert_eq!(job.threads, Some(2));
    }

    #[test]
    fn replays_are_named_after_their_files() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
        std::fs::create_dir(path("d")).unwrap();
        for name in ["a", "b", "d/a"] {
            std::fs::write(path(name), "").unwrap();
        }
        let of = |names: &[&str]| {
            let options = names
                .iter()
                .flat_map(|name| ["--replay".into(), path(name)]);
            let options: Vec<String> = options.collect();
            replays(&args(
                &options.iter().map(String::as_str).collect::<Vec<_>>(),
            ))
        };
        let jobs = of(&["b", "a"]).unwrap();
        assert_eq!(jobs[0].name, "replay:b");
        assert_eq!(
            jobs[1].arguments,
            ["--replay", &path("a"), "--scale", "full"]
        );
        assert_eq!(jobs[1].threads, None);
        for wrong in [&["a", "d/a"], &["a", "a"], &["a", "none"], &["a", "d"]] {
            assert!(of(wrong).is_err());
        }
    }
}
