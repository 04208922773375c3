//! What the program prints while the view has the terminal: it is kept in a file, and shown afterwards.

use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::failure::{Failure, reason};
use crate::run;

/// Bytes that are read at a time.
const PIECE: usize = 64 << 10;

/// What was kept, of which a part was shown.
pub(crate) struct Kept {
    file: File,
    shown: u64,
}

impl Kept {
    /// Has a program's output go to `file` if there is one; else, if the view is on the terminal, what would go
    /// there is kept. A program has no input from a terminal that the view reads its keys from.
    pub(crate) fn new(
        command: &mut Command,
        has_terminal: bool,
        file: Option<&Path>,
    ) -> Result<Option<Self>, Failure> {
        if has_terminal && io::stdin().is_terminal() {
            command.stdin(Stdio::null());
        }
        if let Some(path) = file {
            let file = run::create(path)?;
            let again = file.try_clone();
            let again = again.map_err(|error| Failure::of_file(path, &error))?;
            command.stdout(file).stderr(again);
            return Ok(None);
        }
        if !has_terminal {
            return Ok(None);
        }
        let failed = |error| Failure::new(format!("no temporary file: {}", reason(&error)));
        let file = tempfile::tempfile().map_err(failed)?;
        // The program's two streams have one place in the file, and this process reads at places of its own.
        if io::stdout().is_terminal() {
            command.stdout(file.try_clone().map_err(failed)?);
        }
        command.stderr(file.try_clone().map_err(failed)?);
        Ok(Some(Self { file, shown: 0 }))
    }

    /// Shows what was not shown yet.
    pub(crate) fn show(&mut self, out: &mut impl Write) -> io::Result<()> {
        let mut piece = vec![0; PIECE];
        loop {
            let read = self.file.read_at(&mut piece, self.shown)?;
            if read == 0 {
                return out.flush();
            }
            out.write_all(&piece[..read])?;
            self.shown += read as u64;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_kept_is_shown_once_and_in_order() {
        let mut command = Command::new("sh");
        command.args(["-c", "echo out; echo err >&2; echo out again"]);
        let mut file = tempfile::tempfile().unwrap();
        command.stdout(file.try_clone().unwrap());
        command.stderr(file.try_clone().unwrap());
        assert!(command.status().unwrap().success());
        let mut kept = Kept {
            file: file.try_clone().unwrap(),
            shown: 0,
        };
        let mut shown = Vec::new();
        kept.show(&mut shown).unwrap();
        assert_eq!(shown, b"out\nerr\nout again\n");
        file.write_all(&vec![b'x'; 3 * PIECE + 1]).unwrap();
        let mut rest = Vec::new();
        kept.show(&mut rest).unwrap();
        assert_eq!(rest.len(), 3 * PIECE + 1);
        kept.show(&mut rest).unwrap();
        assert_eq!(rest.len(), 3 * PIECE + 1);
    }
}
