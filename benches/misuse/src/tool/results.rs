//! Runs the programs, several at a time, and holds what came of them.

use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;

use indicatif::ProgressBar;
use spanmalloc_misuse::{Family, Language, Misuse, Size};

use crate::allocators::{Column, Runner};
use crate::verdict::{Run, Verdict, judge};

/// All runs of one program on an object of one size under one allocator.
#[derive(Clone)]
pub struct Trial {
    /// The column's number.
    pub column: usize,
    pub misuse: &'static Misuse,
    pub language: Language,
    pub size: Size,
    pub runs: Vec<Run>,
}

impl Trial {
    /// What all runs came to: the same, if they were alike in it, or the worst; and how many of them
    /// were stopped or reported, if that were some of them.
    pub fn verdict(&self) -> (Verdict, Option<usize>) {
        let seen = self.runs.iter().filter(|run| run.verdict.is_seen()).count();
        let is_mixed = 0 < seen && seen < self.runs.len();
        // Of runs that were all caught, the one that was caught last is the worst.
        let worst = if seen == self.runs.len() {
            let is_reported = |run: &&Run| run.verdict == Verdict::Reported;
            let reported = self.runs.iter().find(is_reported);
            reported.or_else(|| self.runs.iter().max_by_key(|run| run.verdict))
        } else {
            self.runs.iter().min_by_key(|run| run.verdict)
        };
        let verdict = worst.map_or(Verdict::Absent, |run| run.verdict);
        (verdict, is_mixed.then_some(seen))
    }

    /// What is in a cell of the table.
    pub fn word(&self) -> String {
        match self.verdict() {
            (worst, Some(seen)) => {
                let count = self.runs.len();
                format!("in {seen} of {count}, else {}", worst.word())
            }
            (verdict, None) => verdict.word().to_owned(),
        }
    }

    /// Whether every run was stopped or reported.
    pub fn is_seen(&self) -> bool {
        self.runs.iter().all(|run| run.verdict.is_seen())
    }

    pub fn is_absent(&self) -> bool {
        self.verdict().0 == Verdict::Absent
    }
}

/// What there is to run, in the order of the table.
pub fn trials(columns: &[Column], misuses: &[&'static Misuse]) -> Vec<Trial> {
    let mut all = Vec::new();
    for misuse in misuses {
        for (column, it) in columns.iter().enumerate() {
            for &language in misuse.languages {
                if it.runner(language).is_ok() {
                    all.extend(misuse.sizes.iter().map(|&size| Trial {
                        column,
                        misuse,
                        language,
                        size,
                        runs: Vec::new(),
                    }));
                }
            }
        }
    }
    all
}

/// Runs them all, as many at a time as there are processors.
pub fn run(
    trials: &mut [Trial],
    columns: &[Column],
    runs: u32,
    bar: &ProgressBar,
) -> Result<(), String> {
    let next = AtomicUsize::new(0);
    let shared: Vec<_> = trials.iter_mut().map(Mutex::new).collect();
    let work = || {
        while let Some(trial) = shared.get(next.fetch_add(1, Ordering::Relaxed)) {
            let mut trial = trial.lock().unwrap_or_else(PoisonError::into_inner);
            let column = &columns[trial.column];
            let Ok(runner) = column.runner(trial.language) else {
                continue;
            };
            let (name, family, bytes) =
                (trial.misuse.name, trial.misuse.family, trial.size.bytes());
            for _ in 0..runs {
                let run = once(runner, name, family, bytes)?;
                trial.runs.push(run);
                // What is absent is so every time, and a program that hangs takes long.
                if let Verdict::Absent | Verdict::Hang = trial.verdict().0 {
                    break;
                }
            }
            bar.inc(1);
        }
        Ok(())
    };
    let threads = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| {
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        threads.into_iter().try_for_each(|thread| {
            let result = thread.join();
            result.unwrap_or_else(|_| Err("a thread of the tool failed".to_owned()))
        })
    })
}

/// Runs a program once. Its environment has nothing that an allocator could be told by but what is its
/// column's; it ends itself if it hangs.
pub fn once(runner: &Runner, name: &str, family: Family, bytes: usize) -> Result<Run, String> {
    let mut command = Command::new(&runner.program);
    command
        .arg(name)
        .arg(bytes.to_string())
        .env_clear()
        .envs(runner.variables.iter().copied())
        .stdin(Stdio::null());
    if let Some(library) = &runner.library {
        command.env("LD_PRELOAD", library);
    }
    let output = command.output();
    let output = output.map_err(|error| format!("{}: {error}", runner.program.display()))?;
    Ok(judge(
        family,
        output.status,
        &String::from_utf8_lossy(&output.stdout),
        &String::from_utf8_lossy(&output.stderr),
    ))
}
