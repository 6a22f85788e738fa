//! ICMP errors about SIP datagrams (RFC 3261 §18.4): without them, a call to a host that is down
//! is tried for 32 s.
//!
//! The kernel queues them at the socket with the address that the datagram was for and what the
//! error quotes of it. Whether to believe them is decided in the core.

use std::io::{self, IoSliceMut};
use std::net::{SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::{AsFd, AsRawFd};

use bytes::Bytes;
use nix::errno::Errno;
use nix::sys::socket::{
    ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, setsockopt, sockopt,
};

/// More than an error quotes (RFC 1812 §4.3.2.3: the whole packet has at most 576 bytes).
const QUOTED_BYTES_MAX: usize = 576;

/// `struct sock_extended_err` and an IPv6 address, with room.
const CONTROL_BYTES_MAX: usize = 64;

/// A datagram of ours that did not arrive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Undelivered {
    /// Whom it was for.
    pub to: SocketAddr,
    /// How it began.
    pub quoted: Bytes,
}

/// Asks the kernel for errors of a socket.
///
/// # Errors
/// Of `setsockopt(2)`.
pub fn enable(socket: &impl AsFd, local: SocketAddr) -> io::Result<()> {
    let set = match local {
        SocketAddr::V4(_) => setsockopt(socket, sockopt::Ipv4RecvErr, &true),
        SocketAddr::V6(_) => setsockopt(socket, sockopt::Ipv6RecvErr, &true),
    };
    Ok(set?)
}

/// The next error that waits; `None` if it says something else than that nobody is there.
///
/// # Errors
/// `WouldBlock` if none waits.
pub fn next(socket: &impl AsRawFd) -> io::Result<Option<Undelivered>> {
    let mut quoted = [0_u8; QUOTED_BYTES_MAX];
    let mut parts = [IoSliceMut::new(&mut quoted)];
    let mut control = nix::cmsg_space!([u8; CONTROL_BYTES_MAX]);
    let flags = MsgFlags::MSG_ERRQUEUE | MsgFlags::MSG_DONTWAIT;
    let message =
        recvmsg::<SockaddrStorage>(socket.as_raw_fd(), &mut parts, Some(&mut control), flags)?;
    let nobody = message.cmsgs()?.any(|part| match part {
        ControlMessageOwned::Ipv4RecvErr(error, _) | ControlMessageOwned::Ipv6RecvErr(error, _) => {
            // The kernel's numbers are those of `errno`, which are small.
            is_unreachable(Errno::from_raw(error.ee_errno as i32))
        }
        _ => false,
    });
    let (to, length) = (message.address.as_ref().and_then(address_of), message.bytes);
    let Some(to) = to.filter(|_| nobody) else { return Ok(None) };
    let quoted = Bytes::copy_from_slice(quoted.get(..length).unwrap_or_default());
    Ok(Some(Undelivered { to, quoted }))
}

fn is_unreachable(error: Errno) -> bool {
    matches!(error, Errno::ECONNREFUSED | Errno::EHOSTUNREACH | Errno::ENETUNREACH)
}

fn address_of(name: &SockaddrStorage) -> Option<SocketAddr> {
    let v4 = name.as_sockaddr_in().map(|name| SocketAddrV4::from(*name).into());
    v4.or_else(|| name.as_sockaddr_in6().map(|name| SocketAddrV6::from(*name).into()))
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;
    use std::time::{Duration, Instant};

    use super::*;

    #[test]
    fn a_closed_port_is_reported_with_what_was_sent_there() {
        for ip in ["127.0.0.1", "[::1]"] {
            let Ok(socket) = UdpSocket::bind(format!("{ip}:0")) else { continue };
            enable(&socket, socket.local_addr().expect("bound")).expect("option");
            let closed = UdpSocket::bind(format!("{ip}:0")).expect("bound");
            let to = closed.local_addr().expect("bound");
            drop(closed);
            let nothing = next(&socket).map_err(|error| error.kind());
            assert_eq!(nothing, Err(io::ErrorKind::WouldBlock));
            socket.send_to(b"INVITE", to).expect("sent");
            let end = Instant::now() + Duration::from_secs(2);
            let undelivered = loop {
                match next(&socket) {
                    Ok(Some(undelivered)) => break undelivered,
                    _ => assert!(Instant::now() < end, "{ip}: no error within 2 s"),
                }
            };
            assert_eq!(undelivered.to, to);
            assert_eq!(&undelivered.quoted[..], b"INVITE");
        }
    }
}
