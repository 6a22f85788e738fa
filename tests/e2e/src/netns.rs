//! A network namespace with a link of its own, for programs that do not work on loopback.

use std::net::Ipv4Addr;
use std::process::Command;
use std::sync::atomic::{AtomicU8, Ordering};

use crate::tools::sh;

/// A namespace that is joined to this one by a pair of virtual interfaces; gone with its owner.
#[derive(Debug)]
pub struct Netns {
    name: String,
    /// Our end.
    pub ours: Ipv4Addr,
    /// The end in the namespace.
    pub theirs: Ipv4Addr,
}

impl Netns {
    /// Makes one. Needs root; `Ok(None)` with the reason printed if that is not to be had.
    ///
    /// # Errors
    /// If it works in part only.
    pub fn new() -> anyhow::Result<Option<Self>> {
        static NEXT: AtomicU8 = AtomicU8::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let id = std::process::id();
        let name = format!("tandem-{id}-{number}");
        // 198.18.0.0/15 is for tests of networks (RFC 2544): nobody routes it.
        let net = 4 * u32::from(number) + 256 * (id % 250);
        let base = u32::from(Ipv4Addr::new(198, 18, 0, 0)) + net % 0xfffc;
        let (ours, theirs) = (Ipv4Addr::from(base + 1), Ipv4Addr::from(base + 2));
        if let Err(error) = sh(&format!("ip netns add {name}")) {
            println!("skipped: no network namespace to be had: {error:#}");
            return Ok(None);
        }
        let netns = Self { name, ours, theirs };
        let (here, there) =
            (format!("tv{}a{number}", id % 100_000), format!("tv{}b{number}", id % 100_000));
        let ns = &netns.name;
        sh(&format!(
            "ip link add {here} type veth peer name {there}; ip link set {there} netns {ns}; \
             ip addr add {ours}/30 dev {here}; ip link set {here} up; \
             ip -n {ns} addr add {theirs}/30 dev {there}; ip -n {ns} link set {there} up; \
             ip -n {ns} link set lo up; ip -n {ns} route add default via {ours}"
        ))?;
        Ok(Some(netns))
    }

    /// A command that will run inside.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name, program]);
        command
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        // Its interface, and with it ours, goes with the namespace.
        let _ = sh(&format!("ip netns del {}", self.name));
    }
}
