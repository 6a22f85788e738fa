//! For tests and benches: single runs of the program, far ends that take what is redirected to them.

use std::time::Duration;

use aya::maps::{Array, PerCpuArray};
use aya::programs::{TestRunAttrs, TestRunOptions};
use aya::{Ebpf, EbpfLoader, TestRun as _};

use crate::attach::{AttachError, Attached, Mode, attach};
use crate::program::{FastPath, LoadError, program};

static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/testing.o"));

/// What the program says about a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Up to the socket, unchanged.
    Up,
    /// Out again by the interface it came from.
    Back,
    /// Out by another interface.
    Redirected,
    /// Anything else, by number.
    Other(u32),
}

/// Runs the program on a frame, `repeat` times over the same bytes; returns the verdict, the frame
/// afterwards, and the mean time.
///
/// # Errors
/// If the kernel has no `BPF_PROG_TEST_RUN` for such programs.
pub fn run(
    path: &mut FastPath,
    frame: &[u8],
    repeat: u32,
) -> Result<(Verdict, Vec<u8>, Duration), LoadError> {
    let mut out = vec![0; frame.len() + 256];
    let options = TestRunOptions {
        data_in: Some(frame),
        data_out: Some(&mut out),
        ctx_in: None,
        ctx_out: None,
        repeat,
        attrs: TestRunAttrs::new(),
    };
    let result = path.program()?.test_run(options)?;
    let verdict = match result.return_value {
        2 => Verdict::Up,
        3 => Verdict::Back,
        4 => Verdict::Redirected,
        other => Verdict::Other(other),
    };
    out.truncate(result.data_size_out as usize);
    Ok((verdict, out, result.duration))
}

/// A program at a far end.
#[derive(Debug)]
pub struct FarEnd {
    ebpf: Ebpf,
    name: &'static str,
}

impl FarEnd {
    /// Lets everything through. A virtual interface takes redirected frames only if its other end
    /// has a program.
    ///
    /// # Errors
    /// See [`LoadError`].
    pub fn open() -> Result<Self, LoadError> {
        Self::load("pass")
    }

    /// Counts and discards what is long enough to be media.
    ///
    /// # Errors
    /// See [`LoadError`].
    pub fn sink() -> Result<Self, LoadError> {
        Self::load("sink")
    }

    fn load(name: &'static str) -> Result<Self, LoadError> {
        if OBJECT.is_empty() {
            return Err(LoadError::NotBuilt);
        }
        let mut ebpf = EbpfLoader::new().load(OBJECT)?;
        program(&mut ebpf, name)?.load()?;
        Ok(Self { ebpf, name })
    }

    /// Runs at an interface of the caller's network namespace.
    ///
    /// # Errors
    /// See [`AttachError`].
    pub fn attach(&mut self, interface: &str, mode: Mode) -> Result<Attached, AttachError> {
        let program = program(&mut self.ebpf, self.name)
            .map_err(|_| AttachError::NoInterface(interface.to_owned()))?;
        attach(program, interface, mode)
    }

    /// How many of the frames with a time were under way for so many µs, by µs; the last one counts
    /// all that took longer.
    ///
    /// # Errors
    /// If the map cannot be read.
    pub fn delays_us(&self) -> Result<Vec<u64>, LoadError> {
        let map = self.ebpf.map("delays").ok_or(LoadError::NotBuilt)?;
        let delays = Array::<_, u64>::try_from(map)?;
        Ok((0..delays.len()).map(|place| delays.get(&place, 0)).collect::<Result<_, _>>()?)
    }

    /// Frames discarded.
    #[must_use]
    pub fn sunk(&self) -> u64 {
        let map = self.ebpf.map("sunk").and_then(|map| PerCpuArray::<_, u64>::try_from(map).ok());
        map.and_then(|map| map.get(&0, 0).ok()).map_or(0, |values| values.iter().sum())
    }
}

/// Where the frames of a bench carry the time at which they were sent (CLOCK_MONOTONIC, ns).
pub const TIME_AT: usize = 54;
/// What stands there in frames without a time.
pub const NO_TIME: u64 = 0x5555_5555_5555_5555;

/// A network namespace of its own, without a name; gone with the last socket in it.
#[derive(Debug)]
pub struct Netns(std::fs::File);

impl Netns {
    /// Makes one. Needs CAP_SYS_ADMIN.
    ///
    /// # Errors
    /// Of `unshare(2)`.
    pub fn new() -> std::io::Result<Self> {
        let made = std::thread::spawn(|| {
            nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET)?;
            std::fs::File::open("/proc/thread-self/ns/net")
        });
        made.join().map_err(|_| std::io::Error::other("panic"))?.map(Self)
    }

    /// Runs `f` inside. Sockets and programs that it makes stay there.
    ///
    /// # Panics
    /// As `f`, and if the namespace cannot be entered.
    pub fn enter<R: Send>(&self, f: impl FnOnce() -> R + Send) -> R {
        std::thread::scope(|scope| {
            let inside = scope.spawn(|| {
                let entered = nix::sched::setns(&self.0, nix::sched::CloneFlags::CLONE_NEWNET);
                assert!(entered.is_ok(), "setns: {entered:?}");
                f()
            });
            match inside.join() {
                Ok(result) => result,
                Err(panic) => std::panic::resume_unwind(panic),
            }
        })
    }

    /// As [`Self::enter`], with `/sys` as seen from there.
    ///
    /// # Panics
    /// As [`Self::enter`], and if nothing can be mounted.
    pub fn enter_with_sys<R: Send>(&self, f: impl FnOnce() -> R + Send) -> R {
        self.enter(|| {
            let own = nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS);
            assert!(own.is_ok(), "unshare: {own:?}");
            // Nobody else is to see it.
            mount(c"none", c"/", libc::MS_REC | libc::MS_PRIVATE);
            mount(c"sysfs", c"/sys", 0);
            f()
        })
    }

    /// A path by which other processes can name it, as long as this lives.
    #[must_use]
    pub fn path(&self) -> String {
        use std::os::fd::AsRawFd as _;
        format!("/proc/{}/fd/{}", std::process::id(), self.0.as_raw_fd())
    }

    /// Runs a script of the shell inside, with /sys as seen from there.
    ///
    /// # Errors
    /// With what it says.
    pub fn sh(&self, script: &str) -> std::io::Result<()> {
        self.enter(|| {
            let script = format!("set -e; mount -t sysfs sysfs /sys; {script}");
            let output =
                std::process::Command::new("unshare").args(["-m", "sh", "-c", &script]).output()?;
            if output.status.success() {
                return Ok(());
            }
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            Err(std::io::Error::other(format!("{script}: {said}")))
        })
    }
}

fn mount(what: &std::ffi::CStr, target: &std::ffi::CStr, flags: libc::c_ulong) {
    let (what, target) = (what.as_ptr(), target.as_ptr());
    // SAFETY: strings that live through the call; there is no data.
    let result = unsafe { libc::mount(what, target, what, flags, std::ptr::null()) };
    assert!(result == 0, "mount: {}", std::io::Error::last_os_error());
}

/// A namespace in the middle with a link to each of two others, as an edge between two carriers.
///
/// ```text
/// left l0 10.8.1.2 ─── e0 10.8.1.1 middle e1 10.8.2.1 ─── r0 10.8.2.2 right
///      fd08:1::2          fd08:1::1          fd08:2::1         fd08:2::2
/// ```
#[derive(Debug)]
pub struct Line {
    /// With interface `l0`.
    pub left: Netns,
    /// With interfaces `e0` and `e1`.
    pub middle: Netns,
    /// With interface `r0`.
    pub right: Netns,
}

impl Line {
    /// Makes it. The far ends compute checksums themselves, because a frame that is redirected
    /// takes no note of unfinished ones along.
    ///
    /// # Errors
    /// Without CAP_SYS_ADMIN and CAP_NET_ADMIN, `ip` and `ethtool`.
    pub fn new() -> std::io::Result<Self> {
        let line = Self { left: Netns::new()?, middle: Netns::new()?, right: Netns::new()? };
        for (n, far, name) in [(1, &line.left, "l0"), (2, &line.right, "r0")] {
            let (own, path) = (format!("e{}", n - 1), far.path());
            line.middle.sh(&format!(
                "ip link set lo up; ip link add {own} type veth peer name {name} netns {path}; \
                 ip addr add 10.8.{n}.1/24 dev {own}; \
                 ip -6 addr add fd08:{n}::1/64 dev {own} nodad; \
                 ethtool -K {own} tx off gro off > /dev/null; ip link set {own} up"
            ))?;
            far.sh(&format!(
                "ip link set lo up; ip addr add 10.8.{n}.2/24 dev {name}; \
                 ip -6 addr add fd08:{n}::2/64 dev {name} nodad; \
                 ethtool -K {name} tx off gro off > /dev/null; ip link set {name} up; \
                 ip route add default via 10.8.{n}.1; ip -6 route add default via fd08:{n}::1"
            ))?;
        }
        Ok(line)
    }

    /// Makes the middle know its neighbours.
    ///
    /// # Errors
    /// If they do not answer.
    pub fn meet(&self) -> std::io::Result<()> {
        self.middle.enter(|| {
            for far in ["10.8.1.2", "10.8.2.2", "fd08:1::2", "fd08:2::2"] {
                let far: std::net::IpAddr = far.parse().map_err(std::io::Error::other)?;
                let any: std::net::IpAddr =
                    if far.is_ipv4() { [0; 4].into() } else { [0; 16].into() };
                // Nobody listens there: it is the question for the link address that counts.
                std::net::UdpSocket::bind((any, 0))?.send_to(&[0], (far, 9))?;
            }
            std::io::Result::Ok(())
        })
    }
}
