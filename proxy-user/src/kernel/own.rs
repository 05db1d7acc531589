//! The daemon's own memory: what the start used is given back to the system.

use std::ffi::c_void;
use std::ptr::NonNull;

use nix::sys::mman::{MmapAdvise, madvise, munlock};
use procfs::process::{MMPermissions, MMapPath, MemoryMap, Process};

/// Gives free memory of the heap back, and lets go of what is mapped of the program's own code: what is needed of it is mapped again when it
/// is run. None of it may be locked (madvise(2)).
pub fn let_go() {
    // SAFETY: it touches nothing but free memory of the allocator, under its own locks (malloc_trim(3)).
    unsafe { nix::libc::malloc_trim(0) };
    let own = std::env::current_exe().ok();
    for map in file_maps().filter(|map| map.perms.contains(MMPermissions::EXECUTE)) {
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
    for map in file_maps() {
        if let Some((start, length)) = range(&map) {
            // SAFETY: it changes whether pages may be taken out of memory, and nothing of what is in them.
            let _ = unsafe { munlock(start, length) };
        }
    }
}

/// Private mappings of files that cannot be written.
fn file_maps() -> impl Iterator<Item = MemoryMap> {
    let maps = Process::myself().and_then(|own| own.maps()).into_iter().flatten();
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

    /// In a process of its own: other tests run code, too.
    #[test]
    fn the_own_code_is_let_go_of_and_runs_on() {
        const ALONE: &str = "VOUCHSAFE_TEST_OWN";
        if std::env::var_os(ALONE).is_none() {
            let mut alone = std::process::Command::new(std::env::current_exe().unwrap());
            alone.args(["--exact", "kernel::own::tests::the_own_code_is_let_go_of_and_runs_on"]);
            let output = alone.args(["--test-threads", "1"]).env(ALONE, "1").output().unwrap();
            let said = String::from_utf8_lossy(&output.stdout);
            assert!(output.status.success() && said.contains("1 passed"), "{said}");
            return;
        }
        let code = || {
            let own = std::env::current_exe().unwrap();
            let is_own = |map: &MemoryMap| map.pathname == MMapPath::Path(own.clone());
            let resident = |map: MemoryMap| map.extension.map.get("Rss").copied().unwrap_or(0);
            let maps = Process::myself().unwrap().smaps().unwrap().into_iter();
            let code = maps.filter(|map| is_own(map) && map.perms.contains(MMPermissions::EXECUTE));
            code.map(resident).sum::<u64>()
        };
        // What was run of it before.
        assert!(code() > 0);
        let before = code();
        let_go();
        assert!(code() < before, "{} of {before} bytes are there", code());
        unlock_files();
        assert!(code() > 0);
    }
}
