//! The allocators that are compared, and where their workers come from.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::args::Args;
use crate::build::Workspace;
use crate::failure::Failure;
use crate::select::select;

/// The allocator that the others are compared with.
pub const OURS: &str = "spanmalloc";
/// The allocator of a worker that is built without any.
pub const SYSTEM: &str = "system";
/// Google's.
const TCMALLOC: &str = "tcmalloc";

/// An allocator that a worker can be built with.
#[derive(Debug)]
pub struct Known {
    pub name: &'static str,
    /// The crate that it comes from; the name of the feature is its own.
    pub from: Option<&'static str>,
    pub written_in: &'static str,
}

const fn known(name: &'static str, from: &'static str, written_in: &'static str) -> Known {
    Known {
        name,
        from: Some(from),
        written_in,
    }
}

/// All allocators with a feature of their own, and the system's, in the order of the table.
pub const KNOWN: [Known; 10] = [
    known(OURS, "spanmalloc", "Rust"),
    Known {
        name: SYSTEM,
        from: None,
        written_in: "C",
    },
    known("mimalloc2", "mimalloc", "C"),
    known("mimalloc3", "mimalloc", "C"),
    known("snmalloc", "snmalloc-rs", "C++"),
    known("jemalloc", "tikv-jemallocator", "C"),
    known("rpmalloc", "rpmalloc", "C"),
    known(TCMALLOC, "tcmalloc-better", "C++"),
    known("rusty_alloc", "rusty_alloc-api", "Rust"),
    known("sefer_alloc", "sefer-alloc", "Rust"),
];

/// Ours with clocks in its locks: its times are not to be compared, so it is none of [`KNOWN`].
const LOCK_SHARE: Known = known("lock_share", "spanmalloc", "Rust");

/// Where an allocator comes from.
#[derive(Clone, Debug)]
pub enum Source {
    /// A worker that is built with it.
    Built(&'static Known),
    /// A worker that was built elsewhere.
    Ready(PathBuf),
    /// A library that is preloaded.
    Library(PathBuf),
}

/// An allocator that is to be compared.
#[derive(Clone, Debug)]
pub struct Allocator {
    pub name: String,
    pub source: Source,
}

impl Allocator {
    /// The library to preload, if it is one.
    pub fn library(&self) -> Option<&Path> {
        match &self.source {
            Source::Library(path) => Some(path),
            Source::Built(_) | Source::Ready(_) => None,
        }
    }

    /// What it is made of, in a few words.
    pub fn origin(&self, workspace: &Workspace) -> String {
        match &self.source {
            Source::Ready(_) => "ready-made worker".to_owned(),
            Source::Library(_) => "preloaded under the worker on the system's malloc".to_owned(),
            Source::Built(known) => match known.from {
                None => "malloc of the system's C library".to_owned(),
                Some(name) => {
                    let version = workspace.version(name);
                    format!("crate {name} {version}, {}", known.written_in)
                }
            },
        }
    }

    /// Where it comes from, in one line.
    pub fn how(&self, workspace: &Workspace) -> String {
        let origin = self.origin(workspace);
        match &self.source {
            Source::Ready(path) => format!("{origin} {}", path.display()),
            Source::Library(path) => format!("{origin}: {}", path.display()),
            Source::Built(known) => {
                let options = Workspace::options(known).join(" ");
                match self.variable() {
                    None => format!("{origin}; {options}"),
                    Some((name, value)) => format!("{origin}; {options}; run with {name}={value}"),
                }
            }
        }
    }

    /// A variable that its worker is started with, and the value.
    ///
    /// Google's TCMalloc has its fast mode, a cache for each CPU, only where the C library leaves
    /// the restartable sequences of threads to it, which glibc does not on its own.
    pub fn variable(&self) -> Option<(&'static str, &'static str)> {
        let is_worker = self.library().is_none();
        (is_worker && self.name == TCMALLOC).then_some(("GLIBC_TUNABLES", "glibc.pthread.rseq=0"))
    }
}

/// The allocators that the command line asks for, in the order of the table.
pub fn chosen(args: &Args) -> Result<Vec<Allocator>, Failure> {
    let mut all = match &args.workers {
        _ if !args.command.is_empty() => of_commands(),
        None => KNOWN
            .iter()
            .map(|known| Allocator {
                name: known.name.to_owned(),
                source: Source::Built(known),
            })
            .collect(),
        Some(directory) => ready(directory)?,
    };
    for (name, path) in &args.preload {
        let path = path
            .canonicalize()
            .map_err(|error| Failure::of_file(path, &error))?;
        let text = path.to_string_lossy();
        // The dynamic linker takes both for the end of a path, and nothing quotes them.
        if text.contains([':', ' ']) {
            return Err(Failure::usage(format!(
                "--preload: a path with a colon or a space can't be preloaded: {text}"
            )));
        }
        let source = Source::Library(path);
        match all.iter_mut().find(|it| it.name == *name) {
            // So that ours can be preloaded as well as its peers.
            Some(known) if known.library().is_none() && name != SYSTEM => known.source = source,
            Some(_) => {
                let sentence = format!("--preload: there is an allocator {name} already");
                return Err(Failure::usage(sentence));
            }
            None => all.push(Allocator {
                name: name.clone(),
                source,
            }),
        }
    }
    let mut names = args.allocators.clone();
    // Lock shares are of ours, whichever peers are chosen.
    if args.lock_share && !names.is_empty() && all.iter().any(|it| it.name == OURS) {
        names.push(OURS.to_owned());
    }
    select(all, &names, |it| &it.name)
        .map_err(|name| Failure::usage(format!("--allocators: there is no allocator {name}")))
}

/// Ours with clocks in its locks.
pub fn with_clocks(args: &Args) -> Result<Allocator, Failure> {
    let source = match &args.workers {
        None => Source::Built(&LOCK_SHARE),
        Some(directory) => {
            let path = directory.join(LOCK_SHARE.name);
            let found = path.canonicalize();
            Source::Ready(found.map_err(|error| Failure::of_file(&path, &error))?)
        }
    };
    Ok(Allocator {
        name: LOCK_SHARE.name.to_owned(),
        source,
    })
}

/// Under commands only these two are known.
fn of_commands() -> Vec<Allocator> {
    let known = |name| KNOWN.iter().find(|known| known.name == name);
    [SYSTEM, OURS]
        .into_iter()
        .filter_map(known)
        .map(|known| Allocator {
            name: known.name.to_owned(),
            source: Source::Built(known),
        })
        .collect()
}

/// The programs of a directory: the known ones first, then the others by name.
fn ready(directory: &Path) -> Result<Vec<Allocator>, Failure> {
    let of_directory = |error| Failure::of_file(directory, &error);
    let directory = directory.canonicalize().map_err(of_directory)?;
    let mut found = Vec::new();
    for entry in fs::read_dir(&directory).map_err(of_directory)? {
        let path = entry.map_err(of_directory)?.path();
        let is_program = fs::metadata(&path)
            .is_ok_and(|data| data.is_file() && data.permissions().mode() & 0o111 != 0);
        let name = path.file_name().and_then(|name| name.to_str());
        let is_worker = |name: &&str| !name.contains(".so") && *name != LOCK_SHARE.name;
        if let Some(name) = name.filter(is_worker).filter(|_| is_program) {
            found.push(Allocator {
                name: name.to_owned(),
                source: Source::Ready(path.clone()),
            });
        }
    }
    if found.is_empty() {
        let sentence = format!("--workers: there is no program in {}", directory.display());
        return Err(Failure::usage(sentence));
    }
    let place = |name: &str| KNOWN.iter().position(|known| known.name == name);
    found.sort_by_cached_key(|it| (place(&it.name).unwrap_or(KNOWN.len()), it.name.clone()));
    Ok(found)
}
