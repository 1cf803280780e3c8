//! Limits of the system for a command: the child has them, this program does not, and who may not set them is told so.

use std::fs::{self, File};
use std::os::unix::process::ExitStatusExt;

use deluxe_process::{Command, ErrorKind, ExitStatus, Resource, ResourceLimit, Result, Signal, Stdio};

use futures_lite::future;
use testkit::{Itself, Outcome, Place, on_every_executor, passes, sh};

const BOTH: &str = "ulimit -n; ulimit -Hn";

/// Those that are on their way in place, and those whose start is waited for.
fn both_ways(command: &Command) -> [Command; 2] {
    let mut waited_for = command.clone();
    waited_for.process_group(0);
    [command.clone(), waited_for]
}

/// All limits as a process of this command sees them: name, soft, hard.
async fn seen(command: &mut Command) -> Result<Vec<[String; 3]>> {
    Ok(parsed(&command.args(["/proc/self/limits"]).read().await?))
}

fn parsed(text: &str) -> Vec<[String; 3]> {
    // Columns, because the names have spaces in them.
    let columns = |line: &str| [&line[..26], &line[26..47], &line[47..68]].map(|column| column.trim().to_owned());
    text.lines().skip(1).map(columns).collect()
}

fn own() -> Vec<[String; 3]> {
    parsed(&fs::read_to_string("/proc/self/limits").unwrap())
}

/// Soft and hard limit of what the kernel calls so.
fn of<'a>(limits: &'a [[String; 3]], name: &str) -> [&'a str; 2] {
    let [_, soft, hard] = limits.iter().find(|limit| limit[0] == name).unwrap();
    [soft, hard]
}

#[on_every_executor]
async fn every_way_to_run_has_them() -> Outcome {
    let before = own();
    let mut command = sh(BOTH);
    command.resource_limit(Resource::OpenFiles, ResourceLimit::new(64).soft(32));
    let mut check = sh("test \"$(ulimit -n) $(ulimit -Hn)\" = '32 64'");
    assert_eq!(check.status().await?.code(), Some(1), "it is not so anyway");
    check.resource_limit(Resource::OpenFiles, ResourceLimit::new(64).soft(32));
    for (command, check) in both_ways(&command).iter().zip(both_ways(&check)) {
        assert_eq!(command.read().await?, "32\n64");
        assert_eq!(command.output().await?.stdout, b"32\n64\n");
        assert!(check.status().await?.success());
        assert!(check.spawn().await?.wait().await?.success());
        check.run().await?;
    }
    assert_eq!(own(), before, "this program has its own");
    Ok(())
}

#[on_every_executor]
async fn every_resource_is_the_systems() -> Outcome {
    let resources = [
        (Resource::AddressSpace, "Max address space", 1 << 40),
        (Resource::CoreSize, "Max core file size", 0),
        (Resource::CpuTime, "Max cpu time", 1001),
        (Resource::DataSize, "Max data size", 1 << 39),
        (Resource::FileSize, "Max file size", 1 << 30),
        (Resource::LockedMemory, "Max locked memory", 8192),
        (Resource::MessageQueues, "Max msgqueue size", 1002),
        (Resource::Nice, "Max nice priority", 0),
        (Resource::OpenFiles, "Max open files", 33),
        (Resource::PendingSignals, "Max pending signals", 34),
        (Resource::Processes, "Max processes", 35),
        (Resource::RealtimePriority, "Max realtime priority", 0),
        (Resource::RealtimeTime, "Max realtime timeout", 1_000_003),
        (Resource::StackSize, "Max stack size", 4 << 20),
    ];
    let before = own();
    let mut all = Command::new("cat");
    for (resource, name, value) in resources {
        let limits = seen(Command::new("cat").resource_limit(resource, value)).await?;
        assert_eq!(of(&limits, name), [&*value.to_string(); 2], "{resource}");
        let others =
            |limits: &[[String; 3]]| limits.iter().filter(|limit| limit[0] != name).cloned().collect::<Vec<_>>();
        assert_eq!(others(&limits), others(&before), "{resource}");
        all.resource_limit(resource, value);
    }
    let limits = seen(&mut all).await?;
    for (resource, name, value) in resources {
        assert_eq!(of(&limits, name), [&*value.to_string(); 2], "{resource}");
    }
    Ok(())
}

#[on_every_executor]
async fn the_last_one_counts() -> Outcome {
    let mut command = sh(BOTH);
    command.resource_limit(Resource::OpenFiles, ResourceLimit::new(64).soft(65));
    command.resource_limit(Resource::CoreSize, 0).resource_limit(Resource::OpenFiles, 66);
    assert_eq!(command.read().await?, "66\n66");
    Ok(())
}

#[on_every_executor]
async fn a_file_grows_no_further() -> Outcome {
    let place = Place::new();
    let mut head = Command::new("head");
    head.args(["-c", "2000", "/dev/zero"]).resource_limit(Resource::FileSize, 1000);
    assert_eq!(head.read_bytes().await?.len(), 2000, "a pipe is no file");
    for mut head in both_ways(&head) {
        let file = place.at("file");
        let error = head.stdout(File::create(&file)?).run().await.unwrap_err();
        assert_eq!((error.kind(), error.signal()), (ErrorKind::Signaled, Some(Signal::XFSZ)));
        assert!(error.to_string().ends_with(" (the size of its files was limited to 1000 bytes)"), "{error}");
        assert_eq!(fs::metadata(&file)?.len(), 1000);
    }
    Ok(())
}

/// Beyond the soft limit by SIGXCPU, and at the hard one by SIGKILL.
#[on_every_executor]
async fn time_that_is_used_up() -> Outcome {
    let mut soft = sh("while :; do :; done");
    let mut hard = soft.clone();
    soft.resource_limit(Resource::CpuTime, ResourceLimit::new(10).soft(1));
    hard.resource_limit(Resource::CpuTime, 1);
    let (soft, hard) = future::zip(soft.run(), hard.read()).await;
    let (soft, hard) = (soft.unwrap_err(), hard.unwrap_err());
    assert_eq!((soft.kind(), soft.signal()), (ErrorKind::Signaled, Some(Signal::XCPU)));
    assert!(soft.to_string().ends_with(" (its CPU time was limited to 1 second)"), "{soft}");
    assert_eq!((hard.kind(), hard.signal()), (ErrorKind::Signaled, Some(Signal::KILL)));
    // A forked command does not tell what it has used.
    let is_told = Command::new("true").resource_limit(Resource::CpuTime, 1).output().await?.usage().is_some();
    let is_explained = hard.to_string().ends_with(", perhaps because its CPU time was limited to 1 second");
    assert_eq!(is_explained, is_told, "{hard}");
    // Who has used nothing was killed by somebody else.
    let killed = sh("kill -KILL $$").resource_limit(Resource::CpuTime, 1).run().await.unwrap_err();
    assert!(!killed.to_string().contains("CPU"), "{killed}");
    Ok(())
}

/// It is said of those that have written one. Whether that can be, `/proc/sys/kernel/core_pattern` decides.
#[on_every_executor]
async fn a_core_dump() -> Outcome {
    let place = Place::new();
    let most = match rustix::process::getrlimit(rustix::process::Resource::Core).maximum {
        Some(bytes) => ResourceLimit::new(bytes),
        None => ResourceLimit::unlimited(),
    };
    for signal in ["SEGV", "XCPU"] {
        let mut command = sh(&format!("kill -{signal} $$"));
        command.current_dir(place.path()).resource_limit(Resource::CpuTime, 1000);
        for mut command in both_ways(&command) {
            for size in [ResourceLimit::new(0), most] {
                command.resource_limit(Resource::CoreSize, size);
                let error = command.run().await.unwrap_err();
                let dumped = error.exit_status().unwrap().core_dumped();
                assert_eq!(error.to_string().contains(", and dumped core"), dumped, "{error}");
                assert_eq!(
                    error.to_string().ends_with(" (its CPU time was limited to 1000 seconds)"),
                    signal == "XCPU"
                );
                let is_here = fs::read_to_string("/proc/sys/kernel/core_pattern")?.trim() == "core";
                assert!(!dumped || size != ResourceLimit::new(0) || !is_here, "{error}");
                assert!(dumped || size == ResourceLimit::new(0) || !is_here, "{error}");
            }
        }
    }
    Ok(())
}

/// What becomes of the start is told without a descriptor of the child's.
#[on_every_executor]
async fn a_start_needs_no_descriptors() -> Outcome {
    let place = Place::new();
    let plain = place.file("plain", "");
    for count in 0..3 {
        let limited = |program: &str| {
            let mut command = Command::new(program);
            command.resource_limit(Resource::OpenFiles, count);
            command
        };
        for missing in both_ways(&limited("/no/such/program")) {
            assert!(missing.spawn().await.unwrap_err().is_not_found());
            assert!(missing.output().await.unwrap_err().is_not_found());
        }
        for plain in both_ways(&limited(plain.to_str().unwrap())) {
            assert_eq!(plain.spawn().await.unwrap_err().kind(), ErrorKind::NotExecutable);
        }
        // It does run; what can't open a library is its linker.
        for mut short in both_ways(&limited("true")) {
            assert_eq!(short.output().await?.status.code(), Some(127));
            assert_eq!(short.stderr(Stdio::null()).spawn().await?.wait().await?.code(), Some(127));
        }
    }
    for mut enough in both_ways(sh(BOTH).resource_limit(Resource::OpenFiles, 4)) {
        assert_eq!(enough.read().await?, "4\n4");
        assert!(enough.current_dir("/").merge_stderr(true).output().await?.status.success());
    }
    Ok(())
}

#[on_every_executor]
async fn too_little_to_begin_with() -> Outcome {
    let mut command = Command::new("true");
    command.env_clear().resource_limit(Resource::AddressSpace, 64 << 10);
    for command in both_ways(&command) {
        let ended: ExitStatus = command.status().await?;
        assert!(!ended.success());
        assert_eq!(command.spawn().await?.wait().await?, ended);
    }
    Ok(())
}

#[on_every_executor]
async fn a_soft_limit_above_the_hard_one() -> Outcome {
    let place = Place::new();
    let mut command = Command::new("touch");
    command.arg(place.at("made")).resource_limit(Resource::FileSize, ResourceLimit::new(1).soft(2));
    for error in [command.run().await.unwrap_err(), command.spawn().await.unwrap_err()] {
        assert_eq!((error.kind(), error.pid()), (ErrorKind::InvalidInput, None));
        assert!(error.to_string().contains("of RLIMIT_FSIZE the soft limit 2 is above the hard limit 1"), "{error}");
    }
    assert!(!place.at("made").exists());
    Ok(())
}

/// Its signal could come before the program.
#[on_every_executor]
async fn no_time_to_begin() -> Outcome {
    for (resource, name) in [(Resource::CpuTime, "RLIMIT_CPU"), (Resource::RealtimeTime, "RLIMIT_RTTIME")] {
        let mut command = Command::new("true");
        command.resource_limit(resource, ResourceLimit::new(10).soft(0));
        let error = command.run().await.unwrap_err();
        assert_eq!((error.kind(), error.pid()), (ErrorKind::InvalidInput, None));
        assert!(error.to_string().contains(&format!("of {name} the soft limit 0 leaves no time to begin")), "{error}");
    }
    Ok(())
}

/// Not even root: for open files, /proc/sys/fs/nr_open is the bound.
#[on_every_executor]
async fn more_than_anybody_may_have() -> Outcome {
    let mut command = Command::new("true");
    command.resource_limit(Resource::CoreSize, 0).resource_limit(Resource::OpenFiles, ResourceLimit::unlimited());
    command.resource_limit(Resource::StackSize, 4 << 20);
    for command in both_ways(&command) {
        is_denied(&command, "RLIMIT_NOFILE").await;
    }
    Ok(())
}

/// By every way to run, and as what it is.
async fn is_denied(command: &Command, name: &str) {
    let errors = [
        command.run().await.unwrap_err(),
        command.status().await.unwrap_err(),
        command.output().await.unwrap_err(),
        command.spawn().await.unwrap_err(),
    ];
    for error in errors {
        assert_eq!((error.kind(), error.pid()), (ErrorKind::PermissionDenied, None), "{error:?}");
        assert!(error.to_string().contains(&format!("this process may not set {name} that high")), "{error}");
    }
}

/// In a process that has less, so that it is seen to be raised.
#[on_every_executor]
async fn unlimited(itself: Itself) -> Outcome {
    const NAME: &str = "Max core file size";
    let mut cat = Command::new("cat");
    if !itself.is_child() {
        let mut child = itself.command();
        child.resource_limit(Resource::CoreSize, ResourceLimit::unlimited().soft(4096));
        return passes(&child).await.map(|_| ());
    }
    assert_eq!(of(&own(), NAME), ["4096", "unlimited"]);
    assert_eq!(of(&seen(&mut cat.clone()).await?, NAME), ["4096", "unlimited"]);
    cat.resource_limit(Resource::CoreSize, ResourceLimit::unlimited());
    assert_eq!(of(&seen(&mut cat).await?, NAME), ["unlimited", "unlimited"]);
    Ok(())
}

#[on_every_executor]
async fn an_ordinary_user_raises_nothing(itself: Itself) -> Outcome {
    if !itself.is_child() {
        let place = Place::new();
        let mut child = itself.unprivileged(place.path()).await?;
        child.resource_limit(Resource::OpenFiles, ResourceLimit::new(2000).soft(1000));
        return passes(&child).await.map(|_| ());
    }
    let limits = own();
    assert_eq!(of(&limits, "Max open files"), ["1000", "2000"]);
    let mut command = sh(BOTH);
    for command in both_ways(command.resource_limit(Resource::OpenFiles, 2000)) {
        assert_eq!(command.read().await?, "2000\n2000", "up to the hard limit everybody may");
    }
    for limit in [2001.into(), ResourceLimit::new(2001).soft(10), ResourceLimit::unlimited().soft(10)] {
        for command in both_ways(command.resource_limit(Resource::OpenFiles, limit)) {
            is_denied(&command, "RLIMIT_NOFILE").await;
        }
    }
    let nice: u64 = of(&limits, "Max nice priority")[1].parse()?;
    let mut command = Command::new("true");
    command.resource_limit(Resource::OpenFiles, 2000).resource_limit(Resource::Nice, nice + 1);
    is_denied(&command, "RLIMIT_NICE").await;
    Ok(())
}
