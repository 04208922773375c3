//! The command line.

use std::path::PathBuf;

use clap::Parser;

const MORE: &str = "\
Each misuse is a program in C, and mostly one in Rust, that is run on objects of
several sizes under each allocator, which the tool builds or finds. Which are
caught is printed as a Markdown table; README.md of the crate says what counts.

The exit status is 0, 1 if --check fails or the tool cannot go on, and 2 if the
command line is not understood.

Examples:
  spanmalloc-misuse --runs 3 --allocators 'spanmalloc*' --check
  spanmalloc-misuse --misuses 'double-free*' --json results.json
  spanmalloc-misuse --preload other=/opt/lib/libother.so";

/// Tries misuses of memory on spanmalloc and other allocators, and tells which are caught.
#[derive(Debug, Parser)]
#[command(name = "spanmalloc-misuse", version, after_help = MORE)]
pub struct Args {
    /// How often each program is run
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub runs: u32,
    /// Only these allocators; `*` stands for any characters
    #[arg(long, value_name = "NAME,...", value_delimiter = ',')]
    pub allocators: Vec<String>,
    /// Only these misuses
    #[arg(long, value_name = "NAME,...", value_delimiter = ',')]
    pub misuses: Vec<String>,
    /// Another allocator: a library that is preloaded under the programs on the system's malloc
    #[arg(long, value_name = "NAME=PATH", value_parser = preload)]
    pub preload: Vec<(String, PathBuf)>,
    /// Fail unless spanmalloc catches what it must
    #[arg(long)]
    pub check: bool,
    /// Write sums and the table to FILE, as Markdown for a README
    #[arg(long, value_name = "FILE")]
    pub markdown: Option<PathBuf>,
    /// Write what came of each program to FILE as a JSON array
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// List the misuses and the allocators
    #[arg(long)]
    pub list: bool,
}

fn preload(text: &str) -> Result<(String, PathBuf), String> {
    match text.split_once('=') {
        Some((name, path)) if !name.is_empty() && !path.is_empty() => {
            Ok((name.to_owned(), PathBuf::from(path)))
        }
        _ => Err("it must be NAME=PATH".to_owned()),
    }
}

/// Those whose name fits one of the patterns, in their own order; all if there is no pattern. The
/// error names a pattern that fits none.
pub fn select<T>(
    all: Vec<T>,
    patterns: &[String],
    name: impl Fn(&T) -> &str,
) -> Result<Vec<T>, String> {
    for pattern in patterns {
        if !all.iter().any(|it| fits(name(it), pattern)) {
            return Err(format!("nothing is called {pattern}: see --list"));
        }
    }
    let is_chosen = |it: &T| patterns.iter().any(|pattern| fits(name(it), pattern));
    let is_all = patterns.is_empty();
    Ok(all
        .into_iter()
        .filter(|it| is_all || is_chosen(it))
        .collect())
}

/// Whether a name fits a pattern, in which each `*` stands for any characters, or none.
fn fits(name: &str, pattern: &str) -> bool {
    let Some((head, tail)) = pattern.split_once('*') else {
        return name == pattern;
    };
    let Some(rest) = name.strip_prefix(head) else {
        return false;
    };
    let ends = rest.char_indices().map(|(index, _)| index);
    ends.chain([rest.len()])
        .any(|start| fits(&rest[start..], tail))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_definition_is_consistent() {
        Args::command().debug_assert();
    }

    #[test]
    fn what_is_chosen_keeps_its_order() {
        let chosen = |patterns: &[&str]| {
            let patterns: Vec<String> = patterns.iter().map(|it| it.to_string()).collect();
            select(vec!["c", "b1", "b2", "a"], &patterns, |it| it)
        };
        assert_eq!(chosen(&[]).unwrap(), ["c", "b1", "b2", "a"]);
        assert_eq!(chosen(&["a", "b*", "b1"]).unwrap(), ["b1", "b2", "a"]);
        assert_eq!(chosen(&["*1"]).unwrap(), ["b1"]);
        assert!(chosen(&["a", "d*"]).unwrap_err().contains("d*"));
    }
}
