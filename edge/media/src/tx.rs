//! What a worker wants sent; carried out by the shell or the simulator.

use std::net::SocketAddr;

use link_proto::ChannelId;

use crate::command::PortKey;
use crate::offload::{Offload, OffloadId, Progress};
use crate::recording::RecorderMessage;

/// Which socket of a leg.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Component {
    /// RTP, and RTCP with rtcp-mux.
    Rtp,
    /// RTCP without rtcp-mux.
    Rtcp,
}

/// Takes what a worker sends. Nothing is reported back: a lost packet is a lost packet.
pub trait Tx {
    /// Sends `packet`, which is the front of the buffer that was just received: a shell sends that
    /// very buffer. Called at most once per received packet.
    fn forward(
        &mut self,
        to: PortKey,
        component: Component,
        destination: SocketAddr,
        packet: &[u8],
    );

    /// Sends bytes that do not lie in the received buffer.
    fn send(&mut self, to: PortKey, component: Component, destination: SocketAddr, bytes: &[u8]);

    /// Hands a packet to the trunk.
    fn trunk(&mut self, peer: u32, channel: ChannelId, packet: &[u8]);

    /// Ties a socket to its peer, or (`None`) opens it to any source.
    fn set_peer(&mut self, port: PortKey, component: Component, peer: Option<SocketAddr>);

    /// How long ago everything that had arrived was handled: later packets may still be waiting.
    fn behind_us(&self) -> u64 {
        0
    }

    /// Whether there is a kernel that could forward a stream.
    fn offloads(&self) -> bool {
        false
    }

    /// Lets the kernel forward a stream; from now on it is not forwarded here. `None` if it cannot.
    fn offload(&mut self, _stream: &Offload) -> Option<OffloadId> {
        None
    }

    /// How far the kernel has come with a stream.
    fn offloaded(&mut self, _id: OffloadId) -> Option<Progress> {
        None
    }

    /// Takes a stream back; what it did since is the last that it does.
    fn withdraw(&mut self, _id: OffloadId) -> Option<Progress> {
        None
    }

    /// Hands audio to the recorder.
    fn record(&mut self, message: RecorderMessage);
}
