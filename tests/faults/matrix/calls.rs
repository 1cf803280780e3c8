//! The errors that a system call is made to fail with: those of its man page, without those that would state something false.

use libc::*;

/// A system call.
pub(crate) struct Call {
    pub(crate) number: c_long,
    pub(crate) name: &'static str,
    pub(crate) errors: &'static [i32],
    /// What distinguishes calls of this name.
    pub(crate) shown: Shown,
}

/// What identifies a call, beside its name.
#[derive(Clone, Copy)]
pub(crate) enum Shown {
    Nothing,
    /// The number of this argument: an operation, an option.
    Number(usize),
    /// The path that this argument points to.
    Path(usize),
    /// The kind of the descriptor in this argument.
    Descriptor(usize),
    /// Whether a thread or a process is made. The flags are in the argument itself, or in the structure that it points to.
    Flags {
        is_pointer: bool,
    },
}

use Shown::{Descriptor, Flags, Nothing, Number, Path};

/// The errors of a look-up of a path (path_resolution(7)).
macro_rules! path_errors {
    ($($more:expr),*) => {
        &[EACCES, EIO, ELOOP, ENAMETOOLONG, ENOENT, ENOMEM, ENOTDIR $(, $more)*]
    };
}

macro_rules! calls {
    ($($number:ident $name:literal $shown:expr => $errors:expr;)+) => {
        &[$(Call { number: $number, name: $name, errors: $errors, shown: $shown }),+]
    };
}

/// EFAULT is left out everywhere: in safe code there is no such pointer.
#[rustfmt::skip]
pub(crate) const CALLS: &[Call] = calls! {
    SYS_accept4 "accept4" Nothing => &[EAGAIN, EBADF, ECONNABORTED, EINTR, EINVAL, EMFILE, ENFILE, ENOBUFS, ENOMEM, ENOTSOCK, EOPNOTSUPP, EPERM, EPROTO];
    SYS_bind "bind" Nothing => &[EACCES, EADDRINUSE, EBADF, EINVAL, ENOTSOCK];
    SYS_capget "capget" Nothing => &[EINVAL, EPERM, ESRCH];
    SYS_capset "capset" Nothing => &[EINVAL, EPERM, ESRCH];
    SYS_chdir "chdir" Path(0) => path_errors!();
    SYS_clone "clone" Flags { is_pointer: false } => &[EAGAIN, EINVAL, ENOMEM, ENOSPC, EPERM, EUSERS];
    SYS_clone3 "clone3" Flags { is_pointer: true } => &[EACCES, EAGAIN, EBUSY, EINVAL, ENOMEM, ENOSPC, ENOSYS, EOPNOTSUPP, EPERM, EUSERS];
    SYS_close_range "close_range" Nothing => &[EINVAL, EMFILE, ENOMEM, ENOSYS];
    SYS_connect "connect" Nothing => &[EACCES, EAGAIN, EBADF, ECONNREFUSED, EINTR, ENOENT, ENOTSOCK, EPERM, EPROTOTYPE];
    SYS_dup "dup" Descriptor(0) => &[EBADF, EMFILE];
    SYS_dup3 "dup3" Number(1) => &[EBADF, EBUSY, EINTR, EINVAL, EMFILE];
    SYS_epoll_create1 "epoll_create1" Nothing => &[EINVAL, EMFILE, ENFILE, ENOMEM];
    SYS_epoll_ctl "epoll_ctl" Number(1) => &[EBADF, EEXIST, EINVAL, ELOOP, ENOENT, ENOMEM, ENOSPC, EPERM];
    SYS_epoll_pwait "epoll_pwait" Nothing => &[EBADF, EINTR, EINVAL];
    SYS_epoll_pwait2 "epoll_pwait2" Nothing => &[EBADF, EINTR, EINVAL, ENOSYS];
    SYS_eventfd2 "eventfd2" Nothing => &[EINVAL, EMFILE, ENFILE, ENODEV, ENOMEM];
    SYS_execve "execve" Path(0) => path_errors!(E2BIG, EAGAIN, EINVAL, EISDIR, ELIBBAD, EMFILE, ENFILE, ENOEXEC, EPERM, ETXTBSY);
    SYS_execveat "execveat" Path(1) => path_errors!(E2BIG, EAGAIN, EBADF, EINVAL, EISDIR, ELIBBAD, EMFILE, ENFILE, ENOEXEC, EPERM, ETXTBSY);
    SYS_faccessat "faccessat" Path(1) => path_errors!(EBADF, EINVAL, EPERM, EROFS, ETXTBSY);
    SYS_faccessat2 "faccessat2" Path(1) => path_errors!(EBADF, EINVAL, ENOSYS, EPERM, EROFS, ETXTBSY);
    SYS_fchdir "fchdir" Nothing => path_errors!(EBADF);
    SYS_fchmod "fchmod" Nothing => &[EBADF, EIO, EPERM, EROFS];
    SYS_fchmodat "fchmodat" Path(1) => path_errors!(EBADF, EPERM, EROFS);
    SYS_fchown "fchown" Nothing => &[EBADF, EIO, EPERM, EROFS];
    SYS_fchownat "fchownat" Path(1) => path_errors!(EBADF, EPERM, EROFS);
    SYS_fcntl "fcntl" Number(1) => &[EACCES, EAGAIN, EBADF, EBUSY, EDEADLK, EINTR, EINVAL, EMFILE, ENOLCK, EPERM];
    SYS_fdatasync "fdatasync" Nothing => &[EBADF, EDQUOT, EINTR, EINVAL, EIO, ENOSPC, EROFS];
    SYS_flock "flock" Nothing => &[EBADF, EINTR, EINVAL, ENOLCK, EWOULDBLOCK];
    SYS_fstat "fstat" Descriptor(0) => &[EBADF, ENOMEM, EOVERFLOW];
    SYS_fstatfs "fstatfs" Descriptor(0) => &[EBADF, EINTR, EIO, ENOMEM, ENOSYS, EOVERFLOW];
    SYS_fsync "fsync" Nothing => &[EBADF, EDQUOT, EINTR, EINVAL, EIO, ENOSPC, EROFS];
    SYS_ftruncate "ftruncate" Nothing => &[EBADF, EFBIG, EINTR, EINVAL, EIO, EPERM, EROFS, ETXTBSY];
    SYS_getcwd "getcwd" Nothing => &[EACCES, EINVAL, ENOENT, ENOMEM, ERANGE];
    SYS_getdents64 "getdents64" Descriptor(0) => &[EBADF, EINVAL, ENOENT, ENOTDIR];
    SYS_getgroups "getgroups" Nothing => &[EINVAL];
    SYS_getpeername "getpeername" Nothing => &[EBADF, EINVAL, ENOBUFS, ENOTCONN, ENOTSOCK];
    SYS_getpgid "getpgid" Nothing => &[ESRCH];
    SYS_getpriority "getpriority" Nothing => &[EINVAL, ESRCH];
    SYS_getxattr "getxattr" Path(0) => path_errors!(ENODATA, ENOTSUP, ERANGE);
    SYS_getsid "getsid" Nothing => &[EPERM, ESRCH];
    SYS_getsockname "getsockname" Nothing => &[EBADF, EINVAL, ENOBUFS, ENOTSOCK];
    SYS_getsockopt "getsockopt" Number(2) => &[EBADF, EINVAL, ENOPROTOOPT, ENOTSOCK];
    SYS_inotify_add_watch "inotify_add_watch" Path(1) => path_errors!(EBADF, EEXIST, EINVAL, ENOSPC);
    SYS_inotify_init1 "inotify_init1" Nothing => &[EINVAL, EMFILE, ENFILE, ENOMEM];
    SYS_inotify_rm_watch "inotify_rm_watch" Nothing => &[EBADF, EINVAL];
    SYS_ioctl "ioctl" Number(1) => &[EBADF, EINVAL, ENOTTY];
    SYS_ioprio_set "ioprio_set" Nothing => &[EINVAL, EPERM, ESRCH];
    SYS_kcmp "kcmp" Number(2) => &[EBADF, EINVAL, ENOSYS, EPERM, ESRCH];
    SYS_keyctl "keyctl" Number(0) => &[EACCES, EDQUOT, EINVAL, EKEYEXPIRED, EKEYREJECTED, EKEYREVOKED, ENFILE, ENOKEY, ENOMEM, ENOSYS, EOPNOTSUPP, EPERM];
    SYS_kill "kill" Number(1) => &[EINVAL, EPERM, ESRCH];
    SYS_linkat "linkat" Path(1) => path_errors!(EBADF, EDQUOT, EEXIST, EINVAL, EMLINK, ENOSPC, EPERM, EROFS, EXDEV);
    SYS_lseek "lseek" Descriptor(0) => &[EBADF, EINVAL, ENXIO, EOVERFLOW, ESPIPE];
    SYS_memfd_create "memfd_create" Nothing => &[EINVAL, EMFILE, ENFILE, ENOMEM, EPERM];
    SYS_mkdirat "mkdirat" Path(1) => path_errors!(EBADF, EDQUOT, EEXIST, EINVAL, EMLINK, ENOSPC, EPERM, EROFS);
    // Only for the stack of a thread; see `filter::supervise`.
    SYS_mmap "mmap" Nothing => &[EAGAIN, ENOMEM, EPERM];
    SYS_newfstatat "newfstatat" Path(1) => path_errors!(EBADF, EINVAL, EOVERFLOW);
    SYS_openat "openat" Path(1) => path_errors!(EAGAIN, EBADF, EBUSY, EDQUOT, EEXIST, EFBIG, EINTR, EINVAL, EISDIR, EMFILE, ENFILE, ENODEV, ENOSPC, ENXIO, EOPNOTSUPP, EOVERFLOW, EPERM, EROFS, ETXTBSY);
    SYS_openat2 "openat2" Path(1) => path_errors!(E2BIG, EAGAIN, EBADF, EBUSY, EDQUOT, EEXIST, EFBIG, EINTR, EINVAL, EISDIR, EMFILE, ENFILE, ENODEV, ENOSPC, ENOSYS, ENXIO, EOPNOTSUPP, EOVERFLOW, EPERM, EROFS, ETXTBSY, EXDEV);
    SYS_pidfd_open "pidfd_open" Nothing => &[EINVAL, EMFILE, ENFILE, ENODEV, ENOMEM, ENOSYS, EPERM, ESRCH];
    SYS_pidfd_send_signal "pidfd_send_signal" Number(1) => &[EBADF, EINVAL, ENOSYS, EPERM, ESRCH];
    SYS_pipe2 "pipe2" Nothing => &[EINVAL, EMFILE, ENFILE];
    SYS_ppoll "ppoll" Nothing => &[EINTR, EINVAL, ENOMEM];
    SYS_prctl "prctl" Number(0) => &[EACCES, EBADF, EBUSY, EINVAL, ENODEV, ENXIO, EOPNOTSUPP, EPERM];
    SYS_pread64 "pread64" Descriptor(0) => &[EAGAIN, EBADF, EINTR, EINVAL, EIO, EISDIR, ENXIO, EOVERFLOW, ESPIPE];
    SYS_prlimit64 "prlimit64" Number(1) => &[EINVAL, EPERM, ESRCH];
    SYS_pwrite64 "pwrite64" Descriptor(0) => &[EAGAIN, EBADF, EDQUOT, EFBIG, EINTR, EINVAL, EIO, ENOSPC, ENXIO, EOVERFLOW, EPERM, EPIPE, ESPIPE];
    SYS_read "read" Descriptor(0) => &[EAGAIN, EBADF, EINTR, EINVAL, EIO, EISDIR];
    SYS_readlinkat "readlinkat" Path(1) => path_errors!(EBADF, EINVAL);
    SYS_recvfrom "recvfrom" Descriptor(0) => &[EAGAIN, EBADF, ECONNREFUSED, EINTR, EINVAL, ENOMEM, ENOTCONN, ENOTSOCK];
    SYS_recvmsg "recvmsg" Descriptor(0) => &[EAGAIN, EBADF, ECONNREFUSED, EINTR, EINVAL, ENOMEM, ENOTCONN, ENOTSOCK];
    SYS_renameat2 "renameat2" Path(1) => path_errors!(EBADF, EBUSY, EDQUOT, EEXIST, EINVAL, EISDIR, EMLINK, ENOSPC, ENOSYS, ENOTEMPTY, EPERM, EROFS, EXDEV);
    SYS_rt_sigaction "rt_sigaction" Nothing => &[EINVAL];
    SYS_rt_sigprocmask "rt_sigprocmask" Number(0) => &[EINVAL];
    SYS_sched_getaffinity "sched_getaffinity" Nothing => &[EINVAL, EPERM, ESRCH];
    SYS_sched_getscheduler "sched_getscheduler" Nothing => &[EINVAL, EPERM, ESRCH];
    SYS_sched_setattr "sched_setattr" Nothing => &[E2BIG, EBUSY, EINVAL, EPERM, ESRCH];
    SYS_sched_setscheduler "sched_setscheduler" Nothing => &[EINVAL, EPERM, ESRCH];
    SYS_sendmsg "sendmsg" Descriptor(0) => &[EACCES, EAGAIN, EALREADY, EBADF, ECONNRESET, EDESTADDRREQ, EINTR, EINVAL, EISCONN, EMSGSIZE, ENOBUFS, ENOMEM, ENOTCONN, ENOTSOCK, EOPNOTSUPP, EPIPE, ETOOMANYREFS];
    SYS_sendto "sendto" Descriptor(0) => &[EACCES, EAGAIN, EALREADY, EBADF, ECONNRESET, EDESTADDRREQ, EINTR, EINVAL, EISCONN, EMSGSIZE, ENOBUFS, ENOMEM, ENOTCONN, ENOTSOCK, EOPNOTSUPP, EPIPE];
    SYS_setgroups "setgroups" Nothing => &[EINVAL, ENOMEM, EPERM];
    SYS_setpgid "setpgid" Nothing => &[EACCES, EINVAL, EPERM, ESRCH];
    SYS_setpriority "setpriority" Nothing => &[EACCES, EINVAL, EPERM, ESRCH];
    SYS_setresgid "setresgid" Nothing => &[EAGAIN, EINVAL, EPERM];
    SYS_setresuid "setresuid" Nothing => &[EAGAIN, EINVAL, EPERM];
    SYS_setsid "setsid" Nothing => &[EPERM];
    SYS_setsockopt "setsockopt" Number(2) => &[EBADF, EDOM, EINVAL, EISCONN, ENOMEM, ENOPROTOOPT, ENOTSOCK, EPERM];
    SYS_shutdown "shutdown" Nothing => &[EBADF, EINVAL, ENOTCONN, ENOTSOCK];
    SYS_socket "socket" Nothing => &[EACCES, EAFNOSUPPORT, EINVAL, EMFILE, ENFILE, ENOBUFS, ENOMEM, EPROTONOSUPPORT];
    SYS_socketpair "socketpair" Nothing => &[EAFNOSUPPORT, EMFILE, ENFILE, EOPNOTSUPP, EPROTONOSUPPORT];
    SYS_splice "splice" Nothing => &[EAGAIN, EBADF, EINVAL, ENOMEM, ESPIPE];
    SYS_statx "statx" Path(1) => path_errors!(EBADF, EINVAL, ENOSYS, EPERM);
    SYS_symlinkat "symlinkat" Path(2) => path_errors!(EBADF, EDQUOT, EEXIST, ENOSPC, EPERM, EROFS);
    SYS_tee "tee" Nothing => &[EAGAIN, EINVAL, ENOMEM];
    SYS_tgkill "tgkill" Number(2) => &[EAGAIN, EINVAL, EPERM, ESRCH];
    SYS_timerfd_create "timerfd_create" Nothing => &[EINVAL, EMFILE, ENFILE, ENODEV, ENOMEM, EPERM];
    SYS_timerfd_settime "timerfd_settime" Nothing => &[EBADF, ECANCELED, EINVAL];
    SYS_unlinkat "unlinkat" Path(1) => path_errors!(EBADF, EBUSY, EINVAL, EISDIR, ENOTEMPTY, EPERM, EROFS);
    SYS_wait4 "wait4" Nothing => &[ECHILD, EINTR, EINVAL, ESRCH];
    SYS_waitid "waitid" Number(0) => &[EAGAIN, EBADF, ECHILD, EINTR, EINVAL, ESRCH];
    SYS_write "write" Descriptor(0) => &[EAGAIN, EBADF, EDESTADDRREQ, EDQUOT, EFBIG, EINTR, EINVAL, EIO, ENOSPC, EPERM, EPIPE];
    SYS_writev "writev" Descriptor(0) => &[EAGAIN, EBADF, EDESTADDRREQ, EDQUOT, EFBIG, EINTR, EINVAL, EIO, ENOSPC, EPERM, EPIPE];
    // Their man pages list no error, but the process can die at the call.
    SYS_exit_group "exit_group" Nothing => &[];
    SYS_getegid "getegid" Nothing => &[];
    SYS_geteuid "geteuid" Nothing => &[];
    SYS_getgid "getgid" Nothing => &[];
    SYS_getpid "getpid" Nothing => &[];
    SYS_getppid "getppid" Nothing => &[];
    SYS_getresgid "getresgid" Nothing => &[];
    SYS_getresuid "getresuid" Nothing => &[];
    SYS_gettid "gettid" Nothing => &[];
    SYS_getuid "getuid" Nothing => &[];
    SYS_sysinfo "sysinfo" Nothing => &[];
    SYS_umask "umask" Nothing => &[];
    SYS_uname "uname" Nothing => &[];
    // Linux closes the descriptor whatever it answers, which the harness can't do in another process's place.
    SYS_close "close" Descriptor(0) => &[];
};

/// Older system calls, which not every architecture has.
#[cfg(target_arch = "x86_64")]
#[rustfmt::skip]
pub(crate) const OLD_CALLS: &[Call] = calls! {
    SYS_access "access" Path(0) => path_errors!(EINVAL, EPERM, EROFS, ETXTBSY);
    SYS_chmod "chmod" Path(0) => path_errors!(EPERM, EROFS);
    SYS_dup2 "dup2" Number(1) => &[EBADF, EBUSY, EINTR, EMFILE];
    SYS_epoll_wait "epoll_wait" Nothing => &[EBADF, EINTR, EINVAL];
    SYS_fork "fork" Nothing => &[EAGAIN, ENOMEM, ENOSYS];
    SYS_mkdir "mkdir" Path(0) => path_errors!(EDQUOT, EEXIST, EINVAL, EMLINK, ENOSPC, EPERM, EROFS);
    SYS_open "open" Path(0) => path_errors!(EAGAIN, EINTR, EINVAL, EMFILE, ENFILE, ENXIO, EOVERFLOW, EPERM);
    SYS_poll "poll" Nothing => &[EINTR, EINVAL, ENOMEM];
    SYS_readlink "readlink" Path(0) => path_errors!(EINVAL);
    SYS_rename "rename" Path(0) => path_errors!(EBUSY, EDQUOT, EEXIST, EINVAL, EISDIR, EMLINK, ENOSPC, EPERM, EROFS, EXDEV);
    SYS_renameat "renameat" Path(1) => path_errors!(EBADF, EBUSY, EDQUOT, EEXIST, EINVAL, EISDIR, EMLINK, ENOSPC, EPERM, EROFS, EXDEV);
    SYS_stat "stat" Path(0) => path_errors!(EOVERFLOW);
    SYS_unlink "unlink" Path(0) => path_errors!(EBUSY, EISDIR, EPERM, EROFS);
    SYS_vfork "vfork" Nothing => &[EAGAIN, ENOMEM, ENOSYS];
    SYS_getpgrp "getpgrp" Nothing => &[];
};
#[cfg(not(target_arch = "x86_64"))]
pub(crate) const OLD_CALLS: &[Call] = &[];

pub(crate) fn of_number(number: c_long) -> Option<&'static Call> {
    CALLS.iter().chain(OLD_CALLS).find(|call| call.number == number)
}

/// The supervisor is not asked about these: memory and locks, in which an allocator and the standard library abort by
/// design, the C library's own at the start of a thread or a process, and the end of one thread.
pub(crate) const PASSING: &[c_long] = &[
    #[cfg(target_arch = "x86_64")]
    SYS_arch_prctl,
    SYS_brk,
    SYS_clock_gettime,
    SYS_clock_nanosleep,
    SYS_exit,
    SYS_futex,
    SYS_getrandom,
    SYS_madvise,
    SYS_mprotect,
    SYS_mremap,
    SYS_munmap,
    SYS_nanosleep,
    SYS_restart_syscall,
    SYS_rseq,
    SYS_rt_sigreturn,
    SYS_sched_yield,
    SYS_set_robust_list,
    SYS_set_tid_address,
    SYS_sigaltstack,
];

/// All errors of a call.
pub(crate) const ANY: i32 = 0;

/// Errors that state a fact which the harness can't make true, so that what comes of them says nothing; by how the call is
/// shown.
pub(crate) const UNTRUE: &[(&str, i32, &str)] = &[
    ("sendto(socket:", EAGAIN, "the socket on which a handler of signals wakes its listeners is not full"),
    ("open(DIR/run)", ENOENT, "the daemon's directory is there, and a lock in it"),
    ("openat(steady.lock)", ENOENT, "the daemon's lock file is there, and held"),
    ("rt_sigprocmask(", EINVAL, "how and with what is a constant, and libnss_systemd aborts"),
    ("write(pipe:", EPIPE, "the child reads it"),
    ("prctl(15)", ANY, "a thread gets its name (PR_SET_NAME), which can't fail"),
    ("fcntl(1)", EBADF, "the standard library's own check of a descriptor at its end (F_GETFD), which aborts"),
    ("waitid(", ECHILD, "there is such a child, and somebody has to reap it"),
    ("wait4(", ECHILD, "there is such a child, and somebody has to reap it"),
    ("waitid(", ESRCH, "the process is there"),
    ("wait4(", ESRCH, "the process is there"),
    ("kill(", ESRCH, "the process is there, and goes on"),
    ("tgkill(", ESRCH, "the process is there, and goes on"),
    ("pidfd_send_signal(", ESRCH, "the process is there, and goes on"),
    ("kcmp(", ESRCH, "the process is there"),
    ("pidfd_open(", ESRCH, "the process is there"),
];

/// The names of errors, for the names of cases.
#[rustfmt::skip]
const ERRORS: &[(&str, i32)] = &[
    ("E2BIG", E2BIG), ("EACCES", EACCES), ("EADDRINUSE", EADDRINUSE), ("EAFNOSUPPORT", EAFNOSUPPORT), ("EAGAIN", EAGAIN),
    ("EALREADY", EALREADY), ("EBADF", EBADF), ("EBUSY", EBUSY), ("ECANCELED", ECANCELED), ("ECHILD", ECHILD),
    ("ECONNABORTED", ECONNABORTED), ("ECONNREFUSED", ECONNREFUSED), ("ECONNRESET", ECONNRESET), ("EDEADLK", EDEADLK),
    ("EDESTADDRREQ", EDESTADDRREQ), ("EDOM", EDOM), ("EDQUOT", EDQUOT), ("EEXIST", EEXIST), ("EFBIG", EFBIG),
    ("EINTR", EINTR), ("EINVAL", EINVAL), ("EIO", EIO), ("EISCONN", EISCONN), ("EISDIR", EISDIR),
    ("EKEYEXPIRED", EKEYEXPIRED), ("EKEYREJECTED", EKEYREJECTED), ("EKEYREVOKED", EKEYREVOKED), ("ELIBBAD", ELIBBAD),
    ("ELOOP", ELOOP), ("EMFILE", EMFILE), ("EMLINK", EMLINK), ("EMSGSIZE", EMSGSIZE), ("ENAMETOOLONG", ENAMETOOLONG),
    ("ENFILE", ENFILE), ("ENOBUFS", ENOBUFS), ("ENODATA", ENODATA), ("ENODEV", ENODEV), ("ENOENT", ENOENT),
    ("ENOEXEC", ENOEXEC),
    ("ENOKEY", ENOKEY), ("ENOLCK", ENOLCK), ("ENOMEM", ENOMEM), ("ENOPROTOOPT", ENOPROTOOPT), ("ENOSPC", ENOSPC),
    ("ENOSYS", ENOSYS), ("ENOTCONN", ENOTCONN), ("ENOTDIR", ENOTDIR), ("ENOTEMPTY", ENOTEMPTY), ("ENOTSOCK", ENOTSOCK),
    ("ENOTTY", ENOTTY), ("ENXIO", ENXIO), ("EOPNOTSUPP", EOPNOTSUPP), ("EOVERFLOW", EOVERFLOW), ("EPERM", EPERM),
    ("EPIPE", EPIPE), ("EPROTO", EPROTO), ("EPROTONOSUPPORT", EPROTONOSUPPORT), ("EPROTOTYPE", EPROTOTYPE),
    ("ERANGE", ERANGE), ("EROFS", EROFS), ("ESPIPE", ESPIPE), ("ESRCH", ESRCH), ("ETOOMANYREFS", ETOOMANYREFS),
    ("ETXTBSY", ETXTBSY), ("EUSERS", EUSERS), ("EXDEV", EXDEV),
];

pub(crate) fn error_name(errno: i32) -> &'static str {
    ERRORS.iter().find(|(_, number)| *number == errno).expect("every error of the table has a name").0
}
