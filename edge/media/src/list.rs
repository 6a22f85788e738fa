//! Small containers of fixed capacity.

/// Up to `N` numbers, in order of insertion. The length and the first ones lie together.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub(crate) struct List<const N: usize> {
    len: u32,
    items: [u32; N],
}

impl<const N: usize> List<N> {
    pub(crate) const fn new() -> Self {
        Self { len: 0, items: [0; N] }
    }

    /// False if it is full.
    pub(crate) fn push(&mut self, item: u32) -> bool {
        let Some(place) = self.items.get_mut(self.len as usize) else { return false };
        *place = item;
        self.len += 1;
        true
    }

    pub(crate) fn remove(&mut self, item: u32) {
        let Some(at) = self.as_slice().iter().position(|other| *other == item) else { return };
        self.items.copy_within(at + 1..self.len as usize, at);
        self.len -= 1;
    }

    pub(crate) fn as_slice(&self) -> &[u32] {
        self.items.get(..self.len as usize).unwrap_or_default()
    }
}

/// Things made at start, lent by number.
#[derive(Debug)]
pub(crate) struct Pool<T> {
    items: Vec<T>,
    free: Vec<u32>,
}

impl<T> Pool<T> {
    pub(crate) fn new(count: u32, make: impl Fn() -> T) -> Self {
        Self { items: (0..count).map(|_| make()).collect(), free: (0..count).rev().collect() }
    }

    pub(crate) fn take(&mut self) -> Option<u32> {
        self.free.pop()
    }

    /// Numbers come from [`Self::take`] and are given back once.
    pub(crate) fn give_back(&mut self, index: u32) {
        debug_assert!(!self.free.contains(&index));
        self.free.push(index);
    }

    pub(crate) fn get_mut(&mut self, index: u32) -> Option<&mut T> {
        self.items.get_mut(index as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_keep_order_and_capacity() {
        let mut list = List::<3>::new();
        assert!(list.push(7) && list.push(8) && list.push(9) && !list.push(10));
        list.remove(8);
        list.remove(99);
        assert_eq!(list.as_slice(), [7, 9]);
    }

    #[test]
    fn pools_lend_each_thing_once() {
        let mut pool = Pool::new(2, || 0);
        let (a, b) = (pool.take().unwrap(), pool.take().unwrap());
        assert_ne!(a, b);
        assert_eq!(pool.take(), None);
        pool.give_back(a);
        assert_eq!(pool.take(), Some(a));
    }
}
