//! The live view: `top`, and `run --watch`.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read};
use std::os::fd::{FromRawFd, OwnedFd};
use std::process::Child;
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use super::*;

/// A program that allocates, prints something, and waits for the file `stop`.
const PROGRAM: [&str; 3] = [
    "bash",
    "-c",
    "for i in {1..2000}; do a[i]=$i$i$i; done; echo printed; echo told >&2; \
     until [ -e stop ]; do sleep 0.02; done; echo over; exit 7",
];

/// The time for what has to happen.
const DEADLINE: Duration = Duration::from_secs(120);

#[test]
fn without_a_terminal_there_is_a_line_a_second() {
    let directory = tempfile::tempdir().unwrap();
    let mut tool = tool_on("top", &[], &PROGRAM);
    tool.current_dir(&directory)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let start = Instant::now();
    let mut tool = tool.spawn().unwrap();
    let mut lines = BufReader::new(tool.stderr.take().unwrap()).lines();
    // When the first lines come, the program may not have begun, nor the library have published anything.
    let (mut is_told, mut own, mut whole) = (false, 0, 0);
    while !is_told || whole < 2 {
        let line = lines.next().unwrap().unwrap();
        if line == "told" {
            is_told = true;
            continue;
        }
        own += 1;
        assert!(start.elapsed() >= Duration::from_secs(own));
        assert!(start.elapsed() < DEADLINE, "{line}");
        assert!(line.starts_with("spanmalloc: "), "{line}");
        assert!(line.contains("s: RSS "), "{line}");
        let figures = [" live ", " objects, backed ", ", threads 1", "/s, frees "];
        whole += u64::from(figures.iter().all(|part| line.contains(part)));
    }
    fs::write(directory.path().join("stop"), "").unwrap();
    let output = tool.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(7));
    assert_eq!(stdout(&output), "printed\nover\n");
}

#[test]
fn watched_run_ends_with_the_report_and_output_goes_to_a_file() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("stop"), "").unwrap();
    let mut tool = tool_on("run", &["--watch", "--output", "log"], &PROGRAM);
    let output = tool.current_dir(&directory).output().unwrap();
    assert_eq!(output.status.code(), Some(7));
    assert_eq!(stdout(&output), "");
    assert!(
        stderr(&output).contains("\nallocations "),
        "{}",
        stderr(&output)
    );
    let log = fs::read_to_string(directory.path().join("log")).unwrap();
    assert_eq!(log, "printed\ntold\nover\n");

    let alone = tool_on("run", &["--output", "log"], &["true"])
        .output()
        .unwrap();
    assert_eq!(alone.status.code(), Some(125));
}

#[test]
fn program_without_the_library_is_shown_without_its_figures() {
    // The fake library publishes nothing.
    let output = tool_on_fake("top", &[], &["true"]).output().unwrap();
    assert!(output.status.success());
    let text = stderr(&output);
    assert!(
        text.starts_with("spanmalloc: ") && text.contains(": RSS "),
        "{text}"
    );
    assert_eq!(text.lines().count(), 1, "{text}");
}

#[test]
fn program_that_is_not_found_gives_127() {
    let output = tool_on("top", &[], &["no-such-program"]).output().unwrap();
    assert_eq!(output.status.code(), Some(127));
}

/// The tool on a terminal.
struct Terminal {
    tool: Child,
    keys: File,
    screen: Receiver<Vec<u8>>,
    seen: String,
}

impl Terminal {
    fn new(mut tool: Command) -> Self {
        let (mut ours, mut theirs) = (0, 0);
        let size = libc::winsize {
            ws_row: 30,
            ws_col: 100,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        // SAFETY: the first two are valid for writes, the size for reads, and null is allowed for the others.
        let opened = unsafe {
            let none = std::ptr::null_mut();
            libc::openpty(&mut ours, &mut theirs, none, std::ptr::null(), &size)
        };
        assert_eq!(opened, 0);
        // SAFETY: opened just now, and nobody else has them.
        let (ours, theirs) = unsafe { (File::from_raw_fd(ours), OwnedFd::from_raw_fd(theirs)) };
        tool.stdin(theirs.try_clone().unwrap())
            .stdout(theirs.try_clone().unwrap())
            .stderr(theirs)
            .env("TERM", "xterm");
        let child = tool.spawn().unwrap();
        drop(tool); // With its copies of the terminal.
        let mut reader = ours.try_clone().unwrap();
        let (to, screen) = channel();
        thread::spawn(move || {
            let mut piece = [0; 4096];
            // It fails when the last one has closed the terminal.
            while let Ok(read) = reader.read(&mut piece) {
                if to.send(piece[..read].to_vec()).is_err() || read == 0 {
                    break;
                }
            }
        });
        Self {
            tool: child,
            keys: ours,
            screen,
            seen: String::new(),
        }
    }

    /// Waits until a text comes, behind what was waited for before.
    fn wait_for(&mut self, text: &str) {
        let deadline = Instant::now() + DEADLINE;
        while !self.seen.contains(text) {
            let left = deadline.saturating_duration_since(Instant::now());
            let Ok(piece) = self.screen.recv_timeout(left) else {
                let last = self.seen.len().saturating_sub(1000);
                panic!("no {text:?} in {:?}", self.seen.get(last..));
            };
            self.seen.push_str(&String::from_utf8_lossy(&piece));
        }
        let end = self.seen.find(text).unwrap() + text.len();
        self.seen.drain(..end);
    }

    fn press(&mut self, keys: &str) {
        self.keys.write_all(keys.as_bytes()).unwrap();
    }
}

const OPENED: &str = "\x1b[?1049h";
const CLOSED: &str = "\x1b[?1049l";

#[test]
fn view_has_the_terminal_until_it_is_quit_and_the_program_goes_on() {
    let directory = tempfile::tempdir().unwrap();
    let mut tool = tool_on("top", &[], &PROGRAM);
    tool.current_dir(&directory);
    let mut terminal = Terminal::new(tool);
    terminal.wait_for(OPENED);
    terminal.wait_for("where the memory is");
    terminal.wait_for("q quit the view");
    terminal.press("s");
    // Of "live objects"; only the letters that change are written.
    terminal.wait_for("cts)");
    terminal.press("p");
    terminal.wait_for("go on");
    assert!(!terminal.seen.contains("printed"));
    terminal.press("q");
    terminal.wait_for(CLOSED);
    terminal.wait_for("printed\r\ntold\r\n");
    fs::write(directory.path().join("stop"), "").unwrap();
    terminal.wait_for("over\r\n");
    assert_eq!(terminal.tool.wait().unwrap().code(), Some(7));
}

#[test]
fn interrupt_goes_to_the_program_and_its_end_closes_the_view() {
    let script = "trap 'echo interrupted; exit 5' INT; echo > ready; while :; do sleep 0.02; done";
    let directory = tempfile::tempdir().unwrap();
    let mut tool = tool_on("top", &[], &["bash", "-c", script]);
    tool.current_dir(&directory);
    let mut terminal = Terminal::new(tool);
    terminal.wait_for("size classes");
    let deadline = Instant::now() + DEADLINE;
    while !directory.path().join("ready").exists() {
        assert!(Instant::now() < deadline);
        thread::sleep(Duration::from_millis(1));
    }
    terminal.press("\x03");
    terminal.wait_for(CLOSED);
    terminal.wait_for("interrupted\r\n");
    terminal.wait_for(": RSS ");
    assert_eq!(terminal.tool.wait().unwrap().code(), Some(5));
}
