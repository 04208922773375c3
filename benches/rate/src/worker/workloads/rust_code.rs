//! Pieces of ordinary Rust programs: what they allocate is what their libraries do.
//!
//! A document in JSON, tables of strings, a search with regular expressions, and tasks of an async
//! runtime. Most of their time is not the allocator's, as in most programs.

use std::collections::HashMap;
use std::collections::hash_map::DefaultHasher;
use std::fmt::Write;
use std::hash::BuildHasherDefault;
use std::hint::black_box;

use regex::Regex;
use serde_json::{Value, json};
use tokio::runtime;
use tokio::sync::{mpsc, oneshot};

use super::{Size, Workload};
use crate::measure::Meter;
use crate::random::Random;

const fn program(
    name: &'static str,
    about: &'static str,
    operation: &'static str,
    run: fn(&Size, &mut Meter),
) -> Workload {
    Workload {
        name,
        about,
        operation,
        threads: 1,
        threads_can_be_chosen: false,
        run,
    }
}

pub const JSON: Workload = program(
    "json",
    "a document of 4 MB is parsed to a tree of values and written again, several times (serde_json)",
    "1 KiB of the document, parsed and written",
    |size, meter| json(size.of(14), meter),
);
pub const HASH_MAPS: Workload = program(
    "hash-maps",
    "a map from words to vectors of strings grows and shrinks, as an index of texts does",
    "one string appended to a vector, or one vector removed",
    |size, meter| hash_maps(size.of(2_000_000), meter),
);
pub const TEXT_SEARCH: Workload = program(
    "text-search",
    "lines of a log are searched with a regular expression; records are made of the captures (regex)",
    "one line made to a record",
    |size, meter| text_search(size.of(300_000), meter),
);
pub const ASYNC_TASKS: Workload = Workload {
    threads: 2,
    ..program(
        "async-tasks",
        "clients send requests to a server, which starts a task for each of them (tokio, 2 workers)",
        "one request and its response",
        |size, meter| async_tasks(size.threads, size.of(800_000), meter),
    )
};

/// Appends a word of 3 to 12 letters.
fn push_word(text: &mut String, random: &mut Random) {
    let mut letters = random.next();
    for _ in 0..3 + random.below(10) {
        text.push((b'a' + (letters % 26) as u8) as char);
        letters /= 26;
    }
}

fn word(random: &mut Random) -> String {
    let mut word = String::new();
    push_word(&mut word, random);
    word
}

fn json(rounds: u64, meter: &mut Meter) {
    let mut random = Random::new(600);
    let people: Vec<_> = (0..10_000)
        .map(|number| person(number, &mut random))
        .collect();
    let text = serde_json::to_string(&Value::Array(people)).expect("values can be written");
    meter.run(|| {
        for _ in 0..rounds {
            let value: Value = serde_json::from_str(&text).expect("it was written by this library");
            let again = serde_json::to_string(&value).expect("values can be written");
            assert!(again == text, "the document is another one");
        }
        rounds * text.len() as u64 / 1024
    });
}

/// One of the values of the document, about 400 bytes of text.
fn person(number: u64, random: &mut Random) -> Value {
    let mut words = |count: usize| -> Vec<String> { (0..count).map(|_| word(random)).collect() };
    let friends: Vec<_> = (0..number % 5)
        .map(|friend| json!({ "number": number * 7 + friend, "name": words(2).join(" ") }))
        .collect();
    json!({
        "number": number,
        "name": words(2).join(" "),
        "active": number.is_multiple_of(3),
        "balance": number as f64 / 4.0,
        "manager": if number.is_multiple_of(4) { Value::Null } else { Value::from(number / 4) },
        "address": { "street": words(3).join(" "), "city": words(1).join(" "), "zip": 10_000 + number },
        "tags": words(1 + number as usize % 8),
        "about": words(12).join(" "),
        "friends": friends,
    })
}

/// A map whose order, and so the order of its frees, is the same on every run.
type Map<K, V> = HashMap<K, V, BuildHasherDefault<DefaultHasher>>;

fn hash_maps(operations: u64, meter: &mut Meter) {
    const WORDS: usize = 50_000;
    meter.run(|| {
        let mut random = Random::new(700);
        let mut index: Map<String, Vec<String>> = Map::default();
        let (mut added, mut removed) = (0, 0);
        for operation in 0..operations {
            // The smaller of two numbers: some words are more frequent than others.
            let number = random.below(WORDS).min(random.below(WORDS));
            let key = format!("word {number}");
            if operation % 4 == 3 {
                removed += index.remove(&key).map_or(0, |places| places.len());
            } else {
                let place = format!("/texts/{}/{operation}.txt", number % 100);
                index.entry(key).or_default().push(place);
                added += 1;
            }
        }
        let left: usize = index.values().map(Vec::len).sum();
        assert_eq!(added, removed + left, "strings were lost");
        operations
    });
}

/// What is known from a line of the log.
struct Record {
    user: String,
    path: Vec<String>,
    fields: Vec<(String, String)>,
}

fn text_search(lines: u64, meter: &mut Meter) {
    let text = log(&mut Random::new(800), 20_000);
    let line = Regex::new(
        r"(?m)^(?<date>\d{4}-\d\d-\d\d) (?<level>INFO|WARN|ERROR) user=(?<user>\w+) path=(?<path>[/\w]+)(?<fields>(?: \w+=\w+)*)$",
    )
    .expect("the expression is right");
    let field = Regex::new(r"(?<name>\w+)=(?<value>\w+)").expect("the expression is right");
    meter.run(|| {
        let mut found = 0;
        while found < lines {
            let records: Vec<_> = line
                .captures_iter(&text)
                .map(|captures| Record {
                    user: captures["user"].to_owned(),
                    path: captures["path"].split('/').map(str::to_owned).collect(),
                    fields: field
                        .captures_iter(&captures["fields"])
                        .map(|field| (field["name"].to_owned(), field["value"].to_owned()))
                        .collect(),
                })
                .collect();
            assert_eq!(records.len(), 20_000, "lines were not found");
            let mut of_users: Map<String, Vec<Record>> = Map::default();
            for record in records {
                of_users
                    .entry(record.user.clone())
                    .or_default()
                    .push(record);
            }
            let records = of_users.values().flatten();
            let strings: usize = records
                .map(|record| record.path.len() + record.fields.len())
                .sum();
            found += 20_000;
            black_box((of_users, strings));
        }
        found
    });
}

fn log(random: &mut Random, lines: usize) -> String {
    const LEVELS: [&str; 3] = ["INFO", "WARN", "ERROR"];
    let mut text = String::new();
    for line in 0..lines {
        let (month, day, level) = (line % 12 + 1, line % 28 + 1, LEVELS[random.below(3)]);
        write!(
            text,
            "2025-{month:02}-{day:02} {level} user=u{} path=",
            random.below(1000)
        )
        .expect("a string takes all");
        for _ in 0..1 + random.below(4) {
            text.push('/');
            push_word(&mut text, random);
        }
        for _ in 0..random.below(5) {
            text.push(' ');
            push_word(&mut text, random);
            text.push('=');
            push_word(&mut text, random);
        }
        text.push('\n');
    }
    text
}

/// What a client sends: a body, and where the response is to go.
struct Request {
    body: Vec<u64>,
    response: oneshot::Sender<String>,
}

fn async_tasks(workers: usize, requests: u64, meter: &mut Meter) {
    const CLIENTS: u64 = 100;
    let of_client = requests / CLIENTS;
    meter.run(|| {
        // A counter follows only the threads that are started after it: so the runtime starts here.
        let runtime = runtime::Builder::new_multi_thread()
            .worker_threads(workers)
            .build()
            .expect("two threads can be started");
        let answered: u64 = runtime.block_on(async {
            let (send, receive) = mpsc::channel(64);
            let clients: Vec<_> = (0..CLIENTS)
                .map(|number| tokio::spawn(client(number, of_client, send.clone())))
                .collect();
            drop(send);
            let server = tokio::spawn(serve(receive));
            let mut answered = 0;
            for client in clients {
                answered += client.await.expect("a client panicked");
            }
            server.await.expect("the server panicked");
            answered
        });
        assert_eq!(answered, of_client * CLIENTS, "requests were lost");
        answered
    });
}

/// Sends requests one after the other, and returns how many were answered.
async fn client(number: u64, requests: u64, server: mpsc::Sender<Request>) -> u64 {
    let mut random = Random::new(900 + number);
    for _ in 0..requests {
        let body: Vec<u64> = (0..1 + random.below(64))
            .map(|_| random.next() >> 32)
            .collect();
        let sum: u64 = body.iter().sum();
        let (response, answer) = oneshot::channel();
        let request = Request { body, response };
        assert!(server.send(request).await.is_ok(), "the server is gone");
        let answer = answer.await.expect("each request is answered");
        assert_eq!(answer, format!("sum: {sum}"), "the answer is another one");
    }
    requests
}

/// Answers each request in a task of its own.
async fn serve(mut requests: mpsc::Receiver<Request>) {
    while let Some(Request { body, response }) = requests.recv().await {
        tokio::spawn(async move {
            let sum: u64 = body.iter().sum();
            // A client that is gone wants no answer.
            let _ = response.send(format!("sum: {sum}"));
        });
    }
}
