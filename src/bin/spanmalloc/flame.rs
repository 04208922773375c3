//! Flame graphs, by the crate inferno.

use std::path::Path;

use inferno::flamegraph::color::BasicPalette;
use inferno::flamegraph::{self, Options, Palette};

use crate::failure::{Failure, reason};
use crate::stacks::Stack;

/// What a flame graph says about itself.
pub(crate) struct Labels<'a> {
    pub(crate) title: &'a str,
    pub(crate) subtitle: &'a str,
    /// Of the values, as the profile names it.
    pub(crate) unit: &'a str,
}

/// Writes stacks with their values, or with those before and after, as an SVG file.
pub(crate) fn write<'a, const VALUES: usize>(
    path: &Path,
    labels: &Labels,
    stacks: impl Iterator<Item = (&'a Stack, [u64; VALUES])>,
) -> Result<(), Failure> {
    let mut sums = [0_u64; VALUES];
    let mut lines = Vec::new();
    for (stack, values) in stacks {
        for (sum, value) in sums.iter_mut().zip(values) {
            *sum = sum.saturating_add(value);
        }
        lines.push(line(stack, values));
    }
    // Inferno adds without a look at overflows.
    if sums.iter().any(|&sum| i64::try_from(sum).is_err()) {
        return Err(Failure::new("there is no flame graph of such large values"));
    }
    let mut options = Options::default();
    // Narrower frames have no room for a letter.
    options.min_width = 0.3;
    options.title = labels.title.to_string();
    options.subtitle = Some(labels.subtitle.to_string());
    options.count_name = match labels.unit {
        "count" => "objects".to_string(),
        unit => unit.to_string(),
    };
    options.colors = Palette::Basic(BasicPalette::Mem);
    // The same colour for a function in each graph.
    options.deterministic = true;
    let mut svg = Vec::new();
    flamegraph::from_lines(&mut options, lines.iter().map(String::as_str), &mut svg).map_err(
        |error| {
            let why = reason(&error);
            Failure::new(format!("there is no flame graph to draw: {why}"))
        },
    )?;
    std::fs::write(path, svg).map_err(|error| Failure::of_file(path, &error))
}

/// The outermost function first, as inferno reads it.
fn line<const VALUES: usize>(stack: &Stack, values: [u64; VALUES]) -> String {
    let names: Vec<String> = stack.iter().rev().map(|name| escaped(name)).collect();
    let mut line = names.join(";");
    for value in values {
        line.push(' ');
        line.push_str(&value.to_string());
    }
    line
}

/// A name without what separates names, lines and values: `[u8; 4]` has a semicolon. Digits after a
/// space at the end would be taken for a value.
fn escaped(name: &str) -> String {
    let plain = |c: char| match c {
        ';' => ',',
        c if c.is_control() => ' ',
        c => c,
    };
    let name: String = name.chars().map(plain).collect();
    match name.trim().rsplit_once(' ') {
        Some((start, end)) if end.chars().all(|c| c.is_ascii_digit() || c == '.') => {
            format!("{start}\u{a0}{end}")
        }
        _ => name.trim().to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stack(names: &[&str]) -> Stack {
        names.iter().map(|&it| it.into()).collect()
    }

    #[test]
    fn a_line_has_the_outermost_function_first() {
        let stack = stack(&["f", "<[u8; 4] as T>::g", "main"]);
        assert_eq!(line(&stack, [5]), "main;<[u8, 4] as T>::g;f 5");
        assert_eq!(escaped("f::[u8; 4]"), "f::[u8, 4]");
        assert_eq!(line(&stack, [5, 6]), "main;<[u8, 4] as T>::g;f 5 6");
    }

    #[test]
    fn a_name_that_ends_in_a_number_is_no_value() {
        assert_eq!(
            line(&stack(&["stage 7", "a\nb"]), [5]),
            "a b;stage\u{a0}7 5"
        );
    }

    #[test]
    fn there_is_no_graph_of_nothing_or_too_much() {
        let labels = Labels {
            title: "",
            subtitle: "",
            unit: "bytes",
        };
        let nothing = std::iter::empty::<(&Stack, [u64; 1])>();
        let path = Path::new("/nowhere/flame.svg");
        assert!(write(path, &labels, nothing).is_err());
        let (a, b) = (stack(&["a"]), stack(&["b"]));
        let large = [(&a, [1 << 62]), (&b, [1 << 62])];
        let failure = write(path, &labels, large.into_iter()).unwrap_err();
        assert!(failure.sentence().ends_with("such large values"));
    }
}
