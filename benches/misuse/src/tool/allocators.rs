//! The columns of the table: which allocators there are, and what their programs are run with.

use std::path::{Path, PathBuf};

use spanmalloc_misuse::Language;

use crate::build::Workspace;

/// Where Debian and others have shared libraries.
const DIRECTORIES: [&str; 6] = [
    "/usr/lib/x86_64-linux-gnu",
    "/usr/lib/aarch64-linux-gnu",
    "/usr/lib64",
    "/usr/lib",
    "/usr/local/lib64",
    "/usr/local/lib",
];

/// An allocator that is known.
pub struct Known {
    pub name: &'static str,
    /// One line for `--list`.
    pub about: &'static str,
    pub library: Library,
    /// Features of this crate that make it the allocator of the programs in Rust; without any they
    /// have the library, on the system's malloc.
    pub features: &'static str,
    /// The environment of its programs.
    pub variables: &'static [(&'static str, &'static str)],
}

/// What is preloaded under a program.
pub enum Library {
    /// Nothing: the system's malloc.
    System,
    /// This repository's, with these features.
    Spanmalloc(&'static str),
    /// C source of a package of the crates' registry.
    Source(Source),
    /// A library of the system, by one of these names.
    Installed(&'static [&'static str]),
}

/// How a library is made of C source.
pub struct Source {
    pub package: &'static str,
    /// Below the package's directory.
    pub files: &'static [&'static str],
    pub includes: &'static [&'static str],
    pub flags: &'static [&'static [&'static str]],
}

/// The values of the options are those of its `config-default.conf`. What C23 has as keywords are
/// macros in older compilers.
const HARDENED_FLAGS: &[&str] = &[
    "-std=c2x",
    "-D_GNU_SOURCE",
    "-include",
    "stdalign.h",
    "-include",
    "stdbool.h",
    "-include",
    "assert.h",
    "-DCONFIG_SEAL_METADATA=false",
    "-DZERO_ON_FREE=true",
    "-DWRITE_AFTER_FREE_CHECK=true",
    "-DSLOT_RANDOMIZE=true",
    "-DSLAB_CANARY=true",
    "-DSLAB_QUARANTINE_RANDOM_LENGTH=1",
    "-DSLAB_QUARANTINE_QUEUE_LENGTH=1",
    "-DCONFIG_EXTENDED_SIZE_CLASSES=true",
    "-DCONFIG_LARGE_SIZE_CLASSES=true",
    "-DGUARD_SLABS_INTERVAL=1",
    "-DGUARD_SIZE_DIVISOR=2",
    "-DREGION_QUARANTINE_RANDOM_LENGTH=256",
    "-DREGION_QUARANTINE_QUEUE_LENGTH=1024",
    "-DREGION_QUARANTINE_SKIP_THRESHOLD=33554432",
    "-DFREE_SLABS_QUARANTINE_RANDOM_LENGTH=32",
    "-DCONFIG_CLASS_REGION_SIZE=34359738368",
    "-DN_ARENA=4",
    "-DCONFIG_STATS=false",
    "-DCONFIG_SELF_INIT=true",
    "-Wl,--no-as-needed",
    "-lstdc++",
];

const MIMALLOC_FLAGS: &[&str] = &[
    "-DNDEBUG",
    "-DMI_MALLOC_OVERRIDE",
    "-DMI_SHARED_LIB",
    "-DMI_SHARED_LIB_EXPORT",
    "-ftls-model=initial-exec",
];

const fn mimalloc(flags: &'static [&'static [&'static str]]) -> Library {
    Library::Source(Source {
        package: "libmimalloc-sys",
        files: &["c_src/mimalloc/v3/src/static.c"],
        includes: &["c_src/mimalloc/v3/include"],
        flags,
    })
}

pub const OURS: &str = "spanmalloc";
pub const OURS_SECURE: &str = "spanmalloc-secure";
/// The feature of spanmalloc without which there is no secure mode.
pub const SECURE_FEATURE: &str = "secure";

/// In the order of the columns.
pub const KNOWN: &[Known] = &[
    Known {
        name: OURS,
        about: "this repository's, with default options",
        library: Library::Spanmalloc("preload"),
        features: "spanmalloc",
        variables: &[],
    },
    Known {
        name: OURS_SECURE,
        about: "the same with SPANMALLOC_SECURE=1",
        library: Library::Spanmalloc("preload,secure"),
        features: "spanmalloc,spanmalloc/secure",
        variables: &[("SPANMALLOC_SECURE", "1")],
    },
    Known {
        name: "glibc",
        about: "the system's malloc, whichever it is",
        library: Library::System,
        features: "",
        variables: &[],
    },
    Known {
        name: "mimalloc",
        about: "version 3, built from the source in libmimalloc-sys",
        library: mimalloc(&[MIMALLOC_FLAGS]),
        features: "mimalloc",
        variables: &[],
    },
    Known {
        name: "mimalloc-secure",
        about: "the same with MI_SECURE=4",
        library: mimalloc(&[MIMALLOC_FLAGS, &["-DMI_SECURE=4"]]),
        features: "mimalloc_secure",
        variables: &[],
    },
    Known {
        name: "jemalloc",
        about: "the library of the system; in Rust tikv-jemallocator",
        library: Library::Installed(&["libjemalloc.so.2"]),
        features: "jemalloc",
        variables: &[],
    },
    Known {
        name: "hardened_malloc",
        about: "built from the source in hardened-malloc-sys, with its default options",
        library: Library::Source(Source {
            package: "hardened-malloc-sys",
            files: &[
                "src/util.c",
                "vendor/hardened-malloc/chacha.c",
                "vendor/hardened-malloc/h_malloc.c",
                "vendor/hardened-malloc/memory.c",
                "vendor/hardened-malloc/pages.c",
                "vendor/hardened-malloc/random.c",
                "vendor/hardened-malloc/new.cc",
            ],
            includes: &["vendor/hardened-malloc", "vendor/hardened-malloc/include"],
            flags: &[HARDENED_FLAGS],
        }),
        features: "",
        variables: &[],
    },
    Known {
        name: "tcmalloc",
        about: "gperftools' minimal one, the library of the system",
        library: Library::Installed(&["libtcmalloc_minimal.so.4"]),
        features: "",
        variables: &[],
    },
];

/// What a program is run with.
#[derive(Clone, Debug)]
pub struct Runner {
    pub program: PathBuf,
    pub library: Option<PathBuf>,
    pub variables: &'static [(&'static str, &'static str)],
}

/// A column, with what there is for it, or why there is nothing.
pub struct Column {
    pub name: String,
    c: Result<Runner, String>,
    rust: Result<Runner, String>,
}

impl Column {
    /// Builds and finds what a known allocator needs.
    pub fn of_known(known: &Known, workspace: &Workspace) -> Self {
        let library = library(known, workspace);
        let runner = |program, library: &Option<PathBuf>| Runner {
            program,
            library: library.clone(),
            variables: known.variables,
        };
        let c = library
            .clone()
            .and_then(|library| Ok(runner(workspace.programs()?, &library)));
        let rust = if known.features.is_empty() {
            library.and_then(|library| Ok(runner(workspace.rust_program("", "system")?, &library)))
        } else {
            let program = workspace.rust_program(known.features, known.name);
            program.map(|program| runner(program, &None))
        };
        Self {
            name: known.name.to_owned(),
            c,
            rust,
        }
    }

    /// A library that the user names.
    pub fn of_preload(name: &str, path: &Path, workspace: &Workspace) -> Self {
        let runner = |program| Runner {
            program,
            library: Some(path.to_owned()),
            variables: &[],
        };
        Self {
            name: name.to_owned(),
            c: workspace.programs().map(runner),
            rust: workspace.rust_program("", "system").map(runner),
        }
    }

    /// What programs are run with.
    pub fn runner(&self, language: Language) -> Result<&Runner, &str> {
        let runner = match language {
            Language::C => &self.c,
            Language::Rust => &self.rust,
        };
        runner.as_ref().map_err(String::as_str)
    }

    /// The languages for which there is nothing, with the reasons.
    pub fn missing(&self) -> impl Iterator<Item = (&'static str, &str)> {
        Language::ALL.into_iter().filter_map(|language| {
            let error = self.runner(language).err()?;
            Some((language.name(), error))
        })
    }
}

fn library(known: &Known, workspace: &Workspace) -> Result<Option<PathBuf>, String> {
    match &known.library {
        Library::System => Ok(None),
        Library::Spanmalloc(features) => workspace.spanmalloc(features, known.name).map(Some),
        Library::Source(source) => workspace.of_source(source, known.name).map(Some),
        Library::Installed(names) => {
            let places = DIRECTORIES.iter().flat_map(|directory| {
                let of_directory = |name| Path::new(directory).join(name);
                names.iter().map(of_directory)
            });
            let found = places.into_iter().find(|path| path.exists());
            found.map(Some).ok_or_else(|| {
                format!(
                    "{} is not installed; --preload can name it",
                    names.join(", ")
                )
            })
        }
    }
}
