//! What the environment says about the library, and what is told about that.

use super::workshop::{Heap, Program, Run, Workshop, library};

/// Options, with a value that they have and a word of what is told about one that they have not. A path
/// may be anything.
const OPTIONS: [(&str, &str, &str); 14] = [
    ("SPANMALLOC_BACKGROUND", "0", "0 or 1"),
    (
        "SPANMALLOC_RELEASE",
        "at-once",
        "lazily or at-once or never",
    ),
    ("SPANMALLOC_RELEASE_BY", "free", "dontneed or free"),
    ("SPANMALLOC_MEMLIMIT", "8TiB", "none or auto or <size>"),
    ("SPANMALLOC_MEMLIMIT_HARD", "0", "0 or 1"),
    ("SPANMALLOC_THP", "never", "auto or always or never"),
    ("SPANMALLOC_FOREIGN", "abort", "report or abort"),
    (
        "SPANMALLOC_SECURE",
        "canary,fill",
        "none or 1 or all or checks or canary or fill or quarantine or random or retire or protect or guards or zero",
    ),
    ("SPANMALLOC_GUARDED", "7", "<n>"),
    ("SPANMALLOC_COUNT", "1", "0 or 1"),
    ("SPANMALLOC_STATS", "none", TRIGGERS),
    ("SPANMALLOC_PROFILE", "none", TRIGGERS),
    ("SPANMALLOC_PROFILE_RATE", "1MiB", "<size>"),
    ("SPANMALLOC_HELP", "0", "0 or 1"),
];

/// When reports may be made.
const TRIGGERS: &str = "none or exit or SIGUSR1 or SIGUSR2 or every=<n>s";

/// Options that are paths.
const PATHS: usize = 4;

/// An innocent program.
fn program() -> Program {
    Workshop::new().program("misuse.c")
}

/// A run of it that came to its end.
fn run(program: &Program, variables: &[(&'static str, &str)]) -> Run {
    let plan = program.on(Heap::Ours).args(&["none"]);
    let plan = variables
        .iter()
        .fold(plan, |plan, (name, value)| plan.env(name, value));
    let run = plan.run();
    run.passed();
    run
}

/// The one line on standard error.
fn line(run: &Run) -> &str {
    let line = run.stderr.strip_suffix('\n').unwrap_or("");
    assert!(
        line.starts_with("spanmalloc: ") && !line.contains('\n'),
        "{run}"
    );
    line
}

#[test]
fn value_that_is_understood_is_nothing_to_tell() {
    let program = program();
    let all: Vec<_> = OPTIONS
        .iter()
        .map(|(name, value, _)| (*name, *value))
        .collect();
    let plain = run(&program, &[]);
    let configured = run(&program, &all);
    assert_eq!(plain.stderr, "");
    assert_eq!(configured.stderr, "");
    assert_eq!(configured.stdout, plain.stdout);
    let empty: Vec<_> = all.iter().map(|(name, _)| (*name, "")).collect();
    assert_eq!(run(&program, &empty).stderr, "");
}

#[test]
fn malformed_value_is_told_once_with_what_it_may_be() {
    let program = program();
    for (name, _, may_be) in OPTIONS {
        let run = run(&program, &[(name, "banana")]);
        let start = format!("spanmalloc: {name}=banana is not understood; it may be {may_be}");
        assert!(line(&run).starts_with(&start), "{run}");
        assert!(line(&run).ends_with(" is used"), "{run}");
    }
    let run = run(&program, &[("SPANMALLOC_MEMLIMIT", "16777216TiB")]);
    assert!(line(&run).ends_with("; none is used"), "{run}");
}

#[test]
fn unknown_name_is_told_once() {
    let program = program();
    let once = run(
        &program,
        &[
            ("SPANMALLOC_MEMORY_LIMIT", "1GiB"),
            ("SPANMALLOC_TEST_ANYTHING", "1"),
            ("SPANMALLOC_STATS_FILE", "anything"),
        ],
    );
    assert!(line(&once).contains(" SPANMALLOC_MEMORY_LIMIT "), "{once}");
    assert!(line(&once).contains("SPANMALLOC_HELP=1"), "{once}");
}

#[test]
fn value_is_told_once_however_the_program_starts() {
    let wrong = ("SPANMALLOC_RELEASE", "banana");
    let shop = Workshop::new();
    let ours = library().to_str().unwrap().to_owned();
    let threads = shop.program("threads.c");
    let run = threads.on(Heap::Ours).env(wrong.0, wrong.1).run();
    run.passed();
    line(&run);

    let late = shop.program("late.c");
    let run = late
        .on(Heap::System)
        .args(&[&ours])
        .env(wrong.0, wrong.1)
        .run();
    run.passed();
    line(&run);

    // Before the C library has an environment.
    let boot = shop.program("boot.c");
    let other = shop.shared("boot_lib.c", "boot", &[]);
    for preload in [format!("{ours}:{other}"), format!("{other}:{ours}")] {
        let run = boot
            .on(Heap::System)
            .env("BOOT_TEST", "set")
            .env("LD_PRELOAD", &preload)
            .env(wrong.0, wrong.1)
            .run();
        run.passed();
        line(&run);
    }
}

/// The words of the row that help has for an option, after its name.
fn row<'a>(help: &'a Run, name: &str) -> Vec<&'a str> {
    let mut rows = help
        .stderr
        .lines()
        .map(|line| line.split_whitespace().skip(1).collect::<Vec<_>>())
        .filter(|words| words.first() == Some(&name));
    let row = rows.next().unwrap_or_else(|| panic!("no {name}; {help}"));
    assert_eq!(rows.next(), None, "{help}");
    row[1..].to_vec()
}

#[test]
fn help_prints_the_table_once_and_the_program_goes_on() {
    let program = program();
    let plain = run(&program, &[]);
    let help = run(
        &program,
        &[
            ("SPANMALLOC_HELP", "1"),
            ("SPANMALLOC_MEMLIMIT", "1536KiB"),
            ("SPANMALLOC_THP", "always"),
            ("SPANMALLOC_STATS_FILE", "/dev/null"),
        ],
    );
    assert_eq!(help.stdout, plain.stdout);
    assert_eq!(
        help.stderr.lines().count(),
        1 + OPTIONS.len() + PATHS,
        "{help}"
    );
    assert!(
        help.stderr
            .lines()
            .all(|line| line.starts_with("spanmalloc: ")),
        "{help}"
    );
    for (name, _, may_be) in OPTIONS {
        let accepted = may_be.replace(" or ", "|");
        assert!(row(&help, name).contains(&accepted.as_str()), "{help}");
    }
    assert_eq!(row(&help, "SPANMALLOC_BACKGROUND")[..2], ["1", "1"]);
    assert_eq!(row(&help, "SPANMALLOC_MEMLIMIT")[..2], ["1536KiB", "none"]);
    assert_eq!(row(&help, "SPANMALLOC_THP")[..2], ["always", "auto"]);
    assert_eq!(row(&help, "SPANMALLOC_RELEASE")[..2], ["lazily", "lazily"]);
    assert_eq!(row(&help, "SPANMALLOC_STATS_FILE")[..1], ["/dev/null"]);
}

#[test]
fn automatic_limit_is_below_half_of_the_address_space() {
    let help = program()
        .on(Heap::Ours)
        .args(&["none"])
        .address_space_mib(2048)
        .env("SPANMALLOC_MEMLIMIT", "auto")
        .env("SPANMALLOC_HELP", "1")
        .run();
    help.passed();
    // The shell has it as well, before it sets the limit: the last line is the program's.
    let line = help
        .stderr
        .lines()
        .rfind(|line| line.contains("SPANMALLOC_MEMLIMIT "))
        .unwrap();
    let words: Vec<&str> = line.split_whitespace().collect();
    assert_eq!(words[2], "auto:", "{help}");
    let (digits, unit) = words[3].split_at(words[3].find(char::is_alphabetic).unwrap());
    let power = ["B", "KiB", "MiB", "GiB"].iter().position(|u| *u == unit);
    let bytes = digits.parse::<usize>().unwrap() << (10 * power.unwrap());
    // Less, if a cgroup allows less.
    assert!((1..=960 << 20).contains(&bytes), "{help}");
}
