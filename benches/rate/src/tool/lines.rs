//! Lines above an area, as SVG.
//!
//! Lines have marks of several shapes, for those who see no colours, and ours is the thickest.

use std::fs;
use std::path::Path;

use plotters::backend::SVGBackend;
use plotters::drawing::IntoDrawingArea;
use plotters::element::{Circle, Cross, PathElement, Polygon, Rectangle, TriangleMarker};
use plotters::style::text_anchor::HPos;
use plotters::style::{Color, FontStyle, RGBColor, WHITE};

use crate::canvas::{
    Area, Drawn, INK, MARGIN, OURS_COLOUR, PALE, TEXT_SIZE, TITLE_HEIGHT, WIDTH, line, plain, put,
    style, text, ticks,
};
use crate::failure::Failure;

/// Of the area, and of its edge.
const AREA_COLOUR: RGBColor = RGBColor(0xe4, 0xe7, 0xeb);
const EDGE_COLOUR: RGBColor = RGBColor(0x8c, 0x95, 0x9f);
/// Of the peers, in their order: none is near ours, and all stand out from the area.
const COLOURS: [RGBColor; 10] = [
    RGBColor(0x1f, 0x6f, 0xb4),
    RGBColor(0x2e, 0x85, 0x40),
    RGBColor(0x7b, 0x4f, 0xa3),
    RGBColor(0x9a, 0x74, 0x00),
    RGBColor(0x00, 0x8b, 0x8b),
    RGBColor(0xc2, 0x47, 0x8f),
    RGBColor(0x6d, 0x4c, 0x41),
    RGBColor(0x24, 0x29, 0x2f),
    RGBColor(0x6b, 0x7f, 0x1e),
    RGBColor(0x1a, 0x23, 0x7e),
];
/// Shapes of marks.
const SHAPES: usize = 4;
/// Marks of a line.
const MARKS: usize = 8;

const LEFT: i32 = 76;
const RIGHT: i32 = WIDTH - MARGIN - 8;
const TOP: i32 = TITLE_HEIGHT + 8;
const BOTTOM: i32 = TOP + 340;
/// Of the numbers and the title below.
const AXIS_HEIGHT: i32 = 54;
const LEGEND_LINE: i32 = 22;
/// Entries of the legend beside each other.
const LEGEND_COLUMNS: i32 = 4;

/// What is resident on an allocator.
pub struct Line {
    pub name: String,
    pub is_ours: bool,
    pub points: Vec<(f64, f64)>,
    /// Why there are no points.
    pub failure: Option<String>,
}

/// A chart.
pub struct Lines {
    pub title: String,
    pub area_name: String,
    pub area: Vec<(f64, f64)>,
    pub x_axis: String,
    pub y_axis: String,
    pub lines: Vec<Line>,
}

/// How a line looks.
struct Look {
    colour: RGBColor,
    width: u32,
    shape: usize,
}

/// Writes a chart.
pub fn save(path: &Path, lines: &Lines) -> Result<(), Failure> {
    let mut svg = String::new();
    {
        let entries = i32::try_from(lines.lines.len()).unwrap_or(i32::MAX / 2) + 1;
        let rows = (entries + LEGEND_COLUMNS - 1) / LEGEND_COLUMNS;
        let height = BOTTOM + AXIS_HEIGHT + rows.min(1000) * LEGEND_LINE + MARGIN;
        let size = (WIDTH.unsigned_abs(), height.unsigned_abs());
        let area = SVGBackend::with_string(&mut svg, size).into_drawing_area();
        let drawn = draw(&area, lines).and_then(|()| put(area.present()));
        drawn.map_err(|error| Failure::new(format!("{}: {error}", path.display())))?;
    }
    fs::write(path, svg).map_err(|error| Failure::of_file(path, &error))
}

fn draw(area: &Area, lines: &Lines) -> Drawn {
    put(area.fill(&WHITE))?;
    let bold = style(17, FontStyle::Bold);
    let place = (MARGIN, TITLE_HEIGHT / 2);
    text(area, &lines.title, &bold, place, HPos::Left)?;

    let points = || {
        let of_lines = lines.lines.iter().flat_map(|line| &line.points);
        lines.area.iter().chain(of_lines)
    };
    let most_x = points().fold(0.0, |most, point| f64::max(most, point.0));
    let most_y = points().fold(0.0, |most, point| f64::max(most, point.1)) * 1.03;
    let part = |value: f64, most: f64| if most > 0.0 { value / most } else { 0.0 };
    let x = |value| LEFT + (part(value, most_x) * f64::from(RIGHT - LEFT)).round() as i32;
    let y = |value| BOTTOM - (part(value, most_y) * f64::from(BOTTOM - TOP)).round() as i32;
    let places = |points: &[(f64, f64)]| -> Vec<(i32, i32)> {
        points
            .iter()
            .map(|point| (x(point.0), y(point.1)))
            .collect()
    };

    draw_area(area, places(&lines.area))?;
    for (value, label) in ticks(most_y) {
        line(area, &PALE, (LEFT, y(value)), (RIGHT, y(value)))?;
        text(area, &label, &plain(), (LEFT - 8, y(value)), HPos::Right)?;
    }
    for (value, label) in ticks(most_x) {
        line(area, &PALE, (x(value), TOP), (x(value), BOTTOM))?;
        text(
            area,
            &label,
            &plain(),
            (x(value), BOTTOM + 12),
            HPos::Center,
        )?;
    }
    let below = (i32::midpoint(LEFT, RIGHT), BOTTOM + 32);
    text(area, &lines.x_axis, &plain(), below, HPos::Center)?;
    text(
        area,
        &lines.y_axis,
        &plain(),
        (LEFT - 8, TOP - 16),
        HPos::Right,
    )?;
    line(area, &INK, (LEFT, TOP), (LEFT, BOTTOM))?;
    line(area, &INK, (LEFT, BOTTOM), (RIGHT, BOTTOM))?;

    // Ours above all others.
    let looks = looks(&lines.lines);
    let (ours, peers): (Vec<_>, Vec<_>) = lines
        .lines
        .iter()
        .zip(&looks)
        .partition(|(line, _)| line.is_ours);
    for (number, (line, look)) in peers.into_iter().chain(ours).enumerate() {
        draw_line(area, &places(&line.points), look, number)?;
    }
    legend(area, lines, &looks)
}

fn looks(lines: &[Line]) -> Vec<Look> {
    let mut peers = 0;
    let mut look = |line: &Line| {
        if line.is_ours {
            return Look {
                colour: OURS_COLOUR,
                width: 3,
                shape: 0,
            };
        }
        peers += 1;
        Look {
            colour: COLOURS[(peers - 1) % COLOURS.len()],
            width: 2,
            // The first of them are those of ours only if there are many.
            shape: peers % SHAPES,
        }
    };
    lines.iter().map(&mut look).collect()
}

fn draw_area(area: &Area, edge: Vec<(i32, i32)>) -> Drawn {
    let (Some(first), Some(last)) = (edge.first(), edge.last()) else {
        return Ok(());
    };
    let mut corners = vec![(first.0, BOTTOM)];
    corners.extend(&edge);
    corners.push((last.0, BOTTOM));
    put(area.draw(&Polygon::new(corners, AREA_COLOUR.filled())))?;
    put(area.draw(&PathElement::new(edge, EDGE_COLOUR.stroke_width(1))))
}

/// The line of a number, whose marks are beside those of the lines before it.
fn draw_line(area: &Area, points: &[(i32, i32)], look: &Look, number: usize) -> Drawn {
    let path = PathElement::new(points.to_vec(), look.colour.stroke_width(look.width));
    put(area.draw(&path))?;
    let between = (points.len() / MARKS).max(1);
    let first = number * between / SHAPES % between;
    for point in points.iter().skip(first).step_by(between) {
        mark(area, *point, look)?;
    }
    Ok(())
}

fn mark(area: &Area, at: (i32, i32), look: &Look) -> Drawn {
    let filled = look.colour.filled();
    match look.shape {
        0 => put(area.draw(&Circle::new(at, 4, filled))),
        1 => {
            let corners = [(at.0 - 4, at.1 - 4), (at.0 + 4, at.1 + 4)];
            put(area.draw(&Rectangle::new(corners, filled)))
        }
        2 => put(area.draw(&TriangleMarker::new(at, 6, filled))),
        _ => put(area.draw(&Cross::new(at, 4, look.colour.stroke_width(2)))),
    }
}

fn legend(area: &Area, lines: &Lines, looks: &[Look]) -> Drawn {
    let place = |number: i32| {
        let column = (RIGHT - LEFT) / LEGEND_COLUMNS;
        let x = LEFT + number % LEGEND_COLUMNS * column;
        let row = number / LEGEND_COLUMNS;
        (
            x,
            BOTTOM + AXIS_HEIGHT + row * LEGEND_LINE + LEGEND_LINE / 2,
        )
    };
    let (x, middle) = place(0);
    let corners = [(x, middle - 6), (x + 24, middle + 6)];
    put(area.draw(&Rectangle::new(corners, AREA_COLOUR.filled())))?;
    put(area.draw(&Rectangle::new(corners, EDGE_COLOUR.stroke_width(1))))?;
    text(
        area,
        &lines.area_name,
        &plain(),
        (x + 32, middle),
        HPos::Left,
    )?;
    for ((number, entry), look) in (1..).zip(&lines.lines).zip(looks) {
        let (x, middle) = place(number);
        let ends = vec![(x, middle), (x + 24, middle)];
        put(area.draw(&PathElement::new(
            ends,
            look.colour.stroke_width(look.width),
        )))?;
        mark(area, (x + 12, middle), look)?;
        let words = match &entry.failure {
            None => entry.name.clone(),
            Some(failure) => format!("{}: {failure}", entry.name)
                .chars()
                .take(24)
                .collect(),
        };
        let weight = match entry.is_ours {
            true => FontStyle::Bold,
            false => FontStyle::Normal,
        };
        text(
            area,
            &words,
            &style(TEXT_SIZE, weight),
            (x + 32, middle),
            HPos::Left,
        )?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_differ_in_colour_and_shape() {
        let line = |is_ours| Line {
            name: String::new(),
            is_ours,
            points: Vec::new(),
            failure: None,
        };
        let lines: Vec<Line> = (0..12).map(|number| line(number == 0)).collect();
        let looks = looks(&lines);
        assert_eq!(looks[0].colour, OURS_COLOUR);
        assert!(looks[1..].iter().all(|it| it.width < looks[0].width));
        for (one, look) in looks.iter().enumerate() {
            for other in &looks[one + 1..] {
                assert!(look.colour != other.colour || look.shape != other.shape);
            }
        }
    }
}
