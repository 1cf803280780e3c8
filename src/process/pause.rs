//! Stops a tree for a while, and lets it go on.

use std::io;
use std::sync::Arc;

use crate::error::{Error, ErrorKind, Result};
use crate::process::freeze::FREEZES_WITHIN;
use crate::process::target::Target;
use crate::process::tree::Tree;
use crate::rt::background;
use crate::rt::timeout::within;

/// Stops all processes of a tree. Once polled, it is carried out even if the future is dropped.
pub(super) async fn pause(target: Arc<Target>) -> Result<()> {
    background::run(async move {
        let failed = |error| target.about(Error::io("could not be paused", error));
        let refused = || {
            let message = "was not paused: this program is part of what is to be paused, and could not resume it";
            target.about(Error::new(ErrorKind::Unsupported, message))
        };
        if let Some(cgroup) = target.contained.hold.cgroup() {
            if cgroup.processes().map_err(failed)?.contains(&std::process::id()) {
                return Err(refused());
            }
            cgroup.freeze().map_err(failed)?;
            let _ = within(FREEZES_WITHIN, cgroup.frozen()).await;
            return Ok(());
        }
        let mut tree = Tree::of(&target);
        tree.find().await;
        if tree.has_ourselves() {
            return Err(refused());
        }
        tree.freeze().await;
        tree.into_scan_error().map_or(Ok(()), |error| Err(failed(error)))
    })
    .await?
}

/// Lets all processes of a tree go on, also those that something else has stopped. Once polled, it is carried out even
/// if the future is dropped.
pub(super) async fn resume(target: Arc<Target>) -> Result<()> {
    background::run(async move {
        let about = Arc::clone(&target);
        resumed(target).await.map_err(|error| about.about(Error::io("could not be resumed", error)))
    })
    .await?
}

async fn resumed(target: Arc<Target>) -> io::Result<()> {
    if let Some(cgroup) = target.contained.hold.cgroup() {
        cgroup.thaw()?;
    }
    let mut tree = Tree::of(&target);
    tree.find().await;
    tree.wake();
    tree.into_scan_error().map_or(Ok(()), Err)
}
