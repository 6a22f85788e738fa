//! Memory that the kernel may read and write: whole pages, touched before use, never moved.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::ptr::NonNull;

const PAGE_BYTES: usize = 4096;

/// Page-aligned zeroed memory that lives as long as this value, or for ever if leaked.
pub(crate) struct Pages {
    start: NonNull<u8>,
    layout: Layout,
    leaked: bool,
}

impl Pages {
    pub(crate) fn new(bytes: usize) -> Self {
        let bytes = bytes.max(1).next_multiple_of(PAGE_BYTES);
        let layout = match Layout::from_size_align(bytes, PAGE_BYTES) {
            Ok(layout) => layout,
            Err(_) => handle_alloc_error(Layout::new::<u8>()),
        };
        // SAFETY: the layout's size is not zero.
        let start = unsafe { alloc_zeroed(layout) };
        let Some(start) = NonNull::new(start) else { handle_alloc_error(layout) };
        let pages = Pages { start, layout, leaked: false };
        for page in (0..bytes).step_by(PAGE_BYTES) {
            // Touched now, so that the media thread never faults on first use.
            // SAFETY: `page` is inside the allocation, which nobody else uses yet.
            unsafe { pages.at(page).write_volatile(0) };
        }
        pages
    }

    /// The address `offset` bytes into the memory.
    pub(crate) fn at(&self, offset: usize) -> *mut u8 {
        assert!(offset < self.layout.size(), "offset inside the allocation");
        // SAFETY: the offset was just checked to be inside the allocation.
        unsafe { self.start.as_ptr().add(offset) }
    }

    /// The kernel may still write here: never give it back.
    pub(crate) fn leak(&mut self) {
        self.leaked = true;
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        if !self.leaked {
            // SAFETY: allocated in `new` with this very layout, and not freed before.
            unsafe { dealloc(self.start.as_ptr(), self.layout) };
        }
    }
}
