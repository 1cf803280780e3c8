//! Processes that are no descendants of a command: what a stop does to them.

use std::env;
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process;

use deluxe_process::{Command, Containment, ErrorKind, Shutdown, Stdio};
use futures_lite::future::block_on;
use rustix::process::{Signal, WaitOptions};

use crate::rooms::{Room, SOMEBODY, SOMEBODY_ELSE, as_user};
use crate::witness::{Place, Program, eventually, is_alive, living, to_pid, wait_for_the_witness};

const MARK: &str = "DELUXE_PROCESS_MARK";

/// Starts a shell that says its mark, if it has one, and stays; says its pid; waits; stops it, and says what came of that.
pub(crate) fn stopping_program(args: &[String]) {
    let [expected, directory, word] = args else { panic!("{args:?}") };
    let mut command = Command::new("sh");
    let script = r#"printf %s "$DELUXE_PROCESS_MARK" >"$0/mark.new"; mv "$0/mark.new" "$0/mark"; exec sleep 1000"#;
    command.args(["-c", script, directory, word]);
    let child = block_on(command.spawn()).unwrap();
    assert_eq!(format!("{:?}", child.containment()), *expected);
    let mark = Path::new(directory).join("mark");
    eventually("the shell has said its mark", || mark.exists());
    println!("started {}", child.pid());
    wait_for_the_witness();
    match block_on(child.stop()) {
        Ok(status) => println!("stopped {status}"),
        Err(error) => println!("refused {error:#}"),
    }
    wait_for_the_witness();
}

fn start(place: &Place, room: Room, expected: Containment) -> Program {
    let mut command = place.command(room, "stops");
    command.arg(format!("{expected:?}")).arg(place.path()).arg(place.word("command"));
    Program::start(&mut command)
}

/// A process of this user that no command has started, and that has this mark. It is a child of this process.
fn bystander(place: &Place, uid: u32, name: &str, mark: Option<&str>) -> process::Child {
    let mut command = process::Command::new("setpriv");
    command.args(as_user(uid)).arg(&place.program).args(["--program", "leaf"]).arg(place.path()).arg(place.word(name));
    if !testkit::accounts::is_root() {
        command = process::Command::new(&place.program);
        command.args(["--program", "leaf"]).arg(place.path()).arg(place.word(name));
    }
    command.env_remove(MARK).envs(mark.map(|mark| (MARK, mark)));
    let child = command.spawn().unwrap();
    let begun = begun(place, name);
    eventually("the bystander is there", || begun.exists());
    child
}

fn begun(place: &Place, name: &str) -> PathBuf {
    place.path().join(format!("{}.begun", place.word(name)))
}

fn dismiss(mut bystander: process::Child) {
    bystander.kill().unwrap();
    bystander.wait().unwrap();
}

/// Who has the mark is taken for a descendant; who has another one is not.
pub(crate) fn exported_mark() {
    let place = Place::new();
    let mut program = start(&place, Room::Unprivileged, Containment::Mark);
    program.says("started");
    let mark = fs::read_to_string(place.path().join("mark")).unwrap();
    assert!(!mark.is_empty());
    let mut descendant = bystander(&place, SOMEBODY, "marked", Some(&mark));
    let nested = format!("another:{mark}:third");
    let mut nested = bystander(&place, SOMEBODY, "nested", Some(&nested));
    let other = bystander(&place, SOMEBODY, "other", Some(&format!("{mark}0")));
    let plain = bystander(&place, SOMEBODY, "plain", None);
    program.tell();
    assert_eq!(program.says("stopped"), "signal: 15 (SIGTERM)");
    assert_eq!(descendant.wait().unwrap().signal(), Some(libc::SIGTERM));
    assert_eq!(nested.wait().unwrap().signal(), Some(libc::SIGTERM));
    for unharmed in [other, plain] {
        assert!(is_alive(unharmed.id()));
        dismiss(unharmed);
    }
    program.ends_well();
    assert_eq!(living(&place.word("command")), []);
}

/// Another user copies a mark. Root stops that process with the rest, and an unprivileged program does not see it.
pub(crate) fn mark_of_another_user() {
    for (room, sees) in [(Room::WithoutCgroups, true), (Room::Unprivileged, false), (Room::Hidepid, false)] {
        let place = Place::new();
        let mut program = start(&place, room, Containment::Mark);
        program.says("started");
        let mark = fs::read_to_string(place.path().join("mark")).unwrap();
        let mut forger = bystander(&place, SOMEBODY_ELSE, "forger", Some(&mark));
        program.tell();
        assert_eq!(program.says("stopped"), "signal: 15 (SIGTERM)", "{room:?}");
        if sees {
            assert_eq!(forger.wait().unwrap().signal(), Some(libc::SIGTERM), "{room:?}");
        } else {
            assert!(is_alive(forger.id()), "{room:?}");
            dismiss(forger);
        }
        program.ends_well();
    }
}

/// The directory of the cgroup of a process.
pub(crate) fn cgroup_directory(pid: u32) -> PathBuf {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    let mount = mounts.lines().find(|line| line.split(' ').nth(2) == Some("cgroup2")).expect("a cgroup2");
    let groups = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    let path = groups.lines().find_map(|line| line.strip_prefix("0::/")).expect("a cgroup");
    Path::new(mount.split(' ').nth(1).unwrap()).join(path)
}

fn move_into(directory: &Path, pid: u32) {
    fs::write(directory.join("cgroup.procs"), pid.to_string()).unwrap();
}

/// It ends with the rest: root has said that it belongs there.
pub(crate) fn moved_into_the_cgroup() {
    let place = Place::new();
    let mut program = start(&place, Room::AsWeAre, Containment::Cgroup);
    let command = program.says("started").parse().unwrap();
    let mut moved = bystander(&place, SOMEBODY_ELSE, "moved", None);
    let plain = bystander(&place, SOMEBODY_ELSE, "plain", None);
    move_into(&cgroup_directory(command), moved.id());
    program.tell();
    assert_eq!(program.says("stopped"), "signal: 15 (SIGTERM)");
    assert_eq!(moved.wait().unwrap().signal(), Some(libc::SIGTERM));
    assert!(is_alive(plain.id()));
    dismiss(plain);
    program.ends_well();
}

/// Joins the cgroup of its own command, and tries everything that would stop or freeze that.
pub(crate) fn joining_program(args: &[String]) {
    let own = cgroup_directory(process::id());
    block_on(async {
        let mut command = Command::new("sleep");
        command.arg("1000").arg0(format!("{}.sleep", args[0])).stop_on_drop(true).shutdown(Shutdown::kill());
        let child = command.spawn().await.unwrap();
        let directory = cgroup_directory(child.pid());
        move_into(&directory, process::id());
        for refused in [child.stop().await.map(drop), child.pause().await, child.process().stop().await.map(drop)] {
            let error = refused.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Unsupported, "{error:#}");
            assert!(error.to_string().contains("this program is part of "), "{error:#}");
        }
        assert!(is_alive(child.pid()));
        child.resume().await.unwrap();
        println!("was refused");
        // From outside it works again.
        move_into(&own, process::id());
        child.stop().await.unwrap();
        println!("has stopped");
    });
    wait_for_the_witness();
}

pub(crate) fn this_program_in_its_own_cgroup() {
    let place = Place::new();
    let mut command = place.command(Room::AsWeAre, "joins");
    let mut program = Program::start(command.arg(place.word("command")));
    program.says("was refused");
    program.says("has stopped");
    assert_eq!(living(&place.word("command.sleep")), []);
    program.ends_well();
}

/// Exits in the cgroup of its own command, which would be stopped at the exit.
pub(crate) fn exiting_program(args: &[String]) {
    let child = block_on(Command::new("sleep").arg("1000").arg0(&args[0]).stop_on_drop(true).spawn()).unwrap();
    move_into(&cgroup_directory(child.pid()), process::id());
    println!("exits");
    process::exit(0);
}

pub(crate) fn exits_in_its_own_cgroup() {
    let place = Place::new();
    let mut command = place.command(Room::AsWeAre, "exits");
    let mut program = Program::start(command.arg(place.word("command")));
    program.says("exits");
    program.ends_well();
    eventually("the command ends with its program", || living(&place.word("command")).is_empty());
}

/// The command and an orphan of it end, and strangers get both numbers. A stop does not touch them.
pub(crate) fn renumbered_program(args: &[String]) {
    let [expected, directory, word] = args else { panic!("{args:?}") };
    block_on(async {
        let program = env::current_exe().unwrap();
        let mut command = Command::new("sh");
        let script = r#"("$0" --program leaf "$1" "$2" & echo $!); exec sleep 1000"#;
        command.args(["-c", script]).arg(&program).args([directory, word]).stdout(Stdio::piped());
        let child = command.spawn().await.unwrap();
        assert_eq!(format!("{:?}", child.containment()), *expected);
        let mut line = String::new();
        let stdout = child.take_stdout().unwrap();
        let mut stdout = futures_lite::io::BufReader::new(stdout);
        futures_lite::AsyncBufReadExt::read_line(&mut stdout, &mut line).await.unwrap();
        let orphan: u32 = line.trim().parse().unwrap();
        let begun = Path::new(directory).join(format!("{word}.begun"));
        eventually("the orphan is there", || begun.exists());

        // By hand: nobody tells the crate.
        for pid in [orphan, child.pid()] {
            rustix::process::kill_process(to_pid(pid), Signal::KILL).unwrap();
        }
        rustix::process::waitpid(Some(to_pid(child.pid())), WaitOptions::empty()).unwrap();
        eventually("the orphan is reaped", || !Path::new(&format!("/proc/{orphan}")).exists());
        let mut strangers = [orphan, child.pid()].map(stranger_with_the_number);

        match child.stop().await {
            Ok(status) => assert_eq!(status.to_string(), "signal: 9 (SIGKILL)"),
            Err(error) => assert_eq!(error.kind(), ErrorKind::StatusLost, "{error:#}"),
        }
        child.kill().unwrap();
        drop(child);
        // What the drop has begun, if anything, is over when another stop is.
        Command::new("sleep").arg("1000").spawn().await.unwrap().stop().await.unwrap();
        for stranger in &mut strangers {
            assert!(stranger.try_wait().unwrap().is_none(), "a stranger was signaled");
            stranger.kill().unwrap();
            stranger.wait().unwrap();
        }
    });
}

fn stranger_with_the_number(number: u32) -> process::Child {
    for _ in 0..1000 {
        fs::write("/proc/sys/kernel/ns_last_pid", (number - 1).to_string()).unwrap();
        let mut stranger = process::Command::new("sleep").arg("1000").spawn().unwrap();
        if stranger.id() == number {
            return stranger;
        }
        // Somebody else on this machine was quicker.
        stranger.kill().unwrap();
        stranger.wait().unwrap();
    }
    panic!("the number {number} was not to be had");
}

pub(crate) fn number_reused((room, expected): (Room, Containment)) {
    let place = Place::new();
    let mut command = place.command(room, "renumbered");
    command.arg(format!("{expected:?}")).arg(place.path()).arg(place.word("command"));
    Program::start(&mut command).ends_well();
}
