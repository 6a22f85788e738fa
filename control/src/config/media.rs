//! The media layer's part of the configuration, and that of a node which runs nothing else.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use link_daemon::config::{self, Problems, Reader, kind};
use link_daemon::log::LogFormat;

use super::{
    LOG_DOC, MEDIA_DOC, PROMPTS_DOC, Prompts, SPEECH_DOC, Speech, WEB_DOC, Web, read_log,
    read_prompts, read_speech, read_web,
};

/// Where the parts of the media layer run.
#[derive(Debug, Clone)]
pub struct Media {
    /// Where this process offers its parts.
    pub listen: SocketAddr,
    /// Caches elsewhere; empty = here.
    pub cache: Vec<String>,
    /// Transcoding proxies elsewhere; empty = here.
    pub transcoder: Vec<String>,
    /// Speech services elsewhere, whole URLs; empty = here.
    pub speech: Vec<String>,
    /// What speaks there.
    pub speech_name: String,
}

/// A part of the media layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// Keeps processed media.
    Cache,
    /// Fetches and converts.
    Transcoder,
    /// Speaks.
    Speech,
}

/// A node that runs parts of the media layer and nothing else.
#[derive(Debug, Clone)]
pub struct MediaNode {
    /// Name of this node.
    pub node: String,
    /// What it offers.
    pub parts: Vec<Part>,
    /// Prompts.
    pub data_folder: PathBuf,
    /// `/live /ready /metrics`.
    pub admin: SocketAddr,
    /// Log filter.
    pub log: String,
    /// Log format.
    pub log_format: LogFormat,
    /// Speech synthesis.
    pub speech: Speech,
    /// Prompts.
    pub prompts: Prompts,
    /// Requests to origins.
    pub web: Web,
    /// Where it listens and where other parts are.
    pub media: Media,
}

impl MediaNode {
    /// Reads the file at `path`.
    ///
    /// # Errors
    /// Every problem of the file, each with line, key, value and what is allowed.
    pub fn load(path: &Path) -> Result<Self, Problems> {
        config::load(path, read)
    }

    /// A sample file with every key.
    pub fn sample() -> String {
        config::sample(read)
    }

    /// The page of the reference.
    pub fn reference() -> String {
        config::reference(read)
    }
}

pub(super) fn read_media(r: &mut Reader, listen: &str) -> Media {
    let urls = |r: &mut Reader, name, doc, example: &str| -> Vec<String> {
        let nothing = toml::Value::Array(Vec::new());
        let example = toml::Value::Array(vec![example.into()]);
        r.key(name, doc).default(nothing).example(example).read(kind::list(kind::http_url(), 64))
    };
    Media {
        listen: r
            .key(
                "listen",
                "Where the parts of this process are reachable (TCP); port 0 is any free one. Has no \
                 login: keep it private.",
            )
            .default(listen)
            .read(kind::listen_address()),
        cache: urls(
            r,
            "cache",
            "Caches in processes of their own, used in turn; without any, this process does it.",
            "http://127.0.0.1:8090",
        ),
        transcoder: urls(
            r,
            "transcoder",
            "Transcoding proxies in processes of their own, used in turn; without any, this process does it.",
            "http://127.0.0.1:8090",
        ),
        speech: urls(
            r,
            "speech",
            "Speech services in processes of their own or of other vendors, used in turn; without \
             any, this process does it.",
            "http://127.0.0.1:8090/speech",
        ),
        speech_name: r
            .key("speech_name", "What speaks at `speech`: another name, and kept speech is made anew.")
            .default("tandem")
            .read(kind::text()),
    }
}

fn read(r: &mut Reader) -> MediaNode {
    let node = r.key("node", "Name of this node.").example("media-1").read(kind::name());
    let data_folder = r
        .key("data_folder", "Folder of the prompts.")
        .example("data/media")
        .read(kind::writable_folder());
    let parts =
        [("cache", Part::Cache), ("transcoder", Part::Transcoder), ("speech", Part::Speech)];
    let names = parts.map(|(name, _)| toml::Value::from(name));
    let parts = r
        .key("parts", "What it offers.")
        .default(toml::Value::Array(names.to_vec()))
        .read(kind::list(kind::one_of(&parts), parts.len()));
    let admin = r.table("admin", "Port for operators: /live /ready /metrics.", |r| {
        r.key("listen", "Address (TCP). Has no login: keep it private.")
            .default("127.0.0.1:9093")
            .read(kind::listen_address())
    });
    let (log, log_format) = r.table("log", LOG_DOC, read_log);
    let speech = r.table("speech", SPEECH_DOC, read_speech);
    let prompts = r.table("prompts", PROMPTS_DOC, read_prompts);
    let web = r.table("web", WEB_DOC, read_web);
    let media = r.table("media", MEDIA_DOC, |r| read_media(r, "127.0.0.1:8090"));
    MediaNode { node, parts, data_folder, admin, log, log_format, speech, prompts, web, media }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `docs/reference/config-media.md` is written from the keys and checked against them.
    #[test]
    fn the_reference_is_the_one_in_the_documentation() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/reference/config-media.md");
        let page = format!("# Configuration of a media layer node\n\n{}", MediaNode::reference());
        if std::env::var_os("UPDATE_DOCS").is_some() {
            std::fs::write(path, &page).unwrap();
        }
        let committed = std::fs::read_to_string(path).unwrap();
        assert_eq!(committed, page, "run with UPDATE_DOCS=1 and read the change");
    }
}
