//! The command `symbolize`: looks up functions, files and lines for a profile's addresses.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use crate::End;
use crate::args::SymbolizeArgs;
use crate::binary::{Binary, Frame};
use crate::failure::{Failure, complain};
use crate::profile_file;
use crate::proto::{Function, Line, Profile, Strings};

pub(crate) fn symbolize(args: &SymbolizeArgs) -> Result<End, Failure> {
    let mut profile = profile_file::read(&args.profile)?;
    for sentence in add_symbols(&mut profile) {
        complain(&sentence);
    }
    let output = args.output.as_deref().unwrap_or(&args.profile);
    profile_file::write(&profile, output)?;
    Ok(End::Code(0))
}

/// Gives lines to all locations that have none. Returns a sentence for each file that was of no use.
pub(crate) fn add_symbols(profile: &mut Profile) -> Vec<String> {
    let mut bare: BTreeMap<u64, Vec<usize>> = BTreeMap::new();
    for (index, location) in profile.location.iter().enumerate() {
        if location.line.is_empty() && location.mapping_id != 0 {
            bare.entry(location.mapping_id).or_default().push(index);
        }
    }
    let mut binaries: HashMap<(String, String), Option<Binary>> = HashMap::new();
    let mut functions = Functions::of(profile);
    let mut sentences = Vec::new();
    for index in 0..profile.mapping.len() {
        let mapping = profile.mapping[index];
        let Some(locations) = bare.get(&mapping.id) else {
            continue;
        };
        // Looked up before: what has no name will get none.
        if mapping.has_functions {
            continue;
        }
        let path = profile_file::text(profile, mapping.filename).to_string();
        // Not of a file: of the kernel, or made at run time.
        if !path.starts_with('/') {
            continue;
        }
        let build_id = profile_file::text(profile, mapping.build_id).to_string();
        // A file may be mapped in several parts; one sentence about it will do.
        let binary = binaries
            .entry((path, build_id))
            .or_insert_with_key(|(path, build_id)| {
                Binary::open(Path::new(path), build_id)
                    .map_err(|why| {
                        sentences.push(format!("{path} {why}; its functions have no names"))
                    })
                    .ok()
            });
        let Some(binary) = binary else {
            continue;
        };
        for &index in locations {
            let location = &mut profile.location[index];
            let offset = location
                .address
                .wrapping_sub(mapping.memory_start)
                .wrapping_add(mapping.file_offset);
            let frames = binary.address(offset).map(|it| binary.frames(it));
            let frames = frames.unwrap_or_default();
            location.line = frames.iter().map(|it| functions.line(it)).collect();
        }
        let mapping = &mut profile.mapping[index];
        mapping.has_functions = true;
        mapping.has_filenames = binary.has_lines();
        mapping.has_line_numbers = binary.has_lines();
        mapping.has_inline_frames = binary.has_lines();
    }
    profile.function = functions.all;
    profile.string_table = functions.strings.into_table();
    sentences
}

/// The functions of a profile: each once.
struct Functions {
    all: Vec<Function>,
    /// By name, system name and file.
    ids: HashMap<(i64, i64, i64), u64>,
    last_id: u64,
    strings: Strings,
}

impl Functions {
    fn of(profile: &Profile) -> Self {
        let all = profile.function.clone();
        let key = |it: &Function| (it.name, it.system_name, it.filename);
        Self {
            ids: all.iter().map(|it| (key(it), it.id)).collect(),
            last_id: all.iter().map(|it| it.id).max().unwrap_or(0),
            strings: Strings::of(profile.string_table.clone()),
            all,
        }
    }

    fn line(&mut self, frame: &Frame) -> Line {
        let key = (
            self.strings.index(&frame.name),
            self.strings.index(&frame.system_name),
            self.strings.index(&frame.file),
        );
        let id = match self.ids.get(&key) {
            Some(&id) => id,
            None => self.add(key),
        };
        Line {
            function_id: id,
            line: frame.line.into(),
            column: frame.column.into(),
        }
    }

    fn add(&mut self, key: (i64, i64, i64)) -> u64 {
        let (name, system_name, filename) = key;
        self.last_id = self.last_id.wrapping_add(1);
        self.all.push(Function {
            id: self.last_id,
            name,
            system_name,
            filename,
            start_line: 0,
        });
        self.ids.insert(key, self.last_id);
        self.last_id
    }
}
