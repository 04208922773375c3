//! The command-line tool `spanmalloc`: runs any program on this allocator, without a rebuild, and
//! reads heap profiles.
//!
//! The tool itself stays on the system's malloc. It talks to the allocator in the other process
//! only: through `LD_PRELOAD` and the environment variables `SPANMALLOC_*`, and by a file of figures
//! that the library writes when the program exits.
//!
//! Exit codes of its own are those of `env` and `nohup`: 125 if the tool fails, 126 if the program
//! cannot be executed, 127 if it is not found. Otherwise it ends as the program ended.
//!
//! Invariant: only `child` contains unsafe code.

#![deny(unsafe_code, unsafe_op_in_unsafe_fn)]
#![deny(clippy::undocumented_unsafe_blocks)]

mod args;
mod binary;
mod child;
mod compare;
mod demangle;
mod difference;
mod failure;
mod figures;
mod flame;
mod library;
mod print_env;
mod profile_file;
// The same as in the library, which keeps it to itself.
#[path = "../../profile/proto.rs"]
mod proto;
mod record;
mod report;
mod reports;
mod run;
mod stacks;
mod summary;
mod symbolize;
mod symbols;
mod top;
mod units;

use std::process::ExitCode;

use clap::Parser;
use clap::error::ErrorKind;

use args::{Cli, Command};
use failure::{Failure, TOOL_FAILED};

/// How the tool ends.
enum End {
    /// With this exit code.
    Code(u8),
    /// By this signal, as the program did.
    Signal(libc::c_int),
}

fn main() -> ExitCode {
    let end = match Cli::try_parse() {
        Ok(cli) => execute(cli.command),
        Err(error) => Ok(End::Code(tell_usage(&error))),
    };
    match end {
        Ok(End::Code(code)) => ExitCode::from(code),
        Ok(End::Signal(signal)) => child::die_by(signal),
        Err(failure) => failure.tell(),
    }
}

fn execute(command: Command) -> Result<End, Failure> {
    match command {
        Command::Run(args) => run::run(&args),
        Command::Top(args) => run::top(args),
        Command::Compare(args) => compare::compare(&args),
        Command::Env(args) => print_env::print_env(&args),
        Command::Symbolize(args) => symbolize::symbolize(&args),
        Command::Report(args) => report::report(&args),
    }
}

/// Prints what clap has to say: help and version on standard output, errors on standard error.
fn tell_usage(error: &clap::Error) -> u8 {
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
            // Nobody to tell if the output is closed.
            let _ = error.print();
            0
        }
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            let _ = error.print();
            TOOL_FAILED
        }
        _ => {
            let text = error.render().to_string();
            let text = text.strip_prefix("error: ").unwrap_or(&text);
            failure::complain(text.trim_end());
            TOOL_FAILED
        }
    }
}
