//! Packets that nobody honest sends: what they cost beside a valid one, and that they change nothing.
//!
//! The worker is driven without sockets: receiving costs the same for both, and a hostile packet is
//! never sent on. A second worker that was spared must send, byte for byte, what the first one sends.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use edge_media::{Component, Worker};

use crate::bridge::{self, Sent, key, packet};
use crate::gate::wait_quiet;
use crate::machine::thread_cpu;
use crate::report::{Goal, Outcome, median};
use crate::run::Context;

const LEGS: u32 = 200;
const PACKETS: u32 = 20_000;
/// Valid packets between which hostile ones come while the outcome is compared.
const COMPARED: u16 = 200;

struct Hostile {
    name: &'static str,
    component: Component,
    source: Option<SocketAddr>,
    bytes: Vec<u8>,
}

fn kinds() -> Vec<Hostile> {
    use Component::{Rtcp, Rtp};
    let foreign_host: SocketAddr = ([203, 0, 113, 9], 10_000).into();
    let foreign_port: SocketAddr = ([127, 0, 0, 1], 9).into();
    let valid = || packet(9, 0).to_vec();
    let with = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = valid();
        change(&mut bytes);
        bytes
    };
    let rtcp = |kind: u8, count: u8, words: u16, rest: &[u8]| {
        let mut bytes = vec![0x80 | count, kind];
        bytes.extend_from_slice(&words.to_be_bytes());
        bytes.extend_from_slice(rest);
        bytes
    };
    let of = |name, component, source, bytes| Hostile { name, component, source, bytes };
    let mut lies = vec![0, 0, 0, 77, 0, 0, 0xa0, 0];
    lies.extend([255; 20]);
    vec![
        of("empty", Rtp, None, Vec::new()),
        of("one byte", Rtp, None, vec![0x80]),
        of("eleven bytes", Rtp, None, valid()[..11].to_vec()),
        of("version 0", Rtp, None, with(&|b| b[0] = 0x00)),
        of("version 1", Rtp, None, with(&|b| b[0] = 0x40)),
        of("version 3", Rtp, None, with(&|b| b[0] = 0xc0)),
        of(
            "sources beyond the end",
            Rtp,
            None,
            with(&|b| {
                b[0] = 0x8f;
                b.truncate(40);
            }),
        ),
        of(
            "extension flag without one",
            Rtp,
            None,
            with(&|b| {
                b[0] = 0x90;
                b.truncate(12);
            }),
        ),
        of(
            "huge extension",
            Rtp,
            None,
            with(&|b| {
                b[0] = 0x90;
                b[14] = 0xff;
                b[15] = 0xff;
            }),
        ),
        of(
            "padding of zero",
            Rtp,
            None,
            with(&|b| {
                b[0] = 0xa0;
                b[171] = 0;
            }),
        ),
        of(
            "padding longer than the packet",
            Rtp,
            None,
            with(&|b| {
                b[0] = 0xa0;
                b[171] = 255;
            }),
        ),
        of("payload type of another codec", Rtp, None, with(&|b| b[1] = 8)),
        of("dynamic payload type", Rtp, None, with(&|b| b[1] = 127)),
        of("foreign address", Rtp, Some(foreign_host), valid()),
        of("foreign port", Rtp, Some(foreign_port), valid()),
        of("foreign address, 1,400 bytes", Rtp, Some(foreign_host), with(&|b| b.resize(1_400, 7))),
        of("STUN", Rtp, None, with(&|b| b[0] = 0x00)),
        of("DTLS", Rtp, None, with(&|b| b[0] = 22)),
        of("TURN channel", Rtp, None, with(&|b| b[0] = 0x40)),
        of("noise", Rtp, None, (0..1_400u32).map(|n| (n * 193 + 5) as u8 | 0x40).collect()),
        of("RTCP on the port of RTP", Rtp, None, rtcp(200, 0, 6, &[1; 24])),
        of("RTP on the port of RTCP", Rtcp, None, valid()),
        of("RTCP too short", Rtcp, None, vec![0x80, 200]),
        of("RTCP longer than it is", Rtcp, None, rtcp(200, 0, 0xffff, &[1; 24])),
        of("RTCP with blocks that are not there", Rtcp, None, rtcp(201, 31, 1, &[0, 0, 0, 77])),
        of("RTCP from a foreign address", Rtcp, Some(foreign_host), rtcp(201, 0, 1, &[0; 4])),
        of("RTCP that reports impossible loss", Rtcp, None, rtcp(201, 1, 7, &lies)),
        of("RTCP that says goodbye", Rtcp, None, rtcp(203, 1, 1, &[0, 0, 0, 0])),
    ]
}

/// One hostile packet, whose buffer the worker may have changed the last time.
fn strike(
    worker: &mut Worker,
    now: Instant,
    one: &Hostile,
    scratch: &mut Vec<u8>,
    sent: &mut Sent,
) {
    scratch.clear();
    scratch.extend_from_slice(&one.bytes);
    worker.handle_packet(now, key(0), one.component, one.source, scratch, sent);
}

/// What a worker sends for a talker of 4 s, with `between` after every packet.
fn talk(mut between: impl FnMut(&mut Worker, Instant, &mut Sent)) -> (Vec<Vec<u8>>, u64, usize) {
    let began = Instant::now();
    let (mut worker, mut sent) = bridge::worker(2, began);
    // Both sockets' sources are known before; what is learnt later would be a change.
    sent = Sent { kept: Some(Vec::new()), ..Sent { peers_set: 0, ..std::mem::take(&mut sent) } };
    let mut events = 0;
    for seq in 2..COMPARED {
        let now = began + Duration::from_millis(20) * u32::from(seq);
        let mut bytes = packet(seq, 0);
        worker.handle_packet(now, key(0), Component::Rtp, None, &mut bytes, &mut sent);
        between(&mut worker, now, &mut sent);
        events += std::iter::from_fn(|| worker.poll_event()).count();
    }
    (sent.kept.take().unwrap_or_default(), sent.peers_set, events)
}

/// Kinds that changed what the worker sends, learns or reports.
fn changing(kinds: &[Hostile]) -> Vec<&'static str> {
    let spared = talk(|_, _, _| {});
    let mut scratch = Vec::with_capacity(2_048);
    let changes = |one: &&Hostile| {
        talk(|worker, now, sent| {
            for _ in 0..10 {
                strike(worker, now, one, &mut scratch, sent);
            }
        }) != spared
    };
    kinds.iter().filter(changes).map(|one| one.name).collect()
}

fn nanoseconds_each(mut once: impl FnMut(u32)) -> f64 {
    let before = thread_cpu();
    for n in 0..PACKETS {
        once(n);
    }
    (thread_cpu() - before).as_secs_f64() * 1e9 / f64::from(PACKETS)
}

/// Costs of valid packets, and of each kind, in one round; nanoseconds.
fn round(kinds: &[Hostile]) -> (f64, Vec<f64>) {
    let now = Instant::now();
    let (mut worker, mut sent) = bridge::worker(LEGS, now);
    let mut scratch = Vec::with_capacity(2_048);
    let mut valid = |worker: &mut Worker, sent: &mut Sent| {
        let mut at = now;
        let mut seq = 1u16;
        nanoseconds_each(|n| {
            let leg = n % LEGS;
            if leg == 0 {
                seq = seq.wrapping_add(1);
                at += Duration::from_millis(20);
            }
            scratch.clear();
            scratch.extend_from_slice(&packet(seq, leg));
            worker.handle_packet(at, key(leg), Component::Rtp, None, &mut scratch, sent);
        })
    };
    let before = valid(&mut worker, &mut sent);
    let mut scratch = Vec::with_capacity(2_048);
    let costs = kinds
        .iter()
        .map(|one| nanoseconds_each(|_| strike(&mut worker, now, one, &mut scratch, &mut sent)))
        .collect();
    (before, costs)
}

/// See the module.
///
/// # Errors
/// If the state of the cores cannot be read.
pub fn hostile(context: &Context) -> anyhow::Result<Outcome> {
    let quiet = wait_quiet(context.cores, context.patience())?;
    let kinds = kinds();
    let changing = changing(&kinds);
    let rounds: Vec<(f64, Vec<f64>)> = (0..context.rounds() * 3).map(|_| round(&kinds)).collect();
    let valid = median(&rounds.iter().map(|round| round.0).collect::<Vec<_>>()).unwrap_or(f64::NAN);
    let mut outcome = Outcome::new("hostile");
    outcome.headings(&["packet", "ns", "× a valid one"]);
    outcome.row(["valid, relayed".to_owned(), format!("{valid:.0}"), "1.00".to_owned()]);
    let (mut worst, mut details) = (0.0f64, Vec::new());
    for (n, one) in kinds.iter().enumerate() {
        let costs: Vec<f64> = rounds.iter().map(|round| round.1[n]).collect();
        let ratios: Vec<f64> = rounds.iter().map(|round| round.1[n] / round.0).collect();
        let (cost, ratio) =
            (median(&costs).unwrap_or(f64::NAN), median(&ratios).unwrap_or(f64::NAN));
        worst = worst.max(ratio);
        outcome.row([one.name.to_owned(), format!("{cost:.0}"), format!("{ratio:.2}")]);
        details.push(serde_json::json!({ "name": one.name, "ns": cost, "of_valid": ratio }));
    }
    outcome.check("kinds of hostile packets", kinds.len() as f64, Goal::AtLeast(24.0));
    outcome.check("kinds that changed anything", changing.len() as f64, Goal::AtMost(0.0));
    outcome.check("dearest kind, × a valid packet", worst, Goal::AtMost(1.0));
    outcome.details =
        serde_json::json!({ "valid_ns": valid, "kinds": details, "changing": changing });
    outcome
        .clean(quiet, if quiet { String::new() } else { "the machine was not quiet".to_owned() });
    Ok(outcome)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_packets_change_nothing() {
        assert_eq!(changing(&kinds()), [""; 0]);
    }

    #[test]
    fn a_change_would_be_seen() {
        let mut bytes = packet(40, 0).to_vec();
        bytes[8..12].copy_from_slice(&[9; 4]);
        let other =
            Hostile { name: "another talker", component: Component::Rtp, source: None, bytes };
        assert_eq!(changing(&[other]), ["another talker"]);
    }
}
