//! Sockets for media: bound pairs, buffers, DSCP, and what the kernel dropped.

use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use socket2::{Domain, Protocol, SockRef, Socket, Type};

/// DSCP "expedited forwarding" in the place of the former TOS byte (RFC 3246).
pub const TOS_EXPEDITED_FORWARDING: u32 = 0xb8;

/// `SO_MEMINFO` (linux/sock_diag.h): nine counts, of which these two are of use here.
const MEMINFO_WORDS: usize = 9;
const MEMINFO_RMEM_ALLOC: usize = 0;
const MEMINFO_DROPS: usize = 8;

/// The kernel accounts at least this many bytes for any queued datagram: half of the smallest
/// `struct sk_buff` with its data, so that a count from it errs on the large side.
const QUEUED_DATAGRAM_BYTES_MIN: u32 = 256;

/// Options of a media socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SocketConfig {
    /// `SO_RCVBUF` in bytes; the kernel doubles it and caps it at `net.core.rmem_max`.
    pub receive_buffer_bytes: usize,
    /// `SO_SNDBUF` in bytes.
    pub send_buffer_bytes: usize,
    /// `IP_TOS` or `IPV6_TCLASS`.
    pub tos: u32,
}

impl Default for SocketConfig {
    fn default() -> Self {
        SocketConfig {
            receive_buffer_bytes: 128 * 1024,
            send_buffer_bytes: 256 * 1024,
            tos: TOS_EXPEDITED_FORWARDING,
        }
    }
}

/// Two sockets on an even port and the next one (RFC 3550 §11).
#[derive(Debug)]
pub struct Pair {
    /// The even port.
    pub rtp: UdpSocket,
    /// The port after it.
    pub rtcp: UdpSocket,
}

/// Binds one UDP socket.
///
/// # Errors
/// Of `socket(2)`, `bind(2)`, `setsockopt(2)`: `AddrInUse`, no descriptor left, address not ours.
pub fn bind(address: SocketAddr, config: &SocketConfig) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_recv_buffer_size(config.receive_buffer_bytes)?;
    socket.set_send_buffer_size(config.send_buffer_bytes)?;
    if address.is_ipv4() {
        socket.set_tos_v4(config.tos)?;
    } else {
        socket.set_only_v6(true)?;
        socket.set_tclass_v6(config.tos)?;
    }
    socket.bind(&address.into())?;
    Ok(socket.into())
}

/// Binds an even port and the one after it. Both are free again if one fails.
///
/// # Errors
/// As [`bind`]; `InvalidInput` for an odd port.
pub fn bind_pair(ip: IpAddr, rtp_port: u16, config: &SocketConfig) -> io::Result<Pair> {
    if rtp_port == 0 || !rtp_port.is_multiple_of(2) {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "RTP port must be even"));
    }
    let rtp = bind(SocketAddr::new(ip, rtp_port), config)?;
    let rtcp = bind(SocketAddr::new(ip, rtp_port + 1), config)?;
    Ok(Pair { rtp, rtcp })
}

/// Binds the first free pair of `candidates`, trying at most `tries_max`.
///
/// # Errors
/// The first error other than `AddrInUse`, or `AddrInUse` when no pair was free.
pub fn bind_pair_from(
    ip: IpAddr,
    candidates: impl IntoIterator<Item = u16>,
    tries_max: usize,
    config: &SocketConfig,
) -> io::Result<Pair> {
    for port in candidates.into_iter().take(tries_max) {
        match bind_pair(ip, port, config) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {}
            result => return result,
        }
    }
    Err(io::ErrorKind::AddrInUse.into())
}

/// Datagrams that the kernel dropped because the socket's receive buffer was full.
///
/// # Errors
/// Of `getsockopt(2)`.
pub fn drops(socket: &impl AsFd) -> io::Result<u32> {
    meminfo(socket.as_fd()).map(|words| words[MEMINFO_DROPS])
}

/// At most this many datagrams are queued in the socket now.
pub(crate) fn queued_datagrams_max(socket: &impl AsFd) -> u32 {
    match meminfo(socket.as_fd()) {
        Ok(words) => words[MEMINFO_RMEM_ALLOC] / QUEUED_DATAGRAM_BYTES_MIN + 1,
        // Without the figure: more than any buffer of ours can hold.
        Err(_) => 65_536,
    }
}

/// Takes the peer away: the socket receives from any source again and keeps its port.
pub(crate) fn disconnect(udp: &UdpSocket) -> io::Result<()> {
    let bound = udp.local_addr()?;
    // SAFETY: all fields are integers, for which zero is valid.
    let mut address: libc::sockaddr = unsafe { std::mem::zeroed() };
    address.sa_family = libc::AF_UNSPEC as libc::sa_family_t;
    let size = size_of::<libc::sockaddr>() as libc::socklen_t;
    // SAFETY: the address is a live sockaddr of `size` bytes; the descriptor is open.
    let result = unsafe { libc::connect(udp.as_raw_fd(), &raw const address, size) };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    // The kernel takes a port back that it had chosen itself.
    if udp.local_addr()?.port() == 0 {
        SockRef::from(udp).bind(&bound.into())?;
    }
    Ok(())
}

/// Buffer sizes that the kernel granted, receive and send, in its doubled count.
///
/// # Errors
/// Of `getsockopt(2)`.
pub fn granted_buffers(udp: &UdpSocket) -> io::Result<(usize, usize)> {
    let socket = SockRef::from(udp);
    Ok((socket.recv_buffer_size()?, socket.send_buffer_size()?))
}

fn meminfo(fd: BorrowedFd<'_>) -> io::Result<[u32; MEMINFO_WORDS]> {
    let mut words = [0_u32; MEMINFO_WORDS];
    let mut size = size_of_val(&words) as libc::socklen_t;
    let target = words.as_mut_ptr().cast();
    // SAFETY: `size` bytes at `target` are ours and live; the descriptor is open.
    let result = unsafe {
        libc::getsockopt(fd.as_raw_fd(), libc::SOL_SOCKET, libc::SO_MEMINFO, target, &raw mut size)
    };
    if result == 0 { Ok(words) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOOPBACK: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    #[test]
    #[cfg_attr(miri, ignore = "system calls")]
    fn pairs_are_even_and_odd_and_skip_used_ports() {
        let config = SocketConfig::default();
        let candidates = || (41_000..42_000).step_by(2);
        let first = bind_pair_from(LOOPBACK, candidates(), 500, &config).expect("free pair");
        let second = bind_pair_from(LOOPBACK, candidates(), 500, &config).expect("free pair");
        for pair in [&first, &second] {
            let rtp = pair.rtp.local_addr().expect("bound").port();
            let rtcp = pair.rtcp.local_addr().expect("bound").port();
            assert_eq!((rtp % 2, rtcp), (0, rtp + 1));
        }
        assert_ne!(first.rtp.local_addr().expect("bound"), second.rtp.local_addr().expect("bound"));
        assert_eq!(
            bind_pair(LOOPBACK, 41_001, &config).map_err(|e| e.kind()).err(),
            Some(io::ErrorKind::InvalidInput)
        );
    }

    #[test]
    #[cfg_attr(miri, ignore = "system calls")]
    fn dropped_datagrams_are_counted_by_the_kernel() {
        let config = SocketConfig { receive_buffer_bytes: 4096, ..SocketConfig::default() };
        let sink = bind("127.0.0.1:0".parse().expect("address"), &config).expect("bound");
        let source = UdpSocket::bind("127.0.0.1:0").expect("bound");
        source.connect(sink.local_addr().expect("bound")).expect("connected");
        for _ in 0..200 {
            source.send(&[0; 172]).expect("sent");
        }
        let dropped = drops(&sink).expect("figure");
        assert!(dropped > 100, "{dropped}");
        assert!(queued_datagrams_max(&sink) >= 200 - dropped);
    }

    #[test]
    #[cfg_attr(miri, ignore = "system calls")]
    fn disconnected_socket_hears_everybody_again() {
        let a = UdpSocket::bind("127.0.0.1:0").expect("bound");
        let b = UdpSocket::bind("127.0.0.1:0").expect("bound");
        let c = UdpSocket::bind("127.0.0.1:0").expect("bound");
        let address = a.local_addr().expect("bound");
        a.connect(b.local_addr().expect("bound")).expect("connected");
        disconnect(&a).expect("disconnected");
        assert_eq!(a.local_addr().expect("bound"), address);
        c.send_to(b"x", address).expect("sent");
        a.set_read_timeout(Some(std::time::Duration::from_secs(2))).expect("timeout");
        assert_eq!(a.recv_from(&mut [0; 4]).expect("heard").1, c.local_addr().expect("bound"));
    }
}
