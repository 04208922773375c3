//! What the system says about an address: whether it is on this thread's stack, or in static data.

#![allow(unsafe_code)]

use core::ffi::c_int;

use super::linux::KeepErrno;
use super::slot::SlotOfThread;

/// Bytes read from the list at once. A line is a range, five short fields, and the name of a file.
const PIECE_BYTES: usize = 1024;
/// Bytes of a line that are kept: all before the name of the file, and its beginning.
const LINE_BYTES: usize = 128;

/// Whether an address lies on the stack of the calling thread, in use, or in a private mapping of a file: code
/// and static data of the program and its libraries; the program's uninitialised data as well. False if that
/// can't be told. A few system calls; allocates nothing.
pub(crate) fn is_stack_or_static(address: usize) -> bool {
    is_data_of_program(address) || is_mapped_so(address)
}

/// Whether the list of mappings says so.
fn is_mapped_so(address: usize) -> bool {
    let here = 0_u8;
    let stack_pointer = (&raw const here).addr();
    // The C library has thread-local memory of its threads at the upper end of their stacks.
    let thread = SlotOfThread::here().map_or(0, SlotOfThread::address);
    let mut answer = false;
    let mut look = |mapping: Mapping| {
        let has = |place: usize| (mapping.start..mapping.limit).contains(&place);
        if has(address) {
            let is_on_stack = has(stack_pointer)
                && address >= stack_pointer
                && (mapping.name.starts_with(b"[stack]") || (has(thread) && address < thread));
            answer = is_on_stack || (mapping.is_private && mapping.name.starts_with(b"/"));
        }
        !has(address)
    };
    for_each_mapping(&mut look);
    answer
}

/// One line of the list.
struct Mapping<'a> {
    start: usize,
    limit: usize,
    is_private: bool,
    name: &'a [u8],
}

impl<'a> Mapping<'a> {
    /// `start-limit rwxp offset device inode      name`
    fn parse(line: &'a [u8]) -> Option<Self> {
        let mut fields = line
            .split(|byte| *byte == b' ')
            .filter(|field| !field.is_empty());
        let range = fields.next()?;
        let dash = range.iter().position(|byte| *byte == b'-')?;
        let permissions = fields.next()?;
        Some(Self {
            start: hexadecimal(range.get(..dash)?)?,
            limit: hexadecimal(range.get(dash + 1..)?)?,
            is_private: permissions.get(3) == Some(&b'p'),
            name: fields.nth(3).unwrap_or_default(),
        })
    }
}

fn hexadecimal(digits: &[u8]) -> Option<usize> {
    usize::from_str_radix(str::from_utf8(digits).ok()?, 16).ok()
}

/// Looks at all mappings of the process, as long as `look` wants more.
fn for_each_mapping(look: &mut impl FnMut(Mapping) -> bool) {
    let _errno = KeepErrno::new();
    // SAFETY: a string.
    let file = unsafe {
        libc::open(
            c"/proc/self/maps".as_ptr(),
            libc::O_RDONLY | libc::O_CLOEXEC,
        )
    };
    if file < 0 {
        return;
    }
    look_at_lines(file, look);
    // SAFETY: the file was opened above and nobody else has it.
    unsafe { libc::close(file) };
}

fn look_at_lines(file: c_int, look: &mut impl FnMut(Mapping) -> bool) {
    let mut line = [0_u8; LINE_BYTES];
    let mut len = 0;
    let mut piece = [0_u8; PIECE_BYTES];
    loop {
        // SAFETY: `piece` is valid for writes of its length.
        let read = unsafe { libc::read(file, piece.as_mut_ptr().cast(), piece.len()) };
        let Some(read) = usize::try_from(read).ok().filter(|read| *read > 0) else {
            return;
        };
        for byte in piece.iter().take(read) {
            if *byte != b'\n' {
                if let Some(place) = line.get_mut(len) {
                    *place = *byte;
                    len += 1;
                }
                continue;
            }
            let mapping = Mapping::parse(line.get(..len).unwrap_or_default());
            len = 0;
            if mapping.is_some_and(|mapping| !look(mapping)) {
                return;
            }
        }
    }
}

/// Whether an address lies in a segment of the program that can be written to, by its program headers: the list
/// of mappings shows uninitialised data like any other memory.
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
