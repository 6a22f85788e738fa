//! The loaded program.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use aya::maps::{MapData, MapError, PerCpuArray};
use aya::programs::{ProgramError, Xdp};
use aya::{Ebpf, EbpfError, EbpfLoader};

use crate::attach::{AttachError, Attached, Mode, attach};
use crate::coalesce::Coalesced;
use crate::hops::Hops;
use crate::layout::{Bucket, RawHop, RawStream};
use crate::memory::Shared;
use crate::places::{Places, buckets, shift};
use crate::table::{Share, StreamTable};

static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/forward.o"));
pub(crate) const MISSING: &str = env!("EDGE_XDP_MISSING");

/// Capacities, divided evenly between tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Streams (two for a call) in all.
    pub streams_max: u32,
    /// Pairs of own and far addresses in all.
    pub hops_max: u32,
    /// Tables, one for each media thread.
    pub tables: u32,
}

impl Limits {
    /// Bytes that the kernel takes for the program's maps at start.
    #[must_use]
    pub fn memory_bytes(&self) -> u64 {
        let size = |count: u32, bytes: usize| u64::from(count) * bytes as u64;
        size(self.streams_max, size_of::<RawStream>())
            + size(buckets(self.streams_max), size_of::<Bucket>())
            + size(self.hops_max, size_of::<RawHop>())
    }
}

impl fmt::Display for Limits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kib = self.memory_bytes() / 1024;
        write!(f, "{} streams, {} next hops: {kib} KiB", self.streams_max, self.hops_max)
    }
}

/// Why the program is not there.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// It was not built.
    #[error("off: built without the kernel program ({MISSING})")]
    NotBuilt,
    /// The kernel refuses it; mostly for want of CAP_BPF and CAP_NET_ADMIN.
    #[error("the kernel refuses the program: {0}")]
    Refused(String),
    /// Memory, netlink or thread.
    #[error("{0}")]
    Io(#[from] io::Error),
}

impl From<EbpfError> for LoadError {
    fn from(error: EbpfError) -> Self {
        Self::Refused(in_words(&error))
    }
}

impl From<ProgramError> for LoadError {
    fn from(error: ProgramError) -> Self {
        Self::Refused(in_words(&error))
    }
}

impl From<MapError> for LoadError {
    fn from(error: MapError) -> Self {
        Self::Refused(in_words(&error))
    }
}

/// With all causes; the verifier's log is left out.
pub(crate) fn in_words(error: &dyn std::error::Error) -> String {
    let mut words = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        words = format!("{words}: {next}");
        cause = next.source();
    }
    words.lines().take(2).collect::<Vec<_>>().join(" ")
}

/// What the program did with packets of known streams.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Forwarded.
    pub forwarded: u64,
    /// Went up: another processor held the stream.
    pub up_busy: u64,
    /// Went up: the stream was just taken back.
    pub up_withdrawn: u64,
    /// Went up: another source.
    pub up_source: u64,
    /// Went up: not RTP version 2, padding, extension, contributing sources.
    pub up_shape: u64,
    /// Went up: another payload type, RTCP among them.
    pub up_payload_type: u64,
    /// Went up: another SSRC.
    pub up_ssrc: u64,
    /// Went up: a jump of sequence numbers.
    pub up_sequence: u64,
    /// Went up: a timestamp far from media time.
    pub up_timestamp: u64,
    /// Went up: no next hop, or too long for it.
    pub up_no_hop: u64,
}

/// Reads the counters, from any thread.
pub struct Counts(PerCpuArray<MapData, u64>);

impl std::fmt::Debug for Counts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.read().fmt(f)
    }
}

impl Counts {
    /// What the program did so far.
    #[must_use]
    pub fn read(&self) -> Counters {
        let sum =
            |place: u32| -> u64 { self.0.get(&place, 0).map_or(0, |values| values.iter().sum()) };
        Counters {
            forwarded: sum(0),
            up_busy: sum(1),
            up_withdrawn: sum(2),
            up_source: sum(3),
            up_shape: sum(4),
            up_payload_type: sum(5),
            up_ssrc: sum(6),
            up_sequence: sum(7),
            up_timestamp: sum(8),
            up_no_hop: sum(9),
        }
    }
}

/// The kernel fast path of one process. The program leaves all interfaces when this is dropped.
pub struct FastPath {
    ebpf: Ebpf,
    counts: Arc<Counts>,
    tables: Vec<StreamTable>,
    hops: Hops,
    attached: Vec<(String, Attached)>,
    coalesced: Vec<Coalesced>,
}

impl std::fmt::Debug for FastPath {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FastPath").field("attached", &self.attached).finish_non_exhaustive()
    }
}

fn map(ebpf: &mut Ebpf, name: &str) -> Result<aya::maps::Map, LoadError> {
    ebpf.take_map(name).ok_or_else(|| LoadError::Refused(format!("no map {name}")))
}

fn data(map: aya::maps::Map) -> Result<MapData, LoadError> {
    match map {
        aya::maps::Map::Array(data) => Ok(data),
        _ => Err(LoadError::Refused("a map of another kind".to_owned())),
    }
}

impl FastPath {
    /// Loads the program. Next hops are those of the caller's network namespace.
    ///
    /// # Errors
    /// See [`LoadError`].
    pub fn load(limits: Limits) -> Result<Self, LoadError> {
        if OBJECT.is_empty() {
            return Err(LoadError::NotBuilt);
        }
        let tables = limits.tables.max(1);
        let streams_each = limits.streams_max.div_ceil(tables).max(1);
        let hops_each = limits.hops_max.div_ceil(tables).max(1);
        let (streams_max, hops_max) = (streams_each * tables, hops_each * tables);
        let buckets = buckets(streams_max);
        let bucket_shift = shift(buckets);
        let mut ebpf = EbpfLoader::new()
            .map_max_entries("places", buckets)
            .map_max_entries("streams", streams_max)
            .map_max_entries("hops", hops_max)
            .override_global("bucket_shift", &bucket_shift, true)
            .load(OBJECT)?;
        let program: &mut Xdp = program(&mut ebpf, "forward")?;
        program.load()?;
        let counts = Arc::new(Counts(PerCpuArray::try_from(map(&mut ebpf, "counters")?)?));
        let streams =
            Shared::<RawStream>::map(&data(map(&mut ebpf, "streams")?)?.fd(), streams_max)?;
        let hop_memory = Shared::<RawHop>::map(&data(map(&mut ebpf, "hops")?)?.fd(), hops_max)?;
        let (streams, hop_memory) = (Arc::new(streams), Arc::new(hop_memory));
        let hops = Hops::start(hop_memory.clone())?;
        let places = Shared::<Bucket>::map(&data(map(&mut ebpf, "places")?)?.fd(), buckets)?;
        let places = Places::new(places, buckets);
        let mut made = Vec::new();
        for n in 0..tables {
            let wishes = hops.wishes();
            let share = Share {
                streams: n * streams_each..(n + 1) * streams_each,
                hops: n * hops_each..(n + 1) * hops_each,
            };
            made.push(StreamTable::new(
                places.clone(),
                streams.clone(),
                hop_memory.clone(),
                wishes,
                share,
            ));
        }
        Ok(Self { ebpf, counts, tables: made, hops, attached: Vec::new(), coalesced: Vec::new() })
    }

    /// One of the tables, for one thread. `None` when all are taken.
    pub fn take_table(&mut self) -> Option<StreamTable> {
        (!self.tables.is_empty()).then(|| self.tables.remove(0))
    }

    /// Runs the program at an interface of the caller's network namespace.
    ///
    /// # Errors
    /// See [`AttachError`].
    pub fn attach(&mut self, interface: &str, mode: Mode) -> Result<Attached, AttachError> {
        let program = program(&mut self.ebpf, "forward")
            .map_err(|_| AttachError::NoInterface(interface.to_owned()))?;
        let attached = attach(program, interface, mode)?;
        if attached == Attached::Native {
            self.hops.set_native();
        }
        self.attached.push((interface.to_owned(), attached));
        Ok(attached)
    }

    /// Lets an interface of the caller's network namespace collect packets for so long before it
    /// wakes the processor again. All of the interface's packets wait, not only those of streams.
    /// It has its old values again when this is dropped.
    ///
    /// # Errors
    /// If the kernel cannot or does not permit it; the interface is as it was then.
    pub fn coalesce(&mut self, interface: &str, wait: Duration) -> io::Result<()> {
        self.coalesced.push(Coalesced::set(interface, wait)?);
        Ok(())
    }

    /// Interfaces have the values again that they had before [`Self::coalesce`].
    pub fn coalesce_no_more(&mut self) {
        self.coalesced.clear();
    }

    /// Interfaces that collect packets.
    #[must_use]
    pub const fn coalesced(&self) -> usize {
        self.coalesced.len()
    }

    /// Interfaces at which the program runs.
    #[must_use]
    pub fn attached(&self) -> &[(String, Attached)] {
        &self.attached
    }

    /// What the program did so far.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.counts.read()
    }

    /// The counters by themselves.
    #[must_use]
    pub fn counts(&self) -> Arc<Counts> {
        self.counts.clone()
    }

    /// The program by itself, for tests and benches.
    pub(crate) fn program(&mut self) -> Result<&mut Xdp, LoadError> {
        program(&mut self.ebpf, "forward")
    }
}

pub(crate) fn program<'a>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut Xdp, LoadError> {
    let program = ebpf.program_mut(name).ok_or_else(|| LoadError::Refused(format!("no {name}")))?;
    Ok(program.try_into()?)
}
