//! The signalling thread: sockets, queues and timers around one `EdgeCore`. Decides nothing.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use bytes::Bytes;
use edge_core::{ControlIndex, EdgeCore, Fact, Input, LinkInput, LinkOutput, Output, Settings};
use edge_media::command::{OpKey, PortKey, Prompt, RecorderHandle, WorkerCommand};
use link_daemon::clock;
use link_proto::NodeId;
use link_proto::media::PromptKey;
use link_proto::message::RecordingHeader;
use link_proto::table::Tables;
use sip_core::{Destination, Transport};
use tokio::io::Interest;
use tokio::net::UdpSocket;
use tokio::sync::{Notify, mpsc, oneshot};

use crate::media_handle::{MediaHandle, ToMedia};
use crate::media_ports::MediaPorts;
use crate::prompt_cache::PromptCache;
use crate::recorder::RecorderCommand;
use crate::sip_errors::{self, Undelivered};
use crate::snapshot::Snapshot;
use crate::sparing::Sparing;
use crate::tables::TablesFile;
use crate::trunk::{TrunkCommand, TrunkState};
use crate::trunk_ring::Address;

/// Largest SIP datagram.
const DATAGRAM_BYTES_MAX: usize = 65_535;
/// Datagrams read before queues and timers get their turn.
const DATAGRAMS_PER_TURN_MAX: usize = 64;
/// How often counters are copied for the admin port.
const SNAPSHOT_EVERY: Duration = Duration::from_millis(250);

/// Results of work that runs beside signalling.
#[derive(Debug)]
pub enum Aside {
    /// A prompt, or why there is none.
    Prompt(PromptKey, Result<Arc<Prompt>, String>),
    /// A recording is open, or not.
    Recording(OpKey, RecorderHandle, Result<(), String>),
    /// A name was looked up.
    Resolved(edge_core::ResolveId, Option<SocketAddr>),
    /// A new configuration.
    Settings(Box<Settings>),
    /// Take no new calls.
    Drain(Duration),
}

/// Everything around the core.
pub struct Signalling {
    /// The core.
    pub core: EdgeCore,
    /// SIP socket.
    pub socket: UdpSocket,
    /// Our address on it.
    pub local: SocketAddr,
    /// Media threads.
    pub media: Vec<MediaHandle>,
    /// Rung by media threads.
    pub media_wake: Arc<Notify>,
    /// RTP ports.
    pub ports: MediaPorts,
    /// From the link.
    pub from_link: mpsc::Receiver<(ControlIndex, LinkInput)>,
    /// To each control node.
    pub links: Vec<LinkQueue>,
    /// To the recorder.
    pub recorder: mpsc::UnboundedSender<RecorderCommand>,
    /// To the trunk.
    pub trunk: mpsc::UnboundedSender<TrunkCommand>,
    /// From the trunk.
    pub trunk_states: mpsc::UnboundedReceiver<TrunkState>,
    /// Prompts.
    pub prompts: PromptCache,
    /// Where work beside signalling runs.
    pub runtime: tokio::runtime::Handle,
    /// Its results.
    pub asides: mpsc::Receiver<Aside>,
    /// For handing out to that work.
    pub aside_sender: mpsc::Sender<Aside>,
    /// To the admin port.
    pub snapshot: Arc<Snapshot>,
    /// Where tables are kept.
    pub tables: Arc<TablesFile>,
    /// Next recorder handle.
    pub recorder_next: AtomicU32,
    /// Trunk channels by port.
    pub channels: BTreeMap<PortKey, Address>,
    /// What the log says of refused calls.
    pub refusals: Sparing,
}

/// The way to one control node.
#[derive(Debug)]
pub struct LinkQueue {
    /// Its name.
    pub node: String,
    /// Messages.
    pub messages: mpsc::Sender<LinkOutput>,
    /// Rung when the link has to be made anew.
    pub reset: Arc<Notify>,
}

impl Signalling {
    /// Runs until the core has drained and no leg is left, or the aside channel closes.
    pub async fn run(mut self) {
        let mut buffer = vec![0u8; DATAGRAM_BYTES_MAX];
        let mut snapshot = tokio::time::interval(SNAPSHOT_EVERY);
        snapshot.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut draining = false;
        self.set_wall_clock();
        loop {
            let timer = self.core.poll_timeout();
            let timer = async {
                match timer {
                    Some(at) => tokio::time::sleep_until(at.into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                () = timer => self.core.handle_timeout(clock::now()),
                () = self.media_wake.notified() => {}
                input = self.from_link.recv() => match input {
                    Some((control, input)) => {
                        self.core.handle_input(clock::now(), Input::Link(control, input));
                    }
                    None => break,
                },
                aside = self.asides.recv() => match aside {
                    Some(aside) => {
                        draining |= matches!(aside, Aside::Drain(_));
                        self.on_aside(aside);
                    }
                    None => break,
                },
                Some(state) = self.trunk_states.recv() => {
                    let TrunkState { peer, up } = state;
                    self.core.handle_input(clock::now(), Input::TrunkState { peer, up });
                }
                ready = self.socket.ready(Interest::READABLE | Interest::ERROR) => {
                    if ready.is_ok() {
                        self.read_errors();
                        self.read_datagrams(&mut buffer);
                    }
                }
                _ = snapshot.tick() => {
                    self.set_wall_clock();
                    self.take_snapshot();
                }
            }
            self.read_media_events();
            self.carry_out();
            if draining && self.core.legs_live() == 0 {
                break;
            }
        }
        self.take_snapshot();
    }

    fn set_wall_clock(&mut self) {
        let unix_ms = clock::unix_ms();
        self.core.handle_input(clock::now(), Input::WallClock { unix_ms });
    }

    fn take_snapshot(&self) {
        self.snapshot.update(&self.core, &self.ports, clock::now());
    }

    fn read_errors(&mut self) {
        for _ in 0..DATAGRAMS_PER_TURN_MAX {
            let error = self.socket.try_io(Interest::ERROR, || sip_errors::next(&self.socket));
            match error {
                Ok(Some(Undelivered { to, quoted })) => {
                    self.core.handle_input(clock::now(), Input::Undelivered { to, quoted });
                    self.carry_out();
                }
                Ok(None) => {}
                Err(_) => return,
            }
        }
    }

    fn read_datagrams(&mut self, buffer: &mut [u8]) {
        for _ in 0..DATAGRAMS_PER_TURN_MAX {
            // ICMP errors of earlier sends surface here too; the next datagram is behind them.
            let (length, source) = match self.socket.try_recv_from(buffer) {
                Ok(received) => received,
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return,
                Err(_) => continue,
            };
            let bytes = Bytes::copy_from_slice(buffer.get(..length).unwrap_or_default());
            let (local, transport) = (self.local, Transport::Udp);
            let input = Input::Datagram { source, local, transport, bytes };
            self.core.handle_input(clock::now(), input);
            self.carry_out();
        }
    }

    fn read_media_events(&mut self) {
        for worker in 0..self.media.len() {
            while let Some(event) = self.media.get_mut(worker).and_then(MediaHandle::event) {
                // Workers are counted with u16.
                let worker = worker as u16;
                self.core.handle_input(clock::now(), Input::Worker { worker, event });
            }
        }
    }

    fn on_aside(&mut self, aside: Aside) {
        let input = match aside {
            Aside::Prompt(key, Ok(prompt)) => Input::PromptReady { key, prompt },
            Aside::Prompt(key, Err(why)) => {
                tracing::warn!(key = key.0, why, "prompt not to be had");
                Input::PromptFailed { key, why }
            }
            Aside::Recording(op, recorder, Ok(())) => Input::RecordingReady { op, recorder },
            Aside::Recording(op, _, Err(why)) => {
                tracing::error!(why, "recording cannot be opened");
                Input::RecordingFailed { op, why }
            }
            Aside::Resolved(id, address) => Input::Resolved { id, address },
            Aside::Settings(settings) => Input::Settings(settings),
            Aside::Drain(end_after) => Input::Drain { end_after },
        };
        self.core.handle_input(clock::now(), input);
    }

    /// Carries out everything that the core wants, then rings the bells once.
    fn carry_out(&mut self) {
        while let Some(output) = self.core.poll_output() {
            self.output(output);
        }
        for media in &mut self.media {
            media.flush();
        }
    }

    fn output(&mut self, output: Output) {
        match output {
            Output::Send { to, bytes } => self.send(to, &bytes),
            Output::Link(control, output) => self.tell_link(control, output),
            Output::AllocateMedia { port, worker } => self.allocate(port, worker),
            Output::ReleaseMedia { port, worker } => {
                self.ports.release(clock::now(), port);
                self.tell_media(worker, ToMedia::Release { port });
            }
            Output::Worker { worker, command } => {
                self.tell_trunk(worker, &command);
                self.tell_media(worker, ToMedia::Command(command));
            }
            Output::FetchPrompt { key } => self.fetch_prompt(key),
            Output::OpenRecording { op, recording, session, leg, channels, control } => {
                let control = self.link(control).map(|link| NodeId::from(link.node.as_str()));
                let header =
                    RecordingHeader { recording, session, leg, duration_ms: 0, channels, control };
                self.open_recording(op, header);
            }
            Output::CloseRecording { recorder, duration_ms, .. } => {
                let _ = self.recorder.send(RecorderCommand::Close { recorder, duration_ms });
            }
            Output::DropRecording { recorder, .. } => {
                let _ = self.recorder.send(RecorderCommand::Drop { recorder });
            }
            Output::TrunkPeer { peer, node } => {
                let _ = self.trunk.send(TrunkCommand::Peer { peer, node });
            }
            Output::Resolve { id, host, port, transport } => {
                self.resolve(id, host, port, transport)
            }
            Output::PersistTables(tables) => self.persist(tables),
            Output::Fact(fact) => self.log(&fact),
        }
    }

    fn send(&mut self, to: Destination, bytes: &Bytes) {
        let sent = match to.transport {
            // The first error may be about an earlier datagram, to whomever: `read_errors` tells.
            Transport::Udp => match self.socket.try_send_to(bytes, to.addr) {
                Err(error) if error.kind() != std::io::ErrorKind::WouldBlock => {
                    self.socket.try_send_to(bytes, to.addr)
                }
                sent => sent,
            },
            // Streams have no socket here yet.
            _ => Err(std::io::ErrorKind::Unsupported.into()),
        };
        match sent {
            Ok(_) => {}
            // Lost like any datagram; the transaction sends again.
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(error) => {
                tracing::debug!(to = %to.addr, %error, "SIP not sent");
                self.core.handle_input(clock::now(), Input::SendFailed { to });
            }
        }
    }

    fn link(&self, control: ControlIndex) -> Option<&LinkQueue> {
        self.links.get(usize::from(control.0))
    }

    fn tell_link(&mut self, control: ControlIndex, output: LinkOutput) {
        let Some(link) = self.link(control) else { return };
        // A full queue means that the link is stuck; what is lost here is sent again after it was
        // made anew, because control has not acknowledged it.
        if link.messages.try_send(output).is_err() {
            tracing::warn!(control = link.node, "link queue is full");
            link.reset.notify_one();
        }
    }

    fn tell_media(&mut self, worker: u16, message: ToMedia) {
        if let Some(media) = self.media.get_mut(usize::from(worker)) {
            media.push(message);
        }
    }

    fn allocate(&mut self, port: PortKey, worker: u16) {
        let now = clock::now();
        let full = self.media.get(usize::from(worker)).is_none_or(MediaHandle::is_full);
        let allocated = if full {
            Err("media thread is overloaded".to_owned())
        } else {
            self.ports.allocate(now, port).map_err(|error| error.to_string())
        };
        let input = match allocated {
            Ok((pair, rtp, rtcp)) => {
                let sockets = ToMedia::Sockets { port, rtp: pair.rtp, rtcp: pair.rtcp };
                self.tell_media(worker, sockets);
                Input::MediaAllocated { port, rtp, rtcp }
            }
            Err(why) => {
                tracing::warn!(why, "call refused");
                Input::MediaAllocationFailed { port, why }
            }
        };
        self.core.handle_input(now, input);
    }

    /// The trunk has to know which worker a channel belongs to before packets arrive.
    fn tell_trunk(&mut self, worker: u16, command: &WorkerCommand) {
        if let WorkerCommand::AddChannel { port, config, .. } = command {
            let address = Address { peer: config.peer, channel: config.channel };
            self.channels.insert(*port, address);
            let _ = self.trunk.send(TrunkCommand::Open { address, worker });
        }
        if let WorkerCommand::RemovePort { port } = command
            && let Some(address) = self.channels.remove(port)
        {
            let _ = self.trunk.send(TrunkCommand::Close { address });
        }
    }

    fn fetch_prompt(&self, key: PromptKey) {
        let (prompts, sender) = (self.prompts.clone(), self.aside_sender.clone());
        self.runtime.spawn(async move {
            let result = prompts.get(&key).await.map_err(|error| format!("{error:#}"));
            let _ = sender.send(Aside::Prompt(key, result)).await;
        });
    }

    fn open_recording(&mut self, op: OpKey, header: RecordingHeader) {
        let recorder = RecorderHandle(self.recorder_next.fetch_add(1, Ordering::Relaxed));
        let (reply, answer) = oneshot::channel();
        let _ = self.recorder.send(RecorderCommand::Open { recorder, header, reply });
        let sender = self.aside_sender.clone();
        self.runtime.spawn(async move {
            let gone = || Err("recorder is gone".to_owned());
            let result = answer.await.unwrap_or_else(|_| gone());
            let _ = sender.send(Aside::Recording(op, recorder, result)).await;
        });
    }

    fn resolve(
        &self,
        id: edge_core::ResolveId,
        host: String,
        port: Option<u16>,
        transport: Transport,
    ) {
        let sender = self.aside_sender.clone();
        let ipv4 = self.local.is_ipv4();
        self.runtime.spawn(async move {
            let port = port.unwrap_or_else(|| transport.default_port());
            let found = tokio::net::lookup_host((host.as_str(), port)).await;
            let address = found.ok().and_then(|mut all| all.find(|a| a.is_ipv4() == ipv4));
            let _ = sender.send(Aside::Resolved(id, address)).await;
        });
    }

    fn persist(&self, tables: Tables) {
        let file = self.tables.clone();
        self.runtime.spawn_blocking(move || {
            if let Err(error) = file.save(&tables) {
                tracing::error!(error = format!("{error:#}"), "tables not kept");
            }
        });
    }

    fn log(&mut self, fact: &Fact) {
        match fact {
            Fact::Offered { leg, provider } => tracing::info!(%leg, provider, "call offered"),
            Fact::Answered { leg } => tracing::info!(%leg, "call answered"),
            Fact::Ended { leg, reason, whose } => {
                tracing::info!(%leg, ?reason, ?whose, "call ended");
            }
            // Metrics count all of them by cause.
            Fact::Refused { status, why } => match self.refusals.line(clock::now()) {
                Some(0) => tracing::info!(status, why, "call refused"),
                Some(left_out) => {
                    tracing::info!(status, why, left_out, "call refused, as others before")
                }
                None => {}
            },
            Fact::Control { control, connected } => {
                let control = self.link(*control).map(|link| link.node.as_str());
                tracing::info!(control, connected, "control");
            }
            Fact::Trouble { call, why } => tracing::warn!(%call, why, "trouble"),
        }
    }
}
