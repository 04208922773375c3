//! The forms of a snapshot: each is read by a parser of that form.

use std::collections::HashSet;
use std::fmt::{self, Write};

use openmetrics_parser::openmetrics::parse_openmetrics;
use spanmalloc::{Stats, stats};

use super::common::Numbers;
use super::{CALLS, class_of, schema, some_object};

/// A snapshot with classes, large and huge objects.
fn busy_snapshot() -> Stats {
    let mut numbers = Numbers(3);
    let mut objects: Vec<_> = (0..5000).map(|_| some_object(&mut numbers)).collect();
    objects.truncate(2500);
    let stats = stats();
    drop(objects);
    stats
}

#[test]
fn statistics_allocate_nothing() {
    let mut text = Text([0; 1 << 17], 0);
    let before = CALLS.get();
    let stats = stats();
    write!(text, "{stats}{}", stats.json()).unwrap();
    write!(text, "{}{}", stats.open_metrics(), stats.malloc_info()).unwrap();
    assert_eq!(CALLS.get(), before);
    assert!(text.1 > 10_000);
}

/// Text on the stack.
struct Text([u8; 1 << 17], usize);

impl Write for Text {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0[self.1..self.1 + text.len()].copy_from_slice(text.as_bytes());
        self.1 += text.len();
        Ok(())
    }
}

/// Numbers in a text that is not JSON's: `1,234`.
fn has_number(line: &str, number: usize) -> bool {
    line.split_whitespace()
        .any(|word| word.replace(',', "") == number.to_string())
}

#[test]
fn the_table_is_short_and_has_what_is_in_use() {
    let stats = busy_snapshot();
    let text = stats.to_string();
    let lines: Vec<_> = text.lines().collect();
    assert!(
        lines
            .iter()
            .all(|line| line.len() <= 100 && line.is_ascii()),
        "{text}"
    );
    assert!(lines.iter().all(|line| line.trim_end() == *line), "{text}");
    let all = lines
        .iter()
        .find(|line| line.starts_with("  all "))
        .unwrap();
    assert!(has_number(all, stats.live_objects), "{all}");
    for class in stats.classes.iter() {
        let row =
            |line: &&str| line.split_whitespace().next() == Some(&class.object_bytes.to_string());
        let found = lines.iter().copied().find(row);
        let is_used = class.spans > 0 || class.live_objects > 0;
        assert!(found.is_some() || !is_used, "{class:?} in {text}");
        if let Some(row) = found {
            assert!(has_number(row, class.live_objects), "{row}");
            assert!(has_number(row, class.full_spans), "{row}");
        }
    }
}

#[test]
fn json_fits_its_schema_and_has_the_figures() {
    let stats = busy_snapshot();
    let json: serde_json::Value = serde_json::from_str(&stats.json().to_string()).unwrap();
    let schema: serde_json::Value =
        serde_json::from_str(include_str!("../stats.schema.json")).unwrap();
    assert_eq!(schema::fault(&json, &schema, "$"), None);
    assert_eq!(json["live_bytes"], stats.live_bytes);
    assert_eq!(json["record_bytes"], stats.record_bytes);
    assert_eq!(json["uptime_ns"], stats.uptime_ns);
    let classes = json["classes"].as_array().unwrap();
    let total: u64 = classes
        .iter()
        .map(|class| class["live_bytes"].as_u64().unwrap())
        .sum();
    assert_eq!(total, stats.small_live_bytes as u64);
    // The schema is not of a kind that anything fits.
    for break_it in [
        |json: &mut serde_json::Value| json["live_bytes"] = "x".into(),
        |json: &mut serde_json::Value| json["other"] = 1.into(),
        |json: &mut serde_json::Value| drop(json.as_object_mut().unwrap().remove("classes")),
        |json: &mut serde_json::Value| json["classes"][0]["spans"] = (-1).into(),
    ] {
        let mut broken = json.clone();
        break_it(&mut broken);
        assert!(schema::fault(&broken, &schema, "$").is_some());
    }
}

#[test]
fn open_metrics_are_parsed_and_have_the_figures() {
    let stats = busy_snapshot();
    let text = stats.open_metrics().to_string();
    let parsed = parse_openmetrics(&text).unwrap_or_else(|error| panic!("{error}\n{text}"));
    let names: HashSet<&str> = parsed.families.keys().map(String::as_str).collect();
    for name in [
        "spanmalloc_live_bytes",
        "spanmalloc_return_seconds",
        "spanmalloc_uptime_seconds",
        "spanmalloc_lock_waits",
        "spanmalloc_class_live_bytes",
    ] {
        assert!(names.contains(name), "{name} in {text}");
    }
    let family = &parsed.families["spanmalloc_live_bytes"];
    assert_eq!(family.unit, "bytes");
    assert!(text.contains(&format!("\nspanmalloc_live_bytes {}\n", stats.live_bytes)));
    assert!(text.contains(&format!(
        "\nspanmalloc_spans_made_total {}\n",
        stats.spans_made
    )));
    let class = class_of(&stats, 64);
    let line = format!(
        "\nspanmalloc_class_live_objects{{object_bytes=\"64\"}} {}\n",
        class.live_objects
    );
    assert!(text.contains(&line), "{line} in {text}");
    let seconds = text
        .lines()
        .find_map(|line| line.strip_prefix("spanmalloc_uptime_seconds "));
    let seconds: f64 = seconds.unwrap().parse().unwrap();
    assert!((seconds - stats.uptime_ns as f64 / 1e9).abs() < 1e-6);
}

#[test]
fn malloc_info_has_the_shape_of_glibcs() {
    let stats = busy_snapshot();
    let text = stats.malloc_info().to_string();
    let document = roxmltree::Document::parse(&text).unwrap();
    let root = document.root_element();
    assert_eq!(root.tag_name().name(), "malloc");
    assert_eq!(root.attribute("version"), Some("1"));
    let heap = root.first_element_child().unwrap();
    assert_eq!(
        (heap.tag_name().name(), heap.attribute("nr")),
        ("heap", Some("0"))
    );
    let number =
        |node: roxmltree::Node, name| -> usize { node.attribute(name).unwrap().parse().unwrap() };
    let of = |parent: roxmltree::Node, tag: &str, kind: &str| {
        let found = parent
            .children()
            .find(|node| node.tag_name().name() == tag && node.attribute("type") == Some(kind));
        number(found.unwrap(), "size")
    };
    let sizes = heap.first_element_child().unwrap();
    assert_eq!(sizes.tag_name().name(), "sizes");
    let mut last = 0;
    let mut total = 0;
    for size in sizes.children().filter(roxmltree::Node::is_element) {
        let [from, to, bytes, count] =
            ["from", "to", "total", "count"].map(|name| number(size, name));
        assert!(from > last && to >= from && bytes == to * count, "{text}");
        (last, total) = (to, total + bytes);
    }
    let free = stats.magazine_bytes + stats.depot_bytes;
    assert_eq!(of(root, "total", "fast"), free);
    let slots = stats.current_free_bytes + stats.partial_free_bytes;
    let pages = stats.cached_bytes + stats.dirty_bytes;
    assert_eq!(of(heap, "total", "rest"), slots + pages);
    // Slots that tiny objects share are 16 bytes, which none of their sizes need divide.
    assert!(total.abs_diff(free + slots) < 16, "{text}");
    assert_eq!(of(root, "total", "mmap"), stats.huge_live_bytes);
    for (tag, kind) in [
        ("system", "current"),
        ("system", "max"),
        ("aspace", "total"),
        ("aspace", "mprotect"),
    ] {
        assert_eq!(of(root, tag, kind), of(heap, tag, kind));
    }
    assert!(of(root, "system", "current") <= of(root, "system", "max"));
}
