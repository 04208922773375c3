//! The forms for programs: JSON, OpenMetrics, and the XML of glibc's `malloc_info`.

use core::fmt::{self, Display, Formatter, Write as _};

use super::fields::{CALLS, CLASS_FIELDS, FIELDS, Field, Kind, Unit};
use super::{Classes, Stats};

impl Stats {
    /// One JSON object: a number for each field, under its name, and `classes`, an array of objects, one for each
    /// size class that was ever used. What is not known is left out. `tests/stats.schema.json` of the
    /// repository describes it.
    ///
    /// ```
    /// let text = spanmalloc::stats().json().to_string();
    /// assert!(text.contains("\"live_bytes\":"));
    /// ```
    pub fn json(&self) -> impl Display + '_ {
        Form(self, write_json)
    }

    /// The text format of [OpenMetrics](https://prometheus.io/docs/specs/om/open_metrics_spec/), for
    /// Prometheus: `spanmalloc_live_bytes` and so on, and `spanmalloc_class_live_bytes{object_bytes="64"}` for
    /// each size class that was ever used. Times are in seconds.
    ///
    /// ```
    /// let text = spanmalloc::stats().open_metrics().to_string();
    /// assert!(text.contains("\n# UNIT spanmalloc_live_bytes bytes\n"));
    /// assert!(text.ends_with("\n# EOF\n"));
    /// ```
    pub fn open_metrics(&self) -> impl Display + '_ {
        Form(self, write_open_metrics)
    }

    /// The XML of glibc's `malloc_info`, of one heap, for programs that read that: free objects by size class as
    /// `sizes`; those in magazines and depots as `fast`, other free objects and pages as `rest`, huge objects as
    /// `mmap`; what is committed and not given back as `system`.
    ///
    /// ```
    /// let text = spanmalloc::stats().malloc_info().to_string();
    /// assert!(text.starts_with("<malloc version=\"1\">\n"));
    /// ```
    pub fn malloc_info(&self) -> impl Display + '_ {
        Form(self, write_malloc_info)
    }

    /// Free objects in magazines and depots, and free slots of spans, with their bytes.
    pub(crate) fn free_objects(&self) -> FreeObjects {
        let mut sum = FreeObjects::default();
        for class in self.classes.iter() {
            let cached = class.magazine_objects + class.depot_objects;
            let slots = class.current_free_bytes + class.partial_free_bytes;
            sum.cached += cached;
            sum.cached_bytes += cached * class.object_bytes;
            sum.slots += slots / class.object_bytes.max(1);
            sum.slot_bytes += slots;
        }
        sum
    }

    /// Bytes of arenas that the system has given and not got back.
    pub(crate) fn system_bytes(&self) -> usize {
        self.committed_bytes
            .saturating_sub(self.released_bytes + self.fresh_bytes)
    }
}

/// What is free of the memory of small objects.
#[derive(Default)]
pub(crate) struct FreeObjects {
    /// In magazines and depots.
    pub(crate) cached: usize,
    pub(crate) cached_bytes: usize,
    /// In spans.
    pub(crate) slots: usize,
    pub(crate) slot_bytes: usize,
}

/// A snapshot, and how it is written.
struct Form<'a>(&'a Stats, fn(&Stats, &mut Formatter) -> fmt::Result);

impl Display for Form<'_> {
    fn fmt(&self, out: &mut Formatter) -> fmt::Result {
        self.1(self.0, out)
    }
}

/// Writes a snapshot in the form that the ending of a file's name asks for.
pub(crate) fn write_file(stats: &Stats, name: &[u8], out: &mut impl fmt::Write) -> fmt::Result {
    match name.rsplit(|byte| *byte == b'.').next() {
        Some(b"json") => write!(out, "{}", stats.json()),
        Some(b"prom") => write!(out, "{}", stats.open_metrics()),
        Some(b"xml") => write!(out, "{}", stats.malloc_info()),
        _ => write!(out, "{stats}"),
    }
}

fn write_json(stats: &Stats, out: &mut Formatter) -> fmt::Result {
    out.write_char('{')?;
    write_members(CALLS, stats, out, "")?;
    let after = if stats.calls.is_some() { "," } else { "" };
    write_members(FIELDS, stats, out, after)?;
    out.write_str(",\"classes\":[")?;
    for (number, class) in stats.classes.used().enumerate() {
        let separator = if number == 0 { "" } else { "," };
        let (object, span) = (class.object_bytes, class.span_bytes);
        write!(
            out,
            "{separator}\n{{\"object_bytes\":{object},\"span_bytes\":{span}"
        )?;
        write_members(CLASS_FIELDS, class, out, ",")?;
        out.write_char('}')?;
    }
    out.write_str("]}\n")
}

/// Writes what is known, with `separator` before the first one.
fn write_members<T>(
    fields: &[Field<T>],
    of: &T,
    out: &mut Formatter,
    mut separator: &str,
) -> fmt::Result {
    for field in fields {
        if let Some(number) = (field.get)(of) {
            write!(out, "{separator}\"{}\":{number}", field.name)?;
            separator = ",";
        }
    }
    Ok(())
}

fn write_open_metrics(stats: &Stats, out: &mut Formatter) -> fmt::Result {
    for field in CALLS.iter().chain(FIELDS) {
        if let Some(number) = (field.get)(stats) {
            let name = MetricName("", field.name, field.unit);
            write_head(field, &name, out)?;
            write_sample(field, &name, None, number, out)?;
        }
    }
    for field in CLASS_FIELDS {
        let name = MetricName("class_", field.name, field.unit);
        write_head(field, &name, out)?;
        for class in stats.classes.used() {
            let number = (field.get)(class).unwrap_or(0);
            write_sample(field, &name, Some(class.object_bytes), number, out)?;
        }
    }
    out.write_str("# EOF\n")
}

/// The name of a metric, which ends in its unit: prefix, name of the field, unit.
struct MetricName(&'static str, &'static str, Unit);

impl Display for MetricName {
    fn fmt(&self, out: &mut Formatter) -> fmt::Result {
        let Self(prefix, name, unit) = self;
        write!(out, "spanmalloc_{prefix}")?;
        match (unit, name.strip_suffix("_ns")) {
            (Unit::Nanoseconds, Some(stem)) => write!(out, "{stem}_seconds"),
            _ => out.write_str(name),
        }
    }
}

fn write_head<T>(field: &Field<T>, name: &MetricName, out: &mut Formatter) -> fmt::Result {
    let kind = match field.kind {
        Kind::Gauge => "gauge",
        Kind::Counter => "counter",
    };
    writeln!(out, "# TYPE {name} {kind}")?;
    match field.unit {
        Unit::Bytes => writeln!(out, "# UNIT {name} bytes")?,
        Unit::Nanoseconds => writeln!(out, "# UNIT {name} seconds")?,
        Unit::Count => {}
    }
    writeln!(out, "# HELP {name} {}.", field.help)
}

fn write_sample<T>(
    field: &Field<T>,
    name: &MetricName,
    object_bytes: Option<usize>,
    number: u64,
    out: &mut Formatter,
) -> fmt::Result {
    write!(out, "{name}")?;
    if field.kind == Kind::Counter {
        out.write_str("_total")?;
    }
    if let Some(bytes) = object_bytes {
        write!(out, "{{object_bytes=\"{bytes}\"}}")?;
    }
    match field.unit {
        Unit::Nanoseconds => {
            let (seconds, rest) = (number / 1_000_000_000, number % 1_000_000_000);
            writeln!(out, " {seconds}.{rest:09}")
        }
        _ => writeln!(out, " {number}"),
    }
}

fn write_malloc_info(stats: &Stats, out: &mut Formatter) -> fmt::Result {
    out.write_str("<malloc version=\"1\">\n<heap nr=\"0\">\n<sizes>\n")?;
    write_sizes(&stats.classes, out)?;
    out.write_str("</sizes>\n")?;
    write_totals(stats, out)?;
    write_system(stats, out)?;
    out.write_str("</heap>\n")?;
    write_totals(stats, out)?;
    let (count, size) = (stats.huge_live_objects, stats.huge_live_bytes);
    writeln!(
        out,
        "<total type=\"mmap\" count=\"{count}\" size=\"{size}\"/>"
    )?;
    write_system(stats, out)?;
    out.write_str("</malloc>\n")
}

/// Free objects of each class that has any.
fn write_sizes(classes: &Classes, out: &mut Formatter) -> fmt::Result {
    let mut from = 1;
    for class in classes.iter() {
        let to = class.object_bytes;
        let slots = (class.current_free_bytes + class.partial_free_bytes) / to.max(1);
        let count = class.magazine_objects + class.depot_objects + slots;
        if count > 0 {
            let total = count * to;
            writeln!(
                out,
                "  <size from=\"{from}\" to=\"{to}\" total=\"{total}\" count=\"{count}\"/>"
            )?;
        }
        from = to + 1;
    }
    Ok(())
}

fn write_totals(stats: &Stats, out: &mut Formatter) -> fmt::Result {
    let free = stats.free_objects();
    let pages = stats.cached_bytes + stats.dirty_bytes;
    let (count, size) = (free.cached, free.cached_bytes);
    writeln!(
        out,
        "<total type=\"fast\" count=\"{count}\" size=\"{size}\"/>"
    )?;
    let count = free.slots + pages / crate::base::PAGE_BYTES;
    let size = free.slot_bytes + pages;
    writeln!(
        out,
        "<total type=\"rest\" count=\"{count}\" size=\"{size}\"/>"
    )
}

fn write_system(stats: &Stats, out: &mut Formatter) -> fmt::Result {
    let (current, committed) = (stats.system_bytes(), stats.committed_bytes);
    writeln!(out, "<system type=\"current\" size=\"{current}\"/>")?;
    writeln!(out, "<system type=\"max\" size=\"{committed}\"/>")?;
    writeln!(
        out,
        "<aspace type=\"total\" size=\"{}\"/>",
        stats.reserved_bytes
    )?;
    writeln!(out, "<aspace type=\"mprotect\" size=\"{committed}\"/>")
}
