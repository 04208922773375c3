//! The command-line tool, from outside: what it hands through, how it ends and what it prints.
//!
//! The programs that it runs are the system's (`sh`, `cat`, `env`). Where the allocator does not
//! matter they get this crate's library; where its figures or its place are tested, a fake one that
//! is compiled from `fake.c`.

#![cfg(not(miri))] // Starts processes.

#[path = "cli/compare.rs"]
mod compare;
#[path = "cli/find.rs"]
mod find;
#[path = "cli/profiles.rs"]
mod profiles;
#[path = "cli/record.rs"]
mod record;
#[path = "cli/report.rs"]
mod report;
#[path = "cli/reports.rs"]
mod reports;
#[path = "cli/run.rs"]
mod run;
#[path = "stats/schema.rs"]
mod schema;
#[path = "cli/signals.rs"]
mod signals;
#[path = "cli/symbolize.rs"]
mod symbolize;
#[path = "cli/top.rs"]
mod top;

use std::env;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;

const TOOL: &str = env!("CARGO_BIN_EXE_spanmalloc");

/// The tool, with a clean environment as far as it reads it.
fn tool(command: &str) -> Command {
    let mut tool = Command::new(TOOL);
    clean(&mut tool).arg(command);
    tool
}

/// Removes the variables that the tool reads or sets.
fn clean(command: &mut Command) -> &mut Command {
    command.stdin(Stdio::null());
    for name in [
        "LD_PRELOAD",
        "SPANMALLOC_STATS",
        "SPANMALLOC_STATS_FILE",
        "SPANMALLOC_PROFILE",
        "SPANMALLOC_PROFILE_FILE",
        "SPANMALLOC_COUNT",
    ] {
        command.env_remove(name);
    }
    command
}

/// The tool with a command, this crate's library and a program's command line.
fn tool_on(command: &str, options: &[&str], program: &[&str]) -> Command {
    let mut tool = tool(command);
    // Cargo puts it beside the tests. If it is not there, the tool has to find it.
    let executable = env::current_exe().unwrap();
    let library = executable.with_file_name("libspanmalloc.so");
    if library.exists() {
        tool.arg("--lib").arg(library);
    }
    tool.args(options).arg("--").args(program);
    tool
}

/// The tool's command line for a fake library.
fn tool_on_fake(command: &str, options: &[&str], program: &[&str]) -> Command {
    let mut tool = tool(command);
    tool.arg("--lib").arg(fake());
    tool.args(options).arg("--").args(program);
    tool
}

/// Exports `malloc`, which is the system's, and writes fixed figures.
fn fake() -> &'static Path {
    static LIBRARY: OnceLock<PathBuf> = OnceLock::new();
    LIBRARY.get_or_init(|| compile("fake_malloc.so", &[]))
}

/// Does nothing, and exports no `malloc`.
fn fake_without_malloc() -> &'static Path {
    static LIBRARY: OnceLock<PathBuf> = OnceLock::new();
    LIBRARY.get_or_init(|| compile("fake_other.so", &["-DNO_MALLOC"]))
}

/// With the C compiler that rustc links by.
fn compile(name: &str, options: &[&str]) -> PathBuf {
    let library = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    // Under another name first: a program of an earlier run may still have the library.
    let fresh = library.with_extension("new");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cli/fake.c");
    let mut compiler = Command::new("cc");
    compiler.args(["-shared", "-fPIC", "-Wall", "-Werror"]);
    compiler.args(options).arg("-o").arg(&fresh).arg(source);
    assert!(compiler.arg("-ldl").status().unwrap().success());
    std::fs::rename(&fresh, &library).unwrap();
    library
}

/// Runs a command that reads `input`.
fn with_input(command: &mut Command, input: &[u8]) -> Output {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    std::thread::scope(|scope| {
        scope.spawn(move || stdin.write_all(input).unwrap());
        child.wait_with_output().unwrap()
    })
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// What `--json` wrote.
fn json(path: &Path) -> serde_json::Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}
