//! What can be chosen: a value with a builder, and the types of its fields.

use super::options::DEFAULT;
use super::secure::Secure;

/// When free memory goes back to the system.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Release {
    /// When it has not been needed for a while: the most that was in use in the last 2 s stays, and
    /// fades over 4 s.
    #[default]
    Lazily,
    /// As soon as its pages are free. Each free of pages may be a system call then, and each use of
    /// them a fault.
    AtOnce,
    /// Only when [`trim`](crate::trim) is called, or a memory limit is near.
    Never,
}

/// The way in which memory goes back to the system.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ReleaseBy {
    /// `MADV_DONTNEED`: the system has it at once, and the figures of the process show that.
    #[default]
    DontNeed,
    /// `MADV_FREE`: the system takes it when it needs memory. Cheaper if it is used again before; until
    /// it is taken, the figures of the process count it. The memory limit counts it as gone.
    Free,
}

/// How much memory the allocator may take from the system: memory that is backed, in use or free, and its
/// records ([`Stats::backed_bytes`](crate::Stats::backed_bytes)). The program's own image, stacks and
/// mappings do not count. A 64th of the limit is left for them before memory is given back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MemoryLimit {
    /// As much as the system has.
    #[default]
    None,
    /// What the process's cgroup and its limit of address space (`ulimit -v`) allow, less a margin for
    /// memory that is not the allocator's: a sixteenth, at least 4 MiB, at most half. Of address space
    /// half is taken, since reserved memory, stacks and libraries count there as well. No limit if there
    /// is none there. What they allow is looked up when this is chosen.
    Auto,
    /// This many bytes. From 4 EiB on, no limit. Below what the program needs, a soft limit slows it down, and a
    /// hard one makes allocations fail.
    Bytes(usize),
}

/// Whether the heap asks the system for transparent huge pages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HugePages {
    /// Once the heap is large enough to gain by them: what it grows by beyond 32 MiB, and objects of
    /// 64 MiB and more that grow, until one takes 2 ms of CPU time to get.
    #[default]
    Auto,
    /// From the start.
    Always,
    /// Not at all.
    Never,
}

/// What can be chosen about the allocator. Made by a `const` builder that begins with the defaults.
///
/// It is handed over by [`SpanMalloc::with`](crate::SpanMalloc::with), which is where a program says
/// what it wants unless its environment says otherwise, or by [`set_config`](crate::set_config), which
/// has the last word.
///
/// ```
/// use spanmalloc::{Config, MemoryLimit, Release};
///
/// const CONFIG: Config = Config::new()
///     .release(Release::AtOnce)
///     .memory_limit(MemoryLimit::Bytes(512 << 20));
/// assert_eq!(CONFIG.limit(), MemoryLimit::Bytes(512 << 20));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub struct Config {
    pub(super) background: bool,
    pub(super) release: Release,
    pub(super) release_by: ReleaseBy,
    pub(super) memory_limit: MemoryLimit,
    pub(super) hard_limit: bool,
    pub(super) huge_pages: HugePages,
    pub(super) secure: Secure,
    pub(super) guarded: u32,
}

impl Config {
    /// The defaults.
    pub const fn new() -> Self {
        DEFAULT
    }

    /// Whether a background thread gives memory back while the program is idle. It starts when 16 MiB are
    /// backed; see [`background`](crate::background).
    pub const fn background(mut self, on: bool) -> Self {
        self.background = on;
        self
    }

    /// When free memory goes back to the system.
    pub const fn release(mut self, when: Release) -> Self {
        self.release = when;
        self
    }

    /// The way in which memory goes back to the system.
    pub const fn release_by(mut self, way: ReleaseBy) -> Self {
        self.release_by = way;
        self
    }

    /// How much memory the allocator may take from the system.
    ///
    /// Near the limit free memory goes back at once, for at most half of a CPU, and caches are emptied, for
    /// at most a quarter of one.
    pub const fn memory_limit(mut self, limit: MemoryLimit) -> Self {
        self.memory_limit = limit;
        self
    }

    /// Whether an allocation beyond the memory limit fails: it returns null. Otherwise the allocator gives
    /// back what it can to stay below the limit, and goes beyond it rather than fail.
    pub const fn hard_limit(mut self, on: bool) -> Self {
        self.hard_limit = on;
        self
    }

    /// Whether the heap asks the system for transparent huge pages.
    pub const fn huge_pages(mut self, when: HugePages) -> Self {
        self.huge_pages = when;
        self
    }

    /// What the secure mode does: needs the feature `secure`, and is decided when the first object is made;
    /// what [`set_config`](crate::set_config) says about it has no effect.
    pub const fn secure(mut self, secure: Secure) -> Self {
        self.secure = secure;
        self
    }

    /// Of how many slow calls that allocate one guards its object, on the average; 0 is none. Needs the feature
    /// `guarded`. At the default, 1000, at most 1/400 of a CPU goes to guarded objects; another number is kept
    /// to whatever it costs.
    pub const fn guarded(mut self, one_in: u32) -> Self {
        self.guarded = one_in;
        self
    }

    /// What [`background`](Self::background) was given.
    #[must_use]
    pub const fn has_background(&self) -> bool {
        self.background
    }

    /// What [`release`](Self::release) was given.
    #[must_use]
    pub const fn releases(&self) -> Release {
        self.release
    }

    /// What [`release_by`](Self::release_by) was given.
    #[must_use]
    pub const fn releases_by(&self) -> ReleaseBy {
        self.release_by
    }

    /// What [`memory_limit`](Self::memory_limit) was given.
    #[must_use]
    pub const fn limit(&self) -> MemoryLimit {
        self.memory_limit
    }

    /// What [`hard_limit`](Self::hard_limit) was given.
    #[must_use]
    pub const fn has_hard_limit(&self) -> bool {
        self.hard_limit
    }

    /// What [`huge_pages`](Self::huge_pages) was given.
    #[must_use]
    pub const fn uses_huge_pages(&self) -> HugePages {
        self.huge_pages
    }

    /// What [`secure`](Self::secure) was given.
    pub const fn secures(&self) -> Secure {
        self.secure
    }

    /// What [`guarded`](Self::guarded) was given.
    #[must_use]
    pub const fn guards_one_in(&self) -> u32 {
        self.guarded
    }
}

impl Default for Config {
    fn default() -> Self {
        Self::new()
    }
}
