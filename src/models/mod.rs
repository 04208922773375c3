//! Models of the protocols between threads, for the model checker `loom`.
//!
//! Each model runs the shipped code in every order of its threads' steps, with at most
//! [`PREEMPTIONS`] switches away from a thread that could go on, and with every value that the
//! memory model lets an atomic load return. The scenarios are small: spans of two or three slots,
//! whose base is a made-up address, since nothing below the page heap touches slot memory.
//!
//! What the checker can't know is kept beside the code under test in atomics of `std`, which are no
//! steps to it: which slots the program holds (`Home::live` of `spans`), and how often a span was reported
//! empty.
//!
//! ```text
//! RUSTFLAGS="--cfg loom" cargo test --release --lib models
//! ```

#![allow(unsafe_code)]

mod depot;
mod idle;
mod mutex;
mod reports;
mod spans;

/// Switches away from a thread that could go on, in one execution. Three find every mutation that
/// was tried on these protocols.
const PREEMPTIONS: usize = 3;

fn check(model: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(PREEMPTIONS);
    builder.check(model);
}
