//! Media programs of a session, from command to result.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use edge_media::command::{OpKey, PortKey, Prompt, RecordProgram, RecorderHandle};
use link_proto::media::{PlayItem, PromptKey};
use link_proto::{CallSid, OpId, RecordingSid};

/// What a program does.
#[derive(Debug, Clone)]
pub(crate) enum OpKind {
    Play,
    Collect { stops_play: Option<OpId> },
    Record { recording: RecordingSid, recorder: Option<RecorderHandle> },
    Watch,
}

/// What a program waits for.
#[derive(Debug, Clone)]
pub(crate) enum OpState {
    /// Prompts are on their way.
    Prompts { items: Vec<PlayItem>, missing: BTreeSet<PromptKey> },
    /// The recorder opens a file.
    Recorder { program: RecordProgram },
    /// The worker runs it.
    Running,
}

/// A program.
#[derive(Debug, Clone)]
pub(crate) struct Op {
    /// Leg that its events are about.
    pub(crate) leg: CallSid,
    pub(crate) port: PortKey,
    pub(crate) kind: OpKind,
    pub(crate) state: OpState,
    /// Start it (or its timer) when this play program has ended.
    pub(crate) after: Option<OpId>,
    /// Told to end; its result is on the way.
    pub(crate) stopping: bool,
    /// Prompts that arrived.
    pub(crate) prompts: BTreeMap<PromptKey, Arc<Prompt>>,
}

/// Who waits for which prompt.
#[derive(Debug, Default)]
pub(crate) struct PromptWaits {
    by_key: BTreeMap<PromptKey, BTreeSet<OpKey>>,
}

impl PromptWaits {
    /// True if the prompt has to be asked for: nobody waits for it yet.
    pub(crate) fn add(&mut self, key: PromptKey, op: OpKey) -> bool {
        let waiters = self.by_key.entry(key).or_default();
        waiters.insert(op);
        waiters.len() == 1
    }

    pub(crate) fn take(&mut self, key: &PromptKey) -> BTreeSet<OpKey> {
        self.by_key.remove(key).unwrap_or_default()
    }

    pub(crate) fn forget(&mut self, key: &PromptKey, op: OpKey) {
        if let Some(waiters) = self.by_key.get_mut(key) {
            waiters.remove(&op);
            if waiters.is_empty() {
                self.by_key.remove(key);
            }
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.by_key.len()
    }
}
