//! Daemons that root starts and that run as somebody else, with real accounts: who they are, how they
//! live, and who may start them.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use deluxe_process::daemon::{Delivery, State};
use deluxe_process::{Command, Controller, Error, ErrorKind, Process, User};
use futures_lite::future;

use crate::cast::{Actor, EXECUTOR};
use crate::control::controlled_itself;
use crate::script::{Act, Journal};
use crate::site::{Facts, MARK, Site, others_of_this_case, own_marks};
use testkit::accounts::Account;
use testkit::{Outcome, until};

/// A site that a user can enter, and whose journal he can write.
pub(crate) struct Stay {
    pub(crate) site: Site,
    pub(crate) account: Account,
}

impl Stay {
    pub(crate) fn new(site: Site) -> Result<Stay, std::io::Error> {
        let account = Account::with(&["--user-group", "--groups", "games,audio"]);
        fs::set_permissions(site.at(""), Permissions::from_mode(0o755))?;
        let stay = Stay { site, account };
        stay.give(&stay.site.journal())?;
        Ok(stay)
    }

    /// A journal that the user can write.
    fn give(&self, journal: &Journal) -> Result<(), std::io::Error> {
        fs::write(&journal.0, "")?;
        chown(&journal.0, Some(self.account.uid), None)
    }

    pub(crate) fn controller(&self, actor: Actor) -> Controller<Actor> {
        as_user(self.site.controller(actor), &self.account.name)
    }

    /// Where the pidfile is.
    pub(crate) fn apart(&self) -> PathBuf {
        self.site.directory().join("actor.run")
    }

    pub(crate) fn pidfile(&self) -> PathBuf {
        self.apart().join("actor.pid")
    }

    /// What is left when no daemon runs: the lock, an empty directory of the last user's, and who that was.
    pub(crate) fn is_tidy(&self) -> Outcome {
        let lock = fs::metadata(self.site.directory().join("actor.lock"))?;
        assert_eq!((lock.uid(), lock.mode() & 0o7777), (0, 0o600));
        let apart = fs::metadata(self.apart())?;
        assert_eq!((apart.uid(), apart.mode() & 0o7777), (self.account.uid, 0o755));
        assert_eq!(names_in(&self.apart()), [""; 0]);
        assert_eq!(names_in(&self.site.directory()), ["actor.lock", "actor.run", "actor.user"]);
        assert_eq!(others_of_this_case(), [0; 0]);
        Ok(())
    }

    /// Runs what is added to it as that user.
    pub(crate) fn by_hand(&self) -> Command {
        let mut command = Command::new("setpriv");
        command.args(["--reuid", &self.account.uid.to_string(), "--regid", "65534", "--clear-groups", "--"]);
        command
    }
}

pub(crate) fn as_user(controller: Controller<Actor>, name: &str) -> Controller<Actor> {
    controller.user(name).env_clear().envs(own_marks())
}

/// But for what a daemon has written down of its end, which is the subject of `ends.rs`.
pub(crate) fn names_in(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).unwrap();
    let mut names: Vec<String> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.retain(|name| !name.ends_with(".last"));
    names.sort();
    names
}

/// Ends it in a way that it has no time for.
pub(crate) async fn kill(pid: u32) -> Result<(), Error> {
    let process = Process::open(pid)?;
    process.kill()?;
    let _ = process.wait().await;
    Ok(())
}

pub(crate) async fn all_ids_and_groups(site: Site) -> Outcome {
    let stay = Stay::new(site)?;
    let user = User::by_name(&stay.account.name).await?.ok_or("it was made")?;
    let groups: Vec<String> = user.groups().await?.iter().map(u32::to_string).collect();
    assert!(groups.len() >= 3, "{groups:?}");
    let controller = stay.controller(stay.site.idle());
    let daemon = Facts(controller.start().await?.pid());
    let words = |key| daemon.status(key).split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(words("Uid"), vec![user.uid().to_string(); 4]);
    assert_eq!(words("Gid"), vec![user.gid().to_string(); 4]);
    let mut found = words("Groups");
    found.sort_by_key(|group| group.parse::<u32>().unwrap_or_default());
    assert_eq!(found, groups);
    for capabilities in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
        assert_eq!(daemon.status(capabilities), "0000000000000000", "{capabilities}");
    }
    // All else is as it is for every daemon.
    assert_eq!(daemon.directory(), Path::new("/"));
    assert_eq!(daemon.status("Umask"), "0022");
    assert_eq!(daemon.command_name(), "actor");
    assert_eq!(daemon.session(), daemon.group());
    assert_ne!(daemon.session(), daemon.0);
    assert!(!Facts(daemon.session()).exists());
    assert_eq!(daemon.terminal(), 0);
    assert_ne!(daemon.parent(), std::process::id());
    // Of root's it has the lock, and no directory.
    let open: Vec<String> = daemon.descriptors().into_iter().map(|(_, target)| target).collect();
    let count = |path: &Path| open.iter().filter(|target| **target == path.to_string_lossy()).count();
    assert_eq!(count(&stay.site.directory().join("actor.lock")), 1, "{open:?}");
    assert_eq!(count(&stay.apart()), 1, "{open:?}");
    assert_eq!(count(&stay.site.directory()), 0, "{open:?}");
    assert_eq!(count(Path::new("/dev/null")), 3, "{open:?}");
    controller.stop().await?;
    stay.is_tidy()
}

/// Stage 1 has it already, so no process on the way shows anything of root's.
pub(crate) async fn nothing_of_roots_environment(site: Site) -> Outcome {
    let stay = Stay::new(site)?;
    let mut start = stay.site.act("start");
    start.arg(format!("user={}", stay.account.name)).env("ROOTS_SECRET", "x").env("TERM", "x").env("HOME", "/root");
    let said = start.read().await?;
    let pid = said.strip_prefix("started ").ok_or_else(|| said.clone())?.parse()?;
    let user = User::by_name(&stay.account.name).await?.ok_or("it was made")?;
    let mut expected = vec![
        format!("HOME={}", user.home().display()),
        format!("LOGNAME={}", user.name()),
        "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".to_owned(),
        "SHELL=/bin/sh".to_owned(),
        format!("USER={}", user.name()),
    ];
    expected.extend(own_marks().iter().map(|(key, value)| format!("{key}={value}")));
    expected.sort();
    let mut environment = Facts(pid).environment_but_for_the_mark();
    environment.sort();
    assert_eq!(environment, expected);
    stay.site.control().stop().await?;
    // What the controller names wins.
    let mut variables = own_marks();
    variables.push(("SHELL".into(), "/bin/other".into()));
    let controller = stay.controller(stay.site.idle()).env_clear().envs(variables);
    let environment = Facts(controller.start().await?.pid()).environment();
    assert_eq!(environment.iter().filter(|line| line.starts_with("SHELL=")).collect::<Vec<_>>(), ["SHELL=/bin/other"]);
    controller.stop().await?;
    stay.is_tidy()
}

pub(crate) async fn life_cycle(site: Site) -> Outcome {
    let stay = Stay::new(site)?;
    let journal = stay.site.journal();
    let mut actor = stay.site.idle();
    actor.setup.push(Act::NoteContext);
    let controller = stay.controller(actor);
    let control = stay.site.control();
    let pid = controller.start().await?.pid();
    assert_eq!(fs::read_to_string(stay.pidfile())?, format!("{pid}\n"));
    assert_eq!(journal.value("pidfile "), stay.pidfile().to_string_lossy());
    let shown = fs::metadata(stay.pidfile())?;
    assert_eq!((shown.uid(), shown.mode() & 0o7777), (stay.account.uid, 0o644));
    // Whether they name the user or not, and whoever they would start it as.
    for other in [stay.site.controller(stay.site.idle()), controller.clone(), controller.clone().user("root")] {
        let started = other.start().await?;
        assert!(started.was_already_running());
        assert_eq!(started.pid(), pid);
        assert_eq!(other.pid().await?, Some(pid));
        assert!(matches!(other.state().await?, State::Running { .. }));
    }
    assert_eq!(control.pid().await?, Some(pid));
    assert_eq!(control.signal_user1().await?, Delivery::Delivered);
    assert_eq!(controller.reload().await?, Delivery::Delivered);
    journal.until("user1").await;
    journal.until("hangup").await;
    let second = controller.restart().await?.pid();
    assert_ne!(second, pid);
    assert_eq!(Facts(second).status("Uid"), format!("{0}\t{0}\t{0}\t{0}", stay.account.uid));
    assert_eq!(fs::read_to_string(stay.pidfile())?, format!("{second}\n"));
    let waiting = async {
        until(|| Facts(std::process::id()).waits_for(second) > 0).await;
        control.stop().await
    };
    let (waited, stopped) = future::zip(controller.wait(), waiting).await;
    let (waited, stopped) = (waited?, stopped?);
    assert!(stopped.was_running() && !stopped.was_killed());
    assert_eq!(waited, stopped);
    assert_eq!(journal.count("terminate"), 2);
    assert_eq!(journal.count("at_exit"), 2);
    assert_eq!(controller.state().await?, State::Stopped);
    stay.is_tidy()
}

pub(crate) async fn what_a_killed_one_leaves_is_removed(site: Site) -> Outcome {
    let stay = Stay::new(site)?;
    let controller = stay.controller(stay.site.idle());
    kill(controller.start().await?.pid()).await?;
    assert!(stay.pidfile().exists(), "a killed daemon has had no time to remove it");
    // Also by somebody who starts it as root again; and what that leaves, by the next one.
    let as_root = stay.site.controller(stay.site.idle());
    let pid = as_root.start().await?.pid();
    assert_eq!(names_in(&stay.site.directory()), ["actor.lock", "actor.pid"]);
    assert_eq!(fs::read_to_string(stay.site.pidfile())?, format!("{pid}\n"));
    kill(pid).await?;
    let pid = controller.start().await?.pid();
    assert!(!stay.site.pidfile().exists());
    assert_eq!(fs::read_to_string(stay.pidfile())?, format!("{pid}\n"));
    kill(pid).await?;
    // A stop that kills, by somebody who knows of no user.
    let mut actor = stay.site.idle();
    actor.run = vec![Act::AskTerminating, Act::Note("runs for ever".into()), Act::Forever];
    stay.controller(actor).start().await?;
    stay.site.journal().until("runs for ever").await;
    let stopped = stay.site.control().stop_timeout(std::time::Duration::from_millis(50)).stop().await?;
    assert!(stopped.was_killed());
    stay.is_tidy()
}

/// All of it ran as that user: what he may not do, it could not.
pub(crate) async fn what_setup_says_reaches_root(site: Site) -> Outcome {
    let stay = Stay::new(site)?;
    let mut actor = stay.site.idle();
    actor.setup = vec![Act::Stderr("hm\n".into()), Act::Fail(vec!["no spool".into(), "it is not there".into()])];
    let error = stay.controller(actor).start().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::SetupFailed, "{error:?}");
    assert!(format!("{error:#}").ends_with("no spool: it is not there"), "{error:#}");
    assert_eq!(error.stderr_tail(), Some("hm"));
    let mut actor = stay.site.idle();
    actor.setup = vec![Act::Touch(stay.site.directory().join("made"))];
    let error = stay.controller(actor).start().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::SetupFailed, "{error:?}");
    assert!(format!("{error:#}").contains("Permission denied"), "{error:#}");
    stay.is_tidy()
}

pub(crate) async fn nobody_of_that_name(site: Site) -> Outcome {
    let stay = Stay::new(site)?;
    let controller = stay.controller(stay.site.idle());
    for (name, kind) in [
        ("no-such-user", ErrorKind::UnknownUser),
        ("", ErrorKind::InvalidInput),
        ("#0", ErrorKind::InvalidInput),
        ("-x", ErrorKind::InvalidInput),
        ("a\0b", ErrorKind::InvalidInput),
    ] {
        let error = controller.clone().user(name).start().await.unwrap_err();
        assert_eq!(error.kind(), kind, "{error:?}");
        assert!(error.to_string().starts_with("the daemon `actor` was not started: "), "{error}");
        assert_eq!(names_in(&stay.site.directory()), [""; 0], "nothing was begun");
    }
    // Looked for before anything is stopped.
    let pid = controller.start().await?.pid();
    let error = controller.clone().user("no-such-user").restart().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::UnknownUser);
    assert_eq!(controller.pid().await?, Some(pid));
    controller.stop().await?;
    // At each start, as it is then.
    stay.account.remove();
    let error = controller.start().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::UnknownUser, "{error:?}");
    assert!(error.to_string().ends_with(&format!("there is no user `{}`", stay.account.name)), "{error}");
    stay.is_tidy()
}

/// As somebody who is not root, in a directory of his own.
pub(crate) async fn only_root_can(site: Site) -> Outcome {
    let stay = Stay::new(site)?;
    chown(stay.site.directory(), Some(stay.account.uid), None)?;
    let act = async |what: &str, user: &str| {
        let mut command = stay.by_hand();
        command.arg("/proc/self/fd/0").args(stay.site.act_arguments(what)).arg(format!("user={user}"));
        command.stdin(fs::File::open("/proc/self/exe").expect("this program can be read")).read().await
    };
    for user in ["nobody", "root"] {
        let said = act("start", user).await?;
        let expected = format!("PermissionDenied: the daemon `actor` was not started as `{user}`: only root can");
        assert!(said.starts_with(&expected), "{said}");
        assert_eq!(names_in(&stay.site.directory()), [""; 0], "nothing was begun");
    }
    assert_eq!(act("start", "no-such-user").await?.split(':').next(), Some("UnknownUser"));
    // Who he is already: as if nothing had been said.
    let said = act("start", &stay.account.name).await?;
    let pid: u32 = said.strip_prefix("started ").ok_or_else(|| said.clone())?.parse()?;
    assert_eq!(fs::read_to_string(stay.site.pidfile())?, format!("{pid}\n"));
    assert!(!stay.apart().exists());
    assert!(act("stop", &stay.account.name).await?.contains("was_running: true"));
    // The same for root.
    chown(stay.site.directory(), Some(0), None)?;
    fs::remove_file(stay.site.directory().join("actor.lock"))?;
    let controller = stay.site.controller(stay.site.idle()).user("root");
    controller.start().await?;
    assert!(stay.site.pidfile().exists() && !stay.apart().exists());
    controller.stop().await?;
    assert_eq!(names_in(&stay.site.directory()), ["actor.lock"]);
    Ok(())
}

/// From as many programs, by way of as many controllers: one starts it.
pub(crate) async fn many_starters(site: Site) -> Outcome {
    let stay = Stay::new(site)?;
    let own = stay.controller(stay.site.idle());
    for _ in 0..3 {
        let mut starters = Vec::new();
        for _ in 0..8 {
            let mut start = std::process::Command::new("/proc/self/exe");
            start.args(stay.site.act_arguments("start")).arg(format!("user={}", stay.account.name));
            starters.push(start.stdout(Stdio::piped()).spawn()?);
        }
        let mut said = vec![own.start().await.map(|started| (started.pid(), started.was_already_running()))?];
        for starter in starters {
            let text = String::from_utf8(starter.wait_with_output()?.stdout)?;
            let (how, pid) = text.trim().split_once(' ').ok_or_else(|| text.clone())?;
            said.push((pid.parse()?, how == "already"));
        }
        assert!(said.iter().all(|(pid, _)| *pid == said[0].0), "{said:?}");
        assert_eq!(said.iter().filter(|(_, already)| !already).count(), 1, "{said:?}");
        assert_eq!(own.pid().await?, Some(said[0].0));
        own.stop().await?;
    }
    stay.is_tidy()
}

/// Where it can't reach its own files: root's directory is closed to it.
pub(crate) async fn from_inside_the_daemon(site: Site) -> Outcome {
    let stay = Stay::new(site)?;
    let outside = tempfile::tempdir()?;
    fs::set_permissions(outside.path(), Permissions::from_mode(0o755))?;
    let closed = [(0o755, 0o700), (0o700, 0o755)];
    for (number, (above, directory)) in closed.into_iter().enumerate() {
        fs::set_permissions(stay.site.at(""), Permissions::from_mode(above))?;
        fs::set_permissions(stay.site.directory(), Permissions::from_mode(directory))?;
        let journal = Journal(outside.path().join(format!("journal-{number}")));
        stay.give(&journal)?;
        let mut actor = Actor::idle(&journal);
        actor.run =
            vec![Act::ControlItself(stay.site.directory()), Act::Note("controlled itself".into()), Act::Forever];
        let controller = stay.controller(actor);
        let pid = controller.start().await?.pid();
        controlled_itself(&journal, pid).await;
        assert_eq!(controller.pid().await?, Some(pid), "it still holds its lock");
        assert!(!controller.stop().await?.was_killed());
    }
    fs::set_permissions(stay.site.directory(), Permissions::from_mode(0o755))?;
    stay.is_tidy()
}

/// A directory that is gone when the case is over, however that ends.
struct Removed(PathBuf);

impl Drop for Removed {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A link that leads to one version of a program, and then to the next: the daemon is the same.
pub(crate) async fn called_by_a_link(site: Site) -> Outcome {
    let name = format!("deluxe-process-test-{}", std::process::id());
    let _removed = Removed(Path::new("/run").join(&name));
    let [link, other] = ["here", "there"].map(|directory| site.at(directory).join(&name));
    let act = async |program: &Path, what: &str| {
        let mut command = Command::new(program);
        command.args(["--act", what]).arg(format!("journal={}", site.journal().0.display()));
        // By its name alone, and by a relative path.
        command.env("PATH", site.at("here")).current_dir(site.at("here")).read().await
    };
    for (at, version) in [(&link, "1.2"), (&other, "1.3")] {
        fs::create_dir(at.parent().ok_or("it has one")?)?;
        let file = site.at(&format!("tool-{version}"));
        let copied = std::process::Command::new("cp").arg(std::env::current_exe()?).arg(&file).status()?;
        assert!(copied.success());
        symlink(&file, at)?;
    }
    let said = act(&link, "start").await?;
    let pid: u32 = said.strip_prefix("started ").ok_or_else(|| said.clone())?.parse()?;
    assert_eq!(fs::read_to_string(Path::new("/run").join(&name).join("actor.pid"))?, format!("{pid}\n"));
    fs::rename(&other, &link)?;
    for program in [&link, Path::new(&name), &Path::new(".").join(&name)] {
        assert_eq!(act(program, "start").await?, format!("already {pid}"), "{}", program.display());
    }
    assert!(act(&link, "stop").await?.contains("was_running: true"));
    // And the daemon of a link that was called by a relative path is the one that its own controllers mean.
    let said = act(&Path::new(".").join(&name), "start").await?;
    let pid: u32 = said.strip_prefix("started ").ok_or_else(|| said.clone())?.parse()?;
    let arguments = fs::read(format!("/proc/{pid}/cmdline"))?;
    assert!(arguments.starts_with(link.as_os_str().as_encoded_bytes()), "{arguments:?}");
    assert!(act(&link, "stop").await?.contains("was_running: true"));
    Ok(())
}

/// In root's default directory, which is not the one that its user's daemons have.
pub(crate) async fn in_the_default_directory(site: Site) -> Outcome {
    let stay = Stay::new(site)?;
    let application = format!("deluxe-process-test-{}", std::process::id());
    let directory = Removed(Path::new("/run").join(&application));
    let journal = stay.site.journal();
    let mut actor = stay.site.idle();
    actor.run = vec![Act::ControlItselfOf(application.clone()), Act::Note("controlled itself".into()), Act::Forever];
    let controller = as_user(Controller::new(actor).application(&application), &stay.account.name);
    let pid = controller.start().await?.pid();
    assert_eq!(fs::read_to_string(directory.0.join("actor.run/actor.pid"))?, format!("{pid}\n"));
    controlled_itself(&journal, pid).await;
    assert_eq!(Controller::of::<Actor>().application(&application).pid().await?, Some(pid));
    // A pidfile is for everybody to see.
    let mut command = stay.by_hand();
    assert_eq!(command.arg("cat").arg(directory.0.join("actor.run/actor.pid")).read().await?, pid.to_string());
    // Somebody else has a directory of his own by default, and is told of root's daemon all the same.
    let mut command = stay.by_hand();
    command.args(["/proc/self/fd/0", "--act", "state", "journal=/dev/null"]).arg(format!("application={application}"));
    let said = command.stdin(fs::File::open("/proc/self/exe")?).read().await?;
    assert_eq!(said, format!("RunsForRoot {{ pid: {pid} }}"));
    assert!(!controller.stop().await?.was_killed());
    let mut command = stay.by_hand();
    command.args(["/proc/self/fd/0", "--act", "state", "journal=/dev/null"]).arg(format!("application={application}"));
    assert_eq!(command.stdin(fs::File::open("/proc/self/exe")?).read().await?, "Stopped");
    assert_eq!(names_in(&directory.0), ["actor.lock", "actor.run", "actor.user"]);
    Ok(())
}

/// The file is executed as it is, wherever that is; but it has to be executable for the user.
pub(crate) async fn the_programs_own_file(site: Site) -> Outcome {
    let stay = Stay::new(site)?;
    let closed = stay.site.at("closed");
    fs::create_dir(&closed)?;
    fs::set_permissions(&closed, Permissions::from_mode(0o700))?;
    let program = closed.join("program");
    Command::new("cp").arg(std::env::current_exe()?).arg(&program).run().await?;
    let start = async |mode| {
        fs::set_permissions(&program, Permissions::from_mode(mode)).unwrap();
        let mut start = Command::at(&program)?;
        start.args(stay.site.act_arguments("start")).arg(format!("user={}", stay.account.name));
        start.env(MARK, std::env::var(MARK).expect("a case has a mark")).env(EXECUTOR, "block_on").read().await
    };
    let said = start(0o700).await?;
    assert!(said.starts_with("PermissionDenied: the daemon `actor` was not started: its user lacks a right"), "{said}");
    let expected = format!("the user `{}` may not execute `{}`", stay.account.name, program.display());
    assert!(said.contains(&expected), "{said}");
    stay.is_tidy()?;
    // To read it is not needed.
    for mode in [0o755, 0o711] {
        let said = start(mode).await?;
        assert!(said.starts_with("started "), "{said}");
        assert!(stay.site.control().stop().await?.was_running());
    }
    stay.is_tidy()
}
