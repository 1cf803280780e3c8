//! What a spawn by `clone3` needs of an architecture: the call with a new stack, a bare system call, and a signal
//! handler that is written in assembly. A new architecture is a file beside `x86_64.rs` and a line here.

#[cfg(target_arch = "x86_64")]
mod x86_64;
#[cfg(target_arch = "x86_64")]
pub(crate) use x86_64::{HAS_ENTRY, clone3_and_run, end_without_a_dump, system_call};

#[cfg(not(target_arch = "x86_64"))]
mod unsupported;
#[cfg(not(target_arch = "x86_64"))]
pub(crate) use unsupported::{HAS_ENTRY, clone3_and_run, end_without_a_dump, system_call};
