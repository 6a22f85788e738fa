//! Two regions on one machine: control and a media node in `core`, an edge in `eu`, and 80 ms each
//! way between them.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use tandem_rig::{
    AppServer, Control, ControlPlan, Edge, EdgePlan, NumberPlan, Page, Rig, RoutePlan, ports,
};
use tandem_wan::{LinkConfig, Mapping, PathConfig, Relay};

/// One-way delay between the regions.
pub const WAN_DELAY_MS: f64 = 80.0;
/// No RTP for so long ends a leg.
pub const MEDIA_TIMEOUT_S: u64 = 3;
/// What welcome and goodbye sound like.
pub const WELCOME_HZ: f64 = 700.0;
/// See [`WELCOME_HZ`].
pub const GOODBYE_HZ: f64 = 900.0;

const EU: &str = "edge-eu-1";
const CORE: &str = "media-core-1";

/// Everything that runs.
pub struct Stage {
    /// Folder and program.
    pub rig: Rig,
    /// Between the regions.
    pub wan: Relay,
    /// Control.
    pub control: Control,
    /// Media node of the core region.
    pub core: Edge,
    /// Edge of the region; restarted with other resources.
    pub eu: Edge,
    /// The application.
    pub app: AppServer,
    /// A second application server that is stopped in mid-call.
    pub doomed: AppServer,
    /// Where Bob, in the region, is called.
    pub bob: SocketAddr,
    /// Where Carol, behind the core region, is called.
    pub carol: SocketAddr,
    link_through_wan: SocketAddr,
}

/// Numbers of the scenarios.
pub const MENU: &str = "+15550001";
/// Dial with hang-up on star.
pub const STAR: &str = "+15550002";
/// Dial with an action on the server that is stopped.
pub const DOOMED: &str = "+15550003";
/// Dial to the core region.
pub const ABROAD: &str = "+15550004";
/// Dial without more.
pub const PLAIN: &str = "+15550005";

impl Stage {
    /// Starts everything, with all resources in the region.
    ///
    /// # Errors
    /// Names what did not start, with the end of its log.
    pub fn new(program: &Path, say: &mut dyn FnMut(&str)) -> anyhow::Result<Self> {
        let rig = Rig::temporary(program)?;
        let (app, doomed) = (application()?, application()?);
        say(&format!("application server on {}", app.url("/")));
        let (bob, carol) = (ports::udp()?, ports::udp()?);
        let control = rig.control(&control_plan(&app, &doomed, bob, carol))?;
        say(&format!("control in region core: REST API on http://{}", control.api));
        let trunk = ports::udp()?;
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let mappings = vec![
            Mapping { listen: any, target: control.link },
            Mapping { listen: any, target: trunk },
        ];
        let delay = LinkConfig { delay_ms: WAN_DELAY_MS, ..LinkConfig::default() };
        let wan = Relay::start(mappings, PathConfig::symmetric(delay), 1)
            .map_err(|error| anyhow::anyhow!("WAN emulator: {error}"))?;
        let [link_through_wan, trunk_through_wan] =
            wan.listen_addrs().try_into().ok().context("WAN emulator")?;
        say(&format!("WAN emulator: {WAN_DELAY_MS} ms each way between the regions"));
        let core_plan = EdgePlan {
            core: true,
            controls: vec![(control.node.clone(), control.link)],
            trunk_advertise: Some(trunk_through_wan),
            media_timeout_s: MEDIA_TIMEOUT_S,
            ..EdgePlan::new(CORE, "core")
        };
        let core = rig.edge_at(&core_plan, ports::udp()?, trunk)?;
        say(&format!("media node in region core: SIP on {}", core.sip));
        let plan = eu_plan(&control.node, link_through_wan, &[]);
        let eu = rig.edge_at(&plan, ports::udp()?, ports::udp()?)?;
        say(&format!("edge in region eu: SIP on {}", eu.sip));
        Ok(Self { rig, wan, control, core, eu, app, doomed, bob, carol, link_through_wan })
    }

    /// Restarts the region's edge with these resources switched off.
    ///
    /// # Errors
    /// If it does not end or start.
    pub fn switch_off(&mut self, resources: &[&str]) -> anyhow::Result<()> {
        self.eu.stop()?;
        let plan = eu_plan(&self.control.node, self.link_through_wan, resources);
        self.eu = self.rig.edge_at(&plan, self.eu.sip, self.eu.trunk)?;
        Ok(())
    }

    /// The SIP URI of a number at the region's edge.
    pub fn uri(&self, number: &str) -> String {
        format!("sip:{number}@{}", self.eu.sip)
    }

    /// The session of the inbound leg with this SIP Call-ID.
    ///
    /// # Errors
    /// If no webhook has told of it.
    pub fn session_of(&self, sip_call_id: &str) -> anyhow::Result<String> {
        let requests = self.app.requests().into_iter().chain(self.doomed.requests());
        let mut of_call =
            requests.filter(|request| request.param("SipCallId") == Some(sip_call_id));
        let request = of_call.next().with_context(|| format!("no webhook for {sip_call_id}"))?;
        Ok(request.param("CallSid").context("CallSid")?.to_owned())
    }

    /// Ends the daemons in good order.
    ///
    /// # Errors
    /// If one has to be killed.
    pub fn stop(mut self) -> anyhow::Result<()> {
        self.eu.stop()?;
        self.core.stop()?;
        self.control.stop()
    }
}

fn eu_plan(control: &str, link: SocketAddr, off: &[&str]) -> EdgePlan {
    EdgePlan {
        controls: vec![(control.to_owned(), link)],
        off: off.iter().map(|resource| (*resource).to_owned()).collect(),
        media_timeout_s: MEDIA_TIMEOUT_S,
        ..EdgePlan::new(EU, "eu")
    }
}

fn control_plan(
    app: &AppServer,
    doomed: &AppServer,
    bob: SocketAddr,
    carol: SocketAddr,
) -> ControlPlan {
    let number = |number: &str, url: String| NumberPlan {
        number: number.to_owned(),
        voice_url: url,
        fallback_url: Some(app.url("/fallback.xml")),
        status_callback: Some(app.url("/status")),
    };
    let route = |prefix: &str, node: &str, callee: SocketAddr| RoutePlan {
        prefix: prefix.to_owned(),
        node: node.to_owned(),
        uri: format!("sip:{{number}}@{callee}"),
        without_instructions: false,
    };
    ControlPlan {
        numbers: vec![
            number(MENU, app.url("/welcome.xml")),
            number(STAR, app.url("/star.xml")),
            number(DOOMED, doomed.url("/with-action.xml")),
            number(ABROAD, app.url("/abroad.xml")),
            number(PLAIN, app.url("/menu-1.xml")),
        ],
        routes: vec![route("+155501", EU, bob), route("+155601", CORE, carol)],
        default_edge: Some(EU.to_owned()),
        ..ControlPlan::default()
    }
}

/// A small application: static documents and audio files, and one page that looks at its request.
fn application() -> anyhow::Result<AppServer> {
    let server = AppServer::start()?;
    let xml = |text: &str| Page::of("text/xml", text);
    server
        .page("/welcome.xml", xml(include_str!("../../app/welcome.xml")))
        .page("/menu-1.xml", xml(include_str!("../../app/menu-1.xml")))
        .page("/star.xml", xml(include_str!("../../app/star.xml")))
        .page("/abroad.xml", xml(include_str!("../../app/abroad.xml")))
        .page("/with-action.xml", xml(include_str!("../../app/with-action.xml")))
        .page("/fallback.xml", xml(include_str!("../../app/fallback.xml")))
        .page("/welcome.wav", Page::of("audio/wav", tone_wav(WELCOME_HZ)))
        .page("/goodbye.wav", Page::of("audio/wav", tone_wav(GOODBYE_HZ)))
        .page("/status", Page::status(204))
        .page(
            "/hello",
            Page::dynamic(|request| {
                let from = request.param("From").unwrap_or("stranger").replace(['<', '&'], " ");
                Page::verbs(&format!("<Say>Hello {from}.</Say><Pause length=\"1\"/>"))
            }),
        );
    Ok(server)
}

/// Eight tenths of a second of a tone.
fn tone_wav(frequency_hz: f64) -> Vec<u8> {
    const RATE_HZ: u32 = 8_000;
    let samples = (0..RATE_HZ * 8 / 10).map(|n| {
        let phase = f64::from(n) * frequency_hz * std::f64::consts::TAU / f64::from(RATE_HZ);
        (phase.sin() * 9_000.0) as i16
    });
    let data: Vec<u8> = samples.flat_map(i16::to_le_bytes).collect();
    let length = data.len() as u32;
    let mut wav = Vec::with_capacity(data.len() + 44);
    wav.extend_from_slice(b"RIFF");
    wav.extend_from_slice(&(36 + length).to_le_bytes());
    wav.extend_from_slice(b"WAVEfmt \x10\0\0\0\x01\0\x01\0");
    wav.extend_from_slice(&RATE_HZ.to_le_bytes());
    wav.extend_from_slice(&(RATE_HZ * 2).to_le_bytes());
    wav.extend_from_slice(b"\x02\0\x10\0data");
    wav.extend_from_slice(&length.to_le_bytes());
    wav.extend_from_slice(&data);
    wav
}

/// How long one call may take in all.
pub const CALL_MAX: Duration = Duration::from_secs(45);
