//! The program at an interface.

use aya::programs::xdp::XdpMode;
use aya::programs::{ProgramError, Xdp};

/// How to run at an interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// In the driver where it can, in the kernel's stack otherwise.
    Auto,
    /// In the driver only.
    Native,
    /// In the kernel's stack, which every interface can.
    Generic,
}

/// How the program runs at an interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attached {
    /// In the driver.
    Native,
    /// In the kernel's stack.
    Generic,
}

impl Attached {
    /// Name for logs.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Generic => "generic",
        }
    }
}

/// Why the program does not run at an interface.
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    /// No interface has this name.
    #[error("there is no interface {0}")]
    NoInterface(String),
    /// Frames without Ethernet addresses.
    #[error("{0} has no Ethernet addresses")]
    NoEthernet(String),
    /// The kernel refuses.
    #[error("the kernel refuses the program at {interface}: {error}")]
    Refused {
        /// Name.
        interface: String,
        /// Why.
        error: Box<ProgramError>,
    },
}

/// Attaches a loaded program; it is detached with the program's owner.
pub(crate) fn attach(
    program: &mut Xdp,
    interface: &str,
    mode: Mode,
) -> Result<Attached, AttachError> {
    let index = nix::net::if_::if_nametoindex(interface)
        .map_err(|_| AttachError::NoInterface(interface.to_owned()))?;
    let native = |program: &mut Xdp| program.attach_to_if_index(index, XdpMode::Driver);
    let generic = |program: &mut Xdp| program.attach_to_if_index(index, XdpMode::Skb);
    let attached = match mode {
        Mode::Native => native(program).map(|_| Attached::Native),
        Mode::Generic => generic(program).map(|_| Attached::Generic),
        Mode::Auto => native(program)
            .map(|_| Attached::Native)
            .or_else(|_| generic(program).map(|_| Attached::Generic)),
    };
    attached.map_err(|error| AttachError::Refused {
        interface: interface.to_owned(),
        error: Box::new(error),
    })
}
