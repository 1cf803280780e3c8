//! Commands: what they are made of, which program runs, its streams and limits, its end, and every way to fail.

#![allow(clippy::unwrap_used, reason = "a test that finds something else has failed")]

mod basics;
#[cfg(target_os = "linux")]
mod engine;
mod errors;
mod limits;
mod lookup;
mod stopping;
mod streams;
mod tree_limits;
mod usage;
