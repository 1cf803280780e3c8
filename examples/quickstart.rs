//! The main features in a few seconds: runs programs, reads streams, writes input, connects two programs, stops a process tree
//! after a timeout, and shows errors. `cargo run --example quickstart`.

use std::time::Duration;

use deluxe_process::{Command, Event, Process, Result, Shutdown, Stdio};
use futures_lite::{StreamExt, future};

fn main() -> Result<()> {
    // Any executor works, and there is nothing to set up.
    future::block_on(async {
        run_and_read().await?;
        stream().await?;
        feed_and_pipe().await?;
        time_out().await?;
        fail().await;
        Ok(())
    })
}

async fn run_and_read() -> Result<()> {
    println!("== run a program, read what it says");
    let system = Command::new("uname").arg("-s").read().await?;
    println!("uname -s says {system}");

    let echo = Command::find("echo")?;
    for word in ["one", "two"] {
        println!("the same command with another argument says {}", echo.with([word]).read().await?);
    }

    let output = Command::new("sh").args(["-c", "echo out; echo err >&2; exit 3"]).output().await?;
    let [out, err] = [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes));
    println!("output has both streams ({:?}, {:?}) and the status ({})", out.trim(), err.trim(), output.status);
    Ok(())
}

async fn stream() -> Result<()> {
    println!("\n== stream lines as they come");
    let mut lines = Command::new("sh").args(["-c", "for n in 3 2 1; do echo $n; sleep 0.2; done"]).lines();
    while let Some(line) = lines.next().await {
        println!("{}", line?);
    }
    let mut events = Command::new("sh").args(["-c", "echo works; sleep 0.1; echo complains >&2; exit 1"]).events();
    while let Some(event) = events.next().await {
        match event? {
            Event::Started { .. } => println!("it runs"),
            Event::Stdout { line, .. } => println!("it {line}"),
            Event::Stderr { line, .. } => println!("it {line}, on stderr"),
            Event::Exit { status, .. } => println!("it ends: {status}"),
            _ => {}
        }
    }
    Ok(())
}

async fn feed_and_pipe() -> Result<()> {
    println!("\n== feed input, and pipe one program into another");
    let upper = Command::new("tr").args(["a-z", "A-Z"]).input("shout").read().await?;
    println!("tr a-z A-Z makes of shout: {upper}");

    let ten_megabytes = vec![b'x'; 10_000_000];
    let back = Command::new("cat").input(ten_megabytes.clone()).read_bytes().await?;
    println!("cat gives 10 MB back as they were: {}", back == ten_megabytes);

    let numbers = Command::new("printf").args(["%s\\n", "3", "1", "2"]).stdout(Stdio::piped()).spawn().await?;
    let pipe = numbers.take_stdout().expect("stdout is piped");
    let sorted = Command::new("sort").stdin(pipe).read().await?;
    numbers.wait().await?;
    println!("printf | sort: {}", sorted.replace('\n', " "));
    Ok(())
}

async fn time_out() -> Result<()> {
    println!("\n== give a tree of processes one second; all of it ignores SIGTERM");
    // A shell starts a shell, which starts a sleep. Each pid is printed.
    let tree = "trap '' TERM; echo $$; sh -c 'echo $$; sleep 1000 & echo $!; wait'; true";
    let mut command = Command::new("sh");
    command.args(["-c", tree]).timeout(Duration::from_secs(1));
    command.shutdown(Shutdown::new().grace(Duration::from_millis(200)));
    match command.output().await {
        Ok(output) => println!("it should not have ended: {}", output.status),
        Err(error) => {
            // The error has the output up to then.
            let said = String::from_utf8_lossy(error.stdout().unwrap_or_default()).into_owned();
            let numbers: Vec<u32> = said.lines().filter_map(|line| line.parse().ok()).collect();
            let mut left = 0;
            for number in &numbers {
                left += usize::from(still_runs(*number).await?);
            }
            println!("{error}");
            println!("its last resort was {:?}", error.signal());
            println!("{} processes had told their numbers, {left} of them still run", numbers.len());
        }
    }
    Ok(())
}

async fn still_runs(number: u32) -> Result<bool> {
    match Process::open(number) {
        Ok(process) => Ok(matches!(process.try_wait(), Ok(None))),
        Err(error) if error.is_not_found() => Ok(false),
        // This system has no handles to processes that are not children.
        Err(_) => {
            let ask = Command::new("sh").args(["-c", "kill -0 $1 2>&-", "sh", &number.to_string()]).status().await?;
            Ok(ask.success())
        }
    }
}

async fn fail() {
    println!("\n== errors worth reading");
    let missing = Command::new("frobnicate").env("PATH", "/bin:/usr/bin").run().await;
    let directory = Command::new("ls").current_dir("/no/such/directory").run().await;
    let script = "echo 'reading the plan' >&2; echo \"no such table: users\" >&2; exit 4";
    let failing = Command::new("sh").args(["-c", script]).read().await;
    let mut login = Command::new("sh");
    login.args(["-c", "echo \"wrong password: $1\" >&2; exit 1", "login"]).secret_arg("hunter2");
    let secret = login.read().await;
    for error in [missing.err(), directory.err(), failing.err(), secret.err()].into_iter().flatten() {
        println!("{:?}: {error:?}\n", error.kind());
    }
}
