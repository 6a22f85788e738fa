//! The network between two sets of real UDP ports: one thread, epoll, a timerfd for deliveries.
//!
//! Owns sockets and clock; what happens to a datagram is decided by [`Path`]. Every queue is
//! bounded: datagrams by `queue_bytes_max` of the link, clients by [`CLIENTS_MAX`] (the one that
//! has been silent longest makes room).

mod drops;
mod worker;

use std::net::SocketAddr;
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use nix::sys::eventfd::{EfdFlags, EventFd};
use serde::Serialize;

use crate::link::{ConfigError, Direction, LinkCounters, PathConfig};

/// Client addresses that one mapping remembers.
pub const CLIENTS_MAX: usize = 4096;

/// Datagrams to `listen` go on to `target`; answers come back from `listen`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mapping {
    /// Where clients send to. Port 0 takes any free port, see [`Relay::listen_addrs`].
    pub listen: SocketAddr,
    /// Where the datagrams go.
    pub target: SocketAddr,
}

impl std::str::FromStr for Mapping {
    type Err = String;

    /// `LISTEN=TARGET`, both `IP:PORT`.
    fn from_str(text: &str) -> Result<Self, String> {
        let (listen, target) = text.split_once('=').ok_or_else(|| {
            format!("'{text}' is not LISTEN=TARGET, such as 127.0.0.1:7001=127.0.0.1:7000")
        })?;
        let addr = |what: &str, value: &str| {
            value.parse::<SocketAddr>().map_err(|_| {
                format!("{what} '{value}' is not IP:PORT, such as 127.0.0.1:7000 or [::1]:7000")
            })
        };
        Ok(Self { listen: addr("listen address", listen)?, target: addr("target", target)? })
    }
}

/// Why a relay could not start.
#[derive(Debug)]
pub enum RelayError {
    /// A value of the configuration is out of range.
    Config(ConfigError),
    /// No mapping was given.
    NoMapping,
    /// The listen address of a mapping cannot be bound.
    Bind(SocketAddr, std::io::Error),
    /// epoll, timerfd, eventfd or thread.
    System(&'static str, std::io::Error),
}

impl std::fmt::Display for RelayError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Config(error) => write!(f, "{error}"),
            Self::NoMapping => write!(f, "no mapping given: nothing to relay"),
            Self::Bind(addr, error) => write!(f, "cannot listen on udp {addr}: {error}"),
            Self::System(what, error) => write!(f, "{what}: {error}"),
        }
    }
}

impl std::error::Error for RelayError {}

impl From<ConfigError> for RelayError {
    fn from(error: ConfigError) -> Self {
        Self::Config(error)
    }
}

/// Counters of one mapping.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct MappingStats {
    /// The address that is bound.
    pub listen: SocketAddr,
    /// Where datagrams go.
    pub target: SocketAddr,
    /// Client addresses remembered.
    pub clients: usize,
    /// From clients to the target.
    pub there: LinkCounters,
    /// From the target to clients.
    pub back: LinkCounters,
    /// Datagrams the kernel refused to send, or that named a client no longer remembered.
    pub send_errors: u64,
    /// Times the target's port was reported closed (ICMP).
    pub refused: u64,
    /// Datagrams that overflowed a socket's receive buffer before the relay read them.
    pub socket_drops: u64,
}

/// Counters of a relay.
#[derive(Clone, Debug, Serialize)]
pub struct RelayStats {
    /// In the order the mappings were given.
    pub mappings: Vec<MappingStats>,
    /// Deliveries that left more than 1 ms after their time.
    pub late: u64,
    /// Worst lateness of a delivery, microseconds.
    pub late_max_us: u64,
}

impl RelayStats {
    /// Datagrams handed to the relay in both directions of all mappings.
    pub fn datagrams(&self) -> u64 {
        self.mappings.iter().map(|m| m.there.datagrams + m.back.datagrams).sum()
    }

    /// Payload bytes handed to the relay in both directions of all mappings.
    pub fn bytes(&self) -> u64 {
        self.mappings.iter().map(|m| m.there.bytes + m.back.bytes).sum()
    }
}

enum Command {
    Config(PathConfig),
    Up(Direction, bool),
    Rebind,
    Stop,
}

struct Shared {
    stats: Mutex<RelayStats>,
    wake: EventFd,
}

impl Shared {
    fn stats(&self) -> MutexGuard<'_, RelayStats> {
        self.stats.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A running relay; it stops when dropped.
///
/// ```no_run
/// use tandem_wan::{LinkConfig, Mapping, PathConfig, Relay};
/// let mapping: Mapping = "127.0.0.1:7001=127.0.0.1:7000".parse().unwrap();
/// let config = PathConfig::symmetric(LinkConfig::delay(80.0));
/// let relay = Relay::start(vec![mapping], config, 1).unwrap();
/// println!("{} datagrams so far", relay.stats().datagrams());
/// ```
pub struct Relay {
    shared: Arc<Shared>,
    commands: Sender<Command>,
    thread: Option<JoinHandle<()>>,
}

impl Relay {
    /// Binds every listen address and starts the thread. Each mapping has a [`crate::Path`] of
    /// its own (rate and queue are not shared between mappings).
    ///
    /// # Errors
    /// A value out of range, an address that cannot be bound, no descriptors left.
    pub fn start(
        mappings: Vec<Mapping>,
        config: PathConfig,
        seed: u64,
    ) -> Result<Self, RelayError> {
        config.there.check()?;
        config.back.check()?;
        if mappings.is_empty() {
            return Err(RelayError::NoMapping);
        }
        let wake = EventFd::from_value_and_flags(0, EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC)
            .map_err(|errno| RelayError::System("eventfd", errno.into()))?;
        let stats = RelayStats { mappings: Vec::new(), late: 0, late_max_us: 0 };
        let shared = Arc::new(Shared { stats: Mutex::new(stats), wake });
        let (commands, inbox) = channel();
        let sockets = worker::bind(&mappings)?;
        let mut bound = Vec::new();
        for (mapping, socket) in mappings.iter().zip(&sockets) {
            let listen =
                socket.local_addr().map_err(|error| RelayError::Bind(mapping.listen, error))?;
            bound.push(Mapping { listen, target: mapping.target });
        }
        shared.stats().mappings = bound.iter().map(empty_stats).collect();
        let poller = worker::Poller::new(&sockets, &shared.wake)
            .map_err(|error| RelayError::System("epoll", error))?;
        let theirs = Arc::clone(&shared);
        let thread = std::thread::Builder::new()
            .name("wan-relay".into())
            .spawn(move || {
                worker::Worker::new(poller, sockets, bound, config, seed, theirs).run(&inbox);
            })
            .map_err(|error| RelayError::System("thread", error))?;
        Ok(Self { shared, commands, thread: Some(thread) })
    }

    /// The addresses that are bound, in the order of the mappings.
    pub fn listen_addrs(&self) -> Vec<SocketAddr> {
        self.shared.stats().mappings.iter().map(|mapping| mapping.listen).collect()
    }

    /// Counters now.
    pub fn stats(&self) -> RelayStats {
        let mut stats = self.shared.stats().clone();
        drops::add_listen_drops(&mut stats);
        stats
    }

    /// Changes delay, loss and so on of all mappings for what arrives from now on. What is under
    /// way keeps its time.
    ///
    /// # Errors
    /// A value out of range; nothing is changed then.
    pub fn set_config(&self, config: PathConfig) -> Result<(), RelayError> {
        config.there.check()?;
        config.back.check()?;
        self.command(Command::Config(config));
        Ok(())
    }

    /// Cuts (`false`) or restores one direction of all mappings.
    pub fn set_up(&self, direction: Direction, up: bool) {
        self.command(Command::Up(direction, up));
    }

    /// Gives every client a new upstream port, as after a NAT lost its table. What the target sends
    /// to the old ports from then on is lost.
    pub fn rebind(&self) {
        self.command(Command::Rebind);
    }

    /// Stops the thread and gives the last counters. What is under way is dropped.
    pub fn stop(mut self) -> RelayStats {
        self.shut_down();
        self.shared.stats().clone()
    }

    fn command(&self, command: Command) {
        if self.commands.send(command).is_ok() {
            // A full eventfd counter means that a wake-up is already pending.
            let _ = self.shared.wake.write(1);
        }
    }

    fn shut_down(&mut self) {
        self.command(Command::Stop);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.shut_down();
    }
}

fn empty_stats(mapping: &Mapping) -> MappingStats {
    MappingStats {
        listen: mapping.listen,
        target: mapping.target,
        clients: 0,
        there: LinkCounters::default(),
        back: LinkCounters::default(),
        send_errors: 0,
        refused: 0,
        socket_drops: 0,
    }
}
