//! What the system says of the process.

#![allow(unsafe_code)]

use super::cgroup::read;
use super::linux::{KeepErrno, page_bytes};

/// Bytes of `/proc/self/statm`: seven numbers.
const STATM_BYTES: usize = 256;

/// Bytes of memory that the process has, all of it, not only the heap; zero if the system does not tell. The
/// kernel's counters may be some dozens of pages behind for each thread.
pub(crate) fn resident_bytes() -> usize {
    let mut text = [0; STATM_BYTES];
    let pages = read(c"/proc/self/statm", &mut text).and_then(second_number);
    pages.unwrap_or(0).saturating_mul(page_bytes())
}

/// The second of several numbers with a blank between them.
fn second_number(text: &[u8]) -> Option<usize> {
    let digits = text.split(|byte| *byte == b' ').nth(1)?;
    core::str::from_utf8(digits).ok()?.parse().ok()
}

/// Page faults of the process so far: those that needed no input, and those that did.
pub(crate) fn page_faults() -> (u64, u64) {
    let _errno = KeepErrno::new();
    // SAFETY: an rusage is integers only, of which all zeros are values.
    let mut usage: libc::rusage = unsafe { core::mem::zeroed() };
    // SAFETY: `usage` is valid for writes.
    unsafe { libc::getrusage(libc::RUSAGE_SELF, &mut usage) };
    let count = |number: i64| u64::try_from(number).unwrap_or(0);
    (count(usage.ru_minflt), count(usage.ru_majflt))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn second_number_is_found_if_it_is_one() {
        assert_eq!(second_number(b"100 20 3 0 0 0 0\n"), Some(20));
        for text in [
            b"".as_slice(),
            b"100",
            b"100 x 1",
            b"1 -2 3",
            b"\xff \xff 1",
        ] {
            assert_eq!(second_number(text), None);
        }
    }

    #[test]
    fn a_process_has_memory_and_had_faults() {
        assert!(resident_bytes() > 100 << 10, "{}", resident_bytes());
        assert!(page_faults().0 > 10);
    }
}
