//! Ways to run a command through another program, as another user, or both.
//!
//! [`Command::user`](crate::Command::user) chooses between the two ways to another user;
//! [`Command::via`](crate::Command::via) takes one of them.

mod native_user;
mod sudo;
mod sudo_messages;
mod user;

pub use crate::command::launcher::Launcher;
pub use native_user::NativeUser;
pub use sudo::Sudo;
pub(super) use user::OtherUser;
