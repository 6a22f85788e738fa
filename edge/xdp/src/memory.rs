//! An array map of the kernel as memory of this process.

use std::io;
use std::os::fd::{AsFd, AsRawFd as _};
use std::ptr::NonNull;

/// What the kernel may write to at any time: made of atomics and `UnsafeCell`s, and valid whatever
/// its bytes are.
pub(crate) trait KernelMemory {}

impl KernelMemory for crate::layout::RawStream {}
impl KernelMemory for crate::layout::RawHop {}
impl KernelMemory for crate::layout::Bucket {}

/// `count` entries of type `T`, shared with the kernel.
#[derive(Debug)]
pub(crate) struct Shared<T> {
    first: NonNull<T>,
    count: u32,
    bytes: usize,
}

// SAFETY: it is only an address; what is done with the entries is up to their owners.
unsafe impl<T: KernelMemory> Send for Shared<T> {}
// SAFETY: as above.
unsafe impl<T: KernelMemory> Sync for Shared<T> {}

impl<T: KernelMemory> Shared<T> {
    /// Maps all of an array map that was made with `BPF_F_MMAPABLE` and has values of `T`'s size.
    ///
    /// # Errors
    /// Of `mmap(2)`.
    pub(crate) fn map(map: &impl AsFd, count: u32) -> io::Result<Self> {
        let bytes = size_of::<T>() * count as usize;
        let (protection, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED);
        let fd = map.as_fd().as_raw_fd();
        // SAFETY: a new mapping at an address of the kernel's choice.
        let start = unsafe { libc::mmap(std::ptr::null_mut(), bytes, protection, flags, fd, 0) };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let first = NonNull::new(start.cast()).ok_or(io::ErrorKind::InvalidData)?;
        Ok(Self { first, count, bytes })
    }

    /// An entry.
    pub(crate) fn at(&self, place: u32) -> Option<&T> {
        if place >= self.count {
            return None;
        }
        // SAFETY: inside the mapping, as `place` is below the number of entries.
        let entry = unsafe { self.first.add(place as usize) };
        // SAFETY: aligned, as the mapping begins with a page and its entries follow each other;
        // valid for any bytes, and open to changes, by `KernelMemory`.
        Some(unsafe { entry.as_ref() })
    }
}

impl<T> Drop for Shared<T> {
    fn drop(&mut self) {
        // SAFETY: the mapping that `map` made; nobody has an address any more.
        unsafe { libc::munmap(self.first.as_ptr().cast(), self.bytes) };
    }
}
