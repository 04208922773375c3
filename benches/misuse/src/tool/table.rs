//! The results as a Markdown table, and as JSON.

use std::fmt::Write;

use serde_json::{Value, json};
use spanmalloc_misuse::{Family, Language, Misuse};

use crate::allocators::Column;
use crate::results::Trial;

/// The families, in the order of the table.
const FAMILIES: [(Family, &str); 7] = [
    (Family::DoubleFree, "Double frees"),
    (Family::InvalidFree, "Frees of what is no object"),
    (Family::SizedFree, "Frees with a wrong size or alignment"),
    (Family::Resize, "Other calls with what is no object"),
    (Family::Overflow, "Writes beyond the end"),
    (Family::Underflow, "Writes before the start"),
    (Family::Stale, "Uses of free memory"),
];

pub const LEGEND: &str = "\
`caught`: stopped at the misuse. `later`: stopped before it did harm. `at exit`: stopped when all was done. \
`reported`: a line on standard error names the address, and the program goes on unharmed. `crash`: a fault \
without a message, by luck. `no harm`: it went unnoticed and nothing came of it. `no`: it did harm. `hangs`: it did not end. \
`in 7 of 20, else no`: caught or reported in so many runs. `–`: cannot be tried. Sizes, where they differ: T tiny (3 bytes), S small (48), \
M medium (5,000), L large (100,000), H huge (100 million). In the rows of the families: programs of which \
every run was caught or reported.";

/// One table: a row for each misuse, and above those of a family one with its sums.
pub fn markdown(columns: &[Column], misuses: &[&Misuse], trials: &[Trial]) -> String {
    let mut text = head(columns);
    for (family, name) in FAMILIES {
        let mut rows = misuses.iter().filter(|it| it.family == family).peekable();
        if rows.peek().is_some() {
            text += &sums(columns, trials, family, name);
        }
        for misuse in rows {
            let _ = write!(text, "| `{}`: {} |", misuse.name, misuse.sentence);
            for column in 0..columns.len() {
                let of_cell = |it: &&Trial| it.column == column && it.misuse.name == misuse.name;
                let cell: Vec<_> = trials.iter().filter(of_cell).collect();
                let _ = write!(text, " {} |", self::cell(&cell));
            }
            text.push('\n');
        }
    }
    text
}

/// The sums only, then what [`markdown`] has, folded up.
pub fn for_readme(columns: &[Column], misuses: &[&Misuse], trials: &[Trial]) -> String {
    let mut text = head(columns);
    for (family, name) in FAMILIES {
        if misuses.iter().any(|it| it.family == family) {
            text += &sums(columns, trials, family, name);
        }
    }
    let table = markdown(columns, misuses, trials);
    text + &format!(
        "\n<details>\n<summary>Each misuse</summary>\n\n{LEGEND}\n\n{table}\n</details>\n"
    )
}

fn head(columns: &[Column]) -> String {
    let names: String = columns.iter().map(|it| format!(" {} |", it.name)).collect();
    format!("| misuse |{names}\n|---|{}\n", "---|".repeat(columns.len()))
}

/// The row of a family.
fn sums(columns: &[Column], trials: &[Trial], family: Family, name: &str) -> String {
    let sums: String = (0..columns.len())
        .map(|column| format!(" {} |", sum(trials, column, family)))
        .collect();
    format!("| **{name}** |{sums}\n")
}

/// How many programs of a family were seen, of those that could be tried.
fn sum(trials: &[Trial], column: usize, family: Family) -> String {
    let is_of_it =
        |it: &&Trial| it.column == column && it.misuse.family == family && !it.is_absent();
    let tried: Vec<_> = trials.iter().filter(is_of_it).collect();
    let seen = tried.iter().filter(|it| it.is_seen()).count();
    match tried.len() {
        0 => "–".to_owned(),
        count => format!("**{seen} of {count}**"),
    }
}

/// One word if all programs came to the same, else a word for each language or each size.
fn cell(trials: &[&Trial]) -> String {
    let of = |language| {
        let of_language: Vec<_> = trials
            .iter()
            .copied()
            .filter(|it| it.language == language && !it.is_absent())
            .collect();
        sizes(&of_language)
    };
    let (c, rust) = (of(Language::C), of(Language::Rust));
    match (c.as_str(), rust.as_str()) {
        ("", "") => "–".to_owned(),
        (one, "") => one.to_owned(),
        ("", one) => format!("Rust: {one}"),
        (one, other) if one == other => one.to_owned(),
        _ => format!("C: {c}; Rust: {rust}"),
    }
}

/// One word, or the sizes before each.
fn sizes(trials: &[&Trial]) -> String {
    let mut words: Vec<(String, String)> = Vec::new();
    for trial in trials {
        let letter = trial.size.name()[..1].to_uppercase();
        let word = trial.word();
        match words.iter_mut().find(|it| it.1 == word) {
            Some((letters, _)) => *letters += &format!(" {letter}"),
            None => words.push((letter, word)),
        }
    }
    match words.as_slice() {
        [] => String::new(),
        [(_, word)] => word.clone(),
        _ => {
            let parts: Vec<_> = words
                .iter()
                .map(|(letters, word)| format!("{letters} {word}"))
                .collect();
            parts.join(" · ")
        }
    }
}

/// An array with an object for each program, size and allocator.
pub fn json(columns: &[Column], trials: &[Trial]) -> Value {
    let one = |trial: &Trial| {
        let (verdict, _) = trial.verdict();
        let seen = trial.runs.iter().filter(|run| run.verdict.is_seen());
        let text = |run: &crate::verdict::Run| json!({"verdict": run.verdict, "text": run.text});
        json!({
            "misuse": trial.misuse.name,
            "allocator": columns[trial.column].name,
            "language": trial.language.name(),
            "size": trial.size.name(),
            "bytes": trial.size.bytes(),
            "verdict": verdict.word(),
            "seen": seen.count(),
            "runs": trial.runs.iter().map(text).collect::<Vec<_>>(),
        })
    };
    trials.iter().map(one).collect()
}

#[cfg(test)]
mod tests {
    use spanmalloc_misuse::{MISUSES, Size};

    use super::*;
    use crate::verdict::{Run, Stage, Verdict};

    fn trial(language: Language, size: Size, verdicts: &[Verdict]) -> Trial {
        let run = |verdict: &Verdict| Run {
            verdict: *verdict,
            text: String::new(),
        };
        Trial {
            column: 0,
            misuse: &MISUSES[0],
            language,
            size,
            runs: verdicts.iter().map(run).collect(),
        }
    }

    const CAUGHT: Verdict = Verdict::Caught(Stage::AtTheMisuse);
    const LATER: Verdict = Verdict::Caught(Stage::BeforeHarm);

    #[test]
    fn a_trial_is_as_good_as_its_worst_run() {
        let word = |verdicts: &[Verdict]| trial(Language::C, Size::Small, verdicts).word();
        assert_eq!(word(&[CAUGHT, CAUGHT]), "caught");
        assert_eq!(word(&[LATER, CAUGHT]), "later");
        assert_eq!(word(&[CAUGHT, Verdict::Reported]), "reported");
        assert_eq!(word(&[CAUGHT, Verdict::Harm, LATER]), "in 2 of 3, else no");
        assert_eq!(word(&[Verdict::Crash, Verdict::Harm]), "no");
        assert_eq!(word(&[Verdict::NoHarm, Verdict::Crash]), "crash");
        assert_eq!(word(&[Verdict::Absent]), "–");
    }

    #[test]
    fn a_cell_says_no_more_than_what_differs() {
        use Language::{C, Rust};
        let text = |all: &[(Language, Size, Verdict)]| {
            let all: Vec<_> = all.iter().map(|it| trial(it.0, it.1, &[it.2])).collect();
            cell(&all.iter().collect::<Vec<_>>())
        };
        let (small, large) = (Size::Small, Size::Large);
        assert_eq!(text(&[(C, small, CAUGHT), (C, large, CAUGHT)]), "caught");
        let both = text(&[(C, small, CAUGHT), (Rust, small, CAUGHT)]);
        assert_eq!(both, "caught");
        let differ = text(&[(C, small, CAUGHT), (C, large, Verdict::Harm)]);
        assert_eq!(differ, "S caught · L no");
        let languages = text(&[(C, small, CAUGHT), (Rust, small, LATER)]);
        assert_eq!(languages, "C: caught; Rust: later");
        let absent = text(&[(C, small, Verdict::Absent), (Rust, small, CAUGHT)]);
        assert_eq!(absent, "Rust: caught");
        assert_eq!(text(&[]), "–");
    }

    #[test]
    fn all_families_are_in_the_table() {
        for misuse in MISUSES {
            assert!(FAMILIES.iter().any(|it| it.0 == misuse.family));
        }
    }
}
