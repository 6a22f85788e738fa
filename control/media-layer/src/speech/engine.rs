//! Speech engines as child processes. The text goes in by standard input or a file, never as an
//! argument and never through a shell; voice names come from tables here.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::Command;

/// A speech engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Engine {
    /// `flite`: English only, natural enough.
    Flite,
    /// `espeak-ng`: a hundred languages.
    EspeakNg,
    /// `text2wave` of festival: English.
    Festival,
}

/// What an engine shall say in one go.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Utterance<'a> {
    /// Plain text.
    pub(crate) text: &'a str,
    /// As in the document.
    pub(crate) voice: &'a str,
    /// BCP 47.
    pub(crate) language: &'a str,
    /// Times the usual speed.
    pub(crate) rate: f32,
    /// Times the voice's own pitch.
    pub(crate) pitch: f32,
}

/// Why an engine gave no audio.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// Nothing suitable is installed.
    #[error("no speech engine for language {0} is installed")]
    Missing(String),
    /// It did not start or broke off.
    #[error("{0}: {1}")]
    Failed(&'static str, String),
    /// It ran too long.
    #[error("{0} took longer than allowed")]
    Timeout(&'static str),
}

impl Engine {
    /// Best first.
    pub const ALL: [Self; 3] = [Self::Flite, Self::EspeakNg, Self::Festival];

    /// Name of the program.
    pub fn program(self) -> &'static str {
        match self {
            Self::Flite => "flite",
            Self::EspeakNg => "espeak-ng",
            Self::Festival => "text2wave",
        }
    }

    /// By the name of its program (or `festival`).
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|engine| engine.program() == name)
            .or((name == "festival").then_some(Self::Festival))
    }

    /// The engines found in the folders of `path` (as in `PATH`).
    pub fn installed(path: &std::ffi::OsStr) -> Vec<Self> {
        let there = |engine: &Self| {
            std::env::split_paths(path).any(|folder| folder.join(engine.program()).is_file())
        };
        Self::ALL.into_iter().filter(there).collect()
    }

    fn speaks(self, language: &str) -> bool {
        self == Self::EspeakNg || primary(language) == "en"
    }

    /// The first of `engines` that speaks the language; otherwise one that speaks something.
    pub fn choose(engines: &[Self], language: &str) -> Option<Self> {
        engines.iter().copied().find(|engine| engine.speaks(language))
    }

    /// Whether pitch can be asked of it for this voice; otherwise its audio is shifted.
    fn pitches(self, voice: &str) -> bool {
        match self {
            // The man's voice does not listen to it.
            Self::Flite => is_female(voice),
            Self::EspeakNg => true,
            Self::Festival => false,
        }
    }

    /// Speaks. The result is a WAV file of the engine's own rate, and the factor by which it must
    /// be played faster to have the pitch that was asked for.
    pub(crate) async fn speak(
        self,
        utterance: &Utterance<'_>,
        timeout: Duration,
    ) -> Result<(Vec<u8>, f32), EngineError> {
        let folder = tempfile::tempdir().map_err(|e| self.failed(&e))?;
        let mut utterance = *utterance;
        let faster = if self.pitches(utterance.voice) { 1.0 } else { utterance.pitch };
        utterance.rate /= faster;
        let work = self.run(folder.path(), &utterance);
        match tokio::time::timeout(timeout, work).await {
            Ok(result) => result.map(|file| (file, faster)),
            // The child is killed when its handle is dropped with the future.
            Err(_) => Err(EngineError::Timeout(self.program())),
        }
    }

    fn failed(self, error: &dyn std::fmt::Display) -> EngineError {
        EngineError::Failed(self.program(), error.to_string())
    }

    async fn run(self, folder: &Path, utterance: &Utterance<'_>) -> Result<Vec<u8>, EngineError> {
        let text = utterance.text;
        let (input, output) = (folder.join("text"), folder.join("speech.wav"));
        tokio::fs::write(&input, text).await.map_err(|e| self.failed(&e))?;
        let mut child = self
            .command(&input, &output, utterance)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(|e| self.failed(&e))?;
        if let Some(mut stdin) = child.stdin.take() {
            // An engine that reads the file instead closes its input: no failure.
            let _ = stdin.write_all(text.as_bytes()).await;
        }
        let mut complaint = Vec::new();
        if let Some(stderr) = child.stderr.take() {
            let _ = stderr.take(1000).read_to_end(&mut complaint).await;
        }
        let status = child.wait().await.map_err(|e| self.failed(&e))?;
        if !status.success() {
            let complaint = String::from_utf8_lossy(&complaint);
            return Err(self.failed(&format!("{status}: {}", complaint.trim())));
        }
        tokio::fs::read(&output).await.map_err(|e| self.failed(&e))
    }

    fn command(self, input: &PathBuf, output: &PathBuf, utterance: &Utterance<'_>) -> Command {
        let Utterance { voice, language, rate, pitch, .. } = *utterance;
        let mut command = Command::new(self.program());
        match self {
            Self::Flite => {
                let name = if is_female(voice) { "slt" } else { "rms" };
                command.args([
                    "-voice",
                    name,
                    "--setf",
                    &format!("duration_stretch={}", 1.0 / rate),
                ]);
                if self.pitches(voice) {
                    command.args(["--setf", &format!("f0_shift={pitch}")]);
                }
                command.arg("-f").arg(input).arg("-o").arg(output);
            }
            Self::EspeakNg => {
                let name = espeak_voice(voice, language);
                let words_per_minute = (160.0 * rate).clamp(80.0, 450.0).round().to_string();
                let pitch = espeak_pitch(pitch).to_string();
                command.args(["--stdin", "-b", "1", "-s", &words_per_minute, "-p", &pitch]);
                command.args(["-v", &name, "-w"]).arg(output);
            }
            Self::Festival => {
                let stretch = format!("(Parameter.set 'Duration_Stretch {})", 1.0 / rate);
                command.args(["-eval", &stretch]).arg("-o").arg(output).arg(input);
            }
        }
        command
    }
}

/// The scale of espeak-ng (0 to 99, 50 is the voice's own) as measured at its voices.
fn espeak_pitch(factor: f32) -> u8 {
    let steps = factor.ln() * if factor > 1.0 { 105.0 } else { 134.0 };
    // Casts of floats saturate.
    (50.0 + steps).round().clamp(0.0, 99.0) as u8
}

fn primary(language: &str) -> String {
    language.split(['-', '_']).next().unwrap_or("").to_ascii_lowercase()
}

/// `man` and the male voices of well-known vendors; everything else is a woman's voice.
fn is_female(voice: &str) -> bool {
    const MALE: &[&str] = &[
        "man",
        "matthew",
        "joey",
        "justin",
        "kevin",
        "stephen",
        "gregory",
        "brian",
        "arthur",
        "russell",
        "geraint",
        "hans",
        "daniel",
        "mathieu",
        "remi",
        "giorgio",
        "adriano",
        "enrique",
        "sergio",
        "miguel",
        "pedro",
        "andres",
        "ricardo",
        "thiago",
        "cristiano",
        "ruben",
        "laurent",
        "jacek",
        "maxim",
        "mads",
        "takumi",
        "liam",
        "karl",
    ];
    let name = voice.rsplit('.').next().unwrap_or(voice).to_ascii_lowercase();
    let name = name.split('-').next().unwrap_or("");
    !name.is_empty() && !MALE.contains(&name)
}

/// Voice for a BCP 47 language, `+f3` for a woman.
fn espeak_voice(voice: &str, language: &str) -> String {
    let tag: String = language
        .chars()
        .filter(|c| c.is_ascii_alphanumeric() || *c == '-')
        .take(16)
        .collect::<String>()
        .to_ascii_lowercase();
    let name = match tag.as_str() {
        "" => "en-us",
        "en-us" | "en-gb" | "pt-br" | "fr-be" | "fr-ch" => &tag,
        "en-au" | "en-in" | "en-nz" | "en-ie" | "en-za" => "en-gb",
        "es-mx" | "es-us" | "es-419" | "es-ar" => "es-419",
        "zh-hk" | "yue-cn" | "yue-hk" => "yue",
        "nb-no" | "no-no" => "nb",
        other => match other.split('-').next().unwrap_or("en") {
            "zh" | "cmn" => "cmn",
            "en" => "en-us",
            primary => primary,
        },
    };
    if is_female(voice) { format!("{name}+f3") } else { name.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn voices_come_from_tables() {
        for (voice, language, expected) in [
            ("man", "en-US", "en-us"),
            ("woman", "de-DE", "de+f3"),
            ("Polly.Hans", "de-DE", "de"),
            ("Polly.Joanna-Neural", "en-US", "en-us+f3"),
            ("alice", "zh-CN", "cmn+f3"),
            ("", "", "en-us"),
            ("man", "--help; rm -rf /", "en-us"),
        ] {
            let name = espeak_voice(voice, language);
            assert!(!name.starts_with('-'), "{name}");
            if language != "--help; rm -rf /" {
                assert_eq!(name, expected, "{voice} {language}");
            }
        }
    }

    #[test]
    fn pitch_is_on_the_engines_scale() {
        let scale = [0.01, 0.8, 1.0, 1.33, 9.0].map(espeak_pitch);
        assert_eq!(scale, [0, 20, 50, 80, 99]);
    }

    #[test]
    fn english_goes_to_the_better_engine() {
        let both = [Engine::Flite, Engine::EspeakNg];
        assert_eq!(Engine::choose(&both, "en-GB"), Some(Engine::Flite));
        assert_eq!(Engine::choose(&both, "de-DE"), Some(Engine::EspeakNg));
        assert_eq!(Engine::choose(&[Engine::Festival], "de-DE"), None);
        assert_eq!(Engine::parse("festival"), Some(Engine::Festival));
    }
}
