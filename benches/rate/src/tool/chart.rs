//! Charts of the results: one for each workload, and an overview.

use std::path::Path;

use crate::allocators::OURS;
use crate::canvas::{Bar, Panel, save};
use crate::failure::Failure;
use crate::rows::{Clock, Mean, Ratios, Row, means_to_best_peer, workloads};
use crate::table::{mebibytes, number};

/// Draws `overview.svg`, and for each workload a file of its name, in a directory.
pub fn draw(directory: &Path, rows: &[Row]) -> Result<(), Failure> {
    let clock = Clock::of(rows);
    for workload in workloads(rows) {
        let title = workload.first().map_or("", |row| row.workload.as_str());
        let panels = [
            Panel {
                head: "Time per operation: less is better".to_owned(),
                axis: clock.about().to_owned(),
                bars: bars(workload, |row| clock.time(row), 1.0, number),
                mark: None,
            },
            Panel {
                head: "Peak RSS: less is better".to_owned(),
                axis: "MiB".to_owned(),
                bars: bars(workload, Row::peak_rss_bytes, f64::from(1 << 20), mebibytes),
                mark: None,
            },
        ];
        let short: String = title.chars().take(60).collect();
        save(&directory.join(file_name(title)), &short, &panels)?;
    }
    overview(directory, rows, clock)
}

/// How all allocators stand to the best peer, the best of them first.
fn overview(directory: &Path, rows: &[Row], clock: Clock) -> Result<(), Failure> {
    let means = means_to_best_peer(rows, clock);
    let all = workloads(rows).count();
    let panel = |head: &str, value: fn(&Ratios) -> Option<f64>| Panel {
        head: format!("{head}, geometric mean of {all} workloads: less is better"),
        axis: "ratio to the best peer of each workload, which no allocator is everywhere"
            .to_owned(),
        bars: mean_bars(&means, all, value),
        mark: Some(1.0),
    };
    let panels = [
        panel("Time", |ratios| ratios.time),
        panel("Peak RSS", |ratios| ratios.rss),
    ];
    let path = directory.join("overview.svg");
    save(&path, "spanmalloc and other allocators", &panels)
}

/// `unit` is that of the scale.
fn bars(
    rows: &[Row],
    value: impl Fn(&Row) -> Option<f64>,
    unit: f64,
    show: fn(Option<f64>) -> String,
) -> Vec<Bar> {
    let bar = |row: &Row| Bar {
        name: row.allocator.clone(),
        is_ours: row.is_ours(),
        value: value(row).map(|value| value / unit),
        text: match &row.failure {
            Some(failure) => failure.chars().take(60).collect(),
            None => show(value(row)),
        },
    };
    rows.iter().map(bar).collect()
}

fn mean_bars(means: &[Mean], all: usize, value: fn(&Ratios) -> Option<f64>) -> Vec<Bar> {
    let bar = |mean: &Mean| {
        let value = value(&mean.ratios);
        let figure = number(value);
        Bar {
            name: mean.name.clone(),
            is_ours: mean.name == OURS,
            value,
            text: match mean.workloads {
                some if some < all => format!("{figure} (of {some} workloads)"),
                _ => figure,
            },
        }
    };
    let mut bars: Vec<Bar> = means.iter().map(bar).collect();
    let place = |bar: &Bar| bar.value.unwrap_or(f64::INFINITY);
    bars.sort_by(|one, other| place(one).total_cmp(&place(other)));
    bars
}

/// A workload's name, or a command, as a name of a file.
fn file_name(workload: &str) -> String {
    let plain = |it: char| it.is_ascii_alphanumeric() || matches!(it, '-' | '_');
    let name: String = workload
        .chars()
        .take(80)
        .map(|it| if plain(it) { it } else { '-' })
        .collect();
    format!("{name}.svg")
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::rows::example::{row, rows, run};

    #[test]
    fn charts_are_well_formed() {
        let directory = tempfile::tempdir().unwrap();
        let mut rows = rows();
        rows.push(row("<ls> & \"x\"/..", "odd<&", &[run(0, 0)]));
        draw(directory.path(), &rows).unwrap();
        for file in ["a.svg", "b.svg", "-ls-----x----.svg", "overview.svg"] {
            let text = fs::read_to_string(directory.path().join(file)).unwrap();
            let document = roxmltree::Document::parse(&text).unwrap();
            assert_eq!(document.root_element().tag_name().name(), "svg");
            // Readable on dark pages too, and ours is told from the others.
            for colour in ["#FFFFFF", "#C23B12", "#93B3D1"] {
                assert!(text.contains(colour), "{file} {colour}: {text}");
            }
        }
        let text = fs::read_to_string(directory.path().join("a.svg")).unwrap();
        assert!(text.contains("crashed"), "{text}");
    }

    #[test]
    fn the_overview_has_the_best_allocator_first() {
        let means = means_to_best_peer(&rows(), Clock::CpuTime);
        let bars = |value| -> Vec<(String, String)> {
            let bars = mean_bars(&means, 2, value);
            bars.into_iter().map(|bar| (bar.name, bar.text)).collect()
        };
        let expected =
            |all: [(&str, &str); 3]| all.map(|(name, text)| (name.to_owned(), text.to_owned()));
        let times = [
            ("spanmalloc", "1.00"),
            ("system", "1.00"),
            ("other", "4.00 (of 1 workloads)"),
        ];
        assert_eq!(bars(|it| it.time), expected(times));
        let sizes = [
            ("other", "1.00 (of 1 workloads)"),
            ("spanmalloc", "1.41"),
            ("system", "2.00"),
        ];
        assert_eq!(bars(|it| it.rss), expected(sizes));
    }
}
