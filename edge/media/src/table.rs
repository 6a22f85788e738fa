//! The ports of a worker: found by key, by channel or by slot.

use link_proto::ChannelId;

use crate::command::PortKey;
use crate::port::Port;

const NONE: u32 = u32::MAX;

/// Bytes of one place.
pub(crate) const SLOT_BYTES: usize = size_of::<Option<Port>>();

#[derive(Debug)]
pub(crate) struct PortTable {
    by_index: Vec<u32>,
    slots: Vec<Option<Port>>,
    free: Vec<u32>,
    /// Sorted; few enough that insertion may move the rest.
    channels: Vec<(u32, ChannelId, u32)>,
}

impl PortTable {
    pub(crate) fn new(ports_edge_max: u32, ports_max: u32) -> Self {
        let count = ports_max as usize;
        Self {
            by_index: vec![NONE; ports_edge_max as usize],
            slots: (0..count).map(|_| None).collect(),
            free: (0..ports_max).rev().collect(),
            channels: Vec::with_capacity(count),
        }
    }

    pub(crate) fn find(&self, key: PortKey) -> Option<u32> {
        let slot = *self.by_index.get(key.index as usize)?;
        let port = self.slots.get(slot as usize)?.as_ref()?;
        (port.key == key).then_some(slot)
    }

    /// As [`Self::find`], without a look at the port itself.
    pub(crate) fn soon(&self, key: PortKey) -> Option<u32> {
        self.by_index.get(key.index as usize).copied().filter(|slot| *slot != NONE)
    }

    /// Where the port of a slot lies, or would lie; nothing is read.
    pub(crate) fn place(&self, slot: u32) -> Option<*const u8> {
        self.slots.get(slot as usize).map(|port| (&raw const *port).cast())
    }

    pub(crate) fn find_channel(&self, peer: u32, channel: ChannelId) -> Option<u32> {
        let at = self.place_of_channel(peer, channel).ok()?;
        self.channels.get(at).map(|(_, _, slot)| *slot)
    }

    fn place_of_channel(&self, peer: u32, channel: ChannelId) -> Result<usize, usize> {
        self.channels.binary_search_by_key(&(peer, channel), |(peer, channel, _)| (*peer, *channel))
    }

    /// `None` if there is no room, or the index is out of range or still in use.
    pub(crate) fn insert(&mut self, port: Port) -> Option<u32> {
        let entry = self.by_index.get_mut(port.key.index as usize)?;
        if *entry != NONE {
            return None;
        }
        let slot = self.free.pop()?;
        *entry = slot;
        *self.slots.get_mut(slot as usize)? = Some(port);
        Some(slot)
    }

    pub(crate) fn name_channel(&mut self, peer: u32, channel: ChannelId, slot: u32) {
        match self.place_of_channel(peer, channel) {
            Ok(at) => {
                if let Some(entry) = self.channels.get_mut(at) {
                    entry.2 = slot;
                }
            }
            Err(at) => self.channels.insert(at, (peer, channel, slot)),
        }
    }

    pub(crate) fn remove(&mut self, slot: u32) -> Option<Port> {
        let port = self.slots.get_mut(slot as usize)?.take()?;
        if let Some(entry) = self.by_index.get_mut(port.key.index as usize) {
            *entry = NONE;
        }
        self.channels.retain(|(_, _, other)| *other != slot);
        self.free.push(slot);
        Some(port)
    }

    pub(crate) fn get(&self, slot: u32) -> Option<&Port> {
        self.slots.get(slot as usize)?.as_ref()
    }

    pub(crate) fn get_mut(&mut self, slot: u32) -> Option<&mut Port> {
        self.slots.get_mut(slot as usize)?.as_mut()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Port> {
        self.slots.iter().flatten()
    }

    /// Slots in use are below this.
    pub(crate) fn places(&self) -> u32 {
        u32::try_from(self.slots.len()).unwrap_or(u32::MAX)
    }

    pub(crate) fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }
}
