//! The heap and its shadow: every live object with its address, Layout and contents.
//!
//! The shadow is in the memory of `System`, the global allocator of tests; the heap is called
//! directly. Contents are one byte, repeated, so that comparing them is a comparison of the object
//! with itself, shifted by one.

use std::alloc::{GlobalAlloc, Layout};
use std::collections::BTreeMap;
use std::ptr::NonNull;
use std::slice;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{self, JoinHandle};

use spanmalloc::{Secure, SpanMalloc};

use super::op::{HUGE_FROM_BYTES, Op, Then};

/// Helper threads.
const HELPERS: usize = 2;
/// Bytes that the program holds at most, huge objects apart.
const LIVE_BYTES_MAX: usize = 64 << 20;
/// Huge objects that the program holds at most.
const LIVE_HUGE_MAX: usize = 3;
/// Bytes of the objects that one operation allocates, if more than one.
const BATCH_BYTES_MAX: usize = 2 << 20;
/// Bytes written and compared at each end of a huge object.
const END_BYTES: usize = 4096;

/// A live object. Whoever has the value has the object.
#[derive(Debug)]
struct Object {
    start: NonNull<u8>,
    layout: Layout,
    /// The byte that it is filled with.
    pattern: u8,
}

// SAFETY: an object belongs to whoever has the value, and any thread may free it.
unsafe impl Send for Object {}

impl Object {
    /// A new object without contents; `None` if there is no memory.
    fn new(layout: Layout, zeroed: bool) -> Option<Self> {
        // SAFETY: no caller asks for zero bytes (`World::alloc`).
        let start = unsafe {
            if zeroed {
                SpanMalloc.alloc_zeroed(layout)
            } else {
                SpanMalloc.alloc(layout)
            }
        };
        let object = Self {
            start: NonNull::new(start)?,
            layout,
            pattern: 0,
        };
        object.check_place();
        if zeroed {
            object.check_contents(layout.size());
        }
        Some(object)
    }

    fn address(&self) -> usize {
        self.start.addr().get()
    }

    fn is_huge(&self) -> bool {
        self.layout.size() >= HUGE_FROM_BYTES
    }

    fn check_place(&self) {
        let address = self.address();
        assert!(
            address.is_multiple_of(self.layout.align()),
            "{address:#x} for {:?}",
            self.layout
        );
    }

    /// Offset and length of the parts that have contents, of the first `bytes`.
    fn parts(&self, bytes: usize) -> [(usize, usize); 2] {
        if !self.is_huge() {
            return [(0, bytes), (0, 0)];
        }
        let last = self.layout.size() - END_BYTES;
        [
            (0, END_BYTES.min(bytes)),
            (last, bytes.saturating_sub(last)),
        ]
    }

    /// Fills it with `pattern`.
    fn fill(&mut self, pattern: u8) {
        self.pattern = pattern;
        for (offset, len) in self.parts(self.layout.size()) {
            // SAFETY: the object is ours, and the part lies within its size.
            unsafe { self.start.add(offset).write_bytes(pattern, len) };
        }
    }

    /// Panics unless the first `bytes` are as they were written.
    fn check_contents(&self, bytes: usize) {
        for (offset, len) in self.parts(bytes) {
            // SAFETY: the object is ours, the part lies within its size and was written before, or
            // is zeroed memory.
            let part = unsafe { slice::from_raw_parts(self.start.as_ptr().add(offset), len) };
            if let Some((first, rest)) = part.split_first() {
                let same = *first == self.pattern && *rest == part[..rest.len()];
                assert!(same, "contents of {self:?} are not {:#x}", self.pattern);
            }
        }
    }

    fn free(self) {
        self.check_contents(self.layout.size());
        // SAFETY: allocated with this Layout, and given up here.
        unsafe { SpanMalloc.dealloc(self.start.as_ptr(), self.layout) };
    }

    /// Resizes it and fills the new one with the same pattern. It is as before if there is no
    /// memory.
    fn realloc(mut self, new_size: usize) -> Self {
        let Ok(layout) = Layout::from_size_align(new_size, self.layout.align()) else {
            return self;
        };
        self.check_contents(self.layout.size());
        // SAFETY: allocated with this Layout; `new_size` is not zero and a valid Layout's.
        let moved = unsafe { SpanMalloc.realloc(self.start.as_ptr(), self.layout, new_size) };
        let Some(start) = NonNull::new(moved) else {
            self.check_contents(self.layout.size());
            return self;
        };
        // Of a huge object only the ends are known, so the first part is all that can be compared.
        let kept = if self.is_huge() {
            END_BYTES
        } else {
            self.layout.size()
        };
        let known = Layout::from_size_align(kept.min(new_size), 1).unwrap();
        Self {
            start,
            layout: known,
            pattern: self.pattern,
        }
        .check_contents(known.size());
        self.start = start;
        self.layout = layout;
        self.check_place();
        self.fill(self.pattern);
        self
    }

    /// What a helper thread does with it.
    fn apply(self, then: Then) -> Option<Self> {
        match then {
            Then::Free => {
                self.free();
                None
            }
            Then::Realloc { new_size } => Some(self.realloc(new_size)),
        }
    }
}

/// A thread that frees and resizes what it is handed.
struct Helper {
    objects: Sender<(Object, Then)>,
    /// One answer for each object, in order: what is left of it.
    answers: Receiver<Option<Object>>,
    /// Answers that were not received yet.
    waiting: usize,
    thread: JoinHandle<()>,
}

impl Helper {
    fn start() -> Self {
        let (objects, received) = channel::<(Object, Then)>();
        let (answer, answers) = channel();
        let work = move || {
            for (object, then) in received {
                if answer.send(object.apply(then)).is_err() {
                    return;
                }
            }
        };
        let thread = thread::spawn(work);
        Self {
            objects,
            answers,
            waiting: 0,
            thread,
        }
    }
}

/// The heap's live objects, and the threads that use it.
pub struct World {
    objects: Vec<Object>,
    /// Start and end of every object that no helper thread has.
    ranges: BTreeMap<usize, usize>,
    live_bytes: usize,
    live_huge: usize,
    /// Pattern of the next object; never zero.
    pattern: u8,
    helpers: [Option<Helper>; HELPERS],
    in_use_bytes_at_start: usize,
}

impl World {
    /// An empty world. The heap belongs to one world at a time, as to its statistics.
    pub fn new() -> Self {
        spanmalloc::trim();
        Self {
            objects: Vec::new(),
            ranges: BTreeMap::new(),
            live_bytes: 0,
            live_huge: 0,
            pattern: 1,
            helpers: [const { None }; HELPERS],
            in_use_bytes_at_start: spanmalloc::stats().in_use_bytes,
        }
    }

    /// Runs one operation on the heap and checks what it did to the shadow.
    pub fn apply(&mut self, op: &Op) {
        self.receive(false);
        match *op {
            Op::Alloc { size, align, count } => {
                for _ in 0..count.min(BATCH_BYTES_MAX / size).max(1) {
                    self.alloc(size, align, false);
                }
            }
            Op::AllocZeroed { size, align } => self.alloc(size, align, true),
            Op::Free { index, count } => {
                for object in self.take(index, count) {
                    object.free();
                }
            }
            Op::Realloc { index, new_size } => {
                for object in self.take(index, 1) {
                    let new_size = self.bounded(&object, new_size);
                    self.insert(object.realloc(new_size));
                }
            }
            Op::Handoff {
                index,
                count,
                helper,
                then,
                wait,
            } => {
                self.hand_off(index, count, helper % HELPERS, then);
                if wait {
                    self.receive(true);
                }
            }
            Op::ThreadExit { helper } => self.end_helper(helper % HELPERS),
            Op::Trim => {
                spanmalloc::trim();
                for object in &self.objects {
                    object.check_contents(object.layout.size());
                }
            }
        }
    }

    /// Frees everything and checks that the heap gave all of it back to the page heap.
    pub fn finish(mut self) {
        for helper in 0..HELPERS {
            self.end_helper(helper);
        }
        for object in self.take(0, usize::MAX) {
            object.free();
        }
        assert_eq!(
            (self.live_bytes, self.live_huge, self.ranges.len()),
            (0, 0, 0)
        );
        spanmalloc::trim();
        let stats = spanmalloc::stats();
        // In secure mode, what the test itself has lies in spans by chance.
        let is_secure = spanmalloc::config().secures() != Secure::NONE;
        let spread_bytes = if is_secure { 1 << 20 } else { 0 };
        assert!(
            stats.in_use_bytes <= self.in_use_bytes_at_start + spread_bytes,
            "{} bytes at the start, and at the end {stats:?}",
            self.in_use_bytes_at_start
        );
        assert!(stats.in_use_bytes <= stats.committed_bytes);
        assert!(stats.committed_bytes <= stats.reserved_bytes);
        assert_eq!((stats.cached_bytes, stats.dirty_bytes), (0, 0), "{stats:?}");
    }

    fn alloc(&mut self, size: usize, align: usize, zeroed: bool) {
        let huge = size >= HUGE_FROM_BYTES;
        if if huge {
            self.live_huge >= LIVE_HUGE_MAX
        } else {
            self.live_bytes + size > LIVE_BYTES_MAX
        } {
            return;
        }
        let layout = Layout::from_size_align(size.max(1), align).unwrap();
        let Some(mut object) = Object::new(layout, zeroed) else {
            assert!(huge, "no memory for {layout:?}");
            return;
        };
        object.fill(self.pattern);
        self.pattern = self.pattern.checked_add(1).unwrap_or(1);
        self.insert(object);
    }

    /// A new size for `object`, which has just been taken out: its own if there is no room.
    fn bounded(&self, object: &Object, new_size: usize) -> usize {
        let room = if new_size >= HUGE_FROM_BYTES {
            self.live_huge < LIVE_HUGE_MAX
        } else {
            self.live_bytes + new_size <= LIVE_BYTES_MAX
        };
        if room {
            new_size.max(1)
        } else {
            object.layout.size()
        }
    }

    /// Notes an object, and panics if it overlaps another.
    fn insert(&mut self, object: Object) {
        let start = object.address();
        let end = start + object.layout.size();
        if let Some((other, other_end)) = self.ranges.range(..end).next_back() {
            assert!(
                *other_end <= start,
                "{start:#x}..{end:#x} overlaps {other:#x}..{other_end:#x}"
            );
        }
        self.ranges.insert(start, end);
        if object.is_huge() {
            self.live_huge += 1;
        } else {
            self.live_bytes += object.layout.size();
        }
        self.objects.push(object);
    }

    /// Takes up to `count` objects out, from the one that `index` names.
    fn take(&mut self, index: usize, count: usize) -> Vec<Object> {
        let mut taken = Vec::new();
        while taken.len() < count && !self.objects.is_empty() {
            let at = index % self.objects.len();
            let object = self.objects.swap_remove(at);
            self.ranges.remove(&object.address());
            if object.is_huge() {
                self.live_huge -= 1;
            } else {
                self.live_bytes -= object.layout.size();
            }
            taken.push(object);
        }
        taken
    }

    fn hand_off(&mut self, index: usize, count: usize, helper: usize, then: Then) {
        // Resizing many objects to a large size is no more than doing it to a few.
        let (then, count) = match then {
            Then::Free => (then, count),
            Then::Realloc { new_size } if new_size >= HUGE_FROM_BYTES => (then, 1),
            Then::Realloc { new_size } => {
                (then, count.min(BATCH_BYTES_MAX / new_size.max(1)).max(1))
            }
        };
        for object in self.take(index, count) {
            let then = match then {
                Then::Free => then,
                Then::Realloc { new_size } => Then::Realloc {
                    new_size: self.bounded(&object, new_size),
                },
            };
            let helper = self.helpers[helper].get_or_insert_with(Helper::start);
            helper.waiting += 1;
            helper
                .objects
                .send((object, then))
                .expect("the helper thread runs");
        }
    }

    /// Takes back what the helper threads have resized so far; with `all`, waits for the rest.
    fn receive(&mut self, all: bool) {
        for index in 0..HELPERS {
            while let Some(helper) = self.helpers[index]
                .as_mut()
                .filter(|helper| helper.waiting > 0)
            {
                let answer = if all {
                    helper.answers.recv().expect("the helper thread runs")
                } else {
                    let Ok(answer) = helper.answers.try_recv() else {
                        break;
                    };
                    answer
                };
                helper.waiting -= 1;
                if let Some(object) = answer {
                    self.insert(object);
                }
            }
        }
    }

    fn end_helper(&mut self, helper: usize) {
        self.receive(true);
        if let Some(Helper {
            objects, thread, ..
        }) = self.helpers[helper].take()
        {
            drop(objects);
            thread
                .join()
                .expect("the helper thread found nothing wrong");
        }
    }
}
