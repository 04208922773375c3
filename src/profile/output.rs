//! Where a heap profile goes.

use core::ffi::CStr;

use crate::sys;

/// Writes the heap profile of this moment to a file; false if that cannot be written.
pub(crate) fn write_file(path: &CStr) -> bool {
    sys::Output::create(path).is_some()
}
