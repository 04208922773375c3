//! What is known of the running program at one moment, and what happened between two of them.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{Ordering::SeqCst, fence};

use super::page::{
    self, CLASS_WORDS, CLASSES, CLASSES_MAX, Class, FIGURES, Figures, MAGIC, PAGE_BYTES, VERSION,
    WORDS,
};

/// Reads of a page that changes meanwhile, until it is given up for this time.
const TRIES: u32 = 10;

/// What the library published, at one moment.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Published {
    /// The process that these figures are of.
    pub(crate) process: u32,
    pub(crate) has_ended: bool,
    pub(crate) time_ns: u64,
    pub(crate) is_counted: bool,
    pub(crate) figures: Figures,
    pub(crate) classes: Vec<Class>,
}

impl Published {
    /// What is on the page now; none if there is nothing yet, or it changes all the time.
    pub(crate) fn read(file: &File) -> io::Result<Option<Self>> {
        for _ in 0..TRIES {
            let before = sequence(file)?;
            // The words are read between the two reads of the sequence number.
            fence(SeqCst);
            let mut bytes = [0; PAGE_BYTES];
            file.read_exact_at(&mut bytes, 0)?;
            fence(SeqCst);
            if before % 2 == 0 && sequence(file)? == before {
                return Ok(Self::of(&words(&bytes)));
            }
        }
        Ok(None)
    }

    /// What the words of a page say.
    pub(crate) fn of(words: &[u64; WORDS]) -> Option<Self> {
        if words[0] != MAGIC || words[1] != VERSION || words[page::SEQUENCE] == 0 {
            return None;
        }
        let classes = usize::try_from(words[page::CLASS_COUNT])
            .ok()?
            .min(CLASSES_MAX);
        let rows = words[CLASSES..].as_chunks::<CLASS_WORDS>().0;
        Some(Self {
            process: u32::try_from(words[page::PROCESS]).ok()?,
            has_ended: words[page::HAS_ENDED] != 0,
            time_ns: words[page::TIME],
            is_counted: words[page::IS_COUNTED] != 0,
            figures: Figures::from_words(*words[FIGURES..].first_chunk()?),
            classes: rows[..classes]
                .iter()
                .map(|row| Class::from_words(*row))
                .collect(),
        })
    }
}

fn sequence(file: &File) -> io::Result<u64> {
    let mut bytes = [0; 8];
    file.read_exact_at(&mut bytes, page::SEQUENCE as u64 * 8)?;
    Ok(u64::from_ne_bytes(bytes))
}

fn words(bytes: &[u8; PAGE_BYTES]) -> [u64; WORDS] {
    let mut words = [0; WORDS];
    for (word, bytes) in words.iter_mut().zip(bytes.as_chunks().0) {
        *word = u64::from_ne_bytes(*bytes);
    }
    words
}

/// Memory of a process in the RAM; none if it has ended.
pub(crate) fn rss_bytes(pid: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kib << 10)
}

/// What happened a second.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Rates {
    pub(crate) allocated_bytes: f64,
    pub(crate) allocations: f64,
    pub(crate) frees: f64,
}

impl Rates {
    /// Between two moments; none without time between them.
    pub(crate) fn between(old: &Published, new: &Published) -> Option<Self> {
        let seconds = new.time_ns.checked_sub(old.time_ns).filter(|ns| *ns > 0)? as f64 / 1e9;
        let rate = |of: fn(&Figures) -> u64| {
            of(&new.figures).saturating_sub(of(&old.figures)) as f64 / seconds
        };
        Some(Self {
            allocated_bytes: rate(|figures| figures.allocated_bytes),
            allocations: rate(|figures| figures.allocations),
            frees: rate(|figures| figures.frees),
        })
    }

    /// Allocations and frees of the class in this row, likewise.
    pub(crate) fn of_class(old: &Published, new: &Published, row: usize) -> Option<[f64; 2]> {
        let seconds = new.time_ns.checked_sub(old.time_ns).filter(|ns| *ns > 0)? as f64 / 1e9;
        let (old, new) = (old.classes.get(row)?, new.classes.get(row)?);
        let rate = |old: u64, new: u64| new.saturating_sub(old) as f64 / seconds;
        Some([
            rate(old.allocations, new.allocations),
            rate(old.frees, new.frees),
        ])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A page with two classes.
    fn page() -> [u64; WORDS] {
        let mut words = [0; WORDS];
        words[..8].copy_from_slice(&[MAGIC, VERSION, 77, 4, 0, 5_000_000_000, 1, 2]);
        for (offset, word) in words[FIGURES..FIGURES + Figures::WORDS]
            .iter_mut()
            .enumerate()
        {
            *word = 100 + offset as u64;
        }
        words[CLASSES..CLASSES + 12].copy_from_slice(&[8, 1, 2, 3, 4, 5, 16, 6, 7, 8, 9, 10]);
        words
    }

    fn file_of(words: &[u64]) -> File {
        let file = tempfile::tempfile().unwrap();
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
        file.write_all_at(&bytes, 0).unwrap();
        file
    }

    #[test]
    fn words_are_what_they_are_said_to_be() {
        let published = Published::read(&file_of(&page())).unwrap().unwrap();
        assert_eq!((published.process, published.has_ended), (77, false));
        assert_eq!(published.time_ns, 5_000_000_000);
        assert!(published.is_counted);
        assert_eq!(published.figures.live_objects, 100);
        assert_eq!(published.figures.flushed, 100 + Figures::WORDS as u64 - 1);
        assert_eq!(published.classes.len(), 2);
        assert_eq!(published.classes[1].object_bytes, 16);
        assert_eq!(published.classes[1].flushed, 10);
    }

    #[test]
    fn page_that_is_empty_or_foreign_or_being_written_tells_nothing() {
        for (at, word) in [
            (0, 0),
            (0, 1),
            (1, 2),
            (page::SEQUENCE, 0),
            (page::SEQUENCE, 5),
        ] {
            let mut words = page();
            words[at] = word;
            assert_eq!(Published::read(&file_of(&words)).unwrap(), None, "{at}");
        }
        assert!(Published::read(&file_of(&page()[1..])).is_err());
    }

    #[test]
    fn absurd_number_of_classes_is_cut() {
        let mut words = page();
        words[page::CLASS_COUNT] = u64::MAX;
        let published = Published::of(&words).unwrap();
        assert_eq!(published.classes.len(), CLASSES_MAX);
    }

    #[test]
    fn rates_are_differences_a_second() {
        let old = Published::of(&page()).unwrap();
        let mut new = old.clone();
        assert_eq!(Rates::between(&old, &new), None);
        new.time_ns += 500_000_000;
        new.figures.allocations += 10;
        new.figures.allocated_bytes += 1 << 20;
        new.classes[1].frees += 3;
        // A process that was replaced counts from the beginning.
        new.figures.frees = 0;
        let rates = Rates::between(&old, &new).unwrap();
        assert_eq!(rates.allocations, 20.0);
        assert_eq!(rates.allocated_bytes, 2097152.0);
        assert_eq!(rates.frees, 0.0);
        assert_eq!(Rates::of_class(&old, &new, 1), Some([0.0, 6.0]));
        assert_eq!(Rates::of_class(&old, &new, 2), None);
    }

    #[test]
    fn this_process_has_memory() {
        assert!(rss_bytes(std::process::id()).unwrap() > 100_000);
        assert_eq!(rss_bytes(u32::MAX), None);
    }
}
