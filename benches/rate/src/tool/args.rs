//! The command line.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;

const MORE: &str = "\
Without a command, all workloads run on all allocators, in turns, each run in a
process of its own. The tool builds one worker for each allocator with cargo;
what a peer needs (a C or C++ compiler) is only missed by that peer.

With a command, the whole program is timed instead, under the system's malloc,
under spanmalloc's preload library and under each --preload. Its standard input
is /dev/null and its standard output is discarded.

With --lock-share, a worker on spanmalloc with clocks in its locks tells how long
each is held and waited for; --allocators are the peers of the second table.

With --over-time, scenarios that need much memory and little again run instead, for
some seconds each, and what is resident meanwhile is shown; --list names them.

The exit status is 0 if all rows of spanmalloc were measured, 1 if not or if the
tool cannot go on, and 2 if the command line is not understood.

Examples:
  spanmalloc-rate --quick
  spanmalloc-rate --workloads 'random-*' --allocators spanmalloc,mimalloc3 --reps 9
  spanmalloc-rate --json results.json --svg charts --overview overview.md
  spanmalloc-rate --preload tcmalloc-debian=/usr/lib/x86_64-linux-gnu/libtcmalloc.so.4
  spanmalloc-rate --lock-share --workloads 'larson-*' --allocators mimalloc3
  spanmalloc-rate --over-time burst,sawtooth --svg charts
  spanmalloc-rate --replay program.trace.gz
  spanmalloc-rate --reps 5 -- python3 script.py";

/// Compares spanmalloc with other memory allocators: time and memory.
#[derive(Debug, Parser)]
#[command(name = "spanmalloc-rate", version, after_help = MORE)]
pub struct Args {
    /// Runs of each row; of workloads the least time counts, of all else the median [default: 3; 1 with --quick or --over-time]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub reps: Option<u32>,
    /// Only these workloads; `*` stands for any characters
    #[arg(long, value_name = "NAME,...", value_delimiter = ',')]
    pub workloads: Vec<String>,
    /// Only these allocators
    #[arg(long, value_name = "NAME,...", value_delimiter = ',')]
    pub allocators: Vec<String>,
    /// Threads, for the workloads that allow a choice
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub threads: Option<u16>,
    /// Small workloads, or short scenarios, one run each
    #[arg(long)]
    pub quick: bool,
    /// Write the results to FILE as a JSON array
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Draw a chart for each workload or scenario, and of workloads an overview, in the directory DIR
    #[arg(long, value_name = "DIR")]
    pub svg: Option<PathBuf>,
    /// Write a comparison of spanmalloc with the best peers to FILE, as Markdown for a README
    #[arg(
        long,
        value_name = "FILE",
        conflicts_with_all = ["command", "list", "lock_share"]
    )]
    pub overview: Option<PathBuf>,
    /// Another allocator, or instead of one of that name: a library that is preloaded under the worker
    /// on the system's malloc
    #[arg(long, value_name = "NAME=PATH", value_parser = preload)]
    pub preload: Vec<(String, PathBuf)>,
    /// Workers built elsewhere, instead of building any: programs in DIR, named after allocators;
    /// for a command, libspanmalloc.so is taken from there
    #[arg(long, value_name = "DIR")]
    pub workers: Option<PathBuf>,
    /// Seconds that a run may take [default: 120 for a workload, 600 for a scenario, no limit for a command]
    #[arg(long, value_name = "SECONDS", value_parser = seconds, hide = true)]
    pub timeout: Option<Duration>,
    /// List the workloads, the scenarios, and the allocators with how they are built
    #[arg(long, conflicts_with = "command")]
    pub list: bool,
    /// Measure how hot the locks of spanmalloc are instead, in the workloads with several threads, and
    /// how the time of all allocators grows with the number of threads
    #[arg(long, conflicts_with_all = ["command", "list", "svg"])]
    pub lock_share: bool,
    /// Run scenarios of memory over time instead, all of them or only these
    #[arg(
        long,
        value_name = "SCENARIO,...",
        num_args = 0..=1,
        value_delimiter = ',',
        conflicts_with_all = [
            "command", "list", "lock_share", "overview", "replay", "threads", "workloads"
        ]
    )]
    pub over_time: Option<Vec<String>>,
    /// Replay the trace FILE instead of running workloads; may be given several times
    #[arg(
        long,
        value_name = "FILE",
        conflicts_with_all = ["command", "list", "lock_share", "workloads", "threads"]
    )]
    pub replay: Vec<PathBuf>,
    /// A program to time instead of the workloads, with its arguments
    #[arg(last = true, value_name = "COMMAND", conflicts_with_all = ["workloads", "threads"])]
    pub command: Vec<OsString>,
}

impl Args {
    /// How often each row is run.
    pub fn reps(&self) -> u32 {
        // A scenario takes long, and what it tells hardly differs from run to run.
        let once = self.quick || self.over_time.is_some();
        self.reps.unwrap_or(if once { 1 } else { 3 })
    }
}

fn preload(text: &str) -> Result<(String, PathBuf), String> {
    match text.split_once('=') {
        Some((name, path)) if !name.is_empty() && !path.is_empty() => {
            Ok((name.to_owned(), PathBuf::from(path)))
        }
        _ => Err("it must be NAME=PATH".to_owned()),
    }
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds = text.parse().map_err(|_| "it must be a number".to_owned())?;
    Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn parsed(arguments: &[&str]) -> Result<Args, clap::Error> {
        Args::try_parse_from(["spanmalloc-rate"].iter().chain(arguments))
    }

    #[test]
    fn the_definition_is_consistent() {
        Args::command().debug_assert();
    }

    #[test]
    fn quick_is_one_run_unless_told_otherwise() {
        assert_eq!(parsed(&[]).unwrap().reps(), 3);
        assert_eq!(parsed(&["--quick"]).unwrap().reps(), 1);
        assert_eq!(parsed(&["--quick", "--reps", "5"]).unwrap().reps(), 5);
        assert!(parsed(&["--reps", "0"]).is_err());
    }

    #[test]
    fn a_command_stands_behind_two_dashes() {
        let args = parsed(&["--reps", "2", "--", "ls", "-l"]).unwrap();
        assert_eq!(args.command, ["ls", "-l"]);
        assert!(parsed(&["ls"]).is_err());
        assert!(parsed(&["--workloads", "a", "--", "ls"]).is_err());
    }

    #[test]
    fn lock_shares_are_of_workloads() {
        let args = parsed(&[
            "--lock-share",
            "--workloads",
            "a",
            "--threads",
            "2",
            "--quick",
        ])
        .unwrap();
        assert!(args.lock_share);
        for other in [
            &["--list"][..],
            &["--svg", "d"],
            &["--replay", "t"],
            &["--", "ls"],
        ] {
            assert!(parsed(&[&["--lock-share"], other].concat()).is_err());
        }
    }

    #[test]
    fn scenarios_are_instead_of_workloads() {
        let scenarios = |arguments: &[&str]| parsed(arguments).unwrap().over_time;
        assert_eq!(scenarios(&[]), None);
        assert_eq!(scenarios(&["--over-time"]), Some(Vec::new()));
        let two = Some(vec!["a".to_owned(), "b".to_owned()]);
        assert_eq!(scenarios(&["--over-time", "a,b", "--quick"]), two);
        assert_eq!(scenarios(&["--over-time=a,b", "--svg", "d"]), two);
        assert_eq!(scenarios(&["--over-time", "--quick"]), Some(Vec::new()));
        assert_eq!(parsed(&["--over-time"]).unwrap().reps(), 1);
        assert_eq!(
            parsed(&["--over-time", "a", "--reps", "2"]).unwrap().reps(),
            2
        );
        for other in [
            &["--list"][..],
            &["--lock-share"],
            &["--overview", "f"],
            &["--replay", "t"],
            &["--threads", "2"],
            &["--workloads", "w"],
            &["--", "ls"],
        ] {
            assert!(
                parsed(&[&["--over-time"], other].concat()).is_err(),
                "{other:?}"
            );
        }
    }

    #[test]
    fn overviews_are_of_workloads() {
        let args = parsed(&["--overview", "f", "--quick"]).unwrap();
        assert_eq!(args.overview, Some(PathBuf::from("f")));
        for other in [&["--list"][..], &["--lock-share"], &["--", "ls"]] {
            assert!(parsed(&[&["--overview", "f"], other].concat()).is_err());
        }
    }

    #[test]
    fn traces_are_instead_of_workloads() {
        let args = parsed(&["--replay", "a", "--quick", "--replay", "b"]).unwrap();
        assert_eq!(args.replay, [PathBuf::from("a"), PathBuf::from("b")]);
        for other in [
            &["--list"][..],
            &["--workloads", "w"],
            &["--threads", "2"],
            &["--", "ls"],
        ] {
            assert!(parsed(&[&["--replay", "a"], other].concat()).is_err());
        }
        assert!(parsed(&["--replay"]).is_err());
    }

    #[test]
    fn a_preload_has_a_name() {
        let args = parsed(&["--preload", "a=/x", "--preload", "b=/y=z"]).unwrap();
        assert_eq!(args.preload[1], ("b".to_owned(), PathBuf::from("/y=z")));
        for bad in ["x", "=x", "x="] {
            assert!(parsed(&["--preload", bad]).is_err());
        }
    }
}
