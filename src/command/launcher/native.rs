//! Another user without help: this program is root, and the child becomes somebody else before it executes the program.

use crate::command::launcher::Rewritten;
use crate::command::{Command, launch};
use crate::error::Result;
use crate::users::User;

pub(super) fn rewrite(command: &Command, user: User) -> Result<Rewritten> {
    let becoming = user.become_here("")?;
    let changes = &command.environment.changes;
    let changes = changes.iter().map(|(key, value)| (key.clone(), value.as_ref().map(|value| value.value.clone())));
    let environment = becoming.environment(changes);
    let path = environment.iter().find(|(key, _)| key == "PATH").map(|(_, path)| path.clone());
    Ok(Rewritten {
        program: launch::program(command, path)?,
        argv: launch::argv(command),
        environment,
        identity: Some(becoming.identity),
        switch: None,
    })
}
