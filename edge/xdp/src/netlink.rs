//! The few questions to the kernel that next hops need: route, neighbour, interface, what its
//! driver can do. Three messages do not warrant a library of all of netlink.

use std::io;
use std::net::IpAddr;
use std::os::fd::{AsRawFd as _, OwnedFd};

use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, send,
    setsockopt, socket, sockopt,
};
use nix::sys::time::TimeVal;

const NLM_F_REQUEST: u16 = 1;
const NLMSG_ERROR: u16 = 2;
const HEADER_BYTES: usize = 16;
const REPLY_BYTES_MAX: usize = 8_192;
/// The kernel answers at once; this is for a kernel that does not know the question.
const ANSWER_MAX: TimeVal = TimeVal::new(1, 0);

const RTM_GETLINK: u16 = 18;
const RTM_GETROUTE: u16 = 26;
const RTM_GETNEIGH: u16 = 30;
const GENL_ID_CTRL: u16 = 16;

const RTA_DST: u16 = 1;
const RTA_SRC: u16 = 2;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const RTA_VIA: u16 = 18;
const RTN_UNICAST: u8 = 1;
const NDA_DST: u16 = 1;
const NDA_LLADDR: u16 = 2;
/// Reachable, stale, delay, probe, no ARP, permanent.
const NUD_VALID: u16 = 0x02 | 0x04 | 0x08 | 0x10 | 0x40 | 0x80;
const IFLA_ADDRESS: u16 = 1;
const IFLA_MTU: u16 = 4;

const CTRL_CMD_GETFAMILY: u8 = 3;
const CTRL_ATTR_FAMILY_ID: u16 = 1;
const CTRL_ATTR_FAMILY_NAME: u16 = 2;
const NETDEV_CMD_DEV_GET: u8 = 1;
const NETDEV_A_DEV_IFINDEX: u16 = 1;
const NETDEV_A_DEV_XDP_FEATURES: u16 = 3;
/// `NETDEV_XDP_ACT_NDO_XMIT`: takes frames that were redirected to it.
const XDP_FEATURE_XMIT: u64 = 4;

/// `RTNLGRP_LINK`, `_NEIGH`, `_IPV4_ROUTE`, `_IPV6_ROUTE` as bits.
const CHANGES: u32 = 1 << 0 | 1 << 2 | 1 << 6 | 1 << 10;

/// Where a packet leaves the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Route {
    pub(crate) interface: u32,
    /// The gateway, or the destination itself on the link.
    pub(crate) next: IpAddr,
}

/// An interface with Ethernet addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Link {
    pub(crate) address: [u8; 6],
    pub(crate) mtu: u32,
}

/// One netlink socket.
#[derive(Debug)]
pub(crate) struct Netlink {
    socket: OwnedFd,
    sequence: u32,
}

impl Netlink {
    /// For routes, neighbours and links.
    ///
    /// # Errors
    /// Of `socket(2)`.
    pub(crate) fn route() -> io::Result<Self> {
        Self::open(SockProtocol::NetlinkRoute)
    }

    fn open(protocol: SockProtocol) -> io::Result<Self> {
        let (family, kind) = (AddressFamily::Netlink, SockType::Raw);
        let socket = socket(family, kind, SockFlag::SOCK_CLOEXEC, protocol)?;
        setsockopt(&socket, sockopt::ReceiveTimeout, &ANSWER_MAX)?;
        Ok(Self { socket, sequence: 0 })
    }

    /// The first answer without its header.
    fn ask(&mut self, kind: u16, body: &[u8]) -> io::Result<Vec<u8>> {
        self.sequence = self.sequence.wrapping_add(1);
        let length = u32::try_from(HEADER_BYTES + body.len()).map_err(io::Error::other)?;
        let mut message = Vec::with_capacity(length as usize);
        message.extend(length.to_ne_bytes());
        message.extend(kind.to_ne_bytes());
        message.extend(NLM_F_REQUEST.to_ne_bytes());
        message.extend(self.sequence.to_ne_bytes());
        message.extend(0_u32.to_ne_bytes());
        message.extend(body);
        send(self.socket.as_raw_fd(), &message, MsgFlags::empty())?;
        let mut bytes = vec![0; REPLY_BYTES_MAX];
        loop {
            let length = recv(self.socket.as_raw_fd(), &mut bytes, MsgFlags::empty())?;
            let reply = bytes.get(..length).unwrap_or_default();
            let kind = u16_at(reply, 4).ok_or(io::ErrorKind::InvalidData)?;
            if u32_at(reply, 8) != Some(self.sequence) {
                continue; // an answer that came too late
            }
            let body = reply.get(HEADER_BYTES..).unwrap_or_default();
            if kind == NLMSG_ERROR {
                let errno = u32_at(body, 0).unwrap_or(0).cast_signed();
                return Err(io::Error::from_raw_os_error(errno.saturating_neg()));
            }
            return Ok(body.to_vec());
        }
    }

    /// The way from `local` to `peer`; `None` if it does not leave over a link.
    ///
    /// # Errors
    /// Without a route.
    pub(crate) fn route_to(&mut self, local: IpAddr, peer: IpAddr) -> io::Result<Option<Route>> {
        let mut body = vec![0; 12];
        if let [family, to_bits, from_bits, ..] = body.as_mut_slice() {
            *family = family_of(peer);
            (*to_bits, *from_bits) = (bits_of(peer), bits_of(local));
        }
        push_address(&mut body, RTA_DST, peer);
        push_address(&mut body, RTA_SRC, local);
        let answer = self.ask(RTM_GETROUTE, &body)?;
        let attributes = answer.get(12..).unwrap_or_default();
        if answer.get(7) != Some(&RTN_UNICAST) || find(attributes, RTA_VIA).is_some() {
            return Ok(None);
        }
        let gateway = find(attributes, RTA_GATEWAY).and_then(address_of);
        let interface = find(attributes, RTA_OIF).and_then(|value| u32_at(value, 0));
        Ok(interface.map(|interface| Route { interface, next: gateway.unwrap_or(peer) }))
    }

    /// Link address of a neighbour, if the kernel knows it.
    ///
    /// # Errors
    /// If there is no such neighbour.
    pub(crate) fn neighbour(
        &mut self,
        interface: u32,
        next: IpAddr,
    ) -> io::Result<Option<[u8; 6]>> {
        let mut body = vec![family_of(next), 0, 0, 0];
        body.extend(interface.to_ne_bytes());
        body.extend([0; 4]);
        push_address(&mut body, NDA_DST, next);
        let answer = self.ask(RTM_GETNEIGH, &body)?;
        if u16_at(&answer, 8).unwrap_or(0) & NUD_VALID == 0 {
            return Ok(None);
        }
        let address = find(answer.get(12..).unwrap_or_default(), NDA_LLADDR);
        Ok(address.and_then(|address| address.try_into().ok()))
    }

    /// Address and MTU of an interface; `None` if it has no Ethernet addresses.
    ///
    /// # Errors
    /// If there is no such interface.
    pub(crate) fn link(&mut self, interface: u32) -> io::Result<Option<Link>> {
        let mut body = vec![0; 4];
        body.extend(interface.to_ne_bytes());
        body.extend([0; 8]);
        let answer = self.ask(RTM_GETLINK, &body)?;
        let attributes = answer.get(16..).unwrap_or_default();
        let address = find(attributes, IFLA_ADDRESS).and_then(|value| value.try_into().ok());
        let mtu = find(attributes, IFLA_MTU).and_then(|value| u32_at(value, 0));
        Ok(address.zip(mtu).map(|(address, mtu)| Link { address, mtu }))
    }
}

/// Whether the interface's driver takes frames that are redirected to it.
///
/// # Errors
/// If the kernel cannot tell (before 6.3).
pub(crate) fn takes_redirected(interface: u32) -> io::Result<bool> {
    let mut netlink = Netlink::open(SockProtocol::NetlinkGeneric)?;
    let mut body = vec![CTRL_CMD_GETFAMILY, 1, 0, 0];
    push(&mut body, CTRL_ATTR_FAMILY_NAME, b"netdev\0");
    let answer = netlink.ask(GENL_ID_CTRL, &body)?;
    let family = find(answer.get(4..).unwrap_or_default(), CTRL_ATTR_FAMILY_ID)
        .and_then(|value| u16_at(value, 0))
        .ok_or(io::ErrorKind::Unsupported)?;
    let mut body = vec![NETDEV_CMD_DEV_GET, 1, 0, 0];
    push(&mut body, NETDEV_A_DEV_IFINDEX, &interface.to_ne_bytes());
    let answer = netlink.ask(family, &body)?;
    let features = find(answer.get(4..).unwrap_or_default(), NETDEV_A_DEV_XDP_FEATURES)
        .and_then(|value| value.first_chunk::<8>());
    Ok(features.is_some_and(|bytes| u64::from_ne_bytes(*bytes) & XDP_FEATURE_XMIT != 0))
}

/// Tells that routes, neighbours or interfaces have changed.
#[derive(Debug)]
pub(crate) struct Changes(OwnedFd);

impl Changes {
    /// # Errors
    /// Of `socket(2)` or `bind(2)`.
    pub(crate) fn watch() -> io::Result<Self> {
        let Netlink { socket, .. } = Netlink::route()?;
        bind(socket.as_raw_fd(), &NetlinkAddr::new(0, CHANGES))?;
        Ok(Self(socket))
    }

    /// Whether anything changed since the last call; does not wait.
    pub(crate) fn any(&self) -> bool {
        let mut bytes = [0; REPLY_BYTES_MAX];
        let mut any = false;
        loop {
            match recv(self.0.as_raw_fd(), &mut bytes, MsgFlags::MSG_DONTWAIT) {
                // Some were lost for want of room: there were some.
                Ok(_) | Err(nix::errno::Errno::ENOBUFS) => any = true,
                Err(_) => return any,
            }
        }
    }
}

const fn family_of(ip: IpAddr) -> u8 {
    match ip {
        IpAddr::V4(_) => libc::AF_INET as u8,
        IpAddr::V6(_) => libc::AF_INET6 as u8,
    }
}

const fn bits_of(ip: IpAddr) -> u8 {
    if ip.is_ipv4() { 32 } else { 128 }
}

fn push(body: &mut Vec<u8>, kind: u16, value: &[u8]) {
    let length = u16::try_from(4 + value.len()).unwrap_or(u16::MAX);
    body.extend(length.to_ne_bytes());
    body.extend(kind.to_ne_bytes());
    body.extend(value);
    body.resize(body.len().next_multiple_of(4), 0);
}

fn push_address(body: &mut Vec<u8>, kind: u16, ip: IpAddr) {
    match ip {
        IpAddr::V4(ip) => push(body, kind, &ip.octets()),
        IpAddr::V6(ip) => push(body, kind, &ip.octets()),
    }
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().map(|word| u16::from_ne_bytes(*word))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|word| u32::from_ne_bytes(*word))
}

/// Value of the first attribute of a kind.
fn find(mut attributes: &[u8], kind: u16) -> Option<&[u8]> {
    loop {
        let length = usize::from(u16_at(attributes, 0)?);
        let value = attributes.get(4..length)?;
        // Two bits are flags.
        if u16_at(attributes, 2)? & 0x3fff == kind {
            return Some(value);
        }
        attributes = attributes.get(length.next_multiple_of(4)..)?;
    }
}

fn address_of(bytes: &[u8]) -> Option<IpAddr> {
    if let Ok(octets) = <[u8; 4]>::try_from(bytes) {
        return Some(octets.into());
    }
    <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_found_and_broken_ones_end_the_search() {
        let mut bytes = Vec::new();
        push(&mut bytes, 7, &[1, 2, 3]);
        push(&mut bytes, 9, &[4, 5, 6, 7]);
        assert_eq!(bytes.len(), 16);
        assert_eq!(find(&bytes, 9), Some(&[4, 5, 6, 7][..]));
        assert_eq!(find(&bytes, 8), None);
        for length in 0..bytes.len() {
            let _ = find(&bytes[..length], 9);
        }
        assert_eq!(find(&[0, 0, 0, 0, 0, 0, 0, 0], 9), None);
        assert_eq!(find(&[2, 0, 9, 0], 9), None);
    }

    #[test]
    fn the_way_to_oneself_leaves_over_no_link() {
        let mut netlink = Netlink::route().expect("netlink");
        let loopback = IpAddr::from([127, 0, 0, 1]);
        assert_eq!(netlink.route_to(loopback, loopback).expect("answer"), None);
        let link = netlink.link(1).expect("loopback").expect("addresses");
        assert_eq!(link.address, [0; 6]);
        assert!(netlink.link(9_999_999).is_err());
    }
}
