//! The kernel fast path on a line of three namespaces, and a generator of frames for it.

use std::io::IoSlice;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use edge_xdp::testing::{FarEnd, Line, NO_TIME, Netns, TIME_AT};
use edge_xdp::{Attached, FastPath, Limits, Mode, Progress, Refused, Stream, StreamTable};
use nix::sys::socket::{MsgFlags, MultiHeaders, SockaddrIn, sendmmsg};

use super::generator::PACKET_BYTES;
use crate::machine::{Cores, process_cpu};

/// Ethernet, IPv4, UDP.
const HEADERS_BYTES: usize = 42;
const FRAME_BYTES: usize = HEADERS_BYTES + PACKET_BYTES;
/// Port of the first stream, everywhere.
const PORT_FIRST: usize = 10_000;
const BURST_MAX: usize = 32;
/// One call of so many is timed, each at another place in its burst.
const SAMPLE_EVERY: usize = 64;

/// Streams in both directions through the program, each with 50 packets a second of its own.
pub struct XdpLine {
    path: FastPath,
    _table: StreamTable,
    far: [FarEnd; 2],
    /// Threads that run the program.
    threads: Vec<u32>,
    sides: [Side; 2],
    turn: usize,
    clock_zero_ns: u64,
    line: Line,
}

struct Side {
    socket: OwnedFd,
    frames: Vec<Frame>,
    next: usize,
    headers: MultiHeaders<SockaddrIn>,
}

struct Frame {
    bytes: [u8; FRAME_BYTES],
    seq: u16,
    timestamp: u32,
    /// Of everything under the UDP checksum that stays.
    sum: u32,
    /// Carries the time at which it was sent.
    is_timed: bool,
}

/// What happened since the line was made.
#[derive(Debug, Clone)]
pub struct Seen {
    /// Frames that the program forwarded.
    pub forwarded: u64,
    /// Frames that reached a far end.
    pub arrived: u64,
    /// CPU of the threads that run the program.
    pub cpu: Duration,
    /// Timed frames by µs under way.
    pub delays_us: Vec<u64>,
}

impl Seen {
    /// So many µs or less were enough for that share of the frames since `earlier`.
    pub fn delay_us(&self, earlier: &Self, share: f64) -> f64 {
        let counts = || self.delays_us.iter().zip(&earlier.delays_us).map(|(now, then)| now - then);
        let wanted = counts().sum::<u64>() as f64 * share;
        let mut below = 0.0;
        let reached = counts().position(|count| {
            below += count as f64;
            below >= wanted
        });
        // In the middle of its µs.
        reached.map_or(f64::NAN, |us| us as f64 + 0.5)
    }
}

fn address(net: u8, host: u8, call: usize) -> anyhow::Result<SocketAddr> {
    Ok(SocketAddr::from(([10, 8, net, host], u16::try_from(PORT_FIRST + call)?)))
}

/// Of the RTP clock, 8,000 a second.
fn units_since(clock_zero_ns: u64) -> u32 {
    (edge_xdp::clock_ns().saturating_sub(clock_zero_ns) / 125_000) as u32
}

/// From one side to the other.
fn stream(side: usize, call: usize, clock_zero_ns: u64) -> anyhow::Result<Stream> {
    let (near, far) = if side == 0 { (1, 2) } else { (2, 1) };
    let offset = 77_000;
    let units = units_since(clock_zero_ns);
    Ok(Stream {
        local: address(near, 1, call)?,
        peer: address(near, 2, call)?,
        out_local: address(far, 1, call)?,
        out_peer: address(far, 2, call)?,
        payload_type_in: 0,
        payload_type_out: 0,
        ssrc_in: call as u32,
        ssrc_out: !(call as u32),
        seq_offset: 4_000,
        timestamp_offset: offset,
        traffic_class: 0xb8,
        frame_units_max: 960,
        break_units: 240_000,
        clock_rate_hz: 8_000,
        clock_zero_ns,
        start: Progress {
            floor: 0x1_0000,
            highest: 0x1_0000 + 1_000,
            window: 1,
            timestamp_highest_in: units,
            timestamp_last: units,
            timestamp_highest_out: units.wrapping_add(offset),
            transit_in_known: 1,
            transit_out: 0_u32.wrapping_sub(offset),
            frame_units: 160,
            ..Progress::default()
        },
    })
}

impl XdpLine {
    /// Sets everything up for so many calls; the threads of the program go to the system's core.
    ///
    /// # Errors
    /// If the kernel or this process's privileges do not permit it.
    pub fn new(cores: Cores, calls: usize) -> anyhow::Result<Self> {
        let line = Line::new().context("network namespaces")?;
        // One for the program by itself.
        let streams_max = u32::try_from(calls * 2 + 1)?;
        let limits = Limits { streams_max, hops_max: 8, tables: 1 };
        let mut path = line.middle.enter(|| FastPath::load(limits))?;
        let mut table = path.take_table().context("no table")?;
        for name in ["e0", "e1"] {
            let attached = line.middle.enter(|| path.attach(name, Mode::Native))?;
            anyhow::ensure!(attached == Attached::Native, "{name} runs no native program");
        }
        let far = [far_end(&line.left, "l0")?, far_end(&line.right, "r0")?];
        line.meet()?;
        let mut threads = Vec::new();
        for name in ["e0", "e1"] {
            threads.extend(own_thread(&line.middle, name, cores.system)?);
        }
        let clock_zero_ns = edge_xdp::clock_ns() - 1_000_000_000;
        let mut frames = [Vec::new(), Vec::new()];
        for call in 0..calls {
            for (side, frames) in frames.iter_mut().enumerate() {
                let stream = stream(side, call, clock_zero_ns)?;
                offload(&mut table, &stream)?;
                frames.push(Frame::new(
                    &stream,
                    call % SAMPLE_EVERY == call / SAMPLE_EVERY % SAMPLE_EVERY,
                )?);
            }
        }
        let [left, right] = frames;
        let sides = [side(&line.left, "l0", left)?, side(&line.right, "r0", right)?];
        Ok(Self { path, _table: table, far, threads, sides, turn: 0, clock_zero_ns, line })
    }

    /// Lets both interfaces collect packets for so long; zero: as they were.
    ///
    /// # Errors
    /// If the kernel cannot.
    pub fn coalesce(&mut self, wait: Duration) -> anyhow::Result<()> {
        self.path.coalesce_no_more();
        if wait.is_zero() {
            return Ok(());
        }
        let path = &mut self.path;
        self.line.middle.enter_with_sys(|| {
            ["e0", "e1"].iter().try_for_each(|name| path.coalesce(name, wait))
        })?;
        Ok(())
    }

    /// Sends at `rate_per_s` for `time` in bursts of different streams, which go on as after a pause: one
    /// that is half a minute behind its time is not for the program. Returns frames offered.
    ///
    /// # Errors
    /// Of `sendmmsg(2)`, but not for want of room.
    pub fn send(&mut self, rate_per_s: f64, time: Duration, burst: usize) -> anyhow::Result<u64> {
        let units = units_since(self.clock_zero_ns);
        self.sides
            .iter_mut()
            .flat_map(|side| &mut side.frames)
            .for_each(|frame| frame.resume(units));
        let (began, burst) = (Instant::now(), burst.clamp(1, BURST_MAX));
        let total = (time.as_secs_f64() * rate_per_s) as u64;
        let (mut done, mut offered) = (0, 0);
        while done < total {
            let due = Duration::from_secs_f64(done as f64 / rate_per_s);
            while began.elapsed() < due {
                std::hint::spin_loop();
            }
            // A generator that cannot keep up must not go on for ever.
            if began.elapsed() > time * 2 {
                break;
            }
            let turn = self.turn;
            self.turn ^= 1;
            offered += self.sides[turn].burst(burst)? as u64;
            done += burst as u64;
        }
        Ok(offered)
    }

    /// Counts so far.
    ///
    /// # Errors
    /// If a thread of the program has ended.
    pub fn seen(&self) -> anyhow::Result<Seen> {
        let mut cpu = Duration::ZERO;
        for thread in &self.threads {
            cpu += process_cpu(*thread)?;
        }
        let arrived = self.far.iter().map(FarEnd::sunk).sum();
        let [left, right] = &self.far;
        let both = left.delays_us()?.into_iter().zip(right.delays_us()?);
        let delays_us = both.map(|(left, right)| left + right).collect();
        Ok(Seen { forwarded: self.path.counters().forwarded, arrived, cpu, delays_us })
    }

    /// Time of one packet in the program alone (`BPF_PROG_TEST_RUN`), ns.
    ///
    /// # Errors
    /// If the kernel has no such runs.
    pub fn program_ns(&mut self, repeats: u32) -> anyhow::Result<f64> {
        // What it sends is what it receives, one packet on.
        let like = stream(0, 60_000 - PORT_FIRST, edge_xdp::clock_ns() - 1_000_000_000)?;
        let endless = Stream {
            local: like.out_peer,
            peer: like.out_local,
            ssrc_out: like.ssrc_in,
            seq_offset: 1,
            timestamp_offset: 160,
            break_units: u32::MAX,
            ..like
        };
        let table = &mut self._table;
        let id = offload(table, &endless)?;
        let mut frame = Frame::new(&endless, false)?;
        frame.advance();
        let ran = edge_xdp::testing::run(&mut self.path, &frame.bytes, repeats);
        table.withdraw(id);
        let (verdict, _, time) = ran?;
        anyhow::ensure!(verdict == edge_xdp::testing::Verdict::Redirected, "{verdict:?}");
        Ok(time.as_nanos() as f64)
    }
}

fn far_end(ns: &Netns, interface: &str) -> anyhow::Result<FarEnd> {
    let mut end = FarEnd::sink()?;
    ns.enter(|| end.attach(interface, Mode::Native))?;
    Ok(end)
}

fn side(ns: &Netns, interface: &str, frames: Vec<Frame>) -> anyhow::Result<Side> {
    let socket = ns.enter(|| -> anyhow::Result<OwnedFd> {
        let index = nix::net::if_::if_nametoindex(interface)?;
        Ok(benches_sys::packet::packet_socket(index)?)
    })?;
    let headers = MultiHeaders::preallocate(BURST_MAX, None);
    Ok(Side { socket, frames, next: 0, headers })
}

fn offload(table: &mut StreamTable, stream: &Stream) -> anyhow::Result<edge_xdp::StreamId> {
    let end = Instant::now() + Duration::from_secs(5);
    loop {
        match table.offload(stream) {
            Ok(id) => return Ok(id),
            Err(Refused::NoHop) if Instant::now() < end => {
                crate::machine::pause(Duration::from_millis(1));
            }
            Err(error) => return Err(error.into()),
        }
    }
}

/// Gives an interface's work to kernel threads of its own, pinned to a core. Their ids.
fn own_thread(ns: &Netns, interface: &str, core: usize) -> anyhow::Result<Vec<u32>> {
    let before = kernel_threads(interface)?;
    ns.sh(&format!("echo 1 > /sys/class/net/{interface}/threaded"))?;
    let mut threads = kernel_threads(interface)?;
    threads.retain(|thread| !before.contains(thread));
    anyhow::ensure!(!threads.is_empty(), "{interface} has no thread of its own");
    for thread in &threads {
        ns.sh(&format!("taskset -pc {core} {thread} > /dev/null"))?;
    }
    Ok(threads)
}

fn kernel_threads(interface: &str) -> anyhow::Result<Vec<u32>> {
    let wanted = format!("napi/{interface}-");
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc")? {
        let Ok(id) = entry?.file_name().to_string_lossy().parse() else { continue };
        let name = std::fs::read_to_string(format!("/proc/{id}/comm")).unwrap_or_default();
        if name.starts_with(&wanted) {
            found.push(id);
        }
    }
    Ok(found)
}

impl Side {
    /// One packet of each of the next streams. Returns how many the kernel took.
    fn burst(&mut self, count: usize) -> anyhow::Result<usize> {
        let first = if self.next + count > self.frames.len() { 0 } else { self.next };
        self.next = first + count;
        let frames = &mut self.frames[first..first + count];
        frames.iter_mut().for_each(Frame::advance);
        let empty: &[u8] = &[];
        let mut slices = [[IoSlice::new(empty)]; BURST_MAX];
        for (frame, slice) in frames.iter().zip(&mut slices) {
            *slice = [IoSlice::new(&frame.bytes)];
        }
        let to = [None; BURST_MAX];
        let slices = slices.iter().take(count);
        let fd = self.socket.as_raw_fd();
        let flags = MsgFlags::MSG_DONTWAIT;
        // What the kernel does not take is not offered: a queue of the other end is full.
        let sent = sendmmsg(fd, &mut self.headers, slices, &to[..count], [], flags);
        Ok(sent.map_or(0, |results| results.count()))
    }
}

impl Frame {
    fn new(stream: &Stream, is_timed: bool) -> anyhow::Result<Self> {
        let (SocketAddr::V4(from), SocketAddr::V4(to)) = (stream.peer, stream.local) else {
            anyhow::bail!("IPv4 only");
        };
        let mut bytes = [0x55; FRAME_BYTES];
        // The other end of the link takes any address.
        bytes[..14].copy_from_slice(&[2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x08, 0x00]);
        let udp_bytes = (8 + PACKET_BYTES) as u16;
        bytes[14..26].copy_from_slice(&[0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, 17, 0, 0]);
        bytes[16..18].copy_from_slice(&(udp_bytes + 20).to_be_bytes());
        bytes[26..30].copy_from_slice(&from.ip().octets());
        bytes[30..34].copy_from_slice(&to.ip().octets());
        let check = !fold(sum(&bytes[14..34]));
        bytes[24..26].copy_from_slice(&check.to_be_bytes());
        bytes[34..36].copy_from_slice(&from.port().to_be_bytes());
        bytes[36..38].copy_from_slice(&to.port().to_be_bytes());
        bytes[38..40].copy_from_slice(&udp_bytes.to_be_bytes());
        bytes[40..42].copy_from_slice(&[0, 0]);
        bytes[42..50].copy_from_slice(&[0x80, stream.payload_type_in, 0, 0, 0, 0, 0, 0]);
        bytes[50..54].copy_from_slice(&stream.ssrc_in.to_be_bytes());
        bytes[TIME_AT..TIME_AT + 8].fill(0);
        let sum = sum(&bytes[26..]) + 17 + u32::from(udp_bytes);
        bytes[TIME_AT..TIME_AT + 8].copy_from_slice(&NO_TIME.to_ne_bytes());
        let (seq, timestamp) = (stream.start.highest as u16, stream.start.timestamp_highest_in);
        Ok(Self { bytes, seq, timestamp, sum, is_timed })
    }

    /// Time goes on without packets; never back.
    fn resume(&mut self, units: u32) {
        if units.wrapping_sub(self.timestamp).cast_signed() > 0 {
            self.timestamp = units;
        }
    }

    fn advance(&mut self) {
        self.seq = self.seq.wrapping_add(1);
        self.timestamp = self.timestamp.wrapping_add(160);
        self.bytes[44..46].copy_from_slice(&self.seq.to_be_bytes());
        self.bytes[46..50].copy_from_slice(&self.timestamp.to_be_bytes());
        if self.is_timed {
            self.bytes[TIME_AT..TIME_AT + 8].copy_from_slice(&edge_xdp::clock_ns().to_ne_bytes());
        }
        let numbers = u32::from(self.seq) + (self.timestamp >> 16) + (self.timestamp & 0xffff);
        let check = !fold(self.sum + numbers + sum(&self.bytes[TIME_AT..TIME_AT + 8]));
        self.bytes[40..42].copy_from_slice(&check.to_be_bytes());
    }
}

fn sum(bytes: &[u8]) -> u32 {
    bytes.as_chunks::<2>().0.iter().map(|pair| u32::from(u16::from_be_bytes(*pair))).sum()
}

fn fold(sum: u32) -> u16 {
    let sum = (sum & 0xffff) + (sum >> 16);
    ((sum & 0xffff) + (sum >> 16)) as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_have_sound_checksums() {
        let stream = stream(0, 7, edge_xdp::clock_ns() - 1_000_000_000).unwrap();
        for is_timed in [false, true] {
            let mut frame = Frame::new(&stream, is_timed).unwrap();
            for _ in 0..1_000 {
                frame.advance();
                assert_eq!(fold(sum(&frame.bytes[14..34])), 0xffff);
                let pseudo = 17 + u32::from(u16::from_be_bytes([frame.bytes[38], frame.bytes[39]]));
                assert_eq!(fold(sum(&frame.bytes[26..]) + pseudo), 0xffff);
            }
        }
    }

    /// The whole bench in small, where this machine permits it.
    #[test]
    fn frames_cross_the_line() {
        let cores = Cores::of_process().unwrap();
        let mut line = match XdpLine::new(cores, 64) {
            Ok(line) => line,
            Err(error) => {
                println!("skipped: {error:#}");
                return;
            }
        };
        let mut before = line.seen().unwrap();
        for wait in [Duration::ZERO, Duration::from_millis(2)] {
            line.coalesce(wait).unwrap();
            let offered = line.send(6_400.0, Duration::from_millis(200), 8).unwrap();
            crate::machine::pause(Duration::from_millis(100));
            let seen = line.seen().unwrap();
            assert_eq!(offered, 1_280);
            let forwarded = seen.forwarded - before.forwarded;
            assert_eq!((forwarded, seen.arrived - before.arrived), (offered, offered));
            assert!(seen.cpu > before.cpu);
            assert!(seen.delay_us(&before, 0.5) > 0.0);
            before = seen;
        }
    }
}
