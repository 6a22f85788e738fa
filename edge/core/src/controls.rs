//! The control nodes of an edge: which are reachable, which one gets a new call, and what they say
//! about nodes and routes (LAT-02).

use std::collections::BTreeMap;

use link_proto::NodeId;
use link_proto::table::{NodeEntry, Tables};

use crate::config::ControlChoice;
use crate::io::ControlIndex;

#[derive(Debug)]
struct Control {
    choice: ControlChoice,
    connected: bool,
    tables: Option<Tables>,
}

/// All of them, in the order of the configuration.
#[derive(Debug)]
pub(crate) struct Controls(Vec<Control>);

impl Controls {
    pub(crate) fn new(choices: &[ControlChoice]) -> Self {
        let control =
            |choice: &ControlChoice| Control { choice: *choice, connected: false, tables: None };
        Self(choices.iter().map(control).collect())
    }

    pub(crate) fn is_connected(&self, control: ControlIndex) -> bool {
        self.0.get(usize::from(control.0)).is_some_and(|control| control.connected)
    }

    pub(crate) fn any_connected(&self) -> bool {
        self.0.iter().any(|control| control.connected)
    }

    /// False if nothing has changed.
    pub(crate) fn set_connected(&mut self, control: ControlIndex, connected: bool) -> bool {
        let Some(control) = self.0.get_mut(usize::from(control.0)) else { return false };
        std::mem::replace(&mut control.connected, connected) != connected
    }

    /// Who gets a new call: one of the best that are reachable, by weight. `roll` is random.
    pub(crate) fn choose(&self, roll: u32) -> Option<ControlIndex> {
        let connected = || self.0.iter().enumerate().filter(|(_, control)| control.connected);
        let best = connected().map(|(_, control)| control.choice.priority).min()?;
        let best = connected().filter(|(_, control)| control.choice.priority == best);
        let weights: Vec<(usize, u32)> =
            best.map(|(index, control)| (index, u32::from(control.choice.weight))).collect();
        let sum: u32 = weights.iter().map(|(_, weight)| weight).sum();
        let flat = sum == 0;
        let count = u32::try_from(weights.len()).ok()?;
        let mut left = roll.checked_rem(if flat { count } else { sum })?;
        for (index, weight) in weights {
            let weight = if flat { 1 } else { weight };
            match left.checked_sub(weight) {
                None => return u16::try_from(index).ok().map(ControlIndex),
                Some(rest) => left = rest,
            }
        }
        None
    }

    /// Whether a better node than this one would get the call if all were reachable.
    pub(crate) fn is_second_choice(&self, control: ControlIndex) -> bool {
        let best = self.0.iter().map(|control| control.choice.priority).min();
        let this = self.0.get(usize::from(control.0)).map(|control| control.choice.priority);
        this > best
    }

    /// Keeps what a control node pushes. False if it has pushed something newer before.
    pub(crate) fn take_tables(&mut self, control: ControlIndex, tables: Tables) -> bool {
        let Some(control) = self.0.get_mut(usize::from(control.0)) else { return false };
        if control.tables.as_ref().is_some_and(|old| old.version >= tables.version) {
            return false;
        }
        control.tables = Some(tables);
        true
    }

    /// The routes of the best node that has pushed any, reachable ones first, and the media nodes
    /// that any of them knows. `None` as long as none has pushed.
    pub(crate) fn tables(&self) -> Option<Tables> {
        let mut pushed: Vec<(&Control, &Tables)> =
            self.0.iter().filter_map(|c| c.tables.as_ref().map(|tables| (c, tables))).collect();
        pushed.sort_by_key(|(control, _)| (!control.connected, control.choice.priority));
        let (_, best) = pushed.first()?;
        let mut nodes: BTreeMap<NodeId, NodeEntry> = BTreeMap::new();
        for entry in pushed.iter().flat_map(|(_, tables)| &tables.nodes) {
            let known = nodes.get(&entry.node);
            if known.is_none_or(|known| entry.available && !known.available) {
                nodes.insert(entry.node.clone(), entry.clone());
            }
        }
        Some(Tables {
            version: pushed.iter().map(|(_, tables)| tables.version).max().unwrap_or_default(),
            nodes: nodes.into_values().collect(),
            routes: best.routes.clone(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn controls(choices: &[(u16, u16)]) -> Controls {
        let choice = |(priority, weight): &(u16, u16)| ControlChoice {
            priority: *priority,
            weight: *weight,
        };
        Controls::new(&choices.iter().map(choice).collect::<Vec<_>>())
    }

    #[test]
    fn new_calls_go_to_the_best_that_are_reachable_by_weight() {
        let mut controls = controls(&[(0, 1), (0, 3), (7, 1), (7, 0)]);
        let shares = |controls: &Controls| {
            let mut shares = [0; 4];
            for roll in 0..400 {
                if let Some(ControlIndex(index)) = controls.choose(roll) {
                    shares[usize::from(index)] += 1;
                }
            }
            shares
        };
        assert_eq!(controls.choose(0), None, "nobody is reachable");
        for index in 0..4 {
            assert!(controls.set_connected(ControlIndex(index), true));
        }
        assert!(!controls.set_connected(ControlIndex(0), true), "no change");
        assert_eq!(shares(&controls), [100, 300, 0, 0]);
        controls.set_connected(ControlIndex(1), false);
        assert_eq!(shares(&controls), [400, 0, 0, 0]);
        controls.set_connected(ControlIndex(0), false);
        assert_eq!(shares(&controls), [0, 0, 400, 0]);
        controls.set_connected(ControlIndex(2), false);
        assert_eq!(shares(&controls), [0, 0, 0, 400], "no weight is better than nobody");
        assert!(controls.is_second_choice(ControlIndex(3)));
        assert!(!controls.is_second_choice(ControlIndex(1)));
    }

    #[test]
    fn routes_are_those_of_the_best_and_nodes_those_of_all() {
        let mut controls = controls(&[(0, 1), (1, 1)]);
        assert_eq!(controls.tables(), None);
        let table = |version: u64, uri: &str, node: &str| Tables {
            version,
            nodes: vec![NodeEntry {
                node: NodeId::from(node),
                region: "r".into(),
                trunk_address: String::new(),
                resources: Default::default(),
                limits: Default::default(),
                core: false,
                available: true,
            }],
            routes: vec![link_proto::table::Route {
                prefix: String::new(),
                node: NodeId::from(node),
                uri: uri.to_owned(),
                without_instructions: false,
            }],
        };
        let route = |controls: &Controls| controls.tables().unwrap().routes[0].uri.clone();
        assert!(controls.take_tables(ControlIndex(1), table(9, "second", "b")));
        assert_eq!(route(&controls), "second");
        assert!(controls.take_tables(ControlIndex(0), table(5, "first", "a")));
        assert!(!controls.take_tables(ControlIndex(0), table(4, "old", "a")));
        assert_eq!(route(&controls), "first");
        controls.set_connected(ControlIndex(1), true);
        assert_eq!(route(&controls), "second", "reachable ones first");
        let merged = controls.tables().unwrap();
        assert_eq!((merged.version, merged.nodes.len()), (9, 2));
    }
}
