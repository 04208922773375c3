//! The view: what is drawn.

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Style, Stylize};
use ratatui::text::Line;
use ratatui::widgets::{Block, Borders, Paragraph, Sparkline, Table};

use super::page::Figures;
use super::state::State;
use crate::units;

/// Width of the longest bar.
const BAR: usize = 30;
/// What is said instead of figures that are not there.
const UNKNOWN: &str = "-";

/// The name of a place where memory is, and its bytes.
type Tier = (&'static str, fn(&Figures) -> u64);

/// Where the memory is, in the order of the view.
const TIERS: [Tier; 8] = [
    ("live objects", |figures| figures.live_bytes),
    ("caches of threads", |figures| figures.magazine_bytes),
    ("central lists", |figures| figures.central_bytes),
    ("run caches", |figures| figures.cached_bytes),
    ("free, with memory", |figures| figures.dirty_bytes),
    ("free, given back", |figures| figures.released_bytes),
    ("the allocator's records", |figures| figures.record_bytes),
    ("all of it that is backed", |figures| figures.backed_bytes),
];

pub(crate) fn render(frame: &mut Frame, state: &State) {
    let [head, curve, tiers, classes, keys] = Layout::vertical([
        Constraint::Length(5),
        Constraint::Length(3),
        Constraint::Length(TIERS.len() as u16 + 1),
        Constraint::Min(3),
        Constraint::Length(1),
    ])
    .areas(frame.area());
    render_head(frame, head, state);
    let values: Vec<u64> = state.curve.iter().copied().collect();
    let newest = values.len().saturating_sub(usize::from(curve.width));
    frame.render_widget(
        Sparkline::default()
            .data(&values[newest..])
            .max(state.peak_rss_bytes),
        curve,
    );
    render_tiers(frame, tiers, state);
    render_classes(frame, classes, state);
    let pause = if state.is_paused {
        "p go on"
    } else {
        "p pause"
    };
    let order = state.order.name();
    let text = format!("q quit the view   s sort (by {order})   {pause}   Ctrl-C to the program");
    frame.render_widget(Paragraph::new(text).dim(), keys);
}

fn title(text: String) -> Block<'static> {
    Block::new().borders(Borders::TOP).title(text.bold())
}

fn render_head(frame: &mut Frame, area: Rect, state: &State) {
    let what = if state.is_paused { "paused" } else { "running" };
    let title = title(format!(
        " {}   process {}   {}   {what} ",
        state.program,
        state.pid,
        units::time(state.elapsed)
    ));
    let Some(last) = state.last() else {
        let text = "The allocator has told nothing yet: it does so when the program allocates.";
        frame.render_widget(Paragraph::new(text).block(title), area);
        return;
    };
    let figures = &last.figures;
    let rate = |text: Option<String>| text.unwrap_or_else(|| UNKNOWN.to_string());
    let rates = state.rates();
    let (bytes, peak) = (
        units::bytes(state.rss_bytes),
        units::bytes(state.peak_rss_bytes),
    );
    let lines = [
        format!("RSS           {bytes:>12}   at most {peak}"),
        format!(
            "live          {:>12}   {} objects   {} threads",
            units::bytes(figures.live_bytes),
            units::count(figures.live_objects),
            units::count(figures.threads)
        ),
        format!(
            "allocations   {:>12}   {}",
            rate(rates.map(|rates| per_second(rates.allocations))),
            rate(rates.map(|rates| format!("{}/s", units::bytes(rates.allocated_bytes as u64))))
        ),
        format!(
            "frees         {:>12}",
            rate(rates.map(|rates| per_second(rates.frees)))
        ),
    ];
    let lines: Vec<Line> = lines.into_iter().map(Line::from).collect();
    frame.render_widget(Paragraph::new(lines).block(title), area);
}

/// `1234567.8` is `1,234,567/s`.
pub(crate) fn per_second(rate: f64) -> String {
    format!("{}/s", units::count(rate as u64))
}

fn render_tiers(frame: &mut Frame, area: Rect, state: &State) {
    let figures = state.last().map(|last| last.figures).unwrap_or_default();
    let most = TIERS.iter().map(|(_, of)| of(&figures)).max().unwrap_or(0);
    let lines: Vec<Line> = TIERS
        .iter()
        .map(|(name, of)| {
            let bytes = of(&figures);
            let len = bar(bytes, most);
            Line::from(format!(
                "{name:<24}  {:>12}   {}",
                units::bytes(bytes),
                "█".repeat(len)
            ))
        })
        .collect();
    let block = title(" where the memory is ".to_string());
    frame.render_widget(Paragraph::new(lines).block(block), area);
}

/// The length of a bar; what there is at all can be seen.
fn bar(part: u64, most: u64) -> usize {
    if part == 0 {
        return 0;
    }
    let len = u128::from(part) * BAR as u128 / u128::from(most.max(1));
    (len as usize).clamp(1, BAR)
}

fn render_classes(frame: &mut Frame, area: Rect, state: &State) {
    let right = |text: &str, width: usize| format!("{text:>width$}");
    let header = ["class", "live", "objects", "allocations", "frees"];
    let widths = [10, 12, 14, 18, 18];
    let cells = |cells: [String; 5]| {
        let mut widths = widths.iter();
        cells.map(|cell| right(&cell, widths.next().copied().unwrap_or(0)))
    };
    let rows: Vec<_> = state
        .rows()
        .iter()
        .map(|row| {
            let rate = |index: usize| match row.rates {
                Some(rates) => per_second(rates[index]),
                None => UNKNOWN.to_string(),
            };
            ratatui::widgets::Row::new(cells([
                format!("{} B", units::count(row.class.object_bytes)),
                units::bytes(row.live_bytes()),
                units::count(row.class.live_objects),
                rate(0),
                rate(1),
            ]))
        })
        .collect();
    let table = Table::new(rows, widths.map(|width| Constraint::Length(width as u16)))
        .header(
            ratatui::widgets::Row::new(cells(header.map(str::to_string)))
                .style(Style::new().bold()),
        )
        .column_spacing(0)
        .block(title(format!(" size classes, by {} ", state.order.name())));
    frame.render_widget(table, area);
}

/// The view as one line, for where there is no terminal.
pub(crate) fn line(state: &State) -> String {
    let time = units::time(state.elapsed);
    let rss = units::bytes(state.rss_bytes);
    let Some(last) = state.last() else {
        return format!("{time}: RSS {rss}");
    };
    let figures = &last.figures;
    let mut text = format!(
        "{time}: RSS {rss}, live {} in {} objects, backed {}, threads {}",
        units::bytes(figures.live_bytes),
        units::count(figures.live_objects),
        units::bytes(figures.backed_bytes),
        figures.threads,
    );
    if let Some(rates) = state.rates() {
        text.push_str(&format!(
            ", allocations {} of {}/s, frees {}",
            per_second(rates.allocations),
            units::bytes(rates.allocated_bytes as u64),
            per_second(rates.frees)
        ));
    }
    text
}

#[cfg(test)]
mod tests;
