//! The rooms: what is missing in each, how the script gets into it, and what does not work there.

use std::path::Path;
use std::process::{Command, Stdio};

use crate::filter;

pub(crate) struct Room {
    pub(crate) name: String,
    enter: Enter,
    /// Operations that don't work there, and a part of their error.
    pub(crate) differs: Vec<(&'static str, &'static str)>,
}

enum Enter {
    /// By a shell in a new mount namespace, which takes something away first; `$1` is the directory of the script.
    Mounts(&'static str),
    /// Through another program.
    Through(&'static [&'static str]),
    /// By a filter that refuses one call with this error.
    Refuses(libc::c_long, i32),
}

/// What differs with a filter: the call, the error (0: any), the operation, and the outcome.
/// The outcome if no daemon could be started.
const NOT_STARTED: &str = "wrong: Stopped";

type Refused = (&'static str, i32, &'static str, &'static str);

const CALLS: &[(&str, libc::c_long)] = &[
    ("clone3", libc::SYS_clone3),
    ("close_range", libc::SYS_close_range),
    ("faccessat2", libc::SYS_faccessat2),
    ("keyctl", libc::SYS_keyctl),
    ("openat2", libc::SYS_openat2),
    ("pidfd_open", libc::SYS_pidfd_open),
    ("pidfd_send_signal", libc::SYS_pidfd_send_signal),
    ("renameat2", libc::SYS_renameat2),
    ("statx", libc::SYS_statx),
    ("waitid", libc::SYS_waitid),
];

#[rustfmt::skip]
const REFUSED: &[Refused] = &[
    // The C library starts a thread without clone3 where that is missing, but not where it is forbidden.
    ("clone3", libc::EPERM, "read", NO_THREAD),
    ("clone3", libc::EPERM, "output", NO_THREAD),
    ("clone3", libc::EPERM, "spawn", NO_THREAD),
    ("clone3", libc::EPERM, "timeout", NO_THREAD),
    ("clone3", libc::EPERM, "stop", NO_THREAD),
    ("clone3", libc::EPERM, "daemon-start", NO_THREAD),
    ("clone3", libc::EPERM, "daemon-state", NO_THREAD),
    ("clone3", libc::EPERM, "daemon-stop", NO_THREAD),
    // Without handles to processes that are not our children, trees can't be stopped.
    ("pidfd_open", 0, "timeout", UNSEEN),
    ("pidfd_send_signal", 0, "timeout", UNSEEN),
    ("waitid", 0, "timeout", UNSEEN),
    // Daemons are held by pidfds.
    ("pidfd_open", 0, "daemon-start", NO_PIDFDS),
    ("pidfd_open", 0, "daemon-state", NOT_STARTED),
    ("pidfd_open", 0, "daemon-stop", NOT_STARTED),
    ("pidfd_send_signal", 0, "daemon-start", NO_PIDFDS),
    ("pidfd_send_signal", 0, "daemon-state", NOT_STARTED),
    ("pidfd_send_signal", 0, "daemon-stop", NOT_STARTED),
    ("waitid", 0, "daemon-start", NO_PIDFDS),
    ("waitid", 0, "daemon-state", NOT_STARTED),
    ("waitid", 0, "daemon-stop", NOT_STARTED),
];

/// What an error says if processes could not be looked for.
const UNSEEN: &str = "may still run";

const NO_PIDFDS: &str = "daemons need pidfds";

const NO_THREAD: &str = "could not start a ";

const NO_FILE: &str = "No such file or directory";

/// Failures that are known: the start of the name of the room, the start of the failure, and the reason. The list should
/// become empty.
const KNOWN: &[(&str, &str, &str)] =
    &[("of_another_pid_namespace", "daemon-stop has left", "process 1 does not reap what others have killed")];

/// Why a failure in this room is not counted.
pub(crate) fn excuse(room: &str, failure: &str) -> Option<&'static str> {
    let fits = |known: &&(&str, &str, &str)| room.starts_with(known.0) && failure.starts_with(known.1);
    KNOWN.iter().find(fits).map(|known| known.2)
}

pub(crate) fn all() -> Vec<Room> {
    let room = |name: &str, enter, differs: &[(&'static str, &'static str)]| Room {
        name: name.to_owned(),
        enter,
        differs: differs.to_vec(),
    };
    let mut rooms = vec![
        room(
            "without_proc",
            Enter::Mounts("umount -l /proc"),
            &[
                ("timeout", UNSEEN),
                ("stop", UNSEEN),
                ("daemon-start", "could not read `/proc/"),
                ("daemon-state", NOT_STARTED),
                ("daemon-stop", NOT_STARTED),
            ],
        ),
        // A command that has no input can't be started, and no daemon can.
        room(
            "without_dev_null",
            Enter::Mounts("mount -t tmpfs none /dev"),
            &[
                ("output", NO_FILE),
                ("timeout", NO_FILE),
                ("daemon-start", NO_FILE),
                ("daemon-state", NOT_STARTED),
                ("daemon-stop", NOT_STARTED),
            ],
        ),
        room(
            "programs_on_a_noexec_mount",
            Enter::Mounts(
                "mkdir $1/bin; mount -t tmpfs -o noexec none $1/bin; cp $(which sh cat sleep) $1/bin; export PATH=$1/bin",
            ),
            &[
                ("read", "NotExecutable"),
                ("output", "NotExecutable"),
                ("spawn", "NotExecutable"),
                ("timeout", "NotExecutable"),
                ("stop", "NotExecutable"),
            ],
        ),
        room(
            "a_full_disk",
            Enter::Mounts(
                "mount -t tmpfs -o size=16k none $1; mkdir -m 755 $1/run; cat /dev/zero >$1/full 2>$1/said || true",
            ),
            &[("daemon-start", "No space left on device"), ("daemon-state", NOT_STARTED), ("daemon-stop", NOT_STARTED)],
        ),
        // As process 1 of it, and with the /proc of the one outside.
        room(
            "of_another_pid_namespace",
            Enter::Through(&["unshare", "--pid", "--fork"]),
            &[("timeout", UNSEEN), ("stop", UNSEEN), ("daemon-state", "another PID namespace")],
        ),
        room(
            "as_a_user_without_an_account",
            Enter::Through(&["setpriv", "--reuid=54322", "--regid=54322", "--clear-groups", "env", "-u", "HOME"]),
            &[],
        ),
        room("without_capabilities", Enter::Through(&["capsh", "--drop=all", "--", "-c", "exec \"$@\"", "capsh"]), &[]),
    ];
    for (call, number) in CALLS {
        for (error, errno) in [("ENOSYS", libc::ENOSYS), ("EPERM", libc::EPERM)] {
            let is_of_it = |refused: &&Refused| refused.0 == *call && (refused.1 == errno || refused.1 == 0);
            let differs: Vec<_> = REFUSED.iter().filter(is_of_it).map(|refused| (refused.2, refused.3)).collect();
            rooms.push(room(&format!("{call}_gives_{error}"), Enter::Refuses(*number, errno), &differs));
        }
    }
    rooms
}

pub(crate) fn named(name: &str) -> Room {
    all().into_iter().find(|room| room.name == name).expect("a known room")
}

impl Room {
    /// This program in the room, with the script.
    pub(crate) fn command(&self, directory: &Path) -> Command {
        let own = std::env::current_exe().unwrap();
        let mut command = match self.enter {
            Enter::Mounts(take_away) => {
                let mut command = Command::new("unshare");
                let script = format!("{take_away}; shift; exec \"$@\"");
                command.args(["--mount", "sh", "-euc", &script, "room"]).arg(directory).arg(own);
                command
            }
            Enter::Through([program, args @ ..]) => {
                let mut command = Command::new(program);
                command.args(args).arg(own);
                command
            }
            Enter::Through([]) | Enter::Refuses(..) => Command::new(own),
        };
        command.args(["--script", &self.name]).arg(directory).current_dir("/");
        command
    }

    /// To be called in the room. What it starts is refused the call as well.
    pub(crate) fn refuse_calls(&self) {
        if let Enter::Refuses(call, errno) = self.enter {
            filter::refuse(&[(call, errno)]).expect("leave to install a filter");
        }
    }

    /// Whether this machine allows it.
    pub(crate) fn can_be_entered(&self) -> bool {
        let succeeds = |program: &str, args: &[&str]| {
            let mut command = Command::new(program);
            command.args(args).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
            command.status().is_ok_and(|status| status.success())
        };
        match self.enter {
            Enter::Mounts(_) => succeeds("unshare", &["--mount", "sh", "-c", "mount -t tmpfs none /mnt"]),
            Enter::Through([program, args @ ..]) => succeeds(program, &[args, &["true"]].concat()),
            Enter::Through([]) | Enter::Refuses(..) => true,
        }
    }
}
