//! The live view of a running program: `top`, and `run --watch`.
//!
//! The figures come from a page of memory that the library publishes (`SPANMALLOC_PUBLISH`; its layout is in
//! [`page`]), and RSS from the system. The view is on standard error. If that is no terminal, there is a line a
//! second instead.

mod output;
#[path = "../../../report/page.rs"]
mod page;
mod sample;
mod screen;
mod state;
mod view;

use std::fs::{File, OpenOptions};
use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::failure::Failure;
use crate::{child, figures};
use output::Kept;
use sample::Published;
use screen::{Key, Screen};
use state::State;

/// Where files are in memory.
const IN_MEMORY: &str = "/dev/shm";

/// Time between two looks at the keys.
pub(crate) const LOOK: Duration = Duration::from_millis(50);
/// Time between two looks at the program, as often as the library publishes.
const SAMPLE: Duration = Duration::from_millis(250);
/// Time between two lines.
const LINE: Duration = Duration::from_secs(1);

/// The view of one program, from before its start to its end.
pub(crate) struct Watch {
    page: File,
    _directory: TempDir,
    state: State,
    start: Instant,
    next_sample: Duration,
    next_line: Duration,
    kept: Option<Kept>,
    shown: Shown,
}

enum Shown {
    /// On the terminal, once the program runs.
    Wanted,
    Screen(Screen),
    Lines,
    /// The view was ended; the program goes on.
    Nothing,
}

impl Watch {
    /// Prepares the program for a view. Its output goes to a file if there is one.
    pub(crate) fn new(
        program: &[std::ffi::OsString],
        output: Option<&Path>,
        command: &mut Command,
    ) -> Result<Self, Failure> {
        let has_terminal = io::stderr().is_terminal();
        let kept = Kept::new(command, has_terminal, output)?;
        let directory = match figures::private_directory_in(Path::new(IN_MEMORY)) {
            Ok(directory) => directory,
            Err(_) => figures::private_directory()?,
        };
        let path = directory.path().join("page");
        let page = create_page(&path).map_err(|error| Failure::of_file(&path, &error))?;
        command.env(figures::PUBLISH, &path);
        figures::count_calls(command);
        let words: Vec<_> = program.iter().map(|word| word.to_string_lossy()).collect();
        Ok(Self {
            page,
            _directory: directory,
            state: State::new(words.join(" ")),
            start: Instant::now(),
            next_sample: Duration::ZERO,
            next_line: LINE,
            kept,
            shown: if has_terminal {
                Shown::Wanted
            } else {
                Shown::Lines
            },
        })
    }

    /// One look at the keys, and at the program if it is time. The program runs.
    pub(crate) fn look(&mut self, pid: u32) {
        if let Shown::Wanted = self.shown {
            self.shown = Screen::open().map_or(Shown::Lines, Shown::Screen);
        }
        let mut changed = false;
        while let Shown::Screen(screen) = &mut self.shown {
            match screen.key() {
                Some(Key::Quit) => self.shown = Shown::Nothing,
                Some(Key::Sort) => self.state.sort_next(),
                Some(Key::Pause) => self.state.is_paused = !self.state.is_paused,
                Some(Key::Interrupt) => child::interrupt(pid),
                Some(Key::Other) => {}
                None => break,
            }
            changed = true;
        }
        let elapsed = self.start.elapsed();
        if elapsed >= self.next_sample {
            self.next_sample = elapsed + SAMPLE;
            self.sample(pid, elapsed);
            changed = true;
        }
        match &mut self.shown {
            Shown::Screen(screen) if changed => screen.draw(&self.state),
            Shown::Lines if elapsed >= self.next_line => {
                self.next_line += LINE;
                self.print_line();
                self.show_output();
            }
            Shown::Nothing => self.show_output(),
            _ => {}
        }
    }

    fn sample(&mut self, pid: u32, elapsed: Duration) {
        let published = Published::read(&self.page).unwrap_or(None);
        let process = published
            .as_ref()
            .map_or(pid, |published| published.process);
        self.state
            .note(pid, elapsed, sample::rss_bytes(process), published);
    }

    /// The program has ended: its output is shown, and a last line if there was a view.
    pub(crate) fn end(mut self, pid: u32, has_report: bool) {
        self.state.is_paused = false;
        self.sample(pid, self.start.elapsed());
        let was_left = matches!(self.shown, Shown::Nothing);
        // Closes the screen.
        self.shown = Shown::Lines;
        self.show_output();
        if !was_left && !has_report {
            self.print_line();
        }
    }

    fn print_line(&self) {
        // Nobody to tell if standard error is closed.
        let _ = writeln!(io::stderr(), "spanmalloc: {}", view::line(&self.state));
    }

    fn show_output(&mut self) {
        if let Some(kept) = &mut self.kept {
            // Standard error is the terminal.
            let _ = kept.show(&mut io::stderr());
        }
    }
}

/// A file with an empty page.
fn create_page(path: &PathBuf) -> io::Result<File> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .open(path)?;
    file.set_len(page::PAGE_BYTES as u64)?;
    Ok(file)
}
