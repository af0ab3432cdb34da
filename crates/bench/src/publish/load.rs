//! An echo, and visitors that talk to it.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use testkit::Machine;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// Sends back what it gets, to any number of visitors, until it is dropped.
pub(super) struct Echo(Option<tokio::runtime::Runtime>);

impl Echo {
    pub(super) fn start(machine: &Machine, at: SocketAddr) -> Result<Self> {
        let listener = machine.enter(|| std::net::TcpListener::bind(at))??;
        listener.set_nonblocking(true)?;
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        let runtime = builder.worker_threads(1).enable_all().build()?;
        runtime.spawn(async move {
            let listener = tokio::net::TcpListener::from_std(listener)?;
            loop {
                let (mut stream, _) = listener.accept().await?;
                tokio::spawn(async move {
                    stream.set_nodelay(true)?;
                    let mut byte = [0; 64];
                    loop {
                        match stream.read(&mut byte).await? {
                            0 => return std::io::Result::Ok(()),
                            length => stream.write_all(&byte[..length]).await?,
                        }
                    }
                });
            }
            #[expect(unreachable_code, reason = "gives the errors their type")]
            std::io::Result::Ok(())
        });
        Ok(Self(Some(runtime)))
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

/// A visitor of the echo.
pub(super) struct Visitor(TcpStream);

/// Connects, from the machine that the thread is in.
pub(super) fn connect(to: SocketAddr) -> Result<Visitor> {
    let stream = TcpStream::connect_timeout(&to, PATIENCE)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    Ok(Visitor(stream))
}

impl Visitor {
    /// Sends a byte and waits until it is back, so many times. Returns how long each took.
    pub(super) fn exchange(&mut self, times: usize) -> Result<Vec<Duration>> {
        let mut byte = [0];
        (0..times)
            .map(|_| {
                let begin = Instant::now();
                self.0.write_all(&[7])?;
                self.0.read_exact(&mut byte).context("no answer")?;
                Ok(begin.elapsed())
            })
            .collect()
    }
}
