//! The files of daemons that run as another user than root, who starts them: what is out of that user's reach, and that root
//! comes to no harm by what is within it.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};

use deluxe_process::ErrorKind;
use deluxe_process::daemon::State;

use crate::cast::Actor;
use crate::script::Journal;
use crate::site::{Facts, Site, others_of_this_case};
use crate::user::{Stay, as_user, kill, names_in};
use testkit::Outcome;
use testkit::accounts::Account;

/// Puts something in the place of a file.
type Plant<'a> = &'a (dyn Fn(&Path) + Sync);

/// Belongs to root, and would do harm in other hands.
const TREASURE: &str = "root's own";

fn treasure(site: &Site) -> PathBuf {
    let path = site.at("treasure");
    fs::write(&path, TREASURE).unwrap();
    path
}

/// From outside, the daemon's own user has no more rights to its files than anybody.
pub(crate) async fn the_users_own_hands_reach_nothing(site: Site) -> Outcome {
    let stay = Stay::new(site)?;
    let controller = stay.controller(stay.site.idle());
    let pid = controller.start().await?.pid();
    let lock = stay.site.directory().join("actor.lock");
    let before = (fs::metadata(&lock)?.ino(), fs::read(&lock)?);
    let attempts = [
        r#": < "$1""#,
        r#": > "$1""#,
        r#"rm -f "$1""#,
        r#"mv "$1" "$1.away""#,
        r#"ln -f /etc/passwd "$1""#,
        r#"rmdir "${1%.lock}.run""#,
        r#"mv "${1%.lock}.run" "$1.away""#,
        r#": > "${1%/*}/made""#,
        r#"echo 0 > "${1%.lock}.user""#,
    ];
    for attempt in attempts {
        let mut command = stay.by_hand();
        let output = command.args(["sh", "-c", attempt, "sh"]).arg(&lock).output().await?;
        assert!(!output.status.success(), "{attempt}: {output:?}");
    }
    for what in ["state", "pid", "stop", "user1", "wait", "start"] {
        let mut command = stay.by_hand();
        command.arg("/proc/self/fd/0").args(stay.site.act_arguments(what));
        let said = command.stdin(fs::File::open("/proc/self/exe")?).read().await?;
        let said = said.lines().last().unwrap_or_default();
        // What everybody can see in the kernel's list of locks.
        match what {
            "state" => assert!(said.starts_with(&format!("running {pid} since ")), "{said}"),
            "pid" => assert_eq!(said, format!("Some({pid})")),
            _ => assert!(said.starts_with("PermissionDenied: ") && said.contains("actor.lock"), "{what}: {said}"),
        }
    }
    assert_eq!((fs::metadata(&lock)?.ino(), fs::read(&lock)?), before);
    assert_eq!(controller.pid().await?, Some(pid));
    assert!(!controller.stop().await?.was_killed());
    stay.is_tidy()
}

/// A process that shares the daemon's descriptors can keep its lock, with its pid, beyond its end. A process that gets this pid
/// later is not signaled unless it belongs to the daemon's user.
pub(crate) async fn somebody_else_behind_the_lock(site: Site) -> Outcome {
    let stay = Stay::new(site)?;
    let controller = stay.controller(stay.site.idle());
    let pid = controller.start().await?.pid();
    let mark = stay.site.directory().join("actor.user");
    let user = fs::read_to_string(&mark)?;
    // The other way round: the process stays, and is not whom it should be.
    fs::write(&mark, "1\n")?;
    for controller in [&controller, &stay.site.controller(stay.site.idle())] {
        let errors = [
            controller.stop().await.unwrap_err(),
            controller.signal_user1().await.unwrap_err(),
            controller.restart().await.unwrap_err(),
            controller.wait().await.unwrap_err(),
            // Nor is anybody told the number.
            controller.pid().await.unwrap_err(),
            controller.state().await.unwrap_err(),
            controller.start().await.unwrap_err(),
        ];
        let expected = format!(
            "whether the daemon `actor` runs can't be proved: `{}` is locked by process {pid} of user {}, and the daemon is \
             user 1's",
            stay.site.directory().join("actor.lock").display(),
            stay.account.uid
        );
        for error in errors {
            assert_eq!(error.kind(), ErrorKind::Unverifiable, "{error}");
            assert_eq!(error.pid(), Some(pid));
            assert_eq!(error.to_string(), expected);
        }
    }
    fs::write(&mark, user)?;
    assert_eq!(controller.pid().await?, Some(pid));
    assert!(!controller.stop().await?.was_killed());
    stay.is_tidy()
}

/// A file that is to say whose daemon it is, and says nothing: that is not the same as none.
pub(crate) async fn a_mark_that_names_nobody(site: Site) -> Outcome {
    let stay = Stay::new(site)?;
    let controller = stay.controller(stay.site.idle());
    let pid = controller.start().await?.pid();
    let mark = stay.site.directory().join("actor.user");
    let user = fs::read_to_string(&mark)?;
    let (away, uid) = (stay.site.at("away"), stay.account.uid);
    fs::write(&away, &user)?;
    let written = |text: &[u8]| {
        let text = text.to_owned();
        Box::new(move |path: &Path| fs::write(path, &text).unwrap()) as Box<dyn Fn(&Path) + Send + Sync>
    };
    let mut planted = vec![
        written(b""),
        written(b"\n"),
        written(b"garbage\n"),
        written(b"-1\n"),
        written(b"4294967296\n"),
        written(format!("{uid}").as_bytes()),
        written(format!("+{uid}\n").as_bytes()),
        written(format!(" {uid}\n").as_bytes()),
        written(format!("{uid}\n1\n").as_bytes()),
        written(&[0xff; 1000]),
        Box::new(|path| fs::create_dir(path).unwrap()),
    ];
    planted.push(Box::new(move |path| symlink(&away, path).unwrap()));
    planted.push(Box::new(|path| {
        let mode = rustix::fs::Mode::from_raw_mode(0o600);
        rustix::fs::mknodat(rustix::fs::CWD, path, rustix::fs::FileType::Fifo, mode, 0).unwrap();
    }));
    for plant in planted {
        remove(&mark);
        plant(&mark);
        for controller in [&controller, &stay.site.controller(stay.site.idle())] {
            let errors = [
                controller.pid().await.unwrap_err(),
                controller.state().await.unwrap_err(),
                controller.start().await.unwrap_err(),
                controller.stop().await.unwrap_err(),
                controller.signal_user1().await.unwrap_err(),
                controller.restart().await.unwrap_err(),
                controller.wait().await.unwrap_err(),
            ];
            for error in errors {
                assert_eq!(error.kind(), ErrorKind::Unverifiable, "{error}");
                assert_eq!((error.path(), error.pid()), (Some(&*mark), Some(pid)));
                let named = "whether the daemon `actor` runs can't be proved";
                let text = error.to_string();
                assert!(text.contains(named) && text.contains(&*mark.to_string_lossy()), "{text}");
            }
        }
    }
    assert_eq!(stay.site.journal().count("user1"), 0);
    // Without one it is nobody else's.
    remove(&mark);
    assert_eq!(controller.pid().await?, Some(pid));
    // And when it is gone there is nothing to be proved: the next start says anew whose it is.
    for plant in [&|path: &Path| fs::write(path, "garbage").unwrap(), &|path: &Path| fs::create_dir(path).unwrap()]
        as [Plant<'_>; 2]
    {
        kill(controller.pid().await?.ok_or("it runs")?).await?;
        remove(&mark);
        plant(&mark);
        assert_eq!(controller.state().await?, State::Stopped);
        assert!(!controller.start().await?.was_already_running());
        assert_eq!(fs::read_to_string(&mark)?, user);
    }
    assert!(!controller.stop().await?.was_killed());
    stay.is_tidy()
}

fn remove(path: &Path) {
    let _ = fs::remove_file(path).or_else(|_| fs::remove_dir(path));
}

/// A directory that is root's or the user's becomes the one for his pidfile. All else stays what it is, and is in the way.
pub(crate) async fn in_the_place_of_the_pidfiles_directory(site: Site) -> Outcome {
    let stay = Stay::new(site)?;
    let controller = stay.controller(stay.site.idle());
    let elsewhere = stay.site.at("elsewhere");
    fs::create_dir(&elsewhere)?;
    fs::set_permissions(&elsewhere, Permissions::from_mode(0o700))?;
    fs::write(elsewhere.join("treasure"), TREASURE)?;
    let users = stay.site.at("users");
    fs::create_dir(&users)?;
    chown(&users, Some(stay.account.uid), None)?;
    let belongs_to_another = |path: &Path| {
        fs::create_dir(path).unwrap();
        fs::set_permissions(path, Permissions::from_mode(0o750)).unwrap();
        chown(path, Some(1), Some(1)).unwrap();
    };
    let planted: [(Plant<'_>, &str); 6] = [
        (&|path| symlink(&elsewhere, path).unwrap(), "is no directory"),
        (&|path| symlink(&users, path).unwrap(), "is no directory"),
        // Also one that looks like the user's own.
        (
            &|path| {
                symlink(&users, path).unwrap();
                std::os::unix::fs::lchown(path, Some(stay.account.uid), None).unwrap();
            },
            "is no directory",
        ),
        (&|path| symlink("nowhere", path).unwrap(), "is no directory"),
        (&|path| fs::write(path, "").unwrap(), "is no directory"),
        // Although it is empty: by what is there, nobody has made it for this.
        (&belongs_to_another, "belongs to user 1, who is neither root nor the daemon's last user"),
    ];
    let facts = |path: &Path| {
        let found = path.symlink_metadata().unwrap();
        (found.ino(), found.uid(), found.gid(), found.mode(), found.nlink())
    };
    for (plant, what) in planted {
        remove(&stay.apart());
        plant(&stay.apart());
        let before = [&*stay.apart(), &*elsewhere, &*users].map(facts);
        let error = controller.start().await.unwrap_err();
        assert_eq!(error.path(), Some(&*stay.apart()), "{error:?}");
        let text = error.to_string();
        assert!(text.contains(what) && text.contains(&*stay.apart().to_string_lossy()), "{text}");
        assert_eq!([&*stay.apart(), &*elsewhere, &*users].map(facts), before, "{text}");
        assert_eq!(controller.state().await?, State::Stopped, "the lock was given back");
        assert_eq!(others_of_this_case(), [0; 0]);
    }
    assert_eq!((names_in(&elsewhere), names_in(&users)), (vec!["treasure".to_owned()], vec![]));
    remove(&stay.apart());
    // root's, and empty.
    fs::create_dir(stay.apart())?;
    controller.start().await?;
    controller.stop().await?;
    stay.is_tidy()?;
    // His own, which is as it should be afterwards.
    fs::set_permissions(stay.apart(), Permissions::from_mode(0o777))?;
    let before = fs::metadata(stay.apart())?.ino();
    controller.start().await?;
    controller.stop().await?;
    assert_eq!(fs::metadata(stay.apart())?.ino(), before);
    stay.is_tidy()
}

/// The user controls the directory of the pidfile. Root touches two names in it, and follows nothing.
pub(crate) async fn a_hostile_directory_of_the_pidfile(site: Site) -> Outcome {
    let stay = Stay::new(site)?;
    let treasure = treasure(&stay.site);
    let controller = stay.controller(stay.site.idle());
    let as_root = stay.site.controller(stay.site.idle());
    let names = ["actor.pid", ".actor.pid.new"].map(|name| stay.apart().join(name));
    let plant = |what: Plant<'_>| {
        for name in &names {
            let _ = fs::remove_file(name);
            what(name);
        }
        fs::write(stay.apart().join("other"), "the user's").unwrap();
    };
    let is_unharmed = || {
        assert_eq!(fs::read_to_string(&treasure).unwrap(), TREASURE);
        assert_eq!(fs::metadata(&treasure).unwrap().uid(), 0);
        assert_eq!(fs::read_to_string(stay.apart().join("other")).unwrap(), "the user's");
    };
    let link: Plant<'_> = &|name| symlink(&treasure, name).unwrap();
    let hard_link: Plant<'_> = &|name| fs::hard_link(&treasure, name).unwrap();
    let directory: Plant<'_> = &|name| fs::create_dir(name).unwrap();
    for planted in [link, hard_link, directory] {
        for starter in [&controller, &as_root] {
            kill(controller.start().await?.pid()).await?;
            plant(planted);
            let pid = starter.start().await?.pid();
            is_unharmed();
            assert!(names.iter().all(|name| name.symlink_metadata().map_or(true, |found| found.is_file())));
            assert_eq!(fs::metadata(&treasure)?.nlink(), 1);
            // Amid its life, and then it ends by itself.
            plant(planted);
            assert_eq!(starter.pid().await?, Some(pid), "what is there is not read");
            assert!(!starter.stop().await?.was_killed());
            is_unharmed();
            for name in &names {
                let _ = fs::remove_file(name).or_else(|_| fs::remove_dir(name));
            }
        }
    }
    // What can't be removed is in the way of his own daemon alone.
    fs::create_dir_all(names[0].join("full"))?;
    let error = controller.start().await.unwrap_err();
    assert!(format!("{error:#}").contains(&*stay.pidfile().to_string_lossy()), "{error:#}");
    assert_eq!(others_of_this_case(), [0; 0]);
    as_root.start().await?;
    as_root.stop().await?;
    is_unharmed();
    fs::remove_dir_all(stay.apart())?;
    controller.start().await?;
    controller.stop().await?;
    stay.is_tidy()
}

/// Nothing of the one's is handed on to the other.
pub(crate) async fn first_one_user_then_another(site: Site) -> Outcome {
    let stay = Stay::new(site)?;
    let other = Account::new();
    let journal = Journal(stay.site.at("others"));
    fs::write(&journal.0, "")?;
    chown(&journal.0, Some(other.uid), None)?;
    let first = stay.controller(stay.site.idle());
    let second = as_user(stay.site.controller(Actor::idle(&journal)), &other.name);
    first.start().await?;
    first.stop().await?;
    let kept = fs::File::open(stay.apart())?;
    let pid = second.start().await?.pid();
    let now = fs::metadata(stay.apart())?;
    assert_eq!((now.uid(), now.mode() & 0o7777), (other.uid, 0o755));
    assert_ne!(now.ino(), kept.metadata()?.ino(), "whoever has it open has the old one");
    drop(kept);
    assert_eq!(fs::read_to_string(stay.pidfile())?, format!("{pid}\n"));
    kill(pid).await?;
    // What was killed is cleared away, and so it goes back.
    first.start().await?;
    assert_eq!(fs::metadata(stay.apart())?.uid(), stay.account.uid);
    first.stop().await?;
    fs::write(stay.apart().join("mine"), "")?;
    let error = second.start().await.unwrap_err();
    assert_eq!(error.path(), Some(&*stay.apart()), "{error:?}");
    assert!(error.to_string().contains("not empty") && error.to_string().contains(&other.name), "{error}");
    assert_eq!(first.state().await?, State::Stopped, "the lock was given back");
    fs::remove_file(stay.apart().join("mine"))?;
    // What is there and is root's was not made for this: it is left alone, unless it is empty.
    fs::remove_dir(stay.apart())?;
    fs::create_dir_all(stay.apart().join("roots"))?;
    let error = first.start().await.unwrap_err();
    assert_eq!(error.path(), Some(&*stay.apart()), "{error:?}");
    assert_eq!(fs::metadata(stay.apart())?.uid(), 0);
    fs::remove_dir(stay.apart().join("roots"))?;
    first.start().await?;
    first.stop().await?;
    stay.is_tidy()
}

/// Entered, opened and written with the user's rights, and no others.
pub(crate) async fn directories_and_files_are_the_users(site: Site) -> Outcome {
    let stay = Stay::new(site)?;
    let (roots, users) = (stay.site.at("roots"), stay.site.at("users"));
    for directory in [&roots, &users] {
        fs::create_dir(directory)?;
        fs::set_permissions(directory, Permissions::from_mode(0o700))?;
    }
    chown(&users, Some(stay.account.uid), None)?;
    let controller = stay.controller(stay.site.idle());

    let error = controller.clone().current_dir(&roots).start().await.unwrap_err();
    let text = format!("{error:#}");
    assert!(text.contains(&*roots.to_string_lossy()) && text.contains(&stay.account.name), "{text}");
    // Where that is not our own spawn, the steps of a failed start are not told apart.
    let expected = if cfg!(any(deluxe_process_force_portable, deluxe_process_force_posix_spawn)) {
        ErrorKind::PermissionDenied
    } else {
        ErrorKind::WorkingDirectory
    };
    assert_eq!(error.kind(), expected, "{error:?}");
    let pid = controller.clone().current_dir(&users).start().await?.pid();
    assert_eq!(Facts(pid).directory(), users);
    controller.stop().await?;

    for log in [roots.join("log"), stay.site.directory().join("log")] {
        let error = controller.clone().log_file(&log).start().await.unwrap_err();
        assert!(format!("{error:#}").contains(&*log.to_string_lossy()), "{error:#}");
        assert!(!log.exists());
    }
    let log = users.join("log");
    controller.clone().log_file(&log).start().await?;
    controller.stop().await?;
    assert_eq!(fs::metadata(&log)?.uid(), stay.account.uid);

    let error = controller.clone().pidfile(roots.join("a.pid")).start().await.unwrap_err();
    assert!(format!("{error:#}").contains(&*roots.join("a.pid").to_string_lossy()), "{error:#}");
    assert_eq!(others_of_this_case(), [0; 0]);
    let elsewhere = controller.clone().pidfile(users.join("a.pid"));
    let pid = elsewhere.start().await?.pid();
    assert_eq!(fs::read_to_string(users.join("a.pid"))?, format!("{pid}\n"));
    assert_eq!(names_in(&stay.apart()), [""; 0]);
    elsewhere.stop().await?;
    assert!(!users.join("a.pid").exists());

    // By the time root goes that way again, it leads somewhere else.
    kill(elsewhere.start().await?.pid()).await?;
    fs::write(roots.join("a.pid"), TREASURE)?;
    fs::rename(&users, stay.site.at("away"))?;
    symlink(&roots, &users)?;
    let error = elsewhere.start().await.unwrap_err();
    assert!(format!("{error:#}").contains("a.pid"), "{error:#}");
    assert_eq!(fs::read_to_string(roots.join("a.pid"))?, TREASURE);
    fs::remove_file(&users)?;
    fs::rename(stay.site.at("away"), &users)?;
    elsewhere.start().await?;
    elsewhere.stop().await?;
    assert!(!users.join("a.pid").exists(), "the next one replaces what was left, and removes its own");
    stay.is_tidy()
}
