//! The table for people.

use core::fmt::{self, Display, Formatter, Write};

use super::Stats;

/// Characters of the first column.
const NAME: usize = 36;

impl Display for Stats {
    /// A table in groups: what is live, where the memory is, what was done, and the size classes in use.
    fn fmt(&self, out: &mut Formatter) -> fmt::Result {
        let (time, threads) = (Seconds(self.uptime_ns), self.threads);
        writeln!(
            out,
            "spanmalloc: {time} since the start, threads: {threads}"
        )?;
        self.write_live(out)?;
        self.write_memory(out)?;
        self.write_events(out)?;
        self.write_classes(out)
    }
}

impl Stats {
    fn write_live(&self, out: &mut Formatter) -> fmt::Result {
        let large = self.large_live_objects + self.huge_live_objects;
        let small = self.live_objects.saturating_sub(large);
        head(out, "live", ["objects", "bytes", ""])?;
        for (name, objects, bytes) in [
            ("up to 32 KiB", small, self.small_live_bytes),
            ("large", self.large_live_objects, self.large_live_bytes),
            (
                "huge, with mappings of their own",
                self.huge_live_objects,
                self.huge_live_bytes,
            ),
            ("all", self.live_objects, self.live_bytes),
        ] {
            let objects = Digits(objects as u64);
            writeln!(out, "  {name:<NAME$}{objects:>14}{:>14}", bytes_of(bytes))?;
        }
        let Some(calls) = self.calls else {
            return Ok(());
        };
        let (allocations, bytes) = (Digits(calls.allocations), calls.allocated_bytes);
        writeln!(
            out,
            "  {:<NAME$}{allocations:>14}{:>14}",
            "allocated",
            Bytes(bytes)
        )?;
        writeln!(out, "  {:<NAME$}{:>14}", "freed", Digits(calls.frees))?;
        let peak = Bytes(calls.peak_live_bytes);
        writeln!(out, "  {:<NAME$}{:>14}{peak:>14}", "most at a time", "")
    }

    fn write_memory(&self, out: &mut Formatter) -> fmt::Result {
        head(out, "arenas", ["bytes", "of committed", ""])?;
        for (name, bytes) in [
            ("live, up to 32 KiB", self.small_live_bytes),
            ("live, large", self.large_live_bytes),
            ("free objects in magazines", self.magazine_bytes),
            ("free objects in depots", self.depot_bytes),
            ("free slots in current spans", self.current_free_bytes),
            ("free slots in partial spans", self.partial_free_bytes),
            ("free parts of shared blocks", self.split_free_bytes),
            ("unusable ends of spans", self.tail_bytes),
            ("free pages in run caches", self.cached_bytes),
            ("free pages, with memory", self.dirty_bytes),
            ("free pages, given back", self.released_bytes),
            ("never used", self.fresh_bytes),
            ("in transit", self.in_transit_bytes),
        ] {
            let share = Share(bytes, self.committed_bytes);
            writeln!(out, "  {name:<NAME$}{:>14}{share:>14}", bytes_of(bytes))?;
        }
        let committed = bytes_of(self.committed_bytes);
        writeln!(out, "  {:<NAME$}{committed:>14}", "committed")?;
        head(out, "system", ["bytes", "", ""])?;
        for (name, bytes) in [
            ("memory of the process (RSS)", self.resident_bytes),
            ("memory of the allocator, about", self.backed_bytes),
            ("of it the allocator's records", self.record_bytes),
            ("free slots, given back", self.released_slot_bytes),
            ("address space of arenas", self.reserved_bytes),
            ("address space of huge objects", self.huge_live_bytes),
            ("of free mappings of such", self.huge_free_bytes),
            ("address space of records", self.record_mapped_bytes),
        ] {
            writeln!(out, "  {name:<NAME$}{:>14}", bytes_of(bytes))?;
        }
        Ok(())
    }

    fn write_events(&self, out: &mut Formatter) -> fmt::Result {
        head(out, "so far", ["", "", ""])?;
        let returned = Bytes(self.returned_bytes);
        let (calls, time) = (Digits(self.return_calls), Seconds(self.return_ns));
        let name = "given back to the system";
        writeln!(
            out,
            "  {name:<NAME$}{returned:>14} in {calls} calls, {time}"
        )?;
        for (name, count) in [
            (
                "objects from current spans",
                self.refilled_from_current_span,
            ),
            ("objects from depots", self.refilled_from_depot),
            ("objects from other spans", self.refilled_from_spans),
            ("objects to depots", self.flushed_to_depot),
            ("objects to spans", self.flushed_to_spans),
            ("spans made", self.spans_made),
            ("large objects allocated", self.large_allocations),
            ("huge objects allocated", self.huge_allocations),
            ("waits for a lock", self.lock_waits),
            ("of them asleep", self.lock_sleeps),
            ("page faults", self.minor_faults),
            ("page faults with input", self.major_faults),
        ] {
            writeln!(out, "  {name:<NAME$}{:>14}", Digits(count))?;
        }
        Ok(())
    }

    fn write_classes(&self, out: &mut Formatter) -> fmt::Result {
        let mut is_first = true;
        for class in self.classes.used() {
            let free = class.current_free_bytes + class.partial_free_bytes;
            let cached = class.magazine_objects + class.depot_objects;
            if class.spans == 0 && class.live_objects == 0 && cached == 0 {
                continue;
            }
            if core::mem::take(&mut is_first) {
                write!(out, "\n{:>7}{:>14}{:>12}", "size", "live", "bytes")?;
                write!(out, "{:>12}{:>12}{:>9}", "cached", "free", "spans")?;
                writeln!(out, "{:>9}{:>9}{:>9}", "current", "partial", "full")?;
            }
            let size = class.object_bytes;
            let (live, bytes) = (
                Digits(class.live_objects as u64),
                bytes_of(class.live_bytes),
            );
            write!(out, "{size:>7}{live:>14}{bytes:>12}")?;
            let (cached, free) = (bytes_of(cached * size), bytes_of(free));
            write!(out, "{cached:>12}{free:>12}{:>9}", class.spans)?;
            let (partial, full) = (class.partial_spans, class.full_spans);
            writeln!(out, "{:>9}{partial:>9}{full:>9}", class.current_spans)?;
        }
        Ok(())
    }
}

/// The first line of a group.
fn head(out: &mut Formatter, name: &str, columns: [&str; 3]) -> fmt::Result {
    let [first, second, third] = columns;
    let width = NAME + 2;
    let line = format_args!("{name:<width$}{first:>14}{second:>14}{third:>14}");
    let mut line_of = Cell::<128>::new();
    write!(line_of, "{line}")?;
    writeln!(out, "\n{}", line_of.text().trim_end())
}

fn bytes_of(bytes: usize) -> Bytes {
    Bytes(bytes as u64)
}

/// Bytes in the largest unit of which there is one, with a decimal.
struct Bytes(u64);

impl Display for Bytes {
    fn fmt(&self, out: &mut Formatter) -> fmt::Result {
        const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
        let mut cell = Cell::<32>::new();
        if self.0 < 1024 {
            write!(cell, "{} B", self.0)?;
            return out.pad(cell.text());
        }
        let steps = (self.0.ilog2() / 10).min(UNITS.len() as u32);
        let unit = UNITS.get(steps as usize - 1).copied().unwrap_or("");
        let tenths = (u128::from(self.0) * 10) >> (10 * steps);
        write!(cell, "{}.{} {unit}", tenths / 10, tenths % 10)?;
        out.pad(cell.text())
    }
}

/// A number with a comma between thousands.
struct Digits(u64);

impl Display for Digits {
    fn fmt(&self, out: &mut Formatter) -> fmt::Result {
        let mut cell = Cell::<32>::new();
        let mut divisor = 1_000_000_000_000_000_000;
        while divisor > 1 && self.0 < divisor {
            divisor /= 1000;
        }
        write!(cell, "{}", self.0 / divisor)?;
        while divisor > 1 {
            divisor /= 1000;
            write!(cell, ",{:03}", self.0 / divisor % 1000)?;
        }
        out.pad(cell.text())
    }
}

/// Nanoseconds, as seconds.
struct Seconds(u64);

impl Display for Seconds {
    fn fmt(&self, out: &mut Formatter) -> fmt::Result {
        let milliseconds = self.0 / 1_000_000;
        write!(out, "{}.{:03} s", milliseconds / 1000, milliseconds % 1000)
    }
}

/// A part of a whole in per cent.
struct Share(usize, usize);

impl Display for Share {
    fn fmt(&self, out: &mut Formatter) -> fmt::Result {
        let mut cell = Cell::<32>::new();
        let tenths = (self.0 as u128 * 1000) / (self.1.max(1) as u128);
        write!(cell, "{}.{} %", tenths / 10, tenths % 10)?;
        out.pad(cell.text())
    }
}

/// A few characters, to be padded. What does not fit is an error.
struct Cell<const BYTES: usize> {
    bytes: [u8; BYTES],
    len: usize,
}

impl<const BYTES: usize> Cell<BYTES> {
    fn new() -> Self {
        Self {
            bytes: [0; BYTES],
            len: 0,
        }
    }

    fn text(&self) -> &str {
        let bytes = self.bytes.get(..self.len).unwrap_or_default();
        core::str::from_utf8(bytes).unwrap_or_default()
    }
}

impl<const BYTES: usize> Write for Cell<BYTES> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let end = self.len + text.len();
        let room = self.bytes.get_mut(self.len..end).ok_or(fmt::Error)?;
        room.copy_from_slice(text.as_bytes());
        self.len = end;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::string::ToString;

    #[test]
    fn numbers_are_written_for_people() {
        for (bytes, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (1536, "1.5 KiB"),
            ((1 << 20) - 1, "1023.9 KiB"),
            (1 << 20, "1.0 MiB"),
            (64 << 30, "64.0 GiB"),
            (u64::MAX, "16383.9 PiB"),
        ] {
            assert_eq!(Bytes(bytes).to_string(), text);
        }
        for (number, text) in [
            (0, "0"),
            (999, "999"),
            (1000, "1,000"),
            (1_002_003, "1,002,003"),
            (u64::MAX, "18,446,744,073,709,551,615"),
        ] {
            assert_eq!(Digits(number).to_string(), text);
        }
        assert_eq!(Seconds(61_234_999_999).to_string(), "61.234 s");
        assert_eq!(Share(1, 3).to_string(), "33.3 %");
        assert_eq!(Share(0, 0).to_string(), "0.0 %");
        assert_eq!(std::format!("{:>9}", Bytes(2048)), "  2.0 KiB");
    }
}
