//! The command `report`: the functions of a heap profile, or of the growth between two, as a table
//! or a JSON object, and a flame graph of the stacks.
//!
//! A function's flat value is that of the stacks in which it is the innermost; its cumulative value
//! that of all stacks it is in, each counted once, however often the function calls itself.

use std::collections::{BTreeMap, HashSet};
use std::io::{self, Write};
use std::path::Path;
use std::rc::Rc;

use serde::Serialize;

use crate::End;
use crate::args::ReportArgs;
use crate::failure::{Failure, complain};
use crate::flame::{self, Labels};
use crate::profile_file;
use crate::stacks::{self, Stack, Stacks};
use crate::symbolize::add_symbols;
use crate::units;

pub(crate) fn report(args: &ReportArgs) -> Result<End, Failure> {
    let text = match (args.diff.as_slice(), args.profile.as_deref()) {
        ([before, after], _) => growth(args, before, after)?,
        (_, Some(profile)) => single(args, profile)?,
        (_, None) => return Err(Failure::new("no profile is named")),
    };
    // Nobody to tell if standard output is closed.
    let _ = io::stdout().write_all(text.as_bytes());
    Ok(End::Code(0))
}

/// The stacks of a file, with the names of functions.
fn read(args: &ReportArgs, path: &Path) -> Result<Stacks, Failure> {
    let mut profile = profile_file::read(path)?;
    for sentence in add_symbols(&mut profile) {
        complain(&sentence);
    }
    stacks::stacks(&profile, &args.sample_type, args.keep_allocator_frames).ok_or_else(|| {
        Failure::new(format!(
            "{}: there is no sample type {}, but {}",
            path.display(),
            args.sample_type,
            stacks::sample_types(&profile).join(", ")
        ))
    })
}

#[derive(Clone, Copy, Default)]
struct Values {
    flat: i64,
    cumulative: i64,
}

fn functions(stacks: &Stacks) -> BTreeMap<Rc<str>, Values> {
    let mut functions: BTreeMap<Rc<str>, Values> = BTreeMap::new();
    for (stack, &value) in &stacks.values {
        if let Some(innermost) = stack.first() {
            let values = functions.entry(innermost.clone()).or_default();
            values.flat = values.flat.saturating_add(value);
        }
        for name in stack.iter().collect::<HashSet<_>>() {
            let values = functions.entry(name.clone()).or_default();
            values.cumulative = values.cumulative.saturating_add(value);
        }
    }
    functions
}

fn total(stacks: &Stacks) -> i64 {
    stacks
        .values
        .values()
        .fold(0, |sum, it| sum.saturating_add(*it))
}

/// What `--json` prints of one profile.
#[derive(Serialize)]
struct Single<'a> {
    sample_type: &'a str,
    unit: &'a str,
    total: i64,
    functions: Vec<SingleFunction>,
}

#[derive(Serialize)]
struct SingleFunction {
    function: String,
    flat: i64,
    cumulative: i64,
}

fn single(args: &ReportArgs, path: &Path) -> Result<String, Failure> {
    let stacks = read(args, path)?;
    let mut functions: Vec<_> = functions(&stacks)
        .into_iter()
        .map(|(name, values)| SingleFunction {
            function: name.to_string(),
            flat: values.flat,
            cumulative: values.cumulative,
        })
        .collect();
    functions.sort_by(|a, b| {
        let key = |it: &SingleFunction| match args.cumulative {
            true => (it.cumulative, it.flat),
            false => (it.flat, it.cumulative),
        };
        key(b)
            .cmp(&key(a))
            .then_with(|| a.function.cmp(&b.function))
    });
    let all = functions.len();
    functions.truncate(args.top);
    if let Some(svg) = &args.flame {
        let labels = Labels {
            title: &args.sample_type,
            subtitle: &path.display().to_string(),
            unit: &stacks.unit,
        };
        let positive = |value: i64| u64::try_from(value).unwrap_or(0);
        let lines = stacks.values.iter();
        flame::write(
            svg,
            &labels,
            lines.map(|(it, &value)| (it, [positive(value)])),
        )?;
    }
    let record = Single {
        sample_type: &args.sample_type,
        unit: &stacks.unit,
        total: total(&stacks),
        functions,
    };
    if args.json {
        return json(&record);
    }
    let show = |value: i64| amount(value, record.unit);
    let mut rows = vec![["flat", "flat %", "cumulative", "cum. %", "function"].map(str::to_string)];
    for function in &record.functions {
        rows.push([
            show(function.flat),
            percent(function.flat, record.total),
            show(function.cumulative),
            percent(function.cumulative, record.total),
            function.function.clone(),
        ]);
    }
    Ok(format!(
        "{}: {} in all; {} of {all} functions\n{}",
        record.sample_type,
        show(record.total),
        record.functions.len(),
        units::table_of_figures(rows)
    ))
}

/// What `--json` prints of two profiles.
#[derive(Serialize)]
struct Growth<'a> {
    sample_type: &'a str,
    unit: &'a str,
    total_before: i64,
    total_after: i64,
    functions: Vec<GrowthFunction>,
}

#[derive(Serialize)]
struct GrowthFunction {
    function: String,
    flat_growth: i64,
    cumulative_growth: i64,
    flat_before: i64,
    flat_after: i64,
    cumulative_before: i64,
    cumulative_after: i64,
}

fn growth(args: &ReportArgs, before: &Path, after: &Path) -> Result<String, Failure> {
    let (old, new) = (read(args, before)?, read(args, after)?);
    if old.unit != new.unit {
        return Err(Failure::new(format!(
            "{} is in {} in one of the profiles and in {} in the other",
            args.sample_type, old.unit, new.unit
        )));
    }
    let mut functions = differences(&old, &new);
    functions.sort_by(|a, b| {
        let key = |it: &GrowthFunction| match args.cumulative {
            true => (it.cumulative_growth, it.flat_growth),
            false => (it.flat_growth, it.cumulative_growth),
        };
        key(b)
            .cmp(&key(a))
            .then_with(|| a.function.cmp(&b.function))
    });
    let all = functions.len();
    functions.truncate(args.top);
    if let Some(svg) = &args.flame {
        let subtitle = format!("from {} to {}", before.display(), after.display());
        let labels = Labels {
            title: &format!("Growth of {}", args.sample_type),
            subtitle: &subtitle,
            unit: &new.unit,
        };
        flame::write(svg, &labels, both(&old, &new).into_iter())?;
    }
    let record = Growth {
        sample_type: &args.sample_type,
        unit: &new.unit,
        total_before: total(&old),
        total_after: total(&new),
        functions,
    };
    if args.json {
        return json(&record);
    }
    let show = |value: i64| amount(value, record.unit);
    let signed = |value: i64| match value {
        1.. => format!("+{}", show(value)),
        _ => show(value),
    };
    let head = ["growth", "before", "after", "cum. growth", "function"];
    let mut rows = vec![head.map(str::to_string)];
    for function in &record.functions {
        rows.push([
            signed(function.flat_growth),
            show(function.flat_before),
            show(function.flat_after),
            signed(function.cumulative_growth),
            function.function.clone(),
        ]);
    }
    let grown = record.total_after.saturating_sub(record.total_before);
    Ok(format!(
        "{}: {} in all, from {} to {}; {} of {all} functions\n{}",
        record.sample_type,
        signed(grown),
        show(record.total_before),
        show(record.total_after),
        record.functions.len(),
        units::table_of_figures(rows)
    ))
}

fn differences(old: &Stacks, new: &Stacks) -> Vec<GrowthFunction> {
    let mut pairs: BTreeMap<Rc<str>, [Values; 2]> = BTreeMap::new();
    for (index, stacks) in [old, new].into_iter().enumerate() {
        for (name, values) in functions(stacks) {
            pairs.entry(name).or_default()[index] = values;
        }
    }
    let functions = pairs.into_iter().map(|(name, [old, new])| GrowthFunction {
        function: name.to_string(),
        flat_growth: new.flat.saturating_sub(old.flat),
        cumulative_growth: new.cumulative.saturating_sub(old.cumulative),
        flat_before: old.flat,
        flat_after: new.flat,
        cumulative_before: old.cumulative,
        cumulative_after: new.cumulative,
    });
    functions.collect()
}

/// Each stack with its values before and after.
fn both<'a>(old: &'a Stacks, new: &'a Stacks) -> BTreeMap<&'a Stack, [u64; 2]> {
    let mut both: BTreeMap<&Stack, [u64; 2]> = BTreeMap::new();
    for (index, stacks) in [old, new].into_iter().enumerate() {
        for (stack, &value) in &stacks.values {
            both.entry(stack).or_default()[index] = u64::try_from(value).unwrap_or(0);
        }
    }
    both
}

fn json(record: &impl Serialize) -> Result<String, Failure> {
    match serde_json::to_string_pretty(record) {
        Ok(text) => Ok(text + "\n"),
        Err(error) => Err(Failure::new(format!("the JSON object: {error}"))),
    }
}

fn amount(value: i64, unit: &str) -> String {
    let sign = if value < 0 { "-" } else { "" };
    let size = value.unsigned_abs();
    match unit {
        "bytes" => format!("{sign}{}", units::bytes(size)),
        "count" => format!("{sign}{}", units::count(size)),
        unit => format!("{sign}{} {unit}", units::count(size)),
    }
}

fn percent(part: i64, whole: i64) -> String {
    match whole {
        0 => "-".to_string(),
        whole => format!("{:.1} %", part as f64 / whole as f64 * 100.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stacks(all: &[(&[&str], i64)]) -> Stacks {
        let stack = |names: &[&str]| names.iter().map(|&it| it.into()).collect::<Stack>();
        Stacks {
            unit: "bytes".to_string(),
            values: all.iter().map(|&(it, value)| (stack(it), value)).collect(),
        }
    }

    #[test]
    fn a_function_that_calls_itself_counts_once() {
        let stacks = stacks(&[(&["f", "g", "f", "main"], 10), (&["g", "main"], 5)]);
        let functions = functions(&stacks);
        let of = |name: &str| (functions[name].flat, functions[name].cumulative);
        assert_eq!(of("f"), (10, 10));
        assert_eq!(of("g"), (5, 15));
        assert_eq!(of("main"), (0, 15));
        assert_eq!(total(&stacks), 15);
    }

    #[test]
    fn what_is_in_one_profile_only_has_grown_or_shrunk_by_all() {
        let old = stacks(&[(&["f", "main"], 10), (&["g", "main"], 4)]);
        let new = stacks(&[(&["f", "main"], 7), (&["h", "main"], 9)]);
        let grown: Vec<_> = differences(&old, &new)
            .into_iter()
            .map(|it| (it.function, it.flat_growth, it.cumulative_growth))
            .collect();
        let expected = [("f", -3, -3), ("g", -4, -4), ("h", 9, 9), ("main", 0, 2)];
        assert_eq!(grown, expected.map(|(name, a, b)| (name.to_string(), a, b)));
        let both: Vec<_> = both(&old, &new).into_values().collect();
        assert_eq!(both, [[10, 7], [4, 0], [0, 9]]);
    }

    #[test]
    fn values_have_their_unit_and_sign() {
        assert_eq!(amount(-1536, "bytes"), "-1.5 KiB");
        assert_eq!(amount(1536, "count"), "1,536");
        assert_eq!(amount(i64::MIN, "bytes"), "-8.0 EiB");
        assert_eq!(amount(7, "nanoseconds"), "7 nanoseconds");
        assert_eq!(percent(1, 0), "-");
        assert_eq!(percent(1, 3), "33.3 %");
    }
}
