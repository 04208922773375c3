//! The first difference between two outputs.

use std::fmt;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};

/// Bytes of each output that a difference shows: these many at most ...
const SHOWN_BYTES: u64 = 60;
/// ... of which these many may lie before it, in the same line.
const BEFORE_BYTES: u64 = 24;

/// Where two outputs part, and what they have there.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Difference {
    /// From 0.
    offset: u64,
    /// From 1.
    line: u64,
    left: Excerpt,
    right: Excerpt,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            offset,
            line,
            left,
            right,
        } = self;
        write!(f, "at byte {offset}, line {line}: {left} and {right}")
    }
}

/// A piece of a line, from the same place in both outputs; `None` if one ends there.
#[derive(Debug, PartialEq, Eq)]
struct Excerpt(Option<Vec<u8>>);

impl fmt::Display for Excerpt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Some(bytes) => write!(f, "{:?}", String::from_utf8_lossy(bytes)),
            None => f.write_str("the end of the output"),
        }
    }
}

/// Compares two outputs from their beginnings, in pieces: they may be larger than memory.
pub(crate) fn first_difference<F: Read + Seek>(
    left: &mut F,
    right: &mut F,
) -> io::Result<Option<Difference>> {
    left.rewind()?;
    right.rewind()?;
    let mut left_pieces = BufReader::new(&mut *left);
    let mut right_pieces = BufReader::new(&mut *right);
    let mut offset = 0;
    let mut line = 1;
    let mut line_start = 0;
    loop {
        let (a, b) = (left_pieces.fill_buf()?, right_pieces.fill_buf()?);
        let both = a.len().min(b.len());
        let same = a.iter().zip(b).take_while(|(a, b)| a == b).count();
        for (index, _) in a[..same].iter().enumerate().filter(|(_, b)| **b == b'\n') {
            line += 1;
            line_start = offset + index as u64 + 1;
        }
        offset += same as u64;
        if same == both && both > 0 {
            left_pieces.consume(same);
            right_pieces.consume(same);
            continue;
        }
        if a.is_empty() && b.is_empty() {
            return Ok(None);
        }
        let from = line_start.max(offset.saturating_sub(BEFORE_BYTES));
        return Ok(Some(Difference {
            offset,
            line,
            left: excerpt(left, from)?,
            right: excerpt(right, from)?,
        }));
    }
}

fn excerpt<F: Read + Seek>(file: &mut F, from: u64) -> io::Result<Excerpt> {
    file.seek(SeekFrom::Start(from))?;
    let mut bytes = Vec::new();
    file.take(SHOWN_BYTES).read_to_end(&mut bytes)?;
    if bytes.is_empty() {
        return Ok(Excerpt(None));
    }
    if let Some(end) = bytes.iter().position(|byte| *byte == b'\n') {
        bytes.truncate(end + 1);
    }
    Ok(Excerpt(Some(bytes)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Cursor;

    fn difference(left: &str, right: &str) -> Option<String> {
        let (mut left, mut right) = (Cursor::new(left), Cursor::new(right));
        let found = first_difference(&mut left, &mut right).unwrap();
        found.map(|difference| difference.to_string())
    }

    #[test]
    fn equal_outputs_have_none() {
        assert_eq!(difference("", ""), None);
        assert_eq!(difference("a\nb\n", "a\nb\n"), None);
        let long = "0123456789\n".repeat(10_000);
        assert_eq!(difference(&long, &long), None);
    }

    #[test]
    fn the_place_and_both_lines_are_told() {
        let told = difference("one\ntwo\nthree\n", "one\ntoo\nthree\n").unwrap();
        assert_eq!(told, r#"at byte 5, line 2: "two\n" and "too\n""#);
    }

    #[test]
    fn an_end_is_told() {
        let told = difference("one\n", "one\ntwo\n").unwrap();
        assert_eq!(
            told,
            r#"at byte 4, line 2: the end of the output and "two\n""#
        );
        let told = difference("one", "").unwrap();
        assert_eq!(
            told,
            r#"at byte 0, line 1: "one" and the end of the output"#
        );
        let told = difference("one", "one\n").unwrap();
        assert_eq!(told, r#"at byte 3, line 1: "one" and "one\n""#);
    }

    #[test]
    fn a_difference_far_into_a_long_line_is_shown_with_what_is_around_it() {
        let long = "x".repeat(100_000);
        let told = difference(&format!("a\n{long}1"), &format!("a\n{long}2")).unwrap();
        let before = "x".repeat(24);
        assert_eq!(
            told,
            format!("at byte 100002, line 2: \"{before}1\" and \"{before}2\"")
        );
    }
}
