//! What the command line asks for beside the table, and the exit status.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use serde::Serialize;

use crate::allocators::OURS;
use crate::args::Args;
use crate::chart;
use crate::failure::Failure;
use crate::json;
use crate::rows::Row;

/// Files for the results.
pub struct Outputs {
    json: Option<(PathBuf, File)>,
    svg: Option<PathBuf>,
    overview: Option<(PathBuf, File)>,
}

impl Outputs {
    /// Creates them, before anything is measured: what can't be written is known early.
    pub fn create(args: &Args) -> Result<Self, Failure> {
        let created = |path: &PathBuf| match File::create(path) {
            Ok(file) => Ok((path.clone(), file)),
            Err(error) => Err(Failure::of_file(path, &error)),
        };
        let json = args.json.as_ref().map(created).transpose()?;
        let overview = args.overview.as_ref().map(created).transpose()?;
        if let Some(directory) = &args.svg {
            fs::create_dir_all(directory).map_err(|error| Failure::of_file(directory, &error))?;
        }
        Ok(Self {
            json,
            svg: args.svg.clone(),
            overview,
        })
    }

    /// Other results than rows.
    pub fn write_json(&self, records: &[impl Serialize]) -> Result<(), Failure> {
        match &self.json {
            Some((path, file)) => {
                json::write_records(file, records).map_err(|error| Failure::of_file(path, &error))
            }
            None => Ok(()),
        }
    }

    /// Results with long arrays, a line for each.
    pub fn write_json_lines(&self, records: &[impl Serialize]) -> Result<(), Failure> {
        match &self.json {
            Some((path, file)) => {
                json::write_lines(file, records).map_err(|error| Failure::of_file(path, &error))
            }
            None => Ok(()),
        }
    }

    /// Where charts go, if any are asked for.
    pub fn charts(&self) -> Option<&Path> {
        self.svg.as_deref()
    }

    /// What is told of a whole bench, if anybody asked for it.
    pub fn write_overview(&self, text: impl FnOnce() -> String) -> Result<(), Failure> {
        match &self.overview {
            Some((path, file)) => {
                let mut file: &File = file;
                let written = file.write_all(text().as_bytes());
                written.map_err(|error| Failure::of_file(path, &error))
            }
            None => Ok(()),
        }
    }

    pub fn write(&self, rows: &[Row]) -> Result<(), Failure> {
        if let Some((path, file)) = &self.json {
            json::write(file, rows).map_err(|error| Failure::of_file(path, &error))?;
        }
        match &self.svg {
            Some(directory) => chart::draw(directory, rows),
            None => Ok(()),
        }
    }
}

/// Success if all rows of ours were measured; without ours, if anything was.
pub fn status<'a>(rows: &[Row], mut allocators: impl Iterator<Item = &'a str>) -> ExitCode {
    let good = if allocators.any(|name| name == OURS) {
        let mut ours = rows.iter().filter(|row| row.is_ours()).peekable();
        ours.peek().is_some() && ours.all(Row::is_measured)
    } else {
        rows.iter().any(Row::is_measured)
    };
    if good {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
