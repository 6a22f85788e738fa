//! Every key of an edge's configuration, its default, unit and limits.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use edge_core::config::{Cidr, ControlChoice, Provider};
use link_daemon::config::{self, Problems, Reader, kind};
use link_daemon::log::LogFormat;
use link_daemon::quic::{DATAGRAM_BYTES_MAX, DATAGRAM_BYTES_USUAL};
use link_daemon::tls::{Tls, TlsFiles};
use link_proto::table::{ResourceLimits, Resources, Route};
use link_proto::{NodeId, RegionId};

use crate::awake::KeepAwake;
use crate::link_client::ControlAddress;

/// An edge as configured.
#[derive(Debug, Clone)]
pub struct Config {
    /// Name of this node.
    pub node: NodeId,
    /// Region.
    pub region: RegionId,
    /// Media node of a core region.
    pub core: bool,
    /// Tables, prompts, recordings.
    pub data_folder: PathBuf,
    /// `/live /ready /metrics /calls`.
    pub admin: SocketAddr,
    /// Log filter.
    pub log: String,
    /// Log format.
    pub log_format: LogFormat,
    /// SIP.
    pub sip: Sip,
    /// RTP.
    pub media: Media,
    /// What this node does for media.
    pub resources: Resources,
    /// How much of it at once.
    pub limits: ResourceLimits,
    /// Link.
    pub link: Link,
    /// Trunk.
    pub trunk: Trunk,
    /// Who may send calls.
    pub providers: Vec<Provider>,
    /// Routes until control pushes its table.
    pub routes: Vec<Route>,
    /// Patience at the end.
    pub drain_max: Duration,
}

/// SIP addresses and limits.
#[derive(Debug, Clone)]
pub struct Sip {
    /// Where to listen (UDP).
    pub listen: SocketAddr,
    /// Address that endpoints see; `None` = the bound one.
    pub advertise: Option<IpAddr>,
    /// Legs at once.
    pub legs_max: usize,
    /// How long a leg without control is held.
    pub control_lost_hold: Duration,
}

/// Media sockets and workers.
#[derive(Debug, Clone)]
pub struct Media {
    /// Address of the RTP sockets.
    pub listen: IpAddr,
    /// Address that endpoints see.
    pub advertise: Option<IpAddr>,
    /// First and last port.
    pub ports: (u16, u16),
    /// Worker threads.
    pub workers: u16,
    /// Pin workers to cores of the affinity mask.
    pub pin: bool,
    /// LAT-11; zero = off.
    pub timeout: Duration,
    /// SCHED_FIFO priority of the workers, 0 = off.
    pub fifo_priority: u8,
    /// Busy polling.
    pub busy_poll: Duration,
    /// When no processor sleeps.
    pub keep_awake: KeepAwake,
    /// Packets that are waited for before a media thread wakes …
    pub batch_packets: u32,
    /// … and for how long at most.
    pub batch_wait: Duration,
    /// Kernel fast path; `None` = off.
    pub xdp: Option<edge_xdp::Mode>,
    /// Where it runs.
    pub xdp_interfaces: Vec<String>,
    /// So long these collect packets; zero = as they are.
    pub xdp_coalesce: Duration,
}

/// Connection to control.
#[derive(Debug, Clone)]
pub struct Link {
    /// Control nodes in order.
    pub controls: Vec<ControlAddress>,
    /// Certificates.
    pub tls: TlsFiles,
}

/// The media trunk.
#[derive(Debug, Clone)]
pub struct Trunk {
    /// Where to listen (UDP).
    pub listen: SocketAddr,
    /// `host:port` that the other nodes use; `None` = the bound one.
    pub advertise: Option<String>,
    /// Calls at once that the path is provisioned for.
    pub calls_max: u32,
    /// Longest round trip of a path.
    pub round_trip_max: Duration,
    /// Under load packets are collected for so long.
    pub beat: Duration,
    /// Largest UDP payload that is tried on the path and taken from it; more than usual where jumbo
    /// frames pass.
    pub datagram_bytes_max: u16,
}

/// Reads the file at `path`.
///
/// # Errors
/// Every problem of the file, each with line, key, value and what is allowed.
pub fn load(path: &Path) -> Result<Config, Problems> {
    config::load(path, read)
}

/// A sample file with every key.
pub fn sample() -> String {
    config::sample(read)
}

/// The edge's part of `docs/reference/config.md`.
pub fn reference() -> String {
    config::reference(read)
}

/// Reads all keys. Public for tools that write configurations.
pub fn read(r: &mut Reader) -> Config {
    let node = r.key("node", "Name of this edge, as in its certificate.");
    let node = node.example("edge-eu-1").read(kind::name());
    let region = r.key("region", "Region of this edge, as in its certificate.");
    let region = region.example("eu").read(kind::name());
    let core = r.key("core", "This is a media node of a core region: others may send media here.");
    let core = core.default(false).read(kind::boolean());
    let data =
        r.key("data_folder", "Folder of tables, prompts and recordings on their way to control.");
    let data_folder = data.example("data/edge").read(kind::writable_folder());
    let admin =
        r.table("admin", "Port for operators: /live /ready /metrics /calls /log /reload.", |r| {
            let listen = r.key("listen", "Address (TCP). Has no login: keep it private.");
            listen.default("127.0.0.1:9092").read(kind::listen_address())
        });
    let (log, log_format) = r.table("log", "Log, to standard error.", read_log);
    let drain_max = r.table("drain", "End of the process.", |r| {
        let max = r.key("max_s", "How long calls may go on after SIGTERM.");
        max.default(30).read(kind::seconds(0..=86_400))
    });
    let (resources, limits) =
        r.table("resources", "What this node does for media, and how much.", read_resources);
    let (node_name, region_name) = (node.clone(), region.clone());
    let config = Config {
        region: RegionId(region),
        core,
        admin,
        log,
        log_format,
        drain_max,
        sip: r.table("sip", "Signalling.", read_sip),
        media: r.table("media", "RTP sockets and worker threads.", read_media),
        resources,
        limits,
        link: r.table("link", "Connection to control.", |r| read_link(r, &node_name, &region_name)),
        trunk: r.table("trunk", "RTP between nodes, many calls in one flow.", read_trunk),
        providers: r.tables(
            "provider",
            "Who may send calls; first match wins.",
            1_000,
            read_provider,
        ),
        routes: r.tables("route", "Routes until control pushes its table.", 10_000, read_route),
        node: NodeId(node),
        data_folder,
    };
    cross_check(r, &config);
    config
}

fn cross_check(r: &mut Reader, config: &Config) {
    let (first, last) = config.media.ports;
    let pairs = usize::from(last.saturating_sub(first).saturating_add(1)) / 2;
    let both_good = !r.is_refused("media.ports") && !r.is_refused("sip.legs_max");
    if pairs < config.sip.legs_max && both_good {
        let range = format!("{first}-{last}");
        let need = format!(
            "allowed is a range of at least {} ports: two for each of sip.legs_max = {} legs",
            config.sip.legs_max * 2,
            config.sip.legs_max
        );
        r.refuse("media.ports", range, need);
    }
    for (key, address) in [("sip.listen", config.sip.listen), ("trunk.listen", config.trunk.listen)]
    {
        if (first..=last).contains(&address.port()) && !r.is_refused("media.ports") {
            let allowed = format!("allowed is a port outside of media.ports = {first}-{last}");
            r.refuse(key, address, allowed);
        }
    }
    if config.providers.is_empty() {
        let none = "allowed is at least one [[provider]]: without one no call gets in";
        r.refuse("provider", "nothing", none);
    }
    r.refuse_repeats("provider", "name", config.providers.iter().map(|p| p.name.clone()));
    let routes = config.routes.iter().map(|route| format!("{} by {}", route.prefix, route.node));
    r.refuse_repeats("route", "prefix", routes);
}

fn read_log(r: &mut Reader) -> (String, LogFormat) {
    let level = r.key("level", "What is logged.").default("info");
    let level = level.read(kind::parsed(
        "a level or filter, for example \"info\" or \"info,edge=debug\"",
        |text| link_daemon::log::parse(text).ok().map(|_| text.to_owned()),
    ));
    let formats = [("text", LogFormat::Text), ("json", LogFormat::Json)];
    let format = r.key("format", "How lines look.").default("text");
    (level, format.read(kind::one_of(&formats)))
}

fn read_sip(r: &mut Reader) -> Sip {
    let listen = r.key("listen", "UDP address for SIP.").default("0.0.0.0:5060");
    let listen = listen.read(kind::listen_address());
    let advertise = r.key("advertise", "Address that endpoints see in Via, Contact and SDP.");
    let advertise = advertise.example("192.0.2.7").read_optional(kind::ip_address());
    if listen.ip().is_unspecified() && advertise.is_none() && !r.is_describing() {
        let why = "allowed is a definite listen address, or an `advertise` address beside it";
        r.refuse("listen", listen, why);
    }
    let legs = r.key("legs_max", "Legs at once; a call beyond gets 503.").default(2_000);
    let legs_max = legs.read(kind::integer(2..=20_000)) as usize;
    let hold = r.key("control_lost_hold_s", "How long a leg that needs control waits for it.");
    let control_lost_hold = hold.default(30).read(kind::seconds(1..=3_600));
    Sip { listen, advertise, legs_max, control_lost_hold }
}

fn read_media(r: &mut Reader) -> Media {
    let listen = r.key("listen", "Address of the RTP sockets; default is that of sip.listen.");
    let listen = listen.example("0.0.0.0").read_optional(kind::ip_address());
    let advertise = r.key("advertise", "Address in SDP; default is sip.advertise.");
    let advertise = advertise.example("192.0.2.7").read_optional(kind::ip_address());
    let ports = r.key("ports", "First and last UDP port for RTP and RTCP, two per leg.");
    let ports = ports
        .default("20000-29999")
        .read(kind::parsed("FIRST-LAST with FIRST even, above 1023 and below LAST", parse_ports));
    let workers = r.key("workers", "Media threads.").default(1);
    let workers = workers.read(kind::integer(1..=64)) as u16;
    let pin = r.key("pin", "Pin each media thread to a core of the affinity mask.");
    let pin = pin.default(false).read(kind::boolean());
    let timeout = r.key("timeout_s", "No RTP for so long ends a leg; 0 = off.");
    let timeout = timeout.default(60).read(kind::seconds(0..=86_400));
    let fifo = r.key("fifo_priority", "SCHED_FIFO priority of the media threads; 0 = off.");
    let fifo_priority = fifo.default(0).read(kind::integer(0..=99)) as u8;
    let busy = r.key(
        "busy_poll_ms",
        "Look for packets so long before sleeping; 0 = sleep at once. Takes the whole core; see \
         docs/operate.md.",
    );
    let busy_poll = busy.default(0).read(kind::millis(0..=100));
    let awake = r.key(
        "keep_awake",
        "When no processor of this machine sleeps for want of work, so that packets are sent on \
         sooner, for power instead of CPU time. busy: while media threads that work a quarter of the \
         time or more make up half of the processors. always: while there are legs. Needs \
         /dev/cpu_dma_latency; see docs/operate.md.",
    );
    let keep_awake = awake.default("busy").read(kind::one_of(&crate::awake::WAYS));
    let packets = r.key(
        "batch_packets",
        "With `batch_wait_us`: sleep until so many packets have come, 1 = the first one wakes.",
    );
    let batch_packets = packets.default(1).read(kind::integer(1..=1_024)) as u32;
    let wait = r.key(
        "batch_wait_us",
        "Sleep no longer than that for `batch_packets`; 0 = the first one wakes. It delays packets, \
         and saved little or nothing where it was measured; see docs/operate.md.",
    );
    let batch_wait = Duration::from_micros(wait.default(0).read(kind::integer(0..=20_000)));
    let (xdp, xdp_interfaces, xdp_coalesce) = read_xdp(r);
    let unset = IpAddr::from([0, 0, 0, 0]);
    let listen = listen.unwrap_or(unset);
    Media {
        xdp,
        xdp_interfaces,
        xdp_coalesce,
        listen,
        advertise,
        ports,
        workers,
        pin,
        timeout,
        fifo_priority,
        busy_poll,
        keep_awake,
        batch_packets,
        batch_wait,
    }
}

fn read_xdp(r: &mut Reader) -> (Option<edge_xdp::Mode>, Vec<String>, Duration) {
    let mode = r.key(
        "xdp",
        "Relay in the kernel what needs no processing: in the driver (native), in the kernel's \
         stack (generic), or whichever the interface can (auto). Needs CAP_BPF and CAP_NET_ADMIN.",
    );
    let mode = mode.default("off").read(kind::one_of(&crate::fast_path::MODES));
    let interfaces = r.key("xdp_interfaces", "Interfaces by which RTP comes.");
    let interfaces: Vec<String> = interfaces.default(Vec::<String>::new()).read(kind::list(
        kind::parsed("a name of an interface, for example \"eth0\"", |text| {
            let odd = |c: char| c.is_whitespace() || c.is_control() || c == '/';
            ((1..=15).contains(&text.len()) && !text.contains(odd)).then(|| text.to_owned())
        }),
        64,
    ));
    if mode.is_some() && interfaces.is_empty() && !r.is_describing() {
        r.refuse("xdp_interfaces", "nothing", "allowed with `xdp` is at least one interface");
    }
    let coalesce = r.key(
        "xdp_coalesce_us",
        "So long these interfaces collect packets before they wake the processor again, as long as \
         the edge runs; 0 = as they are set. It delays all of their packets by half of that on the \
         average, and saves most of what a packet costs when there are thousands a second.",
    );
    let usual = edge_xdp::COALESCE_USUAL.as_micros() as i64;
    let coalesce = coalesce.default(usual).read(kind::integer(0..=5_000));
    (mode, interfaces, Duration::from_micros(coalesce))
}

fn parse_ports(text: &str) -> Option<(u16, u16)> {
    let (first, last) = text.split_once('-')?;
    let (first, last): (u16, u16) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
    (first % 2 == 0 && first > 1_023 && first < last).then_some((first, last))
}

fn read_resources(r: &mut Reader) -> (Resources, ResourceLimits) {
    let mut on = |name, doc| r.key(name, doc).default(true).read(kind::boolean());
    let resources = Resources {
        play: on("play", "Play prompts and tones."),
        collect: on("collect", "Collect digits."),
        record: on("record", "Record."),
        transcode: on("transcode", "Transcode between codecs."),
        speech: on("speech", "Play synthesised speech."),
    };
    let mut max = |name, doc| {
        let limit = r.key(name, doc).example(100).read_optional(kind::integer(0..=100_000));
        limit.and_then(|limit| u32::try_from(limit).ok())
    };
    let limits = ResourceLimits {
        plays_max: max("plays_max", "Prompts at once; more are played elsewhere."),
        collects_max: max("collects_max", "Collections and watches of keys at once."),
        records_max: max("records_max", "Recordings at once."),
        transcodes_max: max("transcodes_max", "Conversations between different codecs at once."),
    };
    (resources, limits)
}

fn read_link(r: &mut Reader, node: &str, region: &str) -> Link {
    let about = "Control nodes, of any region. A call stays with the node that it was given to.";
    let mut place = 0;
    let controls = r.tables("control", about, 16, |r| {
        let node = r.key("node", "Name in its certificate.").example("control-1");
        let node = node.read(kind::name());
        let address = r.key("address", "Where its link listens.");
        let address = address.example("control.example.net:7443").read(kind::remote_address());
        let lowest = "New calls go to the lowest that is reachable. Without it: place in the list.";
        let priority = r.key("priority", lowest).example(0);
        let priority = priority.read_optional(kind::integer(0..=100)).unwrap_or(place) as u16;
        let weight = r.key("weight", "Share of the calls among those of one priority.");
        let weight = weight.default(1).read(kind::integer(0..=1_000)) as u16;
        place += 1;
        ControlAddress { node, address, choice: ControlChoice { priority, weight } }
    });
    for (index, control) in controls.iter().enumerate() {
        if controls.iter().take(index).any(|other| other.node == control.node) {
            r.refuse("control", &control.node, "allowed is each control node once");
        }
    }
    Link { controls, tls: read_tls(r, node, region) }
}

fn read_tls(r: &mut Reader, node: &str, region: &str) -> TlsFiles {
    let ca = r.key("ca_file", "Certificate of the private authority (made by `tandem init`).");
    let certificate = ca.example("pki/ca.pem").read(kind::readable_file());
    let own = r.key("certificate_file", "Certificate of this node.").example("pki/edge-eu-1.pem");
    let own = own.read(kind::readable_file());
    let key = r.key("key_file", "Private key of this node.").example("pki/edge-eu-1.key");
    let key = key.read(kind::readable_file());
    let files = TlsFiles { ca: certificate, certificate: own, key };
    let all_there = [&files.ca, &files.certificate, &files.key].iter().all(|path| path.is_file());
    if all_there && !r.is_describing() {
        let checked = Tls::load(&files)
            .and_then(|tls| Ok(tls.identity().require(region, node)?))
            .map_err(|error| format!("{error:#}"));
        if let Err(error) = checked {
            r.refuse("certificate_file", files.certificate.display(), error);
        }
    }
    files
}

fn read_trunk(r: &mut Reader) -> Trunk {
    let listen = r.key("listen", "UDP address of the media trunk.").default("0.0.0.0:7444");
    let listen = listen.read(kind::listen_address());
    let advertise = r.key("advertise", "host:port that other nodes use; default is the bound one.");
    let advertise =
        advertise.example("edge.example.net:7444").read_optional(kind::remote_address());
    let calls = r.key("calls_max", "Calls at once that the path is provisioned for.");
    let calls_max = calls.default(1_000).read(kind::integer(1..=100_000)) as u32;
    let round_trip = r.key("round_trip_max_ms", "Longest round trip to another node.");
    let round_trip_max = round_trip.default(400).read(kind::millis(1..=5_000));
    let beat = r.key("beat_ms", "Under load packets are collected so long, then sent together.");
    let usual = crate::trunk::BEAT_USUAL.as_millis() as i64;
    let beat = beat.default(usual).read(kind::millis(1..=20));
    let size = r.key(
        "datagram_bytes_max",
        "Largest UDP payload that is sent and taken, as far as both ends allow.",
    );
    let size = size.default(i64::from(DATAGRAM_BYTES_USUAL));
    let allowed = kind::integer(1_200..=u64::from(DATAGRAM_BYTES_MAX));
    let datagram_bytes_max = size.read(allowed) as u16;
    Trunk { listen, advertise, calls_max, round_trip_max, beat, datagram_bytes_max }
}

fn read_provider(r: &mut Reader) -> Provider {
    let name = r.key("name", "Name in events and metrics.").example("carrier-a");
    let name = name.read(kind::name());
    let networks = r.key("networks", "Where its signalling comes from.");
    let networks = networks.example(vec!["192.0.2.0/24"]).read(kind::list(
        kind::parsed("an address or ADDRESS/BITS", |text| text.parse::<Cidr>().ok()),
        1_000,
    ));
    let nat = r.key(
        "nat",
        "It sits behind NAT: its media may come from any address at first, and requests go to where \
         its own came from.",
    );
    let nat = nat.default(false).read(kind::boolean());
    let rate = r.key("calls_per_s_max", "New calls per second; above it 503.").default(100);
    let calls_per_s_max = rate.read(kind::integer(1..=100_000)) as u32;
    Provider { name, networks, nat, calls_per_s_max }
}

fn read_route(r: &mut Reader) -> Route {
    let prefix = r.key("prefix", "Longest match on the dialled number; empty = all others.");
    let any = kind::parsed("digits, plus and letters, or nothing", |text| {
        let good = text.len() <= 64 && !text.chars().any(|c| c.is_control() || c.is_whitespace());
        good.then(|| text.to_owned())
    });
    let prefix = prefix.default("").read(any);
    let node = r.key("node", "Edge that owns the trunk.").example("edge-eu-1").read(kind::name());
    let uri = r.key("uri", "SIP URI; {number} is replaced.").example("sip:{number}@192.0.2.9");
    let uri = uri.read(kind::sip_uri_for_number());
    let alone = r.key("without_instructions", "Connected by the edge alone (LAT-15).");
    let without_instructions = alone.default(false).read(kind::boolean());
    Route { prefix, node: NodeId(node), uri, without_instructions }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str, folder: &Path) -> Result<Config, Problems> {
        config::parse("edge.toml", text, folder, read)
    }

    #[test]
    fn all_errors_come_at_once_with_key_value_and_what_is_allowed() {
        let folder = tempfile::tempdir().unwrap();
        let text = "node = \"Edge 1\"\nregion = \"eu\"\n\n[sip]\nlisten = \"127.0.0.1\"\nlegs = 5\n\n\
                    [media]\nports = \"20001-20100\"\n";
        let problems = parse(text, folder.path()).unwrap_err().to_string();
        for part in [
            "edge.toml:1",
            "node",
            "Edge 1",
            "sip.listen",
            "127.0.0.1",
            "sip.legs",
            "sip.legs_max",
            "media.ports",
            "20001-20100",
            "link.ca_file",
            "provider",
        ] {
            assert!(problems.contains(part), "{part} is missing in:\n{problems}");
        }
    }

    #[test]
    fn the_port_range_must_serve_all_legs() {
        let folder = tempfile::tempdir().unwrap();
        let text = "node = \"e\"\nregion = \"eu\"\n[sip]\nlisten = \"127.0.0.1:0\"\nlegs_max = 500\n\
                    [media]\nports = \"20000-20099\"\n";
        let problems = parse(text, folder.path()).unwrap_err().to_string();
        assert!(problems.contains("at least 1000 ports"), "{problems}");
    }

    #[test]
    fn the_sample_names_every_key() {
        let sample = sample();
        for key in ["legs_max", "control_lost_hold_s", "ports", "ca_file", "calls_per_s_max"] {
            assert!(sample.contains(key), "{key}");
        }
    }

    /// `docs/reference/config-edge.md` is written from the keys and checked against them.
    #[test]
    fn the_reference_is_the_one_in_the_documentation() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/reference/config-edge.md");
        let page = format!("# Configuration of an edge\n\n{}", reference());
        if std::env::var_os("UPDATE_DOCS").is_some() {
            std::fs::write(path, &page).unwrap();
        }
        let committed = std::fs::read_to_string(path).unwrap();
        assert_eq!(committed, page, "run with UPDATE_DOCS=1 and read the change");
    }
}
