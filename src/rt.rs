//! Runs the crate's own work beside the caller's tasks: two threads, and a bounded pool for work that may block.

pub(crate) mod background;
pub(crate) mod blocking_pool;
pub(crate) mod lock;
pub(crate) mod timeout;
