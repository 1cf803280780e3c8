//! What all Unix systems share. Names nothing of the systems' own folders.

pub(crate) mod accounts;
pub(crate) mod async_io;
#[cfg(any(not(target_os = "linux"), deluxe_process_force_portable))]
pub(crate) mod async_io_pipe;
#[cfg(any(not(target_os = "linux"), deluxe_process_force_portable))]
pub(crate) mod async_io_timer;
pub(crate) mod async_process;
pub(crate) mod c_strings;
pub(crate) mod credentials;
pub(crate) mod descriptors;
#[cfg(all(feature = "daemon", target_os = "linux"))]
pub(crate) mod dir_fd;
pub(crate) mod dispositions;
pub(crate) mod errno;
pub(crate) mod exec_retry;
pub(crate) mod executable;
#[cfg(all(feature = "daemon", target_os = "linux"))]
pub(crate) mod exit_status;
pub(crate) mod fork_detection;
pub(crate) mod ids;
pub(crate) mod os_bytes;
pub(crate) mod pipes;
pub(crate) mod random_state;
pub(crate) mod readiness;
pub(crate) mod rlimit;
pub(crate) mod signal_mask;
pub(crate) mod signal_numbers;
pub(crate) mod signal_origin;
pub(crate) mod signal_receiver;
pub(crate) mod sigpipe;
#[cfg(any(not(target_os = "linux"), deluxe_process_force_portable))]
pub(crate) mod stable_waker;
pub(crate) mod threads;
