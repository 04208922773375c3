//! C's interface with hostile arguments: sizes near overflow, alignments that are none, null, and all ways to
//! resize and free. The whole program, libFuzzer included, runs on the heap.
//!
//! Checked are what the standards and the functions' own documentation say: alignment, errno, usable size,
//! contents, that no two objects overlap, and that a failure changes nothing.

#![no_main]

use std::collections::BTreeMap;
use std::ffi::{c_int, c_void};
use std::ptr;

use arbitrary::{Arbitrary, Unstructured};
use libfuzzer_sys::fuzz_target;

// For its functions, which are called by their C names.
use spanmalloc as _;

#[repr(C)]
struct Sized {
    object: *mut c_void,
    size: usize,
}

unsafe extern "C" {
    fn reallocarray(object: *mut c_void, count: usize, size: usize) -> *mut c_void;
    fn reallocf(object: *mut c_void, size: usize) -> *mut c_void;
    fn reallocarr(target: *mut c_void, count: usize, size: usize) -> c_int;
    fn valloc(size: usize) -> *mut c_void;
    fn pvalloc(size: usize) -> *mut c_void;
    fn malloc_usable_size(object: *mut c_void) -> usize;
    fn malloc_good_size(size: usize) -> usize;
    fn nallocx(size: usize, flags: c_int) -> usize;
    fn sdallocx(object: *mut c_void, size: usize, flags: c_int);
    fn alloc_at_least(size: usize) -> Sized;
    fn aligned_alloc_at_least(align: usize, size: usize) -> Sized;
    fn free_sized(object: *mut c_void, size: usize);
    fn free_aligned_sized(object: *mut c_void, align: usize, size: usize);
}

/// Most operations of one input.
const OPS_MAX: usize = 200;
/// Most objects that live together.
const OBJECTS_MAX: usize = 64;
/// Bytes at each end of an object that are written and looked at.
const LOOKED_AT_BYTES: usize = 4096;
/// More is asked for, but not kept: half of the address space would be a few objects.
const KEPT_BYTES_MAX: usize = 1 << 30;
/// What objects of more than 8 bytes are aligned to.
const ALIGN: usize = 16;

/// A number that sizes are made of.
#[derive(Arbitrary, Clone, Copy, Debug)]
enum Number {
    Small(u8),
    Middle(u16),
    Large(u32),
    Any(u64),
    /// A border, and how far from it.
    Near(Border, i8),
}

#[derive(Arbitrary, Clone, Copy, Debug)]
enum Border {
    Zero,
    Page,
    LargestClass,
    Arena,
    Word32,
    AddressSpace,
    HalfOfAll,
    All,
}

impl Number {
    fn get(self) -> usize {
        match self {
            Self::Small(number) => usize::from(number),
            Self::Middle(number) => usize::from(number),
            Self::Large(number) => number as usize % (128 << 20),
            Self::Any(number) => number as usize,
            Self::Near(border, distance) => {
                let border: usize = match border {
                    Border::Zero => 0,
                    Border::Page => 8192,
                    Border::LargestClass => 32 << 10,
                    Border::Arena => 64 << 20,
                    Border::Word32 => 1 << 32,
                    Border::AddressSpace => 1 << 47,
                    Border::HalfOfAll => 1 << 63,
                    Border::All => usize::MAX,
                };
                border.wrapping_add_signed(isize::from(distance))
            }
        }
    }
}

/// An alignment: mostly a power of two.
#[derive(Arbitrary, Clone, Copy, Debug)]
enum Align {
    Power(u8),
    Any(Number),
}

impl Align {
    fn get(self) -> usize {
        match self {
            Self::Power(power) => 1 << (power % 64),
            Self::Any(number) => number.get(),
        }
    }
}

#[derive(Arbitrary, Clone, Copy, Debug)]
enum Resize {
    Realloc,
    Reallocarray(u8),
    Reallocf,
    Reallocarr(u8),
}

#[derive(Arbitrary, Clone, Copy, Debug)]
enum Free {
    Free,
    Sized,
    AlignedSized,
    Sdallocx,
}

#[derive(Arbitrary, Debug)]
enum Op {
    Malloc(Number),
    Calloc(Number, Number),
    AlignedAlloc(Align, Number),
    PosixMemalign(Align, Number),
    Memalign(Align, Number),
    Valloc(Number),
    Pvalloc(Number),
    AtLeast(Number),
    AlignedAtLeast(Align, Number),
    Resize(Resize, u8, Number),
    /// Of null.
    New(Resize, Number),
    Free(Free, u8),
    FreeNull(Free, Number),
    Nallocx(Number, i32),
    GoodSize(Number),
    Trim(Number),
    Mallopt(i32, i32),
    Info,
}

struct Object {
    start: *mut u8,
    size: usize,
    align: usize,
    seed: u8,
}

impl Object {
    /// Where it is looked at.
    fn places(&self) -> impl Iterator<Item = usize> + use<> {
        let tail = self
            .size
            .saturating_sub(LOOKED_AT_BYTES)
            .max(LOOKED_AT_BYTES);
        (0..self.size.min(LOOKED_AT_BYTES)).chain(tail..self.size.max(tail))
    }

    fn byte(&self, place: usize) -> u8 {
        (place ^ place >> 8) as u8 ^ self.seed
    }

    fn fill(&self) {
        for place in self.places() {
            // SAFETY: the place is inside the object, which is ours.
            unsafe { self.start.add(place).write(self.byte(place)) };
        }
    }

    /// What was written is still there, up to `size`.
    fn check(&self, size: usize) {
        for place in self.places().take_while(|place| *place < size) {
            // SAFETY: as above, and written.
            let byte = unsafe { self.start.add(place).read() };
            assert_eq!(
                byte,
                self.byte(place),
                "byte {place} of {} at {:?}",
                self.size,
                self.start
            );
        }
    }

    fn pointer(&self) -> *mut c_void {
        self.start.cast()
    }
}

fn errno() -> c_int {
    // SAFETY: no precondition.
    unsafe { *libc::__errno_location() }
}

fn set_errno(code: c_int) {
    // SAFETY: no precondition.
    unsafe { *libc::__errno_location() = code };
}

/// An errno that nothing here sets.
const UNTOUCHED: c_int = 4711;

#[derive(Default)]
struct World {
    objects: Vec<Object>,
    /// Ends, by starts.
    ranges: BTreeMap<usize, usize>,
    seed: u8,
}

impl World {
    /// Takes in what a function returned. `zeroed` as of `calloc`.
    fn keep(&mut self, object: *mut c_void, size: usize, align: usize, zeroed: bool) {
        let object = Object {
            start: object.cast(),
            size,
            align,
            seed: self.seed,
        };
        self.seed = self.seed.wrapping_add(29);
        let start = object.start.addr();
        assert!(
            start.is_multiple_of(align.max(if size > 8 { ALIGN } else { 8 })),
            "{start:#x}, {size}, {align}"
        );
        // SAFETY: an object of the heap.
        let usable = unsafe { malloc_usable_size(object.pointer()) };
        assert!(usable >= size, "{usable} of {size}");
        if zeroed {
            for place in object.places() {
                // SAFETY: inside the object, which the heap has filled.
                assert_eq!(unsafe { object.start.add(place).read() }, 0);
            }
        }
        let end = start + usable;
        if let Some((other, other_end)) = self.ranges.range(..end).next_back() {
            assert!(
                *other_end <= start,
                "{start:#x}..{end:#x}, {other:#x}..{other_end:#x}"
            );
        }
        self.ranges.insert(start, end);
        object.fill();
        self.objects.push(object);
        if size > KEPT_BYTES_MAX || self.objects.len() > OBJECTS_MAX {
            let last = self.objects.len() - 1;
            self.free(Free::Free, if size > KEPT_BYTES_MAX { last } else { 0 });
        }
    }

    /// The same, or null and this errno.
    fn keep_or(&mut self, object: *mut c_void, size: usize, align: usize, code: c_int) {
        if !object.is_null() {
            assert!(align.is_power_of_two(), "{align} is an alignment");
            return self.keep(object, size, align, false);
        }
        assert_eq!(errno(), code, "{size}, {align}");
        assert!(
            code != libc::ENOMEM || size.saturating_add(align) > 16 << 20,
            "no memory for {size}"
        );
    }

    fn take(&mut self, index: usize) -> Option<Object> {
        if self.objects.is_empty() {
            return None;
        }
        let index = index % self.objects.len();
        let object = self.objects.swap_remove(index);
        self.ranges.remove(&object.start.addr());
        object.check(object.size);
        Some(object)
    }

    fn free(&mut self, how: Free, index: usize) {
        let Some(object) = self.take(index) else {
            return;
        };
        set_errno(UNTOUCHED);
        let (pointer, size, align) = (object.pointer(), object.size, object.align);
        // SAFETY: an object of the heap, with the size and alignment that it was asked for.
        unsafe {
            match how {
                Free::Free => libc::free(pointer),
                // What has an alignment must not be freed with a size alone (C23 7.24.3.4).
                Free::Sized if align <= ALIGN => free_sized(pointer, size),
                Free::Sized | Free::AlignedSized => free_aligned_sized(pointer, align, size),
                Free::Sdallocx => sdallocx(pointer, size, align.trailing_zeros() as c_int),
            }
        }
        assert_eq!(errno(), UNTOUCHED);
    }

    /// Resizes `object`, or null; `None` if it is gone and there is none.
    fn resize(&mut self, how: Resize, object: Option<Object>, number: usize) {
        let old = object.as_ref().map_or(ptr::null_mut(), Object::pointer);
        let count = match how {
            Resize::Reallocarray(count) | Resize::Reallocarr(count) => usize::from(count),
            Resize::Realloc | Resize::Reallocf => 1,
        };
        let size = number.checked_mul(count);
        set_errno(UNTOUCHED);
        let mut target = old;
        // SAFETY: an object of the heap, or null.
        let (new, code) = unsafe {
            match how {
                Resize::Realloc => (libc::realloc(old, number), None),
                Resize::Reallocarray(_) => (reallocarray(old, count, number), None),
                Resize::Reallocf => (reallocf(old, number), None),
                Resize::Reallocarr(_) => {
                    let code = reallocarr((&raw mut target).cast(), count, number);
                    assert_eq!(errno(), UNTOUCHED);
                    (target, Some(code))
                }
            }
        };
        let failed = code.map_or(new.is_null(), |code| code != 0);
        if failed && (size != Some(0) || old.is_null()) {
            match code {
                Some(code) if size.is_none() => assert_eq!(code, libc::EOVERFLOW),
                Some(code) => assert_eq!(code, libc::ENOMEM),
                None => assert_eq!(errno(), libc::ENOMEM),
            }
            assert_eq!(target, old);
            assert!(
                size.is_none_or(|size| size > 16 << 20),
                "no memory for {size:?}"
            );
            // As before, but for `reallocf`, which has freed it.
            if let Some(object) = object
                && !matches!(how, Resize::Reallocf)
            {
                object.check(object.size);
                self.keep(object.pointer(), object.size, object.align, false);
            }
            return;
        }
        let Some(size) = size else {
            panic!("{count} times {number} bytes")
        };
        if new.is_null() {
            assert_eq!(size, 0);
            return;
        }
        if let Some(object) = object {
            let moved = Object {
                start: new.cast(),
                ..object
            };
            // What was looked at in the middle of a smaller object is not written.
            moved.check(moved.size.min(size));
        }
        self.keep(new, size, 1, false);
    }

    fn apply(&mut self, op: &Op) {
        set_errno(UNTOUCHED);
        // SAFETY, here and below: functions that take any numbers.
        match *op {
            Op::Malloc(size) => {
                let size = size.get();
                let object = unsafe { libc::malloc(size) };
                self.keep_or(object, size, 1, libc::ENOMEM);
            }
            Op::Calloc(count, size) => {
                let (count, size) = (count.get(), size.get());
                let object = unsafe { libc::calloc(count, size) };
                match count.checked_mul(size) {
                    Some(bytes) if !object.is_null() => self.keep(object, bytes, 1, true),
                    bytes => self.keep_or(object, bytes.unwrap_or(usize::MAX), 1, libc::ENOMEM),
                }
            }
            Op::AlignedAlloc(align, size) => {
                let (align, size) = (align.get(), size.get());
                let object = unsafe { libc::aligned_alloc(align, size) };
                self.keep_or(object, size, align, no_memory_or_invalid(align));
            }
            Op::PosixMemalign(align, size) => {
                let (align, size) = (align.get(), size.get());
                let nowhere = ptr::without_provenance_mut(1);
                let mut target = nowhere;
                let code = unsafe { libc::posix_memalign(&mut target, align, size) };
                assert_eq!(errno(), UNTOUCHED);
                if code == 0 {
                    assert!(align.is_power_of_two() && align >= size_of::<usize>());
                    return self.keep(target, size, align, false);
                }
                assert_eq!(target, nowhere);
                let is_valid = align.is_power_of_two() && align >= size_of::<usize>();
                assert_eq!(code, if is_valid { libc::ENOMEM } else { libc::EINVAL });
            }
            Op::Memalign(align, size) => {
                let (align, size) = (align.get(), size.get());
                let object = unsafe { libc::memalign(align, size) };
                // An alignment that is none is rounded up.
                let rounded = align.checked_next_power_of_two();
                let code = rounded.map_or(libc::EINVAL, |_| libc::ENOMEM);
                self.keep_or(object, size, rounded.unwrap_or(align), code);
            }
            Op::Valloc(size) => {
                let size = size.get();
                let object = unsafe { valloc(size) };
                self.keep_or(object, size, 4096, libc::ENOMEM);
            }
            Op::Pvalloc(size) => {
                let size = size.get();
                let object = unsafe { pvalloc(size) };
                let pages = size.max(1).checked_next_multiple_of(4096);
                self.keep_or(object, pages.unwrap_or(usize::MAX), 4096, libc::ENOMEM);
            }
            Op::AtLeast(size) => {
                let given = unsafe { alloc_at_least(size.get()) };
                self.at_least(&given, size.get(), 1, libc::ENOMEM);
            }
            Op::AlignedAtLeast(align, size) => {
                let (align, size) = (align.get(), size.get());
                let given = unsafe { aligned_alloc_at_least(align, size) };
                self.at_least(&given, size, align, no_memory_or_invalid(align));
            }
            Op::Resize(how, index, number) => {
                if let Some(object) = self.take(usize::from(index)) {
                    self.resize(how, Some(object), number.get());
                }
            }
            Op::New(how, number) => self.resize(how, None, number.get()),
            Op::Free(how, index) => self.free(how, usize::from(index)),
            Op::FreeNull(how, size) => unsafe {
                match how {
                    Free::Free => libc::free(ptr::null_mut()),
                    Free::Sized => free_sized(ptr::null_mut(), size.get()),
                    Free::AlignedSized => free_aligned_sized(ptr::null_mut(), 16, size.get()),
                    Free::Sdallocx => sdallocx(ptr::null_mut(), size.get(), 0),
                }
                assert_eq!(malloc_usable_size(ptr::null_mut()), 0);
            },
            Op::Nallocx(size, flags) => {
                let usable = unsafe { nallocx(size.get(), flags) };
                assert!(usable == 0 || usable >= size.get());
            }
            Op::GoodSize(size) => self.good_size(size.get()),
            Op::Trim(pad) => {
                let given_back = unsafe { libc::malloc_trim(pad.get()) };
                assert!((0..=1).contains(&given_back));
            }
            Op::Mallopt(parameter, value) => {
                assert_eq!(unsafe { libc::mallopt(parameter, value) }, 0);
            }
            Op::Info => self.look(),
        }
    }

    fn at_least(&mut self, given: &Sized, size: usize, align: usize, code: c_int) {
        // An object of no bytes is one.
        assert!(!given.object.is_null() || given.size == 0);
        assert!(given.object.is_null() || given.size >= size);
        let size = if given.object.is_null() {
            size
        } else {
            given.size
        };
        self.keep_or(given.object, size, align, code);
    }

    fn good_size(&mut self, size: usize) {
        // SAFETY: no precondition.
        let (good, object) = unsafe { (malloc_good_size(size), libc::malloc(size)) };
        if object.is_null() {
            return;
        }
        // SAFETY: an object of the heap.
        let usable = unsafe { malloc_usable_size(object) };
        // A guarded object has what was asked for.
        assert!(usable == good || usable == size, "{usable}, {good}, {size}");
        self.keep(object, size, 1, false);
    }

    /// There is no less than these objects.
    fn look(&self) {
        // SAFETY: no precondition.
        let info = unsafe { libc::mallinfo2() };
        let bytes: usize = self.ranges.iter().map(|(start, end)| end - start).sum();
        assert!(info.uordblks + info.hblkhd >= bytes);
        assert!(info.uordblks <= info.arena);
    }
}

fn no_memory_or_invalid(align: usize) -> c_int {
    if align.is_power_of_two() {
        libc::ENOMEM
    } else {
        libc::EINVAL
    }
}

fuzz_target!(|bytes: &[u8]| {
    let mut bytes = Unstructured::new(bytes);
    let mut world = World::default();
    for _ in 0..OPS_MAX {
        if bytes.is_empty() {
            break;
        }
        let Ok(op) = bytes.arbitrary::<Op>() else {
            break;
        };
        world.apply(&op);
    }
    while !world.objects.is_empty() {
        world.free(Free::Free, 0);
    }
});
