//! When a report is made: a list of triggers.

use core::fmt;

/// What may be in a list, or `none` instead of one.
pub(super) const FORMS: &[&str] = &["none", "exit", "SIGUSR1", "SIGUSR2", "every=<n>s"];

/// When a report is made. Without any, never.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Triggers {
    /// At the end of the process by `exit`.
    pub(crate) at_exit: bool,
    /// When the process gets SIGUSR1.
    pub(crate) at_usr1: bool,
    /// When the process gets SIGUSR2.
    pub(crate) at_usr2: bool,
    /// Each time that so many seconds have passed, unless they are zero.
    pub(crate) every_s: u32,
}

const EXIT: u64 = 1 << 32;
const USR1: u64 = 1 << 33;
const USR2: u64 = 1 << 34;

impl Triggers {
    /// What a text means; `None` if it is malformed.
    pub(super) fn parse(text: &[u8]) -> Option<Self> {
        let mut triggers = Self::default();
        if text == b"none" {
            return Some(triggers);
        }
        for item in text.split(|byte| *byte == b',') {
            match item {
                b"exit" => triggers.at_exit = true,
                b"SIGUSR1" => triggers.at_usr1 = true,
                b"SIGUSR2" => triggers.at_usr2 = true,
                _ if triggers.every_s == 0 => triggers.every_s = seconds(item)?,
                _ => return None,
            }
        }
        Some(triggers)
    }

    /// Whether there is one at all.
    pub(crate) fn are_any(self) -> bool {
        self != Self::default()
    }

    /// Whether there is one that the end of the process is not.
    pub(crate) fn are_during_the_run(self) -> bool {
        self.at_usr1 || self.at_usr2 || self.every_s != 0
    }

    /// As one number, which an atomic word can hold.
    pub(super) fn encode(self) -> u64 {
        let bit = |is_set, bit| if is_set { bit } else { 0 };
        bit(self.at_exit, EXIT)
            | bit(self.at_usr1, USR1)
            | bit(self.at_usr2, USR2)
            | u64::from(self.every_s)
    }

    pub(super) fn decode(word: u64) -> Self {
        Self {
            at_exit: word & EXIT != 0,
            at_usr1: word & USR1 != 0,
            at_usr2: word & USR2 != 0,
            every_s: word as u32,
        }
    }
}

/// The period: `every=<n>s`, of which all but the number may be left out.
fn seconds(item: &[u8]) -> Option<u32> {
    let text = item.strip_prefix(b"every=").unwrap_or(item);
    let digits = text.strip_suffix(b"s").unwrap_or(text);
    // Digits alone: the standard library would take a sign.
    let are_digits = digits.iter().all(u8::is_ascii_digit);
    let seconds = str::from_utf8(digits).ok()?.parse().ok()?;
    (are_digits && seconds > 0).then_some(seconds)
}

impl fmt::Display for Triggers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words = [
            (self.at_exit, "exit"),
            (self.at_usr1, "SIGUSR1"),
            (self.at_usr2, "SIGUSR2"),
        ];
        let mut separator = "";
        for (_, word) in words.iter().filter(|(is_set, _)| *is_set) {
            write!(f, "{separator}{word}")?;
            separator = ",";
        }
        match self.every_s {
            0 if separator.is_empty() => f.write_str("none"),
            0 => Ok(()),
            seconds => write!(f, "{separator}every={seconds}s"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::format;

    use super::*;

    const NONE: Triggers = Triggers {
        at_exit: false,
        at_usr1: false,
        at_usr2: false,
        every_s: 0,
    };

    #[test]
    fn list_has_any_of_them_in_any_order() {
        for (text, expected) in [
            ("none", NONE),
            (
                "exit",
                Triggers {
                    at_exit: true,
                    ..NONE
                },
            ),
            (
                "SIGUSR1",
                Triggers {
                    at_usr1: true,
                    ..NONE
                },
            ),
            (
                "SIGUSR2",
                Triggers {
                    at_usr2: true,
                    ..NONE
                },
            ),
            (
                "every=30s",
                Triggers {
                    every_s: 30,
                    ..NONE
                },
            ),
            (
                "every=30",
                Triggers {
                    every_s: 30,
                    ..NONE
                },
            ),
            (
                "30s",
                Triggers {
                    every_s: 30,
                    ..NONE
                },
            ),
            (
                "30",
                Triggers {
                    every_s: 30,
                    ..NONE
                },
            ),
            (
                "exit,exit",
                Triggers {
                    at_exit: true,
                    ..NONE
                },
            ),
            (
                "every=4294967295s,SIGUSR2,exit,SIGUSR1",
                Triggers {
                    at_exit: true,
                    at_usr1: true,
                    at_usr2: true,
                    every_s: u32::MAX,
                },
            ),
        ] {
            assert_eq!(Triggers::parse(text.as_bytes()), Some(expected), "{text}");
        }
    }

    #[test]
    fn anything_else_is_malformed() {
        for text in [
            "",
            ",",
            "exit,",
            ",exit",
            "exit,,SIGUSR2",
            "exit, SIGUSR2",
            "exit ",
            "Exit",
            "none,exit",
            "exit,none",
            "SIGUSR",
            "USR1",
            "sigusr1",
            "SIGTERM",
            "0",
            "0s",
            "every=0s",
            "every=",
            "every=s",
            "s",
            "-1",
            "+1",
            "1.5s",
            "1m",
            "1ss",
            "every=every=1",
            "1 s",
            "1s,2s",
            "4294967296",
        ] {
            assert_eq!(Triggers::parse(text.as_bytes()), None, "{text:?}");
        }
    }

    #[test]
    fn list_is_written_as_it_is_read_and_fits_a_word() {
        for text in [
            "none",
            "exit",
            "SIGUSR2",
            "exit,SIGUSR1,SIGUSR2,every=4294967295s",
            "SIGUSR1,every=1s",
        ] {
            let triggers = Triggers::parse(text.as_bytes()).unwrap();
            assert_eq!(format!("{triggers}"), text);
            assert_eq!(Triggers::decode(triggers.encode()), triggers);
        }
    }

    #[test]
    fn end_of_the_process_is_not_during_its_run() {
        let parsed = |text: &str| Triggers::parse(text.as_bytes()).unwrap();
        assert!(!parsed("none").are_any());
        assert!(parsed("exit").are_any() && !parsed("exit").are_during_the_run());
        for text in ["SIGUSR1", "SIGUSR2", "9s"] {
            assert!(parsed(text).are_any() && parsed(text).are_during_the_run());
        }
    }
}
