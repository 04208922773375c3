//! Interpreters of scripts: Python, Perl, Bash.

use std::fmt::Write;
use std::path::Path;

use crate::harness::{Stage, both, program};

/// The two mallocs that Python's objects can have: its own, above the one of C, and none.
const PYTHON_MALLOCS: [&str; 2] = ["default", "malloc"];

/// Runs Python with these arguments on either of its mallocs.
fn python(stage: &Stage, python: &Path, arguments: &[&str]) -> Vec<u8> {
    let run = |malloc| {
        let mut command = stage.command(python);
        command.args(arguments).env("PYTHONMALLOC", malloc);
        command.env("PYTHONHASHSEED", "0");
        stage.run(&mut command)
    };
    PYTHON_MALLOCS.map(run).concat()
}

/// Runs a Python script; the other argument is its text.
fn python_script(text: &str) {
    let Some(path) = program("python3") else {
        return;
    };
    both(|stage| {
        stage.write("script.py", text);
        python(stage, &path, &["script.py"])
    });
}

/// Python with as many guarded objects as there may be.
#[test]
fn python_guarded() {
    let Some(path) = program("python3") else {
        return;
    };
    both(|stage| {
        stage.write("script.py", include_str!("inputs/threads.py"));
        let mut command = stage.command(&path);
        command.arg("script.py").env("PYTHONMALLOC", "malloc");
        command.env("PYTHONHASHSEED", "0");
        stage.run(command.env("SPANMALLOC_GUARDED", "1"))
    });
}

#[test]
fn python_threads() {
    python_script(include_str!("inputs/threads.py"));
}

#[test]
fn python_processes() {
    python_script(include_str!("inputs/processes.py"));
}

#[test]
fn python_database() {
    python_script(include_str!("inputs/database.py"));
}

/// A document of about this many bytes.
fn json(bytes: usize) -> String {
    let mut text = String::from("[");
    let mut index = 0_u64;
    while text.len() < bytes {
        let comma = if index == 0 { "" } else { "," };
        let words = "word ".repeat((index % 30) as usize);
        write!(
            text,
            "{comma}{{\"id\":{index},\"half\":{}.5,\"words\":\"{words}\\u00e4\",\
             \"list\":[{index},null,true,[]],\"table\":{{\"a{}\":[1.25e3,-{index}]}}}}",
            index / 2,
            index % 1000,
        )
        .unwrap();
        index += 1;
    }
    text + "]"
}

#[test]
fn python_json() {
    let Some(path) = program("python3") else {
        return;
    };
    let document = json(20 << 20);
    both(|stage| {
        stage.write("in.json", &document);
        python(stage, &path, &["-m", "json.tool", "--compact", "in.json"])
    });
}

#[test]
fn perl() {
    let Some(path) = program("perl") else {
        return;
    };
    both(|stage| {
        stage.write("words.pl", include_str!("inputs/words.pl"));
        stage.run(
            stage
                .command(&path)
                .arg("words.pl")
                .env("PERL_HASH_SEED", "0"),
        )
    });
}

#[test]
fn bash() {
    let Some(path) = program("bash") else {
        return;
    };
    both(|stage| {
        stage.write("forks.sh", include_str!("inputs/forks.sh"));
        stage.run(stage.command(&path).arg("forks.sh"))
    });
}
