//! The table of transactions. `U` is whatever the user of a transaction wants to find there.

use std::collections::BTreeMap;
use std::time::Instant;

use super::{
    ClientInvite, ClientKey, ClientNonInvite, MergeKey, ServerInvite, ServerKey, ServerNonInvite,
    client_invite, client_non_invite, server_invite, server_non_invite,
};
use crate::msg::Message;
use crate::transport::Destination;

/// Identity of a transaction, unique for the life of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TransactionId(pub u64);

/// One of the four.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub enum Machine {
    ClientInvite(ClientInvite),
    ClientNonInvite(ClientNonInvite),
    ServerInvite(ServerInvite),
    ServerNonInvite(ServerNonInvite),
}

impl Machine {
    /// When it next wants `on_timer`.
    pub fn deadline(&self) -> Option<Instant> {
        match self {
            Machine::ClientInvite(machine) => machine.deadline(),
            Machine::ClientNonInvite(machine) => machine.deadline(),
            Machine::ServerInvite(machine) => machine.deadline(),
            Machine::ServerNonInvite(machine) => machine.deadline(),
        }
    }

    /// True if it is over.
    pub fn is_terminated(&self) -> bool {
        match self {
            Machine::ClientInvite(m) => m.state() == client_invite::State::Terminated,
            Machine::ClientNonInvite(m) => m.state() == client_non_invite::State::Terminated,
            Machine::ServerInvite(m) => m.state() == server_invite::State::Terminated,
            Machine::ServerNonInvite(m) => m.state() == server_non_invite::State::Terminated,
        }
    }
}

/// A transaction in the table.
#[derive(Clone, Debug)]
pub struct Entry<U> {
    /// The machine.
    pub machine: Machine,
    /// Who uses it.
    pub user: U,
    /// Where its messages go.
    pub peer: Destination,
    /// The request as sent or received.
    pub request: Message,
    client_key: Option<ClientKey>,
    server_key: Option<ServerKey>,
    merge_key: Option<MergeKey>,
}

/// All transactions of an endpoint.
#[derive(Clone, Debug)]
pub struct Table<U> {
    next_id: u64,
    entries: BTreeMap<TransactionId, Entry<U>>,
    clients: BTreeMap<ClientKey, TransactionId>,
    servers: BTreeMap<ServerKey, TransactionId>,
    merges: BTreeMap<MergeKey, TransactionId>,
}

impl<U> Default for Table<U> {
    fn default() -> Self {
        Table {
            next_id: 1,
            entries: BTreeMap::new(),
            clients: BTreeMap::new(),
            servers: BTreeMap::new(),
            merges: BTreeMap::new(),
        }
    }
}

impl<U> Table<U> {
    /// Transactions alive.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// True if there is none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Adds a client transaction.
    pub fn insert_client(
        &mut self,
        key: ClientKey,
        machine: Machine,
        user: U,
        peer: Destination,
        request: Message,
    ) -> TransactionId {
        let id = self.mint_id();
        self.clients.insert(key.clone(), id);
        let client_key = Some(key);
        let (server_key, merge_key) = (None, None);
        let entry = Entry { machine, user, peer, request, client_key, server_key, merge_key };
        self.entries.insert(id, entry);
        id
    }

    /// Adds a server transaction.
    pub fn insert_server(
        &mut self,
        key: ServerKey,
        machine: Machine,
        user: U,
        peer: Destination,
        request: Message,
    ) -> TransactionId {
        let id = self.mint_id();
        self.servers.insert(key.clone(), id);
        let merge_key = MergeKey::of_request(&request);
        if let Some(merge_key) = &merge_key {
            self.merges.entry(merge_key.clone()).or_insert(id);
        }
        let server_key = Some(key);
        let client_key = None;
        let entry = Entry { machine, user, peer, request, client_key, server_key, merge_key };
        self.entries.insert(id, entry);
        id
    }

    /// The client transaction that a response belongs to.
    pub fn find_client(&self, key: &ClientKey) -> Option<TransactionId> {
        self.clients.get(key).copied()
    }

    /// The server transaction that a request belongs to.
    pub fn find_server(&self, key: &ServerKey) -> Option<TransactionId> {
        self.servers.get(key).copied()
    }

    /// A transaction of a request with the same identity that came by another way.
    pub fn find_merged(&self, key: &MergeKey) -> Option<TransactionId> {
        self.merges.get(key).copied()
    }

    /// A transaction.
    pub fn entry(&self, id: TransactionId) -> Option<&Entry<U>> {
        self.entries.get(&id)
    }

    /// A transaction, to be changed.
    pub fn entry_mut(&mut self, id: TransactionId) -> Option<&mut Entry<U>> {
        self.entries.get_mut(&id)
    }

    /// Removes a transaction.
    pub fn remove(&mut self, id: TransactionId) -> Option<Entry<U>> {
        let entry = self.entries.remove(&id)?;
        if let Some(key) = &entry.client_key {
            self.clients.remove(key);
        }
        if let Some(key) = &entry.server_key {
            self.servers.remove(key);
        }
        if let Some(key) = &entry.merge_key
            && self.merges.get(key) == Some(&id)
        {
            self.merges.remove(key);
        }
        Some(entry)
    }

    /// Ids of the transactions with this peer.
    pub fn with_peer(&self, peer: &Destination) -> Vec<TransactionId> {
        let same = |(_, entry): &(&TransactionId, &Entry<U>)| entry.peer.same_peer(peer);
        self.entries.iter().filter(same).map(|(id, _)| *id).collect()
    }

    fn mint_id(&mut self) -> TransactionId {
        let id = TransactionId(self.next_id);
        self.next_id += 1;
        id
    }
}
