//! Whether spanmalloc catches what it must.

use spanmalloc_misuse::{Bar, Family, Misuse};

use crate::allocators::{Column, OURS, OURS_SECURE};
use crate::results::Trial;
use crate::verdict::Verdict;

/// A sentence for each program that misses a bar.
pub fn misses(columns: &[Column], trials: &[Trial]) -> Vec<String> {
    let is_ours = |column: &Column| [OURS, OURS_SECURE].contains(&column.name.as_str());
    let mut misses = Vec::new();
    for column in columns.iter().filter(|it| is_ours(it)) {
        let missing = column.missing();
        misses.extend(
            missing.map(|(language, error)| format!("{}, {language}: {error}", column.name)),
        );
    }
    for trial in trials.iter().filter(|it| is_ours(&columns[it.column])) {
        let name = &columns[trial.column].name;
        let is_missed = |verdict| !satisfies(trial.misuse, name == OURS_SECURE, verdict);
        let missed = trial.runs.iter().filter(|run| is_missed(run.verdict));
        let count = missed.clone().count();
        if let Some(run) = missed.min_by_key(|run| run.verdict) {
            misses.push(format!(
                "{name}: {} ({}, {}): {} in {count} of {} runs: {}",
                trial.misuse.name,
                trial.language.name(),
                trial.size.name(),
                run.verdict.word(),
                trial.runs.len(),
                run.text,
            ));
        }
    }
    misses
}

/// A write to free memory that nobody gets to see need not be seen.
fn satisfies(misuse: &Misuse, is_secure: bool, verdict: Verdict) -> bool {
    match (misuse.bar, verdict) {
        (_, Verdict::Broken) => false,
        (_, Verdict::Absent) | (Bar::None, _) => true,
        (Bar::Secure, _) if !is_secure => true,
        (Bar::Secure, Verdict::NoHarm) => misuse.family == Family::Stale,
        _ => verdict.is_seen(),
    }
}

#[cfg(test)]
mod tests {
    use spanmalloc_misuse::MISUSES;

    use super::*;
    use crate::verdict::Stage;

    #[test]
    fn the_bars_are_those_of_each_mode() {
        let caught = Verdict::Caught(Stage::AtExit);
        let satisfies = |name: &str, is_secure, verdict| {
            let misuse = MISUSES.iter().find(|it| it.name == name).unwrap();
            super::satisfies(misuse, is_secure, verdict)
        };
        for is_secure in [false, true] {
            assert!(satisfies("double-free", is_secure, caught));
            assert!(satisfies("free-stack", is_secure, Verdict::Reported));
            for bad in [Verdict::Harm, Verdict::Crash, Verdict::NoHarm] {
                assert!(!satisfies("double-free", is_secure, bad));
                assert!(satisfies("overflow-1", is_secure, bad) != is_secure);
                assert!(satisfies("read-after-free", is_secure, bad));
            }
            assert!(satisfies("write-after-free", is_secure, Verdict::NoHarm));
            assert!(satisfies("sized-delete", is_secure, Verdict::Absent));
            assert!(!satisfies("read-after-free", is_secure, Verdict::Broken));
        }
        assert!(!satisfies("write-after-free", true, Verdict::Harm));
    }
}
