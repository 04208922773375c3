//! Panels of bars, as SVG, and what other charts are drawn with.
//!
//! The background is drawn as well, so that charts look the same on light pages and on dark ones.

use std::fs;
use std::path::Path;

use plotters::backend::SVGBackend;
use plotters::coord::Shift;
use plotters::drawing::{DrawingArea, IntoDrawingArea};
use plotters::element::{PathElement, Rectangle, Text};
use plotters::style::text_anchor::{HPos, Pos, VPos};
use plotters::style::{Color, FontStyle, IntoFont, RGBColor, TextStyle, WHITE};

use crate::failure::Failure;

/// Of texts: a contrast of 15 with the background.
pub const INK: RGBColor = RGBColor(0x24, 0x29, 0x2f);
/// Of the lines behind the bars.
pub const PALE: RGBColor = RGBColor(0xd8, 0xdc, 0xe1);
/// The bars of ours: much darker than the others, for those who see no colours.
pub const OURS_COLOUR: RGBColor = RGBColor(0xc2, 0x3b, 0x12);
/// All other bars.
pub const PEERS_COLOUR: RGBColor = RGBColor(0x93, 0xb3, 0xd1);

pub const WIDTH: i32 = 880;
/// Where the names end and the bars begin.
const LEFT: i32 = 130;
/// Where the longest bar ends; its figure is behind it.
const RIGHT: i32 = WIDTH - 190;
pub const MARGIN: i32 = 16;
pub const TITLE_HEIGHT: i32 = 44;
const HEAD_HEIGHT: i32 = 30;
const LINE_HEIGHT: i32 = 22;
/// Of the numbers and the title below the bars.
const AXIS_HEIGHT: i32 = 50;
pub const TEXT_SIZE: i32 = 13;

pub type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
pub type Drawn = Result<(), String>;

/// A bar with its name; a text alone where there is nothing to draw.
pub struct Bar {
    pub name: String,
    pub is_ours: bool,
    pub value: Option<f64>,
    pub text: String,
}

/// Bars on one scale.
pub struct Panel {
    pub head: String,
    /// What the numbers of the scale are.
    pub axis: String,
    pub bars: Vec<Bar>,
    /// Where a line is drawn across the bars.
    pub mark: Option<f64>,
}

/// Writes a chart.
pub fn save(path: &Path, title: &str, panels: &[Panel]) -> Result<(), Failure> {
    let mut svg = String::new();
    {
        let height = TITLE_HEIGHT + panels.iter().map(height).sum::<i32>() + MARGIN;
        let size = (WIDTH.unsigned_abs(), height.unsigned_abs());
        let area = SVGBackend::with_string(&mut svg, size).into_drawing_area();
        let drawn = draw(&area, title, panels).and_then(|()| put(area.present()));
        drawn.map_err(|error| Failure::new(format!("{}: {error}", path.display())))?;
    }
    fs::write(path, svg).map_err(|error| Failure::of_file(path, &error))
}

fn draw(area: &Area, title: &str, panels: &[Panel]) -> Drawn {
    put(area.fill(&WHITE))?;
    let middle = TITLE_HEIGHT / 2;
    text(
        area,
        title,
        &style(17, FontStyle::Bold),
        (MARGIN, middle),
        HPos::Left,
    )?;
    legend(area, middle)?;
    let mut top = TITLE_HEIGHT;
    for panel in panels {
        draw_panel(area, top, panel)?;
        top += height(panel);
    }
    Ok(())
}

fn height(panel: &Panel) -> i32 {
    let lines = i32::try_from(panel.bars.len()).unwrap_or(i32::MAX / (8 * LINE_HEIGHT));
    HEAD_HEIGHT + lines * LINE_HEIGHT + AXIS_HEIGHT
}

fn legend(area: &Area, middle: i32) -> Drawn {
    const SIDE: i32 = 12;
    let entries = [
        ("spanmalloc", OURS_COLOUR, WIDTH - 230),
        ("other allocators", PEERS_COLOUR, WIDTH - 125),
    ];
    for (name, colour, x) in entries {
        let corners = [(x, middle - SIDE / 2), (x + SIDE, middle + SIDE / 2)];
        put(area.draw(&Rectangle::new(corners, colour.filled())))?;
        text(area, name, &plain(), (x + SIDE + 6, middle), HPos::Left)?;
    }
    Ok(())
}

/// Draws a panel from `top` on.
fn draw_panel(area: &Area, top: i32, panel: &Panel) -> Drawn {
    let head = style(14, FontStyle::Bold);
    let place = (LEFT, top + HEAD_HEIGHT / 2);
    text(area, &panel.head, &head, place, HPos::Left)?;
    let values = panel.bars.iter().filter_map(|bar| bar.value);
    let most = values.fold(0.0, f64::max);
    let x = |value: f64| {
        let part = if most > 0.0 { value / most } else { 0.0 };
        LEFT + (part * f64::from(RIGHT - LEFT)).round() as i32
    };
    let first = top + HEAD_HEIGHT;
    let bottom = first + height(panel) - HEAD_HEIGHT - AXIS_HEIGHT;
    for (value, label) in ticks(most) {
        line(area, &PALE, (x(value), first), (x(value), bottom))?;
        text(
            area,
            &label,
            &plain(),
            (x(value), bottom + 12),
            HPos::Center,
        )?;
    }
    let place = (i32::midpoint(LEFT, RIGHT), bottom + 32);
    text(area, &panel.axis, &plain(), place, HPos::Center)?;
    let mut y = first;
    for bar in &panel.bars {
        let middle = y + LINE_HEIGHT / 2;
        let (weight, colour) = match bar.is_ours {
            true => (FontStyle::Bold, OURS_COLOUR),
            false => (FontStyle::Normal, PEERS_COLOUR),
        };
        let words = style(TEXT_SIZE, weight);
        text(area, &bar.name, &words, (LEFT - 8, middle), HPos::Right)?;
        let end = bar.value.map_or(LEFT, x);
        if bar.value.is_some() {
            let corners = [(LEFT, y + 3), (end.max(LEFT + 1), y + LINE_HEIGHT - 3)];
            put(area.draw(&Rectangle::new(corners, colour.filled())))?;
        }
        text(area, &bar.text, &words, (end + 6, middle), HPos::Left)?;
        y += LINE_HEIGHT;
    }
    line(area, &INK, (LEFT, first), (LEFT, bottom))?;
    match panel.mark.filter(|mark| *mark <= most) {
        Some(mark) => line(area, &INK, (x(mark), first), (x(mark), bottom)),
        None => Ok(()),
    }
}

/// Round numbers from zero to `most`, about five of them, as they are written.
pub fn ticks(most: f64) -> Vec<(f64, String)> {
    if !most.is_normal() {
        return vec![(0.0, "0".to_owned())];
    }
    let rough = most / 5.0;
    let power = rough.log10().floor();
    let unit = 10_f64.powf(power);
    let steps = [1.0, 2.0, 5.0, 10.0].map(|step| step * unit);
    let step = steps.into_iter().find(|step| *step >= rough);
    let step = step.unwrap_or(10.0 * unit);
    let decimals = if step < 1.0 { -power as usize } else { 0 };
    let ticks = (0..=(most / step) as u32).map(|count| f64::from(count) * step);
    ticks
        .map(|value| (value, format!("{value:.decimals$}")))
        .collect()
}

pub fn plain() -> TextStyle<'static> {
    style(TEXT_SIZE, FontStyle::Normal)
}

pub fn style(size: i32, weight: FontStyle) -> TextStyle<'static> {
    TextStyle::from(("sans-serif", size).into_font().style(weight)).color(&INK)
}

pub fn text(area: &Area, words: &str, style: &TextStyle, at: (i32, i32), side: HPos) -> Drawn {
    let style = style.pos(Pos::new(side, VPos::Center));
    put(area.draw(&Text::new(words.to_owned(), at, style)))
}

pub fn line(area: &Area, colour: &RGBColor, from: (i32, i32), to: (i32, i32)) -> Drawn {
    put(area.draw(&PathElement::new(vec![from, to], colour.stroke_width(1))))
}

pub fn put<T, E: std::fmt::Display>(result: Result<T, E>) -> Drawn {
    result.map(|_| ()).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scales_have_round_numbers() {
        let labels = |most| -> Vec<String> { ticks(most).into_iter().map(|it| it.1).collect() };
        assert_eq!(labels(2.3), ["0.0", "0.5", "1.0", "1.5", "2.0"]);
        assert_eq!(labels(1.0), ["0.0", "0.2", "0.4", "0.6", "0.8", "1.0"]);
        assert_eq!(labels(123.0), ["0", "50", "100"]);
        assert_eq!(labels(0.07), ["0.00", "0.02", "0.04", "0.06"]);
        assert_eq!(labels(0.0), ["0"]);
        for most in [1e-9, 0.3, 4.999, 5.0, 5.001, 1e12] {
            assert!((3..=6).contains(&ticks(most).len()), "{most}");
        }
    }
}
