//! The real process: start, wrong configuration, kill -9 and restart, orderly end.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use link_daemon::tls::{NodeNames, init_pki};

struct Daemon {
    child: Child,
    log: BufReader<std::process::ChildStderr>,
}

impl Daemon {
    fn start(config: &Path) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_tandem-control"))
            .arg("--config")
            .arg(config)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let log = BufReader::new(child.stderr.take().unwrap());
        Self { child, log }
    }

    /// Reads the log until a line holds `text`; an end of the process before that fails.
    fn wait_for(&mut self, text: &str) -> String {
        let mut seen = String::new();
        loop {
            let start = seen.len();
            assert!(self.log.read_line(&mut seen).unwrap() > 0, "no {text:?} in\n{seen}");
            if seen[start..].contains(text) {
                return seen;
            }
        }
    }

    fn signal(&self, signal: &str) {
        let id = self.child.id().to_string();
        assert!(Command::new("kill").args([signal, &id]).status().unwrap().success());
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn free_tcp() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

fn write_config(folder: &Path, admin: SocketAddr) -> std::path::PathBuf {
    init_pki(&folder.join("pki"), &[NodeNames::new("core", "control-1")], 30).unwrap();
    let api = free_tcp();
    let link = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let text = format!(
        "node = \"control-1\"\ndata_folder = \"data\"\napi.listen = \"{api}\"\n\
         admin.listen = \"{admin}\"\nspeech.engine = \"off\"\n[link]\nlisten = \"{link}\"\n\
         ca_file = \"pki/ca.pem\"\ncertificate_file = \"pki/control-1.pem\"\n\
         key_file = \"pki/control-1.key\"\n"
    );
    let path = folder.join("control.toml");
    std::fs::write(&path, text).unwrap();
    path
}

/// One request, the whole answer.
pub fn get(address: SocketAddr, path: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn it_survives_kill_9_and_ends_in_order() {
    let folder = tempfile::tempdir().unwrap();
    let admin = free_tcp();
    let config = write_config(folder.path(), admin);
    let mut first = Daemon::start(&config);
    let log = first.wait_for("limits");
    for expect in ["REST API", "edges", "operators", "sessions_max"] {
        assert!(log.contains(expect), "{expect} not in\n{log}");
    }
    assert!(get(admin, "/ready").starts_with("HTTP/1.1 200"));
    first.signal("-KILL");
    first.child.wait().unwrap();

    let mut second = Daemon::start(&config);
    second.wait_for("limits");
    assert!(get(admin, "/live").starts_with("HTTP/1.1 200"));
    assert!(get(admin, "/calls").ends_with("[]"));
    second.signal("-TERM");
    let log = second.wait_for("control has ended");
    assert!(log.contains("SIGTERM"), "{log}");
    assert!(second.child.wait().unwrap().success());
}

#[test]
fn wrong_configuration_is_told_whole_and_nothing_is_bound() {
    let folder = tempfile::tempdir().unwrap();
    let admin = free_tcp();
    let config = write_config(folder.path(), admin);
    let mut text = std::fs::read_to_string(&config).unwrap();
    text = text.replace("speech.engine = \"off\"", "speech.engine = \"loud\"\ndrain.max_s = -1");
    std::fs::write(&config, text).unwrap();
    // Whoever holds the port would be in its way, if it came that far.
    let _held = TcpListener::bind(admin).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_tandem-control"))
        .arg("--config")
        .arg(&config)
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(78));
    let errors = String::from_utf8(output.stderr).unwrap();
    assert!(errors.starts_with("2 configuration errors, nothing was started:"), "{errors}");
    assert!(errors.contains("`speech.engine` = \"loud\""), "{errors}");
    assert!(errors.contains("`drain.max_s` = -1"), "{errors}");
}
