//! The view on a screen in memory.

use std::time::Duration;

use ratatui::Terminal;
use ratatui::backend::TestBackend;

use super::super::page::Class;
use super::super::sample::Published;
use super::*;

/// A program as it might be, after so many quarters of a second.
fn published(quarter: u64) -> Published {
    let class = |object_bytes, live_objects, allocations, frees| Class {
        object_bytes,
        live_objects,
        allocations: allocations * quarter,
        frees: frees * quarter,
        refilled: live_objects + allocations * quarter,
        flushed: frees * quarter,
    };
    Published {
        time_ns: quarter * 250_000_000,
        process: 4711,
        is_counted: true,
        figures: Figures {
            live_objects: 1_204_871,
            live_bytes: 88 << 20,
            large_live_bytes: 12 << 20,
            magazine_bytes: 1_900_000,
            central_bytes: 6_400_000,
            cached_bytes: 900_000,
            dirty_bytes: 14 << 20,
            released_bytes: 30 << 20,
            record_bytes: 2_300_000,
            backed_bytes: 113 << 20,
            threads: 8,
            allocations: 520_000 * quarter,
            allocated_bytes: (41 << 20) * quarter,
            frees: 495_000 * quarter,
            ..Figures::default()
        },
        classes: vec![
            class(16, 410_000, 200_000, 195_000),
            class(32, 655_360, 180_000, 170_000),
            class(48, 0, 0, 0),
            class(64, 101_111, 100_000, 98_000),
            class(1024, 36_000, 35_000, 27_000),
            class(8192, 2_400, 5_000, 5_000),
        ],
        ..Published::default()
    }
}

fn state() -> State {
    let mut state = State::new("./server --port 8080".to_string());
    for quarter in 1..=60 {
        let rss = (40 + quarter * 25 / 10 % 90) << 20;
        let elapsed = Duration::from_millis(250 * quarter);
        state.note(4711, elapsed, Some(rss), Some(published(quarter)));
    }
    state
}

/// The screen as text.
fn screen(state: &State, width: u16, height: u16) -> Vec<String> {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| render(frame, state)).unwrap();
    let buffer = terminal.backend().buffer();
    let rows = buffer.content().chunks(usize::from(width));
    rows.map(|row| {
        let text: String = row.iter().map(|cell| cell.symbol()).collect();
        text.trim_end().to_string()
    })
    .collect()
}

fn row<'a>(screen: &'a [String], name: &str) -> &'a str {
    let mut rows = screen
        .iter()
        .filter(|row| row.trim_start().starts_with(name));
    rows.next()
        .unwrap_or_else(|| panic!("no {name} in {screen:#?}"))
}

#[test]
fn head_has_memory_and_rates() {
    let screen = screen(&state(), 76, 30);
    assert!(screen[0].contains(" ./server --port 8080   process 4711   15.000 s   running "));
    assert_eq!(
        row(&screen, "RSS "),
        "RSS              100.0 MiB   at most 127.0 MiB"
    );
    let live = "live              88.0 MiB   1,204,871 objects   8 threads";
    assert_eq!(row(&screen, "live "), live);
    let allocations = "allocations    2,080,000/s   164.0 MiB/s";
    assert_eq!(row(&screen, "allocations "), allocations);
    assert_eq!(row(&screen, "frees "), "frees          1,980,000/s");
}

#[test]
fn tiers_have_bars_in_proportion() {
    let screen = screen(&state(), 76, 30);
    let len = |name| row(&screen, name).matches('█').count();
    assert_eq!(len("all of it that is backed"), BAR);
    assert_eq!(len("live objects"), 88 * BAR / 113);
    assert_eq!(len("run caches"), 1);
    assert!(row(&screen, "free, given back").contains(" 30.0 MiB "));
    assert_eq!([bar(0, 0), bar(0, 9), bar(9, 9)], [0, 0, BAR]);
    assert_eq!(bar(u64::MAX, u64::MAX), BAR);
}

#[test]
fn classes_are_those_in_use_in_the_order_that_a_key_chose() {
    let mut state = state();
    let first = |state: &State| {
        let screen = screen(state, 76, 30);
        let header = screen
            .iter()
            .position(|row| row.contains("class "))
            .unwrap();
        screen[header + 1]
            .split_whitespace()
            .next()
            .unwrap()
            .to_string()
    };
    assert_eq!(first(&state), "1,024");
    let shown = screen(&state, 76, 30);
    assert!(!shown.iter().any(|row| row.trim_start().starts_with("48 B")));
    assert!(
        shown
            .iter()
            .any(|row| row.contains(" size classes, by live bytes "))
    );
    let of_64 = ["64", "B", "6.2", "MiB", "101,111", "400,000/s", "392,000/s"];
    assert!(row(&shown, "64 B").split_whitespace().eq(of_64));
    state.sort_next();
    assert_eq!(first(&state), "32");
    state.sort_next();
    assert_eq!(first(&state), "16");
    state.sort_next();
    assert_eq!(first(&state), "8,192");
}

#[test]
fn pause_is_shown() {
    let mut state = state();
    assert!(screen(&state, 76, 30)[29].contains("p pause"));
    state.is_paused = true;
    let screen = screen(&state, 76, 30);
    assert!(screen[0].contains(" paused "));
    assert!(screen[29].contains("p go on"));
}

#[test]
fn program_that_tells_nothing_is_shown_as_such() {
    let mut state = State::new("static".to_string());
    state.note(5, Duration::from_secs(1), Some(1 << 20), None);
    let screen = screen(&state, 76, 30);
    assert!(screen[1].contains("has told nothing yet"));
    assert_eq!(line(&state), "1.000 s: RSS 1.0 MiB");
}

#[test]
fn rates_that_are_not_known_are_dashes() {
    let mut state = State::new("program".to_string());
    let uncounted = Published {
        is_counted: false,
        ..published(3)
    };
    state.note(5, Duration::ZERO, Some(1), Some(uncounted));
    let screen = screen(&state, 76, 30);
    assert!(row(&screen, "frees ").ends_with(UNKNOWN));
    assert!(row(&screen, "16 B").ends_with(UNKNOWN));
    assert!(!line(&state).contains("allocations"));
}

#[test]
fn small_screens_are_no_error() {
    for (width, height) in [(1, 1), (20, 5), (76, 12), (300, 100)] {
        assert_eq!(screen(&state(), width, height).len(), usize::from(height));
    }
}

#[test]
fn line_has_the_same_figures() {
    assert_eq!(
        line(&state()),
        "15.000 s: RSS 100.0 MiB, live 88.0 MiB in 1,204,871 objects, backed 113.0 MiB, threads 8, \
         allocations 2,080,000/s of 164.0 MiB/s, frees 1,980,000/s"
    );
}

/// The picture in the README is what the view draws.
#[test]
fn readme_has_this_picture() {
    let picture = screen(&state(), 76, 25).join("\n");
    let readme = include_str!("../../../../../README.md");
    assert!(
        readme.contains(&format!("```text\n{picture}\n```")),
        "\n{picture}\n"
    );
}
