//! The API's TCP connections: at most so many at once, and none that says nothing for long.
//!
//! People at a shell write `?StartTime>=2026-01-01`, as the ecosystem's pages show it, and curl sends
//! it as it is. That is no URI, and the HTTP parser would refuse it without a word: the first line of a
//! connection gets it percent-encoded.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::serve::Listener;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, Sleep, sleep};

/// Connections at once; more wait in the kernel's queue.
const CONNECTIONS_MAX: usize = 4_096;
/// A connection on which nothing was read or written for so long is closed.
const IDLE_MAX: Duration = Duration::from_secs(60);

/// Accepts connections of the API.
pub(crate) struct ApiListener {
    listener: TcpListener,
    room: Arc<Semaphore>,
    idle_max: Duration,
}

impl ApiListener {
    pub(crate) fn new(listener: TcpListener) -> Self {
        let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        Self { listener, room, idle_max: IDLE_MAX }
    }
}

impl Listener for ApiListener {
    type Io = Connection;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Connection, SocketAddr) {
        // The semaphore is never closed.
        let room = self.room.clone().acquire_owned().await.ok();
        // axum's own way of accepting goes on after errors.
        let (stream, address) = Listener::accept(&mut self.listener).await;
        let idle_max = self.idle_max;
        let idle = Box::pin(sleep(idle_max));
        let first_line = FirstLine::default();
        (Connection { stream, first_line, idle, idle_max, _room: room }, address)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// A connection that ends when nothing moves.
pub(crate) struct Connection {
    stream: TcpStream,
    first_line: FirstLine,
    idle: Pin<Box<Sleep>>,
    idle_max: Duration,
    _room: Option<OwnedSemaphorePermit>,
}

/// The first line on its way, until it is over.
#[derive(Default)]
struct FirstLine {
    is_over: bool,
    /// Read and corrected, but not handed on yet.
    waiting: VecDeque<u8>,
}

impl FirstLine {
    fn take_in(&mut self, bytes: &[u8]) {
        for byte in bytes {
            match byte {
                b'<' if !self.is_over => self.waiting.extend(b"%3C"),
                b'>' if !self.is_over => self.waiting.extend(b"%3E"),
                b'"' if !self.is_over => self.waiting.extend(b"%22"),
                other => self.waiting.push_back(*other),
            }
            self.is_over |= *byte == b'\n';
        }
    }

    fn hand_on(&mut self, buffer: &mut ReadBuf<'_>) {
        let count = self.waiting.len().min(buffer.remaining());
        for byte in self.waiting.drain(..count) {
            buffer.put_slice(&[byte]);
        }
    }
}

/// Bytes read at once while the first line lasts.
const FIRST_LINE_BYTES: usize = 1_024;

impl Connection {
    fn read_first_line(
        &mut self,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.first_line.waiting.is_empty() {
            let mut bytes = [0; FIRST_LINE_BYTES];
            let mut read = ReadBuf::new(&mut bytes);
            match Pin::new(&mut self.stream).poll_read(context, &mut read) {
                Poll::Ready(Ok(())) => self.first_line.take_in(read.filled()),
                other => return other,
            }
        }
        self.first_line.hand_on(buffer);
        Poll::Ready(Ok(()))
    }

    fn moved<T>(&mut self, poll: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if poll.is_ready() {
            self.idle.as_mut().reset(Instant::now() + self.idle_max);
        }
        poll
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let poll = if self.first_line.is_over && self.first_line.waiting.is_empty() {
            Pin::new(&mut self.stream).poll_read(context, buffer)
        } else {
            self.read_first_line(context, buffer)
        };
        if poll.is_pending() && self.idle.as_mut().poll(context).is_ready() {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        self.moved(poll)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let poll = Pin::new(&mut self.stream).poll_write(context, bytes);
        if poll.is_pending() && self.idle.as_mut().poll(context).is_ready() {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        self.moved(poll)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let poll = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        if poll.is_pending() && self.idle.as_mut().poll(context).is_ready() {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        self.moved(poll)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    #[test]
    fn the_first_line_becomes_a_uri_and_nothing_else_changes() {
        let mut line = FirstLine::default();
        let mut seen = Vec::new();
        for piece in ["GET /a?S>=1&", "T<=\"2\" HTTP/1.1\r\nX: <", ">\r\n"] {
            line.take_in(piece.as_bytes());
            let mut bytes = [0; 7];
            loop {
                let mut buffer = ReadBuf::new(&mut bytes);
                line.hand_on(&mut buffer);
                if buffer.filled().is_empty() {
                    break;
                }
                seen.extend_from_slice(buffer.filled());
            }
        }
        let seen = String::from_utf8(seen).unwrap();
        assert_eq!(seen, "GET /a?S%3E=1&T%3C=%222%22 HTTP/1.1\r\nX: <>\r\n");
    }

    #[tokio::test]
    async fn half_a_request_does_not_hold_a_connection_for_ever() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let idle_max = Duration::from_millis(200);
        let listener = ApiListener { idle_max, ..ApiListener::new(listener) };
        let router = axum::Router::new().fallback(|| async { "hello" });
        tokio::spawn(async move { axum::serve(listener, router).await });
        let mut good = TcpStream::connect(address).await.unwrap();
        good.write_all(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await.unwrap();
        let mut text = String::new();
        good.read_to_string(&mut text).await.unwrap();
        assert!(text.ends_with("hello"), "{text}");

        let mut slow = TcpStream::connect(address).await.unwrap();
        slow.write_all(b"GET / HTTP/1.1\r\nHost").await.unwrap();
        let mut rest = Vec::new();
        let ended = slow.read_to_end(&mut rest);
        tokio::time::timeout(Duration::from_secs(5), ended).await.unwrap().unwrap();
        assert!(rest.is_empty(), "{rest:?}");
    }
}
