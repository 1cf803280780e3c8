//! A service that ends in order: it serves, and on Ctrl-C or SIGTERM it stops accepting, lets its clients finish, and
//! ends. A second Ctrl-C or SIGTERM ends it at once. SIGHUP has it read its configuration again.
//!
//! `cargo run --example shutdown`, then `nc 127.0.0.1 PORT` for a client, which gets its lines back.

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
        // Before anything else: what arrives while the service starts is not missed.
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

        // From here on the next signal has its default action again.
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

/// Gives each line back. A client that goes away is no failure of the service.
async fn serve(stream: TcpStream) {
    let mut writer = stream.clone();
    let mut lines = BufReader::new(stream).lines();
    while let Some(Ok(line)) = lines.next().await {
        if writer.write_all(format!("{line}\n").as_bytes()).await.is_err() {
            return;
        }
    }
}
