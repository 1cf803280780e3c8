//! Starts that fail: each with an error of its own, nothing left running, and the next start succeeds.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use deluxe_process::{Command, Controller, Error, ErrorKind};
use futures_lite::future;

use crate::act::{DROPS, LATE};
use crate::cast::{Actor, Stranger};
use crate::script::{Act, note};
use crate::site::{Facts, Site, others_of_this_case};
use testkit::{Outcome, until};

/// The error of a daemon whose setup does this; then it is shown that no harm was done.
async fn error_of_setup(site: &Site, setup: Vec<Act>) -> Result<Error, Error> {
    let mut actor = site.idle();
    actor.setup = setup;
    let error = site.controller(actor).start_timeout(Duration::from_secs(1)).start().await.unwrap_err();
    is_unharmed(site).await?;
    Ok(error)
}

/// Nothing runs, nothing is left, and the next start succeeds.
async fn is_unharmed(site: &Site) -> Result<(), Error> {
    if cfg!(deluxe_process_force_portable) {
        // Without a pidfd it ends by itself, as soon as it sees that its starter is gone.
        until(|| others_of_this_case().is_empty()).await;
    }
    assert_eq!(others_of_this_case(), [0; 0]);
    assert!(!site.pidfile().exists());
    assert_eq!(site.journal().count("run"), 0);
    assert_eq!(site.journal().count("at_exit"), 0);
    starts(site.controller(site.idle())).await?;
    site.journal().until("at_exit").await;
    fs::remove_file(site.journal().0).unwrap();
    Ok(())
}

async fn starts(controller: Controller<Actor>) -> Result<(), Error> {
    let started = controller.start().await?;
    assert!(!started.was_already_running());
    assert_eq!(controller.pid().await?, Some(started.pid()));
    // So that the journal tells of all of it.
    assert!(controller.stop().await?.was_running());
    Ok(())
}

fn causes(error: &Error) -> Vec<String> {
    std::iter::successors(Some(error as &dyn std::error::Error), |error| error.source())
        .map(ToString::to_string)
        .collect()
}

pub(crate) async fn setup_fails(site: Site) -> Outcome {
    let said = "reading /etc/spool\nit is not there\n";
    let fail = Act::Fail(vec!["no spool".into(), "could not read it".into(), "no such file".into()]);
    let error = error_of_setup(&site, vec![note("setup"), Act::Stderr(said.into()), fail]).await?;
    assert_eq!(error.kind(), ErrorKind::SetupFailed);
    assert_eq!(
        causes(&error),
        ["the daemon `actor` was not started: its setup failed", "no spool", "could not read it", "no such file"]
    );
    assert_eq!(error.stderr(), Some(said.as_bytes()));
    assert_eq!(error.stderr_tail(), Some(said.trim_end()));

    // Another user's daemon must not write to the starter's terminal.
    let fail = Act::Fail(vec!["no \u{1b}[2Jspool\r".into(), "\u{9b}2J\nfake".into()]);
    let error = error_of_setup(&site, vec![note("setup"), Act::Stderr("\u{1b}]0;x\u{7}\rbad\n".into()), fail]).await?;
    assert_eq!(error.stderr_tail(), Some("\\u{1b}]0;x\\u{7}\\rbad"));
    let of_causes = causes(&error);
    assert_eq!(of_causes[1..], ["no \\u{1b}[2Jspool\\r", "\\u{9b}2J\\nfake"]);
    for shown in [of_causes.concat(), format!("{error:#}"), format!("{error:?}").replace('\n', "")] {
        assert!(!shown.contains(char::is_control), "{shown:?}");
    }
    Ok(())
}

pub(crate) async fn setup_panics(site: Site) -> Outcome {
    let error = error_of_setup(&site, vec![Act::Panic("the roof is on fire".into())]).await?;
    assert_eq!(error.kind(), ErrorKind::SetupFailed);
    assert_eq!(causes(&error)[1..], ["panicked: the roof is on fire"]);
    assert!(error.stderr_tail().is_some_and(|tail| tail.contains("the roof is on fire")), "{error:?}");
    Ok(())
}

/// Without a word to us: but its status and what it printed say more.
pub(crate) async fn setup_exits(site: Site) -> Outcome {
    for code in [0, 3] {
        let error = error_of_setup(&site, vec![Act::Stderr("bye\n".into()), Act::Exit(code)]).await?;
        assert_eq!(error.kind(), ErrorKind::DaemonDied, "{error:?}");
        assert_eq!(error.stderr_tail(), Some("bye"));
        assert!(error.pid().is_some() || cfg!(deluxe_process_force_portable));
        if crate::control::status_is_told() && !cfg!(deluxe_process_force_portable) {
            assert_eq!(error.exit_status().and_then(|status| status.code()), Some(code));
            assert!(error.to_string().contains(&format!("exit status: {code}")), "{error}");
        }
    }
    Ok(())
}

pub(crate) async fn setup_is_killed(site: Site) -> Outcome {
    use std::os::unix::process::ExitStatusExt;
    for signal in [9, 6] {
        let error = error_of_setup(&site, vec![Act::Stderr("hm\n".into()), Act::Raise(signal)]).await?;
        assert_eq!(error.kind(), ErrorKind::DaemonDied, "{error:?}");
        assert_eq!(error.stderr_tail(), Some("hm"));
        if crate::control::status_is_told() && !cfg!(deluxe_process_force_portable) {
            assert_eq!(error.exit_status().and_then(|status| status.signal()), Some(signal));
        }
    }
    Ok(())
}

pub(crate) async fn setup_never_returns(site: Site) -> Outcome {
    let error = error_of_setup(&site, vec![Act::Stderr("wait for it\n".into()), Act::Forever]).await?;
    assert_eq!(error.kind(), ErrorKind::TimedOut, "{error:?}");
    assert_eq!(error.stderr_tail(), Some("wait for it"));
    assert!(error.to_string().contains("1.0s"), "{error}");
    Ok(())
}

pub(crate) async fn setup_blocks_its_thread(site: Site) -> Outcome {
    let error = error_of_setup(&site, vec![Act::Stderr("wait for it\n".into()), Act::BlockThread]).await?;
    assert_eq!(error.kind(), ErrorKind::TimedOut, "{error:?}");
    assert_eq!(error.stderr_tail(), Some("wait for it"));
    Ok(())
}

pub(crate) async fn the_name_is_unknown(site: Site) -> Outcome {
    let error = site.controller(Stranger).start().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::UnknownDaemon, "{error:?}");
    let text = error.to_string();
    assert!(text.contains("`stranger`") && text.contains("`actor`, `prompted`, `hasty`, `plain`"), "{text}");
    is_unharmed(&site).await?;
    // It is registered nowhere, and can still be asked about.
    assert!(!site.controller(Stranger).stop().await?.was_running());
    Ok(())
}

/// Starts in a directory that is no good, and says what is wrong with it.
async fn refusal_of(site: &Site, directory: &Path, kind: ErrorKind, what: &str) -> Outcome {
    let error = Controller::new(site.idle()).directory(directory).start().await.unwrap_err();
    assert_eq!(error.kind(), kind, "{error:?}");
    assert!(error.to_string().contains(what), "{error}");
    assert_eq!(error.path(), Some(directory), "{error:?}");
    assert_eq!(others_of_this_case(), [0; 0]);
    Ok(())
}

pub(crate) async fn directory_missing(site: Site) -> Outcome {
    let missing = site.at("missing");
    refusal_of(&site, &missing, ErrorKind::NotFound, "does not exist").await?;
    assert!(!missing.exists(), "a directory that was named is not made");
    // It can be a mistyped one: nobody is told that the daemon does not run.
    let control = Controller::of::<Actor>().directory(&missing);
    let errors = [
        control.pid().await.unwrap_err(),
        control.state().await.unwrap_err(),
        control.stop().await.unwrap_err(),
        control.wait().await.unwrap_err(),
        control.signal_user1().await.unwrap_err(),
    ];
    for error in errors {
        assert_eq!((error.kind(), error.path()), (ErrorKind::NotFound, Some(&*missing)), "{error}");
    }
    fs::create_dir(&missing)?;
    starts(Controller::new(site.idle()).directory(missing)).await?;
    Ok(())
}

pub(crate) async fn directory_is_a_file(site: Site) -> Outcome {
    let file = site.at("file");
    fs::write(&file, "mine")?;
    refusal_of(&site, &file, ErrorKind::Other, "is not a directory").await?;
    assert_eq!(fs::read_to_string(&file)?, "mine");
    fs::remove_file(&file)?;
    fs::create_dir(&file)?;
    starts(Controller::new(site.idle()).directory(file)).await?;
    Ok(())
}

pub(crate) async fn directory_is_a_link(site: Site) -> Outcome {
    let link = site.at("link");
    symlink(site.directory(), &link)?;
    refusal_of(&site, &link, ErrorKind::Other, "is a symbolic link").await?;
    assert_eq!(fs::read_dir(site.directory())?.count(), 0);
    fs::remove_file(&link)?;
    fs::create_dir(&link)?;
    starts(Controller::new(site.idle()).directory(link)).await?;
    Ok(())
}

pub(crate) async fn directory_is_writable_by_others(site: Site) -> Outcome {
    for mode in [0o777, 0o1777, 0o770, 0o702] {
        fs::set_permissions(site.directory(), fs::Permissions::from_mode(mode))?;
        let what = format!("can be written by others (mode {mode:04o}), so what is in it can't be trusted; make one");
        refusal_of(&site, &site.directory(), ErrorKind::PermissionDenied, &what).await?;
        assert_eq!(fs::read_dir(site.directory())?.count(), 0);
    }
    fs::set_permissions(site.directory(), fs::Permissions::from_mode(0o755))?;
    is_unharmed(&site).await?;
    Ok(())
}

pub(crate) async fn directory_of_another_user(site: Site) -> Outcome {
    std::os::unix::fs::chown(site.directory(), Some(65534), Some(65534))?;
    refusal_of(&site, &site.directory(), ErrorKind::PermissionDenied, "belongs to user 65534").await?;
    assert_eq!(fs::read_dir(site.directory())?.count(), 0);
    std::os::unix::fs::chown(site.directory(), Some(0), Some(0))?;
    is_unharmed(&site).await?;
    Ok(())
}

/// A start in a separate mount namespace, after `mount` with the directory as `$1`.
async fn start_with_mount(site: &Site, mount: &str) -> Result<String, Error> {
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", &format!("set -e; {mount}; shift; exec \"$@\""), "sh"]);
    command.arg(site.directory()).arg(std::env::current_exe().expect("it has a path"));
    command.args(site.act_arguments("start")).read().await
}

pub(crate) async fn directory_read_only(site: Site) -> Outcome {
    let said = start_with_mount(&site, r#"mount --bind "$1" "$1"; mount -o remount,bind,ro "$1""#).await?;
    assert!(said.contains("actor.lock") && said.contains("Read-only file system"), "{said}");
    assert!(said.starts_with("Other: could not open the daemon's lock file"), "{said}");
    is_unharmed(&site).await?;
    Ok(())
}

/// Full from the beginning, and full when only the pidfile is still to be written.
pub(crate) async fn the_disk_is_full(site: Site) -> Outcome {
    let mount = r#"mount -t tmpfs -o mode=0700,size=4k tmpfs "$1""#;
    let said = start_with_mount(&site, &format!(r#"{mount}; head -c 4096 /dev/zero > "$1/filler""#)).await?;
    assert!(said.starts_with("StorageFull: ") && said.contains("No space left on device"), "{said}");
    assert!(said.contains("actor.lock"), "{said}");
    // The lock of an earlier daemon, of the same boot, has its page already: nothing else is written before the pidfile.
    let mount = r#"mount -t tmpfs -o mode=0700,size=16k tmpfs "$1"; umask 077;
        cat /proc/sys/kernel/random/boot_id > "$1/actor.lock"; cat /dev/zero > "$1/filler" 2> /dev/null || true"#;
    let said = start_with_mount(&site, mount).await?;
    assert!(said.starts_with("Other: ") && said.contains("No space left on device"), "{said}");
    assert!(said.contains("pidfile"), "{said}");
    assert!(others_of_this_case().is_empty());
    fs::remove_file(site.journal().0)?;
    is_unharmed(&site).await?;
    Ok(())
}

pub(crate) async fn log_file_cannot_be_opened(site: Site) -> Outcome {
    let log = site.at("missing/log");
    let error = site.controller(site.idle()).log_file(&log).start().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Other, "{error:?}");
    assert!(format!("{error:#}").contains(&*log.to_string_lossy()), "{error:#}");
    assert!(format!("{error:#}").contains("No such file"), "{error:#}");
    is_unharmed(&site).await?;
    Ok(())
}

/// Dropped while the daemon is being set up.
pub(crate) async fn a_dropped_start_leaves_nothing(site: Site) -> Outcome {
    for act in [Act::Forever, Act::BlockThread] {
        let mut actor = site.idle();
        actor.setup = vec![Act::NotePid, note("setup begins"), act];
        let controller = site.controller(actor);
        let begun = async {
            site.journal().until("setup begins").await;
            None
        };
        assert!(future::or(async { Some(controller.start().await) }, begun).await.is_none());
        let pid = site.journal().value("pid ").parse()?;
        Facts(pid).until_ended().await;
        until(|| others_of_this_case().is_empty()).await;
        is_unharmed(&site).await?;
    }
    Ok(())
}

pub(crate) async fn main_lacks_init(site: Site) -> Outcome {
    let said = site.act("without-init").read().await?;
    assert!(said.starts_with("NotInitialized: the daemon `actor` was not started"), "{said}");
    assert!(said.contains("daemon::init()"), "{said}");
    is_unharmed(&site).await?;
    Ok(())
}

/// A `main` that reads its arguments first does not know those of a stage.
pub(crate) async fn init_comes_too_late(site: Site) -> Outcome {
    let said = site.act("start").env(LATE, "1").read().await?;
    assert!(said.starts_with("DaemonDied: the daemon `actor` was not started: the first stage died"), "{said}");
    assert!(said.contains("exit status: 2"), "{said}");
    assert!(said.contains("is `deluxe_process::daemon::init()` the first thing in `main`?"), "{said}");
    is_unharmed(&site).await?;
    Ok(())
}

/// The loader is what the kernel takes for the program then.
pub(crate) async fn run_through_the_loader(site: Site) -> Outcome {
    let maps = fs::read_to_string("/proc/self/maps")?;
    let loader = maps.lines().filter_map(|line| line.split_whitespace().nth(5)).find(|path| path.contains("/ld-"));
    let mut command = Command::new(loader.ok_or("there is a loader")?);
    let said = command.arg(std::env::current_exe()?).args(site.act_arguments("start")).read().await?;
    assert!(said.starts_with("DaemonDied: the daemon `actor` was not started: the first stage died"), "{said}");
    assert!(said.contains("run through the dynamic loader") && !said.contains("daemon::init"), "{said}");
    is_unharmed(&site).await?;
    Ok(())
}

pub(crate) async fn null_is_missing(site: Site) -> Outcome {
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", "mount -t tmpfs tmpfs /dev; exec \"$@\"", "sh"]);
    let said = command.arg(std::env::current_exe()?).args(site.act_arguments("start")).read().await?;
    assert_eq!(
        said,
        "NotFound: the daemon could not be started: `/dev/null` could not be opened for it: \
         No such file or directory (os error 2)"
    );
    is_unharmed(&site).await?;
    Ok(())
}

/// As a filter of system calls refuses them.
pub(crate) async fn pidfds_are_refused(site: Site) -> Outcome {
    let mut command = Command::new("strace");
    let trace = site.at("trace");
    command.args(["-f", "-qq", "-e", "trace=pidfd_open", "-e", "inject=pidfd_open:error=EPERM", "-o"]).arg(&trace);
    let said = command.arg(std::env::current_exe()?).args(site.act_arguments("start")).read().await?;
    assert!(fs::read_to_string(trace)?.contains("(INJECTED)"));
    assert!(said.starts_with("Unsupported: the daemon `actor` was not started: daemons need pidfds"), "{said}");
    until(|| others_of_this_case().is_empty()).await;
    is_unharmed(&site).await?;
    Ok(())
}

/// An `init` without a `run_on`: a process that was begun to be the daemon is that or nothing.
pub(crate) async fn what_init_gives_is_dropped(site: Site) -> Outcome {
    for (what, words) in [
        ("init", "neither `run_on` nor `await` on what it gave"),
        ("future", "what `daemon::init()` gave was not awaited to its end"),
    ] {
        let said = site.act("start").env(DROPS, what).read().await?;
        assert!(said.starts_with("DaemonDied: the daemon `actor` was not started: it died"), "{said}");
        // The last that it said; nothing came after it.
        assert!(said.ends_with(words), "{said}");
        if crate::control::status_is_told() && !cfg!(deluxe_process_force_portable) {
            assert!(said.contains("exit status: 71"), "{said}");
        }
        assert!(site.journal().lines().is_empty());
        is_unharmed(&site).await?;
    }
    Ok(())
}

/// The program under another name, which runs until it is told to start its daemon; meanwhile its file changes.
async fn start_after(site: &Site, change: impl FnOnce(&Path) -> Outcome) -> Outcome {
    let own = std::env::current_exe()?;
    let copy = site.at("program");
    Command::new("cp").arg(own).arg(&copy).run().await?;
    let mut holder = std::process::Command::new(&copy);
    holder.args(site.act_arguments("hold")).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut holder = holder.spawn()?;
    let mut said = std::io::BufReader::new(holder.stdout.take().ok_or("it is piped")?);
    let mut line = String::new();
    std::io::BufRead::read_line(&mut said, &mut line)?;
    assert_eq!(line, "holds\n");
    change(&copy)?;
    holder.stdin.take().ok_or("it is piped")?.write_all(b"go\n")?;
    line.clear();
    std::io::BufRead::read_line(&mut said, &mut line)?;
    assert!(holder.wait()?.success());
    assert!(line.starts_with("started "), "{line}");
    let pid = line["started ".len()..].trim().parse()?;
    assert_eq!(site.control().pid().await?, Some(pid));
    assert_eq!(Facts(pid).command_name(), "actor");
    site.control().signal_user1().await?;
    site.journal().until("user1").await;
    assert!(site.control().stop().await?.was_running());
    Ok(())
}

/// An ordinary start runs the same image, also when its file is gone.
pub(crate) async fn binary_deleted(site: Site) -> Outcome {
    start_after(&site, |program| Ok(fs::remove_file(program)?)).await
}

pub(crate) async fn binary_replaced(site: Site) -> Outcome {
    start_after(&site, |program| {
        let other = program.with_extension("new");
        fs::copy("/bin/false", &other)?;
        Ok(fs::rename(other, program)?)
    })
    .await
}
