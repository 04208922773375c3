//! What the system says about an address, found out in the middle of anything: which file the process's code
//! there comes from, and whether it is on this thread's stack or in static data.

#![allow(unsafe_code)]

use core::ffi::c_int;

use super::cgroup::restarted;
use super::linux::KeepErrno;
#[cfg(feature = "preload")]
use super::slot::SlotOfThread;

/// Bytes of the longest line of the list of mappings: about 73, and a path.
pub(crate) const LINE_BYTES: usize = 80 + libc::PATH_MAX as usize;

/// A part of the address space.
pub(crate) struct Mapping<'a> {
    pub(crate) start: usize,
    /// The first address after it.
    pub(crate) limit: usize,
    /// Whether writes there stay the process's own.
    #[cfg_attr(not(feature = "preload"), allow(dead_code))]
    is_private: bool,
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
        let is_private = words.next()?.get(3) == Some(&b'p');
        let file_offset = number(words.next()?)?;
        let path = words.nth(2).unwrap_or_default().trim_ascii();
        Some(Self {
            start,
            limit,
            is_private,
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

/// Whether an address lies on the stack of the calling thread, in use, or in a private mapping of a file: code
/// and static data of the program and its libraries; the program's uninitialised data as well. False if that
/// can't be told. A few system calls; allocates nothing.
#[cfg(feature = "preload")]
pub(crate) fn is_stack_or_static(address: usize) -> bool {
    is_data_of_program(address) || is_mapped_so(address)
}

/// Whether the list of mappings says so.
#[cfg(feature = "preload")]
fn is_mapped_so(address: usize) -> bool {
    let here = 0_u8;
    let stack_pointer = (&raw const here).addr();
    // The C library has thread-local memory of its threads at the upper end of their stacks.
    let thread = SlotOfThread::here().map_or(0, SlotOfThread::address);
    let mut answer = false;
    let mut lines = [0; 2 * LINE_BYTES];
    for_each_mapping(&mut lines, |mapping| {
        let has = |place: usize| (mapping.start..mapping.limit).contains(&place);
        if has(address) {
            let is_on_stack = has(stack_pointer)
                && address >= stack_pointer
                && (mapping.path.starts_with(b"[stack]") || (has(thread) && address < thread));
            answer = is_on_stack || (mapping.is_private && mapping.path.starts_with(b"/"));
        }
        has(address)
    });
    answer
}

/// Whether an address lies in a segment of the program that can be written to, by its program headers: the list
/// of mappings shows uninitialised data like any other memory.
#[cfg(feature = "preload")]
fn is_data_of_program(address: usize) -> bool {
    // SAFETY: no precondition; the kernel gave the program's headers, which stay in memory.
    let headers = unsafe {
        let first = libc::getauxval(libc::AT_PHDR) as *const libc::Elf64_Phdr;
        if first.is_null() {
            return false;
        }
        core::slice::from_raw_parts(first, libc::getauxval(libc::AT_PHNUM) as usize)
    };
    let own = headers.iter().find(|header| header.p_type == libc::PT_PHDR);
    let base = own.map_or(0, |own| headers.as_ptr().addr() - own.p_vaddr as usize);
    headers.iter().any(|header| {
        let offset = address.wrapping_sub(base + header.p_vaddr as usize);
        header.p_type == libc::PT_LOAD && offset < header.p_memsz as usize
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alone::alone;

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

    /// In a process of its own: with mappings that join others meanwhile, the kernel may show one twice.
    #[test]
    fn every_mapping_is_seen_whatever_the_room() {
        alone(|| {
            let here = every_mapping_is_seen_whatever_the_room as fn() as usize;
            for bytes in [2 * LINE_BYTES, 64 << 10] {
                let mut buffer = std::vec![0; bytes];
                let mut found = false;
                let mut last = 0;
                for_each_mapping(&mut buffer, |mapping| {
                    assert!(last <= mapping.start && mapping.start < mapping.limit);
                    last = mapping.limit;
                    found |=
                        (mapping.start..mapping.limit).contains(&here) && mapping.path[0] == b'/';
                    false
                });
                assert!(found);
            }
        });
    }

    #[cfg(feature = "preload")]
    mod places {
        use super::super::is_stack_or_static;
        use std::boxed::Box;
        use std::thread;

        static DATA: [u8; 8] = [1; 8];
        static mut ZEROS: [u8; 1 << 20] = [0; 1 << 20];

        fn is_told(address: usize) {
            assert!(is_stack_or_static(address), "{address:#x}");
        }

        #[test]
        fn stacks_and_static_data_are_told_from_other_memory() {
            let on_stack = [0_u64; 100];
            is_told(on_stack.as_ptr().addr());
            is_told(DATA.as_ptr().addr());
            is_told((&raw const ZEROS).addr() + (1 << 19));
            is_told((libc::malloc as *const u8).addr());
            let boxed = Box::new([1_u8; 4096]);
            assert!(!is_stack_or_static(boxed.as_ptr().addr()));
            assert!(!is_stack_or_static(8));
            let of_main = on_stack.as_ptr().addr();
            let other = thread::spawn(move || {
                let on_stack = [0_u64; 100];
                is_told(on_stack.as_ptr().addr());
                // Another thread's: nobody knows.
                let boxed = Box::new(1_u8);
                assert!(!is_stack_or_static((&raw const *boxed).addr()));
                of_main
            });
            assert!(other.join().is_ok());
        }
    }
}
