//! A daemon with a small command line: it counts the lines that arrive in a spool directory.
//!
//! ```sh
//! cargo run --example daemon -- start
//! echo "hello" > /tmp/deluxe-spool/note && sleep 1
//! cargo run --example daemon -- user1      # writes the count so far to /tmp/deluxe-spool/.count
//! cargo run --example daemon -- status
//! cargo run --example daemon -- stop
//! ```
//!
//! The spool directory is `/tmp/deluxe-spool`, or the argument after the command.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use deluxe_process::daemon::{Context, State};
use deluxe_process::{BoxError, Controller, Daemon};
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize)]
struct LineCounter {
    spool: PathBuf,
    /// The count is not an argument: each daemon starts at 0.
    #[serde(skip)]
    lines: AtomicU64,
}

impl LineCounter {
    /// Counts the lines that have arrived, and removes the files.
    fn collect(&self) -> std::io::Result<()> {
        for entry in std::fs::read_dir(&self.spool)? {
            let path = entry?.path();
            if path.is_file() && !is_hidden(&path) {
                let text = std::fs::read_to_string(&path)?;
                self.lines.fetch_add(text.lines().count() as u64, Ordering::Relaxed);
                std::fs::remove_file(&path)?;
            }
        }
        Ok(())
    }

    /// Writes the count. Readers never see half of it.
    fn report(&self) -> std::io::Result<()> {
        let count = self.lines.load(Ordering::Relaxed);
        let temporary = self.spool.join(".count.new");
        std::fs::write(&temporary, format!("{count}\n"))?;
        std::fs::rename(temporary, self.spool.join(".count"))
    }
}

fn is_hidden(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'))
}

impl Daemon for LineCounter {
    const NAME: &'static str = "line-counter";

    /// An error here is the error of the start.
    async fn setup(&mut self, _: &Context) -> Result<(), BoxError> {
        std::fs::create_dir_all(&self.spool)?;
        self.collect()?;
        Ok(())
    }

    async fn run(&self, _: &Context) -> Result<(), BoxError> {
        loop {
            self.collect()?;
            smol::Timer::after(Duration::from_millis(100)).await;
        }
    }

    async fn on_user1(&self, _: &Context) {
        if let Err(error) = self.collect().and_then(|()| self.report()) {
            eprintln!("could not report: {error}");
        }
    }

    /// SIGHUP begins a new count.
    async fn on_hangup(&self, _: &Context) {
        self.lines.store(0, Ordering::Relaxed);
    }

    async fn at_exit(&self, _: &Context) {
        if let Err(error) = self.report() {
            eprintln!("could not report: {error}");
        }
    }
}

fn main() -> Result<(), BoxError> {
    // In the process of the daemon, this line runs the daemon and never returns.
    deluxe_process::daemon::init().register::<LineCounter>().run_on(smol::block_on);

    let mut args = std::env::args().skip(1);
    let command = args.next().unwrap_or_default();
    let spool = args.next().map_or_else(|| PathBuf::from("/tmp/deluxe-spool"), PathBuf::from);
    let spool = std::path::absolute(spool)?;

    smol::block_on(async {
        let counter = Controller::new(LineCounter { spool, lines: AtomicU64::new(0) });
        match command.as_str() {
            "start" => {
                let started = counter.start().await?;
                let how = if started.was_already_running() { "runs already" } else { "started" };
                println!("{how}, pid {}", started.pid());
            }
            "stop" => {
                let stopped = counter.stop().await?;
                match stopped.exit_status() {
                    Some(status) => println!("stopped, {status}"),
                    None if stopped.was_running() => println!("stopped"),
                    None => println!("did not run"),
                }
            }
            "restart" => println!("restarted, pid {}", counter.restart().await?.pid()),
            "status" => match counter.state().await? {
                State::Running { pid, since, .. } => {
                    let age = since.elapsed().unwrap_or_default();
                    println!("runs, pid {pid}, for {} s", age.as_secs());
                }
                State::Starting => println!("is starting"),
                State::Ending => println!("is ending"),
                _ => println!("does not run"),
            },
            "reload" => println!("{:?}", counter.reload().await?),
            "user1" => println!("{:?}", counter.signal_user1().await?),
            _ => {
                eprintln!("usage: daemon start | stop | restart | status | reload | user1 [SPOOL]");
                std::process::exit(2);
            }
        }
        Ok(())
    })
}
