//! The examples `wordcount` and `wordcount_system`: right counts, and the same output on both
//! allocators.
//!
//! The programs are run as `cargo test` built them. The parts they share are tested here too,
//! because examples have no tests of their own.

#![cfg(not(miri))] // Starts processes.

use std::collections::{BTreeMap, HashMap};
use std::env;
use std::ffi::OsString;
use std::fmt::Write;
use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

#[allow(dead_code, reason = "only the examples call `run`")]
#[path = "../examples/shared/wordcount.rs"]
mod wordcount;

use wordcount::{Content, Request, count_tree, count_words, read_text, words};

const EXAMPLES: [&str; 2] = ["wordcount", "wordcount_system"];

/// Runs an example of the profile this test was built with: `deps/` and `examples/` are siblings.
fn run_example<A: AsRef<std::ffi::OsStr>>(name: &str, arguments: &[A]) -> Output {
    let test = env::current_exe().unwrap();
    let profile_dir = test.parent().and_then(Path::parent).unwrap();
    let file_name = format!("{name}{}", env::consts::EXE_SUFFIX);
    let program = profile_dir.join("examples").join(file_name);
    Command::new(&program)
        .args(arguments)
        .output()
        .unwrap_or_else(|error| {
            let program = program.display();
            panic!("`{program}` does not run ({error}); `cargo build --examples` builds it")
        })
}

/// An empty directory for the files of one test.
fn fresh_dir(test: &str) -> PathBuf {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("wordcount-{test}"));
    if dir.exists() {
        fs::remove_dir_all(&dir).unwrap();
    }
    fs::create_dir_all(&dir).unwrap();
    dir
}

fn write_file(root: &Path, path: &str, contents: impl AsRef<[u8]>) {
    let path = root.join(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, contents).unwrap();
}

/// Pseudo-random numbers (a 64-bit linear congruential generator, its high bits).
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, bound: u64) -> u64 {
        let multiplied = self.0.wrapping_mul(6_364_136_223_846_793_005);
        self.0 = multiplied.wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}

/// About `len_bytes` of text: ASCII, accents, Greek and emoji; small numbers are frequent words.
fn random_text(numbers: &mut Numbers, len_bytes: usize) -> String {
    const STEMS: [&str; 6] = ["Span", "ÉTÉ", "λόγος", "slot", "Straße", "x"];
    const GAPS: [&str; 6] = [" ", "\n", ", ", "😀", "—", "::"];
    let mut text = String::new();
    while text.len() < len_bytes {
        let bound = 1 + numbers.below(5000);
        let stem = STEMS[numbers.below(6) as usize];
        let gap = GAPS[numbers.below(6) as usize];
        write!(text, "{stem}{}{gap}", numbers.below(bound)).unwrap();
    }
    text
}

#[test]
fn both_examples_print_the_known_counts_of_a_small_tree() {
    let root = fresh_dir("small-tree");
    write_file(&root, "a.txt", "Span span SPAN, slot!\n");
    write_file(&root, "b/deep/er/c", "slot-arena\tÉtudes études\r\n");
    write_file(&root, "b/invalid", b"span\xffarena\xc3");
    write_file(&root, "empty", "");
    write_file(&root, "binary", b"span\0span");
    write_file(&root, ".dotfile", "arena");
    write_file(&root, ".git/config", "hidden");
    write_file(&root, "b/target/debug/out", "built");
    #[cfg(unix)]
    {
        std::os::unix::fs::symlink(&root, root.join("b/loop")).unwrap();
        std::os::unix::fs::symlink("a.txt", root.join("link")).unwrap();
    }
    // More than two pieces of the reader, so that words would be cut if it cut anywhere.
    write_file(&root, "large", "seventeen-letters\n".repeat(150_000));

    for example in EXAMPLES {
        let output = run_example(example, &[&root]);
        assert!(output.status.success(), "{example}: {output:?}");
        let expected = concat!(
            "150000  letters\n",
            "150000  seventeen\n",
            "     4  span\n",
            "     3  arena\n",
            "     2  slot\n",
            "     2  études\n",
        );
        assert_eq!(
            String::from_utf8(output.stdout).unwrap(),
            expected,
            "{example}"
        );

        let stderr = String::from_utf8(output.stderr).unwrap();
        let lines: Vec<&str> = stderr.lines().collect();
        let bytes = 22 + 28 + 11 + 5 + 18 * 150_000;
        assert_eq!(
            lines[0], "files           6 text, 1 binary, 0 unreadable",
            "{example}"
        );
        assert_eq!(lines[1], format!("bytes           {bytes}"), "{example}");
        assert_eq!(lines[2], "words           300011", "{example}");
        assert_eq!(lines[3], "distinct words  6", "{example}");
        assert!(
            lines[4].starts_with("wall time       "),
            "{example}: {stderr}"
        );
        assert!(
            lines[5].starts_with("peak RSS        "),
            "{example}: {stderr}"
        );
        assert_eq!(lines.len(), 6, "{example}: {stderr}");
    }
}

#[test]
fn both_examples_agree_with_a_naive_count_of_a_random_tree() {
    let root = fresh_dir("random-tree");
    let mut numbers = Numbers(1);
    let mut expected = BTreeMap::<String, u64>::new();
    for file in 0..60 {
        let len_bytes = if file % 20 == 0 {
            1_500_000
        } else {
            numbers.below(40_000) as usize
        };
        let text = random_text(&mut numbers, len_bytes);
        for word in text
            .split(|c: char| !c.is_alphanumeric())
            .filter(|word| !word.is_empty())
        {
            *expected.entry(word.to_lowercase()).or_default() += 1;
        }
        write_file(&root, &format!("{}/{}/{file}", file % 7, file % 3), text);
    }
    let mut ranked: Vec<(&String, &u64)> = expected.iter().collect();
    ranked.sort_by_key(|&(_, count)| std::cmp::Reverse(count)); // Stable: ties stay in word order.
    let width = ranked[0].1.to_string().len();
    let expected: String = ranked[..20]
        .iter()
        .map(|(word, count)| format!("{count:width$}  {word}\n"))
        .collect();

    for example in EXAMPLES {
        let output = run_example(example, &[&root]);
        assert!(output.status.success(), "{example}: {output:?}");
        assert_eq!(
            String::from_utf8(output.stdout).unwrap(),
            expected,
            "{example}"
        );
    }
}

#[test]
fn result_is_the_same_for_any_number_of_workers() {
    let root = fresh_dir("workers");
    let mut numbers = Numbers(2);
    for file in 0..40 {
        write_file(
            &root,
            &format!("{file}"),
            random_text(&mut numbers, 100_000),
        );
    }
    let by_one = count_tree(&root, 1).unwrap();
    assert_eq!(by_one.tree.text_files, 40);
    for worker_count in [2, 5] {
        assert_eq!(
            count_tree(&root, worker_count).unwrap(),
            by_one,
            "{worker_count} workers"
        );
    }
}

#[test]
fn empty_directory_has_no_words() {
    let root = fresh_dir("empty");
    let output = run_example("wordcount", &[&root]);
    assert!(output.status.success(), "{output:?}");
    assert!(output.stdout.is_empty(), "{output:?}");
}

#[test]
fn help_and_errors_have_their_exit_codes() {
    let missing = fresh_dir("errors").join("missing");
    for example in EXAMPLES {
        let help = run_example(example, &["--help"]);
        assert_eq!(help.status.code(), Some(0), "{example}");
        assert!(
            help.stdout.starts_with(b"Usage: wordcount [DIRECTORY]\n"),
            "{example}"
        );

        let cases: [(&[OsString], i32, &str); 3] = [
            (
                &["-v".into()],
                2,
                "wordcount: There is no option `-v`. Try `--help`.\n",
            ),
            (
                &["a".into(), "b".into()],
                2,
                "wordcount: There is more than one directory. Try `--help`.\n",
            ),
            (&[missing.clone().into()], 1, "wordcount: The directory `"),
        ];
        for (arguments, code, message) in cases {
            let output = run_example(example, arguments);
            let stderr = String::from_utf8(output.stderr).unwrap();
            assert_eq!(
                output.status.code(),
                Some(code),
                "{example} {arguments:?}: {stderr}"
            );
            assert!(
                stderr.starts_with(message),
                "{example} {arguments:?}: {stderr}"
            );
            assert_eq!(
                stderr.lines().count(),
                1,
                "{example} {arguments:?}: {stderr}"
            );
            assert!(output.stdout.is_empty(), "{example} {arguments:?}");
        }
    }
}

#[test]
fn without_arguments_the_tree_of_the_crate_is_counted() {
    let expected = Request::Count(PathBuf::from(env!("CARGO_MANIFEST_DIR")));
    assert_eq!(Request::parse([]), Ok(expected));
    assert_eq!(Request::parse(["x".into()]), Ok(Request::Count("x".into())));
}

#[test]
fn words_are_runs_of_alphanumeric_characters_in_lower_case() {
    let cases: [(&str, &[&str]); 7] = [
        ("", &[]),
        (" \n--\u{fffd}", &[]),
        ("One, two;THREE", &["one", "two", "three"]),
        ("snake_case don't", &["snake", "case", "don", "t"]),
        ("x86 4096 ½", &["x86", "4096", "½"]),
        ("ÀÉ 中文。ΟΔΟΣ", &["àé", "中文", "οδος"]),
        ("😀a😀", &["a"]),
    ];
    for (text, expected) in cases {
        assert_eq!(words(text).collect::<Vec<_>>(), expected, "{text:?}");
    }
}

#[test]
fn count_words_adds_to_what_was_counted() {
    let mut counts = HashMap::new();
    count_words("b a B", &mut counts);
    count_words("a c", &mut counts);
    let expected = [("a", 2), ("b", 2), ("c", 1)].map(|(word, count)| (word.to_owned(), count));
    assert_eq!(counts, HashMap::from(expected));
}

fn pieces_of(source: impl Read, len_hint: u64, piece_bytes: usize) -> Vec<Vec<u8>> {
    let mut pieces = Vec::new();
    let content = read_text(source, len_hint, piece_bytes, |piece| pieces.push(piece)).unwrap();
    assert_eq!(content, Content::Text);
    pieces
}

#[test]
fn pieces_join_to_the_file_and_cut_no_word() {
    let text = random_text(&mut Numbers(3), 100_000);
    let expected: Vec<String> = words(&text).collect();
    for piece_bytes in [1, 100, 8191, 8192, 8193, 10_000, 65_536, 99_999, 1 << 20] {
        for len_hint in [0, text.len() as u64, u64::MAX] {
            let pieces = pieces_of(text.as_bytes(), len_hint, piece_bytes);
            assert_eq!(pieces.concat(), text.as_bytes(), "{piece_bytes}");
            let found: Vec<String> = pieces
                .iter()
                .flat_map(|piece| words(std::str::from_utf8(piece).unwrap()))
                .collect();
            assert_eq!(found, expected, "{piece_bytes}");
        }
    }
}

#[test]
fn piece_grows_until_a_word_ends() {
    let long_word = "w".repeat(100_000);
    for piece_bytes in [8192, 10_000, 50_000] {
        let text = format!("a {long_word} b");
        let pieces = pieces_of(text.as_bytes(), text.len() as u64, piece_bytes);
        assert_eq!(pieces.concat(), text.as_bytes());
        assert!(
            pieces
                .iter()
                .any(|piece| piece.starts_with(long_word.as_bytes()))
        );

        let pieces = pieces_of(long_word.as_bytes(), long_word.len() as u64, piece_bytes);
        assert_eq!(pieces, [long_word.as_bytes()]);
    }
}

#[test]
fn nul_byte_makes_a_file_binary_only_near_its_start() {
    let mut bytes = vec![b'a'; 8192];
    bytes.extend_from_slice(b"\0a");
    assert_eq!(pieces_of(&bytes[..], 8194, 1 << 20), [bytes.clone()]);

    bytes[8191] = 0;
    let content = read_text(&bytes[..], 8194, 1 << 20, |_| {
        panic!("a piece of a binary file")
    });
    assert_eq!(content.unwrap(), Content::Binary);
}

#[test]
fn read_error_is_passed_on() {
    struct Broken;
    impl Read for Broken {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(io::Error::other("broken"))
        }
    }
    let source = "some words ".as_bytes().chain(Broken);
    assert!(read_text(source, 100, 1 << 20, |_| {}).is_err());
}
