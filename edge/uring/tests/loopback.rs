//! The loop on real sockets. Most tests turn the loop by hand on the test's own thread: with
//! deferred task work the kernel receives nothing between two turns, so what is queued when is
//! exact.

use std::collections::VecDeque;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use edge_uring::{
    Datagram, Doorbell, Driver, Io, Limits, Loop, SocketId, ThreadConfig, WaitConfig,
    cores_allowed, socket, spawn,
};

const PATIENCE: Duration = Duration::from_secs(5);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Seen {
    token: u64,
    source: Option<SocketAddr>,
    data: Vec<u8>,
}

/// Records everything, forwards by a table, ends each turn's wait after a few milliseconds.
#[derive(Default)]
struct Probe {
    seen: Vec<Seen>,
    /// Socket index → where its datagrams go.
    routes: Vec<Vec<SocketId>>,
    latch: bool,
    deadline: Option<Instant>,
    woken: Vec<Duration>,
    rings: u32,
    send_errors: Vec<(SocketId, i32)>,
    removed: Vec<(SocketId, SocketAddr)>,
}

impl Probe {
    fn route(&mut self, from: SocketId, to: SocketId) {
        if self.routes.len() <= from.index() {
            self.routes.resize(from.index() + 1, Vec::new());
        }
        self.routes[from.index()].push(to);
    }

    fn texts(&self) -> Vec<&[u8]> {
        self.seen.iter().map(|seen| seen.data.as_slice()).collect()
    }
}

impl Driver for Probe {
    fn on_datagram(&mut self, _: Instant, datagram: Datagram<'_>, io: &mut Io) {
        self.seen.push(Seen {
            token: datagram.token,
            source: datagram.source,
            data: datagram.data.to_vec(),
        });
        if self.latch
            && let Some(source) = datagram.source
        {
            self.latch = false;
            io.connect(datagram.socket, Some(source)).expect("latched");
        }
        let length = datagram.data.len();
        if let Some(routes) = self.routes.get(datagram.socket.index()) {
            for to in routes {
                assert!(io.forward(*to, 0..length));
            }
        }
    }

    fn on_doorbell(&mut self, _: Instant, _: &mut Io) {
        self.rings += 1;
    }

    fn on_deadline(&mut self, now: Instant, _: &mut Io) {
        if let Some(deadline) = self.deadline.take() {
            self.woken.push(now.duration_since(deadline));
        }
    }

    /// Without a deadline of its own: always a little ahead, so that a turn ends.
    fn next_deadline(&self) -> Option<Instant> {
        self.deadline.or_else(|| Some(Instant::now() + Duration::from_millis(2)))
    }

    fn on_send_error(&mut self, _: Instant, socket: SocketId, errno: i32) {
        self.send_errors.push((socket, errno));
    }

    fn on_removed(&mut self, _: Instant, socket: SocketId, udp: UdpSocket, _: &mut Io) {
        self.removed.push((socket, udp.local_addr().expect("bound")));
    }
}

struct Bench {
    turns: Loop,
    probe: Probe,
    bell: Arc<Doorbell>,
}

impl Bench {
    fn new(limits: Limits) -> Self {
        Bench::waiting(limits, WaitConfig::default())
    }

    fn waiting(limits: Limits, wait: WaitConfig) -> Self {
        let bell = Arc::new(Doorbell::new().expect("eventfd"));
        let turns = Loop::new(limits, wait, Arc::clone(&bell), Instant::now).expect("ring");
        Bench { turns, probe: Probe::default(), bell }
    }

    /// Turns until `done`, at most `PATIENCE`.
    fn until(&mut self, mut done: impl FnMut(&Probe, &mut Io) -> bool) {
        let end = Instant::now() + PATIENCE;
        while !done(&self.probe, self.turns.io()) {
            assert!(Instant::now() < end, "not reached: {:?}", self.turns.io().stats());
            self.turns.turn(&mut self.probe).expect("turn");
        }
    }

    fn until_seen(&mut self, count: usize) {
        self.until(|probe, _| probe.seen.len() >= count);
    }

    /// Some turns in which nothing more is to come.
    fn settle(&mut self) {
        let mut left = 5;
        self.until(|_, _| {
            left -= 1;
            left == 0
        });
    }

    fn add(&mut self, token: u64) -> (SocketId, SocketAddr) {
        let udp = udp();
        let address = udp.local_addr().expect("bound");
        (self.turns.io().add_socket(udp, token).expect("slot"), address)
    }
}

fn small() -> Limits {
    Limits { sockets_max: 64, rx_buffers: 256, submission_entries: 64, ..Limits::default() }
}

fn udp() -> UdpSocket {
    let config = socket::SocketConfig { receive_buffer_bytes: 1 << 20, ..Default::default() };
    socket::bind("127.0.0.1:0".parse().expect("address"), &config).expect("bound")
}

fn phone(to: SocketAddr) -> (UdpSocket, SocketAddr) {
    let phone = udp();
    phone.connect(to).expect("connected");
    phone.set_read_timeout(Some(PATIENCE)).expect("timeout");
    let address = phone.local_addr().expect("bound");
    (phone, address)
}

#[test]
fn unconnected_socket_tells_the_source() {
    let mut bench = Bench::new(small());
    let (_, address) = bench.add(7);
    let (a, a_address) = phone(address);
    let (b, b_address) = phone(address);
    a.send(b"from a").expect("sent");
    b.send(b"from b").expect("sent");
    bench.until_seen(2);
    let expect = |source, data: &[u8]| Seen { token: 7, source: Some(source), data: data.to_vec() };
    assert_eq!(bench.probe.seen, [expect(a_address, b"from a"), expect(b_address, b"from b")]);
}

#[test]
fn ten_thousand_datagrams_are_forwarded_in_place_without_loss() {
    let bell = Arc::new(Doorbell::new().expect("eventfd"));
    let (edge_a, edge_b) = (udp(), udp());
    let (a, a_address) = phone(edge_a.local_addr().expect("bound"));
    let (b, b_address) = phone(edge_b.local_addr().expect("bound"));
    let config = ThreadConfig { limits: small(), ..ThreadConfig::default() };
    let thread = spawn(config, bell, Instant::now, move |io| {
        let left = io.add_socket(edge_a, 1).expect("slot");
        let right = io.add_socket(edge_b, 2).expect("slot");
        io.connect(left, Some(a_address)).expect("connected");
        io.connect(right, Some(b_address)).expect("connected");
        let mut probe = Probe::default();
        probe.route(left, right);
        probe.route(right, left);
        probe
    })
    .expect("started");
    let mut buffer = [0; 512];
    let mut packet = [0x55_u8; 172];
    for window in 0..100_u32 {
        for number in 0..50 {
            packet[..4].copy_from_slice(&(window * 50 + number).to_be_bytes());
            a.send(&packet).expect("sent");
            b.send(&packet).expect("sent");
        }
        for socket in [&a, &b] {
            for number in 0..50 {
                let length = socket.recv(&mut buffer).expect("forwarded");
                packet[..4].copy_from_slice(&(window * 50 + number).to_be_bytes());
                assert_eq!(&buffer[..length], &packet);
            }
        }
    }
    let stats = thread.stop().expect("stopped");
    assert_eq!((stats.datagrams, stats.sends), (10_000, 10_000));
    assert_eq!((stats.send_failed(), stats.sends_refused, stats.sends_dropped_ring), (0, 0, 0));
    assert_eq!(stats.receive_no_buffers, 0);
    // Batched: the phones send in windows, so a turn finds several.
    assert!(stats.enters < stats.datagrams * 2, "{stats:?}");
}

#[test]
fn what_was_queued_before_connect_comes_with_its_source() {
    let mut bench = Bench::new(small());
    let (id, address) = bench.add(1);
    // The receive is with the kernel before anything arrives.
    bench.settle();
    let (peer, peer_address) = phone(address);
    let (foreign, foreign_address) = phone(address);
    for number in 0..40_u8 {
        peer.send(&[b'p', number]).expect("sent");
        foreign.send(&[b'f', number]).expect("sent");
    }
    bench.turns.io().connect(id, Some(peer_address)).expect("connected");
    // Whoever is foreign now is refused by the kernel.
    let _ = foreign.send(b"late foreign");
    for number in 40..80_u8 {
        peer.send(&[b'p', number]).expect("sent");
    }
    bench.until_seen(120);
    bench.settle();
    assert_eq!(bench.probe.seen.len(), 120);
    let of = |first: u8| -> Vec<&Seen> {
        bench.probe.seen.iter().filter(|seen| seen.data[0] == first).collect()
    };
    let (from_peer, from_foreign) = (of(b'p'), of(b'f'));
    assert_eq!((from_peer.len(), from_foreign.len()), (80, 40));
    assert!(from_foreign.iter().all(|seen| seen.source == Some(foreign_address)));
    for (number, seen) in from_peer.iter().enumerate() {
        assert_eq!(usize::from(seen.data[1]), number, "order");
        assert!(seen.source.is_none_or(|source| source == peer_address));
        assert!(number >= 40 || seen.source.is_some(), "queued before: source known");
    }
    // From here on the socket is read without sources.
    peer.send(b"steady").expect("sent");
    bench.until_seen(121);
    assert_eq!(bench.probe.seen.last().map(|seen| seen.source), Some(None));
}

#[test]
fn latching_from_within_a_batch_loses_nothing() {
    let mut bench = Bench::new(small());
    bench.probe.latch = true;
    let (_, address) = bench.add(1);
    let (peer, peer_address) = phone(address);
    for number in 0..200_u8 {
        peer.send(&[number]).expect("sent");
    }
    bench.until_seen(200);
    let numbers: Vec<u8> = bench.probe.seen.iter().map(|seen| seen.data[0]).collect();
    assert_eq!(numbers, (0..200).collect::<Vec<u8>>());
    assert_eq!(bench.probe.seen[0].source, Some(peer_address));
    bench.settle();
    peer.send(b"x").expect("sent");
    bench.until_seen(201);
    assert_eq!(bench.probe.seen[200].source, None);
}

#[test]
fn relatching_moves_to_the_new_peer_and_names_the_old_one() {
    let mut bench = Bench::new(small());
    let (id, address) = bench.add(1);
    let (old, old_address) = phone(address);
    let (new, new_address) = phone(address);
    bench.turns.io().connect(id, Some(old_address)).expect("connected");
    old.send(b"1").expect("sent");
    bench.until_seen(1);
    bench.settle();
    old.send(b"2").expect("sent");
    bench.turns.io().connect(id, Some(new_address)).expect("accepted");
    bench.until_seen(2);
    assert_eq!(bench.probe.seen[1].source, Some(old_address), "queued before the change");
    bench.settle();
    new.send(b"3").expect("sent");
    bench.until_seen(3);
    assert_eq!(bench.probe.seen[2].source, None);
    assert!(bench.turns.io().send_copy(id, None, b"hello"));
    bench.settle();
    assert_eq!(new.recv(&mut [0; 8]).expect("sent to the new peer"), 5);

    // Opened again: anybody is heard, with source.
    bench.turns.io().connect(id, None).expect("accepted");
    bench.settle();
    old.send(b"4").expect("sent");
    bench.until_seen(4);
    assert_eq!(bench.probe.seen[3].source, Some(old_address));
}

#[test]
fn refused_peer_does_not_end_the_socket() {
    let mut bench = Bench::new(small());
    let (id, address) = bench.add(1);
    let (gone, peer_address) = phone(address);
    drop(gone);
    bench.turns.io().connect(id, Some(peer_address)).expect("connected");
    let mut stats = *bench.turns.io().stats();
    // Refusals come back when the machine has time for them.
    for _ in 0..1_000 {
        bench.turns.io().send_copy(id, None, b"to nobody");
        bench.settle();
        stats = *bench.turns.io().stats();
        if stats.receive_refused + stats.send_failed_refused >= 10 {
            break;
        }
    }
    assert!(stats.receive_refused + stats.send_failed_refused >= 10, "{stats:?}");
    assert_eq!(stats.send_failed(), bench.probe.send_errors.len() as u64);
    let back = UdpSocket::bind(peer_address).expect("same port");
    back.send_to(b"back", address).expect("sent");
    bench.until_seen(1);
    assert_eq!(bench.probe.texts(), [b"back"]);
}

/// A turn that hands over less than has come asks for no more: else each one would fill further
/// buffers, until none is left.
#[test]
fn a_turn_that_is_behind_takes_in_no_more() {
    let limits = Limits {
        rx_buffers: 64,
        sockets_max: 128,
        completions_per_turn_max: 8,
        ..Limits::default()
    };
    let mut bench = Bench::new(limits);
    let phones: Vec<_> = (0..100)
        .map(|token| {
            let (id, address) = bench.add(token);
            let (phone, phone_address) = phone(address);
            bench.turns.io().connect(id, Some(phone_address)).expect("connected");
            phone
        })
        .collect();
    bench.until(|_, io| io.sockets_open() == 100);
    for _ in 0..30 {
        bench.settle();
    }
    for phone in &phones {
        phone.send(b"one each").expect("sent");
    }
    let began = Instant::now();
    // One entry takes in what the next three turns hand over; what it left when they began says
    // nothing about what waits in the sockets.
    while bench.probe.seen.len() < 16 {
        bench.turns.turn(&mut bench.probe).expect("turn");
    }
    let now = Instant::now();
    let behind = bench.turns.io().behind(now);
    assert!(behind * 2 > now - began, "{behind:?} of {:?}", now - began);
    bench.until_seen(100);
    assert_eq!(bench.turns.io().stats().receive_no_buffers, 0);
    assert_eq!(bench.probe.seen.len(), 100);
}

#[test]
fn starved_receives_recover_and_are_counted() {
    let mut bench = Bench::new(Limits { rx_buffers: 4, ..small() });
    let (id, address) = bench.add(1);
    let (out, out_address) = bench.add(2);
    let (peer, _) = phone(address);
    let (sink, sink_address) = phone(out_address);
    bench.turns.io().connect(out, Some(sink_address)).expect("connected");
    bench.probe.route(id, out);
    bench.settle();
    for number in 0..200_u8 {
        peer.send(&[number; 100]).expect("sent");
    }
    bench.until_seen(200);
    bench.settle();
    let numbers: Vec<u8> = bench.probe.seen.iter().map(|seen| seen.data[0]).collect();
    assert_eq!(numbers, (0..200).collect::<Vec<u8>>(), "nothing lost, order kept");
    assert!(bench.turns.io().stats().receive_no_buffers > 0);
    let mut buffer = [0; 200];
    for number in 0..200_u8 {
        assert_eq!(sink.recv(&mut buffer).expect("forwarded"), 100);
        assert_eq!(buffer[..100], [number; 100], "no buffer was reused before it was sent");
    }
}

#[test]
fn full_socket_buffer_is_seen_in_its_drop_count() {
    let mut bench = Bench::new(small());
    let config = socket::SocketConfig { receive_buffer_bytes: 4096, ..Default::default() };
    let tight = socket::bind("127.0.0.1:0".parse().expect("address"), &config).expect("bound");
    let address = tight.local_addr().expect("bound");
    let id = bench.turns.io().add_socket(tight, 1).expect("slot");
    let (peer, _) = phone(address);
    for _ in 0..100 {
        peer.send(&[0; 172]).expect("sent");
    }
    bench.settle();
    let dropped = bench.turns.io().socket_drops(id).expect("figure");
    assert_eq!(bench.probe.seen.len() + dropped as usize, 100);
    assert!(dropped > 0);
    assert!(bench.turns.io().remove(id));
    bench.until(|probe, _| probe.removed.len() == 1);
    assert_eq!(bench.turns.io().stats().socket_drops, u64::from(dropped));
}

#[test]
fn one_datagram_goes_to_several_sockets_and_may_grow() {
    struct Tap {
        to: Vec<SocketId>,
    }
    impl Driver for Tap {
        fn on_datagram(&mut self, _: Instant, datagram: Datagram<'_>, io: &mut Io) {
            let length = datagram.data.len();
            datagram.data[0] = b'X';
            datagram.room[..4].copy_from_slice(b"+tag");
            assert!(io.forward(self.to[0], 0..length + 4));
            assert!(io.forward(self.to[1], 1..length));
            assert!(io.send_copy(self.to[2], None, b"own"));
            assert!(!io.forward(self.to[0], 0..100_000), "beyond the buffer");
        }
        fn on_doorbell(&mut self, _: Instant, _: &mut Io) {}
        fn on_deadline(&mut self, _: Instant, _: &mut Io) {}
        fn next_deadline(&self) -> Option<Instant> {
            Some(Instant::now() + Duration::from_millis(2))
        }
    }
    let mut bench = Bench::new(small());
    let (_, address) = bench.add(0);
    let legs: Vec<_> = (1..4).map(|token| bench.add(token)).collect();
    let phones: Vec<_> = legs.iter().map(|(_, address)| phone(*address)).collect();
    for ((id, _), (_, address)) in legs.iter().zip(&phones) {
        bench.turns.io().connect(*id, Some(*address)).expect("connected");
    }
    let mut tap = Tap { to: legs.iter().map(|(id, _)| *id).collect() };
    let (source, _) = phone(address);
    source.send(b"voice").expect("sent");
    let end = Instant::now() + PATIENCE;
    while bench.turns.io().stats().sends < 3 {
        assert!(Instant::now() < end);
        bench.turns.turn(&mut tap).expect("turn");
    }
    for ((phone, _), expect) in phones.iter().zip([&b"Xoice+tag"[..], b"oice", b"own"]) {
        let mut buffer = [0; 64];
        let length = phone.recv(&mut buffer).expect("forwarded");
        assert_eq!(&buffer[..length], expect);
    }
    assert_eq!(bench.turns.io().stats().sends_refused, 1);
}

#[test]
fn more_sends_than_slots_go_out_in_order() {
    let mut bench = Bench::new(Limits { submission_entries: 8, ..small() });
    let (id, address) = bench.add(1);
    let (phone, phone_address) = phone(address);
    for number in 0..500_u16 {
        assert!(bench.turns.io().send_copy(id, Some(phone_address), &number.to_be_bytes()));
    }
    bench.settle();
    let mut buffer = [0; 8];
    for number in 0..500_u16 {
        assert_eq!(phone.recv(&mut buffer).expect("sent"), 2);
        assert_eq!(buffer[..2], number.to_be_bytes());
    }
    let io = bench.turns.io();
    assert!(!io.send_copy(id, None, b"no address"));
    assert!(!io.send_copy(id, Some(phone_address), &[0; 4096]));
    assert!(!io.forward(id, 0..1), "no datagram at hand");
    assert_eq!(io.stats().sends_refused, 3);
}

#[test]
fn failed_sends_are_reported_with_their_cause() {
    let mut bench = Bench::new(small());
    let (id, _) = bench.add(1);
    let broadcast = "255.255.255.255:9".parse().expect("address");
    assert!(bench.turns.io().send_copy(id, Some(broadcast), b"x"));
    bench.until(|probe, _| !probe.send_errors.is_empty());
    assert_eq!(bench.probe.send_errors.len(), 1);
    assert_eq!(bench.probe.send_errors[0].0, id);
    assert_eq!(bench.turns.io().stats().send_failed(), 1);
}

#[test]
fn oversized_datagrams_are_counted_and_dropped() {
    let mut bench = Bench::new(Limits { rx_buffer_bytes: 512, ..small() });
    let (id, address) = bench.add(1);
    let (peer, peer_address) = phone(address);
    let send_sizes = |sizes: [usize; 3]| {
        for size in sizes {
            peer.send(&vec![1; size]).expect("sent");
        }
    };
    send_sizes([464, 465, 2000]);
    bench.until_seen(1);
    bench.settle();
    bench.turns.io().connect(id, Some(peer_address)).expect("connected");
    bench.settle();
    send_sizes([511, 512, 2000]);
    bench.until_seen(2);
    bench.settle();
    let lengths: Vec<usize> = bench.probe.seen.iter().map(|seen| seen.data.len()).collect();
    assert_eq!(lengths, [464, 511]);
    assert_eq!(bench.turns.io().stats().datagrams_truncated, 4);
}

#[test]
fn sockets_come_and_go_and_their_slots_and_ports_return() {
    let mut bench = Bench::new(Limits { sockets_max: 50, ..small() });
    for round in 1..=20_usize {
        let ids: Vec<_> = (0..50).map(|token| bench.add(token)).collect();
        let refused = bench.turns.io().add_socket(udp(), 99).expect_err("all slots are taken");
        drop(refused);
        bench.settle();
        let seen = bench.probe.seen.len();
        for (_, address) in &ids {
            let (peer, _) = phone(*address);
            peer.send(b"x").expect("sent");
        }
        bench.until_seen(seen + 50);
        for (place, (id, address)) in ids.iter().enumerate() {
            // Removed in each state: connected, changing, plain.
            if place % 3 == 0 {
                bench.turns.io().connect(*id, Some(*address)).expect("connected");
            }
            assert!(bench.turns.io().remove(*id));
            assert!(!bench.turns.io().remove(*id), "removed once");
            assert!(!bench.turns.io().send_copy(*id, Some(*address), b"x"), "stale");
        }
        bench.until(|probe, _| probe.removed.len() == round * 50);
        assert_eq!(bench.turns.io().sockets_open(), 0);
        for (_, address) in &ids {
            UdpSocket::bind(address).expect("the port is free again");
        }
    }
    let stats = bench.turns.io().stats();
    assert_eq!((stats.sockets_added, stats.sockets_removed), (1000, 1000));
}

#[test]
fn a_reused_slot_does_not_hear_its_predecessor() {
    let mut bench = Bench::new(Limits { sockets_max: 1, ..small() });
    let (old, old_address) = bench.add(1);
    bench.settle();
    let (peer, _) = phone(old_address);
    peer.send(b"for the old one").expect("sent");
    assert!(bench.turns.io().remove(old));
    bench.until(|probe, _| probe.removed.len() == 1);
    let (new, new_address) = bench.add(2);
    assert_eq!(new.index(), old.index());
    assert_ne!(new, old);
    let (peer, _) = phone(new_address);
    peer.send(b"for the new one").expect("sent");
    bench.until(|probe, _| probe.seen.iter().any(|seen| seen.token == 2));
    assert!(bench.turns.io().connect(old, Some(old_address)).is_err());
    assert!(bench.probe.seen.iter().all(|seen| seen.token == 2));
}

#[test]
fn deadlines_wake_and_are_never_early() {
    let wait = WaitConfig { busy_poll: Duration::from_micros(50), ..WaitConfig::default() };
    for wait in [WaitConfig::default(), wait] {
        let mut bench = Bench::waiting(small(), wait);
        for round in 1..=20 {
            bench.probe.deadline = Some(Instant::now() + Duration::from_millis(3));
            bench.until(|probe, _| probe.woken.len() == round);
        }
        let mut late = bench.probe.woken.clone();
        late.sort();
        assert!(late[10] < Duration::from_millis(20), "{late:?}");
        // `woken` is a duration since the deadline: early would have panicked. Few turns mean
        // that the wait slept until the deadline rather than polling for it.
        assert!(bench.turns.io().stats().turns < 200, "{:?}", bench.turns.io().stats());
    }
}

#[test]
fn deadlines_between_many_datagrams_are_kept() {
    let mut bench = Bench::new(small());
    let (_, address) = bench.add(1);
    let (peer, _) = phone(address);
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        #[allow(clippy::disallowed_methods, reason = "a sender with a pace")]
        scope.spawn(|| {
            // Not for ever, whatever becomes of the test.
            for _ in 0..20_000 {
                if stop.load(Ordering::Relaxed) {
                    break;
                }
                peer.send(b"one of many").expect("sent");
                std::thread::sleep(Duration::from_micros(200));
            }
        });
        for round in 1..=20 {
            // Far, then nearer than the timeout that is with the kernel.
            bench.probe.deadline = Some(Instant::now() + Duration::from_millis(12));
            bench.until(|probe, io| io.stats().timers >= round || !probe.woken.is_empty());
            let nearer = Instant::now() + Duration::from_millis(round % 2 * 10 + 1);
            bench.probe.woken.clear();
            bench.probe.deadline = Some(nearer);
            bench.until(|probe, _| !probe.woken.is_empty());
            assert!(bench.probe.woken[0] < Duration::from_millis(50), "{:?}", bench.probe.woken);
        }
        stop.store(true, Ordering::Relaxed);
    });
    assert!(bench.turns.io().stats().timers >= 5, "{:?}", bench.turns.io().stats());
}

#[test]
fn batched_waiting_still_delivers_a_single_datagram() {
    let wait = WaitConfig {
        batch_completions: 32,
        batch_wait: Duration::from_micros(500),
        ..WaitConfig::default()
    };
    let mut bench = Bench::waiting(small(), wait);
    let (_, address) = bench.add(1);
    let (peer, _) = phone(address);
    peer.send(b"one").expect("sent");
    bench.until_seen(1);
}

/// Answers every ring with the number of values it found.
struct Clerk {
    inbox: mpsc::Receiver<u32>,
    outbox: mpsc::Sender<u32>,
}

impl Driver for Clerk {
    fn on_datagram(&mut self, _: Instant, _: Datagram<'_>, _: &mut Io) {}
    fn on_doorbell(&mut self, _: Instant, _: &mut Io) {
        for value in self.inbox.try_iter() {
            let _ = self.outbox.send(value);
        }
    }
    fn on_deadline(&mut self, _: Instant, _: &mut Io) {}
    fn next_deadline(&self) -> Option<Instant> {
        None
    }
}

#[test]
fn doorbell_wakes_a_sleeping_thread_every_time() {
    let bell = Arc::new(Doorbell::new().expect("eventfd"));
    let (to, inbox) = mpsc::channel();
    let (outbox, from) = mpsc::channel();
    let config = ThreadConfig { limits: small(), ..ThreadConfig::default() };
    let thread =
        spawn(config, bell, Instant::now, move |_| Clerk { inbox, outbox }).expect("started");
    for value in 0..2_000 {
        to.send(value).expect("pushed");
        thread.doorbell.ring();
        if value % 3 == 0 {
            // Several in a row are merged into fewer wakes, none is lost.
            continue;
        }
        let mut latest = from.recv_timeout(PATIENCE).expect("woken");
        while latest != value {
            latest = from.recv_timeout(PATIENCE).expect("woken");
        }
    }
    let stats = thread.stop().expect("stopped");
    assert!(stats.doorbells <= 2_001 && stats.doorbells > 600, "{stats:?}");
}

#[test]
fn threads_are_pinned_inside_the_mask_only() {
    let allowed = cores_allowed();
    let core = *allowed.last().expect("a core");
    let start = |core| {
        let bell = Arc::new(Doorbell::new().expect("eventfd"));
        let limits = small();
        let config = ThreadConfig { limits, core: Some(core), ..ThreadConfig::default() };
        spawn(config, bell, Instant::now, |_| Probe::default())
    };
    let thread = start(core).expect("started");
    assert_eq!(thread.started.core, Some(core));
    thread.stop().expect("stopped");
    let error = start(100_000).map(|_| ()).expect_err("no such core").to_string();
    assert!(error.contains("100000") && error.contains("not one of"), "{error}");
}

#[test]
fn wrong_limits_do_not_start() {
    let bell = Arc::new(Doorbell::new().expect("eventfd"));
    let limits = Limits { rx_buffers: 1000, ..small() };
    let config = ThreadConfig { limits, ..ThreadConfig::default() };
    let result = spawn(config, bell, Instant::now, |_| Probe::default());
    let error = result.map(|_| ()).expect_err("refused").to_string();
    assert!(error.contains("rx_buffers = 1000"), "{error}");
}

#[test]
fn dropping_a_busy_loop_ends_its_receives() {
    let mut order: VecDeque<io::Result<()>> = VecDeque::new();
    for _ in 0..5 {
        let mut bench = Bench::new(small());
        let (id, address) = bench.add(1);
        let (peer, peer_address) = phone(address);
        bench.turns.io().connect(id, Some(peer_address)).expect("connected");
        bench.settle();
        for _ in 0..50 {
            peer.send(b"still coming").expect("sent");
        }
        bench.bell.ring();
        drop(bench);
        order.push_back(UdpSocket::bind(address).map(drop));
    }
    assert!(order.iter().all(Result::is_ok), "ports are free at once: {order:?}");
}
