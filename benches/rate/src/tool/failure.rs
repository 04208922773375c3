//! What ends the tool before its work is done: one sentence on standard error, and an exit status.

use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

#[derive(Debug)]
pub struct Failure {
    status: u8,
    sentence: String,
}

impl Failure {
    /// The tool cannot do what it was asked for.
    pub fn new(sentence: impl Into<String>) -> Self {
        Self {
            status: 1,
            sentence: sentence.into(),
        }
    }

    /// The command line asks for what there is not.
    pub fn usage(sentence: impl Into<String>) -> Self {
        Self {
            status: 2,
            sentence: sentence.into(),
        }
    }

    /// An operation on a file failed.
    pub fn of_file(path: &Path, error: &io::Error) -> Self {
        Self::new(format!("{}: {}", path.display(), reason(error)))
    }

    /// This process was asked to end by a signal.
    pub fn signal(signal: i32) -> Self {
        Self {
            status: u8::try_from(128 + signal).unwrap_or(u8::MAX),
            sentence: format!("ended by signal {signal}"),
        }
    }

    /// Writes the sentence; returns the exit status.
    pub fn tell(&self) -> ExitCode {
        complain(&self.sentence);
        ExitCode::from(self.status)
    }
}

/// Writes `spanmalloc-rate: ` and a sentence to standard error; there is nobody to tell if that
/// fails.
pub fn complain(sentence: &str) {
    let _ = writeln!(io::stderr(), "spanmalloc-rate: {sentence}");
}

/// The system's text for an error, without the number that std appends.
pub fn reason(error: &io::Error) -> String {
    let text = error.to_string();
    match text.rfind(" (os error ") {
        Some(end) if error.raw_os_error().is_some() => text[..end].to_owned(),
        _ => text,
    }
}
