//! Which file the process's code at an address comes from, found out in the middle of anything.

#![allow(unsafe_code)]

use core::ffi::c_int;

use super::cgroup::restarted;
use super::linux::KeepErrno;

/// Bytes of the longest line of the list of mappings: about 73, and a path.
pub(crate) const LINE_BYTES: usize = 80 + libc::PATH_MAX as usize;

/// A part of the address space.
pub(crate) struct Mapping<'a> {
    pub(crate) start: usize,
    /// The first address after it.
    pub(crate) limit: usize,
    /// Where in the file it begins.
    pub(crate) file_offset: usize,
    /// Of the file; empty if there is none.
    pub(crate) path: &'a [u8],
}

impl<'a> Mapping<'a> {
    /// `start-limit permissions offset device inode path`
    fn parse(line: &'a [u8]) -> Option<Self> {
        let mut words = line.splitn(6, |byte| *byte == b' ');
        let mut range = words.next()?.split(|byte| *byte == b'-');
        let (start, limit) = (number(range.next()?)?, number(range.next()?)?);
        let file_offset = number(words.nth(1)?)?;
        let path = words.nth(2).unwrap_or_default().trim_ascii();
        Some(Self {
            start,
            limit,
            file_offset,
            path,
        })
    }
}

/// The number in hexadecimal digits.
fn number(digits: &[u8]) -> Option<usize> {
    digits.iter().try_fold(0_usize, |number, digit| {
        let digit = char::from(*digit).to_digit(16)?;
        Some(number << 4 | digit as usize)
    })
}

/// Calls `each` with each mapping of this process, from the lowest on, until it says that this was enough.
/// `buffer` has room for two lines at least. System calls alone, and no memory but the caller's.
pub(crate) fn for_each_mapping(buffer: &mut [u8], mut each: impl FnMut(Mapping<'_>) -> bool) {
    let _errno = KeepErrno::new();
    let path = c"/proc/self/maps".as_ptr();
    let flags = libc::O_RDONLY | libc::O_CLOEXEC;
    // SAFETY: a string.
    let file =
        restarted(|| unsafe { libc::syscall(libc::SYS_openat, libc::AT_FDCWD, path, flags, 0) });
    let Some(file) = file else {
        return;
    };
    let file = file as c_int;
    let mut len = 0;
    'file: loop {
        let room = buffer.get_mut(len..).unwrap_or_default();
        // SAFETY: `room` is valid for writes of its length.
        let read = restarted(|| unsafe {
            libc::syscall(libc::SYS_read, file, room.as_mut_ptr(), room.len())
        });
        match read {
            None | Some(0) => break,
            Some(bytes) => len += bytes,
        }
        let mut done = 0;
        while let Some(rest) = buffer.get(done..len)
            && let Some(end) = rest.iter().position(|byte| *byte == b'\n')
        {
            let line = rest.get(..end).unwrap_or_default();
            if Mapping::parse(line).is_some_and(&mut each) {
                break 'file;
            }
            done += end + 1;
        }
        buffer.copy_within(done..len, 0);
        len -= done;
    }
    // SAFETY: the file was opened above and nobody else has it.
    unsafe { libc::syscall(libc::SYS_close, file) };
}

/// Whether the code at an address is most likely the executable's own and not a library's: as near to its first
/// instruction as all of its code has to be (the small code model of both architectures' ABIs: 2 GiB, 4 GiB).
#[cfg(feature = "guarded")]
pub(crate) fn is_in_executable(address: usize) -> bool {
    // SAFETY: no precondition.
    let entry = unsafe { libc::getauxval(libc::AT_ENTRY) } as usize;
    entry != 0 && entry.abs_diff(address) < 1 << 31
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_have_a_range_an_offset_and_perhaps_a_path() {
        let line =
            b"7f00a000-7f00b000 r-xp 00026000 fe:01 77                 /lib/a b.so (deleted)";
        let mapping = Mapping::parse(line).unwrap();
        let numbers = (mapping.start, mapping.limit, mapping.file_offset);
        assert_eq!(numbers, (0x7f00_a000, 0x7f00_b000, 0x26000));
        assert_eq!(mapping.path, b"/lib/a b.so (deleted)");
        let mapping = Mapping::parse(b"1000-2000 rw-p 00000000 00:00 0 ").unwrap();
        assert_eq!(mapping.path, b"");
        for line in ["", "1000", "1000-x r-xp 0 0 0", "nonsense of words"] {
            assert!(Mapping::parse(line.as_bytes()).is_none(), "{line}");
        }
    }

    #[test]
    fn every_mapping_is_seen_whatever_the_room() {
        let here = every_mapping_is_seen_whatever_the_room as fn() as usize;
        for bytes in [2 * LINE_BYTES, 64 << 10] {
            let mut buffer = std::vec![0; bytes];
            let mut found = false;
            let mut last = 0;
            for_each_mapping(&mut buffer, |mapping| {
                assert!(last <= mapping.start && mapping.start < mapping.limit);
                last = mapping.limit;
                found |= (mapping.start..mapping.limit).contains(&here) && mapping.path[0] == b'/';
                false
            });
            assert!(found);
        }
    }
}
