//! Which files the process's code comes from.

use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::string::{String, ToString};
use std::vec::Vec;

use object::Endianness;
use object::elf::{ELF_NOTE_GNU, FileHeader64, NT_GNU_BUILD_ID};
use object::read::ReadCache;
use object::read::elf::{FileHeader, ProgramHeader};

/// What the system appends to the name of a file that has been removed or replaced.
const DELETED: &str = " (deleted)";

/// Executable memory that is a part of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CodeMapping {
    pub(crate) start: usize,
    /// The first address after it.
    pub(crate) limit: usize,
    pub(crate) file_offset: u64,
    pub(crate) path: String,
    /// In hexadecimal digits; empty if the file has none or cannot be read.
    pub(crate) build_id: String,
}

/// Those of this process, the executable's first.
pub(crate) fn of_this_process() -> io::Result<Vec<CodeMapping>> {
    let maps = String::from_utf8_lossy(&fs::read("/proc/self/maps")?).into_owned();
    let executable = fs::read_link("/proc/self/exe").unwrap_or_default();
    let executable = executable.to_string_lossy();
    let mut mappings = parse(&maps, &executable);
    let mut known: Vec<(String, String)> = Vec::new();
    for mapping in &mut mappings {
        if let Some((_, id)) = known.iter().find(|(path, _)| *path == mapping.path) {
            mapping.build_id.clone_from(id);
            continue;
        }
        // The link leads to the executable even if it has been removed.
        let path = match mapping.path == executable {
            true => Path::new("/proc/self/exe"),
            false => Path::new(&mapping.path),
        };
        mapping.build_id = build_id(path).unwrap_or_default();
        known.push((mapping.path.clone(), mapping.build_id.clone()));
    }
    for mapping in &mut mappings {
        // A build id guards against another file of that name. Without one the name stays as it is,
        // so that nobody takes that file for this one.
        if !mapping.build_id.is_empty()
            && let Some(path) = mapping.path.strip_suffix(DELETED)
        {
            mapping.path = path.to_string();
        }
    }
    Ok(mappings)
}

/// The executable files' mappings in the text of `/proc/self/maps`, those of `executable` first.
/// Build ids are left empty.
fn parse(maps: &str, executable: &str) -> Vec<CodeMapping> {
    let mut mappings: Vec<_> = maps.lines().filter_map(parse_line).collect();
    // Stable: otherwise by address.
    mappings.sort_by_key(|mapping| mapping.path != executable);
    mappings
}

fn parse_line(line: &str) -> Option<CodeMapping> {
    let (range, rest) = line.split_once(' ')?;
    let (permissions, rest) = rest.split_once(' ')?;
    let (offset, rest) = rest.split_once(' ')?;
    let (_device, rest) = rest.split_once(' ')?;
    let (_inode, path) = rest.split_once(' ')?;
    let path = path.trim_start();
    if permissions.as_bytes().get(2) != Some(&b'x') || !path.starts_with('/') {
        return None;
    }
    let (start, limit) = range.split_once('-')?;
    Some(CodeMapping {
        start: usize::from_str_radix(start, 16).ok()?,
        limit: usize::from_str_radix(limit, 16).ok()?,
        file_offset: u64::from_str_radix(offset, 16).ok()?,
        // The system writes a line feed in a name like this; nothing else is escaped.
        path: path.replace("\\012", "\n"),
        build_id: String::new(),
    })
}

/// The build id in the notes of an ELF file, of which only the needed parts are read.
fn build_id(path: &Path) -> Option<String> {
    let file = ReadCache::new(File::open(path).ok()?);
    let header = FileHeader64::<Endianness>::parse(&file).ok()?;
    let endian = header.endian().ok()?;
    for segment in header.program_headers(endian, &file).ok()? {
        let Ok(Some(mut notes)) = segment.notes(endian, &file) else {
            continue;
        };
        while let Ok(Some(note)) = notes.next() {
            if note.name() == ELF_NOTE_GNU && note.n_type(endian) == NT_GNU_BUILD_ID {
                return Some(hexadecimal(note.desc()));
            }
        }
    }
    None
}

fn hexadecimal(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        for digit in [byte >> 4, byte & 15] {
            text.push(char::from(b"0123456789abcdef"[usize::from(digit)]));
        }
    }
    text
}

#[cfg(all(test, not(miri)))]
mod tests {
    use super::*;

    const MAPS: &str = "\
00400000-00401000 r--p 00000000 fe:01 1234                               /opt/a b/tool
00401000-00420000 r-xp 00001000 fe:01 1234                               /opt/a b/tool
10000000-10001000 r-xp 00000000 00:00 0 
7f0000000000-7f0000100000 r-xp 00026000 fe:01 77                         /lib/libc.so.6 (deleted)
7f0000200000-7f0000201000 rw-p 00000000 00:00 0                          [heap]
7fff00000000-7fff00001000 r-xp 00000000 00:00 0                          [vdso]
not a line
";

    fn mapping(start: usize, limit: usize, file_offset: u64, path: &str) -> CodeMapping {
        CodeMapping {
            start,
            limit,
            file_offset,
            path: path.to_string(),
            build_id: String::new(),
        }
    }

    #[test]
    fn only_code_of_files_counts() {
        let expected = [
            mapping(0x401000, 0x420000, 0x1000, "/opt/a b/tool"),
            mapping(
                0x7f0000000000,
                0x7f0000100000,
                0x26000,
                "/lib/libc.so.6 (deleted)",
            ),
        ];
        assert_eq!(parse(MAPS, "/opt/a b/tool"), expected);
    }

    #[test]
    fn the_executable_is_first_wherever_it_lies() {
        let mappings = parse(MAPS, "/lib/libc.so.6 (deleted)");
        assert_eq!(mappings[0].start, 0x7f0000000000);
        assert_eq!(mappings.len(), 2);
    }

    #[test]
    fn this_process_has_its_executable_and_the_c_library() {
        let mappings = of_this_process().unwrap();
        let executable = std::env::current_exe().unwrap();
        assert_eq!(Path::new(&mappings[0].path), executable);
        let here = this_process_address();
        assert!((mappings[0].start..mappings[0].limit).contains(&here));
        let c_library = mappings.iter().find(|it| {
            let name = it.path.rsplit('/').next().unwrap_or_default();
            name.starts_with("libc.so") || name.starts_with("ld-musl")
        });
        assert!(c_library.is_some(), "{mappings:?}");
    }

    fn this_process_address() -> usize {
        this_process_address as fn() -> usize as usize
    }

    #[test]
    fn build_ids_are_those_that_other_tools_show() {
        let executable = std::env::current_exe().unwrap();
        let output = std::process::Command::new("readelf")
            .arg("--notes")
            .arg(&executable)
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let expected = text.split("Build ID: ").nth(1).map(|it| {
            let end = it.find('\n').unwrap_or(it.len());
            it[..end].trim().to_string()
        });
        assert_eq!(build_id(&executable), expected);
        assert_eq!(build_id(Path::new("/proc/self/maps")), None);
        assert_eq!(build_id(Path::new("/no/such/file")), None);
    }
}
