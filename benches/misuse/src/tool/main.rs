//! Tries misuses of memory on spanmalloc and other allocators, and tells which are caught.
//!
//! The tool builds the programs and the allocators, runs each program many times under each, and
//! judges each run by how it ended and by what the program wrote until then.

#![deny(unsafe_code)]

mod allocators;
mod args;
mod build;
mod check;
mod results;
mod table;
mod verdict;

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};
use spanmalloc_misuse::{INNOCENT, MISUSES};

use allocators::{Column, KNOWN, Known, OURS_SECURE, SECURE_FEATURE};
use args::{Args, select};
use build::Workspace;

fn main() -> ExitCode {
    let args = Args::parse();
    let result = if args.list { list() } else { run(&args) };
    result.unwrap_or_else(|sentence| {
        complain(&sentence);
        ExitCode::FAILURE
    })
}

fn run(args: &Args) -> Result<ExitCode, String> {
    let is_asked_for = args.misuses.iter().any(|it| it == INNOCENT.name);
    let innocent = is_asked_for.then_some(&INNOCENT);
    let misuses = MISUSES.iter().chain(innocent).collect();
    let misuses = select(misuses, &args.misuses, |it| it.name)?;
    let workspace = Workspace::find()?;
    let columns = columns(args, &workspace)?;
    let mut trials = results::trials(&columns, &misuses);
    let bar = bar(trials.len());
    results::run(&mut trials, &columns, args.runs, &bar)?;
    bar.finish_and_clear();

    let about = about(args, &columns);
    let table = table::markdown(&columns, &misuses, &trials);
    // Nobody to tell if standard output is closed.
    let _ = write!(io::stdout(), "{table}\n{}\n\n{about}", table::LEGEND);
    if let Some(path) = &args.markdown {
        let table = table::for_readme(&columns, &misuses, &trials);
        write(path, &format!("{about}\n{table}"))?;
    }
    if let Some(path) = &args.json {
        let json = table::json(&columns, &trials);
        write(path, &format!("{json:#}\n"))?;
    }
    if !args.check {
        return Ok(ExitCode::SUCCESS);
    }
    let misses = check::misses(&columns, &trials);
    misses.iter().for_each(|miss| complain(miss));
    Ok(if misses.is_empty() {
        ExitCode::SUCCESS
    } else {
        complain(&format!("{} programs miss their bar", misses.len()));
        ExitCode::FAILURE
    })
}

/// Builds and finds the allocators. What is missing is told once, here.
fn columns(args: &Args, workspace: &Workspace) -> Result<Vec<Column>, String> {
    enum Choice<'a> {
        Known(&'static Known),
        Preload(&'a (String, PathBuf)),
    }
    let there_is =
        |known: &&Known| known.name != OURS_SECURE || workspace.has_feature(SECURE_FEATURE);
    let known = KNOWN.iter().filter(there_is).map(Choice::Known);
    let all = known.chain(args.preload.iter().map(Choice::Preload));
    let chosen = select(all.collect(), &args.allocators, |it| match it {
        Choice::Known(known) => known.name,
        Choice::Preload((name, _)) => name,
    })?;
    let bar = bar(chosen.len());
    let mut columns = Vec::new();
    for choice in chosen {
        let column = match choice {
            Choice::Known(known) => {
                bar.set_message(format!("building {}", known.name));
                Column::of_known(known, workspace)
            }
            Choice::Preload((name, path)) => Column::of_preload(name, path, workspace),
        };
        for (language, error) in column.missing() {
            let sentence = format!("{}, {language}: {error}", column.name);
            bar.suspend(|| complain(&sentence));
        }
        columns.push(column);
        bar.inc(1);
    }
    bar.finish_and_clear();
    Ok(columns)
}

/// What is to be known of the table.
fn about(args: &Args, columns: &[Column]) -> String {
    let mut text = format!("{} runs of each program.\n", args.runs);
    for column in columns {
        for (language, error) in column.missing() {
            text.push_str(&format!("\n{}, {language}: {error}\n", column.name));
        }
    }
    text
}

fn list() -> Result<ExitCode, String> {
    let mut text = String::from("misuses:\n");
    for misuse in MISUSES {
        text.push_str(&format!("  {:<24} {}\n", misuse.name, misuse.sentence));
    }
    text.push_str("\nallocators:\n");
    for known in KNOWN {
        text.push_str(&format!("  {:<24} {}\n", known.name, known.about));
    }
    let _ = io::stdout().write_all(text.as_bytes());
    Ok(ExitCode::SUCCESS)
}

/// A bar of so many steps on standard error; there is none if that is no terminal.
fn bar(steps: usize) -> ProgressBar {
    let bar = ProgressBar::new(steps as u64);
    if let Ok(style) = ProgressStyle::with_template("{bar:30} {pos}/{len} {elapsed} {msg}") {
        bar.set_style(style);
    }
    bar
}

fn write(path: &Path, text: &str) -> Result<(), String> {
    fs::write(path, text).map_err(|error| format!("{}: {error}", path.display()))
}

fn complain(sentence: &str) {
    // Nobody to tell if standard error is closed.
    let _ = writeln!(io::stderr(), "spanmalloc-misuse: {sentence}");
}
