//! The daemon's own memory: what the start used is given back to the system.

use std::cell::Cell;
use std::ffi::c_void;
use std::ptr::NonNull;
use std::time::Duration;

use nix::libc;
use nix::sys::mman::{MmapAdvise, madvise, munlock};
use nix::time::ClockId;
use procfs::ProcResult;
use procfs::process::{MMPermissions, MMapPath, MemoryMap, MemoryMaps, Process};

/// Of a piece of memory that is at least as large, the system has it back as soon as it is free: what packs segments has a few of these.
const LARGE: libc::c_int = 256 << 10;
/// So much may be free at the end of a heap before the system has it back. Calls come and go by less.
const FREE: libc::c_int = 2 << 20;

/// Has the allocator keep little of what is free, before there is a thread. Left to itself it learns from each large piece that is freed to take
/// larger ones from the heap, and to keep twice as much of that (mallopt(3)): in each of the heaps that threads have, and there are eight for a
/// processor.
///
/// Their number stays as it is: what stands behind all others (`stand_last`) must not hold the lock of a heap that calls use.
pub fn keep_little() {
    for (name, value) in [(libc::M_MMAP_THRESHOLD, LARGE), (libc::M_TRIM_THRESHOLD, FREE)] {
        // SAFETY: settings of the allocator, which takes its own locks (mallopt(3)). One that it does not take changes nothing.
        unsafe { libc::mallopt(name, value) };
    }
}

/// Gives free memory of all heaps back; of those that are locked, only the end of the first.
pub fn trim() {
    // SAFETY: it touches nothing but free memory of the allocator, under its own locks (malloc_trim(3)).
    unsafe { libc::malloc_trim(0) };
}

/// Gives back what is free in this thread's heap, also where memory is locked, of which [`trim`] gives nothing back: the allocator does not ask
/// for that (`MADV_DONTNEED` of locked memory is refused, madvise(2)). For a thread that ends, because the next one may be given another heap.
pub fn trim_own() {
    empty_own(0);
}

/// The same, of a thread that has nothing to do now, at most once in a while; little stays, for what comes next. What many had who are gone is
/// kept only in part: a megabyte that is given back takes some 0.2 milliseconds.
pub fn trim_at_rest() {
    const WHILE: Duration = Duration::from_secs(5);
    thread_local! {
        static LAST: Cell<Duration> = const { Cell::new(Duration::ZERO) };
    }
    let now = ClockId::CLOCK_MONOTONIC_COARSE.now().map_or(Duration::ZERO, Duration::from);
    if now.saturating_sub(LAST.get()) >= WHILE {
        LAST.set(now);
        empty_own(usize::try_from(FREE).unwrap_or(0) / PIECE);
    }
}

/// Of what is taken from a heap to be emptied: less than what is a mapping of its own.
const PIECE: usize = 200 << 10;

/// Takes what is free in this thread's heap in such pieces, empties it, and gives it back: nobody else has it meanwhile. The first pieces stay as
/// they are.
fn empty_own(stay: usize) {
    /// Together some more than what is kept for small pieces. There may not be so many.
    const LEAST: usize = 14;
    /// At a time: 50 MiB.
    const MOST: usize = 256;
    /// The smallest page that there is: a piece has no more of them.
    const PAGE: usize = 4096;
    thread_local! {
        /// The end of the last piece in which something was.
        static USED: Cell<usize> = const { Cell::new(0) };
    }
    let page = rustix::param::page_size().max(PAGE);
    let mut pieces = [std::ptr::null_mut::<c_void>(); MOST];
    for (place, piece) in pieces.iter_mut().enumerate() {
        // SAFETY: the allocator's own (malloc(3)); null when there is none.
        *piece = std::hint::black_box(unsafe { libc::malloc(PIECE) });
        if piece.is_null() {
            break;
        }
        let end = piece.addr().saturating_add(PIECE);
        let start = piece.map_addr(|at| at.next_multiple_of(page));
        let length = end.saturating_sub(start.addr()) / page * page;
        let mut there = [0_u8; PIECE / PAGE];
        // SAFETY: whole pages of a piece that is ours, of which there are no more than bytes for the answer (mincore(2)).
        let is_told = unsafe { libc::mincore(start, length, there.as_mut_ptr()) } == 0;
        let is_empty = is_told && there.iter().all(|page| page & 1 == 0);
        if !is_empty {
            USED.set(USED.get().max(end));
        }
        // It cannot be asked (a filter of system calls), or the heap had nothing free any more, and this is new.
        if place >= LEAST && (!is_told || end > USED.get()) {
            break;
        }
        // SAFETY: as above, and nothing is in it; a kernel that does not know it (before 5.18) says so.
        if !is_empty && place >= stay && unsafe { libc::madvise(start, length, MADV_DONTNEED_LOCKED) } != 0 {
            break;
        }
    }
    // SAFETY: each is from above, or null (free(3)).
    pieces.into_iter().for_each(|piece| unsafe { libc::free(piece) });
}

/// include/uapi/asm-generic/mman-common.h; `MADV_DONTNEED` that also takes locked memory.
const MADV_DONTNEED_LOCKED: libc::c_int = 24;

/// Gives free memory of the heap back, and lets go of what is mapped of the program's own code and constants: what is needed of them is mapped
/// again when it is used. None of it may be locked (madvise(2)).
pub fn let_go() {
    trim();
    let own = std::env::current_exe().ok();
    // What the loader has changed of it (relocations) is nowhere else: its pages are not the file's any more, in memory or taken out of it
    // (smaps, proc(5)).
    let is_none = |map: &MemoryMap, pages: &str| map.extension.map.get(pages) == Some(&0);
    let is_the_files = |map: &MemoryMap| is_none(map, "Anonymous") && is_none(map, "Swap");
    for map in own_maps(Process::smaps).filter(is_the_files) {
        let MMapPath::Path(path) = &map.pathname else { continue };
        if Some(path) != own.as_ref() {
            continue;
        }
        if let Some((start, length)) = range(&map) {
            // SAFETY: a mapping of a file that nobody can write to in memory: what is dropped is read from the file again, the same.
            let _ = unsafe { madvise(start, length, MmapAdvise::MADV_DONTNEED) };
        }
    }
}

/// Unlocks what is mapped from files and cannot be written: it holds no secret, and the system may have its memory when it is short of some.
pub fn unlock_files() {
    for map in own_maps(Process::maps) {
        if let Some((start, length)) = range(&map) {
            // SAFETY: it changes whether pages may be taken out of memory, and nothing of what is in them.
            let _ = unsafe { munlock(start, length) };
        }
    }
}

/// Private mappings of files that cannot be written.
fn own_maps(of: impl FnOnce(&Process) -> ProcResult<MemoryMaps>) -> impl Iterator<Item = MemoryMap> {
    let maps = Process::myself().and_then(|own| of(&own)).into_iter().flatten();
    maps.filter(|map| {
        matches!(map.pathname, MMapPath::Path(_))
            && map.perms.contains(MMPermissions::PRIVATE)
            && !map.perms.contains(MMPermissions::WRITE)
    })
}

fn range(map: &MemoryMap) -> Option<(NonNull<c_void>, usize)> {
    let (start, end) = map.address;
    let length = usize::try_from(end.checked_sub(start)?).ok()?;
    let start = std::ptr::with_exposed_provenance_mut(usize::try_from(start).ok()?);
    Some((NonNull::new(start)?, length))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether this is a process of its own for the test, which nothing else runs in; elsewhere the test was run in one.
    fn is_alone(test: &str) -> bool {
        const ALONE: &str = "VOUCHSAFE_TEST_OWN";
        if std::env::var_os(ALONE).is_some() {
            return true;
        }
        let mut alone = std::process::Command::new(std::env::current_exe().unwrap());
        alone.args(["--exact", &format!("kernel::own::tests::{test}"), "--test-threads", "1"]);
        let output = alone.env(ALONE, "1").output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && said.contains("1 passed"), "{said}");
        false
    }

    #[test]
    fn what_is_large_goes_back_to_the_system_also_behind_what_was_larger() {
        if !is_alone("what_is_large_goes_back_to_the_system_also_behind_what_was_larger") {
            return;
        }
        // SAFETY: it only reads what the allocator counts.
        let large = || unsafe { libc::mallinfo2() }.hblks;
        keep_little();
        drop(vec![1_u8; 8 << 20]);
        let before = large();
        let some = vec![1_u8; 1 << 20];
        assert_eq!(large(), before + 1, "it is none of the heap");
        drop(some);
        assert_eq!(large(), before);
    }

    /// Sets memory up as the daemon's is.
    fn locked() {
        keep_little();
        // SAFETY: it changes whether pages may be taken out of memory, and nothing of what is in them.
        assert_eq!(unsafe { libc::mlockall(libc::MCL_CURRENT | libc::MCL_FUTURE | libc::MCL_ONFAULT) }, 0);
    }

    /// Bytes of memory in heaps but the first.
    fn anonymous() -> u64 {
        let maps = Process::myself().unwrap().smaps().unwrap().into_iter();
        maps.filter(|map| map.pathname == MMapPath::Anonymous)
            .filter_map(|map| map.extension.map.get("Rss").copied())
            .sum()
    }

    #[test]
    fn a_thread_at_rest_keeps_little_of_what_many_had_and_looks_once_in_a_while() {
        if !is_alone("a_thread_at_rest_keeps_little_of_what_many_had_and_looks_once_in_a_while") {
            return;
        }
        locked();
        let before = anonymous();
        let worker = move || {
            // What lives on is between them.
            let fill = || -> (Vec<_>, Vec<_>) {
                (0..400)
                    .map(|number| (vec![1_u8; 100 << 10], (number % 50 == 0).then(|| vec![1_u8; 1000])))
                    .unzip()
            };
            let left = || anonymous().saturating_sub(before);
            let (large, small) = std::hint::black_box(fill());
            drop(large);
            let kept = left();
            trim_at_rest();
            let (first, again) = (left(), std::hint::black_box(fill()));
            drop(again.0);
            let filled = left();
            trim_at_rest();
            assert!(small.iter().flatten().all(|piece| piece.iter().all(|byte| *byte == 1)));
            (kept, first, filled, left())
        };
        let (kept, first, filled, second) = std::thread::spawn(worker).join().unwrap();
        assert!(kept > 35 << 20 && filled > 35 << 20, "{kept} and {filled} bytes are free");
        assert!((1 << 20..6 << 20).contains(&first), "{first} bytes of {kept} are left");
        assert!(second > 35 << 20, "that was too soon: {second} bytes of {filled} are left");
    }

    #[test]
    fn a_thread_that_ends_leaves_little_in_its_heap() {
        if !is_alone("a_thread_that_ends_leaves_little_in_its_heap") {
            return;
        }
        locked();
        // In pieces that are none of their own, and together less than what a heap keeps.
        let before = anonymous();
        let work = |trims: bool| {
            let fill = || (0..15).map(|_| vec![1_u8; 100 << 10]).collect::<Vec<_>>();
            let worker = move || {
                drop(std::hint::black_box(fill()));
                if trims {
                    trim_own();
                }
            };
            std::thread::spawn(worker).join().unwrap();
            trim();
            anonymous().saturating_sub(before)
        };
        let kept = work(false);
        assert!(kept > 1 << 20, "{kept} bytes are left by one that does nothing for it");
        // It is given the heap of the first.
        let left = work(true);
        assert!(left < 400 << 10, "{left} bytes are left of {kept}");
    }

    #[test]
    fn the_own_code_is_let_go_of_and_runs_on() {
        if !is_alone("the_own_code_is_let_go_of_and_runs_on") {
            return;
        }
        let resident = |of: MMPermissions| {
            let own = std::env::current_exe().unwrap();
            let is_own = |map: &MemoryMap| map.pathname == MMapPath::Path(own.clone());
            let there = |map: MemoryMap| map.extension.map.get("Rss").copied().unwrap_or(0);
            let maps = Process::myself().unwrap().smaps().unwrap().into_iter();
            maps.filter(|map| is_own(map) && map.perms == of).map(there).collect::<Vec<_>>()
        };
        let private = MMPermissions::READ | MMPermissions::PRIVATE;
        let code = || resident(private | MMPermissions::EXECUTE).into_iter().sum::<u64>();
        // What was run of it before.
        assert!(code() > 0);
        let (before, constants) = (code(), resident(private));
        let_go();
        assert!(code() < before, "{} of {before} bytes are there", code());
        // Those before the code; behind it are those that the loader changed, which stay.
        let ([first, .., last], left) = (&constants[..], resident(private)) else { panic!("{constants:?}") };
        assert!(left[0] < *first && left.last() == Some(last), "{left:?} of {constants:?} bytes are there");
        unlock_files();
        assert!(code() > 0);
    }
}
