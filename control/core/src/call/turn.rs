//! One input's turn at one session: what it may read, what it wants done.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use link_proto::message::Load;
use link_proto::table::{NodeEntry, ResourceUse, Tables};
use link_proto::{AccountSid, CallSid, NodeId};
use rand::rngs::StdRng;

use crate::core::{CoreConfig, Metrics};
use crate::directory::{Directory, UrlMethod};
use crate::io::{Effect, FetchId, HttpRequest, MediaRequestId, Output, StoreOp};
use crate::webhook::{request, seal};

/// Nodes as they are now.
#[derive(Debug, Default)]
pub(crate) struct Nodes {
    /// By name: from the directory, and from hellos.
    pub known: BTreeMap<NodeId, NodeEntry>,
    /// Connected, with the boot number of each.
    pub up: BTreeMap<NodeId, u64>,
    /// What goes to the edges.
    pub tables: Tables,
    /// Connected ones that take no new calls.
    pub draining: BTreeSet<NodeId>,
    /// What our own sessions use, the one whose turn it is left out.
    pub used: BTreeMap<NodeId, ResourceUse>,
    /// What others use.
    pub foreign: BTreeMap<NodeId, Foreign>,
}

/// What a node does beyond what our sessions want of it: for other control nodes, and by its own
/// table. Its report and our count are not of the same moment, so only what two reports in a row
/// agree on is believed.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Foreign {
    last: ResourceUse,
    pub agreed: ResourceUse,
}

impl Nodes {
    pub(crate) fn entry(&self, node: &NodeId) -> Option<&NodeEntry> {
        self.known.get(node)
    }

    /// Whether a node may get new legs.
    pub(crate) fn takes_calls(&self, node: &NodeId) -> bool {
        !self.draining.contains(node)
    }

    /// A node has told its load. True if it began or ended to drain.
    pub(crate) fn loaded(&mut self, node: &NodeId, load: &Load) -> bool {
        let own = self.used.get(node).copied().unwrap_or_default();
        let beyond = load.used.zip(own, u32::saturating_sub);
        let foreign = self.foreign.entry(node.clone()).or_default();
        foreign.agreed = beyond.zip(foreign.last, u32::min);
        foreign.last = beyond;
        if load.draining { self.draining.insert(node.clone()) } else { self.draining.remove(node) }
    }

    /// Counts what a session uses.
    pub(crate) fn occupy(&mut self, usage: BTreeMap<NodeId, ResourceUse>) {
        for (node, usage) in usage {
            let used = self.used.entry(node).or_default();
            *used = used.zip(usage, u32::saturating_add);
        }
    }

    /// The reverse of [`Self::occupy`].
    pub(crate) fn release(&mut self, usage: BTreeMap<NodeId, ResourceUse>) {
        for (node, usage) in usage {
            if let Some(used) = self.used.get_mut(&node) {
                *used = used.zip(usage, u32::saturating_sub);
            }
        }
    }

    /// What is used of each node besides what a session has already: that it may keep, even if
    /// the limit was lowered.
    pub(crate) fn used_beside(
        &self,
        own: &BTreeMap<NodeId, ResourceUse>,
    ) -> BTreeMap<NodeId, ResourceUse> {
        let of = |entry: &NodeEntry| {
            let foreign = self.foreign.get(&entry.node).map(|f| f.agreed).unwrap_or_default();
            let used = self.used.get(&entry.node).copied().unwrap_or_default();
            let used = used.zip(foreign, u32::saturating_add);
            let own = own.get(&entry.node).copied().unwrap_or_default();
            let max = |max: Option<u32>| max.unwrap_or(u32::MAX);
            let limits = ResourceUse {
                plays: max(entry.limits.plays_max),
                collects: max(entry.limits.collects_max),
                records: max(entry.limits.records_max),
                transcodes: max(entry.limits.transcodes_max),
            };
            let kept = limits.zip(own, u32::saturating_sub);
            // Without anything of its own a session finds what is there.
            let used = used.zip(kept, |used, kept| used.min(kept));
            (entry.node.clone(), used)
        };
        self.known.values().map(of).collect()
    }
}

/// Who waits for which result. Results name requests of this process only; after a restart the
/// sessions ask again.
#[derive(Debug, Default)]
pub(crate) struct Waiting {
    next: u64,
    pub fetches: BTreeMap<FetchId, CallSid>,
    /// Session, leg that is screened, slot.
    pub media: BTreeMap<MediaRequestId, (CallSid, Option<CallSid>, u64)>,
}

impl Waiting {
    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    pub(crate) fn fetch(&mut self, session: CallSid) -> FetchId {
        let id = FetchId(self.number());
        self.fetches.insert(id, session);
        id
    }

    /// `screened` and `slot` tell the session which of its requests it is.
    pub(crate) fn media(
        &mut self,
        session: CallSid,
        screened: Option<CallSid>,
        slot: u64,
    ) -> MediaRequestId {
        let id = MediaRequestId(self.number());
        self.media.insert(id, (session, screened, slot));
        id
    }
}

pub(crate) struct Turn<'a> {
    pub now: Instant,
    pub unix_ms: u64,
    pub config: &'a CoreConfig,
    pub directory: &'a Directory,
    pub nodes: &'a Nodes,
    pub rng: &'a mut StdRng,
    pub waiting: &'a mut Waiting,
    pub metrics: &'a mut Metrics,
    pub out: Output,
    /// Legs that this turn has created.
    pub new_legs: BTreeSet<CallSid>,
}

impl Turn<'_> {
    pub(crate) fn store(&mut self, op: StoreOp) {
        self.out.ops.push(op);
    }

    pub(crate) fn effect(&mut self, effect: Effect) {
        self.out.then.push(effect);
    }

    /// A request on behalf of a call: what the account wants encrypted is, and all of it is
    /// signed. The target is without fragment.
    pub(crate) fn request(
        &mut self,
        account: AccountSid,
        call: CallSid,
        target: &UrlMethod,
        mut params: Vec<(String, String)>,
        token: &str,
    ) -> HttpRequest {
        let found = self.directory.accounts.get(&account);
        let secret = found.map(|found| found.auth_token.as_str()).unwrap_or_default();
        if let Some(found) = found.filter(|found| !found.encrypted_parameters.is_empty()) {
            seal::seal(&mut params, found, account, call, self.rng);
        }
        request::build(&target.url, target.method, &params, secret, token, self.unix_ms)
    }

    /// Whether a parameter of this account's requests leaves encrypted.
    pub(crate) fn is_sealed(&self, account: &AccountSid, parameter: &str) -> bool {
        let account = self.directory.accounts.get(account);
        account.is_some_and(|account| account.encrypted_parameters.contains(parameter))
    }

    /// 32 hex digits.
    pub(crate) fn token(&mut self) -> String {
        use rand::RngExt as _;
        format!("{:032x}", self.rng.random::<u128>())
    }
}
