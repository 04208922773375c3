//! What a Rust program chooses: where it is compiled, by its environment, and by calls.

#![cfg(not(miri))] // Starts processes.

mod common;

use std::thread;

use common::{Object, alone, alone_with};
use spanmalloc::{
    Config, Configured, HugePages, MemoryLimit, Release, ReleaseBy, SpanMalloc, config, set_config,
    set_memory_limit,
};

const CHOSEN: Config = Config::new()
    .release(Release::AtOnce)
    .memory_limit(MemoryLimit::Bytes(8 << 40))
    .huge_pages(HugePages::Never);

#[global_allocator]
static GLOBAL: Configured = SpanMalloc::with(CHOSEN);

#[test]
fn builder_changes_what_it_names_and_nothing_else() {
    let new = Config::new();
    assert_eq!(new, Config::default());
    assert_eq!(new.has_background(), cfg!(feature = "preload"));
    assert_eq!(new.releases(), Release::Lazily);
    assert_eq!(new.releases_by(), ReleaseBy::DontNeed);
    assert_eq!(new.limit(), MemoryLimit::None);
    assert!(!new.has_hard_limit());
    assert_eq!(new.uses_huge_pages(), HugePages::Auto);

    let background = new.background(!new.has_background());
    assert_ne!(background, new);
    assert_eq!(background.background(new.has_background()), new);
    let release = new.release(Release::Never);
    assert_eq!(release.releases(), Release::Never);
    assert_eq!(release.release(Release::Lazily), new);
    let release_by = new.release_by(ReleaseBy::Free);
    assert_eq!(release_by.releases_by(), ReleaseBy::Free);
    assert_eq!(release_by.release_by(ReleaseBy::DontNeed), new);
    let limit = new.memory_limit(MemoryLimit::Auto);
    assert_eq!(limit.limit(), MemoryLimit::Auto);
    assert_eq!(limit.memory_limit(MemoryLimit::None), new);
    let hard = new.hard_limit(true);
    assert!(hard.has_hard_limit());
    assert_eq!(hard.hard_limit(false), new);
    let huge = new.huge_pages(HugePages::Always);
    assert_eq!(huge.uses_huge_pages(), HugePages::Always);
    assert_eq!(huge.huge_pages(HugePages::Auto), new);
}

#[test]
fn allocator_has_no_size_without_a_config() {
    assert_eq!(size_of::<SpanMalloc>(), 0);
}

#[test]
fn program_has_what_it_was_compiled_with() {
    alone(|| assert_eq!(config(), CHOSEN));
}

#[test]
fn environment_goes_over_what_the_program_was_compiled_with() {
    let variables = [
        ("SPANMALLOC_MEMLIMIT", "none"),
        ("SPANMALLOC_RELEASE_BY", "free"),
        ("SPANMALLOC_MEMLIMIT_HARD", "1"),
        ("SPANMALLOC_THP", ""),
        // Of the preloaded library, under which this program may run.
        ("SPANMALLOC_STATS_FILE", "nowhere"),
    ];
    let told = alone_with(&variables, || {
        let expected = CHOSEN
            .memory_limit(MemoryLimit::None)
            .release_by(ReleaseBy::Free)
            .hard_limit(true);
        assert_eq!(config(), expected);
    });
    assert!(told.is_none_or(|text| text.is_empty()));
}

#[test]
fn what_is_wrong_is_told_once_and_the_program_has_its_own() {
    let variables = [
        ("SPANMALLOC_RELEASE", "sometimes"),
        ("SPANMALLOC_MEMLIMITS", "1GiB"),
    ];
    let told = alone_with(&variables, || {
        let threads: Vec<_> = (0..8)
            .map(|_| thread::spawn(|| assert_eq!(config(), CHOSEN)))
            .collect();
        threads
            .into_iter()
            .for_each(|thread| thread.join().unwrap());
    });
    // With C's interface in the program, the system's libraries allocate before the program does.
    let used = if cfg!(feature = "preload") {
        "lazily"
    } else {
        "at-once"
    };
    let expected = format!(
        "spanmalloc: SPANMALLOC_RELEASE=sometimes is not understood; \
                    it may be lazily or at-once or never; {used} is used\n\
                    spanmalloc: SPANMALLOC_MEMLIMITS is not known and has no effect; \
                    SPANMALLOC_HELP=1 prints what there is\n"
    );
    assert!(told.is_none_or(|text| text == expected));
}

#[test]
fn calls_have_the_last_word() {
    let variables = [("SPANMALLOC_RELEASE", "never")];
    alone_with(&variables, || {
        assert_eq!(config(), CHOSEN.release(Release::Never));
        let other = Config::new()
            .background(true)
            .release_by(ReleaseBy::Free)
            .hard_limit(true);
        set_config(other);
        assert_eq!(config(), other);
        thread::spawn(move || assert_eq!(config(), other))
            .join()
            .unwrap();
        for limit in [
            MemoryLimit::Auto,
            MemoryLimit::Bytes(9 << 40),
            MemoryLimit::None,
        ] {
            set_memory_limit(limit);
            assert_eq!(config(), other.memory_limit(limit));
        }
        set_config(CHOSEN);
        assert_eq!(config(), CHOSEN);
    });
}

#[test]
fn objects_of_all_sizes_are_whole() {
    for (seed, size) in [1, 3, 8, 100, 3000, 33_000, 500_000]
        .into_iter()
        .enumerate()
    {
        for align in [1, 64, 4096] {
            let mut object = Object::new(size, align, seed as u64);
            object.check();
            object.resize(3 * size);
            object.check();
            object.resize(size);
            object.check();
        }
        assert!(vec![0_u8; size].iter().all(|byte| *byte == 0));
    }
}
