//! What is said about misuse of a guarded object: a line, and stacks.

#![allow(unsafe_code)]

use core::fmt::Write;

use super::object::{Trace, stacks};
use super::pool::{self, Place, State};
use crate::base::fatal::Crime;
use crate::base::line::Line;
use crate::profile::print::{self, First, PATIENCE_NS};
use crate::profile::stack;
use crate::sys::{self, Fault};

/// Says that something was done with a pointer that is none to a live object, and ends the process.
#[cold]
pub(super) fn wrong_pointer(
    crime: Crime,
    address: usize,
    place: Option<&Place>,
    (done, trace): (&str, &Trace),
) -> ! {
    crime.line(crime.operation(), address).print();
    if let Some(place) = place {
        tell_of_place(place);
    }
    tell(done, trace);
    sys::abort()
}

/// Says that a byte beside an object was changed, and ends the process.
#[cold]
pub(super) fn damaged(offset: isize, place: &Place, freed: &Trace) -> ! {
    let address = place.object.wrapping_add_signed(offset);
    let mut line = beside(address, place);
    let _ = writeln!(line, ", seen when that was freed");
    line.print();
    tell_of_place(place);
    tell("freed", freed);
    sys::abort()
}

/// Looks at an access that failed, in a handler of a signal. Nothing is said of one that is not ours.
pub(super) fn look(fault: &Fault) {
    if !pool::contains(fault.address) || !pool::locks_come_free(sys::now_ns() + PATIENCE_NS) {
        return;
    }
    let mut pool = pool::lock();
    let Some(place) = pool.nearest(fault.address) else {
        return;
    };
    let mut line = match place.state {
        State::Freed => of("use after free", fault.address, place),
        State::Live | State::Unused => beside(fault.address, place),
    };
    line.push(b"\n");
    line.print();
    tell_of_place(place);
    // The last, as the unwinder may meet what it does not understand.
    let stack = stack::interrupted(fault.caller, fault.stack_pointer, stacks());
    let thread = Some(sys::kernel_thread_id());
    print::stack("accessed", thread, stack.frames(), First::Is);
}

/// The line about an access beside an object, without an end.
fn beside(address: usize, place: &Place) -> Line {
    let crime = if address < place.object {
        "underflow"
    } else {
        "overflow"
    };
    of(crime, address, place)
}

fn of(crime: &str, address: usize, place: &Place) -> Line {
    let (object, bytes) = (place.object, place.bytes);
    let offset = address.wrapping_sub(object) as isize;
    let mut line = Line::new();
    let _ = write!(
        line,
        "{crime} at {address:#x}, byte {offset} of an object of {bytes} bytes at {object:#x}"
    );
    line
}

/// After the line about a crime at an address: the stacks of the guarded object there. The caller does not hold the
/// lock of this floor.
pub(crate) fn tell_of(address: usize) {
    if pool::contains(address)
        && pool::locks_come_free(sys::now_ns() + PATIENCE_NS)
        && let Some(place) = pool::lock().nearest(address)
    {
        tell_of_place(place);
    }
}

/// Prints who allocated an object, and who freed it.
fn tell_of_place(place: &Place) {
    if place.state == State::Unused {
        return;
    }
    tell("allocated", &place.allocated);
    if place.state == State::Freed {
        tell("freed", &place.freed);
    }
}

fn tell(done: &str, trace: &Trace) {
    print::stack(
        done,
        Some(trace.thread),
        trace.stack.frames(),
        First::Returns,
    );
}
