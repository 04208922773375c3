//! Tests that have a process to themselves: what they look at or change belongs to the whole process, such as
//! its memory, the statistics, the configuration, or what threads that wait still hold. The unit tests use it as
//! well.

#![allow(dead_code, reason = "each test file uses its part")]

use std::any::type_name;
use std::env;
use std::process::{Command, Output};
use std::string::String;

/// Set in the process that a test started for itself.
const ALONE: &str = "SPANMALLOC_TEST_ALONE";

/// Whether this is the process that a test started for itself.
pub fn is_alone() -> bool {
    env::var_os(ALONE).is_some()
}

/// Runs the calling test, whose body is or contains the closure type `F`, in a process of its own.
/// There, [`is_alone`] holds.
pub fn run_alone<F>(body: &F) -> Output {
    run_alone_with(&[], body)
}

/// [`run_alone`] with variables in the environment.
pub fn run_alone_with<F>(variables: &[(&str, &str)], _body: &F) -> Output {
    let path = type_name::<F>();
    let test = path.split_once("::").map_or(path, |(_, name)| name);
    let test = test.trim_end_matches("::{{closure}}");
    let mut command = Command::new(env::current_exe().unwrap());
    command
        .args(["--exact", test, "--nocapture", "--test-threads=1"])
        .env(ALONE, "1")
        .envs(variables.iter().copied());
    command.output().unwrap()
}

/// The test has passed in its process; what that wrote to standard error.
pub fn assert_passed(output: &Output) -> String {
    let stdout = String::from_utf8_lossy(&output.stdout);
    let stderr = String::from_utf8_lossy(&output.stderr);
    let passed = output.status.success() && stdout.contains("1 passed");
    assert!(passed, "{}\n{stdout}\n{stderr}", output.status);
    stderr.into_owned()
}

/// Runs `body` in a process of its own, for tests that measure the process or end it badly. To be
/// called by the test function itself.
pub fn alone<F: FnOnce()>(body: F) {
    alone_with(&[], body);
}

/// [`alone`] with variables in the environment; what was written to standard error, for who started the process.
pub fn alone_with<F: FnOnce()>(variables: &[(&str, &str)], body: F) -> Option<String> {
    if is_alone() {
        body();
        return None;
    }
    Some(assert_passed(&run_alone_with(variables, &body)))
}
