//! Frames, and streams to go with them.
#![allow(dead_code, reason = "each test file uses its part")]

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use edge_xdp::testing::Line;
use edge_xdp::{FastPath, Limits, LoadError, Progress, Refused, Stream, StreamId, StreamTable};

pub const LIMITS: Limits = Limits { streams_max: 8, hops_max: 4, tables: 1 };
pub const PAYLOAD_BYTES: usize = 160;

/// A line of namespaces and the program loaded in the middle; `None` with the reason printed.
pub fn world(limits: Limits) -> Option<(Line, FastPath, StreamTable)> {
    let line = match Line::new() {
        Ok(line) => line,
        Err(error) => {
            println!("skipped: no network namespaces to be had: {error}");
            return None;
        }
    };
    match line.middle.enter(|| FastPath::load(limits)) {
        Ok(mut path) => {
            let table = path.take_table().expect("a table");
            line.meet().expect("neighbours");
            Some((line, path, table))
        }
        Err(error @ (LoadError::NotBuilt | LoadError::Refused(_))) => {
            println!("skipped: {error}");
            None
        }
        Err(error) => panic!("{error}"),
    }
}

/// From the left to the right; `host` 4 or 6.
pub fn stream(version: u8, local_port: u16, peer_port: u16) -> Stream {
    let ip = |n: u8, host: u8| -> IpAddr {
        let text =
            if version == 4 { format!("10.8.{n}.{host}") } else { format!("fd08:{n}::{host}") };
        text.parse().expect("address")
    };
    Stream {
        local: SocketAddr::new(ip(1, 1), local_port),
        peer: SocketAddr::new(ip(1, 2), peer_port),
        out_local: SocketAddr::new(ip(2, 1), local_port + 2),
        out_peer: SocketAddr::new(ip(2, 2), peer_port + 2),
        payload_type_in: 0,
        payload_type_out: 8,
        ssrc_in: 0x1111_2222,
        ssrc_out: 0x8888_9999,
        seq_offset: 1_000,
        timestamp_offset: 5_000_000,
        traffic_class: 0xb8,
        frame_units_max: 960,
        break_units: 240_000,
        clock_rate_hz: 8_000,
        clock_zero_ns: edge_xdp::clock_ns() - 1_000_000_000,
        start: Progress::default(),
    }
    .began(65_536 + 500, 16_000)
}

/// What it sends is what it receives, one packet on.
pub fn endless(version: u8) -> Stream {
    let stream = stream(version, 20_000, 30_000);
    Stream {
        local: stream.out_peer,
        peer: stream.out_local,
        payload_type_out: stream.payload_type_in,
        ssrc_out: stream.ssrc_in,
        seq_offset: 1,
        timestamp_offset: 160,
        break_units: u32::MAX,
        ..stream
    }
}

pub trait Began {
    fn began(self, highest: u64, timestamp: u32) -> Self;
}

impl Began for Stream {
    /// As after some packets in a row, the last of which came now.
    fn began(mut self, highest: u64, timestamp: u32) -> Self {
        let units = ((edge_xdp::clock_ns() - self.clock_zero_ns) / 125_000) as u32;
        let out = timestamp.wrapping_add(self.timestamp_offset);
        self.start = Progress {
            floor: highest - 50,
            highest,
            window: 0xff,
            timestamp_last: timestamp,
            timestamp_highest_in: timestamp,
            timestamp_highest_out: out,
            transit_in: units.wrapping_sub(timestamp),
            transit_in_known: 1,
            transit_out: units.wrapping_sub(out),
            frame_units: 160,
            ..Progress::default()
        };
        self
    }
}

/// Offloads as soon as the next hop is known.
pub fn offload(table: &mut StreamTable, stream: &Stream) -> StreamId {
    let end = Instant::now() + Duration::from_secs(5);
    loop {
        match table.offload(stream) {
            Ok(id) => return id,
            Err(Refused::NoHop) => assert!(Instant::now() < end, "no next hop"),
            Err(error) => panic!("{error}"),
        }
        std::thread::yield_now();
    }
}

pub struct Packet {
    pub first: u8,
    pub payload_type: u8,
    pub seq: u16,
    pub timestamp: u32,
    pub ssrc: u32,
}

impl Packet {
    /// The one so many after the last one of [`stream`].
    pub fn next(stream: &Stream, ahead: i32) -> Self {
        Self {
            first: 0x80,
            payload_type: stream.payload_type_in,
            seq: (stream.start.highest as u16).wrapping_add_signed(ahead as i16),
            timestamp: stream.start.timestamp_highest_in.wrapping_add_signed(ahead * 160),
            ssrc: stream.ssrc_in,
        }
    }

    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = vec![self.first, self.payload_type];
        bytes.extend(self.seq.to_be_bytes());
        bytes.extend(self.timestamp.to_be_bytes());
        bytes.extend(self.ssrc.to_be_bytes());
        bytes.extend((0..PAYLOAD_BYTES).map(|n| (n as u8) ^ self.seq as u8));
        bytes
    }
}

pub const ETHERNET_BYTES: usize = 14;

/// An Ethernet frame with UDP, checksums filled in.
pub fn frame(from: SocketAddr, to: SocketAddr, payload: &[u8]) -> Vec<u8> {
    let udp_bytes = (payload.len() + 8) as u16;
    let mut frame = vec![0x02, 0, 0, 0, 0, 1, 0x02, 0, 0, 0, 0, 2];
    let (from_ip, to_ip): (Vec<u8>, Vec<u8>) = match (from.ip(), to.ip()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => (from.octets().into(), to.octets().into()),
        (IpAddr::V6(from), IpAddr::V6(to)) => (from.octets().into(), to.octets().into()),
        _ => panic!("two families"),
    };
    if from.is_ipv4() {
        frame.extend([0x08, 0x00, 0x45, 0x00]);
        frame.extend((udp_bytes + 20).to_be_bytes());
        frame.extend([0x12, 0x34, 0x00, 0x00, 33, 17, 0, 0]);
    } else {
        frame.extend([0x86, 0xdd, 0x60, 0x01, 0x23, 0x45]);
        frame.extend(udp_bytes.to_be_bytes());
        frame.extend([17, 33]);
    }
    frame.extend(from_ip);
    frame.extend(to_ip);
    frame.extend(from.port().to_be_bytes());
    frame.extend(to.port().to_be_bytes());
    frame.extend(udp_bytes.to_be_bytes());
    frame.extend([0, 0]);
    frame.extend(payload);
    finish(&mut frame);
    frame
}

fn udp_at(frame: &[u8]) -> usize {
    ETHERNET_BYTES + if frame[12] == 0x08 { 20 } else { 40 }
}

/// Writes both checksums.
pub fn finish(frame: &mut [u8]) {
    let udp = udp_at(frame);
    if frame[12] == 0x08 {
        frame[24..26].copy_from_slice(&[0, 0]);
        let check = !sum(&[&frame[14..34]]);
        frame[24..26].copy_from_slice(&check.to_be_bytes());
    }
    frame[udp + 6..udp + 8].copy_from_slice(&[0, 0]);
    let check = match !udp_sum(frame) {
        0 => 0xffff,
        check => check,
    };
    frame[udp + 6..udp + 8].copy_from_slice(&check.to_be_bytes());
}

/// Both checksums are right (or there is none for UDP).
pub fn is_sound(frame: &[u8]) -> bool {
    let udp = udp_at(frame);
    let none = frame[udp + 6..udp + 8] == [0, 0];
    let ip = frame[12] != 0x08 || sum(&[&frame[14..34]]) == 0xffff;
    ip && (none || udp_sum(frame) == 0xffff)
}

fn udp_sum(frame: &[u8]) -> u16 {
    let udp = udp_at(frame);
    let addresses = if frame[12] == 0x08 { &frame[26..34] } else { &frame[22..54] };
    sum(&[addresses, &[0, 17], &frame[udp + 4..udp + 6], &frame[udp..]])
}

fn sum(parts: &[&[u8]]) -> u16 {
    let mut sum = 0_u64;
    for part in parts {
        for pair in part.chunks(2) {
            sum += u64::from(pair[0]) << 8 | u64::from(pair.get(1).copied().unwrap_or(0));
        }
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}
