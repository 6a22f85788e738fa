//! What a worker wants sent; carried out by the shell or the simulator.

use std::net::SocketAddr;

use link_proto::ChannelId;

use crate::command::PortKey;
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

    /// Hands audio to the recorder.
    fn record(&mut self, message: RecorderMessage);
}
