//! Software interrupt coalescing: packets of an interval are taken in one wake-up.
//!
//! For an interface that is busy, most of a packet's cost is waking the processor up for it. With
//! `gro_flush_timeout` and `napi_defer_hard_irqs` the kernel leaves interrupts off after it has
//! worked packets off, and looks again when the time is over. The first packet after a silence of
//! some intervals still interrupts at once.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, Write as _};
use std::path::Path;
use std::time::Duration;

/// Looks in vain before interrupts are let in again: packets that come at random leave an interval
/// empty now and then.
const LOOKS_IN_VAIN: u32 = 2;
const TIMEOUT: &str = "gro_flush_timeout";
const DEFER: &str = "napi_defer_hard_irqs";

/// An interface whose interrupts are coalesced. It gets back what it had before when this is
/// dropped; a process that is killed leaves it as it is.
#[derive(Debug)]
pub(crate) struct Coalesced {
    timeout: Setting,
    defer: Setting,
}

impl Coalesced {
    /// An interface of the caller's network namespace.
    ///
    /// # Errors
    /// If the kernel is older than 5.8, does not permit it, or `/sys` shows another namespace.
    pub(crate) fn set(interface: &str, wait: Duration) -> io::Result<Self> {
        let folder = Path::new("/sys/class/net").join(interface);
        let index: u32 = std::fs::read_to_string(folder.join("ifindex"))?
            .trim()
            .parse()
            .map_err(io::Error::other)?;
        if nix::net::if_::if_nametoindex(interface)? != index {
            return Err(io::Error::other("/sys is that of another network namespace"));
        }
        let (timeout, defer) =
            (Setting::open(&folder.join(TIMEOUT))?, Setting::open(&folder.join(DEFER))?);
        // Whatever fails from here on is undone by the drop.
        let mut coalesced = Self { timeout, defer };
        coalesced.timeout.write(&wait.as_nanos().to_string())?;
        coalesced.defer.write(&LOOKS_IN_VAIN.to_string())?;
        Ok(coalesced)
    }
}

impl Drop for Coalesced {
    fn drop(&mut self) {
        // An interface that is gone needs nothing.
        let _ = self.defer.restore();
        let _ = self.timeout.restore();
    }
}

/// A value in `/sys`. It stays open, so that it is the same interface's at the end.
#[derive(Debug)]
struct Setting {
    file: File,
    before: String,
}

impl Setting {
    fn open(path: &Path) -> io::Result<Self> {
        let mut file = File::options().read(true).write(true).open(path)?;
        let mut before = String::new();
        file.read_to_string(&mut before)?;
        Ok(Self { file, before: before.trim().to_owned() })
    }

    fn write(&mut self, value: &str) -> io::Result<()> {
        self.file.rewind()?;
        self.file.write_all(value.as_bytes())
    }

    fn restore(&mut self) -> io::Result<()> {
        let before = std::mem::take(&mut self.before);
        self.write(&before)
    }
}
