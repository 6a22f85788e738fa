//! From one graph to the next: which commands, in which order.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::MediaGraph;
use crate::ids::{CallSid, ChannelId, NodeId};
use crate::media::{MediaCommand, Port};

/// A media command for one node.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NodeCommand {
    /// For whom.
    pub node: NodeId,
    /// Leg that it is about.
    pub leg: CallSid,
    /// What to do.
    pub command: MediaCommand,
}

/// The commands that lead from `old` to `new`, in steps. Within a step the commands of one node
/// are carried out in order; a step begins when every command of the step before has been answered.
///
/// 1. New channels are opened at both ends, and what needs no new channel is made.
/// 2. What uses a new channel is made.
/// 3. What is not needed any more is broken. Without new channels this is the end of step 1: a
///    port has one source, so making the new wire has already replaced the old one.
///
/// To roll back after a refusal, apply `difference(new, old)`.
pub fn difference(old: &MediaGraph, new: &MediaGraph) -> Vec<Vec<NodeCommand>> {
    let opened: BTreeSet<ChannelId> =
        new.channels.keys().filter(|id| !old.channels.contains_key(id)).copied().collect();
    let mut first = open_channels(new, &opened);
    let mut second = Vec::new();
    let uses_new = |port: &Port| matches!(port, Port::Channel(id) if opened.contains(id));

    for wire in new.wires.difference(&old.wires) {
        let command = MediaCommand::Link { from: wire.from, to: wire.to, path: wire.path };
        let Some(leg) = new.leg_of(wire.to) else { continue };
        let later = uses_new(&wire.from) || uses_new(&wire.to);
        let step = if later { &mut second } else { &mut first };
        step.push(NodeCommand { node: wire.node.clone(), leg, command });
    }
    // Players first: a listener that waits for one, or stops it, must find it there.
    for players in [true, false] {
        for (op, processor) in &new.processors {
            let play = matches!(processor.command, MediaCommand::Play { .. });
            if play != players || old.processors.get(op) == Some(processor) {
                continue;
            }
            let later = port_of_program(&processor.command).is_some_and(|port| uses_new(&port));
            let step = if later { &mut second } else { &mut first };
            step.push(NodeCommand {
                node: processor.node.clone(),
                leg: processor.leg,
                command: processor.command.clone(),
            });
        }
    }
    let third = broken(old, new);
    if second.is_empty() {
        first.extend(third);
        return [first].into_iter().filter(|step| !step.is_empty()).collect();
    }
    [first, second, third].into_iter().filter(|step| !step.is_empty()).collect()
}

fn open_channels(new: &MediaGraph, opened: &BTreeSet<ChannelId>) -> Vec<NodeCommand> {
    let mut commands = Vec::new();
    for (id, channel) in new.channels.iter().filter(|(id, _)| opened.contains(id)) {
        for (node, peer) in [(&channel.far, &channel.home), (&channel.home, &channel.far)] {
            let command = MediaCommand::OpenChannel {
                channel: *id,
                peer: peer.clone(),
                codec: channel.codec,
                telephone_event: channel.telephone_event,
            };
            commands.push(NodeCommand { node: node.clone(), leg: channel.leg, command });
        }
    }
    commands
}

fn broken(old: &MediaGraph, new: &MediaGraph) -> Vec<NodeCommand> {
    let mut commands = Vec::new();
    for (op, processor) in &old.processors {
        if !new.processors.contains_key(op) {
            let command = MediaCommand::Stop { op: *op };
            let (node, leg) = (processor.node.clone(), processor.leg);
            commands.push(NodeCommand { node, leg, command });
        }
    }
    for wire in old.wires.difference(&new.wires) {
        // The same port with another source was replaced when the new wire was made.
        let replaced = new.wires.iter().any(|w| w.node == wire.node && w.to == wire.to);
        if replaced {
            continue;
        }
        let Some(leg) = old.leg_of(wire.to) else { continue };
        let command = MediaCommand::Unlink { from: wire.from, to: wire.to };
        commands.push(NodeCommand { node: wire.node.clone(), leg, command });
    }
    for (id, channel) in &old.channels {
        if new.channels.contains_key(id) {
            continue;
        }
        for node in [&channel.home, &channel.far] {
            let command = MediaCommand::CloseChannel { channel: *id };
            commands.push(NodeCommand { node: node.clone(), leg: channel.leg, command });
        }
    }
    commands
}

fn port_of_program(command: &MediaCommand) -> Option<Port> {
    match command {
        MediaCommand::Play { port, .. }
        | MediaCommand::Collect { port, .. }
        | MediaCommand::Record { port, .. }
        | MediaCommand::Watch { port, .. } => Some(*port),
        _ => None,
    }
}
