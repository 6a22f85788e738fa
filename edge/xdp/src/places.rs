//! Where the streams are, by the address at which they arrive: the program's own table, because a look
//! into a hash map of the kernel takes a good part of a packet's time there, and more cache lines.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::layout::{Bucket, HASH_FACTOR};
use crate::memory::Shared;

/// Streams for each bucket of eight when the table is full, at most. A bucket and its neighbour have room
/// for sixteen, so that even then no more than one in some ten thousand finds none.
const STREAMS_PER_BUCKET: u32 = 3;

/// How many buckets there are for so many streams: a power of two, and two at least.
pub(crate) const fn buckets(streams_max: u32) -> u32 {
    let wanted = streams_max.div_ceil(STREAMS_PER_BUCKET).next_power_of_two();
    if wanted < 2 { 2 } else { wanted }
}

/// How far down the bits of a hash are that number so many buckets.
pub(crate) const fn shift(buckets: u32) -> u32 {
    u32::BITS - buckets.ilog2()
}

/// Why a place could not be noted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NoSlot {
    Taken,
    Full,
}

/// The table. Each thread enters and removes what arrives at its own ports; no two do so with one tag
/// at a time.
#[derive(Debug, Clone)]
pub(crate) struct Places {
    buckets: Arc<Shared<Bucket>>,
    shift: u32,
}

const fn entry(tag: u32, place: u32) -> u64 {
    (tag as u64) << 32 | place as u64
}

impl Places {
    /// `count` as by [`buckets`].
    pub(crate) fn new(memory: Shared<Bucket>, count: u32) -> Self {
        Self { buckets: Arc::new(memory), shift: shift(count) }
    }

    /// All slots in which the tag can be, in the order in which the program looks.
    fn slots(&self, tag: u32) -> impl Iterator<Item = &AtomicU64> {
        let first = (tag ^ tag >> 15).wrapping_mul(HASH_FACTOR) >> self.shift;
        let buckets = [first, first ^ 1].map(|at| self.buckets.at(at));
        buckets.into_iter().flatten().flat_map(|bucket| &bucket.0)
    }

    /// From now on the program finds the stream.
    pub(crate) fn insert(&self, tag: u32, place: u32) -> Result<(), NoSlot> {
        if self.slots(tag).any(|slot| slot.load(Ordering::Relaxed) >> 32 == u64::from(tag)) {
            return Err(NoSlot::Taken);
        }
        // Another thread may be faster at a slot. The stream was written before.
        let (free, new) = (0, entry(tag, place));
        let enter = |slot: &AtomicU64| {
            slot.compare_exchange(free, new, Ordering::Release, Ordering::Relaxed).is_ok()
        };
        if self.slots(tag).any(enter) { Ok(()) } else { Err(NoSlot::Full) }
    }

    /// The program finds it no more. A packet may just have found it.
    pub(crate) fn remove(&self, tag: u32, place: u32) {
        let own = entry(tag, place);
        if let Some(slot) = self.slots(tag).find(|slot| slot.load(Ordering::Relaxed) == own) {
            slot.store(0, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(streams_max: u32) -> Places {
        let count = buckets(streams_max);
        let file = tempfile::tempfile().unwrap();
        file.set_len(u64::from(count) * size_of::<Bucket>() as u64).unwrap();
        Places::new(Shared::map(&file, count).unwrap(), count)
    }

    fn found(places: &Places, tag: u32) -> Option<u64> {
        let slots = places.slots(tag).map(|slot| slot.load(Ordering::Relaxed));
        slots.into_iter().find(|slot| slot >> 32 == u64::from(tag)).map(|slot| slot & 0xffff_ffff)
    }

    /// As a carrier's edge would have them: some addresses, of each the even ports of a range.
    fn tags(addresses: u8, ports: u16) -> Vec<u32> {
        let of = |address: u8| {
            (0..ports)
                .map(move |n| crate::layout::tag(([192, 0, 2, address], 20_000 + n * 2).into()))
        };
        (1..=addresses).flat_map(of).collect()
    }

    #[test]
    fn a_full_table_finds_them_all_and_none_that_went() {
        for (addresses, ports) in [(1, 20_000), (2, 10_000), (16, 1_000), (200, 50), (1, 3), (1, 1)]
        {
            let tags = tags(addresses, ports);
            let all = u32::try_from(tags.len()).unwrap();
            let places = places(all);
            let enter = |(tag, place): (&u32, u32)| places.insert(*tag, place).is_ok();
            let refused = tags.iter().zip(0..).filter(|entry| !enter(*entry)).count();
            assert!(refused * 10_000 <= tags.len(), "{refused} of {all} found no slot");
            let lost = |(tag, place): &(&u32, u64)| found(&places, **tag) != Some(*place);
            assert_eq!(tags.iter().zip(0..).filter(lost).count(), refused, "{addresses}, {ports}");
            for (tag, place) in tags.iter().zip(0..) {
                places.remove(*tag, place);
                assert_eq!(found(&places, *tag), None);
            }
            assert!(tags.iter().zip(0..).all(|(tag, place)| places.insert(*tag, place).is_ok()));
        }
    }

    #[test]
    fn a_tag_is_taken_until_its_own_place_gives_it_back() {
        let places = places(8);
        let tag = tags(1, 1)[0];
        assert_eq!(places.insert(tag, 7), Ok(()));
        assert_eq!(places.insert(tag, 8), Err(NoSlot::Taken));
        places.remove(tag, 8);
        assert_eq!(found(&places, tag), Some(7));
        places.remove(tag, 7);
        assert_eq!(places.insert(tag, 8), Ok(()));
    }

    #[test]
    fn sixteen_fit_where_all_want_the_same_bucket() {
        let places = places(1);
        let all = tags(1, 17);
        let entered: Vec<bool> = all.iter().map(|tag| places.insert(*tag, 0).is_ok()).collect();
        assert_eq!(entered, [[true; 16].as_slice(), &[false]].concat());
        places.remove(all[3], 0);
        assert_eq!(places.insert(all[16], 0), Ok(()));
    }

    /// Two media threads at neighbouring slots.
    #[test]
    fn threads_do_not_overwrite_each_other() {
        let places = places(16);
        let all = tags(2, 8);
        for _ in 0..200 {
            std::thread::scope(|scope| {
                for half in all.chunks(8) {
                    let places = &places;
                    scope.spawn(move || {
                        half.iter().zip(0..).for_each(|(tag, n)| {
                            assert_eq!(places.insert(*tag, n), Ok(()));
                        })
                    });
                }
            });
            let lost = all.iter().filter(|tag| found(&places, **tag).is_none()).count();
            assert_eq!(lost, 0);
            all.iter().zip((0..8).cycle()).for_each(|(tag, n)| places.remove(*tag, n));
        }
    }
}
