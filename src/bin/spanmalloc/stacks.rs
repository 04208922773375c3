//! The stacks of a profile as names of functions, with the values of one sample type.

use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;

use crate::profile_file::text;
use crate::proto::{Location, Mapping, Profile};

/// Names of functions, the innermost first.
pub(crate) type Stack = Vec<Rc<str>>;

/// Of one sample type.
pub(crate) struct Stacks {
    /// `bytes`, or `count`, or whatever else the profile has.
    pub(crate) unit: String,
    pub(crate) values: BTreeMap<Stack, i64>,
}

/// A function that a location is in.
#[derive(Clone)]
struct Frame {
    name: Rc<str>,
    origin: Origin,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Origin {
    Allocator,
    /// Of Rust's standard library; the allocator uses it as well.
    Standard,
    Program,
}

/// The names of a profile's sample types.
pub(crate) fn sample_types(profile: &Profile) -> Vec<&str> {
    let types = profile.sample_type.iter();
    types.map(|it| text(profile, it.r#type)).collect()
}

/// The stacks with values of a sample type; `None` if the profile has no such type.
pub(crate) fn stacks(profile: &Profile, sample_type: &str, keep_allocator: bool) -> Option<Stacks> {
    let mut types = profile.sample_type.iter();
    let index = types.position(|it| text(profile, it.r#type) == sample_type)?;
    let frames = frames(profile);
    let mut values = BTreeMap::new();
    for sample in &profile.sample {
        let value = sample.value.get(index).copied().unwrap_or(0);
        if value == 0 {
            continue;
        }
        let known = sample.location_id.iter().filter_map(|id| frames.get(id));
        let frames: Vec<&Frame> = known.flatten().collect();
        let hidden = match keep_allocator {
            true => 0,
            false => frames_of_allocator(&frames),
        };
        let mut stack: Stack = frames[hidden..].iter().map(|it| it.name.clone()).collect();
        if stack.is_empty() {
            stack.push("(no stack)".into());
        }
        let sum = values.entry(stack).or_insert(0_i64);
        *sum = sum.saturating_add(value);
    }
    Some(Stacks {
        unit: text(profile, profile.sample_type[index].unit).to_string(),
        values,
    })
}

/// How many of the innermost frames are the allocator's, with what it uses of the standard library.
/// None if all are: then the allocator is who allocated.
fn frames_of_allocator(frames: &[&Frame]) -> usize {
    let mut count = 0;
    for (frame, number) in frames.iter().zip(1..) {
        match frame.origin {
            Origin::Allocator => count = number,
            Origin::Standard => {}
            Origin::Program => break,
        }
    }
    if count == frames.len() { 0 } else { count }
}

/// The frames of each location.
fn frames(profile: &Profile) -> HashMap<u64, Vec<Frame>> {
    let names: HashMap<u64, Rc<str>> = profile
        .function
        .iter()
        .map(|it| {
            let names = [text(profile, it.name), text(profile, it.system_name)];
            let name = names.into_iter().find(|name| !name.is_empty());
            (it.id, name.unwrap_or("(no name)").into())
        })
        .collect();
    let mappings: HashMap<u64, &Mapping> = profile.mapping.iter().map(|it| (it.id, it)).collect();
    let frames_of = |location: &Location| {
        let mapping = mappings.get(&location.mapping_id).copied();
        let file = mapping.map_or("", |it| text(profile, it.filename));
        let file = file.rsplit('/').next().unwrap_or_default();
        let file = file.strip_suffix(" (deleted)").unwrap_or(file);
        let library = file.starts_with("libspanmalloc") && file.contains(".so");
        let frame = |name: Rc<str>| Frame {
            origin: if library {
                Origin::Allocator
            } else {
                origin(&name)
            },
            name,
        };
        let lines = location.line.iter();
        let named = lines.filter_map(|it| names.get(&it.function_id));
        let mut frames: Vec<Frame> = named.map(|name| frame(name.clone())).collect();
        if frames.is_empty() {
            frames.push(frame(address(location, mapping, file).into()));
        }
        frames
    };
    let locations = profile.location.iter();
    locations.map(|it| (it.id, frames_of(it))).collect()
}

/// What stands for the name of a function that is not known. The same in each run of a program.
fn address(location: &Location, mapping: Option<&Mapping>, file: &str) -> String {
    match mapping {
        Some(mapping) if !file.is_empty() => {
            let start = mapping.memory_start.wrapping_sub(mapping.file_offset);
            format!("{file}+{:#x}", location.address.wrapping_sub(start))
        }
        _ => format!("{:#x}", location.address),
    }
}

fn origin(name: &str) -> Origin {
    const CRATES: [&str; 3] = ["alloc", "core", "std"];
    // How C and C++ enter an allocator.
    const ENTRIES: [&str; 12] = [
        "malloc",
        "calloc",
        "realloc",
        "reallocarray",
        "aligned_alloc",
        "memalign",
        "posix_memalign",
        "valloc",
        "pvalloc",
        "operator new",
        "operator new[]",
        "alloc::alloc::exchange_malloc",
    ];
    let plain = name.split('(').next().unwrap_or(name);
    // `<Type as Trait>::function`: it belongs where the type does.
    let path = plain.trim_start_matches(['<', '&']);
    // Rust's entries; the compiler puts them into a crate of that name.
    let symbol = plain.strip_prefix("__rustc::").unwrap_or(plain);
    let of_rust = ["__rust_", "__rdl_", "__rg_"].iter().any(|prefix| {
        let entry = symbol.strip_prefix(prefix);
        entry.is_some_and(|it| matches!(it, "alloc" | "alloc_zeroed" | "realloc"))
    });
    if of_rust
        || ENTRIES.contains(&plain)
        || ["spanmalloc::", "alloc::alloc::"]
            .iter()
            .any(|it| path.starts_with(it))
    {
        return Origin::Allocator;
    }
    let first = path.split("::").next().unwrap_or_default();
    match CRATES.contains(&first) && path.len() > first.len() {
        true => Origin::Standard,
        false => Origin::Program,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(name: &str) -> Frame {
        Frame {
            name: name.into(),
            origin: origin(name),
        }
    }

    fn hidden(names: &[&str]) -> usize {
        let frames: Vec<_> = names.iter().map(|it| frame(it)).collect();
        frames_of_allocator(&frames.iter().collect::<Vec<_>>())
    }

    #[test]
    fn the_allocator_is_known_by_its_names() {
        for name in [
            "spanmalloc::malloc::alloc",
            "<spanmalloc::abi::global::SpanMalloc as core::alloc::global::GlobalAlloc>::alloc",
            "__rust_alloc",
            "__rustc::__rust_alloc_zeroed",
            "__rg_realloc",
            "<alloc::alloc::Global as core::alloc::Allocator>::allocate",
            "malloc",
            "operator new[]",
            "operator new(unsigned long)",
        ] {
            assert!(origin(name) == Origin::Allocator, "{name}");
        }
        for name in [
            "spanmallocs::f",
            "my_malloc",
            "mallocate",
            "__rust_begin_short_backtrace",
            "app::malloc",
            "std",
        ] {
            assert!(origin(name) == Origin::Program, "{name}");
        }
        assert!(origin("alloc::vec::Vec<T>::push") == Origin::Standard);
        assert!(origin("<alloc::vec::Vec<T> as core::ops::Drop>::drop") == Origin::Standard);
    }

    #[test]
    fn only_the_innermost_frames_are_hidden() {
        let entry = "__rust_alloc";
        assert_eq!(hidden(&[]), 0);
        assert_eq!(hidden(&["app::f", "main"]), 0);
        assert_eq!(hidden(&["spanmalloc::x", entry, "app::f", "main"]), 2);
        assert_eq!(
            hidden(&["core::ptr::read", entry, "alloc::vec::push", "main"]),
            2
        );
        assert_eq!(hidden(&["app::f", entry, "main"]), 0);
        assert_eq!(hidden(&[entry, "spanmalloc::background"]), 0);
        assert_eq!(hidden(&["alloc::vec::push", "main"]), 0);
    }
}
