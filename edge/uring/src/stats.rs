//! Plain counters of one media thread, kept by the thread itself.

/// What the mechanics did and what it lost. All counts since start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Loop turns.
    pub turns: u64,
    /// Calls of `io_uring_enter`.
    pub enters: u64,
    /// Datagrams handed to the driver.
    pub datagrams: u64,
    /// Of these: read with their source while a socket changed its peer.
    pub datagrams_drained: u64,
    /// Datagrams larger than a buffer: dropped.
    pub datagrams_truncated: u64,
    /// Datagrams that arrived for a socket while it was being removed: dropped.
    pub datagrams_after_remove: u64,
    /// Sends queued.
    pub sends: u64,
    /// Sends that failed, by cause. The datagram is lost.
    pub send_failed_again: u64,
    /// ENOBUFS or ENOMEM.
    pub send_failed_no_buffers: u64,
    /// EPERM (a packet filter) or EACCES.
    pub send_failed_permission: u64,
    /// ECONNREFUSED: an ICMP error of an earlier datagram was reported on this one.
    pub send_failed_refused: u64,
    /// ENETUNREACH, EHOSTUNREACH, ENETDOWN.
    pub send_failed_unreachable: u64,
    /// Any other cause.
    pub send_failed_other: u64,
    /// Sends refused before they were queued: stale socket, bad range, too long, no address.
    pub sends_refused: u64,
    /// Sends dropped because the kernel took no submissions.
    pub sends_dropped_ring: u64,
    /// Receives ended for want of buffers and armed again; the datagrams stay in the socket.
    pub receive_no_buffers: u64,
    /// Receives ended by an ICMP error (ECONNREFUSED …) and armed again.
    pub receive_refused: u64,
    /// Receives ended for another reason and armed again.
    pub receive_ended: u64,
    /// Times the completion queue was seen full; the kernel keeps the rest and hands it over.
    pub completion_overflows: u64,
    /// Submissions that the kernel refused for now.
    pub submit_busy: u64,
    /// Datagrams that the kernel dropped for full socket buffers, summed when sockets were removed.
    pub socket_drops: u64,
    /// Wake-ups by the doorbell.
    pub doorbells: u64,
    /// Times `on_deadline` was called.
    pub deadlines: u64,
    /// Deadlines that were left to a timeout of the ring over many waits.
    pub timers: u64,
    /// Sockets added since start.
    pub sockets_added: u64,
    /// Sockets removed since start.
    pub sockets_removed: u64,
}

impl Stats {
    /// Sum of all failed sends.
    pub fn send_failed(&self) -> u64 {
        self.send_failed_again
            + self.send_failed_no_buffers
            + self.send_failed_permission
            + self.send_failed_refused
            + self.send_failed_unreachable
            + self.send_failed_other
    }

    pub(crate) fn count_send_error(&mut self, errno: i32) {
        let counter = match errno {
            libc::EAGAIN => &mut self.send_failed_again,
            libc::ENOBUFS | libc::ENOMEM => &mut self.send_failed_no_buffers,
            libc::EPERM | libc::EACCES => &mut self.send_failed_permission,
            libc::ECONNREFUSED => &mut self.send_failed_refused,
            libc::ENETUNREACH | libc::EHOSTUNREACH | libc::ENETDOWN => {
                &mut self.send_failed_unreachable
            }
            _ => &mut self.send_failed_other,
        };
        *counter += 1;
    }

    pub(crate) fn count_receive_end(&mut self, errno: i32) {
        match errno {
            libc::ENOBUFS => self.receive_no_buffers += 1,
            libc::ECONNREFUSED
            | libc::EHOSTUNREACH
            | libc::ENETUNREACH
            | libc::EPROTO
            | libc::ENOPROTOOPT
            | libc::EACCES => self.receive_refused += 1,
            libc::ECANCELED => {}
            _ => self.receive_ended += 1,
        }
    }
}
