//! The environment that a program is started with: whether it has variables by which whoever starts a program puts code of
//! his own into it. Read when it is executed, from memory that no code of it has touched yet.
use aya_ebpf::helpers::generated::bpf_probe_read_user_str;
use proxy_common::{ENVIRONMENT_LONG, PATH_BYTES, TRACE_PROMPT};

use crate::{
    capture::read,
    maps::{STRINGS, VARIABLES, offsets},
};

/// How many strings are looked at, those longer than a [`CHUNK`] several times.
const MOST_STRINGS: u32 = 512;

/// How many of them in one loop.
const AT_ONCE: u32 = 16;

/// Bytes that are read at a time.
const CHUNK: u32 = 4096;

/// Where a string is read to. What the loop finds is kept here, not in registers: the verifier would follow every
/// combination.
#[repr(C)]
pub struct Strings {
    text: [u8; CHUNK as usize],
    found: u32,
    /// 1: the next bytes go on with the string before.
    within: u32,
    /// Where the value of the first `PATH` stands; 0: there is none.
    path_at: u64,
}

/// `PATH=`, as the first five bytes of a word of this machine, and those bytes alone.
const PATH: u64 = u64::from_ne_bytes(*b"PATH=\0\0\0");
const FIVE_BYTES: u64 = (1 << 40) - 1;

/// `PS4=`, as the first four bytes of a word.
const PS4: u32 = u32::from_ne_bytes(*TRACE_PROMPT.0);

/// A bit for each of `LOADER_VARIABLES` that the current process was started with.
#[inline(always)]
pub fn of_executed(mm: u64) -> u32 {
    let offsets = offsets();
    let (Some(mut at), Some(end)) =
        (read::<u64>(mm, offsets.mm_env_start), read::<u64>(mm, offsets.mm_env_end))
    else {
        return ENVIRONMENT_LONG;
    };
    let Some(strings) = STRINGS.get_ptr_mut(0) else { return ENVIRONMENT_LONG };
    // SAFETY: the slot is this CPU's, and a tracepoint does not interrupt itself.
    unsafe {
        (&raw mut (*strings).found).write_volatile(0);
        (&raw mut (*strings).within).write_volatile(0);
        (&raw mut (*strings).path_at).write_volatile(0);
    }
    for _ in 0..MOST_STRINGS / AT_ONCE {
        at = look_at_strings(at, end);
        if at >= end {
            // SAFETY: as above.
            return unsafe { (&raw const (*strings).found).read_volatile() };
        }
        if at == 0 {
            break;
        }
    }
    ENVIRONMENT_LONG
}

// Two functions that others could call: the verifier looks at such a one by itself and once, and not where it is called and each time
// (`BTF_FUNC_GLOBAL`, Documentation/bpf/btf.rst). Strings in two loops are those of one, and a small part of its work.

/// Looks at [`AT_ONCE`] strings or those before `end`, and tells where the next one stands; 0: one cannot be read.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn look_at_strings(mut at: u64, end: u64) -> u64 {
    for _ in 0..AT_ONCE {
        if at >= end || at == 0 {
            break;
        }
        at = look_at_string(at);
    }
    at
}

/// Looks at the string that stands there, and tells where the next one does; 0: it cannot be read.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn look_at_string(at: u64) -> u64 {
    let Some(strings) = STRINGS.get_ptr_mut(0) else { return 0 };
    // SAFETY: the slot is this CPU's, and a tracepoint does not interrupt itself.
    unsafe {
        let text = &raw mut (*strings).text;
        let length = bpf_probe_read_user_str(text.cast(), CHUNK, at as *const _);
        if length <= 0 {
            return 0;
        }
        if (&raw const (*strings).within).read_volatile() == 0 {
            // One look into a table: the verifier would follow a comparison with each of them.
            let start = text.cast::<u64>();
            let path_at = &raw mut (*strings).path_at;
            if *start & FIVE_BYTES == PATH && path_at.read_volatile() == 0 {
                path_at.write_volatile(at + 5);
            }
            if *text.cast::<u32>() == PS4 {
                let found = &raw mut (*strings).found;
                found.write_volatile(found.read_volatile() | (1 << TRACE_PROMPT.1));
            }
            if let Some(bits) = VARIABLES.get(&*start) {
                let found = &raw mut (*strings).found;
                found.write_volatile(found.read_volatile() | *bits);
            }
        }
        let whole = length < i64::from(CHUNK);
        (&raw mut (*strings).within).write_volatile(u32::from(!whole));
        // A string that was cut ends with the NUL of the buffer, not with its own.
        at + length as u64 - u64::from(!whole)
    }
}

/// Reads the value of `PATH` that [`of_executed`] has just come by; nothing, when it did not.
#[inline(always)]
pub fn search_path(into: &mut [u8; PATH_BYTES]) {
    into[0] = 0;
    let Some(strings) = STRINGS.get_ptr_mut(0) else { return };
    // SAFETY: the slot is this CPU's; the helper writes no more than the array holds, and checks the address.
    unsafe {
        let at = (&raw const (*strings).path_at).read_volatile();
        if at != 0 {
            bpf_probe_read_user_str(into.as_mut_ptr().cast(), PATH_BYTES as u32, at as *const _);
        }
    }
}
