//! Makes RTP and counts what comes back.
//!
//! One thread that never sleeps. Most streams are sent in bursts of different destinations and come
//! back to a socket whose filter discards them, which costs this process nothing; the kernel's own
//! count of discarded datagrams is exact. One call of 64 goes packet by packet with the time of
//! sending inside, and is timed by the kernel's stamp of arrival, so that the generator's own
//! wake-ups are not in the figure.

use std::io::IoSlice;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::os::fd::AsRawFd as _;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use edge_uring::socket::{Pair, SocketConfig, bind_pair_from, drops};
use hdrhistogram::Histogram;
use nix::sys::socket::{
    ControlMessageOwned, MsgFlags, MultiHeaders, SockaddrIn, recvmsg, sendmmsg, setsockopt, sockopt,
};
use socket2::{SockFilter, SockRef};

use super::{Ends, is_sampled};
use crate::machine::realtime_ns;

/// RTP header and 20 ms of G.711.
pub const PACKET_BYTES: usize = 172;
/// Packets of one burst, all to different destinations.
const BURST: usize = 32;
/// Last byte of every packet of ours: what a system makes by itself (silence) does not have it.
const MARK: u8 = 0x2a;
/// Where the filter sees that byte: behind the UDP header.
const MARK_OFFSET: u32 = 8 + PACKET_BYTES as u32 - 1;
/// Bursts between two looks at the sampled sockets.
const LOOK_EVERY: u64 = 8;
const SETTLE_EVERY: Duration = Duration::from_millis(50);
const SETTLE_LOOKS: u32 = 40;
const TIME_AT: usize = 12;

/// Ports of the generator: below those of the systems.
const PORTS: std::ops::Range<u16> = 1_100..9_998;

struct Side {
    bulk: Pair,
    sampled: Pair,
    bulk_drops: u32,
    rtp_drops: u32,
}

impl Side {
    fn bind(first: u16) -> anyhow::Result<Self> {
        let config =
            SocketConfig { receive_buffer_bytes: 4 << 20, send_buffer_bytes: 4 << 20, tos: 0 };
        let ports = || (first..PORTS.end).chain(PORTS.start..first).step_by(2);
        let ip = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let pair = || bind_pair_from(ip, ports(), ports().count(), &config);
        let (bulk, sampled) = (pair().context("bulk")?, pair().context("sampled")?);
        let marked = [
            SockFilter::new(0x30, 0, 0, MARK_OFFSET),
            SockFilter::new(0x15, 0, 1, u32::from(MARK)),
            SockFilter::new(0x06, 0, 0, 0),
            SockFilter::new(0x06, 0, 0, u32::MAX),
        ];
        SockRef::from(&bulk.rtp).attach_filter(&marked)?;
        let nothing = [SockFilter::new(0x06, 0, 0, 0)];
        for rtcp in [&bulk.rtcp, &sampled.rtcp] {
            SockRef::from(rtcp).attach_filter(&nothing)?;
        }
        for rtp in [&bulk.rtp, &sampled.rtp] {
            rtp.set_nonblocking(true)?;
        }
        setsockopt(&sampled.rtp, sockopt::ReceiveTimestampns, &true)?;
        Ok(Self { bulk, sampled, bulk_drops: 0, rtp_drops: 0 })
    }
}

/// What went out and came back.
#[derive(Debug, Clone)]
pub struct Tally {
    /// Packets that the kernel took.
    pub offered: u64,
    /// Packets of ours that came back.
    pub returned: u64,
    /// Packets that the system made itself.
    pub made: u64,
    /// Packets that the kernel did not take from the generator.
    pub refused: u64,
    /// Time from sending to arrival of the sampled packets, nanoseconds.
    pub delay_ns: Histogram<u64>,
    /// Worst lateness of a burst, nanoseconds.
    pub late_max_ns: u64,
}

impl Tally {
    fn new() -> Self {
        // The bounds are what the crate accepts.
        let delay_ns = Histogram::new_with_max(10_000_000_000, 3)
            .unwrap_or_else(|_| unreachable!("valid bounds"));
        Self { offered: 0, returned: 0, made: 0, refused: 0, delay_ns, late_max_ns: 0 }
    }

    /// Share of packets that did not come back.
    pub fn loss(&self) -> f64 {
        if self.offered == 0 {
            return 1.0;
        }
        1.0 - self.returned as f64 / self.offered as f64
    }
}

struct Stream {
    to: SockaddrIn,
    packet: [u8; PACKET_BYTES],
    seq: u16,
    timestamp: u32,
}

impl Stream {
    fn new(to: SocketAddr, ssrc: u32) -> anyhow::Result<Self> {
        let SocketAddr::V4(to) = to else { anyhow::bail!("{to}: the generator speaks IPv4") };
        let mut packet = [0x55; PACKET_BYTES];
        packet[0] = 0x80;
        packet[1] = 0;
        packet[8..12].copy_from_slice(&ssrc.to_be_bytes());
        packet[PACKET_BYTES - 1] = MARK;
        Ok(Self { to: to.into(), packet, seq: ssrc as u16, timestamp: ssrc.wrapping_mul(7_919) })
    }

    fn advance(&mut self) {
        self.seq = self.seq.wrapping_add(1);
        self.timestamp = self.timestamp.wrapping_add(160);
        self.packet[2..4].copy_from_slice(&self.seq.to_be_bytes());
        self.packet[4..8].copy_from_slice(&self.timestamp.to_be_bytes());
    }
}

/// See the module.
pub struct Generator {
    sides: [Side; 2],
    /// Streams of side A and of side B, by call.
    streams: [Vec<Stream>; 2],
    headers: MultiHeaders<SockaddrIn>,
    /// Next call, and which side's turn it is.
    next: usize,
    turn: usize,
    tally: Tally,
}

impl Generator {
    /// Binds its sockets, on other ports than the one before.
    ///
    /// # Errors
    /// If no ports are free.
    pub fn new() -> anyhow::Result<Self> {
        use std::sync::atomic::{AtomicU16, Ordering};
        static NEXT: AtomicU16 = AtomicU16::new(0);
        let step = NEXT.fetch_add(64, Ordering::Relaxed).wrapping_add(std::process::id() as u16);
        let first = PORTS.start + (step % ((PORTS.end - PORTS.start) / 2)) * 2;
        Ok(Self {
            sides: [Side::bind(first)?, Side::bind(first)?],
            streams: [Vec::new(), Vec::new()],
            headers: MultiHeaders::preallocate(BURST, None),
            next: 0,
            turn: 0,
            tally: Tally::new(),
        })
    }

    /// Its addresses.
    ///
    /// # Errors
    /// Of `getsockname(2)`.
    pub fn ends(&self) -> anyhow::Result<Ends> {
        let [a, b] = &self.sides;
        Ok(Ends {
            bulk: [a.bulk.rtp.local_addr()?, b.bulk.rtp.local_addr()?],
            sampled: [a.sampled.rtp.local_addr()?, b.sampled.rtp.local_addr()?],
        })
    }

    /// Aims at the legs of a system.
    ///
    /// # Errors
    /// If an address is not IPv4.
    pub fn aim(&mut self, legs: &[[SocketAddr; 2]]) -> anyhow::Result<()> {
        for side in 0..2 {
            let numbered = legs.iter().enumerate();
            self.streams[side] = numbered
                .map(|(call, leg)| Stream::new(leg[side], (call as u32) << 1 | side as u32))
                .collect::<anyhow::Result<_>>()?;
        }
        (self.next, self.turn) = (0, 0);
        Ok(())
    }

    /// Sends every stream a few packets, so that addresses are learnt; nothing is counted.
    ///
    /// # Errors
    /// Of the sockets.
    pub fn prime(&mut self, rounds: usize) -> anyhow::Result<()> {
        self.send_each(rounds)?;
        self.drain(Duration::from_millis(100))?;
        self.reset()
    }

    /// Lets streams that paused go on before anything is counted: a system may have filled the pause up
    /// with silence, and has to change over.
    ///
    /// # Errors
    /// Of the sockets.
    pub fn rouse(&mut self) -> anyhow::Result<()> {
        self.send_each(2)?;
        // Shorter than what is filled up.
        self.drain(Duration::from_millis(20))?;
        self.reset()
    }

    /// So many packets of every stream, at a rate that everybody can take.
    fn send_each(&mut self, rounds: usize) -> anyhow::Result<()> {
        let packets = self.streams[0].len() * 2 * rounds;
        self.send(80_000.0, Duration::from_secs_f64(packets as f64 / 80_000.0), &mut |_| Ok(()))
    }

    /// Waits until nothing more comes back of what was sent before, at most two seconds: a system that
    /// was overloaded would otherwise have it counted among what is sent next.
    ///
    /// # Errors
    /// Of the sockets.
    pub fn settle(&mut self) -> anyhow::Result<()> {
        let mut before = self.tally()?.returned;
        for _ in 0..SETTLE_LOOKS {
            self.drain(SETTLE_EVERY)?;
            let now = self.tally()?.returned;
            if now == before {
                break;
            }
            before = now;
        }
        Ok(())
    }

    /// Begins to count anew.
    ///
    /// # Errors
    /// Of `getsockopt(2)`.
    pub fn reset(&mut self) -> anyhow::Result<()> {
        self.look()?;
        for side in &mut self.sides {
            side.bulk_drops = drops(&side.bulk.rtp)?;
            side.rtp_drops = drops(&side.sampled.rtp)?;
        }
        self.tally = Tally::new();
        Ok(())
    }

    /// Forgets the delays of what has come back so far; counts go on.
    pub fn forget_delays(&mut self) {
        self.tally.delay_ns.reset();
    }

    /// Sends at `rate_per_s` for `time`; `at_burst` is told how many packets were offered so far.
    ///
    /// # Errors
    /// Of the sockets, or of `at_burst`.
    pub fn send(
        &mut self,
        rate_per_s: f64,
        time: Duration,
        at_burst: &mut dyn FnMut(u64) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let calls = self.streams[0].len();
        anyhow::ensure!(calls >= BURST, "at least {BURST} calls");
        let began = Instant::now();
        let total = (time.as_secs_f64() * rate_per_s) as u64;
        let (mut done, mut bursts) = (0u64, 0u64);
        while done < total {
            let due = Duration::from_secs_f64(done as f64 / rate_per_s);
            let mut now = began.elapsed();
            while now < due {
                std::hint::spin_loop();
                now = began.elapsed();
            }
            let late_ns = u64::try_from((now - due).as_nanos()).unwrap_or(u64::MAX);
            self.tally.late_max_ns = self.tally.late_max_ns.max(late_ns);
            done += self.burst()? as u64;
            bursts += 1;
            if bursts.is_multiple_of(LOOK_EVERY) {
                self.look()?;
            }
            at_burst(self.tally.offered)?;
        }
        Ok(())
    }

    /// The next 32 calls of one side; the sides take turns over the same calls.
    fn burst(&mut self) -> anyhow::Result<usize> {
        let (side, calls) = (self.turn, self.streams[0].len());
        let end = (self.next + BURST).min(calls);
        let mut first = self.next;
        // A sampled call parts the burst.
        for call in self.next..end {
            if is_sampled(call) {
                self.send_bulk(side, first..call)?;
                self.send_sampled(side, call)?;
                first = call + 1;
            }
        }
        self.send_bulk(side, first..end)?;
        let count = end - self.next;
        self.turn ^= 1;
        if self.turn == 0 {
            self.next = if end >= calls { 0 } else { end };
        }
        Ok(count)
    }

    fn send_bulk(&mut self, side: usize, calls: std::ops::Range<usize>) -> anyhow::Result<()> {
        if calls.is_empty() {
            return Ok(());
        }
        let count = calls.len();
        let streams = &mut self.streams[side][calls];
        let mut to = [None; BURST];
        for (stream, to) in streams.iter_mut().zip(&mut to) {
            stream.advance();
            *to = Some(stream.to);
        }
        let empty: &[u8] = &[];
        let mut slices = [[IoSlice::new(empty)]; BURST];
        for (stream, slice) in streams.iter().zip(&mut slices) {
            *slice = [IoSlice::new(&stream.packet)];
        }
        let fd = self.sides[side].bulk.rtp.as_raw_fd();
        let slices = slices.iter().take(count);
        let sent =
            sendmmsg(fd, &mut self.headers, slices, &to[..count], [], MsgFlags::MSG_DONTWAIT);
        // An error is that of the first packet: a full queue, or an ICMP answer to an earlier one.
        let taken = sent.map_or(0, |results| results.count());
        self.tally.offered += taken as u64;
        self.tally.refused += (count - taken) as u64;
        Ok(())
    }

    fn send_sampled(&mut self, side: usize, call: usize) -> anyhow::Result<()> {
        let stream = &mut self.streams[side][call];
        stream.advance();
        stream.packet[TIME_AT..TIME_AT + 8].copy_from_slice(&realtime_ns().to_be_bytes());
        let to = SocketAddr::from((stream.to.ip(), stream.to.port()));
        match self.sides[side].sampled.rtp.send_to(&stream.packet, to) {
            Ok(_) => self.tally.offered += 1,
            Err(_) => self.tally.refused += 1,
        }
        Ok(())
    }

    /// Reads what has come to the sampled sockets, and what a system made itself.
    fn look(&mut self) -> anyhow::Result<()> {
        let mut bytes = [0u8; 2048];
        for side in &self.sides {
            while side.bulk.rtp.recv(&mut bytes).is_ok() {
                self.tally.made += 1;
            }
            while let Some((length, stamp_ns)) = receive_stamped(&side.sampled.rtp, &mut bytes)? {
                let packet = bytes.get(..length).unwrap_or_default();
                let (Some(&MARK), Some(sent)) = (
                    packet.last(),
                    packet.get(TIME_AT..TIME_AT + 8).and_then(|b| b.try_into().ok()),
                ) else {
                    self.tally.made += 1;
                    continue;
                };
                self.tally.returned += 1;
                let delay_ns = stamp_ns.saturating_sub(u64::from_be_bytes(sent));
                self.tally.delay_ns.saturating_record(delay_ns);
            }
        }
        Ok(())
    }

    /// Waits for what is under way.
    ///
    /// # Errors
    /// Of the sockets.
    pub fn drain(&mut self, time: Duration) -> anyhow::Result<()> {
        let end = Instant::now() + time;
        while Instant::now() < end {
            self.look()?;
            crate::machine::pause(Duration::from_millis(2));
        }
        self.look()
    }

    /// What was counted since [`Self::reset`].
    ///
    /// # Errors
    /// Of `getsockopt(2)`; or if a sampled socket overflowed, which makes the count useless.
    pub fn tally(&self) -> anyhow::Result<Tally> {
        let mut tally = self.tally.clone();
        for side in &self.sides {
            tally.returned += u64::from(drops(&side.bulk.rtp)?.wrapping_sub(side.bulk_drops));
            let overflow = drops(&side.sampled.rtp)?.wrapping_sub(side.rtp_drops);
            anyhow::ensure!(
                overflow == 0,
                "the generator's sampled socket lost {overflow} packets"
            );
        }
        Ok(tally)
    }
}

/// One datagram with the kernel's time of arrival in nanoseconds of CLOCK_REALTIME.
fn receive_stamped(socket: &UdpSocket, bytes: &mut [u8]) -> anyhow::Result<Option<(usize, u64)>> {
    let mut room = nix::cmsg_space!(nix::sys::time::TimeSpec);
    let mut slices = [std::io::IoSliceMut::new(bytes)];
    let flags = MsgFlags::MSG_DONTWAIT;
    let message = match recvmsg::<()>(socket.as_raw_fd(), &mut slices, Some(&mut room), flags) {
        Ok(message) => message,
        Err(
            nix::errno::Errno::EAGAIN | nix::errno::Errno::EINTR | nix::errno::Errno::ECONNREFUSED,
        ) => {
            return Ok(None);
        }
        Err(errno) => return Err(errno).context("recvmsg"),
    };
    let mut stamp_ns = realtime_ns();
    for part in message.cmsgs()? {
        if let ControlMessageOwned::ScmTimestampns(at) = part {
            stamp_ns = u64::try_from(Duration::from(at).as_nanos()).unwrap_or(u64::MAX);
        }
    }
    Ok(Some((message.bytes, stamp_ns)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The generator aimed at itself: what side A sends arrives at side B.
    #[test]
    fn every_packet_is_offered_and_returned() {
        let mut generator = Generator::new().unwrap();
        let ends = generator.ends().unwrap();
        let legs: Vec<_> = (0..128).map(|call| [ends.of(call, 1), ends.of(call, 0)]).collect();
        generator.aim(&legs).unwrap();
        generator.prime(1).unwrap();
        let mut bursts = 0;
        let mut count = |_| {
            bursts += 1;
            Ok(())
        };
        generator.send(20_000.0, Duration::from_millis(128), &mut count).unwrap();
        generator.drain(Duration::from_millis(20)).unwrap();
        let tally = generator.tally().unwrap();
        assert_eq!((bursts, tally.offered, tally.refused), (80, 2560, 0));
        assert_eq!((tally.returned, tally.made), (2560, 0));
        // Ten rounds of two timed calls in both directions.
        assert_eq!(tally.delay_ns.len(), 40);
        // A packet without the mark is nobody's return.
        let stranger = UdpSocket::bind("127.0.0.1:0").unwrap();
        stranger.send_to(&[0xff; PACKET_BYTES], ends.bulk[0]).unwrap();
        generator.drain(Duration::from_millis(20)).unwrap();
        let tally = generator.tally().unwrap();
        assert_eq!((tally.returned, tally.made), (2560, 1));
        assert!(tally.loss().abs() < 1e-9);
    }
}
