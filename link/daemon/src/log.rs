//! The process's log: text for people or JSON lines, to standard error, with a level that can be
//! changed while it runs.

use std::sync::Arc;

use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Registry, fmt, reload};

/// How lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// Changes the level of a running process.
#[derive(Clone)]
pub struct LogLevel(Option<Arc<reload::Handle<EnvFilter, Registry>>>);

impl LogLevel {
    /// A handle of a process whose log belongs to somebody else: every change is refused.
    pub fn fixed() -> Self {
        Self(None)
    }

    /// Sets filter directives, for example `info` or `info,link=debug`.
    ///
    /// # Errors
    /// In words, if the directives cannot be understood or the log belongs to somebody else.
    pub fn set(&self, directives: &str) -> Result<(), String> {
        let filter = parse(directives)?;
        let handle = self.0.as_ref().ok_or("the log of this process is fixed")?;
        handle.reload(filter).map_err(|error| error.to_string())
    }

    /// The directives in force.
    pub fn directives(&self) -> Option<String> {
        self.0.as_ref()?.with_current(ToString::to_string).ok()
    }
}

impl std::fmt::Debug for LogLevel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("LogLevel").field(&self.directives()).finish()
    }
}

/// Checks filter directives.
///
/// # Errors
/// In words.
pub fn parse(directives: &str) -> Result<EnvFilter, String> {
    EnvFilter::try_new(directives).map_err(|error| format!("{directives:?}: {error}"))
}

/// Starts the log of this process. Once per process.
///
/// # Errors
/// If the directives are wrong or a log was started before.
pub fn init(directives: &str, format: LogFormat) -> anyhow::Result<LogLevel> {
    let (filter, handle) = reload::Layer::new(parse(directives).map_err(anyhow::Error::msg)?);
    let registry = tracing_subscriber::registry().with(filter);
    match format {
        LogFormat::Text => {
            let ansi = std::io::IsTerminal::is_terminal(&std::io::stderr());
            registry.with(fmt::layer().with_writer(std::io::stderr).with_ansi(ansi)).try_init()?;
        }
        LogFormat::Json => {
            registry.with(fmt::layer().json().with_writer(std::io::stderr)).try_init()?;
        }
    }
    Ok(LogLevel(Some(Arc::new(handle))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn level_changes_and_nonsense_is_refused() {
        let level = init("info", LogFormat::Text).unwrap();
        level.set("debug,quinn=warn").unwrap();
        assert!(level.directives().unwrap().contains("quinn=warn"));
        assert!(level.set("a=b=c").is_err());
        assert!(LogLevel::fixed().set("info").is_err());
        assert!(init("info", LogFormat::Json).is_err(), "only one log per process");
    }
}
