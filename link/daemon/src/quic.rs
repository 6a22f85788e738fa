//! QUIC endpoints between our daemons: the link and the media trunk.
//!
//! The link carries one bidirectional control stream with frames ([`frame`]) and further streams
//! for bytes: a fetch by key, or an upload ([`stream`]). The trunk carries datagrams under a
//! provisioned rate ([`rate`]). Both use mutual TLS and the same private authority.

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{
    AckFrequencyConfig, Endpoint, EndpointConfig, IdleTimeout, MtuDiscoveryConfig, TokioRuntime,
    TransportConfig, VarInt,
};
use socket2::{Domain, Protocol, Socket, Type};

use crate::tls::{Tls, server_name};

pub mod frame;
pub mod rate;
pub mod stream;

/// ALPN of the link between edge and control.
pub const LINK_ALPN: &[u8] = b"tandem-link/1";
/// ALPN of the media trunk between edges.
pub const TRUNK_ALPN: &[u8] = b"tandem-trunk/2";

/// When a connection counts as lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    /// Something is sent at least this often.
    pub keep_alive: Duration,
    /// Silence after which the connection is lost.
    pub idle: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self { keep_alive: Duration::from_millis(500), idle: Duration::from_secs(2) }
    }
}

/// Settings of a link connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LinkSettings {
    /// When it counts as lost.
    pub timing: Timing,
    /// Streams the peer may have open at once: one for control, the others for bytes. From the
    /// capacity of the peer: an edge may fetch and upload for every leg at the same time.
    pub streams_max: u32,
}

impl Default for LinkSettings {
    fn default() -> Self {
        Self { timing: Timing::default(), streams_max: 1_024 }
    }
}

impl LinkSettings {
    /// The transport settings.
    pub fn transport(&self) -> Arc<TransportConfig> {
        let mut transport = base_transport(self.timing);
        transport
            .max_concurrent_bidi_streams(VarInt::from_u32(self.streams_max))
            .stream_receive_window(VarInt::from_u32(STREAM_WINDOW_BYTES))
            .receive_window(VarInt::from_u32(CONNECTION_WINDOW_BYTES))
            .send_window(u64::from(CONNECTION_WINDOW_BYTES))
            .datagram_receive_buffer_size(None);
        Arc::new(transport)
    }
}

/// 1 MiB per stream: 50 Mbit/s over 160 ms of round trip.
const STREAM_WINDOW_BYTES: u32 = 1 << 20;
/// Bound of what one peer can make us hold.
const CONNECTION_WINDOW_BYTES: u32 = 16 << 20;

/// Settings of a media trunk connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TrunkSettings {
    /// When it counts as lost.
    pub timing: Timing,
    /// Bytes per second that the path is provisioned for; see [`rate::ProvisionedRate`].
    pub rate_bytes_per_s: u64,
    /// Largest round-trip time of the path.
    pub round_trip_max: Duration,
    /// Bytes of datagrams handed over at once. Nothing waits in this buffer but what QUIC sends
    /// next; what may not leave yet stays with the sender, see [`rate::Budget`].
    pub send_buffer_bytes: usize,
    /// Bytes of datagrams that wait to be read.
    pub receive_buffer_bytes: usize,
    /// Largest datagram that is tried on the path, in bytes of UDP payload. The peer has to take it,
    /// see [`EndpointPlan::datagram_bytes_max`].
    pub datagram_bytes_max: u16,
}

/// What nearly every path carries: 1500 bytes less the headers of IPv6 and UDP.
pub const DATAGRAM_BYTES_USUAL: u16 = 1_452;
/// What jumbo frames of 9000 bytes carry.
pub const DATAGRAM_BYTES_MAX: u16 = 8_952;
/// Of so many packets one has to be acknowledged at once, if the delay has not passed before.
const ACK_EVERY_PACKETS: u32 = 256;

impl TrunkSettings {
    /// Settings for so many calls at once in one direction, 50 packets/s of 200 bytes each.
    pub fn for_calls(calls: u32, round_trip_max: Duration) -> Self {
        let rate_bytes_per_s = u64::from(calls.max(1)) * 50 * 200 * 2;
        let buffer = usize::try_from(rate_bytes_per_s / 50).unwrap_or(usize::MAX).max(64 << 10);
        Self {
            timing: Timing::default(),
            rate_bytes_per_s,
            round_trip_max,
            send_buffer_bytes: buffer,
            receive_buffer_bytes: buffer.saturating_mul(10),
            datagram_bytes_max: DATAGRAM_BYTES_USUAL,
        }
    }

    /// The transport settings. The endpoint's sockets should be made with buffers of
    /// [`Self::receive_buffer_bytes`].
    pub fn transport(&self) -> Arc<TransportConfig> {
        let mut transport = base_transport(self.timing);
        let rate = rate::ProvisionedRate {
            rate_bytes_per_s: self.rate_bytes_per_s,
            round_trip_max: self.round_trip_max,
        };
        // Lost RTP is not sent again: acknowledgements only measure, so few are enough.
        let mut acknowledge = AckFrequencyConfig::default();
        acknowledge
            .ack_eliciting_threshold(VarInt::from_u32(ACK_EVERY_PACKETS))
            .reordering_threshold(VarInt::from_u32(0))
            .max_ack_delay(Some(rate::ACK_DELAY_MAX));
        let mut discovery = MtuDiscoveryConfig::default();
        discovery.upper_bound(self.datagram_bytes_max);
        transport
            .ack_frequency_config(Some(acknowledge))
            .mtu_discovery_config(Some(discovery))
            .max_concurrent_bidi_streams(VarInt::from_u32(4))
            .max_concurrent_uni_streams(VarInt::from_u32(4))
            .datagram_send_buffer_size(self.send_buffer_bytes)
            .datagram_receive_buffer_size(Some(self.receive_buffer_bytes))
            .congestion_controller_factory(Arc::new(rate));
        Arc::new(transport)
    }
}

fn base_transport(timing: Timing) -> TransportConfig {
    let mut transport = TransportConfig::default();
    // The idle limit is a bounded configuration value; the largest of QUIC is 2^62 ms.
    let idle = IdleTimeout::try_from(timing.idle).ok();
    transport
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .keep_alive_interval(Some(timing.keep_alive))
        .max_idle_timeout(idle)
        .initial_rtt(Duration::from_millis(100));
    transport
}

/// What an endpoint does: accept, connect or both.
#[derive(Debug, Clone)]
pub struct EndpointPlan<'a> {
    /// Key of the configuration that asks for the address.
    pub key: &'a str,
    /// Address to bind; port 0 = any.
    pub bind: SocketAddr,
    /// Which protocol is spoken, [`LINK_ALPN`] or [`TRUNK_ALPN`].
    pub alpn: &'a [u8],
    /// Accept connections.
    pub accept: bool,
    /// Kernel buffer of the socket in each direction, in bytes; 0 = the system's default.
    pub socket_buffer_bytes: usize,
    /// Largest datagram that is taken, in bytes of UDP payload; peers are told (RFC 9000 §18.2,
    /// `max_udp_payload_size`). An endpoint holds 2048 times as much to receive into: 3 MB of the
    /// usual size, 18 MB of jumbo frames.
    pub datagram_bytes_max: u16,
    /// Transport settings in both roles.
    pub transport: Arc<TransportConfig>,
}

/// Makes an endpoint that can connect, and accept if `plan.accept`. Must be called inside a
/// tokio runtime.
///
/// # Errors
/// Names the address that cannot be bound.
pub fn endpoint(tls: &Tls, plan: &EndpointPlan<'_>) -> anyhow::Result<Endpoint> {
    let socket = udp_socket(plan.bind, plan.socket_buffer_bytes).map_err(|error| {
        anyhow::anyhow!("`{}` = {}: cannot listen (UDP): {error}", plan.key, plan.bind)
    })?;
    let server = plan.accept.then(|| server_config(tls, plan)).transpose()?;
    let runtime = Arc::new(TokioRuntime);
    let mut endpoint = Endpoint::new(endpoint_config(tls, plan)?, server, socket, runtime)?;
    endpoint.set_default_client_config(client_config(tls, plan)?);
    Ok(endpoint)
}

/// Connects to `node` at `address` and waits for the handshake.
///
/// # Errors
/// In words: not reachable, not the node that was meant, not of our authority.
pub async fn connect(
    endpoint: &Endpoint,
    address: SocketAddr,
    node: &str,
) -> anyhow::Result<quinn::Connection> {
    let shown = || format!("{node} at {address}");
    let connecting = endpoint.connect(address, &server_name(node)).with_context(shown)?;
    connecting.await.with_context(shown)
}

fn server_config(tls: &Tls, plan: &EndpointPlan<'_>) -> anyhow::Result<quinn::ServerConfig> {
    let crypto = QuicServerConfig::try_from(tls.server_config(plan.alpn)?)?;
    let mut config = quinn::ServerConfig::with_crypto(Arc::new(crypto));
    config.transport_config(plan.transport.clone());
    Ok(config)
}

fn client_config(tls: &Tls, plan: &EndpointPlan<'_>) -> anyhow::Result<quinn::ClientConfig> {
    let crypto = QuicClientConfig::try_from(tls.client_config(plan.alpn)?)?;
    let mut config = quinn::ClientConfig::new(Arc::new(crypto));
    config.transport_config(plan.transport.clone());
    Ok(config)
}

/// Reset tokens and connection ids are keyed by a secret that survives a restart, so that a peer
/// learns at its next packet that this process was restarted, not after the idle limit.
fn endpoint_config(tls: &Tls, plan: &EndpointPlan<'_>) -> anyhow::Result<EndpointConfig> {
    let reset = tls.derived_secret(b"tandem quic stateless reset");
    let ids = tls.derived_secret(b"tandem quic connection id");
    let id_key = ids.iter().take(8).fold(0, |key, byte| key << 8 | u64::from(*byte));
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, &reset);
    let mut config = EndpointConfig::new(Arc::new(key));
    config.max_udp_payload_size(plan.datagram_bytes_max.max(DATAGRAM_BYTES_USUAL))?;
    config.cid_generator(move || {
        Box::new(quinn_proto::HashedConnectionIdGenerator::from_key(id_key))
    });
    Ok(config)
}

/// A UDP socket with big buffers as far as the system allows.
fn udp_socket(address: SocketAddr, buffer_bytes: usize) -> std::io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    if buffer_bytes > 0 {
        // The system may grant less; what is lost then shows in the socket's drop counter.
        socket.set_recv_buffer_size(buffer_bytes)?;
        socket.set_send_buffer_size(buffer_bytes)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    Ok(socket.into())
}

#[cfg(test)]
mod tests;
