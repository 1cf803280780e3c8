//! The directories of cgroups: none is left after an exit, and those of a killed program are removed by the next one.

use std::fs;
use std::path::{Path, PathBuf};
use std::process;

use deluxe_process::{Command, Containment, Shutdown};
use futures_lite::future::block_on;

use crate::rooms::Room;
use crate::strangers::cgroup_directory;
use crate::witness::{Place, Program, eventually, living, wait_for_the_witness};

/// A cgroup for a test. Programs that run in it make their directories there, and nobody else does.
struct OwnCgroup(PathBuf);

impl OwnCgroup {
    fn new(place: &Place) -> OwnCgroup {
        let path = cgroup_directory(process::id()).join(&place.tag);
        fs::create_dir(&path).unwrap();
        OwnCgroup(path)
    }

    /// A program that runs in it.
    fn start(&self, place: &Place, way: &str) -> Program {
        let mut command = process::Command::new("sh");
        command.args(["-c", r#"echo 0 >"$0/cgroup.procs" && exec "$@""#]).arg(&self.0);
        let program = place.command(Room::AsWeAre, "directories");
        command.arg(program.get_program()).args(program.get_args());
        Program::start(command.arg(way).arg(place.word(way)))
    }

    /// The directories in it, by name.
    fn directories(&self) -> Vec<PathBuf> {
        directories(&self.0)
    }
}

fn directories(path: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path());
    let mut found: Vec<PathBuf> = entries.filter(|path| path.is_dir()).collect();
    found.sort();
    found
}

impl Drop for OwnCgroup {
    fn drop(&mut self) {
        eventually("the cgroup is removed", || fs::remove_dir(&self.0).is_ok());
    }
}

/// Runs commands, of which some make cgroups of their own, and then does as it is told.
pub(crate) fn program(args: &[String]) {
    let [way, word] = args else { panic!("{args:?}") };
    let left = block_on(async {
        for _ in 0..3 {
            let output = Command::new("true").output().await.unwrap();
            assert_eq!(output.containment(), Containment::Cgroup);
        }
        let mut nested = Command::new("sh");
        nested.args(["-c", r#"read -r line </proc/self/cgroup; mkdir "$0${line#0::}/below" 2>/dev/null; exit 0"#]);
        nested.arg(mount()).output().await.unwrap();
        let killed = Command::new("sleep").arg("1000").shutdown(Shutdown::kill()).spawn().await.unwrap();
        killed.stop().await.unwrap();
        if way == "leaves" {
            let mut command = Command::new("sleep");
            Some(command.arg("1000").arg0(word).spawn().await.unwrap())
        } else {
            None
        }
    });
    println!("is ready");
    wait_for_the_witness();
    // It outlives this program.
    drop(left);
}

fn mount() -> PathBuf {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    let mount = mounts.lines().find(|line| line.split(' ').nth(2) == Some("cgroup2")).expect("a cgroup2");
    mount.split(' ').nth(1).unwrap().into()
}

pub(crate) fn after_an_exit() {
    let place = Place::new();
    let own = OwnCgroup::new(&place);
    let mut program = own.start(&place, "ends");
    program.says("is ready");
    assert_eq!(own.directories().len(), 1);
    program.tell();
    program.ends_well();
    assert_eq!(own.directories(), [] as [PathBuf; 0]);
}

pub(crate) fn of_a_killed_program() {
    let place = Place::new();
    let own = OwnCgroup::new(&place);
    let mut empty = own.start(&place, "ends");
    let mut populated = own.start(&place, "leaves");
    empty.says("is ready");
    populated.says("is ready");
    let names = own.directories();
    assert_eq!(names.len(), 2);
    empty.kill();
    populated.kill();
    assert_eq!(own.directories(), names, "nobody has removed anything");
    let left = living(&place.word("leaves"));
    assert_eq!(left.len(), 1, "a command outlives its program");
    let kept = cgroup_directory(left[0]);

    let mut next = own.start(&place, "next");
    next.says("is ready");
    // The empty one is gone. Of the other one, what is populated is there, and what is not is gone.
    let found = own.directories();
    assert_eq!(found.len(), 2, "{found:?}");
    assert_eq!(directories(kept.parent().unwrap()), std::slice::from_ref(&kept));
    assert_eq!(living(&place.word("leaves")), left);
    next.tell();
    next.ends_well();
    assert_eq!(own.directories(), [kept.parent().unwrap()]);

    rustix::process::kill_process(crate::witness::to_pid(left[0]), rustix::process::Signal::KILL).unwrap();
    eventually("its cgroup is empty", || fs::read_to_string(kept.join("cgroup.procs")).unwrap().is_empty());
    let last = own.start(&place, "last");
    last.ends_well();
    assert_eq!(own.directories(), [] as [PathBuf; 0]);
}
