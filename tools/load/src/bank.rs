//! The handle of running phones.

use std::net::{SocketAddr, ToSocketAddrs, UdpSocket};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::sched::{CpuSet, sched_setaffinity};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::socket::{setsockopt, sockopt};
use nix::unistd::Pid;
use sip_core::Uri;
use sip_core::msg::Host;

use crate::engine::{Bell, Command, Engine, Plug, Totals};
use crate::phone::{Phone, Step, check_script};
use crate::report::{PhoneReport, Role};

const SIP_BUFFER_BYTES: usize = 4 << 20;
/// How often a waiter looks although nothing happened (media counters ring no bell).
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Why a bank or a phone could not start.
#[derive(Debug, thiserror::Error)]
pub enum BankError {
    /// The description of a phone is wrong.
    #[error("{0}")]
    Phone(String),
    /// The SIP address cannot be bound.
    #[error("phone {phone}: cannot listen on udp {addr}: {error}")]
    Bind {
        /// Name of the phone.
        phone: String,
        /// The address.
        addr: SocketAddr,
        /// Why.
        error: std::io::Error,
    },
    /// epoll, timerfd, eventfd, thread or CPU.
    #[error("{0}: {1}")]
    System(&'static str, std::io::Error),
    /// The thread is gone.
    #[error("the thread of the phones has ended")]
    Gone,
}

/// Settings of a bank.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BankConfig {
    /// Seed of everything random: rhythms, SSRCs, tags.
    pub seed: u64,
    /// CPU to which the thread is pinned.
    pub cpu: Option<usize>,
}

impl Default for BankConfig {
    fn default() -> Self {
        Self { seed: 1, cpu: None }
    }
}

struct Inner {
    commands: Mutex<Sender<Command>>,
    wake: Arc<EventFd>,
    bell: Arc<Bell>,
}

impl Inner {
    fn send(&self, command: Command) -> Result<(), BankError> {
        let commands = self.commands.lock().unwrap_or_else(PoisonError::into_inner);
        commands.send(command).map_err(|_| BankError::Gone)?;
        // A full eventfd counter means that a wake-up is already pending.
        let _ = self.wake.write(1);
        Ok(())
    }
}

/// Phones that run on one thread of their own. They all hang up without a word when it is
/// dropped.
///
/// ```no_run
/// use std::time::Duration;
/// use tandem_load::{BankConfig, Phone, PhoneBank, Step, mouth_to_ear_ms};
///
/// let bank = PhoneBank::start(BankConfig::default())?;
/// let bob = bank.add(Phone::callee("bob").tone(620.0))?;
/// let alice = bank.add(
///     Phone::caller("alice", &format!("sip:bob@{}", bob.addr()))
///         .tone(440.0)
///         .script([Step::WaitAnswer(5000), Step::wait_tone(620.0), Step::Wait(3000), Step::Hangup]),
/// )?;
/// let alice = alice.wait_ended(Duration::from_secs(20))?;
/// let bob = bob.wait_ended(Duration::from_secs(1))?;
/// assert!(bob.heard_tone(440.0));
/// println!("{:?} ms from alice's mouth to bob's ear", mouth_to_ear_ms(&alice, &bob));
/// # Ok::<(), tandem_load::BankError>(())
/// ```
pub struct PhoneBank {
    inner: Arc<Inner>,
    phones: Mutex<usize>,
    thread: Option<JoinHandle<()>>,
}

impl PhoneBank {
    /// Starts the thread.
    ///
    /// # Errors
    /// No descriptor left, or the CPU is not allowed for this process.
    pub fn start(config: BankConfig) -> Result<Self, BankError> {
        let flags = EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC;
        let wake = EventFd::from_value_and_flags(0, flags)
            .map_err(|errno| BankError::System("eventfd", errno.into()))?;
        let wake = Arc::new(wake);
        let bell = Arc::new(Bell::default());
        let (commands, inbox) = channel();
        let engine = Engine::new(inbox, Arc::clone(&wake), Arc::clone(&bell), config.seed)
            .map_err(|error| BankError::System("epoll", error))?;
        let (pinned, is_pinned) = channel();
        let thread = std::thread::Builder::new()
            .name("phones".to_owned())
            .spawn(move || {
                let done = config.cpu.map_or(Ok(()), pin);
                let failed = done.is_err();
                if pinned.send(done).is_ok() && !failed {
                    engine.run();
                }
            })
            .map_err(|error| BankError::System("thread", error))?;
        let pinned = is_pinned.recv().map_err(|_| BankError::Gone)?;
        pinned.map_err(|error| BankError::System("cannot pin to the CPU", error))?;
        let inner = Arc::new(Inner { commands: Mutex::new(commands), wake, bell });
        Ok(Self { inner, phones: Mutex::new(0), thread: Some(thread) })
    }

    /// Plugs a phone in: binds its SIP address; a caller calls at once.
    ///
    /// # Errors
    /// A mistake in the description, a target that cannot be resolved, an address that cannot be
    /// bound.
    pub fn add(&self, phone: Phone) -> Result<PhoneHandle, BankError> {
        phone.check().map_err(BankError::Phone)?;
        if phone.listen.ip().is_unspecified() {
            return Err(BankError::Phone(format!(
                "phone {}: listen address {} names no interface; the peer has to be told one, \
                 such as 127.0.0.1:5080",
                phone.name, phone.listen
            )));
        }
        let target = match &phone.target {
            Some(target) => Some(resolve(&phone, target).map_err(BankError::Phone)?),
            None => None,
        };
        let bind = |error| BankError::Bind { phone: phone.name.clone(), addr: phone.listen, error };
        let socket = UdpSocket::bind(phone.listen).map_err(bind)?;
        socket.set_nonblocking(true).map_err(bind)?;
        // The forced size needs a privilege; the plain one is cut to the system's limit.
        if setsockopt(&socket, sockopt::RcvBufForce, &SIP_BUFFER_BYTES).is_err() {
            let _ = setsockopt(&socket, sockopt::RcvBuf, &SIP_BUFFER_BYTES);
        }
        let addr = socket.local_addr().map_err(bind)?;
        let (name, role) = (phone.name.clone(), phone.role);
        // The number is given and the command sent under one lock: the engine counts likewise.
        let mut phones = self.phones.lock().unwrap_or_else(PoisonError::into_inner);
        self.inner.send(Command::Add(Box::new(Plug { phone, socket, addr, target })))?;
        let index = *phones;
        *phones += 1;
        Ok(PhoneHandle { inner: Arc::clone(&self.inner), index, addr, name, role })
    }
}

impl PhoneBank {
    /// Sleeps until something happens in any call, or `timeout` is over.
    pub fn wait(&self, timeout: Duration) {
        self.inner.bell.wait(self.inner.bell.count(), timeout);
    }
}

impl Drop for PhoneBank {
    fn drop(&mut self) {
        let _ = self.inner.send(Command::Stop);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn pin(cpu: usize) -> std::io::Result<()> {
    let mut set = CpuSet::new();
    set.set(cpu)?;
    Ok(sched_setaffinity(Pid::from_raw(0), &set)?)
}

/// Request URI and first hop.
fn resolve(phone: &Phone, target: &str) -> Result<(Uri, SocketAddr), String> {
    let name = &phone.name;
    let uri = Uri::parse(target).ok_or_else(|| {
        format!(
            "phone {name}: target '{target}' is no SIP URI, such as sip:+15550100@127.0.0.1:5060"
        )
    })?;
    if let Some(next_hop) = phone.next_hop {
        return Ok((uri, next_hop));
    }
    let port = uri.port().unwrap_or(5060);
    let addr = match uri.host() {
        Some(Host::Ip(ip)) => Some(SocketAddr::new(*ip, port)),
        Some(host) => (host.to_string().as_str(), port)
            .to_socket_addrs()
            .map_err(|error| format!("phone {name}: target '{target}': {error}"))?
            .find(|addr| addr.is_ipv4() == phone.listen.is_ipv4()),
        None => None,
    };
    addr.map(|addr| (uri, addr))
        .ok_or_else(|| format!("phone {name}: target '{target}' has no address to send to"))
}

/// One phone of a bank.
#[derive(Clone)]
pub struct PhoneHandle {
    inner: Arc<Inner>,
    index: usize,
    addr: SocketAddr,
    name: String,
    role: Role,
}

impl PhoneHandle {
    /// Its SIP address.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Its SIP URI, with its name as user.
    pub fn uri(&self) -> String {
        format!("sip:{}@{}", self.name, self.addr)
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether it calls or is called.
    pub fn role(&self) -> Role {
        self.role
    }

    /// Everything its latest call observed so far; an empty report (`began_ns` 0) before the first.
    ///
    /// # Errors
    /// The bank is gone.
    pub fn report(&self) -> Result<PhoneReport, BankError> {
        self.ask(|reply| Command::Report(self.index, reply))
    }

    /// The reports of all its calls that are kept, and of those that go on, in order.
    ///
    /// # Errors
    /// The bank is gone.
    pub fn reports(&self) -> Result<Vec<PhoneReport>, BankError> {
        self.ask(|reply| Command::Reports(self.index, reply))
    }

    /// The sums over all its calls.
    ///
    /// # Errors
    /// The bank is gone.
    pub fn totals(&self) -> Result<Totals, BankError> {
        self.ask(|reply| Command::Totals(self.index, reply))
    }

    /// Waits until the latest call fits, at most `timeout`; the report at that time either way.
    ///
    /// # Errors
    /// The bank is gone.
    pub fn wait(
        &self,
        timeout: Duration,
        mut fits: impl FnMut(&PhoneReport) -> bool,
    ) -> Result<PhoneReport, BankError> {
        let deadline = Instant::now() + timeout;
        loop {
            let seen = self.inner.bell.count();
            let report = self.report()?;
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() || fits(&report) {
                return Ok(report);
            }
            self.inner.bell.wait(seen, left.min(LOOK_EVERY));
        }
    }

    /// Waits until the latest call is over; look at [`PhoneReport::end`] to see whether it is.
    ///
    /// # Errors
    /// The bank is gone.
    pub fn wait_ended(&self, timeout: Duration) -> Result<PhoneReport, BankError> {
        self.wait(timeout, PhoneReport::ended)
    }

    /// Waits until the latest call is answered.
    ///
    /// # Errors
    /// The bank is gone.
    pub fn wait_answered(&self, timeout: Duration) -> Result<PhoneReport, BankError> {
        self.wait(timeout, |report| report.answered() || report.ended())
    }

    /// Caller: makes one more call, as soon as `at_once_max` allows.
    ///
    /// # Errors
    /// The bank is gone.
    pub fn dial(&self) -> Result<(), BankError> {
        self.inner.send(Command::Dial(self.index))
    }

    /// Appends steps to the script of each of its calls that goes on.
    ///
    /// # Errors
    /// A mistake in a step, or the bank is gone.
    pub fn run(&self, steps: impl IntoIterator<Item = Step>) -> Result<(), BankError> {
        let steps: Vec<Step> = steps.into_iter().collect();
        check_script(&steps)
            .map_err(|error| BankError::Phone(format!("phone {}: {error}", self.name)))?;
        self.inner.send(Command::Run(self.index, steps))
    }

    /// Hangs up all its calls and makes no further ones.
    ///
    /// # Errors
    /// The bank is gone.
    pub fn hang_up(&self) -> Result<(), BankError> {
        self.inner.send(Command::HangUp(self.index))
    }

    fn ask<T>(&self, command: impl FnOnce(Sender<T>) -> Command) -> Result<T, BankError> {
        let (reply, answer) = channel();
        self.inner.send(command(reply))?;
        answer.recv().map_err(|_| BankError::Gone)
    }
}
