//! Executables and libraries: which function, file and line an address belongs to.
//!
//! By debug information (DWARF) if there is any, in the file itself, in a separate debug file (found
//! by build id or `.gnu_debuglink`) and what that shares with others (`.gnu_debugaltlink`);
//! otherwise by the symbol tables, which know functions only.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use addr2line::Loader;
use flate2::Crc;
use object::{Object, ObjectSegment, ReadCache, SegmentFlags, elf};

use crate::demangle::demangle;
use crate::failure::reason;
use crate::symbols::Symbols;

/// Where distributions put debug files.
const DEBUG_FOLDER: &str = "/usr/lib/debug";

type Elf<'a> = object::File<'a, &'a ReadCache<File>>;

/// A function, inlined or not, and a place in it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) name: String,
    /// Mangled.
    pub(crate) system_name: String,
    /// Empty if unknown, as line and column are 0 then.
    pub(crate) file: String,
    pub(crate) line: u32,
    pub(crate) column: u32,
}

impl Frame {
    fn of_symbol(system_name: &str) -> Self {
        Self {
            name: demangle(system_name),
            system_name: system_name.to_string(),
            ..Self::default()
        }
    }
}

/// A part of the file that is loaded.
struct Segment {
    offset: u64,
    size: u64,
    address: u64,
    executable: bool,
}

pub(crate) struct Binary {
    segments: Vec<Segment>,
    symbols: Symbols,
    /// `None` if there is no debug information.
    debug: Option<Loader>,
}

impl Binary {
    /// Opens an ELF file, whose build id must be `build_id`, unless that is empty. An error is the
    /// predicate of a sentence about the file.
    pub(crate) fn open(path: &Path, build_id: &str) -> Result<Self, String> {
        let cannot_read = |error: &io::Error| format!("cannot be read ({})", reason(error));
        let cache = cache(path).map_err(|error| cannot_read(&error))?;
        let elf = Elf::parse(&cache).map_err(|_| "is not an ELF file".to_string())?;
        if !build_id.is_empty() {
            let found = elf.build_id().ok().flatten().map(hexadecimal);
            if found.is_none_or(|found| !found.eq_ignore_ascii_case(build_id)) {
                return Err(format!(
                    "is not the file that the profile is about, whose build id is {build_id}"
                ));
            }
        }
        let mut symbols = Symbols::default();
        symbols.add(&elf);
        let mut debug = None;
        if has_debug_information(&elf) {
            debug = load(path, &elf);
        } else if let Some(separate) = debug_file(path, &elf)
            && let Ok(cache) = self::cache(&separate)
            && let Ok(separate_elf) = Elf::parse(&cache)
        {
            symbols.add(&separate_elf);
            debug = load(&separate, &separate_elf);
        }
        symbols.sort();
        Ok(Self {
            segments: segments(&elf),
            symbols,
            debug,
        })
    }

    /// Whether files and lines are known at all.
    pub(crate) fn has_lines(&self) -> bool {
        self.debug.is_some()
    }

    /// The address that the linker gave to what is at an offset of the file.
    pub(crate) fn address(&self, file_offset: u64) -> Option<u64> {
        let holds = |it: &&Segment| {
            let inside = file_offset.checked_sub(it.offset);
            inside.is_some_and(|inside| inside < it.size)
        };
        let mut found = self.segments.iter().filter(holds);
        let first = found.clone().next();
        let segment = found.find(|it| it.executable).or(first)?;
        Some(segment.address.wrapping_add(file_offset - segment.offset))
    }

    /// The functions at a linker's address, the innermost first; none if it is not known.
    pub(crate) fn frames(&self, address: u64) -> Vec<Frame> {
        let symbol = self.symbols.find(address);
        let mut frames = self.frames_of_debug_information(address);
        match (frames.last_mut(), symbol) {
            (None, Some(symbol)) => frames.push(Frame::of_symbol(symbol)),
            (Some(outermost), Some(symbol)) if outermost.name.is_empty() => {
                let named = Frame::of_symbol(symbol);
                outermost.name = named.name;
                outermost.system_name = named.system_name;
            }
            _ => {}
        }
        frames.retain(|frame| !frame.name.is_empty());
        frames
    }

    fn frames_of_debug_information(&self, address: u64) -> Vec<Frame> {
        let mut frames = Vec::new();
        let Some(Ok(mut found)) = self.debug.as_ref().map(|it| it.find_frames(address)) else {
            return frames;
        };
        while let Ok(Some(found)) = found.next() {
            let function = found.function.as_ref();
            let name = function.and_then(|it| it.raw_name().ok());
            let mut frame = Frame::of_symbol(name.as_deref().unwrap_or_default());
            if let Some(location) = &found.location {
                frame.file = location.file.unwrap_or_default().to_string();
                frame.line = location.line.unwrap_or(0);
                frame.column = location.column.unwrap_or(0);
            }
            frames.push(frame);
        }
        frames
    }
}

fn cache(path: &Path) -> io::Result<ReadCache<File>> {
    // To open a pipe would wait for its writer.
    if !path.metadata()?.is_file() {
        return Err(io::Error::other("it is not a file"));
    }
    Ok(ReadCache::new(File::open(path)?))
}

fn segments(elf: &Elf) -> Vec<Segment> {
    elf.segments()
        .map(|segment| {
            let (offset, size) = segment.file_range();
            let flags = segment.flags();
            Segment {
                offset,
                size,
                address: segment.address(),
                executable: matches!(flags, SegmentFlags::Elf { p_flags } if p_flags & elf::PF_X != 0),
            }
        })
        .collect()
}

fn has_debug_information(elf: &Elf) -> bool {
    [".debug_info", ".zdebug_info"]
        .iter()
        .any(|name| elf.section_by_name(name).is_some())
}

/// The debug information of a file, with what it shares with others if that is found.
fn load(path: &Path, elf: &Elf) -> Option<Loader> {
    if let Ok(Some((shared, _))) = elf.gnu_debugaltlink() {
        let shared = folder_of(path).join(OsStr::from_bytes(shared));
        if let Ok(loader) = Loader::new_with_sup(path, Some(&shared)) {
            return Some(loader);
        }
    }
    Loader::new(path).ok()
}

/// The separate debug file.
fn debug_file(path: &Path, elf: &Elf) -> Option<PathBuf> {
    let build_id = elf.build_id().ok().flatten();
    if let Some((first, rest)) = build_id.and_then(<[u8]>::split_first) {
        let (first, rest) = (hexadecimal([*first]), hexadecimal(rest));
        let path = PathBuf::from(format!("{DEBUG_FOLDER}/.build-id/{first}/{rest}.debug"));
        if same_build_id(&path, build_id) {
            return Some(path);
        }
    }
    let (name, checksum) = elf.gnu_debuglink().ok()??;
    let name = OsStr::from_bytes(name);
    let real = path.canonicalize().ok()?;
    let folder = folder_of(&real);
    let global = Path::new(DEBUG_FOLDER).join(folder.strip_prefix("/").unwrap_or(folder));
    [
        folder.join(name),
        folder.join(".debug").join(name),
        global.join(name),
    ]
    .into_iter()
    .find(|it| *it != real && checksum_of(it).is_ok_and(|found| found == checksum))
}

fn same_build_id(path: &Path, build_id: Option<&[u8]>) -> bool {
    let Ok(cache) = cache(path) else {
        return false;
    };
    Elf::parse(&cache).is_ok_and(|elf| elf.build_id().is_ok_and(|found| found == build_id))
}

fn folder_of(path: &Path) -> &Path {
    path.parent().unwrap_or(Path::new("/"))
}

/// As `.gnu_debuglink` has it.
fn checksum_of(path: &Path) -> io::Result<u32> {
    if !path.metadata()?.is_file() {
        return Err(io::Error::other("it is not a file"));
    }
    let mut file = File::open(path)?;
    let mut checksum = Crc::new();
    let mut buffer = vec![0; 1 << 16];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(checksum.sum()),
            count => checksum.update(&buffer[..count]),
        }
    }
}

fn hexadecimal(bytes: impl AsRef<[u8]>) -> String {
    let digits = bytes.as_ref().iter().map(|byte| format!("{byte:02x}"));
    digits.collect()
}
