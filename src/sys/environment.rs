//! The environment of the process, read without the C library, whose functions may take locks.
//!
//! A program that has more rights than its user (`AT_SECURE`: setuid and the like) has no environment
//! here, as it is not to be trusted then.
//!
//! As with C's `getenv`, no other thread may change the environment meanwhile. It is read at the first
//! slow call of the allocator and by constructors, where a program has one thread; Rust asks the same
//! of those who call `set_var`.

#![allow(unsafe_code)]

use core::ffi::{CStr, c_char};

unsafe extern "C" {
    static environ: *const *const c_char;
}

/// Whether the environment can be read: not before the C library has begun, which the dynamic linker's
/// first allocations are.
pub(crate) fn has_environment() -> bool {
    // SAFETY: the C library's pointer, which nobody writes meanwhile.
    !unsafe { environ }.is_null()
}

/// The value of a variable, if the environment has it.
pub(crate) fn environment(name: &str) -> Option<&'static [u8]> {
    variables().find_map(|(there, value)| (there == name.as_bytes()).then_some(value))
}

/// Names and values.
pub(crate) fn variables() -> impl Iterator<Item = (&'static [u8], &'static [u8])> + Clone {
    entries().filter_map(|text| {
        let middle = text.iter().position(|byte| *byte == b'=')?;
        Some((text.get(..middle)?, text.get(middle + 1..)?))
    })
}

/// The texts `name=value`.
fn entries() -> impl Iterator<Item = &'static [u8]> + Clone {
    // SAFETY: no precondition.
    let is_secure = unsafe { libc::getauxval(libc::AT_SECURE) } != 0;
    // SAFETY: the C library's pointer to a null-terminated array of pointers to strings, or null.
    let mut entry = unsafe { environ };
    core::iter::from_fn(move || {
        if is_secure || entry.is_null() {
            return None;
        }
        // SAFETY: the array ends with null, which is not passed.
        let text = unsafe { *entry };
        if text.is_null() {
            return None;
        }
        // SAFETY: not at the end of the array.
        entry = unsafe { entry.add(1) };
        // SAFETY: a string, which lives as long as the environment is not changed.
        Some(unsafe { CStr::from_ptr(text) }.to_bytes())
    })
}

#[cfg(test)]
mod tests {
    use std::env;
    use std::os::unix::ffi::OsStrExt;
    use std::vec::Vec;

    use super::*;

    #[test]
    fn environment_is_that_of_the_process() {
        assert!(has_environment());
        let ours: Vec<_> = variables().collect();
        assert_eq!(ours.len(), env::vars_os().count());
        for ((name, value), (there_name, there_value)) in ours.iter().zip(env::vars_os()) {
            assert_eq!(*name, there_name.as_bytes());
            assert_eq!(*value, there_value.as_bytes());
        }
    }

    #[test]
    fn variable_is_found_by_its_whole_name() {
        let path = env::var_os("PATH").unwrap();
        assert_eq!(environment("PATH"), Some(path.as_bytes()));
        assert_eq!(environment("PAT"), None);
        assert_eq!(environment("PATH="), None);
    }
}
