//! Profiles made by hand, and what the tool made of them, by another implementation of the format.

use std::collections::HashMap;
use std::fs;
use std::io::{Read, Write};
use std::path::Path;

use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use pprof::protos::{Function, Line, Location, Mapping, Message, Profile, Sample, ValueType};

/// A profile under construction.
pub struct Builder {
    pub profile: Profile,
    /// Locations of functions with names.
    named: HashMap<String, u64>,
}

impl Builder {
    /// With types and units, such as `inuse_space bytes`.
    pub fn new(types: &[&str]) -> Self {
        let mut builder = Self {
            profile: Profile::new(),
            named: HashMap::new(),
        };
        builder.string("");
        for text in types {
            let (name, unit) = text.split_once(' ').unwrap();
            let mut value_type = ValueType::new();
            value_type.ty = builder.string(name);
            value_type.unit = builder.string(unit);
            builder.profile.sample_type.push(value_type);
        }
        builder
    }

    pub fn string(&mut self, text: &str) -> i64 {
        let table = &mut self.profile.string_table;
        let index = table.iter().position(|it| it == text).unwrap_or_else(|| {
            table.push(text.to_string());
            table.len() - 1
        });
        i64::try_from(index).unwrap()
    }

    pub fn mapping(
        &mut self,
        start: u64,
        limit: u64,
        offset: u64,
        file: &str,
        build_id: &str,
    ) -> u64 {
        let mut mapping = Mapping::new();
        mapping.id = self.profile.mapping.len() as u64 + 1;
        mapping.memory_start = start;
        mapping.memory_limit = limit;
        mapping.file_offset = offset;
        mapping.filename = self.string(file);
        mapping.build_id = self.string(build_id);
        self.profile.mapping.push(mapping);
        self.profile.mapping.len() as u64
    }

    /// A location without a name.
    pub fn address(&mut self, address: u64, mapping_id: u64) -> u64 {
        let mut location = Location::new();
        location.id = self.profile.location.len() as u64 + 1;
        location.address = address;
        location.mapping_id = mapping_id;
        self.profile.location.push(location);
        self.profile.location.len() as u64
    }

    /// The location of a function with a name.
    pub fn function(&mut self, name: &str) -> u64 {
        if let Some(&id) = self.named.get(name) {
            return id;
        }
        let mut function = Function::new();
        function.id = self.profile.function.len() as u64 + 1;
        function.name = self.string(name);
        let mut line = Line::new();
        line.function_id = function.id;
        self.profile.function.push(function);
        let id = self.address(0x1000, 0);
        self.profile.location.last_mut().unwrap().line.push(line);
        self.named.insert(name.to_string(), id);
        id
    }

    /// A stack of locations, the innermost first.
    pub fn sample(&mut self, location_id: Vec<u64>, value: &[i64]) {
        let mut sample = Sample::new();
        sample.location_id = location_id;
        sample.value = value.to_vec();
        self.profile.sample.push(sample);
    }

    /// A stack of functions, the innermost first.
    pub fn stack(&mut self, names: &[&str], value: &[i64]) {
        let locations = names.iter().map(|it| self.function(it)).collect();
        self.sample(locations, value);
    }

    pub fn write(&self, path: &Path) {
        let file = fs::File::create(path).unwrap();
        let mut encoder = GzEncoder::new(file, Compression::default());
        let bytes = self.profile.write_to_bytes().unwrap();
        encoder.write_all(&bytes).unwrap();
        encoder.finish().unwrap();
    }
}

pub fn read(path: &Path) -> Profile {
    let mut bytes = Vec::new();
    let file = fs::File::open(path).unwrap();
    GzDecoder::new(file).read_to_end(&mut bytes).unwrap();
    Profile::parse_from_bytes(&bytes).unwrap()
}

pub fn text(profile: &Profile, index: i64) -> &str {
    &profile.string_table[usize::try_from(index).unwrap()]
}

/// The lines of a location as `function file:line`, with the file's name only.
pub fn lines(profile: &Profile, location: &Location) -> Vec<String> {
    let show = |line: &Line| {
        let mut functions = profile.function.iter();
        let function = functions.find(|it| it.id == line.function_id).unwrap();
        let file = text(profile, function.filename);
        let file = file.rsplit('/').next().unwrap();
        format!("{} {file}:{}", text(profile, function.name), line.line)
    };
    location.line.iter().map(show).collect()
}
