//! Names that are chosen on the command line.

/// Whether a name fits a pattern, in which each `*` stands for any characters, or none.
pub fn fits(name: &str, pattern: &str) -> bool {
    let Some((head, tail)) = pattern.split_once('*') else {
        return name == pattern;
    };
    let Some(rest) = name.strip_prefix(head) else {
        return false;
    };
    let ends = rest.char_indices().map(|(index, _)| index);
    ends.chain([rest.len()])
        .any(|start| fits(&rest[start..], tail))
}

/// Those that fit one of the patterns, in their own order; all if there is no pattern. The error is
/// a pattern that fits none.
pub fn select<T>(
    all: Vec<T>,
    patterns: &[String],
    name: impl Fn(&T) -> &str,
) -> Result<Vec<T>, &str> {
    if patterns.is_empty() {
        return Ok(all);
    }
    for pattern in patterns {
        if !all.iter().any(|it| fits(name(it), pattern)) {
            return Err(pattern);
        }
    }
    let chosen = |it: &T| patterns.iter().any(|pattern| fits(name(it), pattern));
    Ok(all.into_iter().filter(chosen).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_is_any_characters() {
        for (name, pattern, expected) in [
            ("random-1m", "random-1m", true),
            ("random-1m", "random-1", false),
            ("random-1m", "random-*", true),
            ("random-1m", "*", true),
            ("random-1m", "*-1m", true),
            ("random-1m", "r*-*m", true),
            ("random-1m", "r*-*k", false),
            ("random-1m", "random-1m*", true),
            ("random", "random-*", false),
            ("aab", "*ab", true),
            ("ö", "*", true),
            ("", "", true),
        ] {
            assert_eq!(fits(name, pattern), expected, "{name} {pattern}");
        }
    }

    #[test]
    fn what_is_chosen_keeps_its_order() {
        let all = || vec!["c", "b1", "b2", "a"];
        let chosen = |patterns: &[&str]| {
            let patterns: Vec<String> = patterns.iter().map(|it| it.to_string()).collect();
            select(all(), &patterns, |it| it).map_err(str::to_owned)
        };
        assert_eq!(chosen(&[]).unwrap(), all());
        assert_eq!(chosen(&["a", "b*", "b1"]).unwrap(), ["b1", "b2", "a"]);
        assert_eq!(chosen(&["a", "d*"]).unwrap_err(), "d*");
    }
}
