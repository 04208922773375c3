//! The table in UNSAFE.md is true: each file that has `unsafe` is there, with the right counts, and says what it
//! rests on and which test sees that break.
//!
//! ```text
//! SPANMALLOC_TEST_UPDATE=1 cargo test --test unsafe_table
//! ```
//!
//! writes the counts, and a row for each file that has none; what stands in it is for a person to say.

#![cfg(not(miri))] // Reads the sources.

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::path::{Path, PathBuf};

/// How often `unsafe` stands in a file: blocks, and all else (functions, implementations, foreign items,
/// attributes).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Counts {
    blocks: usize,
    others: usize,
}

impl Counts {
    /// Of the code before the file's tests, without comments.
    fn of(source: &str) -> Self {
        let mut counts = Self::default();
        for line in source.lines() {
            if line.starts_with("#[cfg(") && line.contains("test") && !line.contains("not(test") {
                // Tests stand last, or in a file of their own; an item for tests in the middle has another attribute.
                if source[offset(source, line)..].contains("\nmod tests {") {
                    break;
                }
            }
            let code = line.split("//").next().unwrap_or_default();
            for (at, _) in code.match_indices("unsafe") {
                let is_part = |byte: Option<&u8>| {
                    byte.is_some_and(|byte| byte.is_ascii_alphanumeric() || *byte == b'_')
                };
                let (before, after) = (&code.as_bytes()[..at], &code.as_bytes()[at + 6..]);
                if is_part(before.last()) || is_part(after.first()) {
                    continue;
                }
                match after.starts_with(b" {") {
                    true => counts.blocks += 1,
                    false => counts.others += 1,
                }
            }
        }
        counts
    }
}

/// Where a line of a text begins.
fn offset(text: &str, line: &str) -> usize {
    line.as_ptr().addr() - text.as_ptr().addr()
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// All sources in a directory, but for those that are tests.
fn sources(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let stem = path.file_stem().unwrap().to_string_lossy();
        if stem.ends_with("tests") || stem == "models" {
            continue;
        }
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|end| end == "rs") {
            found.push(path);
        }
    }
}

/// The counts of the tree, by the name that the table has.
fn counted() -> BTreeMap<String, Counts> {
    let mut files = Vec::new();
    sources(&root().join("src"), &mut files);
    files
        .iter()
        .map(|file| {
            let name = file.strip_prefix(root().join("src")).unwrap();
            let counts = Counts::of(&fs::read_to_string(file).unwrap());
            (name.to_str().unwrap().to_owned(), counts)
        })
        .filter(|(_, counts)| *counts != Counts::default())
        .collect()
}

/// The cells of a row of the table; the first is a file's name.
fn cells(line: &str) -> Option<[&str; 5]> {
    let (name, rest) = line.strip_prefix("| `")?.split_once("` |")?;
    let mut rest = rest.strip_suffix('|')?.split('|');
    let mut cell = || rest.next().unwrap_or_default().trim();
    name.ends_with(".rs")
        .then(|| [name, cell(), cell(), cell(), cell()])
}

fn row(name: &str, counts: Counts, rests_on: &str, seen_by: &str) -> String {
    let Counts { blocks, others } = counts;
    format!("| `{name}` | {blocks} | {others} | {rests_on} | {seen_by} |")
}

/// The text with true counts, and rows for files that have none, in the order of names.
fn updated(text: &str, mut counted: BTreeMap<String, Counts>) -> String {
    let mut lines = Vec::new();
    for line in text.lines() {
        let Some([name, _, _, rests_on, seen_by]) = cells(line) else {
            // What is left belongs before the end of the table.
            if lines
                .last()
                .is_some_and(|last: &String| cells(last).is_some())
            {
                let rest = std::mem::take(&mut counted);
                lines.extend(rest.iter().map(|(name, counts)| row(name, *counts, "", "")));
            }
            lines.push(line.to_owned());
            continue;
        };
        if let Some(counts) = counted.remove(name) {
            lines.push(row(name, counts, rests_on, seen_by));
        }
    }
    lines.join("\n") + "\n"
}

#[test]
fn table_of_unsafe_is_that_of_the_sources() {
    let path = root().join("UNSAFE.md");
    let text = fs::read_to_string(&path).unwrap();
    if env::var_os("SPANMALLOC_TEST_UPDATE").is_some() {
        fs::write(&path, updated(&text, counted())).unwrap();
    }
    let text = fs::read_to_string(&path).unwrap();
    let expected = counted();
    let mut told = BTreeMap::new();
    let (mut blocks, mut others) = (0, 0);
    for [name, of_blocks, of_others, rests_on, seen_by] in text.lines().filter_map(cells) {
        let counts = Counts {
            blocks: of_blocks.parse().unwrap(),
            others: of_others.parse().unwrap(),
        };
        (blocks, others) = (blocks + counts.blocks, others + counts.others);
        told.insert(name.to_owned(), counts);
        assert!(
            !rests_on.is_empty() && !seen_by.is_empty(),
            "{name} says nothing"
        );
    }
    assert_eq!(told, expected, "see the text of this test");
    assert!(
        blocks > 100 && others > 50,
        "{blocks} blocks and {others} others were found"
    );
}

#[test]
fn comments_names_and_tests_do_not_count() {
    let source = "// unsafe {\nlet unsafe_name = unsafe { 1 }; unsafe fn f() {}\n#[unsafe(no_mangle)]\n\
                  #[cfg(test)]\nmod tests {\n    unsafe {}\n}\n";
    let expected = Counts {
        blocks: 1,
        others: 2,
    };
    assert_eq!(Counts::of(source), expected);
}
