//! PostgreSQL: a fresh cluster, pgbench, queries, and dumps.

use std::fs;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::Command;

use crate::harness::{Server, Stage, both_unprivileged, program_in};

/// Transactions of each pgbench client, and clients.
const TRANSACTIONS: u32 = 150;
const CLIENTS: u32 = 4;

/// Where the server's programs are: PATH, and the folders of Debian's packages, newest first.
fn folders() -> Vec<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut folders: Vec<_> = std::env::split_paths(&path).collect();
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten();
    let mut versions: Vec<_> = versions.map(|entry| entry.unwrap().path()).collect();
    versions.sort_by_key(|folder| {
        let name = folder.file_name().unwrap().to_string_lossy();
        std::cmp::Reverse(name.parse::<u32>().unwrap_or(0))
    });
    folders.extend(versions.into_iter().map(|folder| folder.join("bin")));
    folders
}

/// A cluster in a stage's directory, and its programs.
struct Cluster<'a> {
    stage: &'a Stage,
    programs: &'a [PathBuf; 5],
}

impl Cluster<'_> {
    /// One of the five programs, in the order of the test's list.
    fn command(&self, program: usize) -> Command {
        let mut command = self.stage.command(&self.programs[program]);
        command
            .env("PGHOST", &self.stage.folder)
            .env("PGUSER", "tester");
        command.env("PGDATABASE", "postgres");
        command
    }

    fn init(&self) {
        let mut command = self.command(0);
        command.args(["-D", "data", "-U", "tester", "-A", "trust", "-E", "UTF8"]);
        self.stage
            .run(command.args(["--locale=C", "--no-sync", "--no-instructions"]));
    }

    fn start(&self) -> Server {
        let mut command = self.command(1);
        command.args(["-D", "data", "-c", "listen_addresses=", "-c", "fsync=off"]);
        command.args(["-c", "work_mem=1MB", "-c", "min_parallel_table_scan_size=0"]);
        command.args(["-c", "parallel_setup_cost=0", "-c", "parallel_tuple_cost=0"]);
        command.args(["-c", "jit=off", "-c", "shared_buffers=16MB", "-k"]);
        command.arg(&self.stage.folder);
        let mut server = self.stage.serve(&mut command, libc::SIGINT);
        // The file with this process's number has a status of "ready" as soon as clients may come.
        let socket = self.stage.folder.join(".s.PGSQL.5432");
        let pid_file = self.stage.folder.join("data/postmaster.pid");
        let is_up = server.is_up(|| {
            let status = fs::read_to_string(&pid_file).unwrap_or_default();
            status.lines().any(|line| line.trim() == "ready")
                && UnixStream::connect(&socket).is_ok()
        });
        assert!(is_up, "{}", server.log());
        server
    }

    fn pgbench(&self, arguments: &[&str]) -> String {
        let mut command = self.command(2);
        String::from_utf8(self.stage.run(command.args(arguments))).unwrap()
    }

    fn dump(&self, arguments: &[&str]) -> Vec<u8> {
        let mut command = self.command(3);
        let text = self.stage.run(command.arg("--no-sync").args(arguments));
        // A dump is fenced by commands with a random key.
        let lines = text.split_inclusive(|&byte| byte == b'\n');
        lines
            .filter(|line| !is_fence(line))
            .collect::<Vec<_>>()
            .concat()
    }

    fn query(&self, script: &str) -> Vec<u8> {
        let mut command = self.command(4);
        command.args(["-X", "-q", "-A", "-v", "ON_ERROR_STOP=1", "-f", "-"]);
        self.stage.write("script.sql", script);
        self.stage.run(command.stdin(self.stage.open("script.sql")))
    }
}

fn is_fence(line: &[u8]) -> bool {
    line.starts_with(b"\\restrict ") || line.starts_with(b"\\unrestrict ")
}

#[test]
fn postgresql() {
    let names = ["initdb", "postgres", "pgbench", "pg_dump", "psql"];
    let programs = names.map(|name| program_in(name, folders().into_iter()));
    let [Some(a), Some(b), Some(c), Some(d), Some(e)] = programs else {
        return;
    };
    let programs = [a, b, c, d, e];
    both_unprivileged(|stage| {
        let cluster = Cluster {
            stage,
            programs: &programs,
        };
        cluster.init();
        let server = cluster.start();
        cluster.pgbench(&["-i", "-q", "-s", "1"]);
        let fresh = cluster.dump(&[]);
        let answers = cluster.query(include_str!("inputs/library.sql"));
        let own = cluster.dump(&["-t", "book", "-t", "loan"]);
        let (clients, transactions) = (CLIENTS.to_string(), TRANSACTIONS.to_string());
        let report = cluster.pgbench(&["-n", "-c", &clients, "-j", "2", "-t", &transactions]);
        let all = TRANSACTIONS * CLIENTS;
        assert!(report.contains(&format!(": {all}/{all}\n")), "{report}");
        // What one run of pgbench changes is random, but these sums agree.
        let sums = cluster.query(
            "select count(*) as transactions, bool_and(delta is not null) from pgbench_history;
             select (select sum(delta) from pgbench_history) = (select sum(abalance) from
             pgbench_accounts), (select sum(bbalance) from pgbench_branches) = (select
             sum(tbalance) from pgbench_tellers), (select sum(delta) from pgbench_history) =
             (select sum(tbalance) from pgbench_tellers);",
        );
        server.stop();
        // What is on the disk is whole.
        let server = cluster.start();
        let again = cluster.dump(&["-t", "book", "-t", "loan"]);
        assert!(own == again, "the tables differ after a restart");
        server.stop();
        [fresh, answers, own, sums].concat()
    });
}
