//! One media thread's streams in the kernel.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};
use std::sync::mpsc::SyncSender;

use crate::hops::{Way, Wish, is_known};
use crate::layout::{
    Body, LOCK_BUSY, LOCK_COUNT, LOCK_OFF, Progress, RawHop, RawStream, Stream, tag,
};
use crate::memory::Shared;
use crate::places::{NoSlot, Places};

/// The program holds a stream for well below a microsecond.
const SPINS_MAX: u32 = 100_000;

/// Names an offloaded stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId(u32);

impl StreamId {
    /// As a number.
    #[must_use]
    pub const fn number(self) -> u64 {
        self.0 as u64
    }

    /// From [`Self::number`].
    #[must_use]
    pub fn of(number: u64) -> Option<Self> {
        u32::try_from(number).ok().map(Self)
    }
}

/// Why a stream stays in user space.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// No place left.
    #[error("the table is full")]
    Full,
    /// The next hop is not known, or not yet: it is being looked for.
    #[error("the next hop is not known")]
    NoHop,
    /// IPv4 on one side and IPv6 on the other, or a clock that does not divide a second.
    #[error("the program cannot carry such a stream")]
    Unsuited,
    /// Another stream arrives at the same address.
    #[error("the address is taken")]
    Taken,
}

#[derive(Debug, Clone, Copy)]
struct Use {
    place: u32,
    streams: u32,
}

#[derive(Debug, Clone, Copy)]
struct Taken {
    tag: u32,
    way: Way,
}

/// Places that one thread gives out.
#[derive(Debug)]
pub(crate) struct Share {
    pub(crate) streams: std::ops::Range<u32>,
    pub(crate) hops: std::ops::Range<u32>,
}

/// A share of the streams, for one thread. Nothing here waits.
#[derive(Debug)]
pub struct StreamTable {
    places: Places,
    streams: Arc<Shared<RawStream>>,
    hops: Arc<Shared<RawHop>>,
    wishes: SyncSender<Wish>,
    first: u32,
    taken: Vec<Option<Taken>>,
    free: Vec<u32>,
    ways: BTreeMap<Way, Use>,
    hops_free: Vec<u32>,
    forced: u64,
}

impl StreamTable {
    pub(crate) fn new(
        places: Places,
        streams: Arc<Shared<RawStream>>,
        hops: Arc<Shared<RawHop>>,
        wishes: SyncSender<Wish>,
        share: Share,
    ) -> Self {
        Self {
            places,
            streams,
            hops,
            wishes,
            first: share.streams.start,
            taken: vec![None; share.streams.len()],
            free: share.streams.rev().collect(),
            ways: BTreeMap::new(),
            hops_free: share.hops.rev().collect(),
            forced: 0,
        }
    }

    /// Hands a stream to the kernel. From now on user space must not send for it until it has
    /// withdrawn it.
    ///
    /// # Errors
    /// See [`Refused`]; nothing has changed then.
    pub fn offload(&mut self, stream: &Stream) -> Result<StreamId, Refused> {
        let way = (stream.out_local.ip().to_canonical(), stream.out_peer.ip().to_canonical());
        if !stream.is_one_family() {
            return Err(Refused::Unsuited);
        }
        let hop = self.hop(way)?;
        let body = stream.body(hop).ok_or(Refused::Unsuited)?;
        let Some(&place) = self.free.last() else { return Err(Refused::Full) };
        let Some(raw) = self.streams.at(place) else { return Err(Refused::Full) };
        write(raw, body);
        let tag = tag(stream.local);
        if let Err(no_slot) = self.places.insert(tag, place) {
            turn_off(raw);
            return Err(match no_slot {
                NoSlot::Taken => Refused::Taken,
                NoSlot::Full => Refused::Full,
            });
        }
        self.free.pop();
        if let Some(taken) = self.taken.get_mut((place - self.first) as usize) {
            *taken = Some(Taken { tag, way });
        }
        if let Some(used) = self.ways.get_mut(&way) {
            used.streams += 1;
        }
        Ok(StreamId(place))
    }

    /// How far the kernel has come with a stream. It goes on meanwhile.
    #[must_use]
    pub fn progress(&self, id: StreamId) -> Option<Progress> {
        self.taken.get(id.0.checked_sub(self.first)? as usize)?.as_ref()?;
        let raw = self.streams.at(id.0)?;
        let lock = &raw.lock;
        for _ in 0..SPINS_MAX {
            let before = lock.load(Ordering::Acquire);
            if before & LOCK_BUSY == 0 {
                let progress = read(raw);
                fence(Ordering::Acquire);
                if lock.load(Ordering::Relaxed) == before {
                    return Some(progress);
                }
            }
            std::hint::spin_loop();
        }
        None
    }

    /// Takes a stream back, with everything that the kernel did. Its next packet goes up.
    pub fn withdraw(&mut self, id: StreamId) -> Option<Progress> {
        let at = id.0.checked_sub(self.first)? as usize;
        let Taken { tag, way } = self.taken.get_mut(at)?.take()?;
        let raw = self.streams.at(id.0)?;
        self.forced += u64::from(!turn_off(raw));
        let progress = read(raw);
        self.places.remove(tag, id.0);
        self.free.push(id.0);
        if let Some(used) = self.ways.get_mut(&way) {
            used.streams = used.streams.saturating_sub(1);
        }
        Some(progress)
    }

    /// Streams in the kernel.
    #[must_use]
    pub fn len(&self) -> usize {
        self.taken.len() - self.free.len()
    }

    /// No stream is in the kernel.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Streams that were taken back while the program held them for too long; their last packet may
    /// be missing in what was read.
    #[must_use]
    pub const fn forced(&self) -> u64 {
        self.forced
    }

    /// The place of a way's next hop, if that is known by now.
    fn hop(&mut self, way: Way) -> Result<u32, Refused> {
        if let Some(used) = self.ways.get(&way) {
            let known = is_known(&self.hops, used.place);
            return known.then_some(used.place).ok_or(Refused::NoHop);
        }
        if self.hops_free.is_empty() {
            let unused = self.ways.iter().find(|(_, used)| used.streams == 0);
            let unused = unused.map(|(way, _)| *way).ok_or(Refused::Full)?;
            self.forget(unused);
        }
        let place = self.hops_free.pop().ok_or(Refused::Full)?;
        if self.wishes.try_send(Wish { place, way: Some(way) }).is_err() {
            self.hops_free.push(place);
            return Err(Refused::NoHop);
        }
        self.ways.insert(way, Use { place, streams: 0 });
        Err(Refused::NoHop)
    }

    fn forget(&mut self, way: Way) {
        if let Some(used) = self.ways.remove(&way) {
            // The next wish for the place comes behind this one.
            let _ = self.wishes.try_send(Wish { place: used.place, way: None });
            self.hops_free.push(used.place);
        }
    }
}

impl Drop for StreamTable {
    fn drop(&mut self) {
        for at in 0..self.taken.len() {
            if let Ok(at) = u32::try_from(at) {
                self.withdraw(StreamId(self.first + at));
            }
        }
        let ways: Vec<Way> = self.ways.keys().copied().collect();
        ways.into_iter().for_each(|way| self.forget(way));
    }
}

fn read(raw: &RawStream) -> Progress {
    // SAFETY: inside the mapping; any bytes are valid. What the kernel writes meanwhile is found
    // out by the lock's word.
    unsafe { raw.body.get().read_volatile() }.progress()
}

/// Fills in a stream that is off and turns it on.
fn write(raw: &RawStream, body: Body) {
    // SAFETY: inside the mapping; the stream is off, so the kernel touches nothing but the lock.
    unsafe { raw.body.get().write_volatile(body) };
    let lock = &raw.lock;
    let word = lock.load(Ordering::Relaxed);
    lock.store((word & !(LOCK_BUSY | LOCK_OFF)).wrapping_add(LOCK_COUNT), Ordering::Release);
}

/// False if the program held the stream for longer than it ever should, and it was turned off
/// nevertheless.
fn turn_off(raw: &RawStream) -> bool {
    let lock = &raw.lock;
    for _ in 0..SPINS_MAX {
        let word = lock.load(Ordering::Acquire);
        if word & LOCK_OFF != 0 {
            return true;
        }
        if word & LOCK_BUSY == 0
            && lock
                .compare_exchange_weak(word, word | LOCK_OFF, Ordering::AcqRel, Ordering::Relaxed)
                .is_ok()
        {
            return true;
        }
        std::hint::spin_loop();
    }
    lock.fetch_or(LOCK_OFF, Ordering::AcqRel);
    false
}
