//! `spanmalloc report`: tables, JSON, flame graphs, and what it refuses.

use std::fs;

use tempfile::TempDir;

use super::profiles::Builder;
use super::*;

const ALLOCATOR: [&str; 3] = [
    "spanmalloc::malloc::alloc",
    "core::hint::unlikely",
    "__rustc::__rust_alloc",
];

const TYPES: [&str; 2] = ["alloc_objects count", "inuse_space bytes"];

/// Stacks that end in the allocator, of a program that loads and parses.
fn early() -> Builder {
    let mut builder = Builder::new(&TYPES);
    let calls = |names: &[&'static str]| [&ALLOCATOR, names].concat();
    let vec = "alloc::raw_vec::RawVec<T>::grow";
    builder.stack(&calls(&[vec, "app::load", "main"]), &[1000, 3072]);
    builder.stack(&calls(&["app::parse", "app::parse", "main"]), &[20, 1024]);
    builder.stack(&calls(&["app::gone", "main"]), &[5, 0]);
    builder
}

fn late() -> Builder {
    let mut builder = Builder::new(&TYPES);
    builder.stack(&["malloc", "app::parse", "app::parse", "main"], &[70, 8192]);
    builder.stack(&["malloc", "app::load", "main"], &[1000, 3072]);
    builder.stack(&["malloc", "app::[u8; 4]", "main"], &[1, 512]);
    builder
}

/// Both as files.
fn files() -> (TempDir, String, String) {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    early().write(&path("early"));
    late().write(&path("late"));
    let text = |name| path(name).to_str().unwrap().to_string();
    let (early, late) = (text("early"), text("late"));
    (folder, early, late)
}

fn report(arguments: &[&str]) -> String {
    let output = tool("report").args(arguments).output().unwrap();
    assert_eq!(stderr(&output), "");
    assert_eq!(output.status.code(), Some(0));
    stdout(&output)
}

#[test]
fn the_table_has_the_callers_of_the_allocator() {
    let (_folder, early, _) = files();
    let expected = "\
inuse_space: 4.0 KiB in all; 4 of 4 functions
   flat  flat %  cumulative   cum. %  function
3.0 KiB  75.0 %     3.0 KiB   75.0 %  alloc::raw_vec::RawVec<T>::grow
1.0 KiB  25.0 %     1.0 KiB   25.0 %  app::parse
    0 B   0.0 %     4.0 KiB  100.0 %  main
    0 B   0.0 %     3.0 KiB   75.0 %  app::load
";
    assert_eq!(report(&[&early]), expected);
}

#[test]
fn the_table_is_of_the_sample_type_order_and_length_that_is_asked_for() {
    let (_folder, early, _) = files();
    let options = ["--sample-type", "alloc_objects", "--cum", "--top", "3"];
    let expected = "\
alloc_objects: 1,025 in all; 3 of 5 functions
 flat  flat %  cumulative   cum. %  function
    0   0.0 %       1,025  100.0 %  main
1,000  97.6 %       1,000   97.6 %  alloc::raw_vec::RawVec<T>::grow
    0   0.0 %       1,000   97.6 %  app::load
";
    assert_eq!(
        report(&[&options, &[early.as_str()][..]].concat()),
        expected
    );
}

#[test]
fn the_frames_of_the_allocator_are_shown_on_request() {
    let (_folder, early, _) = files();
    let text = report(&[&early, "--keep-allocator-frames"]);
    let rows: Vec<_> = text.lines().collect();
    let row = "4.0 KiB  100.0 %     4.0 KiB  100.0 %  spanmalloc::malloc::alloc";
    assert_eq!(rows[2], row);
    assert_eq!(rows.len(), 2 + 7);
}

#[test]
fn the_frames_of_the_preloaded_library_are_hidden_with_or_without_names() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("heap");
    let mut builder = Builder::new(&["inuse_space bytes"]);
    let library = builder.mapping(0x1000, 0x9000, 0, "/nowhere/libspanmalloc.so", "");
    let inside = builder.address(0x1234, library);
    let main = builder.function("main");
    builder.sample(vec![inside, main], &[10]);
    builder.write(&path);
    let output = tool("report").arg(&path).output().unwrap();
    assert!(stdout(&output).contains("; 1 of 1 functions\n"));
}

#[test]
fn json_has_the_figures_in_full() {
    let (_folder, early, late) = files();
    let record: serde_json::Value = serde_json::from_str(&report(&[&early, "--json"])).unwrap();
    assert_eq!(record["sample_type"], "inuse_space");
    assert_eq!(record["unit"], "bytes");
    assert_eq!(record["total"], 4096);
    assert_eq!(record["functions"][1]["function"], "app::parse");
    assert_eq!(record["functions"][1]["flat"], 1024);
    assert_eq!(record["functions"][2]["cumulative"], 4096);

    let options = ["--json", "--diff", &early, &late];
    let record: serde_json::Value = serde_json::from_str(&report(&options)).unwrap();
    assert_eq!(record["total_before"], 4096);
    assert_eq!(record["total_after"], 11776);
    assert_eq!(record["functions"][0]["function"], "app::parse");
    assert_eq!(record["functions"][0]["flat_growth"], 7168);
    assert_eq!(record["functions"][0]["cumulative_before"], 1024);
}

#[test]
fn growth_is_sorted_and_signed() {
    let (_folder, early, late) = files();
    let expected = "\
inuse_space: +7.5 KiB in all, from 4.0 KiB to 11.5 KiB; 5 of 5 functions
  growth   before    after  cum. growth  function
+7.0 KiB  1.0 KiB  8.0 KiB     +7.0 KiB  app::parse
+3.0 KiB      0 B  3.0 KiB          0 B  app::load
  +512 B      0 B    512 B       +512 B  app::[u8; 4]
     0 B      0 B      0 B     +7.5 KiB  main
-3.0 KiB  3.0 KiB      0 B     -3.0 KiB  alloc::raw_vec::RawVec<T>::grow
";
    assert_eq!(report(&["--diff", &early, &late]), expected);
}

#[test]
fn the_flame_graph_has_the_stacks() {
    let (folder, early, late) = files();
    let svg = folder.path().join("flame.svg");
    let options = ["--flame", svg.to_str().unwrap()];
    report(&[&options[..], &[&early]].concat());
    let text = fs::read_to_string(&svg).unwrap();
    for title in [
        "<title>all (4,096 bytes, 100%)</title>",
        "<title>main (4,096 bytes, 100.00%)</title>",
        "<title>app::load (3,072 bytes, 75.00%)</title>",
        "<title>app::parse (1,024 bytes, 25.00%)</title>",
        ">inuse_space<",
    ] {
        assert!(text.contains(title), "{title}");
    }
    assert!(!text.contains("rust_alloc") && !text.contains("gone"));

    report(&[&options[..], &["--diff", &early, &late]].concat());
    let text = fs::read_to_string(&svg).unwrap();
    for title in [
        "<title>app::parse (8,192 bytes, 69.57%; +60.87%)</title>",
        "<title>app::[u8, 4] (512 bytes, 4.35%; +4.35%)</title>",
        ">Growth of inuse_space<",
    ] {
        assert!(text.contains(title), "{title}");
    }
}

/// The sentence of a failure.
fn refusal(command: &str, arguments: &[&str]) -> String {
    let output = tool(command).args(arguments).output().unwrap();
    assert_eq!(output.status.code(), Some(125), "{arguments:?}");
    assert_eq!(stdout(&output), "");
    stderr(&output)
}

#[test]
fn what_cannot_be_read_is_refused_in_one_sentence() {
    let (folder, early, _) = files();
    let packed = fs::read(&early).unwrap();
    let file = |name: &str, content: &[u8]| {
        let path = folder.path().join(name);
        fs::write(&path, content).unwrap();
        path.to_str().unwrap().to_string()
    };
    let text = file("text", b"heap profile: 1: 2 [3: 4]\n");
    let empty = file("empty", b"");
    let half = file("half", &packed[..packed.len() / 2]);
    for command in ["report", "symbolize"] {
        for (path, why) in [
            (text.as_str(), "not a profile in pprof's format: "),
            (&empty, "not a profile in pprof's format: it is empty"),
            (
                &half,
                "not a profile in pprof's format: it cannot be unpacked",
            ),
            ("/no/such/file", "No such file or directory"),
            ("/", "Is a directory"),
        ] {
            let sentence = refusal(command, &[path]);
            let start = format!("spanmalloc: {path}: {why}");
            assert!(sentence.starts_with(&start), "{sentence}");
            assert_eq!(sentence.lines().count(), 1, "{sentence}");
        }
    }
}

#[test]
fn what_the_profile_does_not_have_is_refused() {
    let (folder, early, late) = files();
    assert_eq!(
        refusal("report", &[&early, "--sample-type", "cpu"]),
        format!(
            "spanmalloc: {early}: there is no sample type cpu, but alloc_objects, inuse_space\n"
        )
    );
    let other = folder.path().join("other");
    let mut builder = Builder::new(&["inuse_space pages"]);
    builder.stack(&["main"], &[1]);
    builder.write(&other);
    assert_eq!(
        refusal("report", &["--diff", &early, other.to_str().unwrap()]),
        "spanmalloc: inuse_space is in bytes in one of the profiles and in pages in the other\n"
    );
    let nothing = folder.path().join("nothing");
    Builder::new(&TYPES).write(&nothing);
    let svg = folder.path().join("flame.svg");
    let (nothing, svg) = (nothing.to_str().unwrap(), svg.to_str().unwrap());
    assert_eq!(
        refusal("report", &[nothing, "--flame", svg]),
        "spanmalloc: there is no flame graph to draw: No stack counts found\n"
    );
    assert!(report(&[nothing]).starts_with("inuse_space: 0 B in all; 0 of 0 functions\n"));
    for wrong in [
        &["--diff", &early][..],
        &[&early, "--diff", &early, &late],
        &[],
    ] {
        assert!(refusal("report", wrong).starts_with("spanmalloc: "));
    }
}
