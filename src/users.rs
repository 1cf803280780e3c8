//! The accounts of this system, and which of them belong to people.
//!
//! Each call asks the system's account database, off-thread, because a directory server can be slow. Nothing is cached.

mod account;
pub(crate) mod credentials;
mod login_defs;

pub use account::{User, real_users};
