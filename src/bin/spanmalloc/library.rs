//! Finds the shared library, and makes the value of `LD_PRELOAD`.

use std::env;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{self, Path, PathBuf};

use object::{Object, ObjectKind, ObjectSymbol};

use crate::failure::Failure;

const FILE_NAME: &str = "libspanmalloc.so";

/// What a file is to somebody who looks for a malloc.
#[derive(Debug, PartialEq, Eq)]
enum Kind {
    /// A shared library that exports `malloc`.
    Malloc,
    /// A shared library that does not.
    NoMalloc,
    /// No shared library.
    Other,
}

/// The library to preload, as an absolute path: the one asked for, else the first one near this
/// executable that exports `malloc`.
pub(crate) fn find(asked: Option<&Path>) -> Result<PathBuf, Failure> {
    match asked {
        Some(path) => check(path),
        None => {
            let executable = env::current_exe()
                .map_err(|error| Failure::of_file(Path::new("/proc/self/exe"), &error))?;
            let library = search(&places(&executable))?;
            expressible(&library)?;
            Ok(library)
        }
    }
}

/// This path made absolute, if it is a library that can be preloaded as a malloc.
pub(crate) fn check(asked: &Path) -> Result<PathBuf, Failure> {
    let path = path::absolute(asked).map_err(|error| Failure::of_file(asked, &error))?;
    let data = fs::read(&path).map_err(|error| Failure::of_file(&path, &error))?;
    match kind(&data) {
        Kind::Malloc => {
            expressible(&path)?;
            Ok(path)
        }
        Kind::NoMalloc => Err(Failure::new(format!(
            "{} exports no `malloc`; spanmalloc's library does if it is built with the feature `preload`",
            path.display()
        ))),
        Kind::Other => Err(Failure::new(format!(
            "{} is not a shared library",
            path.display()
        ))),
    }
}

/// Where the library may lie: beside the executable, where cargo puts it before it links it there,
/// and where an installation has it.
fn places(executable: &Path) -> Vec<PathBuf> {
    let Some(beside) = executable.parent() else {
        return Vec::new();
    };
    let mut places = vec![beside.join(FILE_NAME), beside.join("deps").join(FILE_NAME)];
    if let Some(above) = beside.parent() {
        places.push(above.join("lib").join(FILE_NAME));
    }
    places
}

fn search(places: &[PathBuf]) -> Result<PathBuf, Failure> {
    let mut without_malloc = None;
    for place in places {
        match fs::read(place).map(|data| kind(&data)) {
            Ok(Kind::Malloc) => return Ok(place.clone()),
            Ok(_) => without_malloc = without_malloc.or(Some(place)),
            Err(_) => {}
        }
    }
    Err(match without_malloc {
        Some(place) => Failure::new(format!(
            "{} exports no `malloc`; build it with the feature `preload`, or name another library by --lib",
            place.display()
        )),
        None => {
            let tried: Vec<_> = places.iter().map(|p| p.display().to_string()).collect();
            Failure::new(format!(
                "{FILE_NAME} was not found at {}; name it by --lib",
                tried.join(", ")
            ))
        }
    })
}

fn kind(data: &[u8]) -> Kind {
    let Ok(file) = object::File::parse(data) else {
        return Kind::Other;
    };
    if file.kind() != ObjectKind::Dynamic {
        return Kind::Other;
    }
    let exported = file
        .dynamic_symbols()
        .any(|s| s.is_definition() && s.is_global() && s.name_bytes() == Ok(b"malloc"));
    if exported {
        Kind::Malloc
    } else {
        Kind::NoMalloc
    }
}

/// The dynamic linker separates the libraries in `LD_PRELOAD` by spaces and colons and knows no
/// quoting.
fn expressible(path: &Path) -> Result<(), Failure> {
    let bytes = path.as_os_str().as_bytes();
    if bytes.iter().any(|byte| matches!(byte, b' ' | b':')) {
        return Err(Failure::new(format!(
            "{} has a space or colon in its path, which LD_PRELOAD cannot express",
            path.display()
        )));
    }
    Ok(())
}

/// The value of `LD_PRELOAD` with this library before the others.
pub(crate) fn preload(library: &Path, existing: Option<&OsStr>) -> OsString {
    let mut value = library.as_os_str().to_os_string();
    if let Some(existing) = existing.filter(|existing| !existing.is_empty()) {
        value.push(":");
        value.push(existing);
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_library_comes_before_those_preloaded_already() {
        let library = Path::new("/a.so");
        assert_eq!(preload(library, None), "/a.so");
        assert_eq!(preload(library, Some(OsStr::new(""))), "/a.so");
        let joined = preload(library, Some(OsStr::new("/b.so /c.so")));
        assert_eq!(joined, "/a.so:/b.so /c.so");
    }

    #[test]
    fn the_places_follow_the_executable() {
        let places = places(Path::new("/opt/bin/spanmalloc"));
        let expected = [
            "/opt/bin/libspanmalloc.so",
            "/opt/bin/deps/libspanmalloc.so",
            "/opt/lib/libspanmalloc.so",
        ];
        assert_eq!(places, expected.map(PathBuf::from));
    }

    #[test]
    fn what_is_no_shared_library_is_told() {
        assert_eq!(kind(b"#!/bin/sh\n"), Kind::Other);
        let this_program = fs::read(env::current_exe().unwrap()).unwrap();
        assert_ne!(kind(&this_program), Kind::Malloc);
    }

    #[test]
    fn a_library_without_malloc_is_named_when_no_other_is_there() {
        let directory = tempfile::tempdir().unwrap();
        let absent = directory.path().join("absent.so");
        let empty = directory.path().join("empty.so");
        fs::write(&empty, "").unwrap();
        let both = search(&[absent.clone(), empty]).unwrap_err();
        assert!(both.sentence().contains("empty.so exports no `malloc`"));
        let none = search(&[absent]).unwrap_err();
        assert!(none.sentence().contains("was not found at"));
    }

    #[test]
    fn a_path_that_the_linker_would_split_is_refused() {
        assert!(expressible(Path::new("/opt/a-b_c.so")).is_ok());
        assert!(expressible(Path::new("/opt/a b.so")).is_err());
        assert!(expressible(Path::new("/opt/a:b.so")).is_err());
    }
}
