//! Streams over a line of namespaces: two links, two next hops, real sockets at the far ends, whose
//! kernel verifies every checksum.

mod common;

use std::collections::BTreeMap;
use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use common::{LIMITS, PAYLOAD_BYTES, Packet, offload, stream, world};
use edge_xdp::testing::{FarEnd, Line};
use edge_xdp::{Attached, FastPath, Mode, Progress, Stream, StreamTable};

struct Far {
    left: UdpSocket,
    right: UdpSocket,
    _ends: [FarEnd; 2],
}

/// The program at both interfaces, and a socket at each far end.
fn attach(line: &Line, path: &mut FastPath, mode: Mode, stream: &Stream) -> Far {
    let wanted = if mode == Mode::Generic { Attached::Generic } else { Attached::Native };
    for interface in ["e0", "e1"] {
        let attached = line.middle.enter(|| path.attach(interface, mode)).expect("attached");
        assert_eq!(attached, wanted);
    }
    let end = |ns: &edge_xdp::testing::Netns, interface: &str| {
        let mut end = FarEnd::open().expect("far end");
        ns.enter(|| end.attach(interface, Mode::Auto)).expect("attached");
        end
    };
    let ends = [end(&line.left, "l0"), end(&line.right, "r0")];
    let bind = |address: SocketAddr| {
        let socket = UdpSocket::bind(address).expect("bound");
        socket.set_read_timeout(Some(Duration::from_secs(2))).expect("timeout");
        socket
    };
    let left = line.left.enter(|| bind(stream.peer));
    let right = line.right.enter(|| bind(stream.out_peer));
    left.connect(stream.local).expect("connected");
    Far { left, right, _ends: ends }
}

fn expect(far: &Far, stream: &Stream, ahead: i32) {
    let sent = Packet::next(stream, ahead);
    let mut bytes = [0; 2048];
    let (length, from) = far.right.recv_from(&mut bytes).expect("arrives");
    assert_eq!(from, stream.out_local);
    assert_eq!(length, 12 + PAYLOAD_BYTES);
    let expected = Packet {
        first: 0x80,
        payload_type: stream.payload_type_out,
        seq: sent.seq.wrapping_add(stream.seq_offset),
        timestamp: sent.timestamp.wrapping_add(stream.timestamp_offset),
        ssrc: stream.ssrc_out,
    };
    assert_eq!(bytes[..12], expected.bytes()[..12]);
    assert_eq!(bytes[12..length], sent.bytes()[12..]);
}

#[test]
fn streams_reach_the_other_link() {
    for mode in [Mode::Auto, Mode::Generic] {
        for version in [4, 6] {
            let Some((line, mut path, mut table)) = world(LIMITS) else { return };
            let stream = stream(version, 20_000, 30_000);
            let far = attach(&line, &mut path, mode, &stream);
            let id = offload(&mut table, &stream);
            for ahead in 1..=100 {
                far.left.send(&Packet::next(&stream, ahead).bytes()).expect("sent");
                expect(&far, &stream, ahead);
            }
            let progress = table.withdraw(id).expect("there");
            assert_eq!((progress.packets, progress.duplicates, progress.reordered), (100, 0, 0));
            assert_eq!(path.counters().forwarded, 100, "IPv{version} {mode:?}");
        }
    }
}

/// What an interface is told to do, it does not do any longer than the program runs there; packets
/// of an interval go on together.
#[test]
fn an_interface_collects_packets_while_the_program_runs() {
    let Some((line, mut path, mut table)) = world(LIMITS) else { return };
    let stream = stream(4, 20_000, 30_000);
    let far = attach(&line, &mut path, Mode::Auto, &stream);
    offload(&mut table, &stream);
    let read = |name: &str| -> String {
        let file = format!("/sys/class/net/e0/{name}");
        std::fs::read_to_string(file).expect("readable").trim().to_owned()
    };
    let values =
        || line.middle.enter_with_sys(|| (read("gro_flush_timeout"), read("napi_defer_hard_irqs")));
    let before = values();
    let wait = Duration::from_millis(2);
    let refused =
        line.middle.enter(|| path.coalesce("e0", wait)).expect_err("of another namespace");
    println!("{refused}");
    line.middle.enter_with_sys(|| path.coalesce("e0", wait)).expect("coalesced");
    assert_eq!((values().0, path.coalesced()), ("2000000".to_owned(), 1));
    assert_ne!(values().1, "0");
    for ahead in 1..=50 {
        far.left.send(&Packet::next(&stream, ahead).bytes()).expect("sent");
    }
    for ahead in 1..=50 {
        expect(&far, &stream, ahead);
    }
    drop(path);
    assert_eq!(values(), before);
}

/// Longer than the link allows, and what is not RTP: both reach the socket in the middle.
#[test]
fn what_the_program_leaves_reaches_the_socket() {
    let Some((line, mut path, mut table)) = world(LIMITS) else { return };
    let stream = stream(4, 20_000, 30_000);
    let far = attach(&line, &mut path, Mode::Auto, &stream);
    let socket = line.middle.enter(|| UdpSocket::bind(stream.local)).expect("bound");
    socket.set_read_timeout(Some(Duration::from_secs(2))).expect("timeout");
    offload(&mut table, &stream);
    let mut event = Packet::next(&stream, 1);
    event.payload_type = 101;
    let stun = [0, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let rtcp = [0x80, 200, 0, 6].into_iter().chain([0; 24]).collect::<Vec<u8>>();
    let mut bytes = [0; 2048];
    for sent in [&event.bytes()[..], &stun[..], &rtcp[..], &[0x80; 4][..]] {
        far.left.send(sent).expect("sent");
        let length = socket.recv(&mut bytes).expect("arrives");
        assert_eq!(&bytes[..length], sent);
    }
    line.middle.sh("ip link set e1 mtu 150").expect("mtu");
    let end = Instant::now() + Duration::from_secs(5);
    let mut ahead = 1;
    // The hop is renewed within a moment; until then it is as it was.
    socket.set_read_timeout(Some(Duration::from_millis(20))).expect("timeout");
    loop {
        far.left.send(&Packet::next(&stream, ahead).bytes()).expect("sent");
        if socket.recv(&mut bytes).is_ok() {
            break;
        }
        ahead += 1;
        assert!(Instant::now() < end, "the MTU is not looked at");
    }
    assert!(path.counters().up_no_hop > 0);
}

/// User space as the edge is: the same numbers, and what comes up from a stream that is in the
/// kernel takes it back.
struct Relay {
    socket: UdpSocket,
    out: UdpSocket,
    stream: Stream,
    /// Extended number.
    highest: u64,
}

impl Relay {
    /// Packets relayed.
    fn turn(&mut self) -> usize {
        let mut bytes = [0; 2048];
        let mut count = 0;
        while let Ok(length) = self.socket.recv(&mut bytes) {
            let packet = &mut bytes[..length];
            let word = |at: usize| u16::from_be_bytes([packet[at], packet[at + 1]]);
            let seq = word(2).wrapping_add(self.stream.seq_offset);
            let timestamp = u32::from(word(4)) << 16 | u32::from(word(6));
            let ahead = timestamp.wrapping_sub(self.stream.start.timestamp_highest_in) / 160;
            self.highest = self.highest.max(self.stream.start.highest + u64::from(ahead));
            let timestamp = timestamp.wrapping_add(self.stream.timestamp_offset);
            packet[1] = self.stream.payload_type_out;
            packet[2..4].copy_from_slice(&seq.to_be_bytes());
            packet[4..8].copy_from_slice(&timestamp.to_be_bytes());
            packet[8..12].copy_from_slice(&self.stream.ssrc_out.to_be_bytes());
            self.out.send(packet).expect("sent");
            count += 1;
        }
        if count == 0 {
            std::thread::yield_now();
        }
        count
    }
}

/// A sender that does not stop, a stream that moves a thousand times: every packet arrives once.
#[test]
fn a_thousand_moves_lose_and_double_nothing() {
    for version in [4, 6] {
        moves(version, 1_000);
    }
}

fn moves(version: u8, count: u32) {
    let Some((line, mut path, mut table)) = world(LIMITS) else { return };
    let stream = stream(version, 20_000, 30_000);
    let far = attach(&line, &mut path, Mode::Auto, &stream);
    let (socket, out) = line.middle.enter(|| {
        let socket = UdpSocket::bind(stream.local).expect("bound");
        socket.connect(stream.peer).expect("connected");
        let out = UdpSocket::bind(stream.out_local).expect("bound");
        out.connect(stream.out_peer).expect("connected");
        (socket, out)
    });
    socket.set_nonblocking(true).expect("set");
    for socket in [&socket, &far.right] {
        // A thread that has to wait for its turn must not lose what comes meanwhile.
        nix::sys::socket::setsockopt(socket, nix::sys::socket::sockopt::RcvBufForce, &(64 << 20))
            .expect("buffer");
    }
    let mut relay = Relay { socket, out, stream, highest: stream.start.highest };
    let hop = offload(&mut table, &stream);
    table.withdraw(hop);
    let stop = std::sync::atomic::AtomicBool::new(false);
    let (sent, heard) = std::thread::scope(|scope| {
        use std::sync::atomic::Ordering::Relaxed;
        let sender = scope.spawn(|| {
            let mut ahead = 0;
            while !stop.load(Relaxed) {
                ahead += 1;
                far.left.send(&Packet::next(&stream, ahead).bytes()).expect("sent");
                // Far faster than any call.
                let due = Instant::now() + Duration::from_micros(150);
                while Instant::now() < due {
                    std::thread::yield_now();
                }
            }
            ahead
        });
        let receiver = scope.spawn(|| receive_all(&far.right));
        let (in_user, in_kernel) = move_about(&mut table, &mut relay, &stream, count);
        stop.store(true, Relaxed);
        let sent = sender.join().expect("sender");
        let end = Instant::now() + Duration::from_millis(200);
        while Instant::now() < end {
            relay.turn();
        }
        println!("IPv{version}: {count} moves, {in_kernel} packets by the kernel, {in_user} not");
        assert!(in_kernel > u64::from(count) && in_user > count as usize, "both ways were used");
        (sent, receiver.join().expect("receiver"))
    });
    let (seen, reordered) = heard;
    let doubled = seen.values().filter(|times| **times > 1).count();
    let lost = sent as usize - seen.len();
    println!("{sent} packets, {lost} lost, {doubled} doubled, {reordered} overtaken");
    assert_eq!((lost, doubled), (0, 0));
    assert_eq!(table.forced(), 0);
}

/// Numbers that arrived, and how often each; how many were overtaken.
fn receive_all(socket: &UdpSocket) -> (BTreeMap<u32, u32>, u32) {
    socket.set_read_timeout(Some(Duration::from_secs(1))).expect("timeout");
    let (mut seen, mut reordered, mut highest) = (BTreeMap::new(), 0, 0);
    let mut bytes = [0; 2048];
    while let Ok(length) = socket.recv(&mut bytes) {
        assert_eq!(length, 12 + PAYLOAD_BYTES);
        let timestamp = u32::from_be_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]);
        *seen.entry(timestamp).or_insert(0) += 1;
        reordered += u32::from(timestamp < highest);
        highest = highest.max(timestamp);
    }
    (seen, reordered)
}

fn move_about(
    table: &mut StreamTable,
    relay: &mut Relay,
    stream: &Stream,
    count: u32,
) -> (usize, u64) {
    let (mut in_user, mut in_kernel) = (0, 0);
    let mut progress = stream.start;
    for _ in 0..count {
        let until = in_user + 3;
        let end = Instant::now() + Duration::from_secs(5);
        while in_user < until {
            in_user += relay.turn();
            assert!(Instant::now() < end, "nothing goes up");
        }
        let id = table.offload(&stream.resumed(progress, relay.highest)).expect("the hop is known");
        let end = Instant::now() + Duration::from_secs(5);
        loop {
            // What was queued before the move is still relayed here.
            in_user += relay.turn();
            let now = table.progress(id).expect("there");
            if now.packets >= 3 {
                break;
            }
            assert!(Instant::now() < end, "nothing in the kernel: {now:?}");
        }
        progress = table.withdraw(id).expect("there");
        relay.highest = relay.highest.max(progress.highest);
        in_kernel += progress.packets;
    }
    (in_user, in_kernel)
}

trait Resumed {
    fn resumed(&self, before: Progress, highest: u64) -> Stream;
}

impl Resumed for Stream {
    /// As after the number `highest`, with room for those that are still queued.
    fn resumed(&self, before: Progress, highest: u64) -> Stream {
        let (floor, packets) = (self.start.highest, 0);
        let start = Progress { floor, highest, packets, first_ns: 0, last_ns: 0, ..before };
        Stream { start, break_units: u32::MAX, ..*self }
    }
}
