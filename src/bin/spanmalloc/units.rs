//! Figures as people read them.

use std::time::Duration;

use comfy_table::{CellAlignment, ContentArrangement, Table, presets};

/// `1536` is `1.5 KiB`.
pub(crate) fn bytes(count: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if count < 1024 {
        return format!("{count} B");
    }
    let mut value = count as f64;
    let mut unit = "B";
    for larger in UNITS {
        // What would be rounded to 1024.0 is one of the next unit.
        if value < 1023.95 {
            break;
        }
        value /= 1024.0;
        unit = larger;
    }
    format!("{value:.1} {unit}")
}

/// `1234567` is `1,234,567`.
pub(crate) fn count(count: u64) -> String {
    let digits = count.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Seconds, milliseconds or microseconds, with three or four digits that count.
pub(crate) fn time(time: Duration) -> String {
    let micros = time.as_micros();
    match micros {
        0..1_000 => format!("{micros} µs"),
        1_000..1_000_000 => format!("{:.2} ms", micros as f64 / 1e3),
        _ => format!("{:.3} s", time.as_secs_f64()),
    }
}

/// Rows with their columns aligned: the first `names` columns to the left, figures to the right.
pub(crate) fn table<const COLUMNS: usize>(names: usize, rows: Vec<[String; COLUMNS]>) -> String {
    aligned(rows, |index| index < names)
}

/// Rows of figures with a name, which may be long, in the last column.
pub(crate) fn table_of_figures<const COLUMNS: usize>(rows: Vec<[String; COLUMNS]>) -> String {
    aligned(rows, |index| index + 1 == COLUMNS)
}

fn aligned<const COLUMNS: usize>(
    rows: Vec<[String; COLUMNS]>,
    is_name: impl Fn(usize) -> bool,
) -> String {
    let mut table = Table::new();
    table
        .load_preset(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Disabled)
        .add_rows(rows);
    for (index, column) in table.column_iter_mut().enumerate() {
        column.set_padding((0, 2));
        if !is_name(index) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    format!("{}\n", table.trim_fmt())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_have_the_unit_that_fits() {
        assert_eq!(bytes(0), "0 B");
        assert_eq!(bytes(1023), "1023 B");
        assert_eq!(bytes(1536), "1.5 KiB");
        assert_eq!(bytes((1 << 20) - 1), "1.0 MiB");
        assert_eq!(bytes(3 << 30), "3.0 GiB");
        assert_eq!(bytes(u64::MAX), "16.0 EiB");
    }

    #[test]
    fn counts_have_commas() {
        assert_eq!(count(0), "0");
        assert_eq!(count(999), "999");
        assert_eq!(count(1000), "1,000");
        assert_eq!(count(1234567), "1,234,567");
    }

    #[test]
    fn times_have_the_unit_that_fits() {
        assert_eq!(time(Duration::from_micros(999)), "999 µs");
        assert_eq!(time(Duration::from_micros(1500)), "1.50 ms");
        assert_eq!(time(Duration::from_millis(61_234)), "61.234 s");
    }

    #[test]
    fn figures_are_aligned_to_the_right() {
        let rows = [["a", "10 s"], ["long", "9 s"]].map(|row| row.map(str::to_string));
        assert_eq!(table(1, rows.to_vec()), "a     10 s\nlong   9 s\n");
        let rows = [["10 s", "a"], ["9 s", "long"]].map(|row| row.map(str::to_string));
        assert_eq!(table_of_figures(rows.to_vec()), "10 s  a\n 9 s  long\n");
    }
}
