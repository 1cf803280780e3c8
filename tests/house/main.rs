//! What holds for the whole repository: layers, documents, the API's auto traits, and the output of the examples.

#![allow(clippy::unwrap_used, reason = "all of this is a test")]

// The list of the API, with which the auto traits are compared, is that of all features on Linux.
#[cfg(all(feature = "daemon", target_os = "linux"))]
mod auto_traits;
#[cfg(feature = "daemon")]
mod daemon_example;
mod documents;
mod examples;
mod layers;
