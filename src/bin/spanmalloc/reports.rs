//! Reports that the library writes at the end for the user: `--stats` and `--profile`.
//!
//! The processes that a program starts have the same environment, and all would write to the same file. So
//! they write to a private directory, under names with their numbers, and the file that the user wants gets
//! what the program's own process wrote. A name with `%` is left to the library, and each process has its own.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::path::{self, Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use crate::failure::Failure;
use crate::{figures, run};

/// A kind of report, and the variables by which the library is asked for it.
#[derive(Clone, Copy)]
pub(crate) enum Kind {
    Statistics,
    Profile,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Statistics => "statistics",
            Self::Profile => "heap profile",
        }
    }

    fn variables(self) -> [&'static str; 2] {
        match self {
            Self::Statistics => [figures::STATS, figures::STATS_FILE],
            Self::Profile => [figures::PROFILE, figures::PROFILE_FILE],
        }
    }
}

/// A report to come.
pub(crate) struct Asked {
    kind: Kind,
    path: PathBuf,
    /// None if the library writes the file itself.
    private: Option<(TempDir, File)>,
}

impl Asked {
    /// Asks the program's library for a report in a file, whatever the environment says.
    pub(crate) fn new(kind: Kind, path: &Path, command: &mut Command) -> Result<Self, Failure> {
        let absolute = path::absolute(path).map_err(|error| Failure::of_file(path, &error))?;
        let [when, place] = kind.variables();
        command.env(when, "exit");
        if path.as_os_str().as_bytes().contains(&b'%') {
            command.env(place, absolute);
            return Ok(Self {
                kind,
                path: path.to_owned(),
                private: None,
            });
        }
        // Whether it can be written shows before the program runs.
        let file = run::create(path)?;
        let directory = figures::private_directory()?;
        let mut name = OsString::from("%p-");
        // The library looks at the end of the name.
        name.push(path.file_name().unwrap_or_default());
        command.env(place, directory.path().join(name));
        Ok(Self {
            kind,
            path: path.to_owned(),
            private: Some((directory, file)),
        })
    }

    /// Puts the report of the process that had this number where the user wants it. What was written, unless
    /// the library did it; an inner error is a sentence that says why there is none.
    pub(crate) fn collect(self, pid: u32) -> Result<Result<Option<Vec<u8>>, String>, Failure> {
        let Some((directory, mut file)) = self.private else {
            return Ok(Ok(None));
        };
        let mut name = OsString::from(format!("{pid}-"));
        name.push(self.path.file_name().unwrap_or_default());
        let Ok(data) = fs::read(directory.path().join(name)) else {
            // The file was made for nothing, unless it is a device.
            if file.metadata().is_ok_and(|metadata| metadata.is_file()) {
                let _ = fs::remove_file(&self.path);
            }
            return Ok(Err(figures::missing(self.kind.name())));
        };
        file.write_all(&data)
            .map_err(|error| Failure::of_file(&self.path, &error))?;
        Ok(Ok(Some(data)))
    }
}
