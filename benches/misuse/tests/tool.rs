//! The programs and the tool as a whole, on the allocators that need no more than a C compiler: the
//! system's malloc, and spanmalloc.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;
use spanmalloc_misuse::{Language, MISUSES};

fn tool(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_spanmalloc-misuse"));
    command.args(arguments).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// Runs the tool; returns what it wrote as JSON.
fn results(name: &str, arguments: &[&str]) -> Vec<Value> {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let json = ["--json", path.to_str().unwrap()];
    let output = tool(&[arguments, &json].concat());
    assert!(output.status.success(), "{}", text(&output.stderr));
    let value: Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
    value.as_array().unwrap().clone()
}

/// The names that a program lists, but for the one that does nothing wrong.
fn listed(program: &Path) -> BTreeSet<String> {
    let output = Command::new(program).arg("--list").output().unwrap();
    assert!(output.status.success());
    let mut names: BTreeSet<_> = text(&output.stdout).lines().map(str::to_owned).collect();
    assert!(names.remove("none"));
    names
}

fn expected(language: Language) -> BTreeSet<String> {
    let of_it = MISUSES.iter().filter(|it| it.languages.contains(&language));
    of_it.map(|it| it.name.to_owned()).collect()
}

#[test]
fn every_misuse_has_its_programs() {
    let rust = Path::new(env!("CARGO_BIN_EXE_misuse-program"));
    assert_eq!(listed(rust), expected(Language::Rust));
    let c = compiled();
    assert_eq!(listed(&c), expected(Language::C));
}

/// The programs in C, of this test's own.
fn compiled() -> PathBuf {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("programs");
    let built = Path::new(env!("CARGO_TARGET_TMPDIR")).join("misuse-c");
    let sources = fs::read_dir(directory).unwrap();
    let sources = sources.map(|entry| entry.unwrap().path());
    let status = Command::new("cc")
        .args(["-O1", "-fno-builtin", "-Wall", "-Wextra", "-Werror"])
        .args(sources.filter(|path| path.extension().is_some_and(|it| it == "c")))
        .arg("-o")
        .arg(&built)
        .args(["-pthread", "-ldl"])
        .status();
    assert!(status.unwrap().success());
    built
}

/// glibc's own cache of a thread knows an object that is in it already.
#[test]
#[cfg(target_env = "gnu")]
fn a_double_free_at_once_is_seen_by_glibc() {
    let arguments = [
        "--allocators",
        "glibc",
        "--misuses",
        "double-free",
        "--runs",
        "2",
    ];
    let results = results("glibc.json", &arguments);
    let mut small = results.iter().filter(|it| it["size"] == "small");
    let one = small.find(|it| it["language"] == "C").unwrap();
    assert_eq!(one["verdict"], "caught");
    assert_eq!(one["seen"], 2);
    let told = one["runs"][0]["text"].as_str().unwrap();
    assert!(told.contains("double free"), "{told}");
}

/// On all but jemalloc, whose crate takes minutes to build.
#[test]
fn what_does_nothing_wrong_is_never_stopped() {
    let allocators = "spanmalloc*,glibc,mimalloc*,hardened_malloc,tcmalloc";
    let arguments = [
        "--runs",
        "2",
        "--misuses",
        "none",
        "--allocators",
        allocators,
    ];
    let results = results("none.json", &arguments);
    assert!(results.iter().any(|it| it["allocator"] == "spanmalloc"));
    for one in results {
        assert_eq!(one["verdict"], "no harm", "{one}");
    }
}

#[test]
fn what_is_not_there_is_an_error() {
    let output = tool(&["--misuses", "no-such-misuse"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("no-such-misuse"));
}
