//! The writer of heap profiles: whatever the snapshot and the mappings are, the file can be read, and has the
//! same numbers. The files of the module are the allocator's own, compiled into this program.

#![no_main]

use std::io::Read;

use arbitrary::{Arbitrary, Unstructured};
use flate2::read::GzDecoder;
use libfuzzer_sys::fuzz_target;
use prost::Message;

#[path = "../../src/profile"]
#[allow(dead_code, reason = "the module serves the allocator")]
mod profile {
    extern crate std;

    pub mod pprof;
    pub mod proto;
    pub mod snapshot;

    /// The mappings of a process, which come from the input here.
    pub mod maps {
        use std::cell::RefCell;
        use std::io;

        #[derive(Clone, Debug, PartialEq, Eq)]
        pub struct CodeMapping {
            pub start: usize,
            pub limit: usize,
            pub file_offset: u64,
            pub path: String,
            pub build_id: String,
        }

        thread_local! {
            pub static MAPPINGS: RefCell<Vec<CodeMapping>> = const { RefCell::new(Vec::new()) };
        }

        pub fn of_this_process() -> io::Result<Vec<CodeMapping>> {
            Ok(MAPPINGS.take())
        }
    }
}

use profile::maps::{CodeMapping, MAPPINGS};
use profile::proto::{Location, Profile, Sample};
use profile::snapshot::{Amount, FRAMES_MAX, Lifetime, Row, Snapshot, StackKind};

fn amount(bytes: &mut Unstructured<'_>) -> arbitrary::Result<Amount> {
    // Estimates are not negative, and finite.
    let mut number = || -> arbitrary::Result<f64> {
        let number: f64 = bytes.arbitrary()?;
        Ok(if number.is_finite() {
            number.abs()
        } else {
            1.5
        })
    };
    Ok(Amount {
        objects: number()?,
        bytes: number()?,
    })
}

fn row(bytes: &mut Unstructured<'_>) -> arbitrary::Result<Row> {
    let lifetimes = [Lifetime::Live].into_iter().chain(Lifetime::OF_FREED);
    let lifetimes: Vec<Lifetime> = lifetimes.collect();
    let stacks = [
        StackKind::FramePointers,
        StackKind::Unwound,
        StackKind::Incomplete,
        StackKind::TooDeep,
    ];
    let count = bytes.int_in_range(0..=FRAMES_MAX)?;
    // Few different ones, so that they repeat.
    let frame = |bytes: &mut Unstructured<'_>| -> arbitrary::Result<usize> {
        Ok(match bytes.arbitrary::<u8>()? {
            255 => bytes.arbitrary()?,
            small => usize::from(small) << 8,
        })
    };
    Ok(Row {
        frames: (0..count).map(|_| frame(bytes)).collect::<Result<_, _>>()?,
        stack: *bytes.choose(&stacks)?,
        thread: Vec::arbitrary(bytes)?,
        class_bytes: bytes.arbitrary()?,
        lifetime: *bytes.choose(&lifetimes)?,
        allocated: amount(bytes)?,
        in_use: amount(bytes)?,
        peak: amount(bytes)?,
    })
}

fn mapping(bytes: &mut Unstructured<'_>) -> arbitrary::Result<CodeMapping> {
    Ok(CodeMapping {
        start: usize::from(bytes.arbitrary::<u16>()?),
        limit: bytes.arbitrary()?,
        file_offset: bytes.arbitrary()?,
        path: bytes.arbitrary()?,
        build_id: bytes.arbitrary()?,
    })
}

/// What a row is to look like; `None` if it has nothing to tell.
fn values(row: &Row) -> Option<Vec<i64>> {
    let amounts = [row.allocated, row.in_use, row.peak];
    let values: Vec<i64> = amounts
        .iter()
        .flat_map(|amount| [amount.objects.round() as i64, amount.bytes.round() as i64])
        .collect();
    values.iter().any(|value| *value != 0).then_some(values)
}

struct Reader<'a> {
    profile: &'a Profile,
    mappings: &'a [CodeMapping],
}

impl Reader<'_> {
    fn text(&self, index: i64) -> &str {
        &self.profile.string_table[usize::try_from(index).unwrap()]
    }

    fn location(&self, id: u64) -> &Location {
        let location = &self.profile.location[id as usize - 1];
        assert_eq!(location.id, id);
        location
    }

    fn check_sample(&self, sample: &Sample, row: &Row) {
        assert_eq!(sample.value, values(row).unwrap());
        assert_eq!(sample.location_id.len(), row.frames.len());
        for (id, frame) in sample.location_id.iter().zip(&row.frames) {
            let location = self.location(*id);
            assert_eq!(location.address, frame.saturating_sub(1) as u64);
            let address = frame.saturating_sub(1);
            let inside = |it: &CodeMapping| it.start <= address && address < it.limit;
            let expected = self
                .mappings
                .iter()
                .position(inside)
                .map_or(0, |index| index + 1);
            assert_eq!(location.mapping_id, expected as u64);
        }
        let label = |key: &str| {
            sample
                .label
                .iter()
                .find(|label| self.text(label.key) == key)
        };
        let thread = label("thread").map(|label| self.text(label.str));
        let expected = (!row.thread.is_empty()).then(|| String::from_utf8_lossy(&row.thread));
        assert_eq!(thread, expected.as_deref());
        let class = label("size_class").unwrap();
        if row.class_bytes == 0 {
            assert_eq!(self.text(class.str), "large");
        } else {
            let expected = i64::try_from(row.class_bytes).unwrap_or(i64::MAX);
            assert_eq!((class.num, self.text(class.num_unit)), (expected, "bytes"));
        }
    }
}

fn run(bytes: &mut Unstructured<'_>) -> arbitrary::Result<()> {
    let mappings = (0..bytes.int_in_range(0..=4)?)
        .map(|_| mapping(bytes))
        .collect::<Result<Vec<_>, _>>()?;
    let mut rows = Vec::new();
    let header = (
        bytes.arbitrary()?,
        bytes.arbitrary()?,
        bytes.arbitrary()?,
        bytes.arbitrary()?,
    );
    while !bytes.is_empty() && rows.len() < 16 {
        rows.push(row(bytes)?);
    }
    let (rate_bytes, dropped, taken_at_ns, duration_ns) = header;
    let snapshot = Snapshot {
        rows,
        rate_bytes,
        dropped,
        taken_at_ns,
        duration_ns,
    };
    MAPPINGS.set(mappings.clone());
    let mut file = Vec::new();
    profile::pprof::write(&snapshot, &mut file).unwrap();

    let mut plain = Vec::new();
    GzDecoder::new(&file[..]).read_to_end(&mut plain).unwrap();
    let profile = Profile::decode(&plain[..]).unwrap();
    let reader = Reader {
        profile: &profile,
        mappings: &mappings,
    };
    assert_eq!(
        (profile.time_nanos, profile.duration_nanos),
        (taken_at_ns, duration_ns)
    );
    assert_eq!(
        profile.period,
        i64::try_from(rate_bytes).unwrap_or(i64::MAX)
    );
    assert_eq!(profile.string_table[0], "");
    assert!(
        profile
            .comment
            .iter()
            .any(|index| { reader.text(*index).contains(&format!(" {dropped}.")) })
    );
    for (written, given) in profile.mapping.iter().zip(&mappings) {
        let range = (written.memory_start as usize, written.memory_limit as usize);
        assert_eq!(range, (given.start, given.limit));
        assert_eq!(written.file_offset, given.file_offset);
        assert_eq!(reader.text(written.filename), given.path);
        assert_eq!(reader.text(written.build_id), given.build_id);
    }
    let told: Vec<&Row> = snapshot
        .rows
        .iter()
        .filter(|row| values(row).is_some())
        .collect();
    assert_eq!(profile.sample.len(), told.len());
    for (sample, row) in profile.sample.iter().zip(told) {
        reader.check_sample(sample, row);
    }
    Ok(())
}

fuzz_target!(|bytes: &[u8]| {
    // An input that is too short is none.
    let _ = run(&mut Unstructured::new(bytes));
});
