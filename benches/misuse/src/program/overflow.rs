//! Writes beyond an object. The object is freed, then the harm is that a neighbour was changed.

use crate::Program;
use crate::program::{change, fill, free, harm, misuse, object, read, returned, work};

/// What is filled of an object, at its start and at its end, at most.
const END_BYTES: usize = 4096;
const FILL: u8 = 0x5a;

pub const PROGRAMS: [Program; 9] = [
    ("overflow-1", |size| over(size, 1)),
    ("overflow-8", |size| over(size, 8)),
    ("overflow-64", |size| over(size, 64)),
    ("overflow-page", to_page_end),
    ("overflow-1-mib", |size| over(size, 1 << 20)),
    ("overflow-128-mib", |size| over(size, 128 << 20)),
    ("underflow-1", |size| under(size, 1)),
    ("underflow-8", |size| under(size, 8)),
    ("underflow-16", |size| under(size, 16)),
];

struct Surrounded {
    /// An object and its neighbours, those before and those after it.
    objects: Vec<*mut u8>,
    size: usize,
}

impl Surrounded {
    fn new(size: usize) -> Self {
        let end_bytes = size.min(END_BYTES);
        let filled = |_| {
            let object = object(size);
            fill(object, FILL, end_bytes);
            fill(object.wrapping_add(size - end_bytes), FILL, end_bytes);
            object
        };
        Self {
            objects: (0..if size > 1 << 20 { 3 } else { 33 })
                .map(filled)
                .collect(),
            size,
        }
    }

    /// The object in the midst of its neighbours.
    fn object(&self) -> *mut u8 {
        self.objects[self.objects.len() / 2]
    }

    fn end(&self) -> *mut u8 {
        self.object().wrapping_add(self.size)
    }

    fn overwrite(&self, start: *mut u8, bytes: usize) {
        misuse(start);
        let step = if bytes > 1 << 20 { 64 } else { 1 };
        for offset in (0..bytes).step_by(step) {
            change(start.wrapping_add(offset));
        }
        returned();
        free(self.object(), self.size);
        let others = || self.objects.iter().filter(|it| **it != self.object());
        if others().any(|object| self.is_changed(*object)) {
            harm("a neighbour was changed");
        }
        work(self.size);
        others().for_each(|object| free(*object, self.size));
    }

    fn is_changed(&self, object: *mut u8) -> bool {
        let end_bytes = self.size.min(END_BYTES);
        let mut ends = (0..end_bytes).chain(self.size - end_bytes..self.size);
        ends.any(|offset| read(object.wrapping_add(offset)) != FILL)
    }
}

fn over(size: usize, bytes: usize) {
    let surrounded = Surrounded::new(size);
    surrounded.overwrite(surrounded.end(), bytes);
}

fn to_page_end(size: usize) {
    let surrounded = Surrounded::new(size);
    let end = surrounded.end();
    surrounded.overwrite(end, 4096 - end.addr() % 4096);
}

fn under(size: usize, bytes: usize) {
    let surrounded = Surrounded::new(size);
    surrounded.overwrite(surrounded.object().wrapping_sub(bytes), bytes);
}
