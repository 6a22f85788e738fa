//! Frames written straight to an interface.

use std::io;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};

/// A packet socket that sends to one interface, past its queue, and receives nothing.
///
/// # Errors
/// Of `socket(2)`, `setsockopt(2)` or `bind(2)`: needs CAP_NET_RAW.
pub fn packet_socket(interface: u32) -> io::Result<OwnedFd> {
    // SAFETY: no pointers.
    let fd = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a descriptor that was just made, owned by nobody else.
    let socket = unsafe { OwnedFd::from_raw_fd(fd) };
    let on: libc::c_int = 1;
    let size = size_of_val(&on) as libc::socklen_t;
    let option = (&raw const on).cast();
    // SAFETY: `size` bytes at `option` live through the call.
    let set =
        unsafe { libc::setsockopt(fd, libc::SOL_PACKET, libc::PACKET_QDISC_BYPASS, option, size) };
    if set < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: all fields are integers, for which zero is valid.
    let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    address.sll_family = libc::AF_PACKET as u16;
    address.sll_ifindex = interface.cast_signed();
    let size = size_of_val(&address) as libc::socklen_t;
    let pointer = (&raw const address).cast();
    // SAFETY: an address of `size` bytes that lives through the call.
    if unsafe { libc::bind(socket.as_raw_fd(), pointer, size) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(socket)
}
