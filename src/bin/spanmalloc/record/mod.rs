//! Records a run: `run --record`. The library writes a raw stream, of which a trace is made when the program has
//! ended, for `spanmalloc-rate --replay`.

mod convert;
#[allow(
    dead_code,
    unused_imports,
    reason = "the bench, which takes it in, reads traces"
)]
mod format;
#[path = "../../../record/raw.rs"]
mod raw;

use std::fs::File;
use std::io::{self, BufReader, Write};
use std::path::{self, Path, PathBuf};
use std::process::Command;

use flate2::Compression;
use flate2::write::GzEncoder;
use tempfile::TempDir;

use crate::failure::{Failure, complain};
use crate::{figures, run, units};
use convert::Converter;

/// Bytes of the raw stream that are read at a time.
const PIECE: usize = 1 << 20;

/// A trace to come.
pub(crate) struct Recording {
    path: PathBuf,
    file: File,
    /// Beside the trace, as the raw stream may be large.
    directory: TempDir,
}

impl Recording {
    /// Has the program's library record what the program does.
    pub(crate) fn new(path: &Path, command: &mut Command) -> Result<Self, Failure> {
        let file = run::create(path)?;
        let absolute = path::absolute(path).map_err(|error| Failure::of_file(path, &error))?;
        let beside = absolute.parent().unwrap_or(Path::new("/"));
        let directory = figures::private_directory_in(beside)?;
        command.env(figures::RECORD, directory.path().join("%p"));
        Ok(Self {
            path: path.to_owned(),
            file,
            directory,
        })
    }

    /// Makes the trace of the process that had this number, and says what is in it unless that is not wanted.
    pub(crate) fn finish(self, pid: u32, is_quiet: bool) -> Result<(), Failure> {
        let raw = self.directory.path().join(pid.to_string());
        let Ok(raw) = File::open(raw) else {
            complain(&figures::missing("record"));
            return Ok(());
        };
        let failed = |why: String| Failure::new(format!("{}: {why}", self.path.display()));
        let converter = Converter::read(BufReader::with_capacity(PIECE, raw)).map_err(failed)?;
        if !is_quiet {
            complain(&format!(
                "{}: {} events of {} threads",
                self.path.display(),
                units::count(converter.events),
                units::count(converter.threads() as u64)
            ));
        }
        let is_packed = self.path.extension().is_some_and(|end| end == "gz");
        write(&self.file, &converter.into_bytes(), is_packed)
            .map_err(|error| Failure::of_file(&self.path, &error))
    }
}

/// Writes a trace, compressed if its name says so.
fn write(mut file: &File, trace: &[u8], is_packed: bool) -> io::Result<()> {
    if !is_packed {
        return file.write_all(trace);
    }
    let mut encoder = GzEncoder::new(file, Compression::best());
    encoder.write_all(trace)?;
    encoder.finish().map(drop)
}
