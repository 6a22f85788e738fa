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

/// Frames may be handed to an interface other than the one they came by.
pub(crate) const HOP_REDIRECT: u16 = 1;

/// Where a stream arrives.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Local {
    address: [u8; 16],
    port: [u8; 2],
    version: u16,
}

/// Key of a stream: short, because it is hashed for every packet.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Key {
    folded: [u8; 4],
    port: [u8; 2],
    version: u16,
}

// SAFETY: integers and arrays of them without padding.
unsafe impl aya::Pod for Key {}

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

impl Local {
    fn new(local: SocketAddr) -> Self {
        let (address, version) = octets(local.ip());
        Self { address, port: local.port().to_be_bytes(), version }
    }
}

impl Key {
    fn new(local: &Local) -> Self {
        let mut folded = [0; 4];
        for (n, byte) in local.address.iter().enumerate() {
            folded[n % 4] ^= byte;
        }
        Self { folded, port: local.port, version: local.version }
    }
}

impl Rules {
    /// Two own addresses may share one: the second is refused, and relayed in user space.
    pub(crate) fn key(&self) -> Key {
        Key::new(&self.local)
    }
}

/// What the kernel program is to do; written while the stream is off.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rules {
    local: Local,
    peer: [u8; 16],
    peer_port: [u8; 2],
    out_local_port: [u8; 2],
    out_local: [u8; 16],
    out_peer: [u8; 16],
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
    frame_units_max: u32,
    break_units: u32,
    jitter_break_units: u32,
    unit_ns: u32,
    clock_zero_ns: u64,
}

/// What the kernel program keeps of a stream; user space goes on from it. Times in ns since
/// [`Stream::clock_zero_ns`], others in units of the RTP clock.
#[repr(C)]
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

/// One entry of the map of streams.
#[repr(C, align(64))]
#[derive(Debug)]
pub(crate) struct RawStream {
    pub(crate) lock: AtomicU64,
    pub(crate) rules: UnsafeCell<Rules>,
    pub(crate) progress: UnsafeCell<Progress>,
}

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

const _: () = assert!(size_of::<Local>() == 20 && size_of::<Key>() == 8);
const _: () = assert!(std::mem::offset_of!(RawStream, rules) == 8);
const _: () = assert!(std::mem::offset_of!(Rules, clock_zero_ns) == 112);
const _: () = assert!(std::mem::offset_of!(RawStream, progress) == 128);
const _: () = assert!(size_of::<RawStream>() == 256);
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

    pub(crate) fn rules(&self, hop: u32) -> Option<Rules> {
        if self.clock_rate_hz == 0 || !1_000_000_000_u32.is_multiple_of(self.clock_rate_hz) {
            return None;
        }
        let (peer, _) = octets(self.peer.ip());
        let (out_local, _) = octets(self.out_local.ip());
        let (out_peer, _) = octets(self.out_peer.ip());
        Some(Rules {
            local: Local::new(self.local),
            peer,
            peer_port: self.peer.port().to_be_bytes(),
            out_local_port: self.out_local.port().to_be_bytes(),
            out_local,
            out_peer,
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
            frame_units_max: self.frame_units_max,
            break_units: self.break_units,
            jitter_break_units: self.clock_rate_hz.saturating_mul(10),
            unit_ns: 1_000_000_000 / self.clock_rate_hz,
            clock_zero_ns: self.clock_zero_ns,
        })
    }
}
