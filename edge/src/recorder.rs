//! The recorder: one thread that owns all files of running recordings (tokio-uring).
//!
//! Audio arrives in blocks of 20 ms from the media threads, is appended every [`WRITE_EVERY`] and
//! synced every [`SYNC_EVERY`], so a crash loses less than a second. Beside `RE….wav` stands
//! `RE….open` (CBOR header) while it runs and `RE….done` when it waits to be uploaded;
//! [`crate::upload`] takes it from there. A file that a crash left open is closed at the next start.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use crossbeam::queue::ArrayQueue;
use edge_media::command::RecorderHandle;
use edge_media::recording::{BLOCK_SAMPLES, RecorderMessage};
use link_proto::message::RecordingHeader;
use tokio::sync::{mpsc, oneshot};
use tokio_uring::fs::File;

const WRITE_EVERY: Duration = Duration::from_millis(100);
const SYNC_EVERY: Duration = Duration::from_millis(500);
/// How long the end of a recording waits for its last blocks.
const FINISH_WAIT_MAX: Duration = Duration::from_secs(2);
const WAV_HEADER_BYTES: u64 = 44;
const SAMPLE_RATE_HZ: u32 = 8_000;

/// What signalling tells the recorder.
#[derive(Debug)]
pub enum RecorderCommand {
    /// Open a file.
    Open {
        /// Its handle.
        recorder: RecorderHandle,
        /// Whose recording; the duration is not known yet.
        header: RecordingHeader,
        /// Whether it is open.
        reply: oneshot::Sender<Result<(), String>>,
    },
    /// Close it when its last block has arrived.
    Close {
        /// Its handle.
        recorder: RecorderHandle,
        /// Length in ms as it was reported.
        duration_ms: u64,
    },
    /// Nobody will feed it: remove its files.
    Drop {
        /// Its handle.
        recorder: RecorderHandle,
    },
}

/// What the recorder is made of.
pub struct Recorder {
    /// Where the files are.
    pub folder: PathBuf,
    /// From signalling; the thread ends when it is closed.
    pub commands: mpsc::UnboundedReceiver<RecorderCommand>,
    /// From each media thread.
    pub audio: Vec<Arc<ArrayQueue<RecorderMessage>>>,
    /// Told when a file is ready to be uploaded.
    pub ready: Arc<tokio::sync::Notify>,
}

struct Running {
    file: File,
    header: RecordingHeader,
    unwritten: Vec<u8>,
    written_bytes: u64,
    kept: Option<(u64, u64)>,
    closing: Option<(Duration, u64)>,
}

/// Path of a recording's files.
fn path_of(folder: &Path, header: &RecordingHeader, extension: &str) -> PathBuf {
    folder.join(format!("{}.{extension}", header.recording))
}

/// The 44 bytes of a PCM WAV header.
fn wav_header(channels: u16, data_bytes: u32) -> [u8; WAV_HEADER_BYTES as usize] {
    let block_bytes = channels * 2;
    let mut header = [0u8; WAV_HEADER_BYTES as usize];
    let mut at = 0;
    let mut put = |bytes: &[u8]| {
        if let Some(place) = header.get_mut(at..at + bytes.len()) {
            place.copy_from_slice(bytes);
        }
        at += bytes.len();
    };
    put(b"RIFF");
    put(&data_bytes.saturating_add(36).to_le_bytes());
    put(b"WAVEfmt ");
    put(&16u32.to_le_bytes());
    put(&1u16.to_le_bytes());
    put(&channels.to_le_bytes());
    put(&SAMPLE_RATE_HZ.to_le_bytes());
    put(&(SAMPLE_RATE_HZ * u32::from(block_bytes)).to_le_bytes());
    put(&block_bytes.to_le_bytes());
    put(&16u16.to_le_bytes());
    put(b"data");
    put(&data_bytes.to_le_bytes());
    header
}

/// Closes what a crash left open: a `.open` file becomes `.done` with the length that is there.
///
/// # Errors
/// If the folder cannot be read.
pub fn recover(folder: &Path) -> anyhow::Result<usize> {
    std::fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
    let mut count = 0;
    for entry in std::fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "open") {
            match recover_one(folder, &path) {
                Ok(()) => count += 1,
                Err(error) => {
                    tracing::error!(path = %path.display(), error = format!("{error:#}"), "recording lost");
                    let _ = std::fs::rename(&path, path.with_extension("broken"));
                }
            }
        }
    }
    Ok(count)
}

fn recover_one(folder: &Path, open: &Path) -> anyhow::Result<()> {
    let bytes = std::fs::read(open)?;
    let mut header = RecordingHeader::from_bytes(&bytes).map_err(anyhow::Error::msg)?;
    let wav = path_of(folder, &header, "wav");
    let length = std::fs::metadata(&wav)?.len().saturating_sub(WAV_HEADER_BYTES);
    let frame_bytes = u64::from(header.channels.max(1)) * 2;
    let data_bytes = length - length % frame_bytes;
    header.duration_ms = data_bytes / frame_bytes / u64::from(SAMPLE_RATE_HZ / 1_000);
    use std::io::Write as _;
    let mut file = std::fs::OpenOptions::new().write(true).open(&wav)?;
    let size = u32::try_from(data_bytes).unwrap_or(u32::MAX);
    file.write_all(&wav_header(header.channels, size))?;
    file.sync_all()?;
    mark_done(folder, &header)
}

/// From now on the recording is the uploader's.
fn mark_done(folder: &Path, header: &RecordingHeader) -> anyhow::Result<()> {
    let done = path_of(folder, header, "done");
    let part = path_of(folder, header, "done-part");
    std::fs::write(&part, header.to_bytes().map_err(anyhow::Error::msg)?)?;
    std::fs::rename(&part, &done)?;
    let _ = std::fs::remove_file(path_of(folder, header, "open"));
    Ok(())
}

/// Starts the thread.
///
/// # Errors
/// If no thread or ring is to be had.
pub fn spawn(recorder: Recorder) -> std::io::Result<std::thread::JoinHandle<()>> {
    std::thread::Builder::new().name("recorder".to_owned()).spawn(move || {
        tokio_uring::start(run(recorder));
    })
}

async fn run(mut recorder: Recorder) {
    let mut running: BTreeMap<RecorderHandle, Running> = BTreeMap::new();
    let mut tick = tokio::time::interval(WRITE_EVERY);
    let mut since_sync = Duration::ZERO;
    let mut clock = Duration::ZERO;
    loop {
        tokio::select! {
            biased;
            command = recorder.commands.recv() => match command {
                Some(RecorderCommand::Open { recorder: handle, header, reply }) => {
                    let opened = open(&recorder.folder, header).await;
                    let result = match opened {
                        Ok(file) => { running.insert(handle, file); Ok(()) }
                        Err(error) => Err(format!("{error:#}")),
                    };
                    let _ = reply.send(result);
                }
                Some(RecorderCommand::Close { recorder: handle, duration_ms }) => {
                    if let Some(file) = running.get_mut(&handle) {
                        file.closing = Some((clock + FINISH_WAIT_MAX, duration_ms));
                    }
                }
                Some(RecorderCommand::Drop { recorder: handle }) => {
                    if let Some(file) = running.remove(&handle) {
                        remove(&recorder.folder, file).await;
                    }
                }
                None => break,
            },
            _ = tick.tick() => {
                clock += WRITE_EVERY;
                since_sync += WRITE_EVERY;
            }
        }
        take_audio(&recorder.audio, &mut running);
        let sync = since_sync >= SYNC_EVERY;
        if sync {
            since_sync = Duration::ZERO;
        }
        append(&mut running, sync).await;
        close_finished(&recorder, &mut running, clock).await;
    }
    take_audio(&recorder.audio, &mut running);
    append(&mut running, true).await;
    close_finished(&recorder, &mut running, Duration::MAX).await;
}

async fn open(folder: &Path, header: RecordingHeader) -> anyhow::Result<Running> {
    let open = path_of(folder, &header, "open");
    std::fs::write(&open, header.to_bytes().map_err(anyhow::Error::msg)?)
        .with_context(|| open.display().to_string())?;
    let path = path_of(folder, &header, "wav");
    // Read as well: silence at the front is removed by moving what follows.
    let mut options = tokio_uring::fs::OpenOptions::new();
    let options = options.read(true).write(true).create(true).truncate(true);
    let file = options.open(&path).await.with_context(|| path.display().to_string())?;
    // The size is fixed at the end; readers take what is there until then.
    let start = wav_header(header.channels, 0).to_vec();
    let (result, _) = file.write_all_at(start, 0).await;
    result?;
    let unwritten = Vec::new();
    Ok(Running { file, header, unwritten, written_bytes: 0, kept: None, closing: None })
}

async fn remove(folder: &Path, running: Running) {
    let recording = running.header.recording;
    if let Err(error) = running.file.close().await {
        tracing::warn!(%recording, %error, "dropped recording");
    }
    for extension in ["wav", "open"] {
        let _ = std::fs::remove_file(path_of(folder, &running.header, extension));
    }
}

fn take_audio(
    audio: &[Arc<ArrayQueue<RecorderMessage>>],
    running: &mut BTreeMap<RecorderHandle, Running>,
) {
    for queue in audio {
        while let Some(message) = queue.pop() {
            match message {
                RecorderMessage::Audio(block) => {
                    let Some(file) = running.get_mut(&block.recorder) else { continue };
                    let count = BLOCK_SAMPLES * usize::from(block.channels.clamp(1, 2));
                    for sample in block.samples.iter().take(count) {
                        file.unwritten.extend_from_slice(&sample.to_le_bytes());
                    }
                }
                RecorderMessage::Finish { recorder, first_sample, sample_count } => {
                    if let Some(file) = running.get_mut(&recorder) {
                        file.kept = Some((first_sample, sample_count));
                    }
                }
            }
        }
    }
}

async fn append(running: &mut BTreeMap<RecorderHandle, Running>, sync: bool) {
    for file in running.values_mut() {
        if !file.unwritten.is_empty() {
            let bytes = std::mem::take(&mut file.unwritten);
            let length = bytes.len() as u64;
            let at = WAV_HEADER_BYTES + file.written_bytes;
            let (result, mut bytes) = file.file.write_all_at(bytes, at).await;
            if let Err(error) = result {
                tracing::error!(recording = %file.header.recording, %error, "audio not written");
            } else {
                file.written_bytes += length;
            }
            bytes.clear();
            file.unwritten = bytes;
        }
        if sync && let Err(error) = file.file.sync_data().await {
            tracing::error!(recording = %file.header.recording, %error, "audio not synced");
        }
    }
}

async fn close_finished(
    recorder: &Recorder,
    running: &mut BTreeMap<RecorderHandle, Running>,
    clock: Duration,
) {
    let finished: Vec<RecorderHandle> = running
        .iter()
        .filter(|(_, file)| match file.closing {
            Some((deadline, _)) => file.kept.is_some() || clock >= deadline,
            None => clock == Duration::MAX,
        })
        .map(|(handle, _)| *handle)
        .collect();
    for handle in finished {
        let Some(file) = running.remove(&handle) else { continue };
        let recording = file.header.recording;
        match close(&recorder.folder, file).await {
            Ok(()) => recorder.ready.notify_one(),
            Err(error) => {
                tracing::error!(%recording, error = format!("{error:#}"), "recording not closed");
            }
        }
    }
}

async fn close(folder: &Path, mut running: Running) -> anyhow::Result<()> {
    let frame_bytes = u64::from(running.header.channels.max(1)) * 2;
    let there = running.written_bytes / frame_bytes;
    let (first, count) = running.kept.unwrap_or((0, there));
    let first = first.min(there);
    let count = count.min(there - first);
    if first > 0 {
        shift_to_front(&running.file, first * frame_bytes, count * frame_bytes).await?;
    }
    let data_bytes = u32::try_from(count * frame_bytes).unwrap_or(u32::MAX);
    let start = wav_header(running.header.channels, data_bytes).to_vec();
    let (result, _) = running.file.write_all_at(start, 0).await;
    result?;
    running.file.sync_all().await?;
    running.file.close().await?;
    let path = path_of(folder, &running.header, "wav");
    std::fs::OpenOptions::new()
        .write(true)
        .open(&path)?
        .set_len(WAV_HEADER_BYTES + count * frame_bytes)?;
    running.header.duration_ms = count / u64::from(SAMPLE_RATE_HZ / 1_000);
    if let Some((_, reported_ms)) = running.closing
        && reported_ms.abs_diff(running.header.duration_ms) > 40
    {
        tracing::warn!(
            recording = %running.header.recording,
            reported_ms,
            written_ms = running.header.duration_ms,
            "length of the recording differs from its report"
        );
    }
    mark_done(folder, &running.header)
}

/// Removes silence at the front by moving the rest, front to back, so source and target may overlap.
async fn shift_to_front(file: &File, skip_bytes: u64, keep_bytes: u64) -> anyhow::Result<()> {
    const CHUNK_BYTES: u64 = 256 << 10;
    let mut moved = 0;
    while moved < keep_bytes {
        let size = CHUNK_BYTES.min(keep_bytes - moved) as usize;
        let buffer = vec![0u8; size];
        let (result, buffer) =
            file.read_exact_at(buffer, WAV_HEADER_BYTES + skip_bytes + moved).await;
        result?;
        let (result, _) = file.write_all_at(buffer, WAV_HEADER_BYTES + moved).await;
        result?;
        moved += size as u64;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use edge_media::recording::AudioBlock;
    use link_proto::{CallSid, RecordingSid};

    fn header(n: u8, channels: u16) -> RecordingHeader {
        RecordingHeader {
            recording: RecordingSid([n; 16]),
            session: CallSid([1; 16]),
            leg: CallSid([1; 16]),
            duration_ms: 0,
            channels,
            control: None,
        }
    }

    fn block(value: i16) -> RecorderMessage {
        let samples = [value; BLOCK_SAMPLES * 2];
        RecorderMessage::Audio(AudioBlock { recorder: RecorderHandle(1), channels: 1, samples })
    }

    fn start(
        folder: &Path,
    ) -> (
        mpsc::UnboundedSender<RecorderCommand>,
        Arc<ArrayQueue<RecorderMessage>>,
        std::thread::JoinHandle<()>,
    ) {
        let (commands, receiver) = mpsc::unbounded_channel();
        let audio = Arc::new(ArrayQueue::new(1_000));
        let recorder = Recorder {
            folder: folder.to_owned(),
            commands: receiver,
            audio: vec![audio.clone()],
            ready: Arc::default(),
        };
        (commands, audio, spawn(recorder).unwrap())
    }

    fn open_one(commands: &mpsc::UnboundedSender<RecorderCommand>, header: RecordingHeader) {
        let (reply, answer) = oneshot::channel();
        let recorder = RecorderHandle(1);
        commands.send(RecorderCommand::Open { recorder, header, reply }).unwrap();
        answer.blocking_recv().unwrap().unwrap();
    }

    #[test]
    fn a_recording_is_trimmed_closed_and_readable() {
        let folder = tempfile::tempdir().unwrap();
        let (commands, audio, thread) = start(folder.path());
        open_one(&commands, header(7, 1));
        for value in 0..50 {
            audio.push(block(value)).unwrap();
        }
        let (first_sample, sample_count) = (160 * 10, 160 * 30);
        let recorder = RecorderHandle(1);
        audio.push(RecorderMessage::Finish { recorder, first_sample, sample_count }).unwrap();
        commands.send(RecorderCommand::Close { recorder, duration_ms: 600 }).unwrap();
        drop(commands);
        thread.join().unwrap();
        let path = path_of(folder.path(), &header(7, 1), "wav");
        let samples: Vec<i16> =
            hound::WavReader::open(path).unwrap().samples().map(Result::unwrap).collect();
        assert_eq!(samples.len(), 160 * 30);
        assert_eq!((samples[0], samples[160 * 30 - 1]), (10, 39));
        let done = std::fs::read(path_of(folder.path(), &header(7, 1), "done")).unwrap();
        assert_eq!(RecordingHeader::from_bytes(&done).unwrap().duration_ms, 600);
        assert!(!path_of(folder.path(), &header(7, 1), "open").exists());
    }

    #[test]
    fn what_a_crash_left_open_is_closed_at_the_next_start() {
        let folder = tempfile::tempdir().unwrap();
        let header = header(8, 1);
        std::fs::write(path_of(folder.path(), &header, "open"), header.to_bytes().unwrap())
            .unwrap();
        let mut bytes = wav_header(1, 0).to_vec();
        bytes.extend_from_slice(&[1; 16_001]);
        std::fs::write(path_of(folder.path(), &header, "wav"), bytes).unwrap();
        assert_eq!(recover(folder.path()).unwrap(), 1);
        let done = std::fs::read(path_of(folder.path(), &header, "done")).unwrap();
        assert_eq!(RecordingHeader::from_bytes(&done).unwrap().duration_ms, 1_000);
        let reader = hound::WavReader::open(path_of(folder.path(), &header, "wav")).unwrap();
        assert_eq!(reader.len(), 8_000);
    }
}
