//! What each bidirectional stream of a link is for: control frames, a fetch by key, an upload.
//!
//! ```text
//! control   'C'  frames both ways, until the connection ends
//! fetch     'F'  frame(key)                →  'Y' bytes… | 'N' why…
//! upload    'U'  frame(header) bytes…      →  'Y'        | 'N' why…
//! ```
//!
//! An upload is answered after the receiver has it on disk; without an answer it is repeated.

use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use quinn::{Connection, RecvStream, SendStream};
use tokio::fs::File;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};

use super::frame::{FRAME_BYTES_MAX, FrameReader, FrameWriter, encode};

const CONTROL: u8 = b'C';
const FETCH: u8 = b'F';
const UPLOAD: u8 = b'U';
const YES: u8 = b'Y';
const NO: u8 = b'N';

/// Longest reason that goes with a refusal, in bytes.
const WHY_BYTES_MAX: usize = 1_000;
const COPY_BYTES: usize = 64 << 10;
/// A peer that opens a stream and does not say what for is given up after this time.
const OPENING_MAX: Duration = Duration::from_secs(5);

/// Opens the control stream. The peer learns of it with the first frame that is flushed.
///
/// # Errors
/// If the connection is gone.
pub async fn open_control(connection: &Connection) -> anyhow::Result<(FrameReader, FrameWriter)> {
    let (mut send, receive) = connection.open_bi().await?;
    // Commands and events before prompts and recordings.
    send.set_priority(10)?;
    send.write_all(&[CONTROL]).await?;
    Ok((FrameReader::new(receive), FrameWriter::new(send)))
}

/// A stream that the peer opened.
#[derive(Debug)]
pub enum Incoming {
    /// The control stream.
    Control(FrameReader, FrameWriter),
    /// The peer wants bytes.
    Fetch(FetchRequest),
    /// The peer has bytes for us.
    Upload(UploadRequest),
}

/// Reads what an accepted stream is for. Run it in a task of its own, because a peer may be slow.
///
/// # Errors
/// If the peer breaks off, says nothing for five seconds, or speaks of something unknown.
pub async fn open_incoming(send: SendStream, receive: RecvStream) -> anyhow::Result<Incoming> {
    tokio::time::timeout(OPENING_MAX, opening(send, receive))
        .await
        .context("the peer opened a stream and did not say what for")?
}

async fn opening(send: SendStream, mut receive: RecvStream) -> anyhow::Result<Incoming> {
    let mut kind = [0];
    receive.read_exact(&mut kind).await?;
    match kind[0] {
        CONTROL => {
            send.set_priority(10)?;
            Ok(Incoming::Control(FrameReader::new(receive), FrameWriter::new(send)))
        }
        FETCH => {
            let key = String::from_utf8(read_one_frame(&mut receive).await?)?;
            Ok(Incoming::Fetch(FetchRequest { key, send }))
        }
        UPLOAD => {
            let header = read_one_frame(&mut receive).await?;
            Ok(Incoming::Upload(UploadRequest { header, send, receive }))
        }
        other => anyhow::bail!("a stream of unknown kind {other:#04x}"),
    }
}

async fn read_one_frame(receive: &mut RecvStream) -> anyhow::Result<Vec<u8>> {
    let mut prefix = [0; 4];
    receive.read_exact(&mut prefix).await?;
    let length = u32::from_be_bytes(prefix) as usize;
    anyhow::ensure!(length <= FRAME_BYTES_MAX, "a frame of {length} bytes is too long");
    let mut frame = vec![0; length];
    receive.read_exact(&mut frame).await?;
    Ok(frame)
}

async fn begin(
    connection: &Connection,
    kind: u8,
    frame: &[u8],
) -> anyhow::Result<(SendStream, RecvStream)> {
    let (mut send, receive) = connection.open_bi().await?;
    let mut opening = vec![kind];
    encode(frame, &mut opening)?;
    send.write_all(&opening).await?;
    Ok((send, receive))
}

/// Answers of a peer to a fetch or an upload, apart from broken connections.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer<T> {
    /// It was done.
    Done(T),
    /// It was refused, in the peer's words. Repeating does not help.
    Refused(String),
}

/// Asks the peer for the bytes of `key`, at most `bytes_max`.
///
/// # Errors
/// If the connection breaks or there are more bytes.
pub async fn fetch(
    connection: &Connection,
    key: &str,
    bytes_max: usize,
) -> anyhow::Result<Answer<Vec<u8>>> {
    let (mut send, mut receive) = begin(connection, FETCH, key.as_bytes()).await?;
    send.finish()?;
    if let Some(why) = refusal(&mut receive).await? {
        return Ok(Answer::Refused(why));
    }
    let bytes = receive.read_to_end(bytes_max).await.context("bytes of a fetch")?;
    Ok(Answer::Done(bytes))
}

/// `None` if the peer says yes.
async fn refusal(receive: &mut RecvStream) -> anyhow::Result<Option<String>> {
    let mut verdict = [0];
    receive.read_exact(&mut verdict).await?;
    match verdict[0] {
        YES => Ok(None),
        NO => {
            let why = receive.read_to_end(WHY_BYTES_MAX).await?;
            Ok(Some(String::from_utf8_lossy(&why).into_owned()))
        }
        other => anyhow::bail!("an answer of unknown kind {other:#04x}"),
    }
}

async fn refuse(mut send: SendStream, why: &str) -> anyhow::Result<()> {
    let mut end = why.len().min(WHY_BYTES_MAX);
    while !why.is_char_boundary(end) {
        end -= 1;
    }
    send.write_all(&[NO]).await?;
    send.write_all(why.get(..end).unwrap_or_default().as_bytes()).await?;
    send.finish()?;
    Ok(())
}

/// A peer's wish for bytes.
#[derive(Debug)]
pub struct FetchRequest {
    key: String,
    send: SendStream,
}

impl FetchRequest {
    /// Which bytes.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// Sends them.
    ///
    /// # Errors
    /// If the connection breaks.
    pub async fn answer(mut self, bytes: &[u8]) -> anyhow::Result<()> {
        self.send.write_all(&[YES]).await?;
        self.send.write_all(bytes).await?;
        self.send.finish()?;
        Ok(())
    }

    /// Refuses for good.
    ///
    /// # Errors
    /// If the connection breaks.
    pub async fn refuse(self, why: &str) -> anyhow::Result<()> {
        refuse(self.send, why).await
    }
}

/// Sends `header` and all of `content`; returns when the peer has them on disk or refuses.
///
/// # Errors
/// If the connection breaks: the upload must be repeated.
pub async fn upload(
    connection: &Connection,
    header: &[u8],
    mut content: impl AsyncRead + Unpin,
) -> anyhow::Result<Answer<()>> {
    let (mut send, mut receive) = begin(connection, UPLOAD, header).await?;
    let mut chunk = vec![0; COPY_BYTES];
    loop {
        let count = content.read(&mut chunk).await.context("reading what is uploaded")?;
        if count == 0 {
            break;
        }
        let written = send.write_all(chunk.get(..count).unwrap_or_default()).await;
        match written {
            Ok(()) => {}
            // The peer wants no more: it has answered, or is about to.
            Err(quinn::WriteError::Stopped(_)) => break,
            Err(error) => return Err(error.into()),
        }
    }
    // Stopped streams cannot be finished, and need not be.
    let _ = send.finish();
    Ok(match refusal(&mut receive).await? {
        None => Answer::Done(()),
        Some(why) => Answer::Refused(why),
    })
}

/// Bytes that a peer has for us.
#[derive(Debug)]
pub struct UploadRequest {
    header: Vec<u8>,
    send: SendStream,
    receive: RecvStream,
}

impl UploadRequest {
    /// What they are, in the words of the protocol above.
    pub fn header(&self) -> &[u8] {
        &self.header
    }

    /// Writes them to `path` through a temporary file, synced to disk before they get their name.
    /// Returns the length in bytes; [`Self::confirm`] must follow.
    ///
    /// # Errors
    /// If the connection or the disk fails, or there are more than `bytes_max`. No file is left.
    pub async fn save(&mut self, path: &Path, bytes_max: u64) -> anyhow::Result<u64> {
        let mut name = path.as_os_str().to_owned();
        name.push(".part");
        let part = Path::new(&name);
        let saved = self.save_part(part, bytes_max).await;
        match saved {
            Ok(length) => {
                tokio::fs::rename(part, path).await?;
                sync_folder(path).await?;
                Ok(length)
            }
            Err(error) => {
                // It may not have been made at all.
                let _ = tokio::fs::remove_file(part).await;
                Err(error.context(path.display().to_string()))
            }
        }
    }

    async fn save_part(&mut self, part: &Path, bytes_max: u64) -> anyhow::Result<u64> {
        let mut file = File::create(part).await?;
        let mut length = 0_u64;
        let mut chunk = vec![0; COPY_BYTES];
        while let Some(count) = self.receive.read(&mut chunk).await? {
            length = length.saturating_add(count as u64);
            anyhow::ensure!(length <= bytes_max, "more than {bytes_max} bytes");
            file.write_all(chunk.get(..count).unwrap_or_default()).await?;
        }
        file.flush().await?;
        file.sync_all().await?;
        Ok(length)
    }

    /// Tells the peer that the bytes are safe.
    ///
    /// # Errors
    /// If the connection breaks; the peer will repeat the upload.
    pub async fn confirm(mut self) -> anyhow::Result<()> {
        self.send.write_all(&[YES]).await?;
        self.send.finish()?;
        Ok(())
    }

    /// Refuses for good.
    ///
    /// # Errors
    /// If the connection breaks.
    pub async fn refuse(mut self, why: &str) -> anyhow::Result<()> {
        // An error means that all bytes have arrived already.
        let _ = self.receive.stop(0_u32.into());
        refuse(self.send, why).await
    }
}

/// A new name is safe only when its folder is synced.
async fn sync_folder(path: &Path) -> anyhow::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    File::open(folder.unwrap_or(Path::new("."))).await?.sync_all().await?;
    Ok(())
}
