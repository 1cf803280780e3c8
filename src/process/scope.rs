//! Many commands that end together.

use std::fmt;
use std::sync::Arc;

use crate::error::Result;
use crate::process::handle::Process;
use crate::process::scope_commands;
use crate::process::scope_state::ScopeState;
use crate::process::shutdown::Shutdown;
use crate::rt::background;

/// Commands that end together: when the scope is stopped, when it is dropped, or when this program exits. The scope
/// holds them with everything that they start, also with what they left running when they ended.
///
/// A command joins with [`Command::within`](crate::Command::within). It can be run in any way, and can be stopped alone.
///
/// ```
/// use deluxe_process::{Command, Scope};
/// # futures_lite::future::block_on(async {
/// let scope = Scope::new();
/// let first = Command::new("sleep").arg("60").within(&scope).spawn().await?;
/// let second = Command::new("sleep").arg("60").within(&scope).spawn().await?;
/// assert_eq!(scope.members().await?.len(), 2);
/// scope.stop().await?;
/// assert!(!first.wait().await?.success() && !second.wait().await?.success());
/// # Ok::<(), deluxe_process::Error>(()) }).unwrap();
/// ```
///
/// That is what their [`Containment`](crate::Containment) finds. What a command has left running is found by a cgroup
/// or a mark alone.
///
/// Dropping the scope stops its commands in the background, as [`shutdown`](Scope::shutdown) says. The exit of this
/// program kills them. For an end of this program without its exit, such as SIGKILL, see
/// [`Command::guarded`](crate::Command::guarded).
#[must_use = "its commands are stopped when it is dropped"]
pub struct Scope {
    state: Arc<ScopeState>,
    shutdown: Shutdown,
}

impl Default for Scope {
    fn default() -> Scope {
        Scope::new()
    }
}

impl Scope {
    /// A scope without commands.
    pub fn new() -> Scope {
        Scope { state: Arc::new(ScopeState::new()), shutdown: Shutdown::new() }
    }

    /// Sets how the commands are stopped. Otherwise they get SIGTERM, and SIGKILL five seconds later.
    pub fn shutdown(mut self, shutdown: Shutdown) -> Scope {
        self.shutdown = shutdown;
        self
    }

    pub(crate) fn state(&self) -> &Arc<ScopeState> {
        &self.state
    }

    /// The processes of all commands that run now, and the processes that these have started.
    ///
    /// # Errors
    ///
    /// As [`Child::members`](crate::Child::members).
    ///
    /// # Cancel safety
    ///
    /// Dropping the future changes nothing for the commands.
    pub async fn members(&self) -> Result<Vec<Process>> {
        let (targets, handles) = background::run(scope_commands::members(Arc::clone(&self.state))).await??;
        let commands = targets.into_iter().map(Process);
        Ok(commands.chain(handles.into_iter().map(Process::new)).collect())
    }

    /// Stops all commands at once, with everything that they have started. The future is ready when all of it has ended.
    /// From its first poll on, no command starts in the scope.
    ///
    /// # Errors
    ///
    /// As [`Process::stop`]: that of the first command that could not be stopped for sure. The others are stopped all the
    /// same.
    ///
    /// # Cancel safety
    ///
    /// Once polled, the stop is carried out even if the future is dropped. Dropping it before that drops the scope.
    pub async fn stop(self) -> Result<()> {
        self.state.close();
        background::run(scope_commands::stop_all(Arc::clone(&self.state), self.shutdown)).await?
    }
}

impl Drop for Scope {
    fn drop(&mut self) {
        self.state.close();
        let (state, shutdown) = (Arc::clone(&self.state), self.shutdown);
        background::spawn_detached(async move { drop(scope_commands::stop_all(state, shutdown).await) });
    }
}

impl fmt::Debug for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scope").finish_non_exhaustive()
    }
}
