//! What came of a program: from how it ended, and from what it and its allocator wrote.
//!
//! 1. A program that told of harm was not stopped in time, whatever came after.
//! 2. SIGABRT, SIGILL and SIGTRAP are an allocator that ends the process on purpose.
//! 3. A fault is on purpose if it comes with a message, or if it is the misuse itself that faults, at
//!    memory that the allocator made inaccessible. Else the allocator, or the ordinary work, tripped
//!    over what the misuse had left: a crash, which stops the program, but by luck.
//! 4. A program that ran to its end, and whose allocator wrote a line with the address, was reported.

use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

use serde::Serialize;
use spanmalloc_misuse::Family;

/// How far the program was when it was stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub enum Stage {
    /// In the call, or at the access, that is the misuse.
    AtTheMisuse,
    /// In the ordinary work after it, and no harm was seen yet.
    BeforeHarm,
    /// When all was done.
    AtExit,
}

/// From the worst to the best, but for what could not be tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub enum Verdict {
    /// There is no such function, or no such case.
    Absent,
    /// The program itself failed, before it came to the misuse or otherwise.
    Broken,
    Harm,
    /// It did not end by itself.
    Hang,
    Crash,
    /// Nothing came of it.
    NoHarm,
    Reported,
    Caught(Stage),
}

impl Verdict {
    /// Whether the allocator saw it and said so, or stopped the program on purpose.
    pub fn is_seen(self) -> bool {
        matches!(self, Self::Caught(_) | Self::Reported)
    }

    /// In a cell of the table.
    pub fn word(self) -> &'static str {
        match self {
            Self::Absent => "–",
            Self::Broken => "failed",
            Self::Harm => "no",
            Self::Hang => "hangs",
            Self::Crash => "crash",
            Self::NoHarm => "no harm",
            Self::Reported => "reported",
            Self::Caught(Stage::AtTheMisuse) => "caught",
            Self::Caught(Stage::BeforeHarm) => "later",
            Self::Caught(Stage::AtExit) => "at exit",
        }
    }
}

/// One run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    pub verdict: Verdict,
    /// What there is to tell of it: the allocator's first line, the harm, or how it ended.
    pub text: String,
}

/// Judges a run.
pub fn judge(family: Family, status: ExitStatus, stdout: &str, stderr: &str) -> Run {
    let steps = Steps::of(stdout);
    let message = stderr.lines().map(str::trim).find(|it| !it.is_empty());
    let ended = match status.signal() {
        Some(signal) => format!("signal {signal}"),
        None => format!("exit {}", status.code().unwrap_or(-1)),
    };
    let told = |verdict| Run {
        verdict,
        text: message.map_or(ended.clone(), str::to_owned),
    };
    if let Some(why) = steps.absent {
        return Run {
            verdict: Verdict::Absent,
            text: why.to_owned(),
        };
    }
    let Some(address) = steps.address else {
        return told(Verdict::Broken);
    };
    if let Some(harm) = steps.harm {
        return Run {
            verdict: Verdict::Harm,
            text: harm.to_owned(),
        };
    }
    match (status.signal(), status.code()) {
        (Some(libc::SIGABRT | libc::SIGILL | libc::SIGTRAP), _) => {
            told(Verdict::Caught(steps.stage))
        }
        (Some(libc::SIGSEGV | libc::SIGBUS), _) => {
            let is_access = family.is_access() && steps.stage == Stage::AtTheMisuse;
            told(if is_access || message.is_some() {
                Verdict::Caught(steps.stage)
            } else {
                Verdict::Crash
            })
        }
        (Some(libc::SIGALRM), _) => told(Verdict::Hang),
        (None, Some(0)) if steps.stage == Stage::AtExit => {
            told(if stderr.lines().any(|line| names(line, address)) {
                Verdict::Reported
            } else {
                Verdict::NoHarm
            })
        }
        _ => told(Verdict::Broken),
    }
}

/// Whether a line names an address, and not one that begins like it.
fn names(line: &str, address: &str) -> bool {
    line.match_indices(address).any(|(start, _)| {
        let rest = &line[start + address.len()..];
        !rest.starts_with(|it: char| it.is_ascii_hexdigit())
    })
}

/// What a program told of its steps.
struct Steps<'o> {
    absent: Option<&'o str>,
    /// Where the misuse is; none if it did not come that far.
    address: Option<&'o str>,
    harm: Option<&'o str>,
    stage: Stage,
}

impl<'o> Steps<'o> {
    fn of(stdout: &'o str) -> Self {
        let mut steps = Self {
            absent: None,
            address: None,
            harm: None,
            stage: Stage::AtTheMisuse,
        };
        for line in stdout.lines() {
            match line.split_once(' ').unwrap_or((line, "")) {
                ("absent", why) => steps.absent = Some(why),
                ("misuse", address) => steps.address = Some(address),
                ("harm", what) => steps.harm = Some(what),
                ("returned", _) => steps.stage = Stage::BeforeHarm,
                ("end", _) => steps.stage = Stage::AtExit,
                _ => {}
            }
        }
        steps
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The verdict for a signal, or for a number of an exit.
    fn verdict(family: Family, status: Result<i32, i32>, stdout: &str, stderr: &str) -> Verdict {
        let status = match status {
            Ok(code) => code << 8,
            Err(signal) => signal,
        };
        judge(family, ExitStatus::from_raw(status), stdout, stderr).verdict
    }

    const MISUSE: &str = "misuse 0x10\n";
    const RETURNED: &str = "misuse 0x10\nreturned\n";
    const END: &str = "misuse 0x10\nreturned\nend\n";
    const HARM: &str = "misuse 0x10\nreturned\nharm two alike\n";

    #[test]
    fn an_abort_is_on_purpose_and_its_stage_is_told() {
        for (stdout, stage) in [
            (MISUSE, Stage::AtTheMisuse),
            (RETURNED, Stage::BeforeHarm),
            (END, Stage::AtExit),
        ] {
            for signal in [libc::SIGABRT, libc::SIGILL, libc::SIGTRAP] {
                let it = verdict(Family::DoubleFree, Err(signal), stdout, "");
                assert_eq!(it, Verdict::Caught(stage));
            }
        }
    }

    #[test]
    fn after_harm_it_is_too_late() {
        for status in [Ok(0), Err(libc::SIGABRT), Err(libc::SIGSEGV)] {
            let it = verdict(Family::Stale, status, HARM, "double free of 0x10");
            assert_eq!(it, Verdict::Harm);
        }
    }

    #[test]
    fn a_fault_is_a_crash_unless_it_is_meant() {
        let fault = |family, stdout, stderr| verdict(family, Err(libc::SIGSEGV), stdout, stderr);
        let caught = Verdict::Caught(Stage::AtTheMisuse);
        assert_eq!(fault(Family::InvalidFree, MISUSE, ""), Verdict::Crash);
        assert_eq!(fault(Family::Overflow, MISUSE, ""), caught);
        assert_eq!(fault(Family::Stale, RETURNED, ""), Verdict::Crash);
        assert_eq!(fault(Family::InvalidFree, MISUSE, "bad pointer\n"), caught);
    }

    #[test]
    fn a_line_with_the_address_is_a_report() {
        let end = |stderr| verdict(Family::InvalidFree, Ok(0), END, stderr);
        assert_eq!(end(""), Verdict::NoHarm);
        assert_eq!(end("free of 0x10\n"), Verdict::Reported);
        assert_eq!(end("free of 0x10, once\n"), Verdict::Reported);
        assert_eq!(end("free of 0x100\n"), Verdict::NoHarm);
        assert_eq!(end("something else\n"), Verdict::NoHarm);
    }

    #[test]
    fn what_was_not_tried_is_nothing_caught() {
        let family = Family::SizedFree;
        let abort = Err(libc::SIGABRT);
        assert_eq!(verdict(family, abort, "", ""), Verdict::Broken);
        assert_eq!(verdict(family, Ok(0), RETURNED, ""), Verdict::Broken);
        assert_eq!(verdict(family, Ok(3), MISUSE, ""), Verdict::Broken);
        let absent = verdict(family, Ok(0), "absent no such function\n", "");
        assert_eq!(absent, Verdict::Absent);
        let hanging = verdict(family, Err(libc::SIGALRM), MISUSE, "");
        assert_eq!(hanging, Verdict::Hang);
    }
}
