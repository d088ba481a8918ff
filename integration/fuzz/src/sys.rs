//! What a compiler that instruments calls, and the counters that it keeps: LLVM's sanitizer coverage.
//! Without the instrumentation nobody calls, and there is nothing to see.
//!
//! <https://clang.llvm.org/docs/SanitizerCoverage.html>

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

/// The address and the number of the counters, one for each edge between blocks of code.
static COUNTERS: Mutex<Vec<(usize, usize)>> = Mutex::new(Vec::new());

/// Called by each object before `main`: where its counters begin and end.
#[unsafe(no_mangle)]
extern "C" fn __sanitizer_cov_8bit_counters_init(start: *mut u8, end: *mut u8) {
    let Ok(mut counters) = COUNTERS.lock() else { return };
    let range = (start as usize, end as usize - start as usize);
    if range.1 > 0 && !counters.contains(&range) {
        counters.push(range);
    }
}

/// Whether the code is instrumented.
pub(crate) fn is_instrumented() -> bool {
    COUNTERS.lock().is_ok_and(|counters| !counters.is_empty())
}

/// Looks at all counters that are not zero, by their number in a row, and sets them to zero. Only while no other
/// thread runs code that counts: see [`crate::Target::run`].
pub(crate) fn take_counters(mut seen: impl FnMut(usize, u8)) {
    let ranges = COUNTERS.lock().map(|counters| counters.clone()).unwrap_or_default();
    let mut first = 0;
    for (start, length) in ranges {
        // SAFETY: the linker made this array of bytes in writable static memory, which lives as long as the
        // program, and told us its whole extent. Rust code has no reference to it. Instrumented code of
        // other threads could write it meanwhile; there is none, because a guided run has one thread that
        // runs targets (`--test-threads=1`), and this is it.
        let counters = unsafe { std::slice::from_raw_parts_mut(start as *mut u8, length) };
        for (at, counter) in counters.iter_mut().enumerate() {
            if *counter != 0 {
                seen(first + at, std::mem::take(counter));
            }
        }
        first += length;
    }
}

const RING: usize = 512;
/// The last comparisons with a constant, while somebody wants to know.
static LEFT: [AtomicU64; RING] = [const { AtomicU64::new(0) }; RING];
static RIGHT: [AtomicU64; RING] = [const { AtomicU64::new(0) }; RING];
static COMPARISONS: AtomicUsize = AtomicUsize::new(0);
static IS_WATCHED: AtomicBool = AtomicBool::new(false);

fn note(left: u64, right: u64) {
    // What differs by nothing or is a small number tells nothing.
    if left != right && left.max(right) > 0x100 && IS_WATCHED.load(Ordering::Relaxed) {
        let at = COMPARISONS.fetch_add(1, Ordering::Relaxed) % RING;
        LEFT[at].store(left, Ordering::Relaxed);
        RIGHT[at].store(right, Ordering::Relaxed);
    }
}

macro_rules! comparisons {
    ($($name:ident: $number:ty,)+) => {
        $(#[unsafe(no_mangle)]
        extern "C" fn $name(left: $number, right: $number) {
            note(left.into(), right.into());
        })+
    };
}

comparisons! {
    __sanitizer_cov_trace_cmp1: u8,
    __sanitizer_cov_trace_cmp2: u16,
    __sanitizer_cov_trace_cmp4: u32,
    __sanitizer_cov_trace_cmp8: u64,
    __sanitizer_cov_trace_const_cmp1: u8,
    __sanitizer_cov_trace_const_cmp2: u16,
    __sanitizer_cov_trace_const_cmp4: u32,
    __sanitizer_cov_trace_const_cmp8: u64,
}

/// The alternatives of a `match` are counted as edges already.
#[unsafe(no_mangle)]
extern "C" fn __sanitizer_cov_trace_switch(_value: u64, _cases: *const u64) {}

/// Runs `act` and gives what it has compared.
pub(crate) fn comparisons_of(act: impl FnOnce()) -> Vec<(u64, u64)> {
    COMPARISONS.store(0, Ordering::Relaxed);
    IS_WATCHED.store(true, Ordering::Relaxed);
    act();
    IS_WATCHED.store(false, Ordering::Relaxed);
    let count = COMPARISONS.load(Ordering::Relaxed).min(RING);
    (0..count).map(|at| (LEFT[at].load(Ordering::Relaxed), RIGHT[at].load(Ordering::Relaxed))).collect()
}

static HELD: AtomicUsize = AtomicUsize::new(0);
static MOST: AtomicUsize = AtomicUsize::new(0);

/// How much more memory than before `act` holds at its worst moment; 0 where nothing is counted.
pub(crate) fn memory_of(act: impl FnOnce()) -> usize {
    let before = HELD.load(Ordering::Relaxed);
    MOST.store(before, Ordering::Relaxed);
    act();
    MOST.load(Ordering::Relaxed).saturating_sub(before)
}

/// The system's allocator, and a sum of what it has given.
struct Counting;

// A program has one allocator, and only a run that is watched pays for this one.
#[cfg_attr(fuzzing, global_allocator)]
#[cfg_attr(not(fuzzing), expect(dead_code, reason = "see above"))]
static COUNTING: Counting = Counting;

// SAFETY: every call is passed on, with the arguments as they came, to the system's allocator, which keeps
// the contract; the numbers that are kept beside take no part in it and allocate nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let held = HELD.fetch_add(layout.size(), Ordering::Relaxed) + layout.size();
        MOST.fetch_max(held, Ordering::Relaxed);
        // SAFETY: our caller has promised what `System` asks of its own: a layout of more than no bytes.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        HELD.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: all memory that we gave is of `System`, and our caller has promised that this is such
        // memory, with the layout that it was asked for with.
        unsafe { System.dealloc(pointer, layout) }
    }
}
