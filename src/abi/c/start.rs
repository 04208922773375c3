//! What the library does when a program starts with it, and when that ends.
//!
//! The environment is read once ([`config::init`]), by the first allocation after the C library has
//! begun, and at the latest by the constructor here. Allocations before that, by the dynamic linker,
//! find the defaults. Calls are counted, and secure, from the constructor on, and
//! it arranges for the reports, and for a last look at what was freed.

use super::operators;
use crate::{config, record, report, runtime, sys};

#[used]
#[unsafe(link_section = ".init_array")]
static CONSTRUCTOR: extern "C" fn() = start;

extern "C" fn start() {
    config::init();
    runtime::decide_secure();
    operators::look_who_deletes();
    sys::stay_loaded(&CONSTRUCTOR);
    runtime::at_fork();
    runtime::at_exit();
    if record::begin() | config::counts_calls() {
        runtime::count_calls();
    }
    report::begin();
}
