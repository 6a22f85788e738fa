//! Debian's rtpengine in user space, one thread, set up by its control protocol (bencode over UDP).

use std::net::{SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use tandem_rig::Process;

use super::sip::{media_port, sdp};
use super::{Ends, Place, Running};
use crate::machine::{pinned, want_descriptors};

const START_MAX: Duration = Duration::from_secs(10);
const REPLY_MAX: Duration = Duration::from_secs(2);

/// The program, if it is installed.
pub fn program() -> Option<PathBuf> {
    ["/usr/bin/rtpengine", "/usr/sbin/rtpengine", "/usr/local/bin/rtpengine"]
        .into_iter()
        .map(PathBuf::from)
        .find(|path| path.is_file())
}

/// Its version as it prints it.
pub fn version() -> Option<String> {
    let output = std::process::Command::new(program()?).arg("--version").output().ok()?;
    let text = [output.stdout, output.stderr].concat();
    String::from_utf8_lossy(&text).lines().next().map(str::to_owned)
}

/// Starts it on its core and sets up the calls.
///
/// # Errors
/// If it is not installed, does not come up or refuses a call.
pub fn start(place: &Place, calls: usize, ends: &Ends) -> anyhow::Result<Running> {
    // Four sockets a call.
    want_descriptors(calls as u64 * 4 + 256)?;
    let program = program().context("rtpengine is not installed (apt: rtpengine-daemon)")?;
    let control = tandem_rig::ports::udp()?;
    let folder = tempfile::tempdir()?;
    let process = spawn(&program, place, control, calls, folder.path())?;
    let pid = process.id();
    let mut client = Client::new(control)?;
    client.wait_ready()?;
    let legs = (0..calls).map(|call| client.call(call, ends)).collect::<anyhow::Result<_>>()?;
    Ok(Running { pid, sip: super::NO_SIP, legs, guard: Box::new((process, folder)) })
}

fn spawn(
    program: &Path,
    place: &Place,
    control: SocketAddr,
    calls: usize,
    folder: &Path,
) -> anyhow::Result<Process> {
    let (first, last) = tandem_rig::ports::rtp_range(u16::try_from(calls * 2 + 32)?);
    let mut command = pinned(program, place.cores.system);
    command.args(["--table=-1", "--num-threads=1", "--interface=127.0.0.1", "--config-file=none"]);
    command.args(["--foreground", "--log-stderr", "--log-level=3"]);
    command.arg(format!("--listen-ng={control}"));
    command.args([format!("--port-min={first}"), format!("--port-max={last}")]);
    command.arg(format!("--pidfile={}", folder.join("pid").display()));
    command.stdin(Stdio::null());
    Process::spawn("rtpengine", command, &folder.join("rtpengine.log"))
}

/// Speaks the control protocol.
struct Client {
    socket: UdpSocket,
    cookie: u64,
}

impl Client {
    fn new(control: SocketAddr) -> anyhow::Result<Self> {
        let socket = UdpSocket::bind("127.0.0.1:0")?;
        socket.connect(control)?;
        Ok(Self { socket, cookie: 0 })
    }

    fn wait_ready(&mut self) -> anyhow::Result<()> {
        let end = Instant::now() + START_MAX;
        self.socket.set_read_timeout(Some(Duration::from_millis(100)))?;
        while self.ask(&entry("command", &string("ping"))).is_err() {
            anyhow::ensure!(Instant::now() < end, "rtpengine did not answer within {START_MAX:?}");
        }
        self.socket.set_read_timeout(Some(REPLY_MAX))?;
        Ok(())
    }

    fn ask(&mut self, dictionary: &str) -> anyhow::Result<String> {
        self.cookie += 1;
        let cookie = format!("b{}", self.cookie);
        self.socket.send(format!("{cookie} d{dictionary}e").as_bytes())?;
        let mut bytes = vec![0; 65_536];
        loop {
            let length = self.socket.recv(&mut bytes).context("rtpengine does not answer")?;
            let reply = String::from_utf8_lossy(bytes.get(..length).unwrap_or_default());
            // An answer to a question that was given up.
            if let Some(reply) = reply.strip_prefix(&format!("{cookie} ")) {
                return Ok(reply.to_owned());
            }
        }
    }

    /// Addresses of leg A and leg B.
    fn call(&mut self, call: usize, ends: &Ends) -> anyhow::Result<[SocketAddr; 2]> {
        let id = format!("call-{call}");
        let b = self.describe("offer", &id, false, ends.of(call, 0))?;
        let a = self.describe("answer", &id, true, ends.of(call, 1))?;
        Ok([a, b])
    }

    fn describe(
        &mut self,
        command: &str,
        id: &str,
        answers: bool,
        own: SocketAddr,
    ) -> anyhow::Result<SocketAddr> {
        let mut dictionary = [
            entry("ICE", &string("remove")),
            entry("call-id", &string(id)),
            entry("command", &string(command)),
            entry("flags", &list(&["trust-address"])),
            entry("from-tag", &string("a")),
            entry("replace", &list(&["origin"])),
            entry("rtcp-mux", &list(&["demux"])),
            entry("sdp", &string(&sdp(own))),
        ]
        .concat();
        if answers {
            dictionary += &entry("to-tag", &string("b"));
        }
        let reply = self.ask(&dictionary)?;
        if !reply.contains("6:result2:ok") {
            bail!("rtpengine refuses {command} {id}: {reply}");
        }
        let port = media_port(&reply).with_context(|| reply.clone())?;
        Ok(SocketAddr::new(self.socket.local_addr()?.ip(), port))
    }
}

fn string(text: &str) -> String {
    format!("{}:{text}", text.len())
}

fn list(items: &[&str]) -> String {
    format!("l{}e", items.iter().map(|item| string(item)).collect::<String>())
}

fn entry(key: &str, value: &str) -> String {
    format!("{}{value}", string(key))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bencode_is_written_as_specified() {
        assert_eq!(entry("flags", &list(&["trust-address"])), "5:flagsl13:trust-addresse");
        assert_eq!(entry("command", &string("ping")), "7:command4:ping");
    }
}
