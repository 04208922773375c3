//! Charts of the results, as SVG.
//!
//! They have no background, and all that is not a bar is of a grey that can be read on white and on
//! black, so that they fit pages of both kinds.

use std::fs;
use std::path::Path;

use plotters::backend::SVGBackend;
use plotters::coord::Shift;
use plotters::drawing::{DrawingArea, IntoDrawingArea};
use plotters::element::{Circle, PathElement, Rectangle, Text};
use plotters::style::text_anchor::{HPos, Pos, VPos};
use plotters::style::{Color, IntoFont, RGBColor, TextStyle};

use crate::allocators::KNOWN;
use crate::failure::{Failure, reason};
use crate::rows::{
    Clock, Mean, Ratios, Row, allocators, means_to_best_peer, to_best_peer, workloads,
};
use crate::table::{mebibytes, number};

/// Contrast of 4.4 with white and 4.8 with black.
const GREY: RGBColor = RGBColor(0x77, 0x77, 0x77);

/// One for each allocator of [`KNOWN`], then those of others.
const COLOURS: [RGBColor; 14] = [
    RGBColor(0xe4, 0x57, 0x2e),
    RGBColor(0x8c, 0x8c, 0x8c),
    RGBColor(0x5a, 0xa2, 0xe0),
    RGBColor(0x2f, 0x6f, 0xb8),
    RGBColor(0x3a, 0xa7, 0x6d),
    RGBColor(0xb8, 0x86, 0x0b),
    RGBColor(0x9b, 0x59, 0xb6),
    RGBColor(0x1a, 0x9b, 0xa1),
    RGBColor(0xd0, 0x4f, 0x8a),
    RGBColor(0x8a, 0x6d, 0x4b),
    RGBColor(0x6b, 0x8e, 0x23),
    RGBColor(0x70, 0x80, 0xc0),
    RGBColor(0xc0, 0x60, 0x60),
    RGBColor(0x4f, 0x8f, 0x8f),
];

const WIDTH: i32 = 760;
/// Where the names end and the bars begin.
const LEFT: i32 = 170;
/// Where the longest bar ends; its figure is behind it.
const RIGHT: i32 = WIDTH - 110;
const MARGIN: i32 = 12;
const TITLE_HEIGHT: i32 = 34;
const HEAD_HEIGHT: i32 = 30;
const LINE_HEIGHT: i32 = 22;

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Drawn = Result<(), String>;

/// A bar with its name; a text alone where there is nothing to draw.
struct Bar {
    name: String,
    colour: RGBColor,
    value: Option<f64>,
    text: String,
}

/// Draws `overview.svg`, and for each workload a file of its name, in a directory.
pub fn draw(directory: &Path, rows: &[Row]) -> Result<(), Failure> {
    let clock = Clock::of(rows);
    let names = allocators(rows);
    for workload in workloads(rows) {
        let title = workload.first().map_or("", |row| row.workload.as_str());
        let panels = [
            (
                format!("{} per operation, user and kernel", clock.unit()),
                bars(workload, &names, |row| clock.time(row), number),
            ),
            (
                "peak RSS".to_owned(),
                bars(workload, &names, Row::peak_rss_bytes, mebibytes),
            ),
        ];
        let lines = panels.iter().map(|(_, bars)| bars.len()).sum();
        save(directory, &file_name(title), height(2, lines), |area| {
            text(area, title, 17, LEFT, MARGIN + 8, HPos::Left)?;
            let mut top = TITLE_HEIGHT;
            for (head, bars) in &panels {
                top = panel(area, top, head, bars, false)?;
            }
            Ok(())
        })?;
    }
    overview(directory, rows, clock, &names)
}

/// How all allocators stand to the best peer: the means, and below them each workload.
fn overview(directory: &Path, rows: &[Row], clock: Clock, names: &[&str]) -> Result<(), Failure> {
    let means = means_to_best_peer(rows, clock);
    let times = mean_bars(&means, |ratios| ratios.time);
    let sizes = mean_bars(&means, |ratios| ratios.rss);
    let workloads_count = workloads(rows).count();
    let lines = 2 * (means.len() + workloads_count + 1);
    save(directory, "overview.svg", height(4, lines), |area| {
        let title = "Ratios to the best peer of each workload: less is better";
        text(area, title, 17, MARGIN, MARGIN + 8, HPos::Left)?;
        let mut top = TITLE_HEIGHT;
        top = panel(area, top, "time, geometric mean", &times, true)?;
        top = panel(area, top, "peak RSS, geometric mean", &sizes, true)?;
        let ratios = |of: fn(&Ratios) -> Option<f64>| {
            move |row: &Row, workload: &[Row]| of(&to_best_peer(row, workload, clock))
        };
        let (time, rss) = (ratios(|it| it.time), ratios(|it| it.rss));
        top = dots(area, top, "time of each workload", rows, names, time)?;
        dots(area, top, "peak RSS of each workload", rows, names, rss)?;
        Ok(())
    })
}

fn bars(
    rows: &[Row],
    names: &[&str],
    value: impl Fn(&Row) -> Option<f64>,
    show: fn(Option<f64>) -> String,
) -> Vec<Bar> {
    let bar = |row: &Row| {
        let value = value(row);
        Bar {
            name: row.allocator.clone(),
            colour: colour(&row.allocator, names),
            value,
            text: match &row.failure {
                Some(failure) => failure.chars().take(60).collect(),
                None => show(value),
            },
        }
    };
    rows.iter().map(bar).collect()
}

fn mean_bars(means: &[Mean], value: fn(&Ratios) -> Option<f64>) -> Vec<Bar> {
    let names: Vec<&str> = means.iter().map(|mean| mean.name.as_str()).collect();
    let bar = |mean: &Mean| Bar {
        name: mean.name.clone(),
        colour: colour(&mean.name, &names),
        value: value(&mean.ratios),
        text: number(value(&mean.ratios)),
    };
    means.iter().map(bar).collect()
}

/// Draws bars from `top` on, with a line at one if asked to; returns where they end.
fn panel(
    area: &Area,
    top: i32,
    head: &str,
    bars: &[Bar],
    line_at_one: bool,
) -> Result<i32, String> {
    text(area, head, 13, LEFT, top + HEAD_HEIGHT / 2, HPos::Left)?;
    let most = bars.iter().filter_map(|bar| bar.value).fold(0.0, f64::max);
    let end = |value: f64| {
        let part = if most > 0.0 { value / most } else { 0.0 };
        LEFT + (part * f64::from(RIGHT - LEFT)).round() as i32
    };
    let first = top + HEAD_HEIGHT;
    let mut y = first;
    for bar in bars {
        let middle = y + LINE_HEIGHT / 2;
        text(area, &bar.name, 13, LEFT - 8, middle, HPos::Right)?;
        let mut end_of_bar = LEFT;
        if let Some(value) = bar.value {
            end_of_bar = end(value);
            let corners = [
                (LEFT, y + 3),
                (end_of_bar.max(LEFT + 1), y + LINE_HEIGHT - 3),
            ];
            put(area.draw(&Rectangle::new(corners, bar.colour.filled())))?;
        }
        text(area, &bar.text, 13, end_of_bar + 6, middle, HPos::Left)?;
        y += LINE_HEIGHT;
    }
    line(area, (LEFT, first), (LEFT, y))?;
    if line_at_one && most >= 1.0 {
        line(area, (end(1.0), first), (end(1.0), y))?;
    }
    Ok(y)
}

/// Draws a line for each workload with a dot for each allocator, on a scale of powers of two.
fn dots(
    area: &Area,
    top: i32,
    head: &str,
    rows: &[Row],
    names: &[&str],
    ratio: impl Fn(&Row, &[Row]) -> Option<f64>,
) -> Result<i32, String> {
    /// Ratios beyond are drawn at the edge.
    const MOST_DOUBLINGS: f64 = 5.0;
    text(area, head, 13, LEFT, top + HEAD_HEIGHT / 2, HPos::Left)?;
    let doublings = |ratio: f64| ratio.log2().clamp(-MOST_DOUBLINGS, MOST_DOUBLINGS);
    let mut points = Vec::new();
    for (index, workload) in workloads(rows).enumerate() {
        for row in workload {
            if let Some(ratio) = ratio(row, workload).filter(|ratio| *ratio > 0.0) {
                let colour = colour(&row.allocator, names);
                points.push((index as i32, doublings(ratio), colour));
            }
        }
    }
    let from = points.iter().map(|it| it.1.floor()).fold(0.0, f64::min) as i32;
    let to = points.iter().map(|it| it.1.ceil()).fold(1.0, f64::max) as i32;
    let x = |doublings: f64| {
        let part = (doublings - f64::from(from)) / f64::from(to - from);
        LEFT + (part * f64::from(RIGHT - LEFT)).round() as i32
    };
    let first = top + HEAD_HEIGHT;
    let mut y = first;
    for workload in workloads(rows) {
        let name = workload.first().map_or("", |row| row.workload.as_str());
        let short: String = name.chars().take(24).collect();
        text(area, &short, 13, LEFT - 8, y + LINE_HEIGHT / 2, HPos::Right)?;
        y += LINE_HEIGHT;
    }
    for power in from..=to {
        let x = x(f64::from(power));
        line(area, (x, first), (x, y))?;
        let label = f64::from(power).exp2().to_string();
        text(area, &label, 12, x, y + LINE_HEIGHT / 2, HPos::Center)?;
    }
    // The first allocator is ours as a rule; its dots are above the others.
    for (index, doublings, colour) in points.into_iter().rev() {
        let middle = first + index * LINE_HEIGHT + LINE_HEIGHT / 2;
        put(area.draw(&Circle::new((x(doublings), middle), 5, colour.filled())))?;
    }
    Ok(y + LINE_HEIGHT)
}

fn save(
    directory: &Path,
    file: &str,
    height: i32,
    draw: impl FnOnce(&Area) -> Drawn,
) -> Result<(), Failure> {
    let path = directory.join(file);
    let mut svg = String::new();
    {
        let size = (WIDTH.unsigned_abs(), height.unsigned_abs());
        let area = SVGBackend::with_string(&mut svg, size).into_drawing_area();
        let drawn = draw(&area).and_then(|()| put(area.present()));
        drawn.map_err(|error| Failure::new(format!("{}: {error}", path.display())))?;
    }
    fs::write(&path, svg)
        .map_err(|error| Failure::new(format!("{}: {}", path.display(), reason(&error))))
}

fn height(panels: i32, lines: usize) -> i32 {
    let lines = i32::try_from(lines).unwrap_or(i32::MAX / (2 * LINE_HEIGHT));
    TITLE_HEIGHT + panels * HEAD_HEIGHT + lines * LINE_HEIGHT + MARGIN
}

fn text(area: &Area, words: &str, size: i32, x: i32, y: i32, side: HPos) -> Drawn {
    let style = TextStyle::from(("sans-serif", size).into_font())
        .color(&GREY)
        .pos(Pos::new(side, VPos::Center));
    put(area.draw(&Text::new(words.to_owned(), (x, y), style)))
}

fn line(area: &Area, from: (i32, i32), to: (i32, i32)) -> Drawn {
    put(area.draw(&PathElement::new(vec![from, to], GREY.stroke_width(1))))
}

fn put<T, E: std::fmt::Display>(result: Result<T, E>) -> Result<(), String> {
    result.map(|_| ()).map_err(|error| error.to_string())
}

/// The same colour for the same allocator in all charts.
fn colour(allocator: &str, names: &[&str]) -> RGBColor {
    let known = KNOWN.iter().position(|known| known.name == allocator);
    let others = names
        .iter()
        .filter(|name| KNOWN.iter().all(|known| known.name != **name));
    let place =
        known.or_else(|| Some(KNOWN.len() + others.into_iter().position(|it| *it == allocator)?));
    COLOURS[place.unwrap_or(0) % COLOURS.len()]
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
        }
        let text = fs::read_to_string(directory.path().join("a.svg")).unwrap();
        assert!(
            text.contains("crashed") && text.contains("#E4572E"),
            "{text}"
        );
    }

    #[test]
    fn allocators_have_colours_of_their_own() {
        let names: Vec<&str> = KNOWN.iter().map(|it| it.name).chain(["x", "y"]).collect();
        let mut seen = Vec::new();
        for name in &names {
            let colour = colour(name, &names);
            assert!(!seen.contains(&colour), "{name}");
            seen.push(colour);
        }
    }
}
