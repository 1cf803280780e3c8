//! A service with a graceful shutdown: on Ctrl-C or SIGTERM it stops accepting, lets its clients finish and exits. A second
//! Ctrl-C or SIGTERM ends it at once. On SIGHUP it reads its configuration again.
//!
//! Run `cargo run --example shutdown`, and then `nc 127.0.0.1 PORT`: the service sends each line back.

use std::error::Error;
use std::process;

use deluxe_process::{Signal, SignalInfo, Signals, signal};
use futures_lite::io::BufReader;
use futures_lite::{AsyncBufReadExt, AsyncWriteExt, FutureExt, StreamExt};
use smol::Task;
use smol::net::{TcpListener, TcpStream};

/// What the service has to do next.
enum Next {
    Serve(TcpStream),
    Reload(SignalInfo),
    End(Signal),
}

fn main() -> Result<(), Box<dyn Error>> {
    smol::block_on(async {
        // First, so that no signal is missed while the service starts.
        let mut end = signal::termination();
        let mut reload = Signals::new([Signal::HUP])?;

        let listener = TcpListener::bind("127.0.0.1:0").await?;
        println!("process {} serves on {}", process::id(), listener.local_addr()?);

        let mut clients: Vec<Task<()>> = Vec::new();
        let signal = loop {
            let next = async { Ok(Next::End((&mut end).await?)) }
                .or(async {
                    match reload.next().await {
                        Some(info) => Ok(Next::Reload(info)),
                        None => Err(Box::<dyn Error>::from("no more signals")),
                    }
                })
                .or(async { Ok(Next::Serve(listener.accept().await?.0)) });
            match next.await? {
                Next::Serve(stream) => {
                    clients.retain(|client| !client.is_finished());
                    clients.push(smol::spawn(serve(stream)));
                }
                Next::Reload(info) => println!("{info}: reading the configuration again"),
                Next::End(signal) => break signal,
            }
        };

        // From here on, the next signal has its default action again.
        drop(listener);
        clients.retain(|client| !client.is_finished());
        println!("{signal}: no new clients, waiting for {}; a second signal ends this at once", clients.len());
        for client in clients {
            client.await;
        }
        println!("all clients are served, goodbye");
        Ok(())
    })
}

/// Sends each line back. It is not an error if the client goes away.
async fn serve(stream: TcpStream) {
    let mut writer = stream.clone();
    let mut lines = BufReader::new(stream).lines();
    while let Some(Ok(line)) = lines.next().await {
        if writer.write_all(format!("{line}\n").as_bytes()).await.is_err() {
            return;
        }
    }
}
