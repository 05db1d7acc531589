//! How a program was started: its arguments, its `PATH`, its working directory, and who else could change what a path means to it.
//! Read when it is executed, before any code of it has run.
use aya_ebpf::helpers::generated::bpf_probe_read_user;
use proxy_common::{
    COMMAND_BYTES, PROGRAM_IN_USER_NAMESPACE, PROGRAM_SHARES_DIRECTORIES, PROGRAM_START_KNOWN, Program,
};

use crate::{capture::read, maps::offsets};

/// Fills in what belongs to the start, but for `PATH`. What cannot be read leaves [`PROGRAM_START_KNOWN`] away.
#[inline(always)]
pub fn of_executed(task: u64, mm: u64, into: &mut Program) {
    into.flags = 0;
    into.cwd_dev = 0;
    into.cwd_ino = 0;
    into.command_length = 0;
    let Some(flags) = directories(task, into) else { return };
    let Some(level) = user_namespace_level(task) else { return };
    if !command(mm, into) {
        return;
    }
    let below = if level == 0 { 0 } else { PROGRAM_IN_USER_NAMESPACE };
    into.flags = PROGRAM_START_KNOWN | flags | below;
}

/// The working directory, and whether others share it.
#[inline(always)]
fn directories(task: u64, into: &mut Program) -> Option<u32> {
    let offsets = offsets();
    let fs = read::<u64>(task, offsets.task_fs)?;
    let users = read::<u32>(fs, offsets.fs_users)?;
    let dentry = read::<u64>(fs, offsets.fs_pwd_dentry)?;
    let inode = read::<u64>(dentry, offsets.dentry_inode)?;
    into.cwd_ino = read::<u64>(inode, offsets.inode_ino)?;
    let sb = read::<u64>(inode, offsets.inode_sb)?;
    into.cwd_dev = read::<u32>(sb, offsets.sb_dev)?;
    // The other threads of the process are gone by now.
    Some(if users == 1 { 0 } else { PROGRAM_SHARES_DIRECTORIES })
}

/// How far below the first user namespace the process is.
#[inline(always)]
fn user_namespace_level(task: u64) -> Option<u32> {
    let offsets = offsets();
    let cred = read::<u64>(task, offsets.task_cred)?;
    let user_ns = read::<u64>(cred, offsets.cred_user_ns)?;
    read::<u32>(user_ns, offsets.user_ns_level)
}

/// The arguments as the kernel laid them out for the program.
#[inline(always)]
fn command(mm: u64, into: &mut Program) -> bool {
    let offsets = offsets();
    let (Some(start), Some(end)) =
        (read::<u64>(mm, offsets.mm_arg_start), read::<u64>(mm, offsets.mm_arg_end))
    else {
        return false;
    };
    let whole = end.wrapping_sub(start);
    let length = if whole > COMMAND_BYTES as u64 { COMMAND_BYTES as u64 } else { whole };
    // SAFETY: the helper writes at most `length` bytes, which is at most the size of the array, and checks the address.
    let read =
        unsafe { bpf_probe_read_user(into.command.as_mut_ptr().cast(), length as u32, start as *const _) };
    into.command_length = if whole > u64::from(u32::MAX) { u32::MAX } else { whole as u32 };
    read == 0
}
