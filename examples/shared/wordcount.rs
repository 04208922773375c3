//! Counts the words of all text files below a directory, with several threads.
//!
//! Two examples share this file: `wordcount` runs it on `SpanMalloc`, `wordcount_system` on the
//! allocator of the system. They differ in nothing else, so their times and peaks compare the
//! allocators, and their standard output is the same byte for byte.
//!
//! The work flows one way through three kinds of threads, and so does the memory:
//!
//! 1. One *reader* walks the tree and reads files into buffers of at most [`PIECE_BYTES`]. It
//!    hands them on in batches.
//! 2. The *workers*, one a processor, split a batch into words, count them in a map of owned
//!    strings, and free the reader's buffers. A string whose word the map holds already dies
//!    young, in the thread that made it.
//! 3. The *merger*, which is the calling thread, moves the workers' maps into one. Strings that
//!    it knows already are freed here, far from the thread that made them; the others live to the
//!    end. An allocator that is slow at frees by another thread, or that loses their memory for
//!    the thread that allocates, shows it in this program.
//!
//! Both channels are bounded, so the program holds a few batches a worker and the distinct words,
//! however large the tree is. The exception is a single word longer than a piece: a piece grows
//! until a word ends.
//!
//! A word is a longest run of alphanumeric characters of Unicode, in lower case. A file is text if
//! there is no NUL byte in its first [`TEXT_PROBE_BYTES`]. Bytes that are not UTF-8 separate words.
//!
//! Files are read and not mapped into memory: on a tree of 650 MB in the page cache the reader, its
//! walk included, takes a tenth of the processor time, the workers two thirds and the merger a
//! quarter. A mapped file that another program truncates would end this one by a signal, too.

use std::collections::HashMap;
use std::env;
use std::ffi::OsString;
use std::fmt;
use std::fs::{self, DirEntry, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Instant;

const USAGE: &str = "\
Usage: wordcount [DIRECTORY]

Counts the words of all text files below DIRECTORY (without it: the source tree of this crate) and
prints the 20 most frequent ones. Totals, time and peak memory go to standard error.

Symbolic links are not followed. Directories named `target`, or whose name begins with a dot, are
skipped, except DIRECTORY itself.
";

/// How many words are printed.
const TOP_COUNT: usize = 20;

/// How many bytes at the start of a file decide whether it is text.
const TEXT_PROBE_BYTES: usize = 8 << 10;

/// The largest buffer for the contents of a file; larger files are cut between two words.
const PIECE_BYTES: usize = 1 << 20;

/// A batch is handed on once it holds this many bytes, so it is smaller than two pieces.
///
/// Larger batches make fewer maps that repeat the common words, so there is less to merge, but more
/// memory is in flight. On `/usr/share` with two workers, 256 KiB and 4 MiB take the same time within
/// a tenth, and 4 MiB raise the peak by a quarter.
const BATCH_BYTES: usize = 1 << 20;

/// How many batches, and how many maps, wait in a channel for each worker.
const QUEUED_PER_WORKER: usize = 2;

/// The contents of several small files, or one piece of a large file.
type Batch = Vec<Vec<u8>>;

/// How often each word was seen.
type Counts = HashMap<String, u64>;

/// The whole program: reads the arguments, counts and prints.
///
/// The exit code is 2 for wrong arguments, and 1 if the directory cannot be read or the result
/// cannot be written.
pub(crate) fn run() -> ExitCode {
    let directory = match Request::parse(env::args_os().skip(1)) {
        Ok(Request::Count(directory)) => directory,
        Ok(Request::Help) => return finish(write_stdout(format_args!("{USAGE}"))),
        Err(message) => {
            eprintln!("wordcount: {message} Try `--help`.");
            return ExitCode::from(2);
        }
    };

    let started = Instant::now();
    let worker_count = thread::available_parallelism().map_or(1, usize::from);
    let summary = match count_tree(&directory, worker_count) {
        Ok(summary) => summary,
        Err(error) => {
            let directory = directory.display();
            eprintln!("wordcount: The directory `{directory}` cannot be read: {error}.");
            return ExitCode::FAILURE;
        }
    };
    let wall_time = started.elapsed();

    let written = write_stdout(format_args!("{summary}"));
    let Tree {
        text_files,
        binary_files,
        unreadable,
        bytes,
    } = summary.tree;
    eprintln!("files           {text_files} text, {binary_files} binary, {unreadable} unreadable");
    eprintln!("bytes           {bytes}");
    eprintln!("words           {}", summary.words);
    eprintln!("distinct words  {}", summary.distinct_words);
    eprintln!("wall time       {:.3} s", wall_time.as_secs_f64());
    match peak_rss_kib() {
        Some(kib) => eprintln!(
            "peak RSS        {}.{} MiB",
            kib / 1024,
            kib % 1024 * 10 / 1024
        ),
        None => eprintln!("peak RSS        unknown"),
    }
    finish(written)
}

fn write_stdout(text: fmt::Arguments<'_>) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_fmt(text)?;
    stdout.flush()
}

fn finish(written: io::Result<()>) -> ExitCode {
    match written {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("wordcount: Standard output cannot be written: {error}.");
            ExitCode::FAILURE
        }
    }
}

/// What the arguments ask for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Request {
    Help,
    Count(PathBuf),
}

impl Request {
    /// Reads the arguments that follow the program's name; an error is a sentence for the user.
    pub(crate) fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Self, String> {
        let mut directory = None;
        for argument in arguments {
            if argument == "--help" || argument == "-h" {
                return Ok(Self::Help);
            }
            if argument.as_encoded_bytes().starts_with(b"-") {
                return Err(format!("There is no option `{}`.", argument.display()));
            }
            if directory.replace(PathBuf::from(argument)).is_some() {
                return Err("There is more than one directory.".to_owned());
            }
        }
        let directory = directory.unwrap_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")));
        Ok(Self::Count(directory))
    }
}

/// The largest resident memory this process has had, if the system tells.
fn peak_rss_kib() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix("kB")?.trim_end().parse().ok()
}

/// The result of a count. It depends on the files alone, not on threads or the allocator.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Summary {
    /// At most [`TOP_COUNT`] words, by falling count and, among equals, in order of the words.
    pub(crate) top: Vec<(String, u64)>,
    pub(crate) words: u64,
    pub(crate) distinct_words: usize,
    pub(crate) tree: Tree,
}

impl fmt::Display for Summary {
    /// One line a word, with the counts aligned to the right.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = self
            .top
            .first()
            .map_or(0, |(_, count)| count.to_string().len());
        self.top
            .iter()
            .try_for_each(|(word, count)| writeln!(f, "{count:width$}  {word}"))
    }
}

/// What the reader met on its way.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Tree {
    pub(crate) text_files: u64,
    pub(crate) binary_files: u64,
    /// Files and directories that were skipped, or left early, because of an error.
    pub(crate) unreadable: u64,
    /// Bytes of text handed to the workers.
    pub(crate) bytes: u64,
}

/// Counts the words of all text files below `root`.
///
/// # Errors
///
/// If `root` itself cannot be listed. What cannot be read below it is only counted.
pub(crate) fn count_tree(root: &Path, worker_count: usize) -> io::Result<Summary> {
    let queue_len = QUEUED_PER_WORKER * worker_count;
    let (batch_sender, batch_receiver) = sync_channel(queue_len);
    let (counts_sender, counts_receiver) = sync_channel(queue_len);
    let batch_receiver = Arc::new(Mutex::new(batch_receiver));

    thread::scope(|scope| {
        let reader = scope.spawn(|| read_tree(root, Batcher::new(batch_sender)));
        for _ in 0..worker_count {
            let batches = Arc::clone(&batch_receiver);
            let sender = counts_sender.clone();
            scope.spawn(move || count_batches(&batches, &sender));
        }
        // Only the threads hold the ends from here, so that each channel closes with its users.
        drop((batch_receiver, counts_sender));

        let totals = merge(counts_receiver);
        let tree = reader.join().expect("the reader does not panic")?;
        Ok(Summary {
            top: most_frequent(&totals),
            words: totals.values().sum(),
            distinct_words: totals.len(),
            tree,
        })
    })
}

/// The reader: walks the tree below `root` and hands on the contents of its text files.
///
/// The entries of a directory are taken in order of their names, files before directories.
fn read_tree(root: &Path, mut batcher: Batcher) -> io::Result<Tree> {
    let mut tree = Tree::default();
    let mut pending_dirs = vec![root.to_path_buf()];
    while let Some(dir) = pending_dirs.pop() {
        let listing = match fs::read_dir(&dir) {
            Ok(listing) => listing,
            Err(error) if dir == root => return Err(error),
            Err(_) => {
                tree.unreadable += 1;
                continue;
            }
        };
        let mut entries: Vec<DirEntry> = Vec::new();
        for entry in listing {
            entry.map_or_else(|_| tree.unreadable += 1, |entry| entries.push(entry));
        }
        entries.sort_by_cached_key(DirEntry::file_name);

        let first_new = pending_dirs.len();
        for entry in entries {
            match entry.file_type() {
                Ok(kind) if kind.is_dir() && !is_skipped(&entry) => pending_dirs.push(entry.path()),
                Ok(kind) if kind.is_file() => read_file(&entry.path(), &mut tree, &mut batcher),
                Ok(_) => {} // Skipped directories, symbolic links, sockets, devices.
                Err(_) => tree.unreadable += 1,
            }
        }
        pending_dirs[first_new..].reverse(); // The first name is on top of the stack.
    }
    batcher.send();
    Ok(tree)
}

fn is_skipped(dir: &DirEntry) -> bool {
    let name = dir.file_name();
    name == "target" || name.as_encoded_bytes().starts_with(b".")
}

/// Hands on the contents of one file and counts it in `tree`.
fn read_file(path: &Path, tree: &mut Tree, batcher: &mut Batcher) {
    let outcome = File::open(path).and_then(|file| {
        let len = file.metadata()?.len();
        read_text(file, len, PIECE_BYTES, |piece| {
            tree.bytes += piece.len() as u64;
            batcher.push(piece);
        })
    });
    match outcome {
        Ok(Content::Text) => tree.text_files += 1,
        Ok(Content::Binary) => tree.binary_files += 1,
        Err(_) => tree.unreadable += 1,
    }
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Content {
    Text,
    Binary,
}

/// Reads `source`, of about `len_hint` bytes, and gives it to `emit` in pieces if it is text.
///
/// Every piece but the last ends after an ASCII byte that belongs to no word. Such a byte also
/// belongs to no longer character of UTF-8, so the words, and what is invalid, are those of the
/// whole. A piece is larger than `piece_bytes` only if no such byte comes earlier.
pub(crate) fn read_text(
    mut source: impl Read,
    len_hint: u64,
    piece_bytes: usize,
    mut emit: impl FnMut(Vec<u8>),
) -> io::Result<Content> {
    // One byte more than the file, so that the end shows without growing the buffer.
    let capacity = usize::try_from(len_hint.saturating_add(1)).unwrap_or(usize::MAX);
    let capacity = piece_bytes.min(capacity);
    let mut piece = Vec::with_capacity(capacity);
    source
        .by_ref()
        .take(TEXT_PROBE_BYTES as u64)
        .read_to_end(&mut piece)?;
    if piece.contains(&0) {
        return Ok(Content::Binary);
    }
    loop {
        // Doubles a piece in which no word ended, so that it is searched a few times only.
        let len = piece.len();
        let wanted = if len < piece_bytes {
            piece_bytes - len
        } else {
            len
        };
        let read = source
            .by_ref()
            .take(wanted as u64)
            .read_to_end(&mut piece)?;
        if read < wanted {
            break;
        }
        if let Some(last_separator) = piece.iter().rposition(|&byte| is_separator(byte)) {
            let (_, rest) = piece.split_at(last_separator + 1);
            let mut next = Vec::with_capacity(piece_bytes.max(rest.len()));
            next.extend_from_slice(rest);
            piece.truncate(last_separator + 1);
            emit(std::mem::replace(&mut piece, next));
        }
    }
    if !piece.is_empty() {
        emit(piece);
    }
    Ok(Content::Text)
}

/// Whether the byte is a whole character that belongs to no word.
fn is_separator(byte: u8) -> bool {
    byte.is_ascii() && !byte.is_ascii_alphanumeric()
}

/// Collects pieces until they are worth a message.
struct Batcher {
    batch: Batch,
    batch_bytes: usize,
    sender: SyncSender<Batch>,
}

impl Batcher {
    fn new(sender: SyncSender<Batch>) -> Self {
        Self {
            batch: Batch::new(),
            batch_bytes: 0,
            sender,
        }
    }

    fn push(&mut self, piece: Vec<u8>) {
        self.batch_bytes += piece.len();
        self.batch.push(piece);
        if self.batch_bytes >= BATCH_BYTES {
            self.send();
        }
    }

    /// Waits for room in the channel, and hands on what there is.
    fn send(&mut self) {
        self.batch_bytes = 0;
        let batch = std::mem::take(&mut self.batch);
        self.sender
            .send(batch)
            .expect("a worker waits for each batch");
    }
}

/// A worker: counts each batch into a map of its own, which it hands to the merger.
fn count_batches(batches: &Mutex<Receiver<Batch>>, sender: &SyncSender<Counts>) {
    loop {
        // The lock is held while waiting: the other idle workers wait for it instead.
        let received = batches
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .recv();
        let Ok(batch) = received else { return };
        let mut counts = Counts::new();
        for piece in batch {
            count_words(&String::from_utf8_lossy(&piece), &mut counts);
        }
        sender
            .send(counts)
            .expect("the merger waits for each worker");
    }
}

pub(crate) fn count_words(text: &str, counts: &mut Counts) {
    for word in words(text) {
        *counts.entry(word).or_default() += 1;
    }
}

/// The words of `text` in their order, in lower case.
pub(crate) fn words(text: &str) -> impl Iterator<Item = String> {
    text.split(|c: char| !c.is_alphanumeric())
        .filter(|word| !word.is_empty())
        .map(str::to_lowercase)
}

/// The merger: adds up the workers' maps until the last worker is gone.
///
/// A string that is in the totals already is freed here, and so is the table of each map.
fn merge(receiver: Receiver<Counts>) -> Counts {
    let mut totals = Counts::new();
    for counts in receiver {
        for (word, count) in counts {
            *totals.entry(word).or_default() += count;
        }
    }
    totals
}

fn most_frequent(totals: &Counts) -> Vec<(String, u64)> {
    let by_rank =
        |a: &(&String, &u64), b: &(&String, &u64)| b.1.cmp(a.1).then_with(|| a.0.cmp(b.0));
    let mut ranked: Vec<(&String, &u64)> = totals.iter().collect();
    if ranked.len() > TOP_COUNT {
        ranked.select_nth_unstable_by(TOP_COUNT, by_rank);
        ranked.truncate(TOP_COUNT);
    }
    ranked.sort_unstable_by(by_rank);
    ranked
        .into_iter()
        .map(|(word, count)| (word.clone(), *count))
        .collect()
}
