//! Accepts connections: so many and no more, and none that says nothing.
//!
//! In: a listening socket. Out: a stream of connections for the HTTP/2 server.
//! Over the limit: one that is not let in is closed for the new one and counted, or, where all are, the new one (`places`). A connection that has not sent the HTTP/2 preface in time, or later not even answers
//! a keepalive ping, is closed and counted, be it in clear or under TLS.
//! Must not know: HTTP/2, TLS, services.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, Sleep, sleep_until};
use tokio_stream::Stream;
use tokio_util::sync::WaitForCancellationFutureOwned;
use tonic::Request;
use tonic::transport::server::Connected;

use super::auth::Admission;
use super::places::{Place, Places, Ticket};

/// Bytes of the HTTP/2 connection preface (RFC 9113, 3.4): whoever sent fewer has said nothing.
const PREFACE_BYTES: u64 = 24;
/// How long accepting rests after an error such as too many open files, so as not to spin.
const ACCEPT_REST: Duration = Duration::from_millis(100);

/// How long a connection may be silent.
#[derive(Clone, Copy, Debug)]
pub(super) struct ConnectionLimits {
    /// From the accept until the preface, or a TLS hello of that length, has come.
    pub(super) hello: Duration,
    /// Afterwards, between two reads that bring something: longer than a ping and its answer.
    pub(super) silence: Duration,
}

/// Connections that were closed by a limit, since the start.
#[derive(Debug, Default)]
pub struct ConnectionCounts {
    refused: AtomicU64,
    gave_way: AtomicU64,
    silent: AtomicU64,
}

impl ConnectionCounts {
    /// Closed at once because there were too many (`server.connections_max`).
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// Closed for a newcomer's sake, since there were too many and no call of theirs had been let in, or none by a token that is still
    /// in force.
    pub fn gave_way(&self) -> u64 {
        self.gave_way.load(Ordering::Relaxed)
    }

    /// Closed because nothing came for too long.
    pub fn silent(&self) -> u64 {
        self.silent.load(Ordering::Relaxed)
    }
}

/// The stream of accepted connections. Never ends.
pub(super) struct Incoming {
    listener: TcpListener,
    limits: ConnectionLimits,
    places: Arc<Places>,
    counts: Arc<ConnectionCounts>,
    rest: Option<Pin<Box<Sleep>>>,
}

impl Incoming {
    /// Accepts from `listener`.
    pub(super) fn new(listener: TcpListener, limits: ConnectionLimits, (places, counts): (Arc<Places>, Arc<ConnectionCounts>)) -> Self {
        Self { listener, limits, places, counts, rest: None }
    }

    fn admit(&self, stream: TcpStream) -> Option<Connection> {
        let limit = self.places.max();
        // Either is told at 1, 2, 4, 8, ...: an attack must not fill the log.
        let Some((place, is_for_another)) = self.places.take() else {
            let refused = self.counts.refused.fetch_add(1, Ordering::Relaxed) + 1;
            if refused.is_power_of_two() {
                tracing::warn!(refused, limit, "connection refused: server.connections_max are open");
            }
            return None;
        };
        if is_for_another {
            let gave_way = self.counts.gave_way.fetch_add(1, Ordering::Relaxed) + 1;
            if gave_way.is_power_of_two() {
                tracing::warn!(
                    gave_way,
                    limit,
                    "a connection that had shown no token, or none that is in force, gave way: server.connections_max are open"
                );
            }
        }
        // Small answers must not wait for more (Nagle); failing here costs latency only.
        let _ = stream.set_nodelay(true);
        let silence = Box::pin(sleep_until(Instant::now() + self.limits.hello));
        Some(Connection {
            stream,
            heard: 0,
            last_heard: Instant::now(),
            silence,
            limits: self.limits,
            counts: self.counts.clone(),
            given_away: Box::pin(place.given_away()),
            place,
        })
    }
}

impl Stream for Incoming {
    type Item = io::Result<Connection>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            if let Some(rest) = &mut self.rest {
                ready!(rest.as_mut().poll(cx));
                self.rest = None;
            }
            match ready!(self.listener.poll_accept(cx)) {
                Ok((stream, _)) => {
                    if let Some(connection) = self.admit(stream) {
                        return Poll::Ready(Some(Ok(connection)));
                    }
                }
                Err(error) => {
                    tracing::warn!("cannot accept a connection: {error}");
                    self.rest = Some(Box::pin(sleep_until(Instant::now() + ACCEPT_REST)));
                }
            }
        }
    }
}

/// An accepted connection that holds its place among the allowed ones.
pub(super) struct Connection {
    stream: TcpStream,
    /// Bytes read so far.
    heard: u64,
    last_heard: Instant,
    silence: Pin<Box<Sleep>>,
    limits: ConnectionLimits,
    counts: Arc<ConnectionCounts>,
    given_away: Pin<Box<WaitForCancellationFutureOwned>>,
    place: Place,
}

impl Connection {
    /// Ready when nothing came for too long. The timer is set again only when it goes off, so
    /// that a busy connection pays nothing for it.
    fn poll_silent(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            ready!(self.silence.as_mut().poll(cx));
            let due = self.last_heard + self.limits.silence;
            if self.heard < PREFACE_BYTES || due <= Instant::now() {
                return Poll::Ready(());
            }
            self.silence.as_mut().reset(due);
        }
    }

    /// An error once the place is another connection's. Asked by writes, too: while one waits for its client, nothing is read.
    fn keep_place(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        match self.given_away.as_mut().poll(cx) {
            Poll::Ready(()) => Err(io::Error::new(io::ErrorKind::ConnectionAborted, "its place was given to another connection")),
            Poll::Pending => Ok(()),
        }
    }
}

impl AsyncRead for Connection {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.keep_place(cx)?;
        let before = buf.filled().len();
        if let Poll::Ready(read) = Pin::new(&mut self.stream).poll_read(cx, buf) {
            self.heard += (buf.filled().len() - before) as u64;
            self.last_heard = Instant::now();
            return Poll::Ready(read);
        }
        ready!(self.poll_silent(cx));
        self.counts.silent.fetch_add(1, Ordering::Relaxed);
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the client was silent for too long")))
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.keep_place(cx)?;
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.keep_place(cx)?;
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bufs: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        self.keep_place(cx)?;
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

impl Connected for Connection {
    type ConnectInfo = Caller;

    fn connect_info(&self) -> Self::ConnectInfo {
        Caller { address: self.stream.peer_addr().ok(), ticket: self.place.ticket() }
    }
}

/// What a call knows of its connection.
#[derive(Clone)]
pub(super) struct Caller {
    address: Option<SocketAddr>,
    ticket: Ticket,
}

impl Caller {
    /// The connection keeps its place from now on, as long as its token is in force.
    pub(super) fn let_in(&self, by: Option<&Admission>) {
        self.ticket.let_in(by);
    }
}

/// The address that a call came from; `None` without a network.
pub(super) fn address<T>(request: &Request<T>) -> Option<SocketAddr> {
    request.extensions().get::<Caller>().and_then(|caller| caller.address)
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio_stream::StreamExt;

    use super::*;

    const LIMITS: ConnectionLimits = ConnectionLimits { hello: Duration::from_secs(5), silence: Duration::from_secs(40) };

    async fn listening() -> (Incoming, std::net::SocketAddr, Arc<ConnectionCounts>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
        let address = listener.local_addr().expect("an address");
        let counts = Arc::new(ConnectionCounts::default());
        (Incoming::new(listener, LIMITS, (Places::new(1), counts.clone())), address, counts)
    }

    #[tokio::test]
    async fn one_connection_too_many_is_closed_and_counted() {
        let (mut incoming, address, counts) = listening().await;
        let _first_client = TcpStream::connect(address).await.expect("connected");
        let first = incoming.next().await.expect("never ends").expect("accepted");
        first.connect_info().let_in(None);
        let mut second_client = TcpStream::connect(address).await.expect("connected");
        let third = tokio::spawn(async move { incoming.next().await.expect("never ends").is_ok() });
        assert_eq!(second_client.read(&mut [0; 1]).await.unwrap_or(0), 0, "closed by the server");
        assert_eq!(counts.refused(), 1);
        drop(first);
        let _third_client = TcpStream::connect(address).await.expect("connected");
        assert!(third.await.expect("no panic"), "a place that becomes free is given away again");
    }

    #[tokio::test]
    async fn whoever_was_not_let_in_yet_gives_way_also_while_its_client_does_not_read() {
        let (mut incoming, address, counts) = listening().await;
        let _first_client = TcpStream::connect(address).await.expect("connected");
        let mut first = incoming.next().await.expect("never ends").expect("accepted");
        let writing = tokio::spawn(async move {
            while first.write(&[0; 1 << 16]).await? > 0 {}
            io::Result::Ok(())
        });
        let _second_client = TcpStream::connect(address).await.expect("connected");
        let second = tokio::time::timeout(Duration::from_secs(30), incoming.next()).await.expect("there is a place for it");
        let error = tokio::time::timeout(Duration::from_secs(30), writing)
            .await
            .expect("it is told")
            .expect("no panic")
            .expect_err("its place is given away");
        assert_eq!(error.kind(), io::ErrorKind::ConnectionAborted);
        assert_eq!((counts.gave_way(), counts.refused()), (1, 0));
        drop(second);
    }

    #[tokio::test]
    async fn a_client_that_says_nothing_is_closed_and_counted() {
        let (mut incoming, address, counts) = listening().await;
        let mut client = TcpStream::connect(address).await.expect("connected");
        let mut connection = incoming.next().await.expect("never ends").expect("accepted");
        client.write_all(&[0; 10]).await.expect("written");
        assert_eq!(connection.read(&mut [0; 64]).await.expect("half a preface"), 10);
        tokio::time::pause();
        let before = Instant::now();
        let error = connection.read(&mut [0; 64]).await.expect_err("silence");
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert!(before.elapsed() <= LIMITS.hello + Duration::from_millis(1), "{:?}", before.elapsed());
        assert_eq!(counts.silent(), 1);
    }

    #[tokio::test]
    async fn a_client_that_has_spoken_may_be_silent_for_longer() {
        let (mut incoming, address, _) = listening().await;
        let mut client = TcpStream::connect(address).await.expect("connected");
        let mut connection = incoming.next().await.expect("never ends").expect("accepted");
        client.write_all(&[0; 24]).await.expect("written");
        let mut heard = 0;
        while heard < 24 {
            heard += connection.read(&mut [0; 64]).await.expect("the preface");
        }
        tokio::time::pause();
        let before = Instant::now();
        connection.read(&mut [0; 64]).await.expect_err("silence");
        assert!(before.elapsed() > Duration::from_secs(39), "{:?}", before.elapsed());
    }
}
