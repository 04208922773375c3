//! Files in pprof's format: a `profile.proto`, gzipped or not, of this allocator or anybody else's.
//!
//! What is read has been checked: each index into the string table and each id leads somewhere, and
//! each sample has a value for each sample type.

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;

use flate2::Compression;
use flate2::read::MultiGzDecoder;
use flate2::write::GzEncoder;
use prost::Message;

use crate::failure::{Failure, reason};
use crate::proto::Profile;

/// The largest profile, unpacked, that is read. A file that unpacks to more is not a heap profile.
const SIZE_MAX: u64 = 1 << 30;

const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];

/// The string with an index that has been checked.
pub(crate) fn text(profile: &Profile, index: i64) -> &str {
    usize::try_from(index)
        .ok()
        .and_then(|index| profile.string_table.get(index))
        .map_or("", String::as_str)
}

/// Reads a profile from a file.
pub(crate) fn read(path: &Path) -> Result<Profile, Failure> {
    let mut file = File::open(path).map_err(|error| Failure::of_file(path, &error))?;
    let mut packed = Vec::new();
    Read::by_ref(&mut file)
        .take(SIZE_MAX + 1)
        .read_to_end(&mut packed)
        .map_err(|error| Failure::of_file(path, &error))?;
    decode(packed).map_err(|why| {
        let sentence = format!("{}: not a profile in pprof's format: {why}", path.display());
        Failure::new(sentence)
    })
}

fn decode(packed: Vec<u8>) -> Result<Profile, String> {
    let bytes = match packed.starts_with(&GZIP_MAGIC) {
        true => unpack(&packed)?,
        false => packed,
    };
    if bytes.is_empty() {
        return Err("it is empty".to_string());
    }
    if bytes.len() as u64 > SIZE_MAX {
        return Err("it is larger than 1 GiB".to_string());
    }
    let profile = Profile::decode(bytes.as_slice()).map_err(|error| error.to_string())?;
    check(&profile)?;
    Ok(profile)
}

fn unpack(packed: &[u8]) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    MultiGzDecoder::new(packed)
        .take(SIZE_MAX + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| format!("it cannot be unpacked ({})", reason(&error)))?;
    Ok(bytes)
}

fn check(profile: &Profile) -> Result<(), String> {
    if profile.sample_type.is_empty() {
        return Err("it has no sample types".to_string());
    }
    if profile.string_table.first().is_none_or(|it| !it.is_empty()) {
        return Err("the first string of its table is not empty".to_string());
    }
    let strings = profile.string_table.len() as i64;
    if indices(profile).any(|index| !(0..strings).contains(&index)) {
        return Err("a string is missing in its table".to_string());
    }
    let mappings = ids(profile.mapping.iter().map(|it| it.id))?;
    let functions = ids(profile.function.iter().map(|it| it.id))?;
    let locations = ids(profile.location.iter().map(|it| it.id))?;
    for location in &profile.location {
        let mapping = location.mapping_id;
        if mapping != 0 && !mappings.contains(&mapping) {
            return Err(format!("it has no mapping {mapping}"));
        }
        for line in &location.line {
            if !functions.contains(&line.function_id) {
                return Err(format!("it has no function {}", line.function_id));
            }
        }
    }
    for sample in &profile.sample {
        if sample.value.len() != profile.sample_type.len() {
            return Err("a sample has more or fewer values than there are types".to_string());
        }
        if let Some(id) = sample.location_id.iter().find(|it| !locations.contains(it)) {
            return Err(format!("it has no location {id}"));
        }
    }
    Ok(())
}

/// All indices into the string table.
fn indices(profile: &Profile) -> impl Iterator<Item = i64> {
    let types = profile.sample_type.iter().chain(&profile.period_type);
    let types = types.flat_map(|it| [it.r#type, it.unit]);
    let mappings = profile.mapping.iter();
    let mappings = mappings.flat_map(|it| [it.filename, it.build_id]);
    let functions = profile.function.iter();
    let functions = functions.flat_map(|it| [it.name, it.system_name, it.filename]);
    let labels = profile.sample.iter().flat_map(|it| &it.label);
    let labels = labels.flat_map(|it| [it.key, it.str, it.num_unit]);
    let own = [
        profile.drop_frames,
        profile.keep_frames,
        profile.default_sample_type,
        profile.doc_url,
    ];
    let comments = profile.comment.iter().copied();
    let named = types.chain(mappings).chain(functions).chain(labels);
    named.chain(own).chain(comments)
}

/// The ids of one kind of message, none of which may be 0 or there twice.
fn ids(all: impl Iterator<Item = u64>) -> Result<HashSet<u64>, String> {
    let mut known = HashSet::new();
    for id in all {
        if id == 0 || !known.insert(id) {
            return Err(format!("it has several things of the number {id}"));
        }
    }
    Ok(known)
}

/// Writes a profile, gzipped, in place of what the file held. Nobody sees a half of it.
pub(crate) fn write(profile: &Profile, path: &Path) -> Result<(), Failure> {
    replace(path, |file| {
        let mut encoder = GzEncoder::new(file, Compression::default());
        encoder.write_all(&profile.encode_to_vec())?;
        encoder.finish().map(drop)
    })
    .map_err(|error| Failure::of_file(path, &error))
}

fn replace(path: &Path, fill: impl FnOnce(&mut File) -> io::Result<()>) -> io::Result<()> {
    let existing = path.metadata().ok();
    // Into a device or pipe there is only one way.
    if existing.as_ref().is_some_and(|it| !it.is_file()) {
        return fill(&mut File::options().write(true).open(path)?);
    }
    let path = path.canonicalize().unwrap_or_else(|_| path.to_path_buf());
    let folder = match path.parent() {
        Some(folder) if folder != Path::new("") => folder,
        _ => Path::new("."),
    };
    let mut builder = tempfile::Builder::new();
    // As a file that is created otherwise; the mask of the process holds.
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o666);
    let mut file = builder.permissions(mode).tempfile_in(folder)?;
    fill(file.as_file_mut())?;
    if let Some(existing) = existing {
        file.as_file().set_permissions(existing.permissions())?;
    }
    file.persist(&path)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::{Function, Label, Line, Location, Mapping, Sample, ValueType};

    fn profile() -> Profile {
        Profile {
            sample_type: vec![ValueType { r#type: 1, unit: 2 }],
            sample: vec![Sample {
                location_id: vec![1],
                value: vec![5],
                label: vec![Label::default()],
            }],
            mapping: vec![Mapping {
                id: 1,
                ..Mapping::default()
            }],
            location: vec![Location {
                id: 1,
                mapping_id: 1,
                line: vec![Line {
                    function_id: 1,
                    ..Line::default()
                }],
                ..Location::default()
            }],
            function: vec![Function {
                id: 1,
                ..Function::default()
            }],
            string_table: ["", "space", "bytes"].map(str::to_string).to_vec(),
            ..Profile::default()
        }
    }

    fn why(change: impl FnOnce(&mut Profile)) -> String {
        let mut profile = profile();
        change(&mut profile);
        decode(profile.encode_to_vec()).unwrap_err()
    }

    #[test]
    fn a_profile_is_read_gzipped_or_not() {
        assert_eq!(decode(profile().encode_to_vec()), Ok(profile()));
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.pb.gz");
        write(&profile(), &path).unwrap();
        let packed = std::fs::read(&path).unwrap();
        assert!(packed.starts_with(&GZIP_MAGIC));
        assert_eq!(read(&path).unwrap(), profile());
        let failure = read(folder.path()).unwrap_err();
        assert!(failure.sentence().ends_with(": Is a directory"));
    }

    #[test]
    fn what_leads_nowhere_is_an_error() {
        let bad: [fn(&mut Profile); 12] = [
            |it| it.sample_type.clear(),
            |it| it.string_table.clear(),
            |it| it.string_table[0].push('a'),
            |it| it.sample_type[0].unit = 3,
            |it| it.comment.push(-1),
            |it| it.sample[0].label[0].num_unit = 3,
            |it| it.sample[0].value.push(1),
            |it| it.sample[0].location_id.push(2),
            |it| it.location[0].mapping_id = 2,
            |it| it.location[0].line[0].function_id = 0,
            |it| it.function[0].id = 0,
            |it| it.mapping.push(it.mapping[0]),
        ];
        for (index, change) in bad.into_iter().enumerate() {
            assert!(!why(change).is_empty(), "{index}");
        }
    }

    #[test]
    fn what_is_no_profile_is_an_error() {
        for bytes in [
            b"".as_slice(),
            b"heap profile: 1: 2 [3: 4] @ heapprofile\n",
            b"\x1f\x8b nonsense",
            b"\x0a",
        ] {
            assert!(decode(bytes.to_vec()).is_err(), "{bytes:?}");
        }
    }

    #[test]
    fn a_file_that_is_replaced_keeps_its_permissions() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.pb.gz");
        std::fs::write(&path, "before").unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o640)).unwrap();
        write(&profile(), &path).unwrap();
        let mode = path.metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o640);
        assert_eq!(read(&path).unwrap(), profile());
    }
}
