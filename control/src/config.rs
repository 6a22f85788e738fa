//! Every key of control's configuration, its default, unit and limits.

mod media;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use control_core::CoreConfig;
use control_core::io::Method;
use link_daemon::config::{self, Kind, Problems, Reader, kind};
use link_daemon::log::LogFormat;
use link_daemon::quic::{LinkSettings, Timing};
use link_daemon::tls::{Tls, TlsFiles};
use link_proto::table::Route;
use link_proto::{AccountSid, NodeId, RegionId};

use crate::directory::number_address;
use crate::housekeeping::Retention;

pub use media::{Media, MediaNode, Part};

const ADMIN_DOC: &str = "Port for operators: /live /ready /metrics /calls /log /reload.";
const LOG_DOC: &str = "Log, to standard error.";
const SPEECH_DOC: &str = "Speech synthesis for Say, by programs of this machine.";
const PROMPTS_DOC: &str = "Prompts that are fetched or synthesised.";
const WEB_DOC: &str = "Requests to customers' servers.";
const RETENTION_DOC: &str = "How long what is kept; 0 keeps it for ever.";
const MEDIA_DOC: &str =
    "Media layer: where its parts (cache, transcoding proxy, text-to-speech) run.";

/// A control node as configured.
#[derive(Debug, Clone)]
pub struct Config {
    /// Name of this node.
    pub node: NodeId,
    /// Region.
    pub region: RegionId,
    /// Database, recordings, prompts.
    pub data_folder: PathBuf,
    /// REST API.
    pub api: Api,
    /// Edges' connections.
    pub link: Link,
    /// `/live /ready /metrics /calls`.
    pub admin: SocketAddr,
    /// Log filter.
    pub log: String,
    /// Log format.
    pub log_format: LogFormat,
    /// Speech synthesis.
    pub speech: Speech,
    /// Prompts.
    pub prompts: Prompts,
    /// Requests to customers' servers.
    pub web: Web,
    /// Where the parts of the media layer run.
    pub media: Media,
    /// How long what is kept.
    pub retention: Retention,
    /// The core's settings, without those of the other fields.
    pub core: CoreConfig,
    /// Patience at the end.
    pub drain_max: Duration,
    /// Edge for calls of the API without a route.
    pub default_edge: Option<NodeId>,
    /// Accounts that a first start has.
    pub accounts: Vec<AccountEntry>,
    /// Numbers that a first start has.
    pub numbers: Vec<NumberEntry>,
    /// Routes pushed to the edges.
    pub routes: Vec<Route>,
}

/// REST API.
#[derive(Debug, Clone)]
pub struct Api {
    /// Where to listen (TCP).
    pub listen: SocketAddr,
    /// How customers reach it; `None` = `http://` and the bound address.
    pub public_url: Option<String>,
}

/// Edges' connections.
#[derive(Debug, Clone)]
pub struct Link {
    /// Where to listen (UDP).
    pub listen: SocketAddr,
    /// Connections at once.
    pub edges_max: usize,
    /// Timing and streams.
    pub settings: LinkSettings,
    /// Certificates.
    pub tls: TlsFiles,
}

/// Which program speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Engine {
    /// The first one that is installed.
    Auto,
    /// espeak-ng.
    EspeakNg,
    /// flite.
    Flite,
    /// festival.
    Festival,
    /// None: `Say` fails.
    Off,
}

/// Speech synthesis.
#[derive(Debug, Clone, PartialEq)]
pub struct Speech {
    /// Program.
    pub engine: Engine,
    /// Programs at once.
    pub processes_max: usize,
}

/// Prompts.
#[derive(Debug, Clone, PartialEq)]
pub struct Prompts {
    /// Bytes on disk.
    pub cache_bytes_max: u64,
    /// Largest file that is fetched, in bytes.
    pub file_bytes_max: u64,
}

/// Requests to customers' servers.
#[derive(Debug, Clone, Default)]
pub struct Web {
    /// Certificates of further authorities, in PEM, beside those of the system.
    pub ca_file: Option<PathBuf>,
}

/// An account that a first start has.
#[derive(Debug, Clone)]
pub struct AccountEntry {
    /// Name.
    pub sid: AccountSid,
    /// Secret.
    pub auth_token: String,
    /// For people.
    pub name: String,
}

/// A number that a first start has.
#[derive(Debug, Clone)]
pub struct NumberEntry {
    /// E.164 with plus, or a SIP user.
    pub number: String,
    /// Whose.
    pub account: AccountSid,
    /// Instructions.
    pub voice_url: String,
    /// How instructions are asked for.
    pub voice_method: Method,
    /// Asked when the first URL fails.
    pub voice_fallback_url: Option<String>,
    /// Told when a call ends.
    pub status_callback: Option<String>,
}

/// Reads the file at `path`.
///
/// # Errors
/// Every problem of the file, each with line, key, value and what is allowed.
pub fn load(path: &Path) -> Result<Config, Problems> {
    config::load(path, read)
}

/// Reads a configuration that was made in memory; relative paths start at `base`.
///
/// # Errors
/// As [`load`].
pub fn parse(name: &str, text: &str, base: &Path) -> Result<Config, Problems> {
    config::parse(name, text, base, read)
}

/// A sample file with every key.
pub fn sample() -> String {
    config::sample(read)
}

/// Control's part of `docs/reference/config.md`.
pub fn reference() -> String {
    config::reference(read)
}

fn read(r: &mut Reader) -> Config {
    let node = r.key("node", "Name of this node.").example("control-1").read(kind::name());
    let region = r.key("region", "Region that this node is in.").default("core").read(kind::name());
    let data_folder = r
        .key("data_folder", "Folder of the database, recordings and prompts.")
        .example("data/control")
        .read(kind::writable_folder());
    // Keys of the root come before the first table, in the sample as well.
    let default_edge = r
        .key("default_edge", "Edge for outbound calls that no route matches. Without it: any one.")
        .example("edge-eu-1")
        .read_optional(kind::name());
    let api = r.table("api", "REST API for customers.", read_api);
    let link = r.table("link", "Connections of the edges (QUIC, mutual TLS).", |r| {
        read_link(r, &node, &region)
    });
    let admin = r.table("admin", ADMIN_DOC, |r| {
        r.key("listen", "Address (TCP). Has no login: keep it private.")
            .default("127.0.0.1:9091")
            .read(kind::listen_address())
    });
    let (log, log_format) = r.table("log", LOG_DOC, read_log);
    let speech = r.table("speech", SPEECH_DOC, read_speech);
    let prompts = r.table("prompts", PROMPTS_DOC, read_prompts);
    let media = r.table("media", MEDIA_DOC, |r| media::read_media(r, "127.0.0.1:0"));
    let web = r.table("web", WEB_DOC, read_web);
    let mut core = r.table("calls", "Calls and their limits.", read_calls);
    r.table("voice", "Defaults of Say.", |r| {
        core.voice = r.key("voice", "Voice of Say without one.").default("man").read(kind::text());
        core.language = r
            .key("language", "Language of Say without one (BCP 47).")
            .default("en-US")
            .read(kind::text());
    });
    let retention = r.table("retention", RETENTION_DOC, read_retention);
    let drain_max = r.table("drain", "End of the process.", |r| {
        r.key("max_s", "Longest wait for open requests and commits.")
            .default(10)
            .read(kind::seconds(0..=600))
    });
    let accounts = r.tables(
        "account",
        "Account that is added at a start without it. Later changes are made by the API.",
        1_000,
        read_account,
    );
    let numbers = r.tables(
        "number",
        "Number that is added at a start without it. Later changes are made by the API.",
        10_000,
        read_number,
    );
    let routes =
        r.tables("route", "Where numbers lead to; pushed to every edge.", 10_000, read_route);
    r.refuse_repeats("account", "sid", accounts.iter().map(|entry| entry.sid.to_string()));
    r.refuse_repeats("number", "number", numbers.iter().map(|entry| entry.number.clone()));
    let by_prefix = routes.iter().map(|route| format!("{} by {}", route.prefix, route.node));
    r.refuse_repeats("route", "prefix", by_prefix);
    if api.listen == admin && admin.port() != 0 && !r.is_describing() {
        r.refuse("admin.listen", admin, "allowed is another address than api.listen");
    }
    Config {
        node: NodeId(node),
        region: RegionId(region),
        data_folder,
        api,
        link,
        admin,
        log,
        log_format,
        speech,
        prompts,
        web,
        media,
        retention,
        core,
        drain_max,
        default_edge: default_edge.map(NodeId),
        accounts,
        numbers,
        routes,
    }
}

fn read_api(r: &mut Reader) -> Api {
    Api {
        listen: r
            .key("listen", "Address (TCP).")
            .default("127.0.0.1:8080")
            .read(kind::listen_address()),
        public_url: r
            .key("public_url", "How customers reach it. Without it: http:// and the address.")
            .example("https://api.example.net")
            .read_optional(kind::http_url())
            .map(|url| url.trim_end_matches('/').to_owned()),
    }
}

fn read_link(r: &mut Reader, node: &str, region: &str) -> Link {
    let listen =
        r.key("listen", "Address (UDP).").default("127.0.0.1:7443").read(kind::listen_address());
    let edges_max =
        r.key("edges_max", "Edges connected at once.").default(100).read(kind::integer(1..=10_000));
    let streams_max = r
        .key("streams_per_edge_max", "Prompts and recordings under way at once, per edge.")
        .default(1_024)
        .read(kind::integer(8..=65_536));
    let keep_alive = r
        .key("keep_alive_ms", "Something is sent at least this often.")
        .default(500)
        .read(kind::millis(50..=10_000));
    let idle = r
        .key("idle_ms", "Silence after which an edge counts as lost.")
        .default(2_000)
        .read(kind::millis(200..=60_000));
    if idle < keep_alive * 2 {
        r.refuse("idle_ms", idle.as_millis(), "must be at least twice link.keep_alive_ms");
    }
    let tls = read_tls(r, node, region);
    let streams_max = u32::try_from(streams_max).unwrap_or(u32::MAX);
    Link {
        listen,
        edges_max: usize::try_from(edges_max).unwrap_or(usize::MAX),
        settings: LinkSettings { timing: Timing { keep_alive, idle }, streams_max },
        tls,
    }
}

fn read_tls(r: &mut Reader, node: &str, region: &str) -> TlsFiles {
    let files = TlsFiles {
        ca: r
            .key("ca_file", "Certificate of the private authority (made by `tandem init`).")
            .example("pki/ca.pem")
            .read(kind::readable_file()),
        certificate: r
            .key("certificate_file", "Certificate of this node.")
            .example("pki/control-1.pem")
            .read(kind::readable_file()),
        key: r
            .key("key_file", "Private key of this node.")
            .example("pki/control-1.key")
            .read(kind::readable_file()),
    };
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

fn read_log(r: &mut Reader) -> (String, LogFormat) {
    let filter =
        kind::parsed("a level or filter, for example \"info\" or \"info,control=debug\"", |text| {
            link_daemon::log::parse(text).ok().map(|_| text.to_owned())
        });
    let level = r.key("level", "What is logged.").default("info").read(filter);
    let formats = [("text", LogFormat::Text), ("json", LogFormat::Json)];
    (level, r.key("format", "How lines look.").default("text").read(kind::one_of(&formats)))
}

fn read_speech(r: &mut Reader) -> Speech {
    let engines = [
        ("auto", Engine::Auto),
        ("espeak-ng", Engine::EspeakNg),
        ("flite", Engine::Flite),
        ("festival", Engine::Festival),
        ("off", Engine::Off),
    ];
    let engine = r
        .key("engine", "Program that speaks; auto takes the first one installed.")
        .default("auto")
        .read(kind::one_of(&engines));
    let processes_max = r
        .key("processes_max", "Speaking programs at once.")
        .default(2)
        .read(kind::integer(1..=256));
    Speech { engine, processes_max: usize::try_from(processes_max).unwrap_or(usize::MAX) }
}

fn read_prompts(r: &mut Reader) -> Prompts {
    Prompts {
        cache_bytes_max: r
            .key("cache_bytes_max", "Space on disk for prompts that are ready.")
            .default(1_i64 << 30)
            .read(kind::integer(1 << 20..=1 << 40)),
        file_bytes_max: r
            .key("file_bytes_max", "Largest audio file that is fetched.")
            .default(40_i64 << 20)
            .read(kind::integer(1 << 16..=1 << 30)),
    }
}

fn read_retention(r: &mut Reader) -> Retention {
    let mut days = |name, doc, default: i64| {
        let days = r.key(name, doc).default(default).read(kind::integer(0..=36_500));
        u32::try_from(days).unwrap_or(u32::MAX)
    };
    Retention {
        calls_days: days("calls_days", "Calls that have ended.", 400),
        recordings_days: days("recordings_days", "Recordings with their audio.", 0),
        alerts_days: days("alerts_days", "Alerts (Notifications).", 30),
        log_days: days("log_days", "Requests to customers (Events), timelines, callbacks.", 30),
        every: r
            .key("every_s", "Time between two passes.")
            .default(600)
            .read(kind::seconds(1..=86_400)),
    }
}

fn read_web(r: &mut Reader) -> Web {
    Web {
        ca_file: r
            .key("ca_file", "Authorities for https URLs beside those of the system (PEM).")
            .example("pki/customers-ca.pem")
            .read_optional(kind::readable_file()),
    }
}

fn read_calls(r: &mut Reader) -> CoreConfig {
    let defaults = CoreConfig::default();
    let signed = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
    let size = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
    let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    CoreConfig {
        sessions_max: size(
            r.key("sessions_max", "Sessions at once; more calls are refused with 503.")
                .default(signed(defaults.sessions_max as u64))
                .read(kind::integer(1..=1_000_000)),
        ),
        document_bytes_max: size(
            r.key("document_bytes_max", "Longest instruction document.")
                .default(signed(defaults.document_bytes_max as u64))
                .read(kind::integer(1_024..=1 << 20)),
        ),
        sweep_after_ms: millis(
            r.key("sweep_after_ms", "A session without a live leg is ended after this time.")
                .default(signed(defaults.sweep_after_ms))
                .read(kind::millis(1_000..=3_600_000)),
        ),
        lost_leg_after_ms: millis(
            r.key(
                "lost_leg_after_ms",
                "A leg that its edge no longer has is ended after this time.",
            )
            .default(signed(defaults.lost_leg_after_ms))
            .read(kind::millis(100..=600_000)),
        ),
        error_message: r
            .key("error_message", "What a caller hears when everything has failed.")
            .default(defaults.error_message.as_str())
            .read(kind::text()),
        verification_from: r
            .key(
                "verification_from",
                "Caller id of calls that verify one, for accounts without a number.",
            )
            .default(defaults.verification_from.as_str())
            .read(kind::text()),
        ringback_country: r
            .key("ringback_country", "Country whose ringback a waiting caller hears.")
            .default(defaults.ringback_country.as_str())
            .read(kind::parsed("two letters a-z (ISO 3166)", |text| {
                let good = text.len() == 2 && text.bytes().all(|b| b.is_ascii_lowercase());
                good.then(|| text.to_owned())
            })),
        ..defaults
    }
}

fn account_sid() -> Kind<AccountSid> {
    kind::parsed("AC and 32 hex digits", |text| text.parse().ok())
}

const SID: &str = "AC00000000000000000000000000000001";

fn read_account(r: &mut Reader) -> AccountEntry {
    AccountEntry {
        sid: r.key("sid", "Name of the account.").example(SID).read(account_sid()),
        auth_token: r
            .key("auth_token_file", "File with the secret for API and webhook signatures.")
            .example("secrets/account.token")
            .read(kind::secret_from_file()),
        name: r.key("name", "Name for people.").default("First account").read(kind::text()),
    }
}

fn read_number(r: &mut Reader) -> NumberEntry {
    let methods = [("GET", Method::Get), ("POST", Method::Post)];
    NumberEntry {
        number: r
            .key("number", "E.164 with plus, the user part of a SIP URI, or user@host.")
            .example("+15550100")
            .read(kind::parsed("+ and 3 to 15 digits, a name, or user@host", number_address)),
        account: r.key("account", "Account that it belongs to.").example(SID).read(account_sid()),
        voice_url: r
            .key("voice_url", "URL of the instructions.")
            .example("http://127.0.0.1:8000/voice.xml")
            .read(kind::http_url()),
        voice_method: r
            .key("voice_method", "How instructions are asked for.")
            .default("POST")
            .read(kind::one_of(&methods)),
        voice_fallback_url: r
            .key("voice_fallback_url", "Asked when the first URL fails.")
            .example("http://127.0.0.1:8001/voice.xml")
            .read_optional(kind::http_url()),
        status_callback: r
            .key("status_callback", "Told when a call ends.")
            .example("http://127.0.0.1:8000/status")
            .read_optional(kind::http_url()),
    }
}

fn read_route(r: &mut Reader) -> Route {
    let prefix = kind::parsed("at most 32 characters of 0-9 a-z A-Z + - . _", |text| {
        let good = |b: u8| b.is_ascii_alphanumeric() || b"+-._".contains(&b);
        (text.len() <= 32 && text.bytes().all(good)).then(|| text.to_owned())
    });
    Route {
        prefix: r
            .key("prefix", "Beginning of the number; the longest match wins, empty matches all.")
            .default("")
            .read(prefix),
        node: NodeId(
            r.key("node", "Edge that the call leaves by.").example("edge-eu-1").read(kind::name()),
        ),
        uri: r
            .key("uri", "Where the call goes; {number} is replaced.")
            .example("sip:{number}@192.0.2.7:5060")
            .read(kind::sip_uri_for_number()),
        without_instructions: r
            .key("without_instructions", "The edge connects such calls by itself.")
            .default(false)
            .read(kind::boolean()),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use link_daemon::tls::{NodeNames, init_pki};

    use super::*;

    /// A small configuration with everything that it names in `folder`, on free ports.
    pub fn example(folder: &Path) -> Config {
        let nodes = [NodeNames::new("core", "control-1"), NodeNames::new("eu", "edge-eu-1")];
        init_pki(&folder.join("pki"), &nodes, 30).unwrap();
        std::fs::write(folder.join("token"), "0123456789abcdef\n").unwrap();
        parse("control.toml", EXAMPLE, folder).unwrap()
    }

    const EXAMPLE: &str = r#"
        node = "control-1"
        data_folder = "data"
        api.listen = "127.0.0.1:0"
        admin.listen = "127.0.0.1:0"
        speech.engine = "off"
        [link]
        listen = "127.0.0.1:0"
        ca_file = "pki/ca.pem"
        certificate_file = "pki/control-1.pem"
        key_file = "pki/control-1.key"
        [[account]]
        sid = "AC00000000000000000000000000000001"
        auth_token_file = "token"
        [[number]]
        number = "+15550100"
        account = "AC00000000000000000000000000000001"
        voice_url = "http://127.0.0.1:9/voice"
        voice_fallback_url = "http://127.0.0.1:9/fallback"
        status_callback = "http://127.0.0.1:9/status"
        [[route]]
        node = "edge-eu-1"
        uri = "sip:{number}@127.0.0.1:5070"
    "#;

    #[test]
    fn every_error_is_told_at_once() {
        let folder = tempfile::tempdir().unwrap();
        example(folder.path());
        let text = EXAMPLE
            .replace("control-1.key", "absent.key")
            .replace("node = \"control-1\"", "node = \"control-2\"\nlink.idle_ms = 600")
            .replace("[link]", "[speach]\n[link_]")
            .replace("number = \"+", "numbr = \"+");
        let errors = parse("control.toml", &text, folder.path()).unwrap_err().to_string();
        for expect in [
            "did you mean `speech`?",
            "`link_` is not a known key; did you mean `link`?",
            "`link.idle_ms` = 600: must be at least twice link.keep_alive_ms",
            "`number[1].number` is missing",
            "did you mean `number[1].number`?",
        ] {
            assert!(errors.contains(expect), "{expect} not in\n{errors}");
        }
    }

    #[test]
    fn a_certificate_of_another_node_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        example(folder.path());
        for (wrong, expect) in [
            (EXAMPLE.replace("control-1.", "edge-eu-1."), "certificate is for node edge-eu-1"),
            (EXAMPLE.replace("control-1.key", "edge-eu-1.key"), "control-1.pem"),
        ] {
            let errors = parse("control.toml", &wrong, folder.path()).unwrap_err().to_string();
            assert!(errors.contains("link.certificate_file"), "{errors}");
            assert!(errors.contains(expect), "{errors}");
        }
    }

    #[test]
    fn the_sample_names_every_key_and_is_accepted_once_its_files_exist() {
        let folder = tempfile::tempdir().unwrap();
        let nodes = [NodeNames::new("core", "control-1")];
        init_pki(&folder.path().join("pki"), &nodes, 30).unwrap();
        std::fs::create_dir(folder.path().join("secrets")).unwrap();
        std::fs::write(folder.path().join("secrets/account.token"), "secret").unwrap();
        let pki = folder.path().join("pki");
        std::fs::copy(pki.join("ca.pem"), pki.join("customers-ca.pem")).unwrap();
        parse("control.toml", &sample(), folder.path()).unwrap();
        // With every line that is commented out, too: examples are allowed values.
        let all: String = sample()
            .lines()
            .map(|line| match line.strip_prefix("# ") {
                Some(rest) if rest.contains(" = ") || rest.starts_with('[') => rest,
                _ => line,
            })
            .filter(|line| !line.ends_with(" = "))
            .map(|line| format!("{line}\n"))
            .collect();
        let config = parse("control.toml", &all, folder.path()).unwrap();
        assert_eq!(config.accounts.len(), 1);
        assert_eq!(config.routes.len(), 1);
        assert_eq!(config.api.public_url.as_deref(), Some("https://api.example.net"));
        assert!(reference().contains("| `link.idle_ms` | `2000` |"));
    }

    /// `docs/reference/config-control.md` is written from the keys and checked against them.
    #[test]
    fn the_reference_is_the_one_in_the_documentation() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/reference/config-control.md");
        let page = format!("# Configuration of control\n\n{}", reference());
        if std::env::var_os("UPDATE_DOCS").is_some() {
            std::fs::write(path, &page).unwrap();
        }
        let committed = std::fs::read_to_string(path).unwrap();
        assert_eq!(committed, page, "run with UPDATE_DOCS=1 and read the change");
    }
}
