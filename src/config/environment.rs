//! The environment's part: what it says goes into the state, and what is wrong with it is told.
//!
//! Each thing that is wrong is told once, in one line on standard error: a value that is malformed, and
//! a name that nobody knows. `SPANMALLOC_HELP=1` prints the table of options, after all else was read.
//!
//! Invariant: nothing here allocates, so that it may be part of the process's first allocation.

use core::fmt::{self, Write};

use super::options::{Choice, Entry, Form, OPTIONS, PREFIX, TESTS_PREFIX};
use super::parse::{Size, Value};
use super::state::{Layer, State};
use super::values::MemoryLimit;
use crate::base::line::Line;

/// Most bytes of a foreign text that are repeated in a line, so that the rest of it has room.
const REPEATED_BYTES: usize = 100;

/// Takes over what an environment says. Lines go to `print`, the limit `auto` comes from `auto_bytes`.
pub(super) fn apply<'a>(
    state: &State,
    variables: impl Iterator<Item = (&'a [u8], &'a [u8])> + Clone,
    auto_bytes: fn() -> usize,
    mut print: impl FnMut(&mut Line),
) {
    for entry in OPTIONS.iter().filter(|entry| entry.applies()) {
        let value = lookup(variables.clone(), entry.name);
        if value.is_empty() {
            continue;
        }
        match entry.form.parse(value) {
            Some(Value::Word(choice, word)) => state.choose(choice, word, Layer::Environment),
            Some(Value::Limit(limit)) => state.set_limit(limit, Layer::Environment, auto_bytes),
            Some(Value::Triggers(report, triggers)) => state.set_triggers(report, triggers),
            Some(Value::Rate(bytes)) => state.set_profile_rate(bytes),
            Some(Value::Secure(secure)) => state.set_secure(secure, Layer::Environment),
            Some(Value::Guarded(one_in)) => state.set_guarded(one_in, Layer::Environment),
            Some(Value::Path) => {}
            None => print(&mut malformed(state, entry, value)),
        }
    }
    for (name, _) in variables.clone() {
        let ours = name.starts_with(PREFIX) && !name.starts_with(TESTS_PREFIX);
        if ours && !OPTIONS.iter().any(|entry| entry.name.as_bytes() == name) {
            print(&mut unknown(name));
        }
    }
    if state.chosen(Choice::Help) != 0 {
        print(&mut row([
            "variable",
            "in effect",
            "default",
            "accepted",
            "meaning",
        ]));
        for entry in OPTIONS.iter().filter(|entry| entry.applies()) {
            print(&mut help(
                state,
                entry,
                lookup(variables.clone(), entry.name),
            ));
        }
    }
}

/// The value of the first variable of this name; empty if there is none.
fn lookup<'a>(mut variables: impl Iterator<Item = (&'a [u8], &'a [u8])>, name: &str) -> &'a [u8] {
    variables
        .find(|(there, _)| *there == name.as_bytes())
        .map_or(b"", |(_, value)| value)
}

fn malformed(state: &State, entry: &Entry, value: &[u8]) -> Line {
    let mut line = Line::new();
    let value = Repeated(value);
    let _ = write!(line, "{}={value} is not understood; it may be ", entry.name);
    for (index, form) in entry.form.accepted().iter().enumerate() {
        let separator = if index == 0 { "" } else { " or " };
        let _ = write!(line, "{separator}{form}");
    }
    match entry.form {
        Form::Limit | Form::Rate => line.push(b" (digits, then B, KiB, MiB, GiB or TiB)"),
        Form::Triggers(_) | Form::Secure => line.push(b" (several with commas between)"),
        Form::Words(..) | Form::Guarded | Form::Path(_) => {}
    }
    let _ = writeln!(line, "; {} is used", InEffect(state, entry, b""));
    line
}

fn unknown(name: &[u8]) -> Line {
    let mut line = Line::new();
    let name = Repeated(name);
    let _ = writeln!(
        line,
        "{name} is not known and has no effect; SPANMALLOC_HELP=1 prints what there is"
    );
    line
}

fn help(state: &State, entry: &Entry, value: &[u8]) -> Line {
    let mut accepted = Line::empty();
    for (index, form) in entry.form.accepted().iter().enumerate() {
        let separator = if index == 0 { "" } else { "|" };
        let _ = write!(accepted, "{separator}{form}");
    }
    let mut in_effect = Line::empty();
    let _ = write!(in_effect, "{}", InEffect(state, entry, value));
    row([
        entry.name,
        in_effect.text(),
        entry.form.default(),
        accepted.text(),
        entry.meaning,
    ])
}

/// One line of the table.
fn row([name, in_effect, default, accepted, meaning]: [&str; 5]) -> Line {
    let mut line = Line::new();
    let _ = writeln!(
        line,
        "{name:<24} {in_effect:<12} {default:<8} {accepted:<20} {meaning}"
    );
    line
}

/// Foreign text as part of a line: printable, and not too long.
struct Repeated<'a>(&'a [u8]);

impl fmt::Display for Repeated<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for byte in self.0.iter().take(REPEATED_BYTES) {
            let is_printable = byte.is_ascii_graphic() || *byte == b' ';
            f.write_char(if is_printable { char::from(*byte) } else { '?' })?;
        }
        if self.0.len() > REPEATED_BYTES {
            f.write_str("...")?;
        }
        Ok(())
    }
}

/// The value of an option that is in effect, of which the environment says this.
struct InEffect<'a>(&'a State, &'a Entry, &'a [u8]);

impl fmt::Display for InEffect<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(state, entry, value) = self;
        match entry.form {
            Form::Words(choice, words, _) => {
                let word = words.get(usize::from(state.chosen(choice)));
                f.write_str(word.unwrap_or(&""))
            }
            Form::Limit => match state.limit() {
                MemoryLimit::None => f.write_str("none"),
                MemoryLimit::Bytes(bytes) => write!(f, "{}", Size(bytes)),
                MemoryLimit::Auto if state.limit_bytes() == usize::MAX => f.write_str("auto: none"),
                MemoryLimit::Auto => write!(f, "auto: {}", Size(state.limit_bytes())),
            },
            Form::Triggers(report) => write!(f, "{}", state.triggers(report)),
            Form::Rate => write!(f, "{}", Size(state.profile_rate())),
            Form::Secure => write!(f, "{}", state.secure()),
            Form::Guarded => write!(f, "{}", state.guarded()),
            Form::Path(default) if value.is_empty() => f.write_str(default),
            Form::Path(_) => write!(f, "{}", Repeated(value)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::string::String;
    use std::vec::Vec;

    use super::super::values::{Config, HugePages, Release, ReleaseBy};
    use super::*;

    /// What a state is after it got this environment, and what was printed.
    fn told(state: &State, variables: &[(&str, &str)]) -> Vec<String> {
        let mut lines = Vec::new();
        let variables = variables
            .iter()
            .map(|(name, value)| (name.as_bytes(), value.as_bytes()));
        apply(
            state,
            variables,
            || 100 << 20,
            |line| lines.push(line.text().into()),
        );
        lines
    }

    const NOTHING: &[String] = &[];

    #[test]
    fn each_variable_changes_what_it_names() {
        let state = State::new();
        let background = if Config::new().has_background() {
            "0"
        } else {
            "1"
        };
        let lines = told(
            &state,
            &[
                ("HOME", "/"),
                ("SPANMALLOC_BACKGROUND", background),
                ("SPANMALLOC_RELEASE", "at-once"),
                ("SPANMALLOC_RELEASE_BY", "free"),
                ("SPANMALLOC_MEMLIMIT", "3GiB"),
                ("SPANMALLOC_MEMLIMIT_HARD", "1"),
                ("SPANMALLOC_THP", "never"),
            ],
        );
        assert_eq!(lines, NOTHING);
        let expected = Config::new()
            .background(background == "1")
            .release(Release::AtOnce)
            .release_by(ReleaseBy::Free)
            .memory_limit(MemoryLimit::Bytes(3 << 30))
            .hard_limit(true)
            .huge_pages(HugePages::Never);
        assert_eq!(state.config(), expected);
        assert_eq!(told(&state, &[("SPANMALLOC_MEMLIMIT", "auto")]), NOTHING);
    }

    #[test]
    fn every_word_is_the_value_of_its_name() {
        for (word, release) in [
            ("lazily", Release::Lazily),
            ("at-once", Release::AtOnce),
            ("never", Release::Never),
        ] {
            let state = State::new();
            told(&state, &[("SPANMALLOC_RELEASE", word)]);
            assert_eq!(state.config().releases(), release);
        }
        for (word, huge_pages) in [
            ("auto", HugePages::Auto),
            ("always", HugePages::Always),
            ("never", HugePages::Never),
        ] {
            let state = State::new();
            told(&state, &[("SPANMALLOC_THP", word)]);
            assert_eq!(state.config().uses_huge_pages(), huge_pages);
        }
        let state = State::new();
        told(&state, &[("SPANMALLOC_MEMLIMIT", "auto")]);
        assert_eq!(state.config().limit(), MemoryLimit::Auto);
        assert_eq!(state.limit_bytes(), 100 << 20);
    }

    #[test]
    fn empty_value_is_the_default_and_nothing_to_tell() {
        let state = State::new();
        let program = Config::new().memory_limit(MemoryLimit::Bytes(7));
        state.set(program, Layer::Program, || 0);
        let empty: Vec<_> = OPTIONS.iter().map(|entry| (entry.name, "")).collect();
        assert_eq!(told(&state, &empty), NOTHING);
        assert_eq!(state.config(), program);
    }

    #[test]
    fn malformed_value_is_told_with_what_it_may_be_and_what_is_used() {
        let state = State::new();
        let lines = told(&state, &[("SPANMALLOC_RELEASE", "Never")]);
        assert_eq!(
            lines,
            ["spanmalloc: SPANMALLOC_RELEASE=Never is not understood; \
              it may be lazily or at-once or never; lazily is used\n"]
        );
        let program = Config::new().memory_limit(MemoryLimit::Bytes(5 << 20));
        state.set(program, Layer::Program, || 0);
        let lines = told(&state, &[("SPANMALLOC_MEMLIMIT", "99999999TiB")]);
        assert_eq!(
            lines,
            [
                "spanmalloc: SPANMALLOC_MEMLIMIT=99999999TiB is not understood; it may be none or auto \
              or <size> (digits, then B, KiB, MiB, GiB or TiB); 5MiB is used\n"
            ]
        );
        assert_eq!(state.config(), program);
    }

    #[test]
    fn every_option_but_a_path_may_be_malformed() {
        for entry in OPTIONS.iter().filter(|entry| entry.applies()) {
            let state = State::new();
            let lines = told(&state, &[(entry.name, "banana")]);
            let is_path = matches!(entry.form, Form::Path(_));
            assert_eq!(lines.len(), usize::from(!is_path), "{}", entry.name);
            assert_eq!(state.config(), Config::new());
        }
    }

    #[test]
    fn unknown_name_is_told_and_those_of_others_are_not() {
        let state = State::new();
        let lines = told(
            &state,
            &[
                ("SPANMALLOC_RELEASES", "never"),
                ("SPANMALLOC_STATS_FILE", "x"),
                ("SPANMALLOC_TEST_ALONE", "1"),
                ("MY_SPANMALLOC_X", "1"),
                ("SPANMALLOC", "1"),
            ],
        );
        assert_eq!(
            lines,
            [
                "spanmalloc: SPANMALLOC_RELEASES is not known and has no effect; \
              SPANMALLOC_HELP=1 prints what there is\n"
            ]
        );
    }

    #[test]
    fn foreign_text_does_not_break_the_line_or_crowd_out_the_rest() {
        let state = State::new();
        let long = "x".repeat(5000);
        for value in ["a\nb\x1b[1m\u{e9}", &long] {
            let lines = told(&state, &[("SPANMALLOC_RELEASE", value)]);
            assert_eq!(lines.len(), 1);
            let line = lines[0].strip_suffix('\n').unwrap();
            assert!(
                line.bytes()
                    .all(|byte| byte.is_ascii_graphic() || byte == b' ')
            );
            assert!(line.ends_with("; lazily is used"), "{line}");
        }
    }

    #[test]
    fn first_of_two_variables_of_a_name_is_heard() {
        let state = State::new();
        let twice = [("SPANMALLOC_THP", "never"), ("SPANMALLOC_THP", "always")];
        assert_eq!(told(&state, &twice), NOTHING);
        assert_eq!(state.config().uses_huge_pages(), HugePages::Never);
    }

    #[test]
    fn help_has_each_option_with_the_value_in_effect() {
        let state = State::new();
        let lines = told(
            &state,
            &[
                ("SPANMALLOC_HELP", "1"),
                ("SPANMALLOC_MEMLIMIT", "auto"),
                ("SPANMALLOC_RELEASE", "never"),
            ],
        );
        let options = OPTIONS.iter().filter(|entry| entry.applies());
        assert_eq!(lines.len(), 1 + options.clone().count());
        for (line, entry) in lines[1..].iter().zip(options) {
            assert!(line.starts_with("spanmalloc: SPANMALLOC_"), "{line}");
            assert!(line.contains(entry.name), "{line}");
            assert!(line.contains(entry.meaning), "{line}");
            assert!(line.contains(&entry.form.accepted().join("|")), "{line}");
        }
        let line_of = |name: &str| {
            let start = std::format!("spanmalloc: {name} ");
            let line = lines.iter().find(|line| line.starts_with(&start)).unwrap();
            line.split_whitespace()
                .skip(2)
                .map(String::from)
                .collect::<Vec<_>>()
        };
        assert_eq!(
            line_of("SPANMALLOC_MEMLIMIT")[..3],
            ["auto:", "100MiB", "none"]
        );
        assert_eq!(line_of("SPANMALLOC_RELEASE")[..2], ["never", "lazily"]);
        assert_eq!(told(&State::new(), &[("SPANMALLOC_HELP", "0")]), NOTHING);
    }
}
