//! The relay's thread: reads bursts, hands them to the path, sends what is due.

use std::collections::HashMap;
use std::io::ErrorKind;
use std::net::{SocketAddr, UdpSocket};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::eventfd::EventFd;
use nix::sys::socket::{setsockopt, sockopt};
use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};

use super::{CLIENTS_MAX, Command, Mapping, RelayError, Shared};
use crate::link::{Delivery, Direction, Path, PathConfig};

/// Datagrams read from one socket before the others get their turn.
const BURST_MAX: usize = 256;
const SOCKET_BUFFER_BYTES: usize = 8 << 20;
const LATE: Duration = Duration::from_millis(1);

const TOKEN_TIMER: u64 = 0;
const TOKEN_WAKE: u64 = 1;
const TOKEN_LISTEN: u64 = 1 << 32;
const TOKEN_UPSTREAM: u64 = 2 << 32;

/// Binds the listen sockets.
pub fn bind(mappings: &[Mapping]) -> Result<Vec<UdpSocket>, RelayError> {
    mappings
        .iter()
        .map(|mapping| {
            open(mapping.listen).map_err(|error| RelayError::Bind(mapping.listen, error))
        })
        .collect()
}

fn open(addr: SocketAddr) -> std::io::Result<UdpSocket> {
    let socket = UdpSocket::bind(addr)?;
    socket.set_nonblocking(true)?;
    // The forced size needs a privilege; the plain one is cut to the system's limit.
    if setsockopt(&socket, sockopt::RcvBufForce, &SOCKET_BUFFER_BYTES).is_err() {
        setsockopt(&socket, sockopt::RcvBuf, &SOCKET_BUFFER_BYTES)?;
    }
    if setsockopt(&socket, sockopt::SndBufForce, &SOCKET_BUFFER_BYTES).is_err() {
        setsockopt(&socket, sockopt::SndBuf, &SOCKET_BUFFER_BYTES)?;
    }
    Ok(socket)
}

/// What the thread sleeps on.
pub struct Poller {
    epoll: Epoll,
    timer: TimerFd,
}

impl Poller {
    /// Registers the listen sockets and the wake-up.
    pub fn new(sockets: &[UdpSocket], wake: &EventFd) -> std::io::Result<Self> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        let flags = TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC;
        let timer = TimerFd::new(ClockId::CLOCK_MONOTONIC, flags)?;
        let readable = |token| EpollEvent::new(EpollFlags::EPOLLIN, token);
        epoll.add(&timer, readable(TOKEN_TIMER))?;
        epoll.add(wake, readable(TOKEN_WAKE))?;
        for (socket, token) in sockets.iter().zip(TOKEN_LISTEN..) {
            epoll.add(socket, readable(token))?;
        }
        Ok(Self { epoll, timer })
    }

    fn arm(&self, at: Option<Instant>, now: Instant) {
        let armed = match at {
            // Zero would disarm the timer.
            Some(at) => {
                let wait = at.saturating_duration_since(now).max(Duration::from_nanos(1));
                let once = Expiration::OneShot(TimeSpec::from(wait));
                self.timer.set(once, TimerSetTimeFlags::empty())
            }
            None => self.timer.unset(),
        };
        debug_assert!(armed.is_ok(), "timerfd refused {armed:?}");
    }
}

#[derive(Clone)]
struct Datagram {
    client: usize,
    generation: u64,
    bytes: Rc<[u8]>,
}

struct Client {
    addr: SocketAddr,
    mapping: usize,
    generation: u64,
    upstream: UdpSocket,
    last_at: Instant,
}

struct Lane {
    mapping: Mapping,
    socket: UdpSocket,
    path: Path<Datagram>,
    send_errors: u64,
    refused: u64,
}

/// State of the thread.
pub struct Worker {
    poller: Poller,
    lanes: Vec<Lane>,
    clients: Vec<Option<Client>>,
    by_addr: HashMap<(usize, SocketAddr), usize>,
    generation: u64,
    late: u64,
    late_max: Duration,
    shared: Arc<Shared>,
    buffer: Vec<u8>,
}

impl Worker {
    /// A worker with empty paths.
    pub fn new(
        poller: Poller,
        sockets: Vec<UdpSocket>,
        mappings: Vec<Mapping>,
        config: PathConfig,
        seed: u64,
        shared: Arc<Shared>,
    ) -> Self {
        let lanes = mappings
            .into_iter()
            .zip(sockets)
            .zip(0u64..)
            .map(|((mapping, socket), index)| Lane {
                mapping,
                socket,
                path: Path::new(config, seed.wrapping_add(index)),
                send_errors: 0,
                refused: 0,
            })
            .collect();
        Self {
            poller,
            lanes,
            clients: Vec::new(),
            by_addr: HashMap::new(),
            generation: 0,
            late: 0,
            late_max: Duration::ZERO,
            shared,
            buffer: vec![0; 65_536],
        }
    }

    /// Runs until told to stop.
    pub fn run(mut self, inbox: &Receiver<Command>) {
        let mut events = [EpollEvent::empty(); 256];
        loop {
            self.deliver();
            self.publish();
            let now = Instant::now();
            let next = self.lanes.iter().filter_map(|lane| lane.path.poll_timeout()).min();
            self.poller.arm(next, now);
            let Ok(count) = self.poller.epoll.wait(&mut events, EpollTimeout::NONE) else {
                continue; // EINTR
            };
            for event in events.iter().take(count) {
                match event.data() {
                    // Armed anew on each turn, which clears its readiness.
                    TOKEN_TIMER => {}
                    TOKEN_WAKE => {
                        let _ = self.shared.wake.read();
                        if self.obey(inbox) {
                            self.publish();
                            return;
                        }
                    }
                    token if token & TOKEN_UPSTREAM != 0 => {
                        self.read_upstream((token & 0xffff_ffff) as usize);
                    }
                    token => self.read_listen((token & 0xffff_ffff) as usize),
                }
            }
        }
    }

    /// Carries out commands; `true` to stop.
    fn obey(&mut self, inbox: &Receiver<Command>) -> bool {
        for command in inbox.try_iter() {
            match command {
                Command::Stop => return true,
                Command::Config(config) => {
                    self.lanes.iter_mut().for_each(|lane| lane.path.set_config(config));
                }
                Command::Up(direction, up) => {
                    for lane in &mut self.lanes {
                        lane.path.link_mut(direction).set_up(up);
                    }
                }
                Command::Rebind => self.rebind(),
            }
        }
        false
    }

    /// Gives every client a new upstream port. What is under way to the target leaves from it.
    fn rebind(&mut self) {
        for slot in 0..self.clients.len() {
            let Some(Some(client)) = self.clients.get(slot) else { continue };
            let Some(lane) = self.lanes.get(client.mapping) else { continue };
            let fresh = self.connect(slot, lane.mapping.target);
            if let (Ok(upstream), Some(Some(client))) = (fresh, self.clients.get_mut(slot)) {
                client.upstream = upstream;
            }
        }
    }

    fn read_listen(&mut self, index: usize) {
        for _ in 0..BURST_MAX {
            let Some(lane) = self.lanes.get_mut(index) else { return };
            let (size, from) = match lane.socket.recv_from(&mut self.buffer) {
                Ok(received) => received,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(_) => {
                    lane.refused += 1;
                    continue;
                }
            };
            let now = Instant::now();
            let bytes = Rc::from(self.buffer.get(..size).unwrap_or_default());
            let Some(client) = self.client(index, from, now) else { continue };
            let generation = self.generation_of(client);
            let datagram = Datagram { client, generation, bytes };
            if let Some(lane) = self.lanes.get_mut(index) {
                lane.path.push(now, Direction::There, size, datagram);
            }
        }
    }

    fn read_upstream(&mut self, client: usize) {
        for _ in 0..BURST_MAX {
            let Some(Some(known)) = self.clients.get(client) else { return };
            let Some(lane) = self.lanes.get_mut(known.mapping) else { return };
            match known.upstream.recv(&mut self.buffer) {
                Ok(size) => {
                    let bytes = Rc::from(self.buffer.get(..size).unwrap_or_default());
                    let datagram = Datagram { client, generation: known.generation, bytes };
                    lane.path.push(Instant::now(), Direction::Back, size, datagram);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(_) => lane.refused += 1,
            }
        }
    }

    fn generation_of(&self, client: usize) -> u64 {
        self.clients.get(client).and_then(Option::as_ref).map_or(0, |known| known.generation)
    }

    /// The slot of a client address, with a new upstream socket if it was not known.
    fn client(&mut self, mapping: usize, addr: SocketAddr, now: Instant) -> Option<usize> {
        if let Some(&slot) = self.by_addr.get(&(mapping, addr))
            && let Some(Some(client)) = self.clients.get_mut(slot)
        {
            client.last_at = now;
            return Some(slot);
        }
        let target = self.lanes.get(mapping)?.mapping.target;
        let slot = self.free_slot();
        match self.connect(slot, target) {
            Ok(upstream) => {
                self.generation += 1;
                let generation = self.generation;
                let client = Client { addr, mapping, generation, upstream, last_at: now };
                if let Some(place) = self.clients.get_mut(slot) {
                    *place = Some(client);
                }
                self.by_addr.insert((mapping, addr), slot);
                Some(slot)
            }
            Err(_) => {
                if let Some(lane) = self.lanes.get_mut(mapping) {
                    lane.send_errors += 1;
                }
                None
            }
        }
    }

    fn connect(&self, slot: usize, target: SocketAddr) -> std::io::Result<UdpSocket> {
        // Loopback targets are reached from loopback; others from the address the route gives.
        let any: SocketAddr = if target.is_ipv4() {
            ([0, 0, 0, 0], 0).into()
        } else {
            (std::net::Ipv6Addr::UNSPECIFIED, 0).into()
        };
        let socket = open(any)?;
        socket.connect(target)?;
        let event = EpollEvent::new(EpollFlags::EPOLLIN, TOKEN_UPSTREAM | slot as u64);
        self.poller.epoll.add(&socket, event)?;
        Ok(socket)
    }

    fn free_slot(&mut self) -> usize {
        if let Some(free) = self.clients.iter().position(Option::is_none) {
            return free;
        }
        if self.clients.len() < CLIENTS_MAX * self.lanes.len() {
            self.clients.push(None);
            return self.clients.len() - 1;
        }
        let oldest = self
            .clients
            .iter()
            .enumerate()
            .min_by_key(|(_, client)| client.as_ref().map(|known| known.last_at))
            .map_or(0, |(slot, _)| slot);
        if let Some(Some(gone)) = self.clients.get_mut(oldest).map(Option::take) {
            self.by_addr.remove(&(gone.mapping, gone.addr));
        }
        oldest
    }

    fn deliver(&mut self) {
        let now = Instant::now();
        for lane in &mut self.lanes {
            while let Some((direction, delivery)) = lane.path.poll(now) {
                let late = now.saturating_duration_since(delivery.at);
                self.late += u64::from(late > LATE);
                self.late_max = self.late_max.max(late);
                let known = self.clients.get(delivery.item.client).and_then(Option::as_ref);
                let client = known.filter(|known| known.generation == delivery.item.generation);
                let sent = client.is_some_and(|client| {
                    let bytes = flipped(&delivery);
                    match direction {
                        Direction::There => client.upstream.send(&bytes).is_ok(),
                        Direction::Back => lane.socket.send_to(&bytes, client.addr).is_ok(),
                    }
                });
                lane.send_errors += u64::from(!sent);
            }
        }
    }

    fn publish(&self) {
        let mut stats = self.shared.stats();
        stats.late = self.late;
        stats.late_max_us = u64::try_from(self.late_max.as_micros()).unwrap_or(u64::MAX);
        for (index, (lane, out)) in self.lanes.iter().zip(&mut stats.mappings).enumerate() {
            out.there = lane.path.link(Direction::There).counters();
            out.back = lane.path.link(Direction::Back).counters();
            out.send_errors = lane.send_errors;
            out.refused = lane.refused;
            // Exact for the usual handful of clients without a pass over all slots for many.
            out.clients = if self.lanes.len() == 1 {
                self.by_addr.len()
            } else {
                self.by_addr.keys().filter(|(mapping, _)| *mapping == index).count()
            };
        }
    }
}

fn flipped(delivery: &Delivery<Datagram>) -> Rc<[u8]> {
    let bytes = &delivery.item.bytes;
    match delivery.flip_bit {
        Some(bit) if !bytes.is_empty() => {
            let mut copy = bytes.to_vec();
            let bit = bit as usize % (copy.len() * 8);
            if let Some(byte) = copy.get_mut(bit / 8) {
                *byte ^= 1 << (bit % 8);
            }
            Rc::from(copy)
        }
        _ => Rc::clone(bytes),
    }
}
