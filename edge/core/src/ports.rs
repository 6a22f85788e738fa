//! Ports (legs and trunk channels) and the keys under which workers know them.

use std::collections::VecDeque;
use std::net::SocketAddr;

use edge_media::command::{PortKey, SessionKey};
use link_proto::media::AudioCodec;
use link_proto::{CallSid, ChannelId};

/// Places with generations. The place freed longest ago is used first, so that late packets and
/// events of its former use have died out.
#[derive(Debug)]
struct Places {
    base: u32,
    size_max: u32,
    generations: Vec<u32>,
    free: VecDeque<u32>,
}

impl Places {
    fn new(base: u32, size_max: u32) -> Self {
        Self { base, size_max, generations: Vec::new(), free: VecDeque::new() }
    }

    fn take(&mut self) -> Option<(u32, u32)> {
        let used = u32::try_from(self.generations.len()).ok()?;
        let place = if used < self.size_max {
            self.generations.push(0);
            used
        } else {
            self.free.pop_front()?
        };
        let generation = self.generations.get_mut(place as usize)?;
        *generation = generation.wrapping_add(1);
        Some((self.base.checked_add(place)?, *generation))
    }

    fn give_back(&mut self, index: u32) {
        if let Some(place) = index.checked_sub(self.base) {
            self.free.push_back(place);
        }
    }
}

/// What a port belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PortOwner {
    Leg(CallSid),
    Channel(ChannelId),
}

/// Life of a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PortState {
    /// The shell binds sockets.
    Allocating,
    /// The worker knows it.
    Ready,
    /// The worker has been told to remove it, or the shell to release it.
    Removing,
}

/// One port.
#[derive(Debug, Clone)]
pub(crate) struct PortRecord {
    pub(crate) session: CallSid,
    pub(crate) owner: PortOwner,
    pub(crate) worker: u16,
    pub(crate) state: PortState,
    /// Port that feeds this one, as commanded.
    pub(crate) source: Option<PortKey>,
    /// What it is fed with has another codec.
    pub(crate) transcoding: bool,
    /// Advertised RTP and RTCP addresses of a leg.
    pub(crate) addresses: Option<(SocketAddr, SocketAddr)>,
    /// Peer number and codec of a channel.
    pub(crate) channel: Option<(u32, AudioCodec)>,
    /// The trunk of the channel is usable.
    pub(crate) trunk_up: bool,
    /// The channel has not fallen silent.
    pub(crate) heard: bool,
}

/// All ports of a shard.
#[derive(Debug)]
pub(crate) struct Ports {
    places: Places,
    sessions: Places,
    /// By place, base subtracted.
    slots: Vec<Option<(PortKey, PortRecord)>>,
    worker_ports: Vec<u32>,
}

impl Ports {
    pub(crate) fn new(shard: u32, ports_max: u32, workers: u16) -> Self {
        let base = shard.saturating_mul(ports_max);
        let workers = usize::from(workers.max(1));
        Self {
            places: Places::new(base, ports_max),
            sessions: Places::new(base, ports_max),
            slots: Vec::new(),
            worker_ports: vec![0; workers],
        }
    }

    pub(crate) fn new_session(&mut self) -> Option<SessionKey> {
        let (index, generation) = self.sessions.take()?;
        Some(SessionKey { index, generation })
    }

    pub(crate) fn drop_session(&mut self, key: SessionKey) {
        self.sessions.give_back(key.index);
    }

    /// The worker with the fewest ports.
    pub(crate) fn least_loaded_worker(&self) -> u16 {
        let least = self.worker_ports.iter().enumerate().min_by_key(|(_, ports)| **ports);
        least.and_then(|(worker, _)| u16::try_from(worker).ok()).unwrap_or(0)
    }

    pub(crate) fn insert(&mut self, record: PortRecord) -> Option<PortKey> {
        let (index, generation) = self.places.take()?;
        let key = PortKey { index, generation };
        let place = (index - self.places.base) as usize;
        if self.slots.len() <= place {
            self.slots.resize(place + 1, None);
        }
        if let Some(ports) = self.worker_ports.get_mut(usize::from(record.worker)) {
            *ports += 1;
        }
        *self.slots.get_mut(place)? = Some((key, record));
        Some(key)
    }

    fn place(&self, key: PortKey) -> Option<usize> {
        key.index.checked_sub(self.places.base).map(|place| place as usize)
    }

    pub(crate) fn get(&self, key: PortKey) -> Option<&PortRecord> {
        let slot = self.slots.get(self.place(key)?)?.as_ref()?;
        (slot.0 == key).then_some(&slot.1)
    }

    pub(crate) fn get_mut(&mut self, key: PortKey) -> Option<&mut PortRecord> {
        let place = self.place(key)?;
        let slot = self.slots.get_mut(place)?.as_mut()?;
        (slot.0 == key).then_some(&mut slot.1)
    }

    /// Forgets a port.
    pub(crate) fn remove(&mut self, key: PortKey) -> Option<PortRecord> {
        self.get(key)?;
        let place = self.place(key)?;
        let (_, record) = self.slots.get_mut(place)?.take()?;
        if let Some(ports) = self.worker_ports.get_mut(usize::from(record.worker)) {
            *ports = ports.saturating_sub(1);
        }
        self.places.give_back(key.index);
        Some(record)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (PortKey, &PortRecord)> {
        self.slots.iter().flatten().map(|(key, record)| (*key, record))
    }

    pub(crate) fn len(&self) -> usize {
        self.slots.iter().flatten().count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(worker: u16) -> PortRecord {
        PortRecord {
            session: CallSid([1; 16]),
            owner: PortOwner::Leg(CallSid([1; 16])),
            worker,
            state: PortState::Allocating,
            source: None,
            transcoding: false,
            addresses: None,
            channel: None,
            trunk_up: true,
            heard: true,
        }
    }

    #[test]
    fn a_key_of_a_former_use_finds_nothing() {
        let mut ports = Ports::new(2, 2, 2);
        let first = ports.insert(record(0)).unwrap();
        let second = ports.insert(record(1)).unwrap();
        assert_eq!((first.index, second.index), (4, 5));
        assert!(ports.insert(record(0)).is_none());
        assert!(ports.remove(first).is_some());
        assert!(ports.remove(first).is_none());
        let third = ports.insert(record(1)).unwrap();
        assert_eq!(third.index, first.index);
        assert!(ports.get(first).is_none() && ports.get(third).is_some());
        assert_eq!(ports.least_loaded_worker(), 0);
        assert!(ports.get(PortKey { index: 0, generation: 1 }).is_none());
        assert_eq!(ports.len(), 2);
    }
}
