//! What a program that we start must not find open.

use std::io;

/// Descriptors from the one after standard error on.
const FIRST: libc::c_uint = 3;

/// Marks all descriptors but the standard ones as ours alone: the kernel closes them in a process that executes something.
/// Ours have the mark from the start; what whoever started us left open may not.
///
/// # Errors
/// The kernel is older than 5.11.
pub fn keep_from_programs() -> io::Result<()> {
    let flags = libc::c_int::try_from(libc::CLOSE_RANGE_CLOEXEC).map_err(io::Error::other)?;
    // SAFETY: no memory is passed, and no descriptor is closed or changed in this process.
    match unsafe { libc::close_range(FIRST, libc::c_uint::MAX, flags) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
