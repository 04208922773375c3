//! Real programs on the library, also in secure mode: their output is compared, byte for byte, with the same
//! run on the system's malloc.
//!
//! A program that is missing skips its test; with `SPANMALLOC_TEST_ALL_PROGRAMS` in the environment
//! it is a failure. Debian has all of them:
//!
//! ```sh
//! apt-get install --no-install-recommends apache2-utils bash coreutils \
//!     default-jdk-headless g++ git nginx-light nodejs perl postgresql python3 redis-server \
//!     redis-tools sqlite3 stress-ng tar xz-utils
//! ```
//!
//! Cargo comes with Rust. Programs that drop privileges by way of a set-user-ID file ignore
//! `LD_PRELOAD`, and none is here; those that fork and change their user keep what was loaded.

#![cfg(not(miri))] // Starts processes.

#[path = "programs/harness.rs"]
mod harness;
#[path = "programs/postgres.rs"]
mod postgres;
#[path = "programs/runtimes.rs"]
mod runtimes;
#[path = "programs/scripts.rs"]
mod scripts;
#[path = "programs/servers.rs"]
mod servers;
#[path = "programs/stress.rs"]
mod stress;
#[path = "programs/tools.rs"]
mod tools;
