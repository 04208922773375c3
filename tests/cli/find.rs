//! Which library is preloaded, and `spanmalloc env`.

use std::fs;

use tempfile::TempDir;

use super::*;

/// The tool in the folder `bin` of a directory of its own. A link: a copy could not be executed as
/// long as a child that another test forks meanwhile has it open for writing.
fn installed() -> (TempDir, PathBuf) {
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let folder = directory.path().join("bin");
    fs::create_dir(&folder).unwrap();
    let tool = folder.join("spanmalloc");
    fs::hard_link(TOOL, &tool).unwrap();
    (directory, tool)
}

fn env_of(tool: &Path) -> Output {
    clean(&mut Command::new(tool)).arg("env").output().unwrap()
}

#[test]
fn the_library_is_found_near_the_tool() {
    // From the last place to the first.
    let (directory, tool) = installed();
    for place in ["lib", "bin/deps", "bin"] {
        let folder = directory.path().join(place);
        fs::create_dir_all(&folder).unwrap();
        let library = folder.join("libspanmalloc.so");
        fs::copy(fake(), &library).unwrap();
        let output = env_of(&tool);
        let expected = format!("LD_PRELOAD={}\n", library.display());
        assert_eq!(stdout(&output), expected, "{}", stderr(&output));
    }
}

#[test]
fn a_library_without_malloc_is_passed_over() {
    let (directory, tool) = installed();
    let beside = tool.with_file_name("libspanmalloc.so");
    fs::copy(fake_without_malloc(), &beside).unwrap();
    let output = env_of(&tool);
    assert_eq!(output.status.code(), Some(125));
    let expected = format!(
        "spanmalloc: {} exports no `malloc`; build it with the feature `preload`, or name another \
         library by --lib\n",
        beside.display()
    );
    assert_eq!(stderr(&output), expected);

    let folder = directory.path().join("lib");
    fs::create_dir(&folder).unwrap();
    fs::copy(fake(), folder.join("libspanmalloc.so")).unwrap();
    assert!(stdout(&env_of(&tool)).ends_with("/lib/libspanmalloc.so\n"));
}

#[test]
fn no_library_is_an_error() {
    let (_directory, tool) = installed();
    let output = env_of(&tool);
    assert_eq!(output.status.code(), Some(125));
    assert!(stderr(&output).starts_with("spanmalloc: libspanmalloc.so was not found at "));
}

#[test]
fn a_library_that_will_not_do_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let text = folder.path().join("text.so");
    fs::write(&text, "no library").unwrap();
    let spaced = folder.path().join("a b.so");
    fs::copy(fake(), &spaced).unwrap();
    for (library, sentence) in [
        (text.as_path(), "is not a shared library"),
        (&spaced, "has a space or colon in its path"),
        (fake_without_malloc(), "exports no `malloc`"),
        (Path::new("/no/such.so"), "No such file or directory"),
    ] {
        let mut tool = tool("run");
        let output = tool.arg("--lib").arg(library).arg("true").output().unwrap();
        assert_eq!(output.status.code(), Some(125), "{sentence}");
        let text = stderr(&output);
        let start = format!("spanmalloc: {}", library.display());
        assert!(
            text.starts_with(&start) && text.contains(sentence),
            "{text}"
        );
    }
}

#[test]
fn a_relative_path_is_made_absolute() {
    let mut tool = tool("run");
    tool.current_dir(fake().parent().unwrap());
    tool.args(["--lib", "fake_malloc.so", "-q", "sh", "-c"]);
    tool.arg("printf %s \"$LD_PRELOAD\"");
    let output = tool.output().unwrap();
    assert_eq!(stdout(&output), fake().to_str().unwrap());
}

#[test]
fn the_line_of_env_works_in_a_shell() {
    let mut shell = Command::new("sh");
    let script = "env $(\"$0\" env --lib \"$1\") sh -c 'printf %s \"$LD_PRELOAD\"'";
    clean(&mut shell).args(["-c", script, TOOL]).arg(fake());
    let output = shell.output().unwrap();
    assert_eq!(stdout(&output), fake().to_str().unwrap());
    assert_eq!(stderr(&output), "");
}

#[test]
fn systemd_gets_a_line_for_a_unit() {
    let mut tool = tool("env");
    let output = tool
        .arg("--systemd")
        .arg("--lib")
        .arg(fake())
        .output()
        .unwrap();
    let expected = format!("Environment=LD_PRELOAD={}\n", fake().display());
    assert_eq!(stdout(&output), expected);
    assert!(output.status.success());
}
