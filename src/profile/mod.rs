//! The heap profile: a sample of what the program allocates, with the stacks that did.

#![allow(dead_code)]

pub(crate) mod output;
mod snapshot;
