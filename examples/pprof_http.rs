//! A service that shows its own heap, at the address where Go's services do.
//!
//! ```text
//! cargo run --release --example pprof_http --features profile -- 127.0.0.1:6060
//! go tool pprof http://127.0.0.1:6060/debug/pprof/heap
//! curl -s http://127.0.0.1:6060/debug/pprof/heap >heap.pb.gz; spanmalloc report heap.pb.gz
//! curl -s http://127.0.0.1:6060/metrics
//! ```
//!
//! It indexes words meanwhile, so that there is something to see. With `--once` it answers one request to
//! each address, by itself, and ends.

use std::collections::HashMap;
use std::error::Error;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::{Arc, Mutex};
use std::thread;

use spanmalloc::SpanMalloc;
use tiny_http::{Header, Method, Request, Response, Server};

#[global_allocator]
static GLOBAL: SpanMalloc = SpanMalloc;

type Index = Mutex<HashMap<String, Vec<usize>>>;

/// The service's work: in which lines a word is.
fn index_lines(index: &Index, from: usize) {
    for line in from..from + 10_000 {
        let words = [line % 97, line % 991, line % 9_973].map(|number| format!("word{number}"));
        let mut index = index.lock().expect("nobody panics with the index");
        for word in words {
            index.entry(word).or_default().push(line);
        }
    }
}

fn header(name: &str, value: &str) -> Header {
    Header::from_bytes(name, value).expect("names and values are ASCII")
}

/// What is at an address: its type, and its content.
fn content_of(address: &str) -> Option<(&'static str, Vec<u8>)> {
    match address {
        "/debug/pprof/heap" => {
            let mut profile = Vec::new();
            spanmalloc::profile::heap(&mut profile).ok()?;
            Some(("application/octet-stream", profile))
        }
        "/metrics" => {
            let text = spanmalloc::stats().open_metrics().to_string();
            let form = "application/openmetrics-text; version=1.0.0; charset=utf-8";
            Some((form, text.into_bytes()))
        }
        _ => None,
    }
}

fn answer(request: Request) -> std::io::Result<()> {
    let address = request
        .url()
        .split('?')
        .next()
        .unwrap_or_default()
        .to_owned();
    let content = content_of(&address).filter(|_| *request.method() == Method::Get);
    match content {
        Some((form, content)) => {
            let response = Response::from_data(content);
            request.respond(response.with_header(header("Content-Type", form)))
        }
        None => request.respond(Response::empty(404)),
    }
}

/// Asks for what is at an address; the answer, with its headers.
fn ask(service: &str, address: &str) -> std::io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(service)?;
    write!(stream, "GET {address} HTTP/1.0\r\nHost: {service}\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    Ok(answer)
}

fn main() -> Result<(), Box<dyn Error + Send + Sync>> {
    let mut arguments = std::env::args().skip(1);
    let address = arguments.next().unwrap_or("127.0.0.1:6060".into());
    let once = address == "--once";
    let server = Server::http(if once { "127.0.0.1:0" } else { &address })?;
    let service = server.server_addr().to_string();
    let index = Arc::new(Index::default());
    index_lines(&index, 0);
    if once {
        let asks = thread::spawn(move || {
            let heap = ask(&service, "/debug/pprof/heap")?;
            Ok::<_, std::io::Error>((heap, ask(&service, "/metrics")?))
        });
        for request in server.incoming_requests().take(2) {
            answer(request)?;
        }
        let (heap, metrics) = asks.join().map_err(|_| "a request failed")??;
        let ok = |answer: &[u8]| {
            answer.starts_with(b"HTTP/1.0 200") || answer.starts_with(b"HTTP/1.1 200")
        };
        println!("heap profile: {}", if ok(&heap) { "ok" } else { "failed" });
        println!("metrics: {}", if ok(&metrics) { "ok" } else { "failed" });
        return Ok(());
    }
    println!("http://{service}/debug/pprof/heap");
    let works = Arc::clone(&index);
    thread::spawn(move || {
        let mut from = 0;
        loop {
            // As long as there is memory; a real service forgets.
            from += 10_000;
            index_lines(&works, from);
        }
    });
    for request in server.incoming_requests() {
        // Who has gone away gets no answer.
        let _ = answer(request);
    }
    Ok(())
}
