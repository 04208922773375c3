//! The command line.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

const EXAMPLES: &str = "\
Examples:
  spanmalloc run -- ls -l
  spanmalloc top -- ./server
  spanmalloc compare -n 9 -- ./program input.txt
  env $(spanmalloc env) ./program
  spanmalloc report heap.pb.gz

The exit code is the program's own; 125 if spanmalloc itself fails, 126 if the
program cannot be executed, 127 if it is not found.";

const RUN_EXAMPLES: &str = "\
The report is on standard error. The figures of the allocator are those of the
program's own process, not of processes that it starts, and so are statistics
and profile; with a `%p` in the name of their file each process writes its own.
Counting costs a few nanoseconds a call; with --quiet and without --json nothing
is counted.

Examples:
  spanmalloc run -- ls -l
  spanmalloc run --quiet ./server --port 8080
  spanmalloc run --json figures.json -- python3 script.py < input.txt
  spanmalloc run --profile heap.pb.gz -- ./program
  spanmalloc run --record program.trace.gz -- ./program";

const TOP_EXAMPLES: &str = "\
The view is on standard error: RSS, live bytes, where the memory is, rates and
size classes of the program's own process, four times a second. Keys: q ends the
view, and the program goes on; s sorts the classes by something else; p pauses;
Ctrl-C goes to the program. What the program prints to the terminal meanwhile is
kept in a temporary file and shown when the view ends. The program has no input
from the terminal. Without a terminal there is a line a second.

Examples:
  spanmalloc top -- ./server --port 8080
  spanmalloc top --output server.log -- ./server --port 8080
  spanmalloc top -- ./program 2> lines.txt";

const COMPARE_EXAMPLES: &str = "\
The allocators take turns, after one run of each that is not measured. All runs
get the same standard input: /dev/null, or what a file or pipe holds. What they
print must be the same; the exit code is 1 if an allocator changes the output or
the exit status of a program that is the same in each run under the system's.
An LD_PRELOAD from outside is removed. A static program uses its own malloc.

Examples:
  spanmalloc compare -- ./program input.txt
  spanmalloc compare -n 15 --json figures.json -- sort < words.txt
  spanmalloc compare --with jemalloc=/usr/lib/libjemalloc.so.2 -- ./program";

const ENV_EXAMPLES: &str = "\
Examples:
  env $(spanmalloc env) ./program
  spanmalloc env --systemd >> program.service.d/malloc.conf";

const SYMBOLIZE_EXAMPLES: &str = "\
The executable and the libraries must still be where they were, with the same
build id; debug files of distributions and those that .gnu_debuglink names are
used. What cannot be found stays an address, and is said on standard error.
Profiles with names can be read anywhere, without the program.

Examples:
  spanmalloc symbolize heap.pb.gz
  spanmalloc symbolize heap.pb.gz -o named.pb.gz";

const REPORT_EXAMPLES: &str = "\
Sample types: alloc_objects and alloc_space (since the start), inuse_objects and
inuse_space (at the moment of the profile), peak_objects and peak_space (when
the most bytes were in use). Any profile in pprof's format can be read.

A function's flat value is that of its own calls of the allocator; the cumulative
value has that of the functions it calls as well. The allocator's own frames are not
shown, so that its callers come first. Addresses are looked up as by `spanmalloc
symbolize`; the file is not changed.

The flame graph of a --diff is as wide as the profile AFTER, red where a stack
has grown and blue where it has shrunk.

Examples:
  spanmalloc report heap.pb.gz
  spanmalloc report heap.pb.gz --sample-type alloc_space --cum --top 50
  spanmalloc report heap.pb.gz --flame heap.svg
  spanmalloc report --diff early.pb.gz late.pb.gz --flame growth.svg";

/// Runs programs on the memory allocator spanmalloc, without a rebuild.
#[derive(Parser)]
#[command(name = "spanmalloc", version, after_help = EXAMPLES)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Subcommand)]
pub(crate) enum Command {
    Run(RunArgs),
    Top(TopArgs),
    Compare(CompareArgs),
    Env(EnvArgs),
    Symbolize(SymbolizeArgs),
    Report(ReportArgs),
}

/// Runs a program on spanmalloc and reports time and memory.
#[derive(Args)]
#[command(after_help = RUN_EXAMPLES)]
pub(crate) struct RunArgs {
    /// The shared library to preload [default: found near this tool]
    #[arg(long, value_name = "PATH")]
    pub(crate) lib: Option<PathBuf>,
    /// No report
    #[arg(long, short)]
    pub(crate) quiet: bool,
    /// Write the figures to FILE as a JSON object
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
    /// Write the allocator's statistics to FILE at the end: JSON if it ends in .json
    #[arg(long, value_name = "FILE")]
    pub(crate) stats: Option<PathBuf>,
    /// Write a heap profile for pprof to FILE at the end, as a rule *.pb.gz
    #[arg(long, value_name = "FILE")]
    pub(crate) profile: Option<PathBuf>,
    /// Record each malloc and free to FILE, a trace for spanmalloc-rate --replay
    #[arg(long, value_name = "FILE")]
    pub(crate) record: Option<PathBuf>,
    /// A live view while the program runs, as the command top has it
    #[arg(long)]
    pub(crate) watch: bool,
    /// With --watch: what the program prints goes to FILE
    #[arg(long, value_name = "FILE", requires = "watch")]
    pub(crate) output: Option<PathBuf>,
    /// The program and its arguments
    #[arg(required = true, trailing_var_arg = true, value_name = "PROGRAM")]
    pub(crate) program: Vec<OsString>,
}

/// Runs a program on spanmalloc and shows what its memory does meanwhile.
#[derive(Args)]
#[command(after_help = TOP_EXAMPLES)]
pub(crate) struct TopArgs {
    /// The shared library to preload [default: found near this tool]
    #[arg(long, value_name = "PATH")]
    pub(crate) lib: Option<PathBuf>,
    /// What the program prints goes to FILE
    #[arg(long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
    /// The program and its arguments
    #[arg(required = true, trailing_var_arg = true, value_name = "PROGRAM")]
    pub(crate) program: Vec<OsString>,
}

/// Compares a program's runs on the system's malloc and on spanmalloc.
#[derive(Args)]
#[command(after_help = COMPARE_EXAMPLES)]
pub(crate) struct CompareArgs {
    /// Measured runs of each allocator
    #[arg(short = 'n', long, value_name = "N", default_value_t = 5,
          value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) runs: u32,
    /// The shared library to preload [default: found near this tool]
    #[arg(long, value_name = "PATH")]
    pub(crate) lib: Option<PathBuf>,
    /// Write the figures to FILE as a JSON object
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
    /// Another allocator's shared library; may be given several times
    #[arg(long, value_name = "NAME=PATH", value_parser = named_library)]
    pub(crate) with: Vec<(String, PathBuf)>,
    /// The program and its arguments
    #[arg(required = true, trailing_var_arg = true, value_name = "PROGRAM")]
    pub(crate) program: Vec<OsString>,
}

/// Prints the environment variable that preloads spanmalloc, for scripts.
#[derive(Args)]
#[command(after_help = ENV_EXAMPLES)]
pub(crate) struct EnvArgs {
    /// The shared library to preload [default: found near this tool]
    #[arg(long, value_name = "PATH")]
    pub(crate) lib: Option<PathBuf>,
    /// Print a line for the section [Service] of a systemd unit
    #[arg(long)]
    pub(crate) systemd: bool,
}

/// Adds names of functions, files and lines to a heap profile.
#[derive(Args)]
#[command(after_help = SYMBOLIZE_EXAMPLES)]
pub(crate) struct SymbolizeArgs {
    /// The profile, in pprof's format
    #[arg(value_name = "IN")]
    pub(crate) profile: PathBuf,
    /// Where to write it [default: in place of IN]
    #[arg(short, long, value_name = "OUT")]
    pub(crate) output: Option<PathBuf>,
}

/// Shows which functions allocated, from a heap profile, or what grew between two.
#[derive(Args)]
#[command(
    after_help = REPORT_EXAMPLES,
    override_usage = "spanmalloc report [OPTIONS] <PROFILE>\n       \
                      spanmalloc report [OPTIONS] --diff <BEFORE> <AFTER>"
)]
pub(crate) struct ReportArgs {
    /// The profile, in pprof's format
    #[arg(value_name = "PROFILE", required_unless_present = "diff")]
    pub(crate) profile: Option<PathBuf>,
    /// Show the growth from one profile to another, the largest first
    #[arg(long, num_args = 2, value_names = ["BEFORE", "AFTER"], conflicts_with = "profile")]
    pub(crate) diff: Vec<PathBuf>,
    /// What to show of each function
    #[arg(long, value_name = "TYPE", default_value = "inuse_space")]
    pub(crate) sample_type: String,
    /// Show the first N functions only
    #[arg(long, value_name = "N", default_value_t = 30)]
    pub(crate) top: usize,
    /// Sort by cumulative values
    #[arg(long = "cum")]
    pub(crate) cumulative: bool,
    /// Draw a flame graph of all stacks to the file SVG
    #[arg(long, value_name = "SVG")]
    pub(crate) flame: Option<PathBuf>,
    /// Print a JSON object instead of the table
    #[arg(long)]
    pub(crate) json: bool,
    /// Show the innermost frames even where they are the allocator's
    #[arg(long)]
    pub(crate) keep_allocator_frames: bool,
}

fn named_library(text: &str) -> Result<(String, PathBuf), String> {
    match text.split_once('=') {
        Some((name, path)) if !name.is_empty() && !path.is_empty() => {
            Ok((name.to_string(), PathBuf::from(path)))
        }
        _ => Err("it must be a name, `=` and a path".to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_definition_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn what_follows_the_program_belongs_to_it() {
        let line = ["spanmalloc", "run", "-q", "ls", "-l", "--quiet", "--", "x"];
        let Command::Run(args) = Cli::try_parse_from(line).unwrap().command else {
            panic!("not the command run");
        };
        assert!(args.quiet);
        assert_eq!(args.program, ["ls", "-l", "--quiet", "--", "x"]);
    }

    #[test]
    fn an_unknown_option_before_the_program_is_an_error() {
        assert!(Cli::try_parse_from(["spanmalloc", "run", "--quite", "ls"]).is_err());
    }

    #[test]
    fn a_library_has_a_name_and_a_path() {
        let parsed = named_library("je=/lib/a=b.so").unwrap();
        assert_eq!(parsed, ("je".to_string(), PathBuf::from("/lib/a=b.so")));
        for wrong in ["je", "=/lib/a.so", "je="] {
            assert!(named_library(wrong).is_err(), "{wrong}");
        }
    }
}
