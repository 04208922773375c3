//! The C interface: `malloc` and its family, for programs that get it by `LD_PRELOAD`.
//!
//! Only with the feature `preload`, because a library that defines these symbols replaces the
//! allocator of every program it comes into. POSIX, C23 and glibc say what each function does; where
//! they leave a choice:
//!
//! * Objects of up to 8 bytes are aligned to 8, all others to 16 or more, so the class of 24 bytes and the
//!   tiny ones are not used here.
//! * `malloc(0)` is an object of its own, and any access to it faults ([`zero`]); beyond an alignment of 16 it is
//!   like one of a byte. `realloc(p, 0)` frees `p` and returns null, as in glibc.
//! * A size above `PTRDIFF_MAX`, or a product that overflows, is ENOMEM.
//! * `aligned_alloc` does not ask the size to be a multiple of the alignment; an alignment that is
//!   not a power of two is EINVAL. `memalign` rounds it up, as glibc does.
//! * What `malloc_usable_size` says may be written: in secure mode, and of guarded objects, what was asked
//!   for, and not more. But for the secure mode, an object stays in its place when its size changes within the
//!   upper half of that.
//! * A pointer that is not from this heap is fatal where no allocator can have handed it out, else reported
//!   once and left alone (see [`foreign`]).
//!
//! A pointer comes without its size, so its class is looked up: one load from the table of arenas,
//! one that depends on it from the arena's. That tells whether an object can begin there as well. All else
//! is as for `GlobalAlloc`, and both may be used in one program.
//!
//! Nothing unwinds out of these functions (but C++'s `new`), and yet they are `extern "C-unwind"`: the
//! guard that the compiler puts into `extern "C"` functions would keep the slow calls from being tail
//! calls, and cost a push and a pop on the fast paths.
//!
//! No function here calls one by its C name: the compiler knows what `malloc` and `calloc` are, and
//! would make recursions of it.

#![allow(unsafe_code)]
#![allow(clippy::missing_safety_doc)] // The contracts are those of the C standard.

mod aliases;
mod aligned;
mod foreign;
mod inspect;
mod operators;
mod resize;
mod sized;
mod start;

use core::ffi::c_void;
use core::ptr;

use resize::reallocate;

use crate::arena::{Place, class_at, held_class, place_of, take_held, watched_class_at};
use crate::base::fatal::{Crime, fatal, fatal_in};
use crate::base::size_class::{
    SMALL_MAX_BYTES, SizeClass, class_for, class_for_direct, class_for_malloc, class_for_stepped,
    malloc_align,
};
use crate::mcache::is_rare;
use crate::mspan::MSpan;
use crate::record::{self, raw::Kind};
use crate::secure::{self, Told};
use crate::sys::caller::{Caller, entry};
use crate::{guarded, large, malloc, runtime, sys, zero};

/// The alignment of objects of more than 8 bytes, `alignof(max_align_t)` of the platforms.
const ALIGN: usize = malloc_align(usize::MAX);
/// Larger objects do not exist: differences of their pointers would overflow.
const SIZE_MAX: usize = isize::MAX as usize;

/// `malloc`: C17 7.22.3.4.
#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn malloc(size: usize) -> *mut c_void {
    allocate(size)
}

/// `free`: C17 7.22.3.3; keeps errno (POSIX 2024).
#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn free(object: *mut c_void) {
    // SAFETY: the caller's contract.
    unsafe { release(object) }
}

/// `calloc`: C17 7.22.3.2.
#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn calloc(count: usize, size: usize) -> *mut c_void {
    allocate_zeroed(count, size)
}

/// `realloc`: C17 7.22.3.5.
#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn realloc(object: *mut c_void, size: usize) -> *mut c_void {
    // SAFETY: the caller's contract.
    unsafe { reallocate(object, size) }
}

/// Allocates `size` bytes at a multiple of [`malloc_align`]. Null, and ENOMEM, if there is no memory.
#[inline(always)] // The fast path of `malloc`.
fn allocate(size: usize) -> *mut c_void {
    allocate_of(class_for_malloc(size), size, 0)
}

/// Allocates `size` bytes at a multiple of `align`, a power of two of at least [`malloc_align`]. Null, and
/// ENOMEM, if there is no memory.
#[inline]
fn allocate_at(size: usize, align: usize) -> *mut c_void {
    allocate_of(class_for_direct(size, align), size, align)
}

/// Allocates an object of `class`, if it has one, at a multiple of `align` and of [`malloc_align`], which only slow calls
/// work out.
#[inline(always)] // As above.
fn allocate_of(class: Option<SizeClass>, size: usize, align: usize) -> *mut c_void {
    let Some(class) = class else {
        // SAFETY: no precondition.
        return unsafe { allocate_rest(size, align) };
    };
    let magazines = runtime::magazines();
    let object = magazines.pop(class);
    if is_rare(object) {
        // SAFETY: no precondition.
        return unsafe { allocate_slow(class, size, align) };
    }
    if magazines.counts_down(size) {
        let align = align.max(malloc_align(size));
        // SAFETY: the object was popped just now.
        return unsafe { malloc::sampled(object, class, size, align) }.cast();
    }
    object.cast()
}

entry! {
    /// [`allocate_of`] for no bytes and beyond 2 KiB. No precondition.
    fn allocate_rest(size: usize, align: usize) -> *mut c_void = allocate_rest_from
}

unsafe extern "C-unwind" fn allocate_rest_from(
    size: usize,
    align: usize,
    frame: usize,
    return_address: usize,
) -> *mut c_void {
    let caller = Caller::new(frame, return_address);
    let align = align.max(malloc_align(size));
    let object = match class_for_stepped(size, align) {
        Some(class) => malloc::alloc_at_once(class, size),
        None if size > SMALL_MAX_BYTES && !record::is_on() => {
            malloc::alloc_large_at_once(size, align, caller)
        }
        None => ptr::null_mut(),
    };
    if object.is_null() {
        return allocate_from(size, align, caller);
    }
    object.cast()
}

entry! {
    /// [`allocate_of`] when the magazine has nothing to hand out at once. No precondition.
    #[cold]
    fn allocate_slow(class: SizeClass, size: usize, align: usize) -> *mut c_void = allocate_slow_from
}

unsafe extern "C-unwind" fn allocate_slow_from(
    class: SizeClass,
    size: usize,
    align: usize,
    frame: usize,
    return_address: usize,
) -> *mut c_void {
    let caller = Caller::new(frame, return_address);
    let align = align.max(malloc_align(size));
    allocated(malloc::alloc_small(class, size, align, caller), size, align)
}

/// An object from a magazine, if nothing else is to be done for it; else null. `direct` is the class, if the table of
/// small requests has one.
#[inline]
fn allocate_at_once(direct: Option<SizeClass>, size: usize, align: usize) -> *mut c_void {
    let class = direct.or_else(|| class_for_stepped(size, align));
    class.map_or(ptr::null_mut(), |class| {
        malloc::alloc_at_once(class, size).cast()
    })
}

/// [`allocate_at`] for `caller`, not fast.
#[inline(never)]
fn allocate_from(size: usize, align: usize, caller: Caller) -> *mut c_void {
    if size > SIZE_MAX - (align - 1) {
        return out_of_memory();
    }
    let object = if size == 0 && align <= ALIGN {
        zero::alloc()
    } else {
        malloc::alloc_from(size, align, caller)
    };
    allocated(object, size, align)
}

/// The end of an allocation of the slow kind: null is no memory, and calls that are recorded take no other way.
fn allocated(object: *mut u8, size: usize, align: usize) -> *mut c_void {
    let object = or_out_of_memory(object);
    if record::is_on() && !object.is_null() {
        record::note(Kind::Alloc, object.cast(), size, align);
    }
    object
}

/// Null, and errno says why.
#[cold]
fn out_of_memory() -> *mut c_void {
    sys::set_errno(libc::ENOMEM);
    ptr::null_mut()
}

fn or_out_of_memory(object: *mut u8) -> *mut c_void {
    if object.is_null() {
        return out_of_memory();
    }
    object.cast()
}

/// Allocates `count` times `size` zero bytes.
#[inline]
fn allocate_zeroed(count: usize, size: usize) -> *mut c_void {
    let bytes = count.wrapping_mul(size);
    let has_class = count.checked_mul(size).is_some();
    if let Some(class) = class_for_malloc(bytes).filter(|_| has_class) {
        let magazines = runtime::magazines();
        // A sample is left to the other call: after a memset there is no jump to anything.
        if !magazines.would_be_due(bytes) {
            let object = magazines.pop(class);
            if !is_rare(object) {
                magazines.counts_down(bytes);
                // SAFETY: the object is ours and has at least that many bytes.
                unsafe { object.write_bytes(0, bytes) };
                return object.cast();
            }
        }
    }
    // SAFETY: no precondition.
    unsafe { allocate_zeroed_rest(count, size) }
}

entry! {
    /// [`allocate_zeroed`] where it is not fast. No precondition.
    fn allocate_zeroed_rest(count: usize, size: usize) -> *mut c_void = allocate_zeroed_rest_from
}

unsafe extern "C-unwind" fn allocate_zeroed_rest_from(
    count: usize,
    size: usize,
    frame: usize,
    return_address: usize,
) -> *mut c_void {
    let caller = Caller::new(frame, return_address);
    match count.checked_mul(size) {
        Some(bytes) if bytes <= SIZE_MAX - ALIGN => {
            let is_recorded = record::is_on();
            if is_recorded {
                record::note(Kind::Begin, ptr::null_mut(), 0, ALIGN);
            }
            let object = or_out_of_memory(match bytes {
                0 => zero::alloc(),
                _ => malloc::alloc_zeroed_from(bytes, malloc_align(bytes), caller),
            });
            if is_recorded {
                record::note(Kind::EndZeroed, object, bytes, malloc_align(bytes));
            }
            object
        }
        _ => out_of_memory(),
    }
}

/// Frees an object; null is none.
///
/// # Safety
/// `object` is null, or an object of this heap that is not free and that nobody uses any more.
/// (What else it may be is looked for, and not always found.)
#[inline(always)] // The fast path of `free`.
unsafe fn release(object: *mut c_void) {
    if let Some(class) = class_at(object.addr())
        && runtime::magazines().push(class, object.cast())
    {
        return;
    }
    // SAFETY: the caller's contract.
    unsafe { release_slow(object.cast()) }
}

entry! {
    /// # Safety
    /// As for [`release`].
    #[cold]
    fn release_slow(object: *mut u8) -> () = release_slow_from
}

unsafe extern "C-unwind" fn release_slow_from(
    object: *mut u8,
    frame: usize,
    return_address: usize,
) {
    // Where calls are recorded, and in secure mode, magazines have no room.
    if let Some(class) = watched_class_at(object.addr())
        && malloc::free_at_once(class, object)
    {
        return;
    }
    if !record::is_on() && malloc::free_large_at_once(object) {
        return;
    }
    release_rest(object, Caller::new(frame, return_address));
}

/// [`release`] of what no magazine takes, or is no object.
#[cold]
#[inline(never)]
fn release_rest(object: *mut u8, caller: Caller) {
    if object.is_null() {
        return;
    }
    if record::is_on() {
        record::note(Kind::Free, object.cast(), 0, 1);
    }
    if guarded::contains(object.addr()) {
        return guarded::free(object, None, caller);
    }
    if secure::is_on() && !has_no_bytes(object) {
        return release_secure(object, Told::Nothing);
    }
    if is_large(object) {
        return malloc::free_large(object, None);
    }
    // An object of no bytes may lie where a note of the secure mode's is, which nobody takes away.
    if !secure::is_on()
        && let Some(class) = take_held(object.addr())
    {
        return malloc::free_taken(class, object);
    }
    match live_span("free", object) {
        Some(span) if span.is_zero() => zero::free(span, object),
        Some(span) if span.class().is_watched() => fatal(Crime::DoubleFree, object.addr()),
        Some(span) => malloc::free_small(span.class(), object),
        None => foreign::report("free", object.addr()),
    }
}

fn release_secure(object: *mut u8, told: Told) {
    if !secure::free(object, told) {
        foreign::report("free", object.addr());
    }
}

/// Whether the pages of a large object are there.
fn is_large(object: *mut u8) -> bool {
    match place_of(object.addr()) {
        Place::Live(span) => span.class() == SizeClass::NONE && !span.is_zero(),
        _ => false,
    }
}

/// Whether an object of no bytes is there.
fn has_no_bytes(object: *mut u8) -> bool {
    matches!(place_of(object.addr()), Place::Live(span) if span.is_zero())
}

/// The span that an object lies in, which begins there; `None` if it is not from this heap. Aborts on the
/// middle of an object, on free memory, and on a tiny object of `GlobalAlloc`, which C has no business with.
fn live_span(function: &str, object: *mut u8) -> Option<&'static MSpan> {
    let crime = match place_of(object.addr()) {
        Place::Live(span) if span.class().is_tiny() => Crime::WrongLayout,
        Place::Live(span) if span.is_free() => Crime::FreeMemory,
        Place::Live(span) if !span.can_begin_at(object) => Crime::InteriorPointer,
        // A free says more of these two. Of watched objects, those that the program has are found before.
        Place::Live(span) if span.class().is_watched() && function != "free" => Crime::FreeMemory,
        Place::Live(span)
            if span.is_zero() && function != "free" && zero::is_free(span, object) =>
        {
            Crime::FreeMemory
        }
        Place::Live(span) => return Some(span),
        Place::Free => Crime::FreeMemory,
        Place::Foreign => return None,
    };
    fatal_in(function, crime, object.addr())
}

/// The class of the object that is there, if it has one. Aborts if it waits to be handed out again, as far as this
/// thread knows. In secure mode only for objects of no bytes, which have none.
#[inline(always)] // The fast path of `realloc`.
fn class_in_use(function: &str, object: *mut u8) -> Option<SizeClass> {
    let Some(class) = class_at(object.addr()) else {
        return held_class(object.addr()).filter(|_| !secure::is_on());
    };
    if runtime::magazines().waits(class, object) {
        waiting_is_used(function, object);
    }
    Some(class)
}

#[cold]
#[inline(never)]
fn waiting_is_used(function: &str, object: *mut u8) -> ! {
    fatal_in(function, Crime::FreeMemory, object.addr())
}

/// Bytes of an object that may be used; zero for null and for what is not from this heap.
fn usable_size(object: *mut c_void) -> usize {
    if object.is_null() {
        return 0;
    }
    const FUNCTION: &str = "malloc_usable_size";
    usable_size_at(FUNCTION, object).unwrap_or_else(|| {
        foreign::report(FUNCTION, object.addr());
        0
    })
}

/// Bytes of an object that may be used; `None` for null and for what is not from this heap. Aborts on what is
/// no object.
fn usable_size_at(function: &str, object: *mut c_void) -> Option<usize> {
    if guarded::contains(object.addr()) {
        return Some(guarded::bytes_of(object.cast(), Caller::new(0, 0)));
    }
    if secure::is_on() && !has_no_bytes(object.cast()) {
        return secure::size_of(object.cast());
    }
    if let Some(class) = class_in_use(function, object.cast()) {
        return Some(class.object_bytes());
    }
    live_span(function, object.cast()).map(usable_of)
}

/// Bytes of an object without a class that may be used.
fn usable_of(span: &MSpan) -> usize {
    if span.is_zero() {
        0
    } else {
        span.usable_bytes()
    }
}

/// Bytes that an object of `size` bytes at `align` could use; zero also if there can be none.
fn usable_size_for(size: usize, align: usize) -> usize {
    if size > SIZE_MAX - (align - 1) || (size == 0 && align <= ALIGN) {
        return 0;
    }
    if secure::is_on() {
        return size;
    }
    match class_for(size, align) {
        SizeClass::NONE => large::usable_bytes(size, align).unwrap_or(0),
        class => class.object_bytes(),
    }
}
