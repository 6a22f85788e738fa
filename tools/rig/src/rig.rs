//! A folder with certificates and configurations, and the daemons that run from it.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::Context as _;
use link_daemon::tls::{NodeNames, TlsFiles, init_pki};

use crate::http;
use crate::ports;
use crate::process::{Process, wait_for};

/// How long a daemon may take to become ready.
const READY_MAX: Duration = Duration::from_secs(20);
/// How long a daemon may take to end.
const STOP_MAX: Duration = Duration::from_secs(10);

/// The account that every rig has.
pub const ACCOUNT: &str = "AC00000000000000000000000000000001";
/// Its secret.
pub const TOKEN: &str = "12345678901234567890123456789012";

/// A folder and the program that runs from it.
#[derive(Debug)]
pub struct Rig {
    folder: PathBuf,
    temporary: Option<tempfile::TempDir>,
    program: PathBuf,
}

/// A number that a rig's control knows from the start.
#[derive(Debug, Clone, Default)]
pub struct NumberPlan {
    /// E.164.
    pub number: String,
    /// Instructions.
    pub voice_url: String,
    /// Fallback.
    pub fallback_url: Option<String>,
    /// Status callback (completed).
    pub status_callback: Option<String>,
}

/// A route.
#[derive(Debug, Clone)]
pub struct RoutePlan {
    /// Prefix of the number.
    pub prefix: String,
    /// Edge.
    pub node: String,
    /// URI with `{number}`.
    pub uri: String,
    /// Connected by the edge alone.
    pub without_instructions: bool,
}

/// What control is to be like.
#[derive(Debug, Clone, Default)]
pub struct ControlPlan {
    /// Node name; empty = `control-1`.
    pub node: String,
    /// Region; empty = `core`.
    pub region: String,
    /// Numbers.
    pub numbers: Vec<NumberPlan>,
    /// Routes.
    pub routes: Vec<RoutePlan>,
    /// Edge for calls without a route.
    pub default_edge: Option<String>,
    /// Further lines of TOML: top-level tables with keys that the rig does not set.
    pub more: String,
}

/// What an edge is to be like.
#[derive(Debug, Clone)]
pub struct EdgePlan {
    /// Node name.
    pub node: String,
    /// Region.
    pub region: String,
    /// Media node of a core region.
    pub core: bool,
    /// `node`, `host:port` of control's link as this edge reaches it.
    pub controls: Vec<(String, SocketAddr)>,
    /// Resources that are switched off: `play`, `speech`, `transcode` …
    pub off: Vec<String>,
    /// How much of a resource it has: `plays_max`, `transcodes_max` …
    pub limits: Vec<(String, u32)>,
    /// How others reach its trunk, if not directly.
    pub trunk_advertise: Option<SocketAddr>,
    /// LAT-11.
    pub media_timeout_s: u64,
    /// Seconds that a leg without control is held.
    pub control_lost_hold_s: u64,
    /// Legs at once.
    pub legs_max: u16,
    /// Networks that calls may come from.
    pub providers: Vec<String>,
    /// New calls per second of all of them.
    pub calls_per_s_max: u32,
    /// Routes before control pushes its own.
    pub routes: Vec<RoutePlan>,
    /// IP address to bind.
    pub bind: std::net::IpAddr,
    /// Further lines of TOML for the table `[media]`.
    pub media_more: String,
}

impl EdgePlan {
    /// An edge with everything on, for calls from loopback.
    pub fn new(node: &str, region: &str) -> Self {
        Self {
            node: node.to_owned(),
            region: region.to_owned(),
            core: false,
            controls: Vec::new(),
            off: Vec::new(),
            limits: Vec::new(),
            trunk_advertise: None,
            media_timeout_s: 60,
            control_lost_hold_s: 30,
            legs_max: 100,
            providers: vec!["127.0.0.0/8".to_owned()],
            calls_per_s_max: 10_000,
            routes: Vec::new(),
            bind: [127, 0, 0, 1].into(),
            media_more: String::new(),
        }
    }
}

/// A running control node.
#[derive(Debug)]
pub struct Control {
    /// The process.
    pub process: Process,
    /// Name of the node.
    pub node: String,
    /// REST API.
    pub api: SocketAddr,
    /// Link.
    pub link: SocketAddr,
    /// Admin.
    pub admin: SocketAddr,
    /// Its configuration.
    pub config: PathBuf,
}

/// A running process of the media layer.
#[derive(Debug)]
pub struct MediaNode {
    /// The process.
    pub process: Process,
    /// Its parts.
    pub url: String,
    /// Admin.
    pub admin: SocketAddr,
}

/// A running edge.
#[derive(Debug)]
pub struct Edge {
    /// The process.
    pub process: Process,
    /// Name of the node.
    pub node: String,
    /// SIP.
    pub sip: SocketAddr,
    /// Trunk.
    pub trunk: SocketAddr,
    /// Admin.
    pub admin: SocketAddr,
    /// Its configuration.
    pub config: PathBuf,
}

impl Rig {
    /// A rig in a temporary folder. `program` is the `tandem` executable.
    ///
    /// # Errors
    /// If the folder cannot be made or the program is not there.
    pub fn temporary(program: &Path) -> anyhow::Result<Self> {
        let temporary = tempfile::Builder::new().prefix("tandem-").tempdir()?;
        let mut rig = Self::in_folder(temporary.path(), program)?;
        rig.temporary = Some(temporary);
        Ok(rig)
    }

    /// A rig in a folder that stays.
    ///
    /// # Errors
    /// As [`Self::temporary`].
    pub fn in_folder(folder: &Path, program: &Path) -> anyhow::Result<Self> {
        anyhow::ensure!(program.is_file(), "{} is not built", program.display());
        std::fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
        std::fs::write(folder.join("account.token"), TOKEN)?;
        Ok(Self { folder: folder.to_owned(), temporary: None, program: program.to_owned() })
    }

    /// Where everything is.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    fn certificate(&self, region: &str, node: &str) -> anyhow::Result<TlsFiles> {
        let pki = self.folder.join("pki");
        init_pki(&pki, &[NodeNames::new(region, node)], 30)?;
        Ok(TlsFiles::of(&pki, node))
    }

    fn spawn(&self, role: &str, node: &str, config: &Path) -> anyhow::Result<Process> {
        let mut command = Command::new(&self.program);
        command.arg(role).arg("--config").arg(config);
        Process::spawn(node, command, &self.folder.join(format!("{node}.log")))
    }

    /// Starts control and waits until it is ready.
    ///
    /// # Errors
    /// With the end of its log.
    pub fn control(&self, plan: &ControlPlan) -> anyhow::Result<Control> {
        let node = if plan.node.is_empty() { "control-1" } else { &plan.node };
        let (api, admin, link) = (ports::tcp()?, ports::tcp()?, ports::udp()?);
        let region = if plan.region.is_empty() { "core" } else { &plan.region };
        let tls = self.certificate(region, node)?;
        let config = self.folder.join(format!("{node}.toml"));
        std::fs::write(&config, control_toml(plan, [node, region], [api, link, admin], &tls))?;
        let process = self.spawn("control", node, &config)?;
        let node = node.to_owned();
        let mut control = Control { process, node, api, link, admin, config };
        control.wait_ready()?;
        Ok(control)
    }

    /// Starts control again on the same addresses and data, after it was stopped or killed.
    ///
    /// # Errors
    /// With the end of its log.
    pub fn control_again(&self, control: &mut Control) -> anyhow::Result<()> {
        control.process = self.spawn("control", &control.node, &control.config)?;
        control.wait_ready()
    }

    /// Starts a process with these parts of the media layer and waits until it is ready. `more` is
    /// further TOML.
    ///
    /// # Errors
    /// With the end of its log.
    pub fn media(&self, node: &str, parts: &[&str], more: &str) -> anyhow::Result<MediaNode> {
        let (listen, admin) = (ports::tcp()?, ports::tcp()?);
        let config = self.folder.join(format!("{node}.toml"));
        let text = format!(
            "node = {}\nparts = {parts:?}\ndata_folder = \"data-{node}\"\nmedia.listen = \"{listen}\"\n\
             admin.listen = \"{admin}\"\n{more}",
            quoted(node)
        );
        std::fs::write(&config, text)?;
        let mut process = self.spawn("media", node, &config)?;
        let url = format!("http://{listen}");
        wait_for(&format!("{node} to become ready"), READY_MAX, || {
            process.check()?;
            Ok(http::get(&format!("{url}/health"), None).is_ok_and(|r| r.status == 200))
        })?;
        Ok(MediaNode { process, url, admin })
    }

    /// Starts an edge and waits until it is ready, which it is when it has found control. An edge
    /// without control nodes is waited for until it is live.
    ///
    /// # Errors
    /// With the end of its log.
    pub fn edge(&self, plan: &EdgePlan) -> anyhow::Result<Edge> {
        let at = |port: std::io::Result<SocketAddr>| {
            port.map(|address| SocketAddr::new(plan.bind, address.port()))
        };
        self.edge_at(plan, at(ports::udp())?, at(ports::udp())?)
    }

    /// The same on chosen addresses for SIP and trunk.
    ///
    /// # Errors
    /// With the end of its log.
    pub fn edge_at(
        &self,
        plan: &EdgePlan,
        sip: SocketAddr,
        trunk: SocketAddr,
    ) -> anyhow::Result<Edge> {
        let admin = ports::tcp()?;
        let tls = self.certificate(&plan.region, &plan.node)?;
        let config = self.folder.join(format!("{}.toml", plan.node));
        std::fs::write(&config, edge_toml(plan, [sip, trunk, admin], &tls))?;
        let process = self.spawn("edge", &plan.node, &config)?;
        let node = plan.node.clone();
        let mut edge = Edge { process, node, sip, trunk, admin, config };
        edge.wait_ready(!plan.controls.is_empty())?;
        Ok(edge)
    }

    /// Starts an edge again with the same configuration.
    ///
    /// # Errors
    /// With the end of its log.
    pub fn edge_again(&self, edge: &mut Edge) -> anyhow::Result<()> {
        edge.process = self.spawn("edge", &edge.node, &edge.config)?;
        edge.wait_ready(true)
    }
}

impl Control {
    fn wait_ready(&mut self) -> anyhow::Result<()> {
        let url = format!("http://{}/ready", self.admin);
        let process = &mut self.process;
        wait_for("control to become ready", READY_MAX, || {
            process.check()?;
            Ok(http::get(&url, None).is_ok_and(|response| response.status == 200))
        })
    }

    /// The URL of a path of the REST API that begins with `/`.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.api)
    }

    /// The URL below the account of the rig.
    pub fn account_url(&self, path: &str) -> String {
        self.url(&format!("/2010-04-01/Accounts/{ACCOUNT}{path}"))
    }

    /// Ends it in good order.
    ///
    /// # Errors
    /// If it has to be killed.
    pub fn stop(&mut self) -> anyhow::Result<()> {
        let clean = self.process.stop(STOP_MAX)?;
        anyhow::ensure!(clean, "{} did not end in good order", self.node);
        Ok(())
    }
}

impl Edge {
    fn wait_ready(&mut self, with_control: bool) -> anyhow::Result<()> {
        let page = if with_control { "ready" } else { "live" };
        let url = format!("http://{}/{page}", self.admin);
        let process = &mut self.process;
        wait_for(&format!("{} to become {page}", self.node), READY_MAX, || {
            process.check()?;
            Ok(http::get(&url, None).is_ok_and(|response| response.status == 200))
        })
    }

    /// One of its metrics, for example `tandem_edge_legs_live_count`.
    ///
    /// # Errors
    /// If it has no such metric.
    pub fn metric(&self, name: &str) -> anyhow::Result<f64> {
        http::metric(self.admin, name)
    }

    /// Live legs as `/calls` shows them.
    ///
    /// # Errors
    /// If the admin port does not answer.
    pub fn calls(&self) -> anyhow::Result<Vec<serde_json::Value>> {
        let page = http::get(&format!("http://{}/calls", self.admin), None)?.json()?;
        page.as_array().cloned().with_context(|| format!("/calls answers no list of legs: {page}"))
    }

    /// Waits until no leg is left.
    ///
    /// # Errors
    /// After `limit`.
    pub fn wait_idle(&self, limit: Duration) -> anyhow::Result<()> {
        wait_for(&format!("{} to have no legs", self.node), limit, || Ok(self.calls()?.is_empty()))
    }

    /// Ends it in good order.
    ///
    /// # Errors
    /// If it has to be killed.
    pub fn stop(&mut self) -> anyhow::Result<()> {
        let clean = self.process.stop(STOP_MAX)?;
        anyhow::ensure!(clean, "{} did not end in good order", self.node);
        Ok(())
    }
}

/// A TOML string.
fn quoted(text: impl std::fmt::Display) -> String {
    serde_json::Value::String(text.to_string()).to_string()
}

fn write_routes(toml: &mut String, routes: &[RoutePlan]) {
    for route in routes {
        let _ = write!(
            toml,
            "\n[[route]]\nprefix = {}\nnode = {}\nuri = {}\nwithout_instructions = {}\n",
            quoted(&route.prefix),
            quoted(&route.node),
            quoted(&route.uri),
            route.without_instructions
        );
    }
}

fn write_tls(toml: &mut String, tls: &TlsFiles) {
    let _ = write!(
        toml,
        "ca_file = {}\ncertificate_file = {}\nkey_file = {}\n",
        quoted(tls.ca.display()),
        quoted(tls.certificate.display()),
        quoted(tls.key.display())
    );
}

fn control_toml(
    plan: &ControlPlan,
    [node, region]: [&str; 2],
    [api, link, admin]: [SocketAddr; 3],
    tls: &TlsFiles,
) -> String {
    let mut toml = format!(
        "node = {}\nregion = {}\ndata_folder = \"data-{node}\"\n",
        quoted(node),
        quoted(region)
    );
    if let Some(edge) = &plan.default_edge {
        let _ = writeln!(toml, "default_edge = {}", quoted(edge));
    }
    let _ = write!(toml, "\n[api]\nlisten = \"{api}\"\n\n[admin]\nlisten = \"{admin}\"\n");
    let _ = write!(toml, "\n[link]\nlisten = \"{link}\"\n");
    write_tls(&mut toml, tls);
    let _ = write!(
        toml,
        "\n[[account]]\nsid = \"{ACCOUNT}\"\nauth_token_file = \"account.token\"\nname = \"Rig\"\n"
    );
    for number in &plan.numbers {
        let _ = write!(
            toml,
            "\n[[number]]\nnumber = {}\naccount = \"{ACCOUNT}\"\nvoice_url = {}\n",
            quoted(&number.number),
            quoted(&number.voice_url)
        );
        for (key, url) in [
            ("voice_fallback_url", &number.fallback_url),
            ("status_callback", &number.status_callback),
        ] {
            if let Some(url) = url {
                let _ = writeln!(toml, "{key} = {}", quoted(url));
            }
        }
    }
    write_routes(&mut toml, &plan.routes);
    toml.push_str(&plan.more);
    toml
}

fn edge_toml(plan: &EdgePlan, [sip, trunk, admin]: [SocketAddr; 3], tls: &TlsFiles) -> String {
    let node = &plan.node;
    let mut toml = format!(
        "node = {}\nregion = {}\ncore = {}\ndata_folder = \"data-{node}\"\n\n[admin]\nlisten = \"{admin}\"\n",
        quoted(node),
        quoted(&plan.region),
        plan.core
    );
    let _ = write!(
        toml,
        "\n[sip]\nlisten = \"{sip}\"\nlegs_max = {}\ncontrol_lost_hold_s = {}\n",
        plan.legs_max, plan.control_lost_hold_s
    );
    let (first, last) = ports::rtp_range(plan.legs_max.saturating_mul(2));
    let _ = write!(
        toml,
        "\n[media]\nports = \"{first}-{last}\"\ntimeout_s = {}\n{}\n",
        plan.media_timeout_s, plan.media_more
    );
    toml.push_str("\n[resources]\n");
    for resource in &plan.off {
        let _ = writeln!(toml, "{resource} = false");
    }
    for (limit, max) in &plan.limits {
        let _ = writeln!(toml, "{limit} = {max}");
    }
    toml.push_str("\n[link]\n");
    write_tls(&mut toml, tls);
    for (control, address) in &plan.controls {
        let _ = write!(
            toml,
            "\n[[link.control]]\nnode = {}\naddress = \"{address}\"\n",
            quoted(control)
        );
    }
    let _ = write!(toml, "\n[trunk]\nlisten = \"{trunk}\"\n");
    if let Some(address) = plan.trunk_advertise {
        let _ = writeln!(toml, "advertise = \"{address}\"");
    }
    if !plan.providers.is_empty() {
        let networks: Vec<String> = plan.providers.iter().map(quoted).collect();
        let _ = write!(
            toml,
            "\n[[provider]]\nname = \"rig\"\nnetworks = [{}]\ncalls_per_s_max = {}\n",
            networks.join(", "),
            plan.calls_per_s_max
        );
    }
    write_routes(&mut toml, &plan.routes);
    toml
}
