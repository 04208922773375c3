//! Values of the environment, as the library reads them: nothing panics, each text that is not understood is
//! told once, lines are printable, and what is said is what comes into effect. The files of the module are
//! the allocator's own, compiled into this program.

#![no_main]

use arbitrary::Unstructured;
use libfuzzer_sys::fuzz_target;

#[path = "../../src/base"]
#[allow(dead_code, reason = "the module serves the allocator")]
mod base {
    pub mod line;
}

mod sync {
    pub mod atomic {
        pub use std::sync::atomic::*;
    }
}

/// What those files need of the system.
#[allow(dead_code, reason = "lines are not printed")]
mod sys {
    pub fn write_stderr(_text: &[u8]) {
        unreachable!("lines go to the closure")
    }
}

#[path = "../../src/config"]
#[allow(dead_code, unused_imports, reason = "the module serves the allocator")]
mod config {
    mod environment;
    mod options;
    mod parse;
    mod secure;
    mod state;
    mod triggers;
    mod values;

    pub use values::{Config, MemoryLimit};

    use options::Report;
    use options::{OPTIONS, PREFIX, TESTS_PREFIX};

    /// Names that there are.
    pub fn names() -> impl Iterator<Item = &'static str> {
        OPTIONS.iter().map(|entry| entry.name)
    }

    /// Whether a name is one that is told about, as nobody knows it.
    pub fn is_unknown(name: &[u8]) -> bool {
        let ours = name.starts_with(PREFIX) && !name.starts_with(TESTS_PREFIX);
        ours && names().all(|known| known.as_bytes() != name)
    }

    /// What comes into effect, and the lines that were printed.
    pub fn read(variables: &[(&[u8], &[u8])]) -> (Config, Vec<String>) {
        let state = state::State::new();
        let mut lines = Vec::new();
        environment::apply(
            &state,
            variables.iter().copied(),
            || 1 << 30,
            |line| {
                lines.push(line.text().to_owned());
            },
        );
        let _ = (
            state.triggers(Report::Stats),
            state.triggers(Report::Profile),
        );
        (state.config(), lines)
    }
}

/// Names for which a fuzzer would search for long.
fn name<'a>(bytes: &mut Unstructured<'a>) -> arbitrary::Result<&'a [u8]> {
    let all: Vec<&'static str> = config::names().collect();
    let choice: u8 = bytes.arbitrary()?;
    match all.get(usize::from(choice)) {
        Some(name) => Ok(name.as_bytes()),
        None => bytes.arbitrary(),
    }
}

fuzz_target!(|bytes: &[u8]| {
    let mut bytes = Unstructured::new(bytes);
    let mut variables: Vec<(&[u8], &[u8])> = Vec::new();
    while !bytes.is_empty() && variables.len() < 8 {
        let (Ok(name), Ok(value)) = (name(&mut bytes), bytes.arbitrary::<&[u8]>()) else {
            break;
        };
        variables.push((name, value));
    }
    let (config, lines) = config::read(&variables);
    for line in &lines {
        let text = line.strip_suffix('\n').unwrap_or(line);
        assert!(text.starts_with("spanmalloc: "), "{line:?}");
        assert!(text.chars().all(|one| !one.is_control()), "{line:?}");
    }
    let unknown = variables
        .iter()
        .filter(|(name, _)| config::is_unknown(name));
    let asks_for_help = variables
        .iter()
        .any(|(name, _)| *name == b"SPANMALLOC_HELP");
    let told = lines
        .iter()
        .filter(|line| line.contains(" is not known"))
        .count();
    assert!(asks_for_help || told == unknown.count(), "{lines:?}");
    // Twice the same says the same.
    let again = config::read(&variables);
    assert_eq!((config, lines), again);
});
