//! Proof that a child allocates nothing between its clone and its program: with the feature
//! `alloc-guard` every allocation after [`forbid`] ends the process with a message. The tests run
//! once with a build that has it.

#[cfg(not(feature = "alloc-guard"))]
#[inline]
pub fn forbid() {}

#[cfg(feature = "alloc-guard")]
pub use guard::forbid;

#[cfg(feature = "alloc-guard")]
mod guard {
    use std::alloc::{GlobalAlloc, Layout, System};
    use std::sync::atomic::{AtomicBool, Ordering};

    static FORBIDDEN: AtomicBool = AtomicBool::new(false);

    /// From here on this process (a child, by itself) must not allocate.
    pub fn forbid() {
        FORBIDDEN.store(true, Ordering::Relaxed);
    }

    struct Guard;

    #[global_allocator]
    static GUARD: Guard = Guard;

    fn check() {
        if FORBIDDEN.load(Ordering::Relaxed) {
            let text = b"tare: a child allocated memory between clone and exec\n";
            // SAFETY: the kernel reads `text.len()` bytes of a static text.
            unsafe { libc::write(2, text.as_ptr().cast(), text.len()) };
            // SAFETY: takes a number and does not return: no value of ours is used afterwards.
            unsafe { libc::_exit(99) };
        }
    }

    // SAFETY: every call is passed on to the system's allocator, which keeps the contract.
    unsafe impl GlobalAlloc for Guard {
        unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
            check();
            // SAFETY: our caller has promised what `System` asks of its own: a layout of more than no bytes.
            unsafe { System.alloc(layout) }
        }

        unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
            // Freeing is allowed: an owned value may end in the child.
            // SAFETY: all memory that we gave is of `System`, and our caller has promised that this is such memory,
            // with the layout that it was asked for with.
            unsafe { System.dealloc(pointer, layout) }
        }
    }
}
