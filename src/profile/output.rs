//! Where a heap profile goes.

use core::ffi::CStr;
use std::ffi::OsStr;
use std::fs::File;
use std::os::unix::ffi::OsStrExt;

/// Writes the heap profile of this moment to a file; false if that cannot be written. Allocates.
pub(crate) fn write_file(path: &CStr) -> bool {
    let file = File::create(OsStr::from_bytes(path.to_bytes()));
    file.is_ok_and(|mut file| super::heap(&mut file).is_ok())
}
