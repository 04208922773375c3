//! From text to values, and back.

use core::fmt;

use super::options::{Choice, Form, Report};
use super::secure::Secure;
use super::triggers::Triggers;
use super::values::MemoryLimit;

/// What a text means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Value {
    Word(Choice, u8),
    Limit(MemoryLimit),
    Triggers(Report, Triggers),
    Rate(usize),
    Secure(Secure),
    Guarded(u32),
    Path,
}

impl Form {
    /// What `text` means; `None` if it is malformed.
    pub(super) fn parse(&self, text: &[u8]) -> Option<Value> {
        match self {
            Self::Words(choice, words, _) => {
                let index = words.iter().position(|word| word.as_bytes() == text)?;
                Some(Value::Word(*choice, index as u8))
            }
            Self::Limit => Some(Value::Limit(match text {
                b"none" => MemoryLimit::None,
                b"auto" => MemoryLimit::Auto,
                size => MemoryLimit::Bytes(bytes_of(size)?),
            })),
            Self::Triggers(report) => Some(Value::Triggers(*report, Triggers::parse(text)?)),
            Self::Rate => Some(Value::Rate(bytes_of(text)?)),
            Self::Secure => Some(Value::Secure(Secure::parse(text)?)),
            Self::Guarded => {
                let is_number = text.iter().all(u8::is_ascii_digit);
                let number = bytes_of(text).filter(|_| is_number)?;
                Some(Value::Guarded(u32::try_from(number).ok()?))
            }
            Self::Path(_) => Some(Value::Path),
        }
    }
}

/// Units with their suffixes, as powers of two.
const UNITS: [(&[u8], u32); 6] = [
    (b"", 0),
    (b"B", 0),
    (b"KiB", 10),
    (b"MiB", 20),
    (b"GiB", 30),
    (b"TiB", 40),
];

/// The number in digits and an optional unit, as in Go's `GOMEMLIMIT`.
fn bytes_of(text: &[u8]) -> Option<usize> {
    let digits = text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let (digits, suffix) = text.split_at_checked(digits)?;
    let (_, power) = UNITS.iter().find(|(unit, _)| *unit == suffix)?;
    if digits.is_empty() {
        return None;
    }
    let number = digits.iter().try_fold(0_usize, |number, digit| {
        let digit = usize::from(digit - b'0');
        number.checked_mul(10)?.checked_add(digit)
    })?;
    number.checked_mul(1 << power)
}

/// A number of bytes in its largest whole unit.
pub(super) struct Size(pub(super) usize);

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(bytes) = *self;
        match bytes.trailing_zeros() {
            _ if bytes == 0 => write!(f, "0B"),
            0..10 => write!(f, "{bytes}B"),
            10..20 => write!(f, "{}KiB", bytes >> 10),
            20..30 => write!(f, "{}MiB", bytes >> 20),
            30..40 => write!(f, "{}GiB", bytes >> 30),
            _ => write!(f, "{}TiB", bytes >> 40),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::format;

    use super::*;

    #[test]
    fn sizes_are_digits_and_a_unit() {
        for (text, bytes) in [
            ("0", 0),
            ("1", 1),
            ("007B", 7),
            ("1000", 1000),
            ("3KiB", 3 << 10),
            ("512MiB", 512 << 20),
            ("2GiB", 2 << 30),
            ("1TiB", 1 << 40),
            ("18446744073709551615", usize::MAX),
            ("16777215TiB", 16_777_215 << 40),
        ] {
            assert_eq!(bytes_of(text.as_bytes()), Some(bytes), "{text}");
        }
    }

    #[test]
    fn rates_of_guarded_objects_are_digits() {
        for (text, one_in) in [
            ("0", Some(0)),
            ("1", Some(1)),
            ("4294967295", Some(u32::MAX)),
        ] {
            assert_eq!(
                Form::Guarded.parse(text.as_bytes()),
                one_in.map(Value::Guarded)
            );
        }
        for text in ["", "4294967296", "-1", "1KiB", "1B", "one"] {
            assert_eq!(Form::Guarded.parse(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn anything_else_is_malformed() {
        for text in [
            "",
            "B",
            "MiB",
            "-1",
            "+1",
            " 1",
            "1 ",
            "1 MiB",
            "1.5GiB",
            "1k",
            "1KB",
            "1MB",
            "1kib",
            "1mib",
            "1M",
            "1Mi",
            "1PiB",
            "0x10",
            "1e3",
            "1_000",
            "1MiBB",
            "1B1",
            "max",
            "1\0",
            "18446744073709551616",
            "16777216TiB",
            "99999999999999999999999999",
        ] {
            assert_eq!(bytes_of(text.as_bytes()), None, "{text:?}");
        }
    }

    #[test]
    fn limit_is_none_auto_or_a_size() {
        let parsed = |text: &str| match Form::Limit.parse(text.as_bytes()) {
            Some(Value::Limit(limit)) => Some(limit),
            _ => None,
        };
        assert_eq!(parsed("none"), Some(MemoryLimit::None));
        assert_eq!(parsed("auto"), Some(MemoryLimit::Auto));
        assert_eq!(parsed("1MiB"), Some(MemoryLimit::Bytes(1 << 20)));
        assert_eq!(parsed("None"), None);
        assert_eq!(parsed("off"), None);
    }

    #[test]
    fn word_is_its_index_and_exact() {
        let form = Form::Words(Choice::Release, &["lazily", "at-once", "never"], 0);
        let parsed = |text: &str| form.parse(text.as_bytes());
        assert_eq!(parsed("lazily"), Some(Value::Word(Choice::Release, 0)));
        assert_eq!(parsed("never"), Some(Value::Word(Choice::Release, 2)));
        for text in ["", "Lazily", "lazily ", "lazil", "2"] {
            assert_eq!(parsed(text), None, "{text}");
        }
    }

    #[test]
    fn size_is_written_as_it_is_read() {
        for bytes in [0, 1, 1000, 1024, 1536, 512 << 20, 3 << 40, (1 << 20) + 1] {
            let text = format!("{}", Size(bytes));
            assert_eq!(bytes_of(text.as_bytes()), Some(bytes), "{text}");
        }
        assert_eq!(format!("{}", Size(512 << 20)), "512MiB");
    }
}
