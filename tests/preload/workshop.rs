//! Compiles the programs and runs them, each in a directory that goes with the test.

use std::collections::HashMap;
use std::env;
use std::fmt;
use std::fs;
use std::io::ErrorKind::ResourceBusy;
use std::path::{Path, PathBuf};
use std::process::{self, Command, ExitStatus};
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

/// Without the compiler's own knowledge of `malloc`, by which it drops and joins allocations.
const FLAGS: &[&str] = &[
    "-O1",
    "-g",
    "-fno-builtin",
    "-Wall",
    "-Wextra",
    "-Wno-use-after-free",
];

/// What is linked, behind the source.
const LIBRARIES: &[&str] = &["-lpthread", "-ldl"];

/// The heap that a program runs on.
#[derive(Clone, Copy)]
pub enum Heap {
    System,
    Ours,
}

/// The library under test, which Cargo builds beside the test.
pub fn library() -> PathBuf {
    let test = env::current_exe().unwrap();
    let library = test.with_file_name("libspanmalloc.so");
    assert!(library.exists(), "there is no {}", library.display());
    library
}

/// The path of a source in this folder.
pub fn source(name: &str) -> PathBuf {
    sources().join(name)
}

fn sources() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/preload")
}

/// A directory for what a test makes.
pub struct Workshop(Rc<Directory>);

struct Directory(PathBuf);

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

impl Workshop {
    pub fn new() -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let name = format!("preload-{}-{}", process::id(), COUNT.fetch_add(1, Relaxed));
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        fs::create_dir_all(&path).unwrap();
        Self(Rc::new(Directory(path)))
    }

    /// Compiles a program from one source.
    pub fn program(&self, source: &str) -> Program {
        Program {
            path: self.compile(source, "program", &[]),
            _directory: Rc::clone(&self.0),
        }
    }

    /// Compiles a shared library from one source, and gives its path.
    pub fn shared(&self, source: &str, name: &str, flags: &[&str]) -> String {
        let flags = [&["-shared", "-fPIC"], flags].concat();
        let path = self.compile(source, &format!("lib{name}.so"), &flags);
        path.to_str().unwrap().to_owned()
    }

    /// The path of a file of this name in the directory.
    pub fn path(&self, name: &str) -> String {
        self.0.0.join(name).to_str().unwrap().to_owned()
    }

    fn compile(&self, source: &str, name: &str, flags: &[&str]) -> PathBuf {
        let result = self.0.0.join(name);
        let (compiler, standard) = match source.ends_with(".cpp") {
            true => ("c++", "-std=c++17"),
            false => ("cc", "-std=gnu11"),
        };
        // By a relative name, which failed checks print.
        let output = Command::new(compiler)
            .current_dir(sources())
            .arg(standard)
            .args(FLAGS)
            .args(flags)
            .arg(source)
            .arg("-o")
            .arg(&result)
            .args(LIBRARIES)
            .env_remove("LD_PRELOAD")
            .output()
            .unwrap_or_else(|error| {
                panic!("these tests need a compiler for C and C++; `{compiler}`: {error}")
            });
        assert!(
            output.status.success(),
            "`{compiler}` does not compile {source}:\n{}",
            String::from_utf8_lossy(&output.stderr)
        );
        result
    }
}

/// A compiled program.
pub struct Program {
    path: PathBuf,
    _directory: Rc<Directory>,
}

impl Program {
    /// A run to come.
    pub fn on(&self, heap: Heap) -> Plan<'_> {
        let mut env = HashMap::new();
        if let Heap::Ours = heap {
            env.insert("LD_PRELOAD", library().to_str().unwrap().to_owned());
        }
        Plan {
            program: self,
            args: Vec::new(),
            env,
            setup: Vec::new(),
        }
    }
}

/// A control group with a limit of memory, below the one of this process; goes when dropped.
pub struct Cgroup(PathBuf);

impl Cgroup {
    /// `None`, and a note, where there can be none: only root may make groups, and this is for version 1.
    pub fn with_mib(mib: u32) -> Option<Self> {
        let group = Self::own().map(|own| Self(own.join(format!("preload-{}", process::id()))));
        let made = group.filter(|group| {
            let limit = (u64::from(mib) << 20).to_string();
            fs::create_dir(&group.0).is_ok()
                && fs::write(group.0.join("memory.limit_in_bytes"), limit).is_ok()
        });
        if made.is_none() {
            eprintln!("skipped: no control group with a limit of memory can be made");
        }
        made
    }

    /// The directory of this process's group.
    fn own() -> Option<PathBuf> {
        let list = fs::read_to_string("/proc/self/cgroup").ok()?;
        let path = list
            .lines()
            .find_map(|line| line.split_once(":memory:/"))?
            .1;
        Some(Path::new("/sys/fs/cgroup/memory").join(path))
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        let start = Instant::now();
        // Processes that ended may be there for a moment.
        while fs::remove_dir(&self.0).is_err_and(|error| error.kind() == ResourceBusy)
            && start.elapsed() < Duration::from_secs(10)
        {
            thread::sleep(Duration::from_millis(20));
        }
    }
}

/// How a program is to be run.
pub struct Plan<'a> {
    program: &'a Program,
    args: Vec<String>,
    env: HashMap<&'static str, String>,
    /// What a shell does before.
    setup: Vec<String>,
}

impl Plan<'_> {
    pub fn args(mut self, args: &[&str]) -> Self {
        self.args.extend(args.iter().map(ToString::to_string));
        self
    }

    pub fn env(mut self, name: &'static str, value: &str) -> Self {
        self.env.insert(name, value.to_owned());
        self
    }

    /// Limits the address space.
    pub fn address_space_mib(mut self, mib: u32) -> Self {
        self.setup.push(format!("ulimit -v {}", mib << 10));
        self
    }

    /// Runs it in this group.
    pub fn cgroup(mut self, group: &Cgroup) -> Self {
        let processes = group.0.join("cgroup.procs");
        self.setup
            .push(format!("echo $$ > '{}'", processes.display()));
        self
    }

    pub fn run(self) -> Run {
        let mut command = Command::new(&self.program.path);
        if !self.setup.is_empty() {
            // The shell has the library and the limits as well.
            let script = format!("{} && exec \"$0\" \"$@\"", self.setup.join(" && "));
            command = Command::new("sh");
            command.arg("-c").arg(script).arg(&self.program.path);
        }
        for (name, _) in env::vars_os() {
            if name.as_encoded_bytes().starts_with(b"SPANMALLOC_") {
                command.env_remove(name);
            }
        }
        let output = command
            .args(&self.args)
            .env_remove("LD_PRELOAD")
            .envs(&self.env)
            .output()
            .unwrap();
        Run {
            status: output.status,
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

/// What came of a run.
pub struct Run {
    pub status: ExitStatus,
    pub stdout: String,
    pub stderr: String,
}

impl Run {
    /// Asserts that the program came to its end, and that no check failed.
    pub fn passed(&self) {
        assert!(self.status.success(), "{self}");
        assert!(self.stdout.contains("end: 0 failures\n"), "{self}");
        assert!(!self.stdout.contains("FAILED"), "{self}");
    }

    /// The value of the first line `name: value`.
    pub fn told(&self, name: &str) -> &str {
        self.stdout
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
            .unwrap_or_else(|| panic!("no {name} is told; {self}"))
    }
}

impl fmt::Display for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            status,
            stdout,
            stderr,
        } = self;
        write!(f, "{status}\n--- output\n{stdout}--- errors\n{stderr}")
    }
}
