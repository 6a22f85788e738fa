//! Finds the next hop of streams and keeps it up to date, on a thread of its own.

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::Duration;

use crate::layout::{HOP_REDIRECT, RawHop, Target};
use crate::memory::Shared;
use crate::netlink::{Changes, Netlink, takes_redirected};

/// Changes of routes and neighbours are looked at so often.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// After so many looks everything is asked again, whether or not a change was told.
const LOOKS_PER_ROUND: u32 = 100;
/// Requests that may wait.
const WAITING_MAX: usize = 4_096;

/// From where to where.
pub(crate) type Way = (IpAddr, IpAddr);

/// A wish of a table: to have the way's next hop in the place, or nothing in it any more.
pub(crate) struct Wish {
    pub(crate) place: u32,
    pub(crate) way: Option<Way>,
}

/// Owner's end.
#[derive(Debug)]
pub(crate) struct Hops {
    wishes: SyncSender<Wish>,
    native: Arc<AtomicBool>,
}

impl Hops {
    /// Starts the thread; it is in the network namespace of the caller. It ends with the last one
    /// who may wish.
    ///
    /// # Errors
    /// Without netlink or a thread.
    pub(crate) fn start(memory: Arc<Shared<RawHop>>) -> io::Result<Self> {
        let (wishes, receiver) = sync_channel(WAITING_MAX);
        let native = Arc::new(AtomicBool::new(false));
        let finder = Finder {
            netlink: Netlink::route()?,
            changes: Changes::watch()?,
            memory,
            native: native.clone(),
            ways: BTreeMap::new(),
            written: 0,
        };
        let thread = std::thread::Builder::new().name("xdp-hops".to_owned());
        thread.spawn(move || finder.run(&receiver))?;
        Ok(Self { wishes, native })
    }

    /// For a table.
    pub(crate) fn wishes(&self) -> SyncSender<Wish> {
        self.wishes.clone()
    }

    /// The program runs in a driver: frames can be redirected only to interfaces whose driver takes
    /// them.
    pub(crate) fn set_native(&self) {
        self.native.store(true, Ordering::Relaxed);
    }
}

struct Finder {
    netlink: Netlink,
    changes: Changes,
    memory: Arc<Shared<RawHop>>,
    native: Arc<AtomicBool>,
    ways: BTreeMap<u32, (Way, Option<Target>)>,
    /// Versions are used once.
    written: u64,
}

impl Finder {
    fn run(mut self, wishes: &Receiver<Wish>) {
        let mut looks = 0;
        loop {
            match wishes.recv_timeout(LOOK_EVERY) {
                Ok(Wish { place, way: Some(way) }) => self.find(place, way),
                Ok(Wish { place, way: None }) => {
                    self.ways.remove(&place);
                    self.write(place, None);
                }
                Err(RecvTimeoutError::Timeout) => {
                    looks += 1;
                    if self.changes.any() || looks >= LOOKS_PER_ROUND {
                        looks = 0;
                        self.find_all();
                    }
                }
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    fn find_all(&mut self) {
        let ways: Vec<_> = self.ways.iter().map(|(place, (way, _))| (*place, *way)).collect();
        for (place, way) in ways {
            self.find(place, way);
        }
    }

    fn find(&mut self, place: u32, way: Way) {
        // What cannot be found now is looked for again at the next change.
        let found = self.look(way).ok().flatten();
        let before = self.ways.insert(place, (way, found));
        if before.is_none_or(|(old_way, old)| old_way != way || old != found) {
            self.write(place, found);
        }
    }

    fn look(&mut self, (local, peer): Way) -> io::Result<Option<Target>> {
        let Some(route) = self.netlink.route_to(local, peer)? else { return Ok(None) };
        let Some(link) = self.netlink.link(route.interface)? else { return Ok(None) };
        let Some(destination) = self.netlink.neighbour(route.interface, route.next)? else {
            return Ok(None);
        };
        let redirect = !self.native.load(Ordering::Relaxed)
            || takes_redirected(route.interface).unwrap_or(false);
        Ok(Some(Target {
            interface: route.interface,
            flags: if redirect { HOP_REDIRECT } else { 0 },
            mtu: u16::try_from(link.mtu).unwrap_or(u16::MAX),
            destination,
            source: link.address,
            reserved: 0,
        }))
    }

    /// The program sees a hop as it was or as it is, or none for a moment.
    fn write(&mut self, place: u32, target: Option<Target>) {
        let Some(hop) = self.memory.at(place) else { return };
        hop.version.store(0, Ordering::SeqCst);
        if let Some(target) = target {
            // SAFETY: inside the mapping; only this thread writes it, and the kernel does not use
            // what it reads while the version is 0 or has changed.
            unsafe { hop.target.get().write_volatile(target) };
            self.written += 1;
            hop.version.store(self.written, Ordering::Release);
        }
    }
}

/// Whether the program could use the hop now.
pub(crate) fn is_known(memory: &Shared<RawHop>, place: u32) -> bool {
    memory.at(place).is_some_and(|hop| hop.version.load(Ordering::Acquire) != 0)
}
