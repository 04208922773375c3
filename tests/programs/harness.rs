//! Scenarios that run twice: on the system's malloc, and with the library preloaded.
//!
//! A scenario starts programs on a [`Stage`] and returns what they said. [`both`] runs it on one
//! stage after the other, in a fresh directory of the same path, and compares the two. No program
//! may fail, take longer than [`LIMIT`], or be told of a misuse by the library.

use std::env;
use std::fs::{self, File, OpenOptions};
use std::io::ErrorKind;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{self, Command, ExitStatus, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::Duration;

/// How long a program may run. Most take less than two seconds.
const LIMIT: Duration = Duration::from_secs(120);

/// How long a server may take to stop, and a killed program to be gone.
const STOP_LIMIT: Duration = Duration::from_secs(60);

/// Tries to reach a server, and the pause between two.
const TRIES: u32 = 6000;
const PAUSE: Duration = Duration::from_millis(20);

/// Makes a missing program a failure.
const ALL_PROGRAMS: &str = "SPANMALLOC_TEST_ALL_PROGRAMS";

/// Folders of system programs that are not in every user's PATH.
const SYSTEM_FOLDERS: &str = "/usr/local/sbin:/usr/sbin:/sbin";

/// What programs get of this process's environment.
const INHERITED: [&str; 8] = [
    "PATH",
    "HOME",
    "USER",
    "CARGO_HOME",
    "RUSTUP_HOME",
    "RUSTUP_TOOLCHAIN",
    "PYENV_VERSION",
    "JAVA_HOME",
];

/// Where a program is, by PATH. Without it the test is to be skipped, or fails if the environment
/// says that all must be there.
pub fn program(name: &str) -> Option<PathBuf> {
    let path = env::var("PATH").unwrap_or_default() + ":" + SYSTEM_FOLDERS;
    program_in(name, env::split_paths(&path))
}

/// Where a program is, by these folders; see [`program`].
pub fn program_in(name: &str, mut folders: impl Iterator<Item = PathBuf>) -> Option<PathBuf> {
    let found = folders.find_map(|folder| {
        let path = folder.join(name);
        let mode = path.metadata().ok().filter(|data| data.is_file())?;
        (mode.permissions().mode() & 0o111 != 0).then_some(path)
    });
    if found.is_none() {
        assert!(env::var_os(ALL_PROGRAMS).is_none(), "`{name}` is missing");
        eprintln!("skipped, because `{name}` is missing");
    }
    found
}

/// Whether this process may do everything.
pub fn is_root() -> bool {
    // SAFETY: the call has no preconditions.
    unsafe { libc::geteuid() == 0 }
}

/// A user who is not root, for programs that refuse to be.
#[derive(Clone, Copy)]
struct User {
    uid: u32,
    gid: u32,
}

impl User {
    /// The first of these users that the system has.
    fn find(names: &[&str]) -> Option<Self> {
        let passwd = fs::read_to_string("/etc/passwd").ok()?;
        names.iter().find_map(|name| {
            let mut lines = passwd.lines().map(|line| line.split(':'));
            let mut fields = lines.find(|fields| fields.clone().next() == Some(name))?;
            let uid = fields.nth(2)?.parse().ok()?;
            let gid = fields.next()?.parse().ok()?;
            Some(Self { uid, gid })
        })
    }
}

/// A fresh directory, which goes with the value.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let base = env::temp_dir();
        loop {
            let number = NEXT.fetch_add(1, Ordering::Relaxed);
            let path = base.join(format!("spanmalloc-{}-{number}", process::id()));
            match fs::create_dir(&path) {
                Ok(()) => return Self(path),
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                Err(error) => panic!("{}: {error}", path.display()),
            }
        }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Runs a scenario on both mallocs, ours in secure mode as well, and compares what it returns.
pub fn both(scenario: impl Fn(&Stage) -> Vec<u8>) {
    run_both(None, scenario);
}

/// Like [`both`]; if this process is root, the programs run as a user who is not.
pub fn both_unprivileged(scenario: impl Fn(&Stage) -> Vec<u8>) {
    let user = is_root().then(|| User::find(&["postgres", "nobody"]).unwrap());
    run_both(user, scenario);
}

fn run_both(user: Option<User>, scenario: impl Fn(&Stage) -> Vec<u8>) {
    let scratch = Scratch::new();
    // A copy, because not every user may look into the build directory.
    let library = scratch.0.join("libspanmalloc.so");
    let built = env::current_exe()
        .unwrap()
        .with_file_name("libspanmalloc.so");
    fs::copy(&built, &library).unwrap_or_else(|error| panic!("{}: {error}", built.display()));
    let folder = scratch.0.join("run");
    let on_system = scenario(&Stage::new(folder.clone(), None, user));
    assert!(!on_system.is_empty(), "the scenario said nothing");
    for is_secure in [false, true] {
        fs::remove_dir_all(&folder).unwrap();
        let mut stage = Stage::new(folder.clone(), Some(library.clone()), user);
        stage.is_secure = is_secure;
        stage.check_preload();
        assert_same(&on_system, &scenario(&stage));
    }
}

fn assert_same(on_system: &[u8], on_ours: &[u8]) {
    if on_system == on_ours {
        return;
    }
    let pairs = on_system.iter().zip(on_ours);
    let at = pairs.take_while(|(left, right)| left == right).count();
    let around = |text: &[u8]| {
        let range = at.saturating_sub(200).min(text.len())..(at + 200).min(text.len());
        String::from_utf8_lossy(&text[range]).into_owned()
    };
    panic!(
        "the output differs from byte {at} on ({} and {} bytes)\n\
         --- on the system's malloc:\n{}\n--- on ours:\n{}",
        on_system.len(),
        on_ours.len(),
        around(on_system),
        around(on_ours),
    );
}

/// Where a scenario runs: a directory, which is every program's working directory, and a malloc.
pub struct Stage {
    pub folder: PathBuf,
    /// The library to preload; without one, programs run on the system's malloc.
    library: Option<PathBuf>,
    /// Whether the library is in secure mode.
    pub is_secure: bool,
    user: Option<User>,
}

impl Stage {
    fn new(folder: PathBuf, library: Option<PathBuf>, user: Option<User>) -> Self {
        fs::create_dir(&folder).unwrap();
        if let Some(User { uid, gid }) = user {
            chown(&folder, Some(uid), Some(gid)).unwrap();
        }
        Self {
            folder,
            library,
            is_secure: false,
            user,
        }
    }

    /// A command without arguments that runs the program here, in a process group of its own and
    /// without input.
    pub fn command(&self, program: impl AsRef<Path>) -> Command {
        let mut command = Command::new(program.as_ref());
        command.env_clear();
        for name in INHERITED {
            command.envs(env::var_os(name).map(|value| (name, value)));
        }
        command.env("LC_ALL", "C").env("TZ", "UTC");
        command.env("TMPDIR", &self.folder);
        if let Some(library) = &self.library {
            command.env("LD_PRELOAD", library);
        }
        if self.is_secure {
            command.env("SPANMALLOC_SECURE", "1");
        }
        if let Some(User { uid, gid }) = self.user {
            command.env("HOME", &self.folder).uid(uid).gid(gid);
        }
        command.current_dir(&self.folder).process_group(0);
        command.stdin(Stdio::null());
        command
    }

    /// Runs a command, which must succeed in time, and returns its standard output.
    pub fn run(&self, command: &mut Command) -> Vec<u8> {
        let output = self.output(command);
        let stderr = String::from_utf8_lossy(&output.stderr);
        let is_fine = output.status.success() && !tells_misuse(&stderr);
        assert!(
            is_fine,
            "{command:?}\n{}\n--- stdout:\n{}\n--- stderr:\n{}",
            output.status,
            tail(&String::from_utf8_lossy(&output.stdout)),
            tail(&stderr),
        );
        output.stdout
    }

    fn output(&self, command: &mut Command) -> Output {
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let child = command
            .spawn()
            .unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let pid = child.id();
        let (sender, receiver) = mpsc::channel();
        thread::spawn(move || sender.send(child.wait_with_output()));
        if let Ok(output) = receiver.recv_timeout(LIMIT) {
            return output.unwrap();
        }
        signal_group(pid, libc::SIGKILL);
        let rest = receiver.recv_timeout(STOP_LIMIT).ok().and_then(Result::ok);
        let stderr = rest.map_or_else(Vec::new, |output| output.stderr);
        let stderr = String::from_utf8_lossy(&stderr);
        panic!("{command:?}\ntook longer than {LIMIT:?}: {}", tail(&stderr));
    }

    /// Makes sure that programs here have the library, and that it serves them.
    fn check_preload(&self) {
        let library = self.library.as_ref().unwrap().display().to_string();
        let mut command = self.command("cat");
        command.arg("/proc/self/maps").env("LD_DEBUG", "bindings");
        let output = self.output(&mut command);
        let maps = String::from_utf8_lossy(&output.stdout);
        assert!(maps.contains(&library), "{library} is not in\n{maps}");
        let bindings = String::from_utf8_lossy(&output.stderr);
        for name in ["malloc", "free"] {
            let bound = format!("to {library} [0]: normal symbol `{name}'");
            assert!(
                bindings.contains(&bound),
                "the library has no `{name}`: was a build without the feature `preload` the last?"
            );
        }
    }

    /// Starts a server; its output goes to the file `server.log`. The signal stops it.
    pub fn serve(&self, command: &mut Command, stop_signal: i32) -> Server {
        let log = self.folder.join("server.log");
        let file = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&log)
            .unwrap();
        command.stdout(file.try_clone().unwrap()).stderr(file);
        let mut child = command
            .spawn()
            .unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let pid = child.id();
        let (sender, ended) = mpsc::channel();
        thread::spawn(move || sender.send(child.wait().unwrap()));
        Server {
            pid,
            ended,
            has_ended: false,
            stop_signal,
            log,
            library: self.library.clone(),
        }
    }

    pub fn write(&self, name: &str, contents: impl AsRef<[u8]>) {
        let path = self.folder.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, contents).unwrap();
    }

    pub fn read(&self, name: &str) -> Vec<u8> {
        fs::read(self.folder.join(name)).unwrap()
    }

    pub fn open(&self, name: &str) -> File {
        File::open(self.folder.join(name)).unwrap()
    }
}

/// A running server, which is stopped at the latest when the value goes.
pub struct Server {
    pid: u32,
    ended: Receiver<ExitStatus>,
    has_ended: bool,
    stop_signal: i32,
    log: PathBuf,
    library: Option<PathBuf>,
}

impl Server {
    /// Waits until `try_connect` holds. False if the server ended before, as one does whose port
    /// is taken.
    pub fn is_up(&mut self, mut try_connect: impl FnMut() -> bool) -> bool {
        for _ in 0..TRIES {
            if self.ended.try_recv().is_ok() {
                self.has_ended = true;
                return false;
            }
            if try_connect() {
                self.check_preload();
                return true;
            }
            thread::sleep(PAUSE);
        }
        panic!("cannot be reached\n{}", self.log());
    }

    fn check_preload(&self) {
        let maps = fs::read_to_string(format!("/proc/{}/maps", self.pid)).unwrap();
        assert_eq!(maps.contains("libspanmalloc"), self.library.is_some());
    }

    /// What the server has said.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap()
    }

    /// Stops the server, which must succeed in time.
    pub fn stop(mut self) {
        signal(self.pid, self.stop_signal);
        let ended = self.ended.recv_timeout(STOP_LIMIT);
        self.has_ended = ended.is_ok();
        let log = self.log();
        let is_fine = ended.is_ok_and(|status| status.success()) && !tells_misuse(&log);
        assert!(is_fine, "the server ended with {ended:?}\n{}", tail(&log));
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if self.has_ended || self.ended.try_recv().is_ok() {
            return;
        }
        // Some have children in other groups, which they stop.
        signal(self.pid, self.stop_signal);
        if self.ended.recv_timeout(STOP_LIMIT).is_err() {
            signal_group(self.pid, libc::SIGKILL);
            let _ = self.ended.recv_timeout(STOP_LIMIT);
        }
    }
}

/// Whether the library ended a process for a misuse.
fn tells_misuse(stderr: &str) -> bool {
    stderr.lines().any(|line| line.starts_with("spanmalloc: "))
}

/// The end of a long text.
fn tail(text: &str) -> &str {
    let mut start = text.len().saturating_sub(4000);
    while !text.is_char_boundary(start) {
        start += 1;
    }
    &text[start..]
}

fn signal(pid: u32, signal: i32) {
    // SAFETY: the call touches no memory.
    unsafe { libc::kill(pid.cast_signed(), signal) };
}

/// Signals a program and what it started, unless that made groups of its own.
fn signal_group(pid: u32, signal: i32) {
    // SAFETY: the call touches no memory.
    unsafe { libc::kill(-pid.cast_signed(), signal) };
}
