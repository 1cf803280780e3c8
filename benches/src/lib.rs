//! What both programs of this package share.
//!
//! `compare` measures this crate beside its peers. `versions` measures this checkout beside an earlier revision.

pub mod children;
pub mod conditions;
pub mod statistics;
