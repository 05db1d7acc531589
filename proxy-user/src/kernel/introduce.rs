//! The daemon makes itself known to the programs, and in doing so finds out whether they capture rightly.
//!
//! It announces the cookie of a socket and connects that socket to a port where nobody listens; the connect hook
//! recognises the cookie and stores who called. What it stored must agree with what the daemon knows of itself: if an offset were wrong, every attribution
//! would be, and nothing may go live.
use std::{
    io,
    os::{
        fd::{AsFd, AsRawFd},
        unix::fs::MetadataExt,
    },
};

use nix::sys::{
    socket::{AddressFamily, SockFlag, SockType, SockaddrIn, bind, connect, getsockname, socket},
    statfs::{OVERLAYFS_SUPER_MAGIC, statfs},
};
use proxy_common::Capture;

use super::{error::KernelError, maps::Controls};

/// Introduces this process.
pub(super) fn introduce(controls: &mut Controls) -> Result<(), KernelError> {
    let errno = |what: &'static str| move |e: nix::Error| KernelError::io(what)(io::Error::from(e));
    let nobody = socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)
        .map_err(errno("open a socket to introduce the daemon"))?;
    // Bound and never listening: the port is ours, and the connect ends at once.
    bind(nobody.as_raw_fd(), &SockaddrIn::new(127, 0, 0, 1, 0)).map_err(errno("bind a port of loopback"))?;
    let target: SockaddrIn = getsockname(nobody.as_raw_fd()).map_err(errno("read the port of a socket"))?;
    let hello = socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)
        .map_err(errno("open a socket to introduce the daemon"))?;
    controls
        .announce(socket_cookie(hello.as_fd()).map_err(KernelError::io("read the cookie of a socket"))?)?;
    // It is refused; what counts is that the hook was called.
    let _ = connect(hello.as_raw_fd(), &target);
    let slot = controls.daemon()?;
    if slot.hello_cookie != 0 {
        controls.announce(0)?;
        return Err(KernelError::SelfTest { what: "the connect hook was not called for it".into() });
    }
    agrees(&slot.capture)
}

/// Holds a capture of this very process against what the process knows.
fn agrees(capture: &Capture) -> Result<(), KernelError> {
    let mine = |what: &str, captured: String, known: String| {
        if captured == known {
            return Ok(());
        }
        Err(KernelError::SelfTest { what: format!("{what}: captured {captured}, known {known}") })
    };
    mine("uid", capture.uid.to_string(), nix::unistd::getuid().to_string())?;
    mine("gid", capture.gid.to_string(), nix::unistd::getgid().to_string())?;
    let exe = std::fs::metadata("/proc/self/exe").map_err(KernelError::io("look at /proc/self/exe"))?;
    // overlayfs may show user space the inode of a layer.
    if statfs("/proc/self/exe").is_ok_and(|fs| fs.filesystem_type() != OVERLAYFS_SUPER_MAGIC) {
        mine("inode of the executable", capture.exe_ino.to_string(), exe.ino().to_string())?;
    }
    let start = process_start_ticks().map_err(KernelError::io("read /proc/self/stat"))?;
    let captured = capture.start_time_ns / (1_000_000_000 / clock_ticks());
    // In a time namespace /proc shows another boot time; on the host they agree to the tick.
    mine("start time in ticks", captured.to_string(), start.to_string())
}

/// Ticks per second of `/proc/PID/stat`.
pub fn clock_ticks() -> u64 {
    match nix::unistd::sysconf(nix::unistd::SysconfVar::CLK_TCK) {
        Ok(Some(ticks)) => u64::try_from(ticks).ok().filter(|t| *t > 0).unwrap_or(100),
        _ => 100,
    }
}

fn process_start_ticks() -> io::Result<u64> {
    let stat = procfs::process::Process::myself().and_then(|me| me.stat()).map_err(io::Error::other)?;
    Ok(stat.starttime)
}

/// `SO_COOKIE` (include/uapi/asm-generic/socket.h): the kernel's name of a socket.
fn socket_cookie(socket: impl AsFd) -> io::Result<u64> {
    u64_option(socket, libc::SO_COOKIE)
}

/// `SO_NETNS_COOKIE` (Linux 5.14): the kernel's name of a socket's network namespace.
pub fn netns_cookie(socket: impl AsFd) -> io::Result<u64> {
    const SO_NETNS_COOKIE: libc::c_int = 71;
    u64_option(socket, SO_NETNS_COOKIE)
}

/// Whether a TCP connection is over: `TCP_CLOSE` in `tcpi_state` of `TCP_INFO` (include/uapi/linux/tcp.h). Data may
/// still be readable then.
pub fn is_closed(socket: impl AsFd) -> bool {
    const TCP_CLOSE: u8 = 7;
    let mut state = 0_u8;
    let mut length: libc::socklen_t = 1;
    // SAFETY: state and length are valid for the call; the kernel writes at most one byte, the first of tcp_info.
    let result = unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            (&raw mut state).cast(),
            &raw mut length,
        )
    };
    result != 0 || length == 0 || state == TCP_CLOSE
}

fn u64_option(socket: impl AsFd, option: libc::c_int) -> io::Result<u64> {
    let mut value = 0_u64;
    let mut length = libc::socklen_t::try_from(size_of::<u64>()).map_err(io::Error::other)?;
    // SAFETY: value and length are valid for the call, and the kernel writes at most `length` bytes.
    let result = unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            option,
            (&raw mut value).cast(),
            &raw mut length,
        )
    };
    if result == 0 { Ok(value) } else { Err(io::Error::last_os_error()) }
}
