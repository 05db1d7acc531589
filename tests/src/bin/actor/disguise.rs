//! A process that makes the kernel name another file as its executable, as any user may in a user namespace of his own
//! (prctl(2), `PR_SET_MM_MAP`).
#![allow(unsafe_code, reason = "no library lets a program replace what it is made of")]

use std::fs;
use std::io;
use std::os::fd::AsRawFd as _;

/// `struct prctl_mm_map` (include/uapi/linux/prctl.h).
#[repr(C)]
#[derive(Default)]
struct MemoryMap {
    start_code: u64,
    end_code: u64,
    start_data: u64,
    end_data: u64,
    start_brk: u64,
    brk: u64,
    start_stack: u64,
    arg_start: u64,
    arg_end: u64,
    env_start: u64,
    env_end: u64,
    auxv: u64,
    auxv_size: u32,
    exe_fd: u32,
}

/// Becomes `file` for everybody who looks at `/proc/PID/exe`.
pub(crate) fn disguise(file: &str) -> io::Result<()> {
    // SAFETY: this process has one thread.
    check(unsafe { libc::unshare(libc::CLONE_NEWUSER) })?;
    // The kernel wants the old executable unmapped.
    let own = fs::read_link("/proc/self/exe")?;
    for line in fs::read_to_string("/proc/self/maps")?.lines() {
        if line.ends_with(own.to_str().unwrap()) {
            replace(line)?;
        }
    }
    let file = fs::File::open(file)?;
    let stat = fs::read_to_string("/proc/self/stat")?;
    // Fields of proc_pid_stat(5), from the third on.
    let (_, fields) = stat.rsplit_once(") ").unwrap();
    let fields: Vec<&str> = fields.split(' ').collect();
    let field = |number: usize| fields.get(number - 3).unwrap().parse::<u64>().unwrap();
    let map = MemoryMap {
        start_code: field(26),
        end_code: field(27),
        start_stack: field(28),
        start_data: field(45),
        end_data: field(46),
        start_brk: field(47),
        // SAFETY: asks for the end of the heap, and changes nothing.
        brk: unsafe { libc::sbrk(0) } as u64,
        arg_start: field(48),
        arg_end: field(49),
        env_start: field(50),
        env_end: field(51),
        exe_fd: file.as_raw_fd().unsigned_abs(),
        ..MemoryMap::default()
    };
    const PR_SET_MM_MAP: libc::c_ulong = 14;
    let size = size_of::<MemoryMap>() as libc::c_ulong;
    // SAFETY: the map is of the size that is told, and is only read.
    check(unsafe { libc::prctl(libc::PR_SET_MM, PR_SET_MM_MAP, &raw const map, size, 0) })
}

/// Puts an anonymous copy in place of one mapping of a file.
fn replace(line: &str) -> io::Result<()> {
    let mut words = line.split(' ');
    let (from, to) = words.next().unwrap().split_once('-').unwrap();
    let (from, to) = (usize::from_str_radix(from, 16).unwrap(), usize::from_str_radix(to, 16).unwrap());
    let rights = words.next().unwrap();
    let length = to - from;
    let mut protection = libc::PROT_NONE;
    for (letter, right) in [('r', libc::PROT_READ), ('w', libc::PROT_WRITE), ('x', libc::PROT_EXEC)] {
        if rights.contains(letter) {
            protection |= right;
        }
    }
    let both = libc::PROT_READ | libc::PROT_WRITE;
    // SAFETY: the copy has the length and the content of the mapping that it replaces at once, so nobody sees a change.
    unsafe {
        let copy =
            libc::mmap(std::ptr::null_mut(), length, both, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1, 0);
        if copy == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        if protection & libc::PROT_READ != 0 {
            std::ptr::copy_nonoverlapping(from as *const u8, copy.cast::<u8>(), length);
        }
        check(libc::mprotect(copy, length, protection))?;
        let moved = libc::mremap(
            copy,
            length,
            length,
            libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED,
            from as *mut libc::c_void,
        );
        if moved == libc::MAP_FAILED { Err(io::Error::last_os_error()) } else { Ok(()) }
    }
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
