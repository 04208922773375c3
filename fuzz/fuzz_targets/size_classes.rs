//! The laws of a Layout, one object at a time and several at once: the object is aligned, each of
//! its bytes can be used and is nobody else's, a resize keeps the prefix, and the Layout that it was
//! allocated or resized with frees it.

#![no_main]

#[path = "../../tests/shadow/op.rs"]
#[allow(dead_code, reason = "only sizes and alignments are of use here")]
mod op;

use std::alloc::{GlobalAlloc, Layout};
use std::slice;

use arbitrary::{Arbitrary, Result, Unstructured};
use libfuzzer_sys::fuzz_target;
use spanmalloc::SpanMalloc;

/// Requests of one input that are live together.
const REQUESTS_MAX: usize = 16;
/// Bytes of the largest request, for whole contents to be compared quickly.
const SIZE_MAX: usize = 256 << 10;

#[derive(Debug)]
struct Request {
    layout: Layout,
    new_size: usize,
    zeroed: bool,
}

impl<'a> Arbitrary<'a> for Request {
    fn arbitrary(bytes: &mut Unstructured<'a>) -> Result<Self> {
        let mut size = || -> Result<usize> {
            Ok(op::size(bytes.arbitrary()?, bytes.arbitrary()?).min(SIZE_MAX))
        };
        let (size, new_size) = (size()?, size()?);
        let align = op::align(bytes.arbitrary()?);
        let layout = Layout::from_size_align(size, align);
        Ok(Self {
            layout: layout.map_err(|_| arbitrary::Error::IncorrectFormat)?,
            new_size,
            zeroed: bytes.arbitrary()?,
        })
    }
}

/// The bytes of a live object.
///
/// # Safety
/// `object` is live, has `len` bytes, all of them written, and there is no other reference to it.
unsafe fn contents<'a>(object: *mut u8, len: usize) -> &'a mut [u8] {
    // SAFETY: the caller's contract.
    unsafe { slice::from_raw_parts_mut(object, len) }
}

/// Fills with numbers that differ from object to object and from byte to byte.
fn fill(bytes: &mut [u8], seed: usize) {
    for (index, byte) in bytes.iter_mut().enumerate() {
        *byte = (index ^ (index >> 8) ^ (seed * 37)) as u8;
    }
}

fn check(bytes: &[u8], seed: usize) {
    for (index, byte) in bytes.iter().enumerate() {
        assert_eq!(
            *byte,
            (index ^ (index >> 8) ^ (seed * 37)) as u8,
            "byte {index}"
        );
    }
}

fn allocate(request: &Request, seed: usize) -> *mut u8 {
    let Request { layout, zeroed, .. } = *request;
    // SAFETY: the size is at least one (`op::size`).
    let object = unsafe {
        if zeroed {
            SpanMalloc.alloc_zeroed(layout)
        } else {
            SpanMalloc.alloc(layout)
        }
    };
    assert!(!object.is_null(), "no memory for {layout:?}");
    assert!(
        object.addr().is_multiple_of(layout.align()),
        "{object:?}, {layout:?}"
    );
    if !zeroed {
        // SAFETY: fresh, and of that size.
        unsafe { object.write_bytes(0xa5, layout.size()) };
    }
    // SAFETY: fresh, of that size, and written: by the heap or just above.
    let bytes = unsafe { contents(object, layout.size()) };
    assert!(
        !zeroed || bytes.iter().all(|byte| *byte == 0),
        "{layout:?} is not zero"
    );
    fill(bytes, seed);
    object
}

fn resize(object: *mut u8, request: &Request, seed: usize) -> *mut u8 {
    let Request {
        layout, new_size, ..
    } = *request;
    // SAFETY: live, with this Layout, written by `fill`.
    check(unsafe { contents(object, layout.size()) }, seed);
    // SAFETY: live, with this Layout; the new size is at least one and at most `SIZE_MAX`.
    let moved = unsafe { SpanMalloc.realloc(object, layout, new_size) };
    assert!(!moved.is_null(), "no memory for {new_size} bytes");
    assert!(
        moved.addr().is_multiple_of(layout.align()),
        "{moved:?}, {layout:?} to {new_size}"
    );
    // SAFETY: live, of at least the smaller size, and the prefix is kept.
    check(
        unsafe { contents(moved, layout.size().min(new_size)) },
        seed,
    );
    // SAFETY: live, and of that size.
    unsafe { moved.write_bytes(0x5a, new_size) };
    // SAFETY: live, of that size, and written just above.
    fill(unsafe { contents(moved, new_size) }, seed);
    moved
}

fn release(object: *mut u8, request: &Request, seed: usize) {
    let Request {
        layout, new_size, ..
    } = *request;
    // SAFETY: live, of that size, written by `fill`.
    check(unsafe { contents(object, new_size) }, seed);
    let Ok(layout) = Layout::from_size_align(new_size, layout.align()) else {
        unreachable!("it was resized to that")
    };
    // SAFETY: live, with this Layout, and given up.
    unsafe { SpanMalloc.dealloc(object, layout) };
}

fuzz_target!(|bytes: &[u8]| {
    let mut bytes = Unstructured::new(bytes);
    let mut requests = Vec::new();
    while !bytes.is_empty() && requests.len() < REQUESTS_MAX {
        let Ok(request) = bytes.arbitrary::<Request>() else {
            break;
        };
        requests.push(request);
    }
    let mut objects: Vec<*mut u8> = Vec::new();
    for (seed, request) in requests.iter().enumerate() {
        objects.push(allocate(request, seed));
    }
    for (seed, request) in requests.iter().enumerate() {
        objects[seed] = resize(objects[seed], request, seed);
    }
    for (seed, request) in requests.iter().enumerate() {
        release(objects[seed], request, seed);
    }
});
