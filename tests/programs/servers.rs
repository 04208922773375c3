//! Servers: Redis on a Unix socket, nginx on a port of the loopback device.

use std::fmt::Write as _;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::thread;
use std::time::Duration;

use crate::harness::{Server, Stage, both, is_root, program};

const SOCKET: &str = "redis.sock";

fn redis(stage: &Stage, path: &Path) -> Server {
    let mut command = stage.command(path);
    command.args(["--port", "0", "--unixsocket", SOCKET, "--save", ""]);
    command.args(["--io-threads", "2", "--lazyfree-lazy-user-del", "yes"]);
    command.args(["--appendonly", "no", "--daemonize", "no"]);
    let mut server = stage.serve(&mut command, libc::SIGTERM);
    let socket = stage.folder.join(SOCKET);
    let is_up = server.is_up(|| UnixStream::connect(&socket).is_ok());
    assert!(is_up, "{}", server.log());
    server
}

/// Commands that write keys of all types, with values of many sizes, and change them.
fn redis_writes() -> String {
    let mut text = String::new();
    for i in 0..3000 {
        let value = "v".repeat(i * 7 % 1500);
        writeln!(text, "SET string:{i} {i}{value}").unwrap();
        writeln!(text, "HSET hash:{} field:{i} {i}{value}", i % 40).unwrap();
        writeln!(text, "RPUSH list:{} {i}{value}", i % 30).unwrap();
        writeln!(text, "ZADD sorted:{} {} member:{i}", i % 20, i * 31 % 1009).unwrap();
        writeln!(text, "SADD set:{} member:{i}", i % 10).unwrap();
        writeln!(text, "APPEND string:{} more{i}", i / 2).unwrap();
        writeln!(text, "SETRANGE bytes:{} {} x", i % 5, i * 17).unwrap();
        if i % 5 == 0 {
            writeln!(text, "DEL string:{}", i / 3).unwrap();
            writeln!(text, "LTRIM list:{} 1 -2", i % 30).unwrap();
        }
        writeln!(text, "XADD stream:{} {}-1 name {i}", i % 3, i + 1).unwrap();
    }
    text + "EVAL \"local t = {} for i = 1, 5000 do t[i] = tostring(i) end return table.concat(t)\" 0\n"
}

/// Commands that read it all, in a certain order.
fn redis_reads() -> String {
    let mut text = String::from("DBSIZE\n");
    for i in 0..3000 {
        writeln!(text, "GET string:{i}\nHGET hash:{} field:{i}", i % 40).unwrap();
    }
    for i in 0..40 {
        writeln!(
            text,
            "LRANGE list:{i} 0 -1\nSORT set:{i} ALPHA\nGET bytes:{i}"
        )
        .unwrap();
        writeln!(
            text,
            "ZRANGE sorted:{i} 0 -1 WITHSCORES\nXRANGE stream:{i} - +"
        )
        .unwrap();
    }
    text
}

#[test]
fn redis_keys() {
    let names = ["redis-server", "redis-cli", "redis-benchmark"];
    let [Some(path), Some(client), Some(benchmark)] = names.map(program) else {
        return;
    };
    both(|stage| {
        stage.write("writes", redis_writes());
        stage.write("reads", redis_reads());
        let ask = |input: &str| {
            let mut command = stage.command(&client);
            command
                .args(["-s", SOCKET, "--raw"])
                .env("REDISCLI_RCFILE", "/dev/null");
            stage.run(command.stdin(stage.open(input)))
        };
        let server = redis(stage, &path);
        let mut command = stage.command(&benchmark);
        let tests = "set,get,lpush,rpop,sadd,hset,zadd,lrange_100,mset";
        command.args([
            "-s", SOCKET, "-q", "-n", "4000", "-P", "16", "-c", "20", "-r", "500",
        ]);
        command.args(["-d", "200", "-t", tests]);
        stage.run(&mut command);
        stage.write("flush", "FLUSHALL ASYNC\nDBSIZE\n");
        let flushed = ask("flush");
        let written = ask("writes");
        let before = ask("reads");
        // By a child of the server, then by the server itself.
        stage.write("fork", "BGSAVE\n");
        ask("fork");
        stage.write("info", "INFO persistence\n");
        let is_saved = || {
            let info = String::from_utf8(ask("info")).unwrap();
            assert!(info.contains("rdb_last_bgsave_status:ok"), "{info}");
            info.contains("rdb_bgsave_in_progress:0")
        };
        assert!((0..1000).any(|_| is_saved()), "the child does not end");
        assert!(
            server.log().contains("DB saved on disk"),
            "{}",
            server.log()
        );
        stage.write("save", "SAVE\n");
        let saved = ask("save");
        server.stop();
        let server = redis(stage, &path);
        let after = ask("reads");
        assert!(before == after, "the keys differ after a restart");
        server.stop();
        [flushed, written, saved, after].concat()
    });
}

/// Clients at a time, and requests of each.
const CLIENTS: usize = 4;
const REQUESTS: usize = 40;

const NGINX_CONFIG: &str = "
daemon off;
worker_processes 2;
pid nginx.pid;
error_log stderr warn;
events { worker_connections 256; }
http {
    access_log off;
    client_body_temp_path tmp/body;
    proxy_temp_path tmp/proxy;
    fastcgi_temp_path tmp/fastcgi;
    uwsgi_temp_path tmp/uwsgi;
    scgi_temp_path tmp/scgi;
    gzip on;
    gzip_types *;
    gzip_http_version 1.0;
    gzip_proxied any;
    server {
        listen 127.0.0.1:PORT backlog=256;
        root files;
        location / { }
        location /through/ { proxy_pass http://127.0.0.1:PORT/; proxy_buffers 8 4k; }
        location /ssi/ { ssi on; alias files/ssi/; }
        location ~ ^/word/(?<word>[a-z]+)$ { return 200 \"the word is $word\\n\"; }
    }
}
";

/// Starts nginx on a port that is free.
fn nginx(stage: &Stage, path: &Path) -> (Server, SocketAddr) {
    for _ in 0..10 {
        let probe = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = probe.local_addr().unwrap();
        drop(probe);
        let mut config = NGINX_CONFIG.replace("PORT", &address.port().to_string());
        if is_root() {
            config.insert_str(0, "user root;");
        }
        stage.write("nginx.conf", config);
        let mut command = stage.command(path);
        command
            .arg("-p")
            .arg(&stage.folder)
            .args(["-c", "nginx.conf", "-e", "stderr"]);
        let mut server = stage.serve(&mut command, libc::SIGQUIT);
        // The file comes when the port is nginx's.
        let pid_file = stage.folder.join("nginx.pid");
        if server.is_up(|| pid_file.exists() && TcpStream::connect(address).is_ok()) {
            return (server, address);
        }
        // Another program was faster to take the port.
        assert!(
            server.log().contains("Address already in use"),
            "{}",
            server.log()
        );
    }
    panic!("no free port");
}

/// The body of the answer to a request.
fn get(address: SocketAddr, path: &str, header: &str) -> Vec<u8> {
    let mut stream = TcpStream::connect(address).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(60)))
        .unwrap();
    write!(
        stream,
        "GET {path} HTTP/1.0\r\nHost: localhost\r\n{header}\r\n"
    )
    .unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    let head = answer.windows(4).position(|window| window == b"\r\n\r\n");
    let body = answer.split_off(head.expect("no head") + 4);
    let head = String::from_utf8_lossy(&answer);
    assert!(head.starts_with("HTTP/1.1 200 "), "{path}: {head}");
    body
}

/// What one client is sent: files, plain, packed, and by way of a second connection.
fn client(address: SocketAddr, client: usize) -> Vec<u8> {
    let mut all = Vec::new();
    for request in 0..REQUESTS {
        let file = (client * 7 + request) % 10;
        let prefix = ["", "/through"][request % 2];
        let header = ["", "Accept-Encoding: gzip\r\n"][request / 2 % 2];
        all.extend(get(address, &format!("{prefix}/file-{file}"), header));
        all.extend(get(address, &format!("{prefix}/word/abc"), header));
        all.extend(get(address, &format!("{prefix}/ssi/page.html"), header));
    }
    all
}

/// Load by the tools for it that are there.
fn load(stage: &Stage, address: SocketAddr) {
    let url = |file: &str| format!("http://{address}/{file}");
    if let Some(path) = program("ab") {
        let mut command = stage.command(&path);
        command
            .args(["-q", "-k", "-c", "16", "-n", "3000"])
            .arg(url("file-3"));
        let report = String::from_utf8(stage.run(&mut command)).unwrap();
        assert!(report.contains("Failed requests:        0\n"), "{report}");
        let mut command = stage.command(&path);
        command.args(["-q", "-c", "8", "-n", "400", "-H", "Accept-Encoding: gzip"]);
        let report = stage.run(command.arg(url("through/file-9")));
        assert!(
            String::from_utf8(report)
                .unwrap()
                .contains("Failed requests:        0\n")
        );
    }
}

#[test]
fn nginx_pages() {
    let Some(path) = program("nginx") else {
        return;
    };
    both(|stage| {
        for file in 0..10 {
            let line = format!("line of file {file}\n");
            stage.write(&format!("files/file-{file}"), line.repeat(1 << file));
        }
        let include = "<!--# include virtual=\"/file-4\" -->\n".repeat(20);
        stage.write("files/ssi/page.html", include);
        stage.write("tmp/mark", "");
        let (server, address) = nginx(stage, &path);
        load(stage, address);
        let clients = (0..CLIENTS).map(|index| thread::spawn(move || client(address, index)));
        let clients: Vec<_> = clients.collect();
        let bodies: Vec<_> = clients
            .into_iter()
            .map(|client| client.join().unwrap())
            .collect();
        server.stop();
        bodies.concat()
    });
}
