//! Whether the machine has what the configured capacity needs: descriptors, locked memory, ports.
//! Asked once, before anything is bound; each answer names the command that helps.

use std::fmt::Write as _;
use std::time::Duration;

use anyhow::Context as _;
use edge_media::WorkerLimits;
use edge_uring::Limits;
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::config::Config;

/// Beside two sockets a leg: signalling, link, trunk, admin port, rings, files.
const DESCRIPTORS_BESIDE: u64 = 256;
/// Locked memory beside the media threads' rings: that of the recorder.
const LOCKED_BYTES_BESIDE: u64 = 64 << 10;
/// `CAP_IPC_LOCK`: what the process locks is not counted.
const CAP_IPC_LOCK: u32 = 14;
/// Legs of a call that may leave a pair of ports resting.
const LEGS_PER_CALL: u64 = 2;

/// What a configuration needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Needs {
    legs_max: usize,
    workers: u16,
    descriptors: u64,
    locked_bytes: u64,
    ports: (u16, u16),
    /// Pairs that are in use or resting at once at most.
    pairs: u64,
}

/// What the machine gives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Machine {
    /// Open files.
    pub descriptors: u64,
    /// Locked memory; `None` if it is not counted.
    pub locked_bytes: Option<u64>,
    /// `net.ipv4.ip_local_port_range`, if it can be read.
    pub given_out: Option<(u16, u16)>,
    /// `net.ipv4.ip_local_reserved_ports`.
    pub reserved: String,
}

/// What is too little.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Findings {
    /// The edge would fail under load.
    pub refused: Vec<String>,
    /// It may do worse than it could.
    pub warnings: Vec<String>,
}

impl Needs {
    /// Adds up.
    pub fn of(config: &Config, ring: &Limits, rest: Duration) -> Self {
        let legs_max = config.sip.legs_max;
        let rate: u64 = config.providers.iter().map(|p| u64::from(p.calls_per_s_max)).sum();
        // However fast calls come, not more rest than were in use.
        let resting = (rate * LEGS_PER_CALL * rest.as_secs()).min(legs_max as u64);
        Self {
            legs_max,
            workers: config.media.workers,
            descriptors: legs_max as u64 * 2 + DESCRIPTORS_BESIDE,
            locked_bytes: ring.locked_bytes() * u64::from(config.media.workers)
                + LOCKED_BYTES_BESIDE,
            ports: config.media.ports,
            pairs: legs_max as u64 + resting,
        }
    }

    /// Compares.
    pub fn judge(&self, machine: &Machine) -> Findings {
        let mut findings = Findings::default();
        let (legs, needed, limit) = (self.legs_max, self.descriptors, machine.descriptors);
        if limit < needed {
            findings.refused.push(format!(
                "sip.legs_max = {legs} needs {needed} file descriptors, the limit is {limit}: raise \
                 it with `ulimit -Hn {needed}` as root (LimitNOFILE={needed} under systemd), or \
                 lower sip.legs_max"
            ));
        }
        let kib = self.locked_bytes.div_ceil(1_024);
        if let Some(limit) = machine.locked_bytes.filter(|limit| *limit < self.locked_bytes) {
            findings.refused.push(format!(
                "sip.legs_max = {legs} and media.workers = {} need {kib} KiB of locked memory for \
                 io_uring, the limit is {} KiB: raise it with `ulimit -Hl {kib}` as root \
                 (LimitMEMLOCK={kib}K under systemd), or lower them",
                self.workers,
                limit / 1_024
            ));
        }
        self.judge_ports(machine, &mut findings.warnings);
        findings
    }

    fn judge_ports(&self, machine: &Machine, warnings: &mut Vec<String>) {
        let (first, last) = self.ports;
        let pairs = u64::from(last.saturating_sub(first)).div_ceil(2);
        if pairs < self.pairs {
            let mut text = format!(
                "media.ports = {first}-{last} are {pairs} pairs; sip.legs_max = {} and those that \
                 rest after a call need {}: ",
                self.legs_max, self.pairs
            );
            let wanted = u64::from(first) + self.pairs * 2 - 1;
            // Writing to a string cannot fail.
            let _ = match u16::try_from(wanted) {
                Ok(wanted) => write!(text, "set `ports = \"{first}-{wanted}\"`"),
                Err(_) => write!(text, "begin lower, or lower sip.legs_max"),
            };
            warnings.push(text);
        }
        let Some((from, to)) = machine.given_out else { return };
        if first <= to && last >= from && !is_reserved(&machine.reserved, first, last) {
            let mut reserved = machine.reserved.clone();
            if !reserved.is_empty() {
                reserved.push(',');
            }
            warnings.push(format!(
                "media.ports = {first}-{last} are among the ports {from}-{to} that the kernel gives \
                 to other programs: keep them free with `sysctl -w \
                 net.ipv4.ip_local_reserved_ports={reserved}{first}-{last}`"
            ));
        }
    }
}

/// Whether a list like `8080,20000-29999` has the whole range in one of its parts.
fn is_reserved(list: &str, first: u16, last: u16) -> bool {
    list.split(',').any(|part| {
        let (from, to) = part.trim().split_once('-').unwrap_or((part.trim(), part.trim()));
        let (from, to): (Option<u16>, Option<u16>) = (from.parse().ok(), to.parse().ok());
        from.is_some_and(|from| from <= first) && to.is_some_and(|to| to >= last)
    })
}

impl Machine {
    /// Asks, and raises soft limits as far as they are needed and may be.
    ///
    /// # Errors
    /// If the limits cannot be read.
    pub fn prepared_for(needs: &Needs) -> anyhow::Result<Self> {
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default().trim().to_owned();
        let counted = !has_capability(&read("/proc/self/status"), CAP_IPC_LOCK);
        let descriptors = raise(Resource::RLIMIT_NOFILE, needs.descriptors)?;
        let locked = raise(Resource::RLIMIT_MEMLOCK, needs.locked_bytes)?;
        let range = read("/proc/sys/net/ipv4/ip_local_port_range");
        let mut range = range.split_whitespace().map_while(|port| port.parse().ok());
        Ok(Self {
            descriptors,
            locked_bytes: counted.then_some(locked),
            given_out: range.next().zip(range.next()),
            reserved: read("/proc/sys/net/ipv4/ip_local_reserved_ports"),
        })
    }
}

/// Raises the soft limit towards `needed`; the limit in force.
fn raise(resource: Resource, needed: u64) -> anyhow::Result<u64> {
    let (soft, hard) = getrlimit(resource).with_context(|| format!("{resource:?}"))?;
    let wanted = needed.min(hard);
    if soft >= wanted {
        return Ok(soft);
    }
    setrlimit(resource, wanted, hard).with_context(|| format!("{resource:?}"))?;
    Ok(wanted)
}

/// In force, by the text of `/proc/self/status`.
fn has_capability(status: &str, capability: u32) -> bool {
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let bits = line.and_then(|bits| u64::from_str_radix(bits.trim(), 16).ok());
    bits.is_some_and(|bits| bits >> capability & 1 == 1)
}

/// Prints what the capacities add up to, and compares them with the machine.
///
/// # Errors
/// What the machine lacks, with the commands that help.
pub fn check(config: &Config, ring: &Limits, ports_max: u32, rest: Duration) -> anyhow::Result<()> {
    let worker = WorkerLimits::for_ports(ports_max);
    let needs = Needs::of(config, ring, rest);
    tracing::info!(
        legs = needs.legs_max, workers = needs.workers, descriptors = needs.descriptors,
        locked_kib = needs.locked_bytes / 1_024, %worker, %ring, "capacity"
    );
    let findings = needs.judge(&Machine::prepared_for(&needs)?);
    for warning in &findings.warnings {
        tracing::warn!("{warning}");
    }
    anyhow::ensure!(findings.refused.is_empty(), findings.refused.join("\n"));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn needs() -> Needs {
        Needs {
            legs_max: 2_000,
            workers: 2,
            descriptors: 4_256,
            locked_bytes: 900 << 10,
            ports: (20_000, 29_999),
            pairs: 2_600,
        }
    }

    fn machine() -> Machine {
        Machine {
            descriptors: 20_000,
            locked_bytes: Some(8 << 20),
            given_out: Some((32_768, 60_999)),
            reserved: String::new(),
        }
    }

    /// What is found, and that it says all of `parts`.
    fn check(needs: &Needs, machine: &Machine, refused: &[&[&str]], warnings: &[&[&str]]) {
        let findings = needs.judge(machine);
        for (found, expected) in [(&findings.refused, refused), (&findings.warnings, warnings)] {
            assert_eq!(found.len(), expected.len(), "{found:?}");
            for (text, parts) in found.iter().zip(expected) {
                for part in *parts {
                    assert!(text.contains(part), "{part} is missing in: {text}");
                }
            }
        }
    }

    #[test]
    fn a_machine_with_enough_of_all_is_fine() {
        check(&needs(), &machine(), &[], &[]);
        let exempt = Machine { locked_bytes: None, given_out: None, ..machine() };
        check(&needs(), &exempt, &[], &[]);
    }

    #[test]
    fn what_is_too_little_is_named_with_the_command_that_helps() {
        let few = Machine { descriptors: 1_024, locked_bytes: Some(64 << 10), ..machine() };
        check(
            &needs(),
            &few,
            &[
                &["sip.legs_max = 2000", "`ulimit -Hn 4256`", "LimitNOFILE=4256", "is 1024"],
                &["media.workers = 2", "`ulimit -Hl 900`", "LimitMEMLOCK=900K", "is 64 KiB"],
            ],
            &[],
        );
    }

    #[test]
    fn ports_that_others_get_or_that_rest_are_warned_of() {
        let high = Needs { ports: (40_000, 49_999), ..needs() };
        let sysctl = "`sysctl -w net.ipv4.ip_local_reserved_ports=40000-49999`";
        check(&high, &machine(), &[], &[&["32768-60999", sysctl]]);
        let some = Machine { reserved: "8080".to_owned(), ..machine() };
        check(&high, &some, &[], &[&["reserved_ports=8080,40000-49999"]]);
        let kept = Machine { reserved: "8080,40000-50000".to_owned(), ..machine() };
        check(&high, &kept, &[], &[]);
        let narrow = Needs { ports: (20_000, 23_999), ..needs() };
        check(&narrow, &machine(), &[], &[&["2000 pairs", "2600", "`ports = \"20000-25199\"`"]]);
        let end = Needs { ports: (61_536, 65_535), ..needs() };
        check(&end, &machine(), &[], &[&["begin lower"]]);
    }

    #[test]
    fn capabilities_are_read_from_the_status() {
        let status = "Name:\tedge\nCapPrm:\t0000000000000000\nCapEff:\t0000000000004000\n";
        assert!(has_capability(status, CAP_IPC_LOCK));
        assert!(!has_capability(status, 12));
        assert!(!has_capability("", CAP_IPC_LOCK));
    }

    /// Of this very process: nothing is raised above what is needed, nothing is lowered.
    #[test]
    fn soft_limits_are_raised_as_far_as_needed() {
        let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        assert_eq!(raise(Resource::RLIMIT_NOFILE, 1).unwrap(), soft);
        let more = (soft + 1).min(hard);
        assert_eq!(raise(Resource::RLIMIT_NOFILE, soft + 1).unwrap(), more);
        assert_eq!(getrlimit(Resource::RLIMIT_NOFILE).unwrap(), (more, hard));
    }
}
