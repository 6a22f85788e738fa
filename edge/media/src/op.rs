//! The programs of a worker, found by name or by place.

use crate::command::OpKey;
use crate::path::collect::Collect;
use crate::path::playback::Play;
use crate::path::record::Record;

/// Bytes of one place.
pub(crate) const OP_BYTES: usize = size_of::<Option<Op>>();

#[derive(Debug)]
#[allow(clippy::large_enum_variant, reason = "places are all of one size anyway")]
pub(crate) enum Body {
    Play(Play),
    Collect(Collect),
    Record(Record),
    Watch(String),
}

#[derive(Debug)]
pub(crate) struct Op {
    pub(crate) key: OpKey,
    /// Slot of its port.
    pub(crate) port: u32,
    pub(crate) body: Body,
}

impl Op {
    /// When the program wants to be looked at, playing aside.
    pub(crate) fn due_us(&self) -> Option<u64> {
        match &self.body {
            Body::Collect(collect) => collect.deadline_us,
            Body::Record(record) => record.next_block_us,
            Body::Play(_) | Body::Watch(_) => None,
        }
    }
}

#[derive(Debug)]
pub(crate) struct OpTable {
    ops: Vec<Option<Op>>,
    free: Vec<u32>,
}

impl OpTable {
    pub(crate) fn new(ops_max: u32) -> Self {
        Self { ops: (0..ops_max).map(|_| None).collect(), free: (0..ops_max).rev().collect() }
    }

    #[allow(clippy::result_large_err, reason = "the program comes back to be reported")]
    pub(crate) fn insert(&mut self, op: Op) -> Result<u32, Op> {
        let Some(place) = self.free.pop() else { return Err(op) };
        match self.ops.get_mut(place as usize) {
            Some(entry) => {
                *entry = Some(op);
                Ok(place)
            }
            None => Err(op),
        }
    }

    pub(crate) fn is_full(&self) -> bool {
        self.free.is_empty()
    }

    pub(crate) fn remove(&mut self, place: u32) -> Option<Op> {
        let op = self.ops.get_mut(place as usize)?.take()?;
        self.free.push(place);
        Some(op)
    }

    /// Commands are rare: looking through all of them beats an index.
    pub(crate) fn find(&self, key: OpKey) -> Option<u32> {
        let found = self.ops.iter().position(|op| op.as_ref().is_some_and(|op| op.key == key));
        found.and_then(|place| u32::try_from(place).ok())
    }

    pub(crate) fn get(&self, place: u32) -> Option<&Op> {
        self.ops.get(place as usize)?.as_ref()
    }

    pub(crate) fn get_mut(&mut self, place: u32) -> Option<&mut Op> {
        self.ops.get_mut(place as usize)?.as_mut()
    }

    pub(crate) fn len(&self) -> usize {
        self.ops.len() - self.free.len()
    }
}
