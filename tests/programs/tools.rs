//! Programs of the command line: the compiler of C++, sort, xz, tar, SQLite, Git.

use std::cell::OnceCell;
use std::fmt::Write;
use std::path::Path;
use std::process::Command;

use crate::harness::{Stage, both, program};

/// Pseudo-random numbers (a 64-bit linear congruential generator, its high bits).
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % bound
    }
}

/// Lines of a few pseudo-random words, some of them not in ASCII.
fn lines(count: usize, seed: u64) -> String {
    const SYLLABLES: [&str; 8] = ["ba", "Be", "di", "DO", "fu", "\u{e4}", "\u{df}", "-"];
    let mut numbers = Numbers(seed);
    let mut text = String::new();
    for _ in 0..count {
        for _ in 0..1 + numbers.below(5) {
            text.push_str(SYLLABLES[numbers.below(8)]);
            text.push_str(SYLLABLES[numbers.below(8)]);
            write!(text, "{} ", numbers.below(1000)).unwrap();
        }
        text.push('\n');
    }
    text
}

#[test]
fn compiler() {
    let Some(path) = program("g++") else {
        return;
    };
    both(|stage| {
        stage.write("words.cpp", include_str!("inputs/words.cpp"));
        let mut command = stage.command(&path);
        command.args(["-std=c++17", "-O2", "-S", "words.cpp", "-o", "words.s"]);
        stage.run(&mut command);
        let mut command = stage.command(&path);
        command.args(["-pthread", "words.s", "-o", "words"]);
        stage.run(&mut command);
        let compiled = stage.run(&mut stage.command(stage.folder.join("words")));
        [stage.read("words.s"), compiled].concat()
    });
}

/// Names of locales that the system has: C, and one with UTF-8 if there is any.
fn locales(stage: &Stage) -> Vec<String> {
    let mut names = vec!["C".into()];
    if let Some(path) = program("locale") {
        let list = String::from_utf8(stage.run(stage.command(path).arg("-a"))).unwrap();
        let mut unicode = list
            .lines()
            .filter(|name| name.to_lowercase().contains("utf"));
        // One with rules of its own does more than C's.
        let other = unicode.clone().find(|name| !name.starts_with("C."));
        names.extend(other.or(unicode.next()).map(String::from));
    }
    names
}

#[test]
fn sort() {
    let Some(path) = program("sort") else {
        return;
    };
    let text = lines(500_000, 1);
    both(|stage| {
        stage.write("lines", &text);
        let sort = |locale: &str, arguments: &[&str]| {
            let mut command = stage.command(&path);
            command
                .args(["--parallel=2", "-T", ".", "lines"])
                .args(arguments);
            stage.run(command.env("LC_ALL", locale))
        };
        let mut all = Vec::new();
        for locale in locales(stage) {
            // With temporary files, and all in memory.
            all.extend(sort(&locale, &["-S", "3M"]));
            all.extend(sort(&locale, &["-S", "200M", "-f", "-r", "-u", "-k", "2"]));
        }
        all
    });
}

#[test]
fn xz() {
    let Some(path) = program("xz") else {
        return;
    };
    let text = lines(150_000, 2);
    both(|stage| {
        stage.write("lines", &text);
        let xz = |arguments: &[&str]| stage.run(stage.command(&path).args(arguments));
        let small = xz(&["-T2", "--block-size=1MiB", "-2", "-c", "lines"]);
        stage.write("lines.xz", &small);
        assert!(xz(&["-T2", "-d", "-c", "lines.xz"]) == text.as_bytes());
        [small, xz(&["-l", "-v", "lines.xz"])].concat()
    });
}

#[test]
fn tar() {
    let Some(path) = program("tar") else {
        return;
    };
    both(|stage| {
        let mut numbers = Numbers(3);
        for index in 0..600 {
            let name = format!(
                "tree/{}/{}/file-{index}",
                index % 7,
                "deep/".repeat(index % 40)
            );
            stage.write(&name, "contents ".repeat(numbers.below(2000)));
        }
        let tar = |arguments: &[&str]| stage.run(stage.command(&path).args(arguments));
        let fixed = ["--owner=0", "--group=0", "--mode=644", "--numeric-owner"];
        let pack = ["--sort=name", "--mtime=@0", "-cf", "-", "tree"];
        let archive = tar(&[&fixed[..], &pack[..]].concat());
        stage.write("tree.tar", &archive);
        let list = tar(&["--full-time", "-tvf", "tree.tar"]);
        stage.write("other/mark", "");
        tar(&[
            "-C",
            "other",
            "--mode=755",
            "-xf",
            "tree.tar",
            "--no-same-permissions",
        ]);
        [archive, list].concat()
    });
}

#[test]
fn sqlite() {
    let Some(path) = program("sqlite3") else {
        return;
    };
    both(|stage| {
        stage.write("shop.sql", include_str!("inputs/shop.sql"));
        let mut command = stage.command(&path);
        command.args(["-batch", "-bail", "-init", "/dev/null", "shop.db"]);
        stage.run(command.stdin(stage.open("shop.sql")))
    });
}

/// A history for `git fast-import`: files come, change and go, and a branch is merged.
fn history() -> String {
    let mut numbers = Numbers(4);
    let mut stream = String::new();
    for commit in 1..=400 {
        let branch = if commit % 3 == 0 { "side" } else { "main" };
        let message = format!("Commit {commit}");
        write!(
            stream,
            "commit refs/heads/{branch}\nmark :{commit}\ncommitter A U Thor <a@example.org> {} +0000\n\
             data {}\n{message}\n",
            1_700_000_000 + commit * 60,
            message.len(),
        )
        .unwrap();
        if commit == 3 {
            stream.push_str("from :2\n");
        } else if commit % 30 == 1 && commit > 3 {
            writeln!(stream, "merge :{}", commit - 1).unwrap();
        }
        for _ in 0..6 {
            let file = numbers.below(60);
            let name = format!("folder-{}/file-{file}", file % 5);
            if numbers.below(10) == 0 {
                writeln!(stream, "D {name}").unwrap();
                continue;
            }
            // A part of the file's lines; the rest stays as in the version before.
            let mut text = lines(50 + file, file as u64);
            text.push_str(&lines(numbers.below(30), commit));
            writeln!(
                stream,
                "M 100644 inline {name}\ndata {}\n{text}",
                text.len()
            )
            .unwrap();
        }
        stream.push('\n');
    }
    stream + "done\n"
}

/// A command of Git that depends on no settings of the user or the system.
fn git(stage: &Stage, path: &Path, arguments: &[&str]) -> Command {
    let mut command = stage.command(path);
    command.args([
        "--no-pager",
        "-c",
        "gc.auto=0",
        "-c",
        "init.defaultBranch=main",
    ]);
    // The project's directory may belong to another user.
    command.args(["-c", "safe.directory=*"]).args(arguments);
    command
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_CONFIG_NOSYSTEM", "1");
    command
}

/// Clones, packs and checks a repository, and returns its history, files and objects.
fn git_work(stage: &Stage, path: &Path, origin: &str) -> Vec<u8> {
    let run = |arguments: &[&str]| stage.run(&mut git(stage, path, arguments));
    let inside = |arguments: &[&str]| run(&[&["-C", "clone"], arguments].concat());
    run(&["clone", "--quiet", "--no-local", origin, "clone"]);
    inside(&["gc", "--quiet", "--prune=now"]);
    inside(&[
        "-c",
        "pack.threads=3",
        "repack",
        "-a",
        "-d",
        "-f",
        "-q",
        "--window=30",
    ]);
    let checked = inside(&["fsck", "--full", "--strict", "--no-progress"]);
    let log = inside(&["log", "--stat", "--graph", "-M", "-C"]);
    let patches = inside(&["log", "-p", "--word-diff", "--date-order", "-20"]);
    let matches = inside(&["grep", "-n", "-I", "-E", "[a-f]{3}.*e", "HEAD"]);
    let files = inside(&["ls-tree", "-r", "-l", "HEAD"]);
    let objects = inside(&["cat-file", "--batch-all-objects", "--batch-check"]);
    [checked, log, patches, matches, files, objects].concat()
}

#[test]
fn git_of_a_made_history() {
    let Some(path) = program("git") else {
        return;
    };
    let history = history();
    both(|stage| {
        stage.run(&mut git(
            stage,
            &path,
            &["init", "--quiet", "--bare", "made.git"],
        ));
        stage.write("history", &history);
        let import = ["-C", "made.git", "fast-import", "--quiet", "--done"];
        stage.run(git(stage, &path, &import).stdin(stage.open("history")));
        git_work(stage, &path, "made.git")
    });
}

#[test]
fn git_of_this_project() {
    let Some(path) = program("git") else {
        return;
    };
    let project = env!("CARGO_MANIFEST_DIR");
    if !Path::new(project).join(".git").exists() {
        return eprintln!("skipped, because this is no clone of the repository");
    }
    // As the first run sees it, since the repository can change under the test.
    let bundle = OnceCell::new();
    both(|stage| {
        let inside = |arguments: &[&str]| {
            let arguments = [&["-C", project], arguments].concat();
            stage.run(&mut git(stage, &path, &arguments))
        };
        if inside(&["rev-parse", "--is-shallow-repository"]) == b"true\n" {
            eprintln!("skipped, because the clone of the repository is shallow");
            return b"shallow".into();
        }
        let bundle = bundle.get_or_init(|| inside(&["bundle", "create", "-q", "-", "HEAD"]));
        stage.write("project.bundle", bundle);
        git_work(stage, &path, "project.bundle")
    });
}
