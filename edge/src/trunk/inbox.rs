//! Channels that packets of one peer are for, and the aliases under which they are to be sent.
//! Sans-IO.

use std::collections::VecDeque;

use link_proto::ChannelId;

use super::outbox::ChannelMap;
use super::wire::{Alias, GENERATIONS, SLOTS_MAX};

/// A slot rests until so many others are free: with the generations, thousands of channels come
/// and go before an alias means another channel.
const RESTING_MIN: usize = 256;

#[derive(Debug, Clone, Copy)]
struct Open {
    worker: u16,
    alias: Option<Alias>,
    /// Waits to be announced.
    announces: bool,
}

#[derive(Debug, Clone, Copy)]
struct Slot {
    generation: u8,
    channel: Option<(ChannelId, u16)>,
}

/// The open channels of one peer.
#[derive(Debug, Default)]
pub struct Inbox {
    channels: ChannelMap<Open>,
    slots: Vec<Slot>,
    free: VecDeque<u16>,
    announcements: VecDeque<ChannelId>,
}

impl Inbox {
    /// Packets of this channel go to that worker.
    pub fn open(&mut self, channel: ChannelId, worker: u16) {
        if let Some(open) = self.channels.get_mut(&channel) {
            open.worker = worker;
            if let Some(alias) = open.alias
                && let Some(slot) = self.slots.get_mut(usize::from(alias.slot))
            {
                slot.channel = Some((channel, worker));
            }
            return;
        }
        let alias = self.take_slot(channel, worker);
        self.channels.insert(channel, Open { worker, alias, announces: false });
        self.announce(channel);
    }

    /// None when all slots are taken: such channels are sent under their number.
    fn take_slot(&mut self, channel: ChannelId, worker: u16) -> Option<Alias> {
        let channel = Some((channel, worker));
        let fresh = u16::try_from(self.slots.len()).ok().filter(|slot| *slot < SLOTS_MAX);
        if self.free.len() <= RESTING_MIN
            && let Some(slot) = fresh
        {
            self.slots.push(Slot { generation: 0, channel });
            return Some(Alias { slot, generation: 0 });
        }
        let index = self.free.pop_front()?;
        let slot = self.slots.get_mut(usize::from(index))?;
        slot.generation = (slot.generation + 1) % GENERATIONS;
        slot.channel = channel;
        Some(Alias { slot: index, generation: slot.generation })
    }

    /// The channel is no longer open.
    pub fn close(&mut self, channel: ChannelId) {
        let Some(Open { alias: Some(alias), .. }) = self.channels.remove(&channel) else { return };
        if let Some(slot) = self.slots.get_mut(usize::from(alias.slot)) {
            slot.channel = None;
            self.free.push_back(alias.slot);
        }
    }

    /// Whether the channel is open.
    pub fn is_open(&self, channel: ChannelId) -> bool {
        self.channels.contains_key(&channel)
    }

    /// Channel and worker of a packet under an alias.
    pub fn by_alias(&self, alias: Alias) -> Option<(ChannelId, u16)> {
        let slot = self.slots.get(usize::from(alias.slot))?;
        if slot.generation == alias.generation { slot.channel } else { None }
    }

    /// Worker of a packet under its channel's number. The peer seems not to know the alias, so it
    /// is announced again.
    pub fn by_channel(&mut self, channel: ChannelId) -> Option<u16> {
        let worker = self.channels.get(&channel)?.worker;
        self.announce(channel);
        Some(worker)
    }

    fn announce(&mut self, channel: ChannelId) {
        if let Some(open) = self.channels.get_mut(&channel)
            && open.alias.is_some()
            && !std::mem::replace(&mut open.announces, true)
        {
            self.announcements.push_back(channel);
        }
    }

    /// A new connection: everything is announced again.
    pub fn announce_all(&mut self) {
        let mut channels: Vec<_> = self.channels.keys().copied().collect();
        channels.sort_unstable();
        channels.into_iter().for_each(|channel| self.announce(channel));
    }

    /// Something is to be announced.
    pub fn announces(&self) -> bool {
        !self.announcements.is_empty()
    }

    /// The next alias to announce.
    pub fn next_announcement(&mut self) -> Option<(ChannelId, Alias)> {
        loop {
            let channel = self.announcements.pop_front()?;
            if let Some(open) = self.channels.get_mut(&channel) {
                open.announces = false;
                if let Some(alias) = open.alias {
                    return Some((channel, alias));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn announced(inbox: &mut Inbox) -> Vec<(ChannelId, Alias)> {
        std::iter::from_fn(|| inbox.next_announcement()).collect()
    }

    #[test]
    fn channels_are_found_by_alias_and_by_number() {
        let mut inbox = Inbox::default();
        inbox.open(ChannelId(5), 1);
        let [(channel, alias)] = announced(&mut inbox)[..] else { panic!("one announcement") };
        assert_eq!(channel, ChannelId(5));
        assert_eq!(inbox.by_alias(alias), Some((ChannelId(5), 1)));
        // Moved to another worker.
        inbox.open(ChannelId(5), 2);
        assert_eq!(inbox.by_alias(alias), Some((ChannelId(5), 2)));
        assert!(!inbox.announces());
        // A packet in full means that the peer has not heard of it; two are announced once.
        assert_eq!(inbox.by_channel(ChannelId(5)), Some(2));
        assert_eq!(inbox.by_channel(ChannelId(5)), Some(2));
        assert_eq!(announced(&mut inbox), [(ChannelId(5), alias)]);
        inbox.announce_all();
        inbox.close(ChannelId(5));
        assert_eq!(announced(&mut inbox), []);
        assert_eq!((inbox.by_alias(alias), inbox.by_channel(ChannelId(5))), (None, None));
        let foreign = Alias { slot: 900, ..alias };
        assert_eq!(inbox.by_alias(foreign), None);
    }

    #[test]
    fn an_alias_means_another_channel_only_after_thousands() {
        let mut inbox = Inbox::default();
        inbox.open(ChannelId(0), 0);
        let (_, first) = announced(&mut inbox)[0];
        inbox.close(ChannelId(0));
        let mut uses = 0u64;
        while inbox.by_alias(first).is_none() {
            uses += 1;
            inbox.open(ChannelId(uses), 0);
            announced(&mut inbox);
            if inbox.by_alias(first).is_none() {
                inbox.close(ChannelId(uses));
            }
        }
        assert!(uses > 5_000, "{uses}");
    }

    #[test]
    fn with_all_slots_taken_channels_keep_their_numbers() {
        let mut inbox = Inbox::default();
        for n in 0..u64::from(SLOTS_MAX) + 10 {
            inbox.open(ChannelId(n), 3);
        }
        assert_eq!(announced(&mut inbox).len(), usize::from(SLOTS_MAX));
        assert_eq!(inbox.by_channel(ChannelId(65_540)), Some(3));
        assert!(!inbox.announces());
    }
}
