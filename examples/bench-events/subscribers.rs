//! Subscribers in a process of their own, each on a connection of its own.
//!
//! In: an address. Out: when each event came to each of them.
//! Must not know: how events are made.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use anyhow::Context;
use doorward::pb;
use doorward::pb::subscribe_request::{Earliest, Now, Start};
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Streaming};
use tonic_prost::ProstCodec;

use crate::now_ns;

/// Subscribers in a process of their own.
pub struct Subscribers {
    child: Child,
    output: BufReader<std::process::ChildStdout>,
}

impl Subscribers {
    /// Starts them; when this returns, every one of them is subscribed.
    pub fn start(address: SocketAddr, subscribers: usize, options: &[&str], until: u64) -> anyhow::Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["subscribe", &address.to_string(), "--subscribers", &subscribers.to_string(), "--until", &until.to_string()]);
        let mut child = command.args(options).stdout(Stdio::piped()).stdin(Stdio::piped()).spawn()?;
        let mut output = BufReader::new(child.stdout.take().context("it is piped")?);
        let mut line = String::new();
        output.read_line(&mut line)?;
        anyhow::ensure!(line.trim() == "subscribed", "the subscribers said {line:?}");
        Ok(Self { child, output })
    }

    /// When each event came to each of them: sequences and nanoseconds.
    pub fn times(mut self) -> anyhow::Result<Vec<(u64, u64)>> {
        let mut bytes = Vec::new();
        self.output.read_to_end(&mut bytes)?;
        anyhow::ensure!(self.child.wait()?.success(), "the subscribers failed");
        let number = |bytes: &[u8]| bytes.try_into().map(u64::from_le_bytes);
        bytes.chunks_exact(16).map(|pair| Ok((number(&pair[..8])?, number(&pair[8..])?))).collect()
    }

    pub fn end(mut self) -> anyhow::Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }
}

/// What the other process does.
pub async fn subscribe(address: SocketAddr, subscribers: usize, until: u64, (earliest, idle): (bool, bool)) -> anyhow::Result<()> {
    let times = Arc::new(Mutex::new(Vec::<u8>::new()));
    let (tell, mut told) = tokio::sync::mpsc::channel(subscribers);
    let mut reading = tokio::task::JoinSet::new();
    for _ in 0..subscribers {
        let (times, tell) = (Arc::clone(&times), tell.clone());
        reading.spawn(async move {
            let channel = Endpoint::from_shared(format!("http://{address}"))?.connect().await?;
            let start = if earliest { Start::Earliest(Earliest {}) } else { Start::Now(Now {}) };
            let request = pb::SubscribeRequest { start: Some(start), ..Default::default() };
            let mut stream = stream(channel, request).await?;
            stream.message().await?;
            tell.send(()).await?;
            if idle {
                std::future::pending::<()>().await;
            }
            let mut came = Vec::new();
            'reading: while let Some(response) = stream.message().await? {
                let now = now_ns();
                for event in &response.events {
                    let sequence = sequence(event)?;
                    came.extend(sequence.to_le_bytes());
                    came.extend(now.to_le_bytes());
                    if sequence == until {
                        break 'reading;
                    }
                }
            }
            times.lock().map_err(|_| anyhow::anyhow!("a subscriber panicked"))?.extend(came);
            anyhow::Ok(())
        });
    }
    for _ in 0..subscribers {
        told.recv().await.context("a subscriber could not subscribe")?;
    }
    let mut out = std::io::stdout().lock();
    writeln!(out, "subscribed")?;
    out.flush()?;
    while let Some(read) = reading.join_next().await {
        read??;
    }
    let times = times.lock().map_err(|_| anyhow::anyhow!("a subscriber panicked"))?;
    Ok(out.write_all(&times)?)
}

/// Subscribes and leaves the events encoded, so that what is measured is the way to the subscriber and
/// not what a hundred of them do on the same cores.
async fn stream(channel: Channel, request: pb::SubscribeRequest) -> anyhow::Result<Streaming<pb::EncodedSubscribeResponse>> {
    let mut client = tonic::client::Grpc::new(channel);
    client.ready().await?;
    let codec = ProstCodec::<pb::SubscribeRequest, pb::EncodedSubscribeResponse>::default();
    let path = tonic::codegen::http::uri::PathAndQuery::from_static("/doorward.v1.EventService/Subscribe");
    Ok(client.server_streaming(Request::new(request), path, codec).await?.into_inner())
}

/// The number of an encoded event: its first field.
fn sequence(event: &[u8]) -> anyhow::Result<u64> {
    let number = event.strip_prefix(&[0x08]).context("an event begins with its sequence")?;
    Ok(prost::encoding::decode_varint(&mut &number[..])?)
}
