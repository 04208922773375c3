//! What ends the tool before its work is done: one sentence on standard error, and an exit code.

use std::ffi::OsStr;
use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

/// The exit code if the tool itself fails, usage errors included.
pub(crate) const TOOL_FAILED: u8 = 125;
/// The exit code if the program is there but cannot be executed.
const CANNOT_EXECUTE: u8 = 126;
/// The exit code if the program is not found.
const NOT_FOUND: u8 = 127;

#[derive(Debug)]
pub(crate) struct Failure {
    code: u8,
    sentence: String,
}

impl Failure {
    /// The tool cannot do what it was asked for.
    pub(crate) fn new(sentence: impl Into<String>) -> Self {
        Self {
            code: TOOL_FAILED,
            sentence: sentence.into(),
        }
    }

    /// An operation of the tool on a file failed.
    pub(crate) fn of_file(path: &Path, error: &io::Error) -> Self {
        Self::new(format!("{}: {}", path.display(), reason(error)))
    }

    /// The program could not be started.
    pub(crate) fn of_program(program: &OsStr, error: &io::Error) -> Self {
        let code = match error.kind() {
            io::ErrorKind::NotFound => NOT_FOUND,
            _ => CANNOT_EXECUTE,
        };
        Self {
            code,
            sentence: format!("{}: {}", program.display(), reason(error)),
        }
    }

    /// Writes the sentence; returns the exit code.
    pub(crate) fn tell(&self) -> ExitCode {
        complain(&self.sentence);
        ExitCode::from(self.code)
    }

    #[cfg(test)]
    pub(crate) fn sentence(&self) -> &str {
        &self.sentence
    }
}

/// Writes `spanmalloc: ` and a sentence to standard error; there is nobody to tell if that fails.
pub(crate) fn complain(sentence: &str) {
    let _ = writeln!(io::stderr(), "spanmalloc: {sentence}");
}

/// The system's text for an error, without the number that std appends.
pub(crate) fn reason(error: &io::Error) -> String {
    let text = error.to_string();
    match text.rfind(" (os error ") {
        Some(end) if error.raw_os_error().is_some() => text[..end].to_string(),
        _ => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reason_has_no_number() {
        let error = io::Error::from_raw_os_error(libc::ENOENT);
        assert_eq!(reason(&error), "No such file or directory");
        assert_eq!(reason(&io::Error::other("odd")), "odd");
    }

    #[test]
    fn a_missing_program_is_told_from_one_that_cannot_be_executed() {
        for (number, code) in [
            (libc::ENOENT, 127),
            (libc::EACCES, 126),
            (libc::ENOEXEC, 126),
        ] {
            let error = io::Error::from_raw_os_error(number);
            assert_eq!(Failure::of_program(OsStr::new("x"), &error).code, code);
        }
    }
}
