//! Builds the programs and the libraries that are preloaded under them.
//!
//! Everything lies below the directory `misuse` of the workspace's target directory: a target directory
//! of cargo's own for each allocator below `rust/` and `preload/`, as the files have the same names
//! with other features; `c/`; and `logs/`, which has what cargo and the compilers said.

use std::cell::OnceCell;
use std::env;
use std::ffi::OsString;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{self, Command, Stdio};

use serde_json::Value;

use crate::allocators::{OURS, Source};

/// What the compiler must not do is to reason about malloc and free.
const FLAGS: [&str; 5] = ["-O1", "-fno-builtin", "-Wall", "-Wextra", "-pthread"];

/// The workspace, and what was built of it.
pub struct Workspace {
    metadata: Value,
    target: PathBuf,
    programs: OnceCell<Result<PathBuf, String>>,
}

impl Workspace {
    /// Asks cargo what there is.
    pub fn find() -> Result<Self, String> {
        let mut command = Command::new(cargo());
        command
            .args(["metadata", "--all-features", "--format-version", "1"])
            .arg("--manifest-path")
            .arg(manifest());
        let output = command.stdin(Stdio::null()).output();
        let output = output.map_err(|error| format!("cargo metadata: {error}"))?;
        let metadata: Option<Value> = serde_json::from_slice(&output.stdout).ok();
        let target = metadata
            .as_ref()
            .and_then(|it| it["target_directory"].as_str());
        match (target.map(|it| Path::new(it).join("misuse")), metadata) {
            (Some(target), Some(metadata)) => Ok(Self {
                metadata,
                target,
                programs: OnceCell::new(),
            }),
            _ => Err(format!(
                "cargo metadata: {}",
                first_error(&String::from_utf8_lossy(&output.stderr))
            )),
        }
    }

    /// Whether spanmalloc has such a feature.
    pub fn has_feature(&self, feature: &str) -> bool {
        let package = self.package(OURS);
        package.is_some_and(|it| it["features"].get(feature).is_some())
    }

    fn package(&self, name: &str) -> Option<&Value> {
        let mut all = self.metadata["packages"].as_array()?.iter();
        all.find(|it| it["name"] == name)
    }

    /// The programs in C.
    pub fn programs(&self) -> Result<PathBuf, String> {
        let build = || {
            let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("programs");
            let mut sources: Vec<_> = fs::read_dir(&directory)
                .map_err(|error| format!("{}: {error}", directory.display()))?
                .filter_map(|entry| Some(entry.ok()?.path()))
                .filter(|path| path.extension().is_some_and(|it| it == "c"))
                .collect();
            sources.sort();
            let mut command = Command::new(compiler());
            command.args(FLAGS).args(sources).arg("-ldl");
            self.compile(command, "misuse-c")
        };
        self.programs.get_or_init(build).clone()
    }

    /// A library of C source that a package has.
    pub fn of_source(&self, source: &Source, name: &str) -> Result<PathBuf, String> {
        let manifest = self
            .package(source.package)
            .and_then(|it| it["manifest_path"].as_str());
        let directory = manifest.and_then(|it| Path::new(it).parent());
        let directory =
            directory.ok_or_else(|| format!("there is no package {}", source.package))?;
        let mut command = Command::new(compiler());
        command
            .args(["-O2", "-fPIC", "-shared", "-fvisibility=hidden", "-w"])
            .args(source.flags.concat())
            .args(source.includes.iter().map(|path| {
                let mut flag = OsString::from("-I");
                flag.push(directory.join(path));
                flag
            }))
            .args(source.files.iter().map(|path| directory.join(path)))
            .arg("-pthread");
        self.compile(command, &format!("lib{name}.so"))
    }

    /// Has a C compiler make a file. It gets its name when it is whole, as another instance of the
    /// tool may be using it.
    fn compile(&self, mut command: Command, name: &str) -> Result<PathBuf, String> {
        let built = self.place("c", name)?;
        let unfinished = self.place("c", &format!("{name}.{}", process::id()))?;
        self.run(command.arg("-o").arg(&unfinished), name)?;
        fs::rename(&unfinished, &built).map_err(|error| format!("{}: {error}", built.display()))?;
        Ok(built)
    }

    /// The programs in Rust, with features of this crate or of spanmalloc.
    pub fn rust_program(&self, features: &str, name: &str) -> Result<PathBuf, String> {
        let package = ["-p", "spanmalloc-misuse", "--bin", "misuse-program"];
        let options = ["--no-default-features", "--features", features];
        let target = self.cargo(&[&package[..], &options].concat(), "rust", name)?;
        Ok(target.join("misuse-program"))
    }

    /// spanmalloc's preload library.
    pub fn spanmalloc(&self, features: &str, name: &str) -> Result<PathBuf, String> {
        let options = ["-p", OURS, "--lib", "--features", features];
        let target = self.cargo(&options, "preload", name)?;
        Ok(target.join(format!("lib{OURS}.so")))
    }

    /// Has cargo build; returns the directory that the files are in.
    fn cargo(&self, options: &[&str], kind: &str, name: &str) -> Result<PathBuf, String> {
        let target = self.target.join(kind).join(name);
        let mut command = Command::new(cargo());
        command
            .args(["build", "--release"])
            .args(options)
            .arg("--manifest-path")
            .arg(manifest())
            .arg("--target-dir")
            .arg(&target)
            .env("CARGO_TERM_COLOR", "never");
        self.run(&mut command, &format!("{kind}-{name}"))?;
        Ok(target.join("release"))
    }

    /// Where a file is to be, in a directory that is there.
    fn place(&self, kind: &str, name: &str) -> Result<PathBuf, String> {
        let directory = self.target.join(kind);
        fs::create_dir_all(&directory)
            .map_err(|error| format!("{}: {error}", directory.display()))?;
        Ok(directory.join(name))
    }

    fn run(&self, command: &mut Command, name: &str) -> Result<(), String> {
        let path = self.place("logs", &format!("{name}.log"))?;
        let log = File::create(&path).and_then(|log| Ok((log.try_clone()?, log)));
        let (stdout, stderr) = log.map_err(|error| format!("{}: {error}", path.display()))?;
        let status = command
            .stdin(Stdio::null())
            .stdout(stdout)
            .stderr(stderr)
            .status();
        let program = command.get_program().to_string_lossy().into_owned();
        let status = status.map_err(|error| format!("{program}: {error}"))?;
        if status.success() {
            return Ok(());
        }
        let log = fs::read(&path).unwrap_or_default();
        let error = first_error(&String::from_utf8_lossy(&log));
        Err(format!("not built: {error} (log: {})", path.display()))
    }
}

fn manifest() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml")
}

/// The cargo that runs this tool, or the one of the path.
fn cargo() -> OsString {
    env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo"))
}

fn compiler() -> OsString {
    env::var_os("CC").unwrap_or_else(|| OsString::from("cc"))
}

/// The first line that tells of an error, or the last line if none does.
fn first_error(log: &str) -> String {
    let mut lines = log.lines().map(str::trim);
    let first = lines.clone().find(|line| line.contains("error"));
    let last = || lines.rfind(|line| !line.is_empty());
    first.or_else(last).unwrap_or("it said nothing").to_owned()
}
