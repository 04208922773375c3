//! The command `compare`: a program's runs on the system's malloc and on others, side by side.
//!
//! The allocators take turns, so that what else the machine does meets all of them. What a run
//! prints goes to files without names and is compared with the first measured run on the system's
//! malloc. Where the system's own runs differ from each other, the program is not deterministic and
//! the allocators are not compared.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Seek, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::FileTypeExt;
use std::path::PathBuf;
use std::process::{Command, ExitStatus, Stdio};

use serde::Serialize;

use crate::End;
use crate::args::CompareArgs;
use crate::child::{self, Usage};
use crate::difference::first_difference;
use crate::failure::{Failure, complain, reason};
use crate::figures;
use crate::library;
use crate::run::{create, write};
use crate::summary::{QUANTITIES, Quantity, Summary};
use crate::units;

const SYSTEM: &str = "system";
const OURS: &str = "spanmalloc";

/// The exit code if an allocator changes what the program does.
const DIFFERENT: u8 = 1;

/// What two runs must have in common.
const ASPECTS: [&str; 3] = ["exit status", "standard output", "standard error"];

/// For each of [`ASPECTS`] a sentence's end about the first difference that was seen.
type Differences = [Option<String>; ASPECTS.len()];

/// An allocator and its runs.
struct Allocator {
    name: String,
    /// `None` is the system's malloc.
    library: Option<PathBuf>,
    usages: Vec<Usage>,
    differences: Differences,
}

impl Allocator {
    fn new(name: &str, library: Option<PathBuf>) -> Self {
        Self {
            name: name.to_string(),
            library,
            usages: Vec::new(),
            differences: Differences::default(),
        }
    }

    fn differs(&self) -> bool {
        self.differences.iter().any(Option::is_some)
    }
}

/// What a run left.
struct Product {
    status: ExitStatus,
    stdout: File,
    stderr: File,
}

impl Product {
    /// Compares a later run with this one; what was noted of an aspect before stays.
    fn note_differences(&mut self, mut later: Self, noted: &mut Differences) -> io::Result<()> {
        let [status, stdout, stderr] = noted;
        if status.is_none() && self.status != later.status {
            *status = Some(format!(": {} and {}", self.status, later.status));
        }
        for (noted, first, later) in [
            (stdout, &mut self.stdout, &mut later.stdout),
            (stderr, &mut self.stderr, &mut later.stderr),
        ] {
            if noted.is_none() {
                *noted = first_difference(first, later)?.map(|found| format!(" {found}"));
            }
        }
        Ok(())
    }
}

/// Why there is nothing to report.
enum Stop {
    Failure(Failure),
    /// This process was asked to end.
    Signal(libc::c_int),
}

impl From<Failure> for Stop {
    fn from(failure: Failure) -> Self {
        Self::Failure(failure)
    }
}

impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Self {
        Self::Failure(Failure::new(format!(
            "a temporary file: {}",
            reason(&error)
        )))
    }
}

pub(crate) fn compare(args: &CompareArgs) -> Result<End, Failure> {
    match try_compare(args) {
        Ok(end) => Ok(end),
        Err(Stop::Signal(signal)) => Ok(End::Signal(signal)),
        Err(Stop::Failure(failure)) => Err(failure),
    }
}

fn try_compare(args: &CompareArgs) -> Result<End, Stop> {
    let mut allocators = allocators(args)?;
    let json = args.json.as_deref().map(create).transpose()?;
    let mut input = Input::take()?;

    for allocator in &allocators {
        run(args, allocator, &mut input)?;
    }
    let mut first = measure(args, &mut allocators, &mut input)?;
    // Before an allocator is blamed, the system's malloc must give the same once more.
    if allocators.iter().any(Allocator::differs) {
        let (_, product) = run(args, &allocators[0], &mut input)?;
        first.note_differences(product, &mut allocators[0].differences)?;
    }

    let verdict = verdict(&allocators);
    let mut text = table(&allocators);
    if !first.status.success() {
        text += &format!(
            "On the system's malloc the program failed: {}.\n",
            first.status
        );
    }
    if verdict.complaints.is_empty() {
        text += "The exit status and the output were the same in all measured runs.\n";
    }
    // Nobody to tell if standard output is closed.
    let _ = io::stdout().write_all(text.as_bytes());
    for sentence in &verdict.complaints {
        complain(sentence);
    }
    if let Some((file, path)) = json.as_ref().zip(args.json.as_deref()) {
        let record = record(args, &allocators, &verdict);
        write(file, &record).map_err(|error| Failure::of_file(path, &error))?;
    }
    Ok(End::Code(if verdict.agree { 0 } else { DIFFERENT }))
}

/// The system's malloc first, then ours and the others.
fn allocators(args: &CompareArgs) -> Result<Vec<Allocator>, Failure> {
    let ours = library::find(args.lib.as_deref())?;
    let mut allocators = vec![
        Allocator::new(SYSTEM, None),
        Allocator::new(OURS, Some(ours)),
    ];
    for (name, path) in &args.with {
        if allocators.iter().any(|it| it.name == *name) {
            return Err(Failure::new(format!("two allocators have the name {name}")));
        }
        allocators.push(Allocator::new(name, Some(library::check(path)?)));
    }
    Ok(allocators)
}

/// Runs all allocators in turns; returns what the first run left, which is one of the system's.
fn measure(
    args: &CompareArgs,
    allocators: &mut [Allocator],
    input: &mut Input,
) -> Result<Product, Stop> {
    let mut first: Option<Product> = None;
    for _ in 0..args.runs {
        for allocator in &mut *allocators {
            let (usage, product) = run(args, allocator, input)?;
            allocator.usages.push(usage);
            match &mut first {
                None => first = Some(product),
                Some(first) => first.note_differences(product, &mut allocator.differences)?,
            }
        }
    }
    first.ok_or_else(|| Failure::new("no run was asked for").into())
}

fn run(
    args: &CompareArgs,
    allocator: &Allocator,
    input: &mut Input,
) -> Result<(Usage, Product), Stop> {
    let [program, arguments @ ..] = args.program.as_slice() else {
        return Err(Failure::new("no program is named").into());
    };
    let (stdout, stderr) = (tempfile::tempfile()?, tempfile::tempfile()?);
    let mut command = Command::new(program);
    command
        .args(arguments)
        .stdin(input.rewound()?)
        .stdout(stdout.try_clone()?)
        .stderr(stderr.try_clone()?);
    for variable in figures::VARIABLES {
        command.env_remove(variable);
    }
    match &allocator.library {
        None => command.env_remove("LD_PRELOAD"),
        Some(library) => command.env("LD_PRELOAD", library::preload(library, None)),
    };
    let outcome = child::run(&mut command).map_err(|error| Failure::of_program(program, &error))?;
    match outcome.asked_to_end {
        Some(signal) => Err(Stop::Signal(signal)),
        None => Ok((
            outcome.usage,
            Product {
                status: outcome.status,
                stdout,
                stderr,
            },
        )),
    }
}

/// What each run reads.
enum Input {
    Null,
    /// A copy of what this process had on its standard input.
    Copy(File),
}

impl Input {
    fn take() -> io::Result<Self> {
        let mut stdin = File::from(io::stdin().as_fd().try_clone_to_owned()?);
        let kind = stdin.metadata()?.file_type();
        if !(kind.is_file() || kind.is_fifo() || kind.is_socket()) {
            return Ok(Self::Null);
        }
        let mut copy = tempfile::tempfile()?;
        io::copy(&mut stdin, &mut copy)?;
        Ok(Self::Copy(copy))
    }

    fn rewound(&mut self) -> io::Result<Stdio> {
        match self {
            Self::Null => Ok(Stdio::null()),
            Self::Copy(file) => {
                file.rewind()?;
                Ok(file.try_clone()?.into())
            }
        }
    }
}

/// What the differences mean.
struct Verdict {
    /// No allocator changes what is the same in all runs on the system's malloc.
    agree: bool,
    deterministic: bool,
    /// Sentences for standard error.
    complaints: Vec<String>,
}

fn verdict(allocators: &[Allocator]) -> Verdict {
    let mut verdict = Verdict {
        agree: true,
        deterministic: true,
        complaints: Vec::new(),
    };
    let [system, others @ ..] = allocators else {
        return verdict;
    };
    for (index, aspect) in ASPECTS.iter().enumerate() {
        if let Some(difference) = &system.differences[index] {
            verdict.deterministic = false;
            verdict.complaints.push(format!(
                "the program is not deterministic: its {aspect} is not the same in two runs on the system's malloc{difference}"
            ));
            continue;
        }
        for other in others {
            if let Some(difference) = &other.differences[index] {
                verdict.agree = false;
                verdict.complaints.push(format!(
                    "the {aspect} is not the same on the system's malloc and on {}{difference}",
                    other.name
                ));
            }
        }
    }
    verdict
}

/// For each quantity one [`Summary`] for each allocator.
fn summaries(allocators: &[Allocator], quantity: &Quantity) -> Vec<Summary> {
    let values = |it: &Allocator| it.usages.iter().map(quantity.of).collect::<Vec<_>>();
    let mut system = None;
    let mut summaries = Vec::new();
    for allocator in allocators {
        let summary = Summary::new(values(allocator), system);
        system = system.or(Some(summary.median));
        summaries.push(summary);
    }
    summaries
}

fn table(allocators: &[Allocator]) -> String {
    let mut rows = vec![["", "", "median", "to system", "spread"].map(str::to_string)];
    for quantity in &QUANTITIES {
        for (index, summary) in summaries(allocators, quantity).iter().enumerate() {
            let name = if index == 0 { quantity.name } else { "" };
            let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_string());
            rows.push([
                name.to_string(),
                allocators[index].name.clone(),
                (quantity.show)(summary.median),
                or_dash(summary.to_system.map(|ratio| format!("{ratio:.2}"))),
                or_dash(
                    summary
                        .spread
                        .map(|spread| format!("{:.0} %", spread * 100.0)),
                ),
            ]);
        }
    }
    units::table(2, rows)
}

/// What `--json` writes.
#[derive(Serialize)]
struct Record<'a> {
    program: String,
    runs: u32,
    agree: bool,
    deterministic: bool,
    differences: &'a [String],
    allocators: Vec<AllocatorRecord<'a>>,
}

/// One allocator, in the order of the command line after `system` and `spanmalloc`.
#[derive(Serialize)]
struct AllocatorRecord<'a> {
    name: &'a str,
    library: Option<String>,
    #[serde(flatten)]
    quantities: BTreeMap<&'static str, Summary>,
}

fn record<'a>(args: &CompareArgs, allocators: &'a [Allocator], verdict: &'a Verdict) -> Record<'a> {
    let mut records: Vec<_> = allocators
        .iter()
        .map(|allocator| AllocatorRecord {
            name: &allocator.name,
            library: allocator
                .library
                .as_ref()
                .map(|path| path.display().to_string()),
            quantities: BTreeMap::new(),
        })
        .collect();
    for quantity in &QUANTITIES {
        for (record, summary) in records.iter_mut().zip(summaries(allocators, quantity)) {
            record.quantities.insert(quantity.key, summary);
        }
    }
    Record {
        program: args
            .program
            .first()
            .map(|it| it.display().to_string())
            .unwrap_or_default(),
        runs: args.runs,
        agree: verdict.agree,
        deterministic: verdict.deterministic,
        differences: &verdict.complaints,
        allocators: records,
    }
}
