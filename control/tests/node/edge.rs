//! A control node on loopback and an edge made of link messages.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use control::assemble::{Control, Services, start};
use control::config;
use control::core_task::{Boxed, MediaLayer, WebClient};
use control_core::io::{MediaFailure, MediaFile, MediaRequest};
use link_daemon::drain::{Trigger, switch};
use link_daemon::log::LogLevel;
use link_daemon::quic::frame::{FrameReader, FrameWriter};
use link_daemon::quic::stream::open_control;
use link_daemon::quic::{self, DATAGRAM_BYTES_USUAL, EndpointPlan, LINK_ALPN, LinkSettings};
use link_daemon::tls::{NodeNames, Tls, TlsFiles, init_pki};
use link_proto::codec::{decode, encode};
use link_proto::media::PromptKey;
use link_proto::message::{Hello, Message};
use link_proto::table::{NodeEntry, Resources};
use link_proto::{AccountSid, RegionId};
use quinn::{Connection, Endpoint};

/// The account of the configuration.
pub const ACCOUNT: &str = "AC00000000000000000000000000000001";

/// Writes certificates and secrets and returns a configuration on these addresses.
pub fn config_on(folder: &Path, addresses: [SocketAddr; 3]) -> config::Config {
    let nodes = [NodeNames::new("core", "control-1"), NodeNames::new("eu", "edge-eu-1")];
    if !folder.join("pki").exists() {
        init_pki(&folder.join("pki"), &nodes, 30).unwrap();
    }
    std::fs::write(folder.join("token"), "0123456789abcdef\n").unwrap();
    let [api, link, admin] = addresses;
    let text = format!(
        r#"
        node = "control-1"
        data_folder = "data"
        api.listen = "{api}"
        admin.listen = "{admin}"
        speech.engine = "off"
        [link]
        listen = "{link}"
        ca_file = "pki/ca.pem"
        certificate_file = "pki/control-1.pem"
        key_file = "pki/control-1.key"
        [[account]]
        sid = "{ACCOUNT}"
        auth_token_file = "token"
        [[number]]
        number = "+15550100"
        account = "{ACCOUNT}"
        voice_url = "http://127.0.0.1:9/voice"
        status_callback = "http://127.0.0.1:9/status"
        [[route]]
        node = "edge-eu-1"
        uri = "sip:{{number}}@127.0.0.1:5070"
        "#
    );
    config::parse("control.toml", &text, folder).unwrap()
}

/// Has one prompt, and says so whatever is asked for.
pub struct OnePrompt;

impl MediaLayer for OnePrompt {
    fn prepare(&self, _: AccountSid, _: MediaRequest) -> Boxed<Result<MediaFile, MediaFailure>> {
        let key = PromptKey("00ff".into());
        Box::pin(async { Ok(MediaFile { key, duration_ms: 10 }) })
    }

    fn bytes(&self, key: PromptKey) -> Boxed<Option<bytes::Bytes>> {
        Box::pin(async move { (key.0 == "00ff").then(|| vec![3; 100].into()) })
    }
}

/// Starts a node with the given HTTP client.
pub async fn control_with(config: config::Config, web: Arc<dyn WebClient>) -> (Control, Trigger) {
    let (trigger, shutdown) = switch();
    let services = Services {
        web,
        media: Arc::new(OnePrompt),
        api: |_| axum::Router::new(),
        tasks: Vec::new(),
    };
    let control = start(config, services, LogLevel::fixed(), shutdown).await.unwrap();
    (control, trigger)
}

/// Three free ports on loopback.
pub fn anywhere() -> [SocketAddr; 3] {
    ["127.0.0.1:0".parse().unwrap(); 3]
}

/// An edge made of link messages.
pub struct FakeEdge {
    _endpoint: Endpoint,
    pub connection: Connection,
    pub reader: FrameReader,
    pub writer: FrameWriter,
    pub region: RegionId,
}

impl FakeEdge {
    pub async fn connect(folder: &Path, control: &Control, region: &str) -> Self {
        let tls = Tls::load(&TlsFiles::of(&folder.join("pki"), "edge-eu-1")).unwrap();
        let plan = EndpointPlan {
            key: "listen",
            bind: "127.0.0.1:0".parse().unwrap(),
            alpn: LINK_ALPN,
            accept: false,
            socket_buffer_bytes: 0,
            datagram_bytes_max: DATAGRAM_BYTES_USUAL,
            transport: LinkSettings::default().transport(),
        };
        let endpoint = quic::endpoint(&tls, &plan).unwrap();
        let address = control.addresses.link;
        let connection = quic::connect(&endpoint, address, "control-1").await.unwrap();
        let (reader, writer) = open_control(&connection).await.unwrap();
        let region = RegionId::from(region);
        Self { _endpoint: endpoint, connection, reader, writer, region }
    }

    pub async fn say(&mut self, message: Message) {
        self.writer.push(&encode(&self.region, &message).unwrap()).unwrap();
        self.writer.flush().await.unwrap();
    }

    pub async fn hello(&mut self, boot: u64) {
        let node = NodeEntry {
            node: "edge-eu-1".into(),
            region: self.region.clone(),
            trunk_address: "127.0.0.1:7000".into(),
            resources: Resources::default(),
            limits: link_proto::table::ResourceLimits::default(),
            core: false,
            available: true,
        };
        self.say(Message::Hello(Hello { node, boot, version_min: 1 })).await;
    }

    pub async fn hear(&mut self) -> Message {
        let frame = tokio::time::timeout(Duration::from_secs(5), self.reader.next());
        decode(&frame.await.unwrap().unwrap().unwrap()).unwrap().1
    }

    /// The next message that is not about tables.
    pub async fn hear_other(&mut self) -> Message {
        loop {
            match self.hear().await {
                Message::Tables(_) => {}
                other => return other,
            }
        }
    }
}
