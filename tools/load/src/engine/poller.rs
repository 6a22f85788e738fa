//! What the engine's thread sleeps on: sockets, a wake-up, one timer (timerfd, not rounded to
//! milliseconds).

use std::net::UdpSocket;
use std::sync::Arc;
use std::time::Duration;

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::eventfd::EventFd;
use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};

const TOKEN_TIMER: u64 = 0;
const TOKEN_WAKE: u64 = 1;
const TOKEN_SIP: u64 = 1 << 32;
const TOKEN_RTP: u64 = 2 << 32;
const INDEX: u64 = 0xffff_ffff;

/// A source of readiness.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ready {
    /// A deadline has come.
    Timer,
    /// A command is in the inbox.
    Wake,
    /// The SIP socket of a phone.
    Sip(usize),
    /// The RTP socket of a leg.
    Rtp(usize),
}

/// The poller.
pub struct Poller {
    epoll: Epoll,
    timer: TimerFd,
    wake: Arc<EventFd>,
    events: Vec<EpollEvent>,
}

impl Poller {
    /// A poller that can be woken by `wake`.
    ///
    /// # Errors
    /// No descriptor left.
    pub fn new(wake: Arc<EventFd>) -> std::io::Result<Self> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        let flags = TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC;
        let timer = TimerFd::new(ClockId::CLOCK_MONOTONIC, flags)?;
        epoll.add(&timer, readable(TOKEN_TIMER))?;
        epoll.add(&*wake, readable(TOKEN_WAKE))?;
        Ok(Self { epoll, timer, wake, events: vec![EpollEvent::empty(); 512] })
    }

    /// Watches a SIP socket.
    ///
    /// # Errors
    /// The kernel's limit of watches is reached.
    pub fn add_sip(&self, socket: &UdpSocket, phone: usize) -> std::io::Result<()> {
        Ok(self.epoll.add(socket, readable(TOKEN_SIP | phone as u64))?)
    }

    /// Watches an RTP socket.
    ///
    /// # Errors
    /// The kernel's limit of watches is reached.
    pub fn add_rtp(&self, socket: &UdpSocket, leg: usize) -> std::io::Result<()> {
        Ok(self.epoll.add(socket, readable(TOKEN_RTP | leg as u64))?)
    }

    /// Sleeps until something is ready or `until_ns` has come; fills `ready`.
    pub fn wait(&mut self, now_ns: u64, until_ns: Option<u64>, ready: &mut Vec<Ready>) {
        ready.clear();
        let armed = match until_ns {
            Some(at) => {
                // Zero would disarm the timer.
                let wait = Duration::from_nanos(at.saturating_sub(now_ns).max(1));
                self.timer
                    .set(Expiration::OneShot(TimeSpec::from(wait)), TimerSetTimeFlags::empty())
            }
            None => self.timer.unset(),
        };
        debug_assert!(armed.is_ok(), "timerfd refused {armed:?}");
        let Ok(count) = self.epoll.wait(&mut self.events, EpollTimeout::NONE) else {
            return; // EINTR
        };
        for event in self.events.iter().take(count) {
            let token = event.data();
            let index = (token & INDEX) as usize;
            ready.push(match token {
                TOKEN_TIMER => Ready::Timer,
                TOKEN_WAKE => {
                    // Emptied so that it does not stay ready.
                    let _ = self.wake.read();
                    Ready::Wake
                }
                token if token & TOKEN_RTP != 0 => Ready::Rtp(index),
                _ => Ready::Sip(index),
            });
        }
    }
}

fn readable(token: u64) -> EpollEvent {
    EpollEvent::new(EpollFlags::EPOLLIN, token)
}
