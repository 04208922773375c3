//! Workers: makes them ready, asks them, and understands what they answer.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use indicatif::ProgressBar;
use serde::de::DeserializeOwned;
use spanmalloc_rate::over_time::Course;
use spanmalloc_rate::{Answer, Listed};

use crate::allocators::{Allocator, KNOWN, Known, SYSTEM, Source};
use crate::build::Workspace;
use crate::child::{Children, Outcome, Output, Stop};
use crate::failure::{Failure, complain, reason};
use crate::measure::Job;

/// An allocator with the program that runs workloads on it.
pub struct Worker {
    pub allocator: Allocator,
    /// Or why there is none.
    pub program: Result<PathBuf, String>,
}

/// Builds what is to be built. `ready` has ready-made workers.
pub fn make_ready(
    allocators: Vec<Allocator>,
    ready: Option<&Path>,
    workspace: &Workspace,
    children: &Children,
    progress: &ProgressBar,
) -> Result<Vec<Worker>, Failure> {
    let mut of_system: Option<Result<PathBuf, String>> = None;
    let mut workers = Vec::new();
    for allocator in allocators {
        progress.set_message(format!("building {}", allocator.name));
        let program = match (&allocator.source, ready) {
            (Source::Ready(path), _) => Ok(path.clone()),
            (Source::Library(_), Some(directory)) => Ok(directory.join(SYSTEM)),
            (Source::Built(known), _) if known.name != SYSTEM => {
                workspace.worker(known, children)?
            }
            (Source::Built(_) | Source::Library(_), _) => match &of_system {
                Some(built) => built.clone(),
                None => {
                    let built = workspace.worker(system(), children)?;
                    of_system.insert(built).clone()
                }
            },
        };
        progress.inc(1);
        if let Err(error) = &program {
            let log = workspace.log(if allocator.library().is_some() {
                SYSTEM
            } else {
                &allocator.name
            });
            let (name, log) = (&allocator.name, log.display());
            progress.suspend(|| complain(&format!("{name} is not built: {error} (log: {log})")));
        }
        let program = program.map_err(|error| format!("not built: {error}"));
        workers.push(Worker { allocator, program });
    }
    Ok(workers)
}

fn system() -> &'static Known {
    let is_system = |known: &&Known| known.name == SYSTEM;
    KNOWN.iter().find(is_system).unwrap_or(&KNOWN[0])
}

/// What a program is run under, `None` for the system's malloc as it is.
pub fn under(command: &mut Command, library: Option<&Path>) {
    match library {
        Some(library) => command.env("LD_PRELOAD", library),
        None => command.env_remove("LD_PRELOAD"),
    };
}

impl Worker {
    /// Runs a job; returns what it answers, and the CPU time of the process. The inner error is what
    /// the table says.
    pub fn run(
        &self,
        job: &Job,
        timeout: Duration,
        children: &Children,
    ) -> Result<Result<(Answer, Duration), String>, Failure> {
        let (outcome, output) = match self.ask(&job.arguments, timeout, children)? {
            Ok(it) => it,
            Err(error) => return Ok(Err(error)),
        };
        Ok(parsed::<Answer>(&output.stdout).and_then(|answer| {
            if answer.workload == job.name && answer.operations > 0 {
                Ok((answer, outcome.user + outcome.system))
            } else {
                Err("no answer: it tells of no operation of this workload".to_owned())
            }
        }))
    }

    /// Runs a scenario; returns how it went. The inner error is what the table says.
    pub fn over_time(
        &self,
        scenario: &str,
        scale: &str,
        timeout: Duration,
        children: &Children,
    ) -> Result<Result<Course, String>, Failure> {
        let arguments = ["--over-time", scenario, "--scale", scale];
        let output = self.ask(arguments, timeout, children)?;
        Ok(output.and_then(|(_, output)| {
            let course = parsed::<Course>(&output.stdout)?;
            let is_whole = course.scenario == scenario && course.series.is_whole();
            is_whole
                .then_some(course)
                .ok_or_else(|| "no answer: it tells of no course of this scenario".to_owned())
        }))
    }

    /// Its workloads.
    pub fn list(
        &self,
        timeout: Duration,
        children: &Children,
    ) -> Result<Result<Vec<Listed>, String>, Failure> {
        let output = self.ask(["--list"], timeout, children)?;
        Ok(output.and_then(|(_, output)| parsed(&output.stdout)))
    }

    /// What it says about its allocator, if it does.
    pub fn about(&self, timeout: Duration, children: &Children) -> Result<Option<String>, Failure> {
        let output = self.ask(["--allocator"], timeout, children)?;
        let text = output
            .ok()
            .map(|(_, output)| String::from_utf8_lossy(&output.stdout).into_owned());
        let line = text.as_deref().and_then(|text| text.lines().next());
        Ok(line
            .map(str::trim)
            .filter(|line| !line.is_empty())
            .map(str::to_owned))
    }

    fn ask(
        &self,
        arguments: impl IntoIterator<Item = impl AsRef<OsStr>>,
        timeout: Duration,
        children: &Children,
    ) -> Result<Result<(Outcome, Output), String>, Failure> {
        let program = match &self.program {
            Ok(program) => program,
            Err(error) => return Ok(Err(error.clone())),
        };
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::null());
        under(&mut command, self.allocator.library());
        command.envs(self.allocator.variable());
        understood(children.output(&mut command, Some(timeout)), Some(timeout))
    }
}

/// What a run left if it did what it should. The inner error is what the table says.
pub fn understood(
    result: Result<(Outcome, Output), Stop>,
    timeout: Option<Duration>,
) -> Result<Result<(Outcome, Output), String>, Failure> {
    let (outcome, output) = match result {
        Ok(it) => it,
        Err(Stop::Signal(signal)) => return Err(Failure::signal(signal)),
        Err(Stop::Error(error)) => return Ok(Err(format!("not started: {}", reason(&error)))),
    };
    let seconds = timeout.unwrap_or_default().as_secs_f64();
    let stderr = String::from_utf8_lossy(&output.stderr);
    Ok(if outcome.timed_out {
        Err(format!("hangs: killed after {seconds} s"))
    } else if !outcome.status.success() {
        let line = first_line(&stderr).map_or(String::new(), |line| format!(": {line}"));
        Err(format!("{}{line}", ended(&outcome)))
    } else if stderr.contains("from LD_PRELOAD cannot be preloaded") {
        Err("the library can't be preloaded".to_owned())
    } else {
        Ok((outcome, output))
    })
}

/// How a program ended that did not succeed.
fn ended(outcome: &Outcome) -> String {
    match outcome.status.code() {
        Some(code) => format!("failed: exit status {code}"),
        None => format!("crashed: {}", outcome.status).replacen("signal: ", "signal ", 1),
    }
}

/// The first line that is not empty, if need be without its end.
fn first_line(text: &str) -> Option<String> {
    const MOST_CHARACTERS: usize = 100;
    let line = text.lines().map(str::trim).find(|line| !line.is_empty())?;
    let mut short: String = line.chars().take(MOST_CHARACTERS).collect();
    if short.len() < line.len() {
        short.push('…');
    }
    Some(short)
}

/// The answer is the last line, as a workload's libraries may have something to say before.
fn parsed<T: DeserializeOwned>(stdout: &[u8]) -> Result<T, String> {
    let text = String::from_utf8_lossy(stdout);
    let line = text.trim_end().lines().next_back().unwrap_or_default();
    serde_json::from_str(line).map_err(|_| match first_line(&text) {
        None => "no answer".to_owned(),
        Some(line) => format!("no answer, but: {line}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_line_is_the_answer() {
        assert_eq!(parsed::<Vec<u8>>(b"x\n[1, 2]\n").unwrap(), [1, 2]);
        assert_eq!(parsed::<Vec<u8>>(b" \n").unwrap_err(), "no answer");
        assert_eq!(
            parsed::<Vec<u8>>(b"\nodd\n").unwrap_err(),
            "no answer, but: odd"
        );
    }

    #[test]
    fn long_lines_are_cut() {
        assert_eq!(first_line("\n a \nb"), Some("a".to_owned()));
        assert_eq!(first_line(&"ö".repeat(200)), Some("ö".repeat(100) + "…"));
        assert_eq!(first_line(" \n"), None);
    }
}
