//! What the kernel program and user space both read and write. Mirrors `bpf/forward.bpf.c`.

use std::cell::UnsafeCell;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::AtomicU64;

/// A packet of the stream is being worked on.
pub(crate) const LOCK_BUSY: u64 = 1;
/// The stream belongs to user space.
pub(crate) const LOCK_OFF: u64 = 2;
/// Above the flags: a count that moves on with every packet.
pub(crate) const LOCK_COUNT: u64 = 4;

const TAG_USED: u32 = 1 << 31;
pub(crate) const HASH_FACTOR: u32 = 0x9e37_79b1;
pub(crate) const BUCKET_SLOTS: usize = 8;

/// Frames may be handed to an interface other than the one they came by.
pub(crate) const HOP_REDIRECT: u16 = 1;

fn octets(ip: IpAddr) -> ([u8; 16], u16) {
    match ip.to_canonical() {
        IpAddr::V4(ip) => {
            let mut octets = [0; 16];
            octets[..4].copy_from_slice(&ip.octets());
            (octets, 4)
        }
        IpAddr::V6(ip) => (ip.octets(), 6),
    }
}

/// An address as the stream's entry has it: its first four bytes, and the rest of one of IPv6.
fn halves(ip: IpAddr) -> ([u8; 4], [u8; 12]) {
    let ([a, b, c, d, rest @ ..], _) = octets(ip);
    ([a, b, c, d], rest)
}

/// What a one's complement sum over the bytes changes by when some bytes take the place of others
/// (RFC 1624), in the byte order in which they are.
fn change(from: &[u8], to: &[u8]) -> u64 {
    let sum = |bytes: &[u8], of: fn(u32) -> u32| -> u64 {
        let (words, _) = bytes.as_chunks();
        words.iter().map(|word| u64::from(of(u32::from_ne_bytes(*word)))).sum()
    };
    sum(from, |word| !word) + sum(to, |word| word)
}

/// In 32 bits; the carry goes round.
const fn fold(sum: u64) -> u32 {
    let once = (sum & 0xffff_ffff) + (sum >> 32);
    ((once & 0xffff_ffff) + (once >> 32)) as u32
}

/// By what the program finds the stream that arrives somewhere; never zero. Two own addresses may
/// share one: the second is refused, and relayed in user space.
pub(crate) fn tag(local: SocketAddr) -> u32 {
    let (octets, version) = octets(local.ip());
    let mut folded = [0; 4];
    for (n, byte) in octets.iter().enumerate() {
        folded[n % 4] ^= byte;
    }
    let hash = (u32::from_ne_bytes(folded) ^ u32::from(version)).wrapping_mul(HASH_FACTOR);
    TAG_USED | hash >> 17 << 16 | u32::from(local.port().to_be())
}

/// What the kernel program keeps of a stream; user space goes on from it. Times in ns since
/// [`Stream::clock_zero_ns`], others in units of the RTP clock.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Progress {
    /// Packets up to this extended number are not forwarded.
    pub floor: u64,
    /// Highest extended sequence number received.
    pub highest: u64,
    /// Bit n: number `highest - n` came.
    pub window: u64,
    /// Packets forwarded.
    pub packets: u64,
    /// Their payload bytes.
    pub payload_bytes: u64,
    /// Of the packets: numbers that came again.
    pub duplicates: u64,
    /// Of the packets: overtaken ones.
    pub reordered: u64,
    /// When the first packet came; 0 for none.
    pub first_ns: u64,
    /// When the last packet came; 0 for none.
    pub last_ns: u64,
    /// Longest time between two packets.
    pub gap_ns_max: u64,
    /// Jitter in 1/16 units (RFC 3550 A.8).
    pub jitter_q4: u32,
    /// Highest jitter in units.
    pub jitter_units_max: u32,
    /// Relative transit time of the last packet.
    pub transit_in: u32,
    /// 1 if `transit_in` says something.
    pub transit_in_known: u32,
    /// Timestamp of the packet that `transit_in` is of.
    pub timestamp_last: u32,
    /// Highest timestamp received.
    pub timestamp_highest_in: u32,
    /// Highest timestamp sent.
    pub timestamp_highest_out: u32,
    /// Timestamp of the last packet sent.
    pub timestamp_last_out: u32,
    /// Smoothed transit time of what is sent.
    pub transit_out: u32,
    /// Duration of a packet.
    pub frame_units: u32,
}

/// All of a stream but its lock: what the program is to do, and what it keeps. In the order in which it
/// needs it.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub(crate) struct Body {
    local: [u8; 4],
    peer: [u8; 4],
    out_local: [u8; 4],
    out_peer: [u8; 4],
    local_port: [u8; 2],
    version: u16,
    peer_port: [u8; 2],
    out_local_port: [u8; 2],
    out_peer_port: [u8; 2],
    payload_type_in: u8,
    payload_type_out: u8,
    ssrc_in: [u8; 4],
    ssrc_out: [u8; 4],
    timestamp_offset: u32,
    seq_offset: u16,
    traffic_class: u8,
    reserved: u8,
    hop: u32,
    unit_ns: u32,
    break_units: u32,
    clock_zero_ns: u64,
    floor: u64,
    highest: u64,
    window: u64,
    packets: u64,
    payload_bytes: u64,
    last_ns: u64,
    gap_ns_max: u64,
    first_ns: u64,
    jitter_q4: u32,
    jitter_units_max: u32,
    transit_in: u32,
    transit_in_known: u32,
    timestamp_last: u32,
    timestamp_highest_in: u32,
    timestamp_highest_out: u32,
    timestamp_last_out: u32,
    transit_out: u32,
    frame_units: u32,
    frame_units_max: u32,
    jitter_break_units: u32,
    ip_sum: u32,
    udp_sum: u32,
    duplicates: u64,
    reordered: u64,
    local_rest: [u8; 12],
    peer_rest: [u8; 12],
    out_local_rest: [u8; 12],
    out_peer_rest: [u8; 12],
}

impl Body {
    pub(crate) const fn progress(&self) -> Progress {
        Progress {
            floor: self.floor,
            highest: self.highest,
            window: self.window,
            packets: self.packets,
            payload_bytes: self.payload_bytes,
            duplicates: self.duplicates,
            reordered: self.reordered,
            first_ns: self.first_ns,
            last_ns: self.last_ns,
            gap_ns_max: self.gap_ns_max,
            jitter_q4: self.jitter_q4,
            jitter_units_max: self.jitter_units_max,
            transit_in: self.transit_in,
            transit_in_known: self.transit_in_known,
            timestamp_last: self.timestamp_last,
            timestamp_highest_in: self.timestamp_highest_in,
            timestamp_highest_out: self.timestamp_highest_out,
            timestamp_last_out: self.timestamp_last_out,
            transit_out: self.transit_out,
            frame_units: self.frame_units,
        }
    }
}

/// One entry of the map of streams.
#[repr(C, align(64))]
#[derive(Debug)]
pub(crate) struct RawStream {
    pub(crate) lock: AtomicU64,
    pub(crate) body: UnsafeCell<Body>,
}

/// One entry of the map of places: where the streams with some tags are, each a tag above the number
/// of a place, or zero.
#[repr(C, align(64))]
#[derive(Debug)]
pub(crate) struct Bucket(pub(crate) [AtomicU64; BUCKET_SLOTS]);

/// One entry of the map of next hops.
#[repr(C)]
#[derive(Debug)]
pub(crate) struct RawHop {
    /// 0: not to be used.
    pub(crate) version: AtomicU64,
    pub(crate) target: UnsafeCell<Target>,
}

/// Where frames of a hop go.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) interface: u32,
    pub(crate) flags: u16,
    pub(crate) mtu: u16,
    pub(crate) destination: [u8; 6],
    pub(crate) source: [u8; 6],
    pub(crate) reserved: u32,
}

const _: () = assert!(std::mem::offset_of!(RawStream, body) == 8);
const _: () = assert!(std::mem::offset_of!(Body, clock_zero_ns) == 64 - 8);
const _: () = assert!(std::mem::offset_of!(Body, first_ns) == 128 - 8);
const _: () = assert!(std::mem::offset_of!(Body, duplicates) == 192 - 8);
const _: () = assert!(size_of::<RawStream>() == 256 && size_of::<Body>() == 256 - 8);
const _: () = assert!(size_of::<Bucket>() == 64);
const _: () = assert!(size_of::<RawHop>() == 32);

/// One direction of a call: what arrives at `local` from `peer` leaves from `out_local` to
/// `out_peer`, with other numbers.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Stream {
    /// Where the stream arrives.
    pub local: SocketAddr,
    /// Where it comes from; packets from elsewhere go up.
    pub peer: SocketAddr,
    /// Where it leaves from.
    pub out_local: SocketAddr,
    /// Where it goes to.
    pub out_peer: SocketAddr,
    /// The payload type to forward; others go up.
    pub payload_type_in: u8,
    /// Its number towards `out_peer`.
    pub payload_type_out: u8,
    /// The source to forward; others go up.
    pub ssrc_in: u32,
    /// Its number towards `out_peer`.
    pub ssrc_out: u32,
    /// Added to sequence numbers.
    pub seq_offset: u16,
    /// Added to timestamps.
    pub timestamp_offset: u32,
    /// DSCP and ECN of what is sent.
    pub traffic_class: u8,
    /// Longest packet that is believed when learnt from timestamps, in units.
    pub frame_units_max: u32,
    /// A packet whose timestamp is further from media time goes up.
    pub break_units: u32,
    /// RTP clock in Hz; has to divide 10⁹.
    pub clock_rate_hz: u32,
    /// What [`crate::clock_ns`] shows when the worker's time is zero.
    pub clock_zero_ns: u64,
    /// Where it starts from; counts are zero.
    pub start: Progress,
}

impl Stream {
    pub(crate) fn is_one_family(&self) -> bool {
        let version = |address: SocketAddr| octets(address.ip()).1;
        let all = [self.peer, self.out_local, self.out_peer].map(version);
        all == [version(self.local); 3]
    }

    /// As the kernel program reads it. `None` if its clock does not divide a second.
    pub(crate) fn body(&self, hop: u32) -> Option<Body> {
        if self.clock_rate_hz == 0 || !1_000_000_000_u32.is_multiple_of(self.clock_rate_hz) {
            return None;
        }
        let (_, version) = octets(self.local.ip());
        let (local, local_rest) = halves(self.local.ip());
        let (peer, peer_rest) = halves(self.peer.ip());
        let (out_local, out_local_rest) = halves(self.out_local.ip());
        let (out_peer, out_peer_rest) = halves(self.out_peer.ip());
        let moved =
            |from: SocketAddr, to: SocketAddr| change(&octets(from.ip()).0, &octets(to.ip()).0);
        let addresses = moved(self.peer, self.out_local) + moved(self.local, self.out_peer);
        let ports = |from: SocketAddr, to: SocketAddr| {
            [from.port().to_be_bytes(), to.port().to_be_bytes()].concat()
        };
        let (before, after) = (ports(self.peer, self.local), ports(self.out_local, self.out_peer));
        let source = change(&self.ssrc_in.to_be_bytes(), &self.ssrc_out.to_be_bytes());
        let all = addresses + change(&before, &after) + source;
        let start = &self.start;
        Some(Body {
            local,
            peer,
            out_local,
            out_peer,
            local_port: self.local.port().to_be_bytes(),
            version,
            peer_port: self.peer.port().to_be_bytes(),
            out_local_port: self.out_local.port().to_be_bytes(),
            out_peer_port: self.out_peer.port().to_be_bytes(),
            payload_type_in: self.payload_type_in & 0x7f,
            payload_type_out: self.payload_type_out & 0x7f,
            ssrc_in: self.ssrc_in.to_be_bytes(),
            ssrc_out: self.ssrc_out.to_be_bytes(),
            timestamp_offset: self.timestamp_offset,
            seq_offset: self.seq_offset,
            traffic_class: self.traffic_class,
            reserved: 0,
            hop,
            unit_ns: 1_000_000_000 / self.clock_rate_hz,
            break_units: self.break_units,
            clock_zero_ns: self.clock_zero_ns,
            floor: start.floor,
            highest: start.highest,
            window: start.window,
            packets: start.packets,
            payload_bytes: start.payload_bytes,
            last_ns: start.last_ns,
            gap_ns_max: start.gap_ns_max,
            first_ns: start.first_ns,
            jitter_q4: start.jitter_q4,
            jitter_units_max: start.jitter_units_max,
            transit_in: start.transit_in,
            transit_in_known: start.transit_in_known,
            timestamp_last: start.timestamp_last,
            timestamp_highest_in: start.timestamp_highest_in,
            timestamp_highest_out: start.timestamp_highest_out,
            timestamp_last_out: start.timestamp_last_out,
            transit_out: start.transit_out,
            frame_units: start.frame_units,
            frame_units_max: self.frame_units_max,
            jitter_break_units: self.clock_rate_hz.saturating_mul(10),
            ip_sum: fold(addresses),
            udp_sum: fold(all),
            duplicates: start.duplicates,
            reordered: start.reordered,
            local_rest,
            peer_rest,
            out_local_rest,
            out_peer_rest,
        })
    }
}
