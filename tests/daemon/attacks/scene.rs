//! The place of a case: a directory for the daemon's files, what its daemons note, and what can be seen of them.

use std::collections::BTreeSet;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use deluxe_process::daemon::State;
use deluxe_process::{Controller, ErrorKind};
use futures_lite::future::block_on;

use crate::attacks::raw;
use crate::attacks::worker::{Run, Setup, Worker};

/// What has not come by then never comes.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Clone)]
pub(crate) struct Scene {
    pub(crate) path: PathBuf,
    /// Removed with the last of those who made it.
    _kept: Option<Arc<tempfile::TempDir>>,
}

impl Scene {
    pub(crate) fn new() -> Scene {
        let kept = tempfile::tempdir().unwrap();
        let scene = Scene { path: kept.path().to_owned(), _kept: Some(Arc::new(kept)) };
        std::fs::create_dir(scene.directory()).unwrap();
        rustix::fs::mknodat(
            rustix::fs::CWD,
            scene.fifo(),
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::from_raw_mode(0o600),
            0,
        )
        .unwrap();
        scene
    }

    /// The scene of another process.
    pub(crate) fn at(path: &Path) -> Scene {
        Scene { path: path.to_owned(), _kept: None }
    }

    pub(crate) fn directory(&self) -> PathBuf {
        self.path.join("d")
    }

    pub(crate) fn fifo(&self) -> PathBuf {
        self.path.join("fifo")
    }

    pub(crate) fn lock(&self) -> PathBuf {
        self.directory().join("worker.lock")
    }

    pub(crate) fn pidfile(&self) -> PathBuf {
        self.directory().join("worker.pid")
    }

    /// Lets the daemons of this user write here, but for the directory of their files.
    pub(crate) fn belongs_to(&self, uid: u32) {
        let log = self.path.join("log");
        File::options().append(true).create(true).open(&log).unwrap();
        for path in [&self.path, &self.fifo(), &log] {
            std::os::unix::fs::chown(path, Some(uid), None).unwrap();
        }
    }

    pub(crate) fn worker(&self) -> Worker {
        Worker { scene: self.path.clone(), setup: Setup::Quick, run: Run::UntilTold, load: Vec::new() }
    }

    pub(crate) fn controller_of(&self, worker: Worker) -> Controller<Worker> {
        Controller::new(worker).directory(self.directory()).start_timeout(PATIENCE).stop_timeout(PATIENCE)
    }

    pub(crate) fn controller(&self) -> Controller<Worker> {
        self.controller_of(self.worker())
    }

    /// For those who do not start it.
    pub(crate) fn of(&self) -> Controller {
        Controller::of::<Worker>().directory(self.directory()).start_timeout(PATIENCE).stop_timeout(PATIENCE)
    }

    /// Starts the daemon, which did not run.
    pub(crate) fn start(&self) -> u32 {
        self.start_with(self.worker())
    }

    pub(crate) fn start_with(&self, worker: Worker) -> u32 {
        let started = block_on(self.controller_of(worker).start()).unwrap();
        assert!(!started.was_already_running());
        assert_eq!(self.shown(), format!("{}\n", started.pid()));
        started.pid()
    }

    /// What the pidfile says.
    pub(crate) fn shown(&self) -> String {
        std::fs::read_to_string(self.pidfile()).unwrap()
    }

    pub(crate) fn stop(&self) {
        let stopped = block_on(self.of().stop()).unwrap();
        assert!(stopped.was_running() && !stopped.was_killed(), "{stopped:?}");
        assert_eq!(stopped.exit_status().map(|status| status.to_string()).as_deref(), Some("exit status: 0"));
    }

    /// The daemon's number, if it runs.
    pub(crate) fn pid(&self) -> Option<u32> {
        block_on(self.of().pid()).unwrap()
    }

    /// Nothing runs, no number is shown, all that is left is the lock file and how the last one has ended, and nobody has ever
    /// seen two at once. Then a
    /// start and a stop, as if nothing had happened.
    pub(crate) fn is_as_new(&self) {
        assert_eq!(block_on(self.of().state()).unwrap(), State::Stopped);
        self.has_no_breach();
        self.start();
        self.stop();
        let left: BTreeSet<String> = std::fs::read_dir(self.directory())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        assert_eq!(left, BTreeSet::from(["worker.last".to_owned(), "worker.lock".to_owned()]));
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.path.join("log")).unwrap_or_default()
    }

    pub(crate) fn has_no_breach(&self) {
        let log = self.log();
        assert!(!log.contains("TWO"), "{log}");
    }

    /// Writes a small file as a whole.
    pub(crate) fn publish(&self, name: &str, text: &str) {
        let temporary = self.path.join(format!("{name}.new"));
        std::fs::write(&temporary, text).unwrap();
        std::fs::rename(temporary, self.path.join(name)).unwrap();
    }

    /// What was published under this name.
    pub(crate) fn published(&self, name: &str) -> String {
        until(|| std::fs::read_to_string(self.path.join(name)).ok())
    }

    /// Lets go who waits for the FIFO; waits for him to be there.
    pub(crate) fn open_fifo(&self) {
        drop(self.writer());
    }

    /// The writing end of the FIFO, which can be had only when somebody reads, or waits to.
    pub(crate) fn writer(&self) -> std::fs::File {
        until(|| self.try_writer())
    }

    pub(crate) fn try_writer(&self) -> Option<std::fs::File> {
        let flags = rustix::fs::OFlags::WRONLY | rustix::fs::OFlags::NONBLOCK | rustix::fs::OFlags::CLOEXEC;
        rustix::fs::open(self.fifo(), flags, rustix::fs::Mode::empty()).ok().map(Into::into)
    }

    /// The daemon is somewhere between; waits for the end of that.
    pub(crate) fn settled(&self) -> State {
        until(|| match block_on(self.of().state()).unwrap() {
            State::Starting | State::Ending => None,
            state => Some(state),
        })
    }
}

/// A process that has nothing to do with all of it, and must live on.
pub(crate) struct Bystander(std::process::Child);

impl Bystander {
    pub(crate) fn new() -> Bystander {
        Bystander(std::process::Command::new("sleep").arg("1000").spawn().unwrap())
    }

    pub(crate) fn pid(&self) -> u32 {
        self.0.id()
    }

    /// Fails when anybody has signalled it: every signal that daemons are sent would have ended it.
    pub(crate) fn must_be_unharmed(mut self) {
        assert_eq!(self.0.try_wait().unwrap(), None);
        assert!(raw::is_alive(self.0.id()));
    }
}

impl Drop for Bystander {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Asks until there is an answer.
pub(crate) fn until<T>(mut ask: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(Instant::now() < deadline, "waited in vain");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Nobody is signalled, nothing is started, and it is said that nothing can be proved.
pub(crate) fn is_unverifiable<T: std::fmt::Debug>(result: deluxe_process::Result<T>, what: &str) {
    let error = result.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unverifiable, "{error:?}");
    assert!(error.to_string().contains(what), "{error}");
}

/// Where chance begins, said aloud so that it can be had again.
pub(crate) fn chance() -> Chance {
    let seed = std::env::var("DAEMON_ATTACKS_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed: u64 = seed.unwrap_or_else(|| {
        u64::from(std::process::id())
            ^ std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().subsec_nanos() as u64
    });
    println!("DAEMON_ATTACKS_SEED={seed}");
    Chance(seed | 1)
}

/// xorshift, which is chance enough.
pub(crate) struct Chance(u64);

impl Chance {
    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}
