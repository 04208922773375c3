//! Builds what is to be measured, with cargo, each in its own turn.
//!
//! Everything lies below the directory `rate` of the workspace's target directory: cargo's own
//! files, `workers/NAME` (cargo's file has the same name for each allocator, so it is copied), and
//! `logs/NAME.log`, which has what cargo and the compilers said. The preload library has a target
//! directory of its own in there, as its file would have the same name as the library that the
//! worker on spanmalloc depends on, which is built without the feature.

use std::env;
use std::ffi::OsString;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::allocators::{Known, OURS, SYSTEM};
use crate::child::{Children, Stop};
use crate::failure::{Failure, reason};

/// Appended to the flags of the C and the C++ compiler.
const FLAGS: &str = "-O3 -DNDEBUG";

/// What all workers have in common.
const WORKER: [&str; 7] = [
    "build",
    "--release",
    "-p",
    "spanmalloc-rate",
    "--bin",
    "rate-worker",
    "--no-default-features",
];

const LIBRARY: [&str; 6] = [
    "build",
    "--release",
    "-p",
    "spanmalloc",
    "--features",
    "preload",
];

/// The workspace that workers are built from.
pub struct Workspace {
    manifest: PathBuf,
    /// The text of `Cargo.lock`; empty if there is none.
    lock: String,
    /// Where everything goes.
    target: PathBuf,
}

impl Workspace {
    /// Where there is nothing to build, as the workers are ready; cargo need not be there.
    pub fn nowhere() -> Self {
        Self {
            manifest: PathBuf::new(),
            lock: String::new(),
            target: PathBuf::new(),
        }
    }

    /// Asks cargo where its target directory is.
    pub fn find(children: &Children) -> Result<Self, Failure> {
        let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml");
        let mut command = Command::new(cargo());
        command
            .args(["metadata", "--no-deps", "--format-version", "1"])
            .arg("--manifest-path")
            .arg(&manifest)
            .stdin(Stdio::null());
        let (outcome, output) = children.output(&mut command, None).map_err(stopped)?;
        let directory = |metadata: &serde_json::Value, key: &str| {
            metadata.get(key)?.as_str().map(PathBuf::from)
        };
        let metadata = outcome
            .status
            .success()
            .then(|| serde_json::from_slice::<serde_json::Value>(&output.stdout).ok())
            .flatten();
        let (Some(root), Some(target)) = (
            metadata
                .as_ref()
                .and_then(|it| directory(it, "workspace_root")),
            metadata
                .as_ref()
                .and_then(|it| directory(it, "target_directory")),
        ) else {
            let log = String::from_utf8_lossy(&output.stderr);
            return Err(Failure::new(format!(
                "cargo metadata: {}",
                first_error(&log)
            )));
        };
        Ok(Self {
            manifest,
            lock: fs::read_to_string(root.join("Cargo.lock")).unwrap_or_default(),
            target: target.join("rate"),
        })
    }

    /// The command that builds all workers, but for the options of each.
    pub fn command() -> String {
        format!("cargo {}, with {FLAGS} for C and C++", WORKER.join(" "))
    }

    /// What an allocator adds to the command.
    pub fn options(known: &Known) -> Vec<&'static str> {
        match known.from {
            None => vec!["no feature"],
            Some(_) => vec!["--features", known.name],
        }
    }

    /// The version of a package in `Cargo.lock`.
    pub fn version(&self, package: &str) -> &str {
        version(&self.lock, package).unwrap_or("of unknown version")
    }

    /// Builds the worker of an allocator. The inner error is why there is none.
    pub fn worker(
        &self,
        known: &Known,
        children: &Children,
    ) -> Result<Result<PathBuf, String>, Failure> {
        let mut arguments = WORKER.to_vec();
        if known.name != SYSTEM {
            arguments.extend(Self::options(known));
        }
        let built = self.target.join("release/rate-worker");
        self.build(known.name, &arguments, &self.target, &built, children)
    }

    /// Builds the preload library of spanmalloc. The inner error is why there is none.
    pub fn library(&self, children: &Children) -> Result<Result<PathBuf, String>, Failure> {
        let target = self.target.join("preload");
        let built = target.join("release").join(library_name());
        self.build(&library_name(), &LIBRARY, &target, &built, children)
    }

    /// What cargo and the compilers said when a worker or the library was built.
    pub fn log(&self, name: &str) -> PathBuf {
        self.target.join("logs").join(format!("{name}.log"))
    }

    fn build(
        &self,
        name: &str,
        arguments: &[&str],
        target: &Path,
        built: &Path,
        children: &Children,
    ) -> Result<Result<PathBuf, String>, Failure> {
        let log_path = self.log(name);
        let copy = self.target.join("workers").join(name);
        for path in [&log_path, &copy] {
            let directory = path.parent().unwrap_or(path);
            fs::create_dir_all(directory).map_err(|error| Failure::of_file(directory, &error))?;
        }
        let of_log = |error| Failure::of_file(&log_path, &error);
        let log = File::create(&log_path).map_err(of_log)?;
        let mut command = Command::new(cargo());
        command
            .args(arguments)
            .arg("--manifest-path")
            .arg(&self.manifest)
            .arg("--target-dir")
            .arg(target)
            .env("CARGO_TERM_COLOR", "never")
            .stdin(Stdio::null())
            .stdout(log.try_clone().map_err(of_log)?)
            .stderr(log);
        for flags in ["CFLAGS", "CXXFLAGS"] {
            command.env(flags, appended(env::var_os(flags)));
        }
        let outcome = children.run(&mut command, None).map_err(stopped)?;
        if !outcome.status.success() {
            let log = fs::read(&log_path).map_err(of_log)?;
            let error = first_error(&String::from_utf8_lossy(&log));
            return Ok(Err(error));
        }
        // A copy that is running can't be written to, but another file can take its name.
        let _ = fs::remove_file(&copy);
        match fs::copy(built, &copy) {
            Ok(_) => Ok(Ok(copy)),
            Err(error) => Ok(Err(format!("{}: {}", built.display(), reason(&error)))),
        }
    }
}

/// The file name of the preload library.
pub fn library_name() -> String {
    format!("lib{OURS}.so")
}

/// The cargo that runs this tool, or the one of the path.
fn cargo() -> OsString {
    env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo"))
}

fn stopped(stop: Stop) -> Failure {
    match stop {
        Stop::Error(error) => Failure::new(format!("{}: {}", cargo().display(), reason(&error))),
        Stop::Signal(signal) => Failure::signal(signal),
    }
}

fn appended(flags: Option<OsString>) -> OsString {
    match flags {
        None => OsString::from(FLAGS),
        Some(mut flags) => {
            flags.push(" ");
            flags.push(FLAGS);
            flags
        }
    }
}

/// The first line that tells of an error, or the last line if none does.
fn first_error(log: &str) -> String {
    let mut lines = log.lines().map(str::trim);
    let first = lines.clone().find(|line| line.starts_with("error"));
    let last = || lines.rfind(|line| !line.is_empty());
    first.or_else(last).unwrap_or("it said nothing").to_owned()
}

fn version<'l>(lock: &'l str, package: &str) -> Option<&'l str> {
    let name = format!("name = \"{package}\"");
    let mut lines = lock.lines();
    lines.find(|line| *line == name)?;
    lines
        .next()?
        .strip_prefix("version = \"")?
        .strip_suffix('"')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_error_is_found() {
        let log = "   Compiling a v1\nerror: no such thing\nerror: could not compile\n";
        assert_eq!(first_error(log), "error: no such thing");
        assert_eq!(first_error("a\nb\n\n"), "b");
        assert_eq!(first_error(""), "it said nothing");
    }

    #[test]
    fn a_version_is_read_from_the_lock_file() {
        let lock = "[[package]]\nname = \"ab\"\nversion = \"2.0\"\n\n[[package]]\nname = \"a\"\nversion = \"1.0\"\n";
        assert_eq!(version(lock, "a"), Some("1.0"));
        assert_eq!(version(lock, "b"), None);
    }

    #[test]
    fn flags_are_appended() {
        assert_eq!(appended(None), "-O3 -DNDEBUG");
        assert_eq!(appended(Some("-g".into())), "-g -O3 -DNDEBUG");
    }
}
