//! Say, Play and Pause: made ready, then played as one program without a round trip in between.

use link_proto::media::{PlayItem, PromptKey};
use link_proto::plan::Need;
use serde::{Deserialize, Serialize};

use super::runner::Activity;
use crate::call::session::Session;
use crate::call::turn::Turn;
use crate::error_code;
use crate::io::{Effect, MediaFailure, MediaFile, MediaRequest};
use crate::verb::{Gather, PlayContent, Verb};

/// A piece of a program.
#[derive(Debug, Clone, Serialize, Deserialize)]
enum Piece {
    /// Index into [`Preparing::prompts`].
    Prompt { index: usize, times: u32 },
    /// Ready as it is.
    Item(PlayItem),
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Prompt {
    pub media: MediaRequest,
    pub key: Option<PromptKey>,
}

/// Prompts on their way.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Preparing {
    pieces: Vec<Piece>,
    pub prompts: Vec<Prompt>,
    /// Position after the program.
    next: usize,
    /// Names of the verbs, for the timeline.
    label: String,
    #[serde(skip)]
    since: Option<std::time::Instant>,
}

impl Session {
    /// Consecutive Say, Play and Pause from the position on.
    pub(crate) fn prepare_group(&mut self, turn: &mut Turn<'_>) {
        let spoken = |verb: &&Verb| matches!(verb, Verb::Say(_) | Verb::Play(_) | Verb::Pause(_));
        let from = self.run.document.verbs.get(self.run.position..).unwrap_or_default();
        let group: Vec<Verb> = from.iter().take_while(spoken).cloned().collect();
        let mut names: Vec<&str> = group.iter().map(Verb::name).collect();
        names.dedup();
        let (label, next) = (names.join("+"), self.run.position + group.len());
        self.prepare(turn, &group, label, next);
    }

    pub(crate) fn prepare_gather(&mut self, turn: &mut Turn<'_>, gather: &Gather) {
        let next = self.run.position + 1;
        self.prepare(turn, &gather.prompts, "Gather".to_owned(), next);
    }

    fn prepare(&mut self, turn: &mut Turn<'_>, verbs: &[Verb], label: String, next: usize) {
        self.accept(turn);
        let since = Some(turn.now);
        let (pieces, prompts) = (Vec::new(), Vec::new());
        let mut preparing = Preparing { pieces, prompts, next, label, since };
        for verb in verbs {
            if let Err(url) = self.add_piece(turn, &mut preparing, verb) {
                let message = format!("Play: URL {url:?} cannot be used");
                return self.fail(turn, error_code::URL_INVALID, &message, Some(url));
            }
        }
        self.run.activity = Activity::Preparing(preparing);
        self.request_prompts(turn);
        self.start_if_prepared(turn);
    }

    fn add_piece(
        &self,
        turn: &Turn<'_>,
        preparing: &mut Preparing,
        verb: &Verb,
    ) -> Result<(), String> {
        let (media, times) = match verb {
            Verb::Say(say) => {
                let voice = say.voice.clone().unwrap_or_else(|| turn.config.voice.clone());
                let language = say.language.clone().unwrap_or_else(|| turn.config.language.clone());
                (MediaRequest::Speech { text: say.text.clone(), voice, language }, say.times)
            }
            Verb::Play(play) => match &play.content {
                PlayContent::Url(url) => {
                    let absolute = self.absolute(turn, url).ok_or_else(|| url.clone())?;
                    (MediaRequest::Url { url: absolute }, play.times)
                }
                PlayContent::Digits(digits) => {
                    let digits = digits.repeat(play.times.min(10) as usize);
                    preparing.pieces.push(Piece::Item(PlayItem::Digits { digits }));
                    return Ok(());
                }
            },
            Verb::Pause(length_ms) => {
                let item = PlayItem::Pause { length_ms: *length_ms };
                preparing.pieces.push(Piece::Item(item));
                return Ok(());
            }
            _ => return Ok(()),
        };
        let known = preparing.prompts.iter().position(|prompt| prompt.media == media);
        let index = known.unwrap_or_else(|| {
            preparing.prompts.push(Prompt { media, key: None });
            preparing.prompts.len() - 1
        });
        preparing.pieces.push(Piece::Prompt { index, times });
        Ok(())
    }

    /// Asks the media layer for what is missing; also after a restart.
    pub(crate) fn request_prompts(&mut self, turn: &mut Turn<'_>) {
        let Activity::Preparing(preparing) = &self.run.activity else { return };
        for (index, prompt) in preparing.prompts.iter().enumerate() {
            if prompt.key.is_some() {
                continue;
            }
            let slot = (self.run.generation << 16) | (index as u64 & 0xffff);
            let id = turn.waiting.media(self.sid, self.run.leg, slot);
            let media = prompt.media.clone();
            turn.out.then.push(Effect::PrepareMedia { id, account: self.account, media });
        }
    }

    pub(crate) fn media_ready(
        &mut self,
        turn: &mut Turn<'_>,
        slot: u64,
        result: Result<MediaFile, MediaFailure>,
    ) {
        let stale = slot >> 16 != self.run.generation;
        let Activity::Preparing(preparing) = &mut self.run.activity else {
            turn.metrics.results_stale += 1;
            return;
        };
        let index = (slot & 0xffff) as usize;
        let Some(prompt) = preparing.prompts.get_mut(index).filter(|_| !stale) else {
            turn.metrics.results_stale += 1;
            return;
        };
        match result {
            Ok(file) => {
                prompt.key = Some(file.key);
                self.start_if_prepared(turn);
            }
            Err(failure) => {
                let url = match &prompt.media {
                    MediaRequest::Url { url } => Some(url.clone()),
                    MediaRequest::Speech { .. } => None,
                };
                self.fail(turn, failure.code, &failure.message, url);
            }
        }
    }

    fn start_if_prepared(&mut self, turn: &mut Turn<'_>) {
        let Activity::Preparing(preparing) = &self.run.activity else { return };
        if preparing.prompts.iter().any(|prompt| prompt.key.is_none()) {
            return;
        }
        let preparing = preparing.clone();
        if let Some(since) = preparing.since {
            let waited = turn.now.saturating_duration_since(since).as_millis();
            if self.run.leg.is_none() {
                self.timeline.media_ms += u64::try_from(waited).unwrap_or(u64::MAX);
            }
        }
        let speech = preparing
            .prompts
            .iter()
            .any(|prompt| matches!(prompt.media, MediaRequest::Speech { .. }));
        let prompt = |index: &usize| preparing.prompts.get(*index)?.key.clone();
        let items: Vec<PlayItem> = preparing
            .pieces
            .iter()
            .filter_map(|piece| match piece {
                Piece::Item(item) => Some(item.clone()),
                Piece::Prompt { index, times } => {
                    Some(PlayItem::Prompt { key: prompt(index)?, times: *times })
                }
            })
            .collect();
        self.phase(turn, &preparing.label);
        if let Some(gather) = self.gather_here() {
            return self.start_gather(turn, &gather, items, speech);
        }
        let (op, leg) = (self.new_op(), self.subject());
        self.run.activity = Activity::Playing { op, next: preparing.next };
        if let Err(error) = self.set_needs(turn, vec![Need::Play { op, leg, items, speech }]) {
            self.fail(turn, error_code::INTERNAL, &error.to_string(), None);
        }
    }
}
