//! How much a QUIC connection may have in flight, and what its handshakes say.

use std::io;
use std::net::UdpSocket;
use std::sync::Arc;
use std::time::Duration;

use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{
    AckFrequencyConfig, ClientConfig, EndpointConfig, MtuDiscoveryConfig, ServerConfig,
    TransportConfig, VarInt,
};
use socket2::SockRef;

use crate::trust::alpn;

/// What one flow may have on the way or unread: 590 Mbit/s over 100 ms, because the other end hears
/// of room when an eighth is free again.
///
/// It is a limit and not a buffer: an idle flow takes nothing, and one whose reader keeps up holds
/// what one packet brought. Flows of bytes go over TLS where that is possible, and there the kernel
/// keeps what a slow reader leaves; here that is our memory, up to this much for each, and no more
/// than [`super::unread::MOST`] of them.
pub(super) const STREAM_WINDOW: u32 = 8 << 20;

/// What all flows of a connection may have on the way or unread, but for those that nobody reads:
/// 2.3 Gbit/s over 100 ms. With all of those, see [`super::unread`], one connection never holds
/// more than 224 MiB.
pub(super) const CONNECTION_WINDOW: u32 = 32 << 20;

/// What a connection may have sent and not acknowledged: 2.1 Gbit/s over 100 ms.
const SEND_WINDOW: u64 = 26 << 20;

/// Flows open at one time, which a gateway opens. Whoever grants them pays: 84 bytes for each, from the
/// first packet of a connection on.
const FLOWS: u32 = 16_384;

/// What an agent may open on one connection: its control channel, or the stream that says whose the
/// connection is. A stranger's first packet costs a gateway no more than that.
const CHANNELS: u32 = 1;

/// Datagrams that are too long for one packet, under way at one time.
const LONG_DATAGRAMS: u32 = 256;

/// Datagrams that wait, in bytes, for the network or for us.
const DATAGRAM_BUFFER: usize = 2 << 20;

/// The longest packet that is tried, where the network carries more than Ethernet's 1500 bytes.
/// Ten go to the kernel at once (generic segmentation offload), which takes 65,507 bytes and
/// drops what is longer.
const LONGEST_PACKET: u16 = 6500;

/// Silence after which a connection is dead. A session finds out sooner; flows that outlive their
/// session do not.
pub(super) const IDLE: Duration = Duration::from_secs(6);

/// What the kernel should keep for a socket. It gives what it is allowed to.
const SOCKET_BUFFER: usize = 8 << 20;

/// `streams` are those that the other end may open.
fn transport(streams: u32) -> Arc<TransportConfig> {
    let mut transport = TransportConfig::default();
    let mut discovery = MtuDiscoveryConfig::default();
    discovery.upper_bound(LONGEST_PACKET);
    transport
        .stream_receive_window(VarInt::from_u32(STREAM_WINDOW))
        .receive_window(VarInt::from_u32(CONNECTION_WINDOW))
        .send_window(SEND_WINDOW)
        .max_concurrent_bidi_streams(VarInt::from_u32(streams))
        .max_concurrent_uni_streams(VarInt::from_u32(LONG_DATAGRAMS))
        .datagram_receive_buffer_size(Some(DATAGRAM_BUFFER))
        .datagram_send_buffer_size(DATAGRAM_BUFFER)
        .max_idle_timeout(IDLE.try_into().ok())
        .keep_alive_interval(Some(IDLE / 3))
        .ack_frequency_config(Some(AckFrequencyConfig::default()))
        .mtu_discovery_config(Some(discovery));
    Arc::new(transport)
}

/// What every endpoint has in common.
pub(super) fn endpoint() -> EndpointConfig {
    let mut config = EndpointConfig::default();
    // Within the limits of the field, so it cannot be refused.
    let _accepted = config.max_udp_payload_size(LONGEST_PACKET);
    config
}

/// A gateway's end of the handshake; `None` when `config` is not for sessions.
pub(super) fn server(config: &rustls::ServerConfig) -> Option<io::Result<ServerConfig>> {
    let names = &config.alpn_protocols;
    if !names.is_empty() && !names.iter().any(|it| it == alpn::QUIC) {
        return None;
    }
    let mut config = config.clone();
    config.alpn_protocols = vec![alpn::QUIC.to_vec(), alpn::FLOW.to_vec()];
    let crypto = QuicServerConfig::try_from(config).map_err(io::Error::other);
    Some(crypto.map(|crypto| {
        let mut config = ServerConfig::with_crypto(Arc::new(crypto));
        config.transport_config(transport(CHANNELS));
        config
    }))
}

/// An agent's end of the handshake, for the protocol of this name.
pub(super) fn client(config: &rustls::ClientConfig, name: &[u8]) -> io::Result<ClientConfig> {
    let mut config = config.clone();
    config.alpn_protocols = vec![name.to_vec()];
    let crypto = QuicClientConfig::try_from(config).map_err(io::Error::other)?;
    let mut config = ClientConfig::new(Arc::new(crypto));
    config.transport_config(transport(FLOWS));
    Ok(config)
}

/// Asks the kernel for room, and takes what it gives.
pub(super) fn widen(socket: &UdpSocket) {
    let socket = SockRef::from(socket);
    for set in
        [socket.set_recv_buffer_size(SOCKET_BUFFER), socket.set_send_buffer_size(SOCKET_BUFFER)]
    {
        if let Err(error) = set {
            tracing::debug!(%error, "a socket's buffer keeps its size");
        }
    }
}
