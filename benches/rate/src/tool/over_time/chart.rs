//! A chart for each scenario: the need as an area, what is resident on each allocator as a line.

use std::path::Path;

use super::rows::OverTime;
use crate::allocators::OURS;
use crate::failure::Failure;
use crate::lines::{Line, Lines, save};

/// Points that a line may have; the chart is some 800 pixels wide.
const POINTS: usize = 400;

/// Draws a file of the scenario's name in a directory.
pub fn draw(directory: &Path, rows: &[OverTime]) -> Result<(), Failure> {
    let Some(first) = rows.first() else {
        return Ok(());
    };
    let points = |row: &OverTime, values: fn(&OverTime) -> &[u64]| -> Vec<(f64, f64)> {
        let times = row.series().map_or(&[][..], |series| &series.at_ms);
        let point =
            |(at, bytes): (&u64, &u64)| (*at as f64 / 1e3, *bytes as f64 / f64::from(1 << 20));
        let points: Vec<(f64, f64)> = times.iter().zip(values(row)).map(point).collect();
        thinned(&points, POINTS)
    };
    // The need is that of our run, or of the first one: it differs by little, where a program has to
    // wait for its allocator.
    let ours = rows.iter().find(|row| row.allocator == OURS);
    let measured = ours.filter(|row| row.is_measured());
    let of_need = measured.or_else(|| rows.iter().find(|row| row.is_measured()));
    let need = |row: &OverTime| points(row, |row| row.series().map_or(&[], |it| &it.need_bytes));
    let line = |row: &OverTime| Line {
        name: row.allocator.clone(),
        is_ours: row.allocator == OURS,
        points: points(row, |row| row.series().map_or(&[], |it| &it.rss_bytes)),
        failure: row.failure.clone(),
    };
    let lines = Lines {
        title: format!(
            "{}: resident memory over time, less is better",
            first.scenario
        ),
        area_name: "needed by the program".to_owned(),
        area: of_need.map(need).unwrap_or_default(),
        x_axis: "s".to_owned(),
        y_axis: "MiB".to_owned(),
        lines: rows.iter().map(line).collect(),
    };
    save(&directory.join(format!("{}.svg", first.scenario)), &lines)
}

/// At most so many points, or four. Of points that lie together the first, the least, the most and the
/// last one are kept, so that no peak gets lost.
fn thinned(points: &[(f64, f64)], most: usize) -> Vec<(f64, f64)> {
    if points.len() <= most {
        return points.to_vec();
    }
    let together = points.len().div_ceil((most / 4).max(1));
    let mut thin = Vec::new();
    for group in points.chunks(together) {
        let value = |index: &usize| group[*index].1;
        let order = |one: &usize, other: &usize| value(one).total_cmp(&value(other));
        let mut kept = [0, 0, 0, group.len() - 1];
        kept[1] = (0..group.len()).min_by(order).unwrap_or(0);
        kept[2] = (0..group.len()).max_by(order).unwrap_or(0);
        kept.sort_unstable();
        for (place, index) in kept.iter().enumerate() {
            if place == 0 || kept[place - 1] != *index {
                thin.push(group[*index]);
            }
        }
    }
    thin
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::super::rows::example::{course, row};
    use super::*;

    #[test]
    fn peaks_are_kept() {
        let mut points: Vec<(f64, f64)> = (0..1001).map(|it| (f64::from(it), 5.0)).collect();
        assert_eq!(thinned(&points, 1001), points);
        points[500].1 = 9.0;
        points[503].1 = 1.0;
        let thin = thinned(&points, 100);
        assert!(thin.len() <= 100, "{}", thin.len());
        assert!(thin.contains(&(500.0, 9.0)) && thin.contains(&(503.0, 1.0)));
        assert_eq!((thin[0], thin[thin.len() - 1]), (points[0], points[1000]));
        assert!(thin.is_sorted_by(|one, other| one.0 < other.0));
    }

    #[test]
    fn a_chart_has_all_allocators() {
        let directory = tempfile::tempdir().unwrap();
        let rows = [
            row("system", &[course(&[], &[1, 900, 30])]),
            row("spanmalloc", &[course(&[], &[1, 800, 2])]),
            row("odd<&", &[]),
        ];
        draw(directory.path(), &rows).unwrap();
        draw(directory.path(), &[]).unwrap();
        let text = fs::read_to_string(directory.path().join("burst.svg")).unwrap();
        let document = roxmltree::Document::parse(&text).unwrap();
        assert_eq!(document.root_element().tag_name().name(), "svg");
        for word in [
            "#FFFFFF",
            "#C23B12",
            "system",
            "odd&lt;&amp;: hangs",
            "needed by",
        ] {
            assert!(text.contains(word), "{word}: {text}");
        }
    }

    #[test]
    fn a_chart_of_failures_is_one_too() {
        let directory = tempfile::tempdir().unwrap();
        draw(directory.path(), &[row("other", &[])]).unwrap();
        let text = fs::read_to_string(directory.path().join("burst.svg")).unwrap();
        assert!(text.contains("other: hangs"), "{text}");
    }
}
