//! The allocator of this worker, and what is known of how it was built.

/// Makes an allocator the global one of the worker, if its feature is on.
macro_rules! allocator {
    ($feature:literal, $type:ty, $value:expr) => {
        #[cfg(feature = $feature)]
        #[global_allocator]
        static GLOBAL: $type = $value;
    };
}

allocator!("spanmalloc", spanmalloc::SpanMalloc, spanmalloc::SpanMalloc);
allocator!("mimalloc2", mimalloc::MiMalloc, mimalloc::MiMalloc);
#[cfg(not(feature = "mimalloc2"))]
allocator!("mimalloc3", mimalloc::MiMalloc, mimalloc::MiMalloc);
allocator!("snmalloc", snmalloc_rs::SnMalloc, snmalloc_rs::SnMalloc);
allocator!(
    "jemalloc",
    tikv_jemallocator::Jemalloc,
    tikv_jemallocator::Jemalloc
);
allocator!("rpmalloc", rpmalloc::RpMalloc, rpmalloc::RpMalloc);
allocator!(
    "tcmalloc",
    tcmalloc_better::TCMalloc,
    tcmalloc_better::TCMalloc
);
allocator!(
    "rusty_alloc",
    rusty_alloc_api::RustyAlloc,
    rusty_alloc_api::RustyAlloc
);
allocator!(
    "sefer_alloc",
    sefer_alloc::SeferAlloc,
    sefer_alloc::SeferAlloc::new()
);

/// What it is, in a line: its version where it tells, and the mode that it runs in if it has several.
pub fn description() -> String {
    mode::description()
}

#[cfg(feature = "spanmalloc")]
mod mode {
    pub fn description() -> String {
        "of this repository, default features".to_owned()
    }
}

#[cfg(any(feature = "mimalloc2", feature = "mimalloc3"))]
mod mode {
    use std::ffi::c_int;

    unsafe extern "C" {
        /// 10,000 times the major version, 100 times the minor one, and the patch.
        safe fn mi_version() -> c_int;
    }

    pub fn description() -> String {
        let version = mi_version();
        let (major, minor, patch) = (version / 10_000, version / 100 % 100, version % 100);
        format!("version {major}.{minor}.{patch}, not in secure mode")
    }
}

#[cfg(feature = "snmalloc")]
mod mode {
    pub fn description() -> String {
        "built by cc, without checks; waits on addresses".to_owned()
    }
}

#[cfg(feature = "jemalloc")]
mod mode {
    use std::ffi::{CStr, c_char, c_int, c_uint, c_void};
    use std::ptr;

    unsafe extern "C" {
        /// Reads the value of a name into `old`, of `old_len` bytes.
        fn _rjem_mallctl(
            name: *const c_char,
            old: *mut c_void,
            old_len: *mut usize,
            new: *mut c_void,
            new_len: usize,
        ) -> c_int;
    }

    /// A value, of which `T` must be the C type in jemalloc's manual; none if there is no such name.
    ///
    /// # Safety
    ///
    /// `T` is the type that the manual states for `name`.
    unsafe fn value<T>(name: &CStr, default: T) -> Option<T> {
        let mut value = default;
        let mut len = size_of::<T>();
        // SAFETY: `value` is valid for writes of `len` bytes, and of that type by this function's
        // contract; nothing is set.
        let error = unsafe {
            let old = (&raw mut value).cast();
            _rjem_mallctl(name.as_ptr(), old, &mut len, ptr::null_mut(), 0)
        };
        (error == 0).then_some(value)
    }

    pub fn description() -> String {
        // SAFETY: the types are those of the manual: `const char *`, `unsigned`, `bool`. The version
        // is a string constant.
        let (version, arenas, thread) = unsafe {
            let version = value(c"version", ptr::null::<c_char>()).filter(|text| !text.is_null());
            (
                version.map(|text| CStr::from_ptr(text).to_string_lossy()),
                value::<c_uint>(c"opt.narenas", 0),
                value(c"background_thread", false),
            )
        };
        let version = version.as_deref().unwrap_or("unknown");
        let background = match thread {
            Some(true) => "a background thread",
            _ => "no background thread",
        };
        format!(
            "version {version}, up to {} arenas, {background}",
            arenas.unwrap_or(0)
        )
    }
}

#[cfg(feature = "rpmalloc")]
mod mode {
    pub fn description() -> String {
        "version 1.4, caches of threads and a global one".to_owned()
    }
}

#[cfg(feature = "tcmalloc")]
mod mode {
    unsafe extern "C" {
        safe fn MallocExtension_Internal_GetPerCpuCachesActive() -> bool;
    }

    /// glibc from 2.35 on takes the restartable sequences of every thread, and TCMalloc then goes back to
    /// a cache for each thread. `GLIBC_TUNABLES=glibc.pthread.rseq=0` leaves them to TCMalloc.
    pub fn description() -> String {
        let caches = match MallocExtension_Internal_GetPerCpuCachesActive() {
            true => "a cache for each processor (restartable sequences)",
            false => "a cache for each thread (restartable sequences are not free)",
        };
        format!("pages of 8 KiB, {caches}, no background thread")
    }
}

#[cfg(feature = "rusty_alloc")]
mod mode {
    pub fn description() -> String {
        "default features: neither secure nor with debug checks".to_owned()
    }
}

#[cfg(feature = "sefer_alloc")]
mod mode {
    pub fn description() -> String {
        "feature production".to_owned()
    }
}

#[cfg(not(any(
    feature = "spanmalloc",
    feature = "mimalloc2",
    feature = "mimalloc3",
    feature = "snmalloc",
    feature = "jemalloc",
    feature = "rpmalloc",
    feature = "tcmalloc",
    feature = "rusty_alloc",
    feature = "sefer_alloc",
)))]
mod mode {
    #[cfg(target_env = "gnu")]
    pub fn description() -> String {
        // SAFETY: returns a string constant.
        let version = unsafe { std::ffi::CStr::from_ptr(libc::gnu_get_libc_version()) };
        format!("glibc {}", version.to_string_lossy())
    }

    #[cfg(not(target_env = "gnu"))]
    pub fn description() -> String {
        String::new()
    }
}
