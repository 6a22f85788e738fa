//! The kernel fast path under the worker: the same figures and the same packets as without it.

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam::queue::ArrayQueue;
use edge::fast_path::Lane;
use edge::media_handle::{MediaHandle, MediaQueues, ToMedia};
use edge::media_thread::{self, MediaThreadConfig};
use edge::trunk_ring;
use edge_media::command::*;
use edge_media::event::{LegStats, WorkerEvent};
use edge_media::offload::{CLOCK_START_US, Offload, OffloadId, Progress};
use edge_media::recording::RecorderMessage;
use edge_media::{Component, Tx, Worker, WorkerConfig, WorkerLimits};
use edge_uring::{Limits, WaitConfig};
use edge_xdp::testing::{FarEnd, Line, Verdict, run};
use edge_xdp::{FastPath, Mode};
use link_daemon::metrics::Metrics;
use link_proto::{ChannelId, OpId};
use tokio::sync::Notify;

const SESSION: SessionKey = SessionKey { index: 0, generation: 0 };
const LIMITS: edge_xdp::Limits = edge_xdp::Limits { streams_max: 16, hops_max: 8, tables: 1 };

fn world() -> Option<(Line, FastPath)> {
    let line = match Line::new() {
        Ok(line) => line,
        Err(error) => {
            println!("skipped: no network namespaces to be had: {error}");
            return None;
        }
    };
    match line.middle.enter(|| FastPath::load(LIMITS)) {
        Ok(path) => {
            line.meet().expect("neighbours");
            Some((line, path))
        }
        Err(error) => {
            println!("skipped: {error}");
            None
        }
    }
}

fn address(text: &str) -> SocketAddr {
    text.parse().expect("address")
}

fn leg(index: u32, remote: SocketAddr) -> LegConfig {
    LegConfig {
        receive: vec![PayloadMapping { payload_type: 0, codec: AudioCodec::Pcmu }],
        send: PayloadMapping { payload_type: 0, codec: AudioCodec::Pcmu },
        telephone_event_receive: Some(101),
        telephone_event_send: Some(101),
        ptime_ms: 20,
        remote_rtp: Some(remote),
        remote_rtcp: Some(SocketAddr::new(remote.ip(), remote.port() + 1)),
        rtcp_mux: false,
        latching: Latching::SdpNetwork,
        latch_epoch: 0,
        local_ssrc: 0x1000 + index,
        cname: "leg@edge".to_owned(),
        media_timeout_ms: Some(60_000),
        answered: true,
        direction: Direction::SendRecv,
    }
}

fn key(index: u32) -> PortKey {
    PortKey { index, generation: 1 }
}

/// What one worker sends, and its part of the kernel if it has one.
#[derive(Default)]
struct Outside {
    lane: Option<Lane>,
    locals: Vec<SocketAddr>,
    sent: Vec<(PortKey, Vec<u8>)>,
    running: Vec<(PortKey, OffloadId)>,
    last: Option<Progress>,
}

impl Tx for Outside {
    fn forward(&mut self, to: PortKey, component: Component, at: SocketAddr, packet: &[u8]) {
        self.send(to, component, at, packet);
    }

    fn send(&mut self, to: PortKey, component: Component, _: SocketAddr, bytes: &[u8]) {
        // Reports carry times of their own.
        if component == Component::Rtp {
            self.sent.push((to, bytes.to_vec()));
        }
    }

    fn trunk(&mut self, _: u32, _: ChannelId, _: &[u8]) {}

    fn set_peer(&mut self, _: PortKey, _: Component, _: Option<SocketAddr>) {}

    fn record(&mut self, _: RecorderMessage) {}

    fn offloads(&self) -> bool {
        self.lane.is_some()
    }

    fn offload(&mut self, stream: &Offload) -> Option<OffloadId> {
        let (from, to) = (stream.from.index as usize, stream.to.index as usize);
        let id = self.lane.as_mut()?.offload(stream, self.locals[from], self.locals[to]).ok()?;
        self.running.push((stream.from, id));
        Some(id)
    }

    fn offloaded(&mut self, id: OffloadId) -> Option<Progress> {
        self.lane.as_ref()?.progress(id)
    }

    fn withdraw(&mut self, id: OffloadId) -> Option<Progress> {
        self.running.retain(|(_, other)| *other != id);
        self.lane.as_mut()?.withdraw(id)
    }
}

/// Two phones and one worker between them.
struct World {
    worker: Worker,
    outside: Outside,
}

impl World {
    fn new(epoch: Instant, lane: Option<Lane>, phones: [SocketAddr; 2]) -> Self {
        let limits = WorkerLimits::for_ports(8);
        let mut worker = Worker::new(WorkerConfig { limits, seed: 7 }, epoch);
        let locals = vec![address("10.8.1.1:20000"), address("10.8.2.1:20002")];
        let mut outside = Outside { lane, locals, ..Outside::default() };
        let mut tell = |command| worker.handle_command(epoch, command, &mut outside);
        for (index, phone) in phones.into_iter().enumerate() {
            let config = leg(index as u32, phone);
            tell(WorkerCommand::AddLeg { port: key(index as u32), session: SESSION, config });
        }
        for (from, to) in [(0, 1), (1, 0)] {
            let path = LinkPath::Relay;
            tell(WorkerCommand::Connect { from: key(from), to: key(to), path });
        }
        Self { worker, outside }
    }

    fn command(&mut self, now: Instant, command: WorkerCommand) {
        self.worker.handle_command(now, command, &mut self.outside);
    }

    fn packet(&mut self, now: Instant, from: SocketAddr, bytes: &[u8]) {
        let mut data = bytes.to_vec();
        let (port, source) = (key(0), Some(from));
        self.worker.handle_packet(now, port, Component::Rtp, source, &mut data, &mut self.outside);
    }

    fn stats(&mut self, now: Instant, index: u32) -> LegStats {
        self.command(now, WorkerCommand::RemovePort { port: key(index) });
        loop {
            match self.worker.poll_event().expect("the port's last event") {
                WorkerEvent::PortRemoved { stats, .. } => return stats,
                _ => continue,
            }
        }
    }
}

/// SplitMix64.
struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % n
    }
}

fn rtp(payload_type: u8, seq: u16, timestamp: u32, ssrc: u32) -> Vec<u8> {
    let mut packet = vec![0x80, payload_type];
    packet.extend(seq.to_be_bytes());
    packet.extend(timestamp.to_be_bytes());
    packet.extend(ssrc.to_be_bytes());
    if payload_type & 0x7f == 101 {
        packet.extend([5, 10, 0, 160]);
    } else {
        packet.extend((0..160).map(|n| (n as u8).wrapping_add(seq as u8)));
    }
    packet
}

/// Ethernet, IPv4 and UDP around a payload; without checksums, which are of no matter here.
fn frame(from: SocketAddr, to: SocketAddr, payload: &[u8]) -> Vec<u8> {
    let (SocketAddr::V4(from), SocketAddr::V4(to)) = (from, to) else { panic!("IPv4") };
    let udp_bytes = (payload.len() + 8) as u16;
    let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0, 0x45, 0];
    frame.extend((udp_bytes + 20).to_be_bytes());
    frame.extend([0, 0, 0, 0, 64, 17, 0, 0]);
    frame.extend(from.ip().octets());
    frame.extend(to.ip().octets());
    frame.extend(from.port().to_be_bytes());
    frame.extend(to.port().to_be_bytes());
    frame.extend(udp_bytes.to_be_bytes());
    frame.extend([0, 0]);
    frame.extend(payload);
    frame
}

/// A sender with losses, doubles, overtaken packets, digits, pauses of its numbers and new sources.
struct Sender {
    random: Random,
    seq: u16,
    timestamp: u32,
    ssrc: u32,
    kept: Option<Vec<u8>>,
}

impl Sender {
    fn next(&mut self, n: u32) -> Vec<Vec<u8>> {
        self.seq = self.seq.wrapping_add(1);
        self.timestamp = self.timestamp.wrapping_add(160);
        let mut payload_type = 0;
        // The first half second is quiet, so that a stream gets into the kernel at all.
        let what = if n < 300 { 99 } else { self.random.below(2_000) };
        match what {
            0 => self.seq = self.seq.wrapping_add(self.random.below(5_000) as u16),
            1 => self.ssrc = self.ssrc.wrapping_add(1),
            2 => payload_type = 101,
            3 => payload_type = 96,
            4 => self.timestamp = self.timestamp.wrapping_add(1_600),
            5..=8 => payload_type = 0x80,
            9..=14 => return Vec::new(),
            15..=20 if self.kept.is_none() => {
                self.kept = Some(rtp(0, self.seq, self.timestamp, self.ssrc));
                return Vec::new();
            }
            _ => {}
        }
        let packet = rtp(payload_type, self.seq, self.timestamp, self.ssrc);
        let twice = (21..=24).contains(&what).then(|| packet.clone());
        let late = if self.random.below(3) == 0 { self.kept.take() } else { None };
        [Some(packet), twice, late].into_iter().flatten().collect()
    }
}

/// One worker with the kernel and one without get the same packets at the same times. What leaves
/// is the same byte for byte, and so are the figures at the end.
#[test]
fn the_kernel_does_what_the_worker_does() {
    let Some((_line, mut path)) = world() else { return };
    let table = path.take_table().expect("a table");
    let phones = [address("10.8.1.2:30000"), address("10.8.2.2:30002")];
    let epoch = Instant::now();
    let mut with = World::new(epoch, Some(Lane::new(table)), phones);
    let mut without = World::new(epoch, None, phones);
    let random = Random(std::process::id().into());
    println!("seed {}", random.0);
    let mut sender = Sender { random, seq: 65_000, timestamp: 4_294_900_000, ssrc: 9, kept: None };
    let mut by_kernel = 0_u32;
    for n in 0..6_000_u32 {
        let due = epoch + Duration::from_micros(u64::from(n) * 1_000);
        while Instant::now() < due {
            std::hint::spin_loop();
        }
        if n % 611 == 610 {
            // Anything that concerns a leg takes its streams back.
            let now = Instant::now();
            let port = key(n % 2);
            for world in [&mut with, &mut without] {
                let config = leg(n % 2, phones[n as usize % 2]);
                world.command(now, WorkerCommand::UpdateLeg { port, config });
            }
        }
        for packet in sender.next(n) {
            let now = one(&mut with, &mut path, phones[0], &packet, epoch, &mut by_kernel);
            without.packet(now, phones[0], &packet);
            with.worker.handle_tick(now, &mut with.outside);
            without.worker.handle_tick(now, &mut without.outside);
            let (a, b) = (&mut with.outside.sent, &mut without.outside.sent);
            assert_eq!(a, b, "packet {n}");
            a.clear();
            b.clear();
        }
    }
    let stats = with.worker.stats();
    println!("{by_kernel} of 6000 by the kernel, {} moves", stats.offloads + stats.withdrawals);
    assert!(by_kernel > 200 && stats.withdrawals >= 4, "{stats:?}");
    assert_eq!(without.worker.stats().offloads, 0);
    let now = Instant::now();
    for index in [0, 1] {
        let (mut a, mut b) = (with.stats(now, index), without.stats(now, index));
        // Differences of times that were rounded to µs before and after.
        assert!(a.longest_gap_out_us.abs_diff(b.longest_gap_out_us) <= 1, "{a:?} {b:?}");
        (a.longest_gap_out_us, b.longest_gap_out_us) = (0, 0);
        assert_eq!(a, b, "leg {index}");
    }
    assert_eq!(with.worker.stats().packets_relayed, without.worker.stats().packets_relayed);
}

/// Gives a packet to whoever has the stream; the time at which it was seen there.
fn one(
    with: &mut World,
    path: &mut FastPath,
    from: SocketAddr,
    packet: &[u8],
    epoch: Instant,
    by_kernel: &mut u32,
) -> Instant {
    let running = with.outside.running.iter().find(|(port, _)| *port == key(0)).copied();
    if let Some((_, id)) = running {
        let sent = frame(from, with.outside.locals[0], packet);
        let (verdict, out, _) = run(path, &sent, 1).expect("run");
        if verdict == Verdict::Redirected {
            *by_kernel += 1;
            with.outside.sent.push((key(1), out[42..].to_vec()));
            let progress = with.outside.offloaded(id).expect("there");
            // As the shell without the kernel would have been given it.
            let since = progress.counted.last_us - CLOCK_START_US;
            with.outside.last = Some(progress);
            return epoch + Duration::from_micros(since);
        }
        assert_eq!(out, sent, "what goes up is unchanged");
    }
    let now = Instant::now();
    with.packet(now, from, packet);
    now
}

/// A phone beyond a link, with the edge's addresses for it.
struct Phone {
    rtp: UdpSocket,
    edge: SocketAddr,
    seq: u16,
    heard: Vec<u16>,
}

impl Phone {
    fn send(&mut self) {
        self.seq += 1;
        let ssrc = u32::from(self.edge.port());
        let packet = rtp(0, self.seq, u32::from(self.seq) * 160, ssrc);
        self.rtp.send_to(&packet, self.edge).expect("sent");
    }

    fn listen(&mut self) {
        let mut bytes = [0; 2_048];
        while let Ok(length) = self.rtp.recv(&mut bytes) {
            // Not the silence from before the call.
            if length == 172 && bytes[12..172].iter().any(|byte| *byte != 0xff) {
                self.heard.push(u16::from_be_bytes([bytes[2], bytes[3]]));
            }
        }
    }
}

/// Both legs of a call on different links, a media thread between them: the conversation goes into
/// the kernel, comes back for a program and goes in again, and nothing is lost or doubled.
#[test]
fn a_call_goes_into_the_kernel_and_comes_back() {
    let Some((line, mut path)) = world() else { return };
    for interface in ["e0", "e1"] {
        line.middle.enter(|| path.attach(interface, Mode::Auto)).expect("attached");
    }
    let ends = [(&line.left, "l0"), (&line.right, "r0")].map(|(ns, interface)| {
        let mut end = FarEnd::open().expect("far end");
        ns.enter(|| end.attach(interface, Mode::Auto)).expect("attached");
        end
    });
    let queues = MediaQueues::new(64, Arc::new(Notify::new())).expect("a descriptor");
    let (trunk_out, _out) = trunk_ring::ring(1 << 16);
    let (_in, trunk_in) = trunk_ring::ring(1 << 16);
    let config = MediaThreadConfig {
        index: 0,
        queues: queues.clone(),
        trunk_out,
        trunk_wake: Arc::default(),
        epoch: trunk_ring::Epoch::new(link_daemon::clock::now()),
        trunk_in,
        recorder: Arc::new(ArrayQueue::new(16)),
        ports_max: 32,
        limits: Limits { sockets_max: 64, rx_buffers: 256, ..Limits::default() },
        wait: WaitConfig::default(),
        core: None,
        fifo_priority: None,
        fast_path: path.take_table(),
    };
    let metrics = Metrics::new("edge");
    let thread = media_thread::spawn(config, &metrics).expect("an io_uring");
    let mut handle = MediaHandle::new(queues);
    let mut tell = |message| {
        handle.push(message);
        handle.flush();
    };
    let bind = |at: &str| UdpSocket::bind(address(at)).expect("bound");
    let mut phones = [
        (&line.left, "10.8.1.1:20000", "10.8.1.1:20001", "10.8.1.2:30000"),
        (&line.right, "10.8.2.1:20002", "10.8.2.1:20003", "10.8.2.2:30002"),
    ]
    .into_iter()
    .enumerate()
    .map(|(index, (far, own, own_rtcp, phone))| {
        let (rtp, rtcp) = line.middle.enter(|| (bind(own), bind(own_rtcp)));
        tell(ToMedia::Sockets { port: key(index as u32), rtp, rtcp });
        let config = leg(index as u32, address(phone));
        let port = key(index as u32);
        tell(ToMedia::Command(WorkerCommand::AddLeg { port, session: SESSION, config }));
        let rtp = far.enter(|| bind(phone));
        rtp.set_nonblocking(true).expect("set");
        Phone { rtp, edge: address(own), seq: 100, heard: Vec::new() }
    })
    .collect::<Vec<_>>();
    let relay = LinkPath::Relay;
    for (from, to) in [(0, 1), (1, 0)] {
        let command = WorkerCommand::Connect { from: key(from), to: key(to), path: relay };
        tell(ToMedia::Command(command));
    }
    let (began, mut forwarded) = (Instant::now(), Vec::new());
    let op = OpKey { session: SESSION, op: OpId(1) };
    for n in 0..200_u32 {
        while began.elapsed() < Duration::from_millis(20) * n {
            phones.iter_mut().for_each(Phone::listen);
            std::thread::yield_now();
        }
        phones.iter_mut().for_each(Phone::send);
        match n {
            80 => {
                let keys = "#".to_owned();
                tell(ToMedia::Command(WorkerCommand::StartWatch { op, port: key(0), keys }));
            }
            110 => tell(ToMedia::Command(WorkerCommand::StopOp { op })),
            _ => {}
        }
        if [79, 85, 109, 199].contains(&n) {
            forwarded.push(path.counters().forwarded);
        }
    }
    let end = Instant::now() + Duration::from_millis(300);
    while Instant::now() < end {
        phones.iter_mut().for_each(Phone::listen);
    }
    for index in [0, 1] {
        tell(ToMedia::Command(WorkerCommand::RemovePort { port: key(index) }));
    }
    let mut removed = Vec::new();
    let end = Instant::now() + Duration::from_secs(5);
    while removed.len() < 2 {
        assert!(Instant::now() < end, "the legs do not end");
        if let Some(WorkerEvent::PortRemoved { stats, .. }) = handle.event() {
            removed.push(stats);
        }
    }
    println!("forwarded at four times {forwarded:?}, {:?}", path.counters());
    let [before, at_watch, in_watch, last] = forwarded[..] else { panic!() };
    assert!(before > 60, "the call went into the kernel");
    // One direction has a program now; the other one may stay.
    assert!(in_watch - at_watch <= 24 + 4, "it came back for a program");
    assert!(last - in_watch > 90, "and went in again");
    for (phone, stats) in phones.iter().zip(&removed) {
        assert_eq!(stats.packets_received, 200, "{stats:?}");
        assert_eq!(stats.packets_lost, 0, "{stats:?}");
        assert!(phone.heard.len() >= 199, "{} heard", phone.heard.len());
        let doubled = phone.heard.windows(2).filter(|pair| pair[1] == pair[0]).count();
        let holes = phone.heard.windows(2).filter(|pair| pair[1] != pair[0].wrapping_add(1));
        // Silence between the last frame before a move and the next may take a number.
        assert_eq!(doubled, 0);
        assert!(holes.count() <= 2, "{:?}", phone.heard);
    }
    drop(ends);
    thread.stop().expect("a clean end");
}
