//! `spanmalloc symbolize`, on programs that tell where they called.

use std::fs;

use tempfile::TempDir;

use super::profiles::{self, Builder};
use super::*;

const WITH_LINES: [&str; 2] = ["inner named.c:13", "outer named.c:17"];
const WITHOUT_LINES: [&str; 1] = ["outer :0"];

/// A program in a folder of its own.
struct Program {
    folder: TempDir,
    /// The file with the functions.
    binary: PathBuf,
}

impl Program {
    /// An executable with everything in it.
    fn alone(options: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let binary = folder.path().join("program");
        let mut compiler = compiler(&["-DFUNCTIONS", "-DPROGRAM"]);
        done(compiler.args(options).arg("-o").arg(&binary));
        Self { folder, binary }
    }

    /// An executable, and a library with the functions.
    fn with_library(options: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let binary = folder.path().join("libnamed.so");
        let mut library = compiler(&["-DFUNCTIONS", "-fPIC", "-shared"]);
        done(library.args(options).arg("-o").arg(&binary));
        // Sources come before the libraries that they need.
        let mut program = compiler(&["-DPROGRAM"]);
        let rpath = format!("-Wl,-rpath,{}", folder.path().display());
        program.arg("-o").arg(folder.path().join("program"));
        done(program.arg(&binary).arg(rpath));
        Self { folder, binary }
    }

    /// A profile with the address of the call in `outer`, in a file.
    fn profile(&self) -> PathBuf {
        let output = Command::new(self.folder.path().join("program"))
            .output()
            .unwrap();
        let text = stdout(&output);
        let number = |text: &str| u64::from_str_radix(text, 16).unwrap();
        let call = text.lines().find_map(|it| it.strip_prefix("call 0x"));
        let call = number(call.unwrap()) - 1;
        let mut builder = Builder::new(&["inuse_space bytes"]);
        let build_id = build_id(&self.binary);
        for line in text.lines().filter(|it| it.contains(" r-xp ")) {
            let words: Vec<_> = line.split_whitespace().collect();
            let (start, limit) = words[0].split_once('-').unwrap();
            let (start, limit) = (number(start), number(limit));
            if !(start..limit).contains(&call) {
                continue;
            }
            assert_eq!(words[5], self.binary.to_str().unwrap());
            let id = builder.mapping(start, limit, number(words[2]), words[5], &build_id);
            let location = builder.address(call, id);
            builder.sample(vec![location], &[100]);
        }
        let path = self.folder.path().join("heap.pb.gz");
        builder.write(&path);
        path
    }
}

fn compiler(options: &[&str]) -> Command {
    let mut compiler = Command::new("cc");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cli/named.c");
    compiler.args(["-O2", "-Wall", "-Werror", "-Wl,--build-id"]);
    compiler.args(options).arg(source);
    compiler
}

fn done(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
}

fn build_id(path: &Path) -> String {
    let mut readelf = Command::new("readelf");
    let output = readelf.arg("--notes").arg(path).output().unwrap();
    let text = stdout(&output);
    let (_, rest) = text.split_once("Build ID: ").unwrap();
    rest.lines().next().unwrap().to_string()
}

/// What the tool wrote to standard error, and the lines of the only location.
fn symbolized(profile: &Path) -> (String, Vec<String>) {
    let output = tool("symbolize").arg(profile).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert_eq!(stdout(&output), "");
    let profile = profiles::read(profile);
    let lines = profiles::lines(&profile, &profile.location[0]);
    (stderr(&output), lines)
}

#[track_caller]
fn has(program: &Program, expected: &[&str]) {
    let (complaints, lines) = symbolized(&program.profile());
    assert_eq!(complaints, "");
    assert_eq!(lines, expected);
}

#[test]
fn functions_files_lines_and_inlining_are_found_wherever_the_code_lies() {
    has(&Program::alone(&["-g", "-fPIE", "-pie"]), &WITH_LINES);
    has(&Program::alone(&["-g", "-fno-pie", "-no-pie"]), &WITH_LINES);
    has(&Program::alone(&["-g", "-gz"]), &WITH_LINES);
    has(&Program::with_library(&["-g"]), &WITH_LINES);
    let packed = ["-g", "-Wl,-z,noseparate-code"];
    has(&Program::with_library(&packed), &WITH_LINES);
}

#[test]
fn without_debug_information_there_are_the_symbol_tables() {
    has(&Program::alone(&[]), &WITHOUT_LINES);
    has(&Program::alone(&["-rdynamic", "-s"]), &WITHOUT_LINES);
    has(&Program::with_library(&["-s"]), &WITHOUT_LINES);
    has(&Program::alone(&["-s"]), &[]);
}

#[test]
fn a_separate_debug_file_is_found() {
    for place in ["program.debug", ".debug/program.debug"] {
        let program = Program::alone(&["-g"]);
        let debug = program.folder.path().join(place);
        fs::create_dir_all(debug.parent().unwrap()).unwrap();
        let binary = &program.binary;
        let objcopy = || Command::new("objcopy");
        done(objcopy().arg("--only-keep-debug").arg(binary).arg(&debug));
        done(Command::new("strip").arg(binary));
        let mut link = std::ffi::OsString::from("--add-gnu-debuglink=");
        link.push(&debug);
        done(objcopy().arg(link).arg(binary));
        has(&program, &WITH_LINES);
        // Not if it has been changed.
        let mut bytes = fs::read(&debug).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        fs::write(&debug, bytes).unwrap();
        has(&program, &[]);
    }
}

#[test]
fn a_file_that_is_gone_or_another_is_left_without_names() {
    let program = Program::alone(&["-g"]);
    let profile = program.profile();
    let binary = program.binary.display();

    let other = Program::alone(&["-g", "-DOTHER", "-O1"]);
    let build_id = build_id(&program.binary);
    fs::rename(&other.binary, &program.binary).unwrap();
    let (complaints, lines) = symbolized(&profile);
    assert_eq!(
        complaints,
        format!(
            "spanmalloc: {binary} is not the file that the profile is about, whose build id is \
             {build_id}; its functions have no names\n"
        )
    );
    assert!(lines.is_empty());

    fs::write(&program.binary, "text").unwrap();
    let (complaints, _) = symbolized(&profile);
    let expected = "is not an ELF file; its functions have no names";
    assert_eq!(complaints, format!("spanmalloc: {binary} {expected}\n"));

    fs::remove_file(&program.binary).unwrap();
    let (complaints, lines) = symbolized(&profile);
    assert_eq!(
        complaints,
        format!(
            "spanmalloc: {binary} cannot be read (No such file or directory); its functions have \
             no names\n"
        )
    );
    assert!(lines.is_empty());
}

#[test]
fn names_go_to_another_file_and_are_not_looked_up_twice() {
    let program = Program::alone(&["-g"]);
    let profile = program.profile();
    let before = fs::read(&profile).unwrap();
    let named = program.folder.path().join("named.pb.gz");
    let mut tool = tool("symbolize");
    let output = tool.arg(&profile).arg("-o").arg(&named).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert_eq!(fs::read(&profile).unwrap(), before);
    let read = profiles::read(&named);
    assert!(read.mapping[0].has_functions && read.mapping[0].has_inline_frames);
    assert_eq!(read.sample[0].value, [100]);

    fs::remove_file(&program.binary).unwrap();
    let (complaints, lines) = symbolized(&named);
    assert_eq!(complaints, "");
    assert_eq!(lines, WITH_LINES);

    let stripped = Program::alone(&["-s"]);
    let profile = stripped.profile();
    let nothing = (String::new(), Vec::new());
    assert_eq!(symbolized(&profile), nothing);
    fs::remove_file(&stripped.binary).unwrap();
    assert_eq!(symbolized(&profile), nothing);
}

#[test]
fn an_address_outside_of_all_files_stays_one() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("heap.pb.gz");
    let mut builder = Builder::new(&["inuse_space bytes"]);
    let vdso = builder.mapping(0x1000, 0x2000, 0, "[vdso]", "");
    let locations = vec![builder.address(0x1234, vdso), builder.address(0x9999, 0)];
    builder.sample(locations, &[1]);
    builder.write(&path);
    assert_eq!(symbolized(&path), (String::new(), Vec::new()));
}

#[test]
fn the_report_looks_names_up_by_itself() {
    let program = Program::with_library(&["-g"]);
    let profile = program.profile();
    let before = fs::read(&profile).unwrap();
    let output = tool("report").arg(&profile).output().unwrap();
    let expected = "inuse_space: 100 B in all; 2 of 2 functions\n \
                    flat   flat %  cumulative   cum. %  function\n\
                    100 B  100.0 %       100 B  100.0 %  inner\n  \
                    0 B    0.0 %       100 B  100.0 %  outer\n";
    assert_eq!(stdout(&output), expected);
    assert_eq!(fs::read(&profile).unwrap(), before);

    fs::remove_file(&program.binary).unwrap();
    let output = tool("report").arg(&profile).output().unwrap();
    assert!(stdout(&output).contains("  libnamed.so+0x"));
    assert!(stderr(&output).contains("No such file or directory"));
}
