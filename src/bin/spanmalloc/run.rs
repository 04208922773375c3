//! The command `run`: one run of the program on this allocator, and a report of it.

use std::env;
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};

use serde::Serialize;

use crate::End;
use crate::args::{RunArgs, TopArgs};
use crate::child::{self, Outcome};
use crate::failure::{Failure, TOOL_FAILED, complain};
use crate::figures::{self, Figures, Request};
use crate::library;
use crate::record::Recording;
use crate::reports::{Asked, Kind};
use crate::top::{self, Watch};
use crate::units;

/// What `--json` writes.
#[derive(Serialize)]
struct Record<'a> {
    program: String,
    /// Null if a signal ended the program.
    exit_code: Option<i32>,
    signal: Option<i32>,
    wall_seconds: f64,
    user_seconds: f64,
    system_seconds: f64,
    peak_rss_bytes: u64,
    /// The library's object as it is; null if there is none.
    allocator: Option<&'a Figures>,
}

/// The command `top`: a run that is watched, and no report.
pub(crate) fn top(args: TopArgs) -> Result<End, Failure> {
    run(&RunArgs {
        lib: args.lib,
        quiet: true,
        json: None,
        stats: None,
        profile: None,
        record: None,
        watch: true,
        output: args.output,
        program: args.program,
    })
}

pub(crate) fn run(args: &RunArgs) -> Result<End, Failure> {
    let library = library::find(args.lib.as_deref())?;
    let json = args.json.as_deref().map(create).transpose()?;
    let [program, arguments @ ..] = args.program.as_slice() else {
        return Err(Failure::new("no program is named"));
    };
    let existing = env::var_os("LD_PRELOAD");
    let mut command = Command::new(program);
    command.args(arguments).env(
        "LD_PRELOAD",
        library::preload(&library, existing.as_deref()),
    );
    let mut ask = |kind, path: &Option<PathBuf>| {
        let ask = |path: &PathBuf| Asked::new(kind, path, &mut command);
        path.as_ref().map(ask).transpose()
    };
    let statistics = ask(Kind::Statistics, &args.stats)?;
    let profile = ask(Kind::Profile, &args.profile)?;
    let wanted = !args.quiet || json.is_some();
    let request = match wanted {
        true if statistics.is_none() => Request::new(&mut command)?,
        _ => None,
    };
    if wanted && statistics.is_some() {
        figures::count_calls(&mut command);
    }

    let recording = args.record.as_deref();
    let recording = recording
        .map(|path| Recording::new(path, &mut command))
        .transpose()?;
    let mut watch = match args.watch {
        true => Some(Watch::new(
            &args.program,
            args.output.as_deref(),
            &mut command,
        )?),
        false => None,
    };
    let every = watch.is_some().then_some(top::LOOK);
    let outcome = child::run_and_look(&mut command, every, |pid| {
        if let Some(watch) = &mut watch {
            watch.look(pid);
        }
    })
    .map_err(|error| Failure::of_program(program, &error))?;
    if let Some(watch) = watch {
        watch.end(outcome.pid, !args.quiet);
    }
    let figures = match (request, statistics.zip(args.stats.as_deref())) {
        (Some(request), _) => request.read(outcome.pid),
        (None, Some((statistics, path))) => {
            let statistics = statistics.collect(outcome.pid)?;
            if let (Err(sentence), true) = (&statistics, args.quiet) {
                complain(sentence); // Else it is part of the report.
            }
            figures_in(path, statistics)
        }
        (None, None) => Err(
            "the allocator's figures go where SPANMALLOC_STATS and SPANMALLOC_STATS_FILE say"
                .to_string(),
        ),
    };
    if let Some((profile, path)) = profile.zip(args.profile.as_deref()) {
        match profile.collect(outcome.pid)? {
            Ok(Some(_)) => symbolize(path)?,
            Ok(None) => {}
            Err(sentence) => complain(&sentence),
        }
    }
    if let Some(recording) = recording {
        recording.finish(outcome.pid, args.quiet)?;
    }
    let name = program.display().to_string();
    if !args.quiet {
        // Nobody to tell if standard error is closed.
        let _ = io::stderr().write_all(report(&name, &outcome, &figures).as_bytes());
    }
    if let Some((file, path)) = json.as_ref().zip(args.json.as_deref()) {
        let record = record(name, &outcome, figures.as_ref().ok());
        write(file, &record).map_err(|error| Failure::of_file(path, &error))?;
    }
    Ok(end(outcome.status))
}

/// The figures in statistics that were written to this path for the user.
fn figures_in(path: &Path, statistics: Result<Option<Vec<u8>>, String>) -> Result<Figures, String> {
    match statistics? {
        Some(data) if path.as_os_str().as_bytes().ends_with(b".json") => figures::parse(&data),
        _ => Err(format!("the allocator's figures are in {}", path.display())),
    }
}

/// What is done with a profile that was written, whose addresses have no names yet: nothing here. The place
/// for the command `symbolize`.
fn symbolize(_profile: &Path) -> Result<(), Failure> {
    Ok(())
}

/// Opens the file of `--json`, before the program runs: whether it can be written shows at once.
pub(crate) fn create(path: &Path) -> Result<File, Failure> {
    File::create(path).map_err(|error| Failure::of_file(path, &error))
}

/// Writes an object and a line feed.
pub(crate) fn write(mut file: &File, record: &impl Serialize) -> io::Result<()> {
    let mut text = serde_json::to_string_pretty(record)?;
    text.push('\n');
    file.write_all(text.as_bytes())
}

fn record<'a>(program: String, outcome: &Outcome, allocator: Option<&'a Figures>) -> Record<'a> {
    Record {
        program,
        exit_code: outcome.status.code(),
        signal: outcome.status.signal(),
        wall_seconds: outcome.usage.wall.as_secs_f64(),
        user_seconds: outcome.usage.user.as_secs_f64(),
        system_seconds: outcome.usage.system.as_secs_f64(),
        peak_rss_bytes: outcome.usage.peak_rss_bytes,
        allocator,
    }
}

fn report(program: &str, outcome: &Outcome, figures: &Result<Figures, String>) -> String {
    let usage = &outcome.usage;
    let mut rows = vec![
        ("wall time", units::time(usage.wall)),
        ("user time", units::time(usage.user)),
        ("system time", units::time(usage.system)),
        ("peak RSS", units::bytes(usage.peak_rss_bytes)),
    ];
    let mut note = String::new();
    match figures {
        Ok(figures) => rows.extend(figures::shown(figures)),
        Err(sentence) => note = format!("spanmalloc: {sentence}\n"),
    }
    let rows = rows
        .into_iter()
        .map(|(name, value)| [name.to_string(), value]);
    let table = units::table(1, rows.collect());
    format!("spanmalloc: {program}: {}\n{table}{note}", outcome.status)
}

/// As the program ended.
fn end(status: ExitStatus) -> End {
    match (status.code(), status.signal()) {
        (Some(code), _) => End::Code(u8::try_from(code).unwrap_or(TOOL_FAILED)),
        (None, Some(signal)) => End::Signal(signal),
        (None, None) => End::Code(TOOL_FAILED),
    }
}
