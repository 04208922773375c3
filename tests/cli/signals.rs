//! Signals: what reaches the program, and what it inherits.

use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdout, ExitStatus};

use super::*;

/// Forwarded signals as the shell names them.
const FORWARDED: [(&str, i32); 7] = [
    ("HUP", libc::SIGHUP),
    ("TERM", libc::SIGTERM),
    ("USR1", libc::SIGUSR1),
    ("USR2", libc::SIGUSR2),
    ("ALRM", libc::SIGALRM),
    ("CONT", libc::SIGCONT),
    ("WINCH", libc::SIGWINCH),
];

/// The tool with a shell in it that waits for one signal, in a process group of their own.
struct Waiting {
    tool: Child,
    output: BufReader<ChildStdout>,
}

impl Waiting {
    /// Returns when the shell has its trap, by which it tells the signal and exits with 7.
    fn new(signal: &str) -> Self {
        let script = format!(
            "trap 'kill -KILL $!; echo got {signal}; exit 7' {signal}; sleep 60 >/dev/null 2>&1 & \
             echo ready; wait"
        );
        let mut command = tool_on("run", &["--quiet"], &["sh", "-c", &script]);
        command.stdout(Stdio::piped()).process_group(0);
        usual_signals(&mut command);
        let mut tool = command.spawn().unwrap();
        let mut output = BufReader::new(tool.stdout.take().unwrap());
        let mut line = String::new();
        output.read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n");
        Self { tool, output }
    }

    fn pid(&self) -> i32 {
        i32::try_from(self.tool.id()).unwrap()
    }

    /// The rest of the output, and how the tool ended.
    fn end(mut self) -> (String, ExitStatus) {
        let mut rest = String::new();
        self.output.read_to_string(&mut rest).unwrap();
        (rest, self.tool.wait().unwrap())
    }
}

/// A shell cannot trap what was ignored when it was started, and these tests may be run so.
fn usual_signals(command: &mut Command) {
    // SAFETY: signal is async-signal-safe, and the closure calls nothing else.
    unsafe {
        command.pre_exec(|| {
            for signal in FORWARDED.map(|(_, number)| number) {
                libc::signal(signal, libc::SIG_DFL);
            }
            libc::signal(libc::SIGINT, libc::SIG_DFL);
            libc::signal(libc::SIGQUIT, libc::SIG_DFL);
            Ok(())
        })
    };
}

fn kill(pid: i32, signal: i32) {
    // SAFETY: kill takes numbers only; they are those of this test's own, living children.
    assert_eq!(unsafe { libc::kill(pid, signal) }, 0);
}

#[test]
fn signals_to_the_tool_reach_the_program() {
    for (name, number) in FORWARDED {
        let waiting = Waiting::new(name);
        kill(waiting.pid(), number);
        let (output, status) = waiting.end();
        assert_eq!(output, format!("got {name}\n"));
        assert_eq!(status.code(), Some(7), "{name}");
    }
}

#[test]
fn the_keyboards_signals_leave_the_tool_to_the_program() {
    for (name, number) in [("INT", libc::SIGINT), ("QUIT", libc::SIGQUIT)] {
        let waiting = Waiting::new(name);
        // As the terminal does it: to the whole group.
        kill(-waiting.pid(), number);
        let (output, status) = waiting.end();
        assert_eq!(output, format!("got {name}\n"));
        assert_eq!(status.code(), Some(7), "{name}");
    }
}

#[test]
fn signals_do_not_end_the_tool_before_the_program() {
    let waiting = Waiting::new("TERM");
    kill(waiting.pid(), libc::SIGINT);
    kill(waiting.pid(), libc::SIGQUIT);
    kill(waiting.pid(), libc::SIGTERM);
    let (output, status) = waiting.end();
    assert_eq!(output, "got TERM\n");
    assert_eq!(status.code(), Some(7));
}

/// The lines of a process's status that tell its mask and what it ignores.
const SIGNAL_STATE: [&str; 3] = ["grep", "^Sig[BI]", "/proc/self/status"];

#[test]
fn the_program_inherits_the_mask_and_what_is_ignored() {
    let changed = |mut command: Command| {
        // SAFETY: all functions called are async-signal-safe; the set is made by sigemptyset before
        // it is used, and all pointers are valid or null where that is allowed.
        unsafe {
            command.pre_exec(|| {
                let mut set = std::mem::zeroed();
                libc::sigemptyset(&mut set);
                libc::sigaddset(&mut set, libc::SIGUSR2);
                libc::sigaddset(&mut set, libc::SIGTERM);
                libc::sigprocmask(libc::SIG_BLOCK, &set, std::ptr::null_mut());
                libc::signal(libc::SIGHUP, libc::SIG_IGN);
                libc::signal(libc::SIGINT, libc::SIG_IGN);
                libc::signal(libc::SIGCHLD, libc::SIG_IGN);
                Ok(())
            })
        };
        stdout(&command.output().unwrap())
    };
    let mut direct = Command::new(SIGNAL_STATE[0]);
    direct.args(&SIGNAL_STATE[1..]);
    let expected = changed(direct);
    assert_eq!(expected.lines().count(), 2, "{expected}");
    let through = changed(tool_on("run", &["--quiet"], &SIGNAL_STATE));
    assert_eq!(through, expected);
}

#[test]
fn the_exit_code_is_known_though_children_are_ignored() {
    let mut command = tool_on("run", &["--quiet"], &["sh", "-c", "exit 3"]);
    // SAFETY: signal is async-signal-safe, and the closure calls nothing else.
    unsafe {
        command.pre_exec(|| {
            libc::signal(libc::SIGCHLD, libc::SIG_IGN);
            Ok(())
        })
    };
    assert_eq!(command.status().unwrap().code(), Some(3));
}
