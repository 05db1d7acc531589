//! Listeners that outlive a restart: systemd keeps their descriptors (sd_pid_notify_with_fds(3), `FDSTORE=1`), so that
//! connections wait in the queue of the socket while no daemon is there, and nobody else can take its port.
use std::{
    net::{SocketAddr, TcpListener},
    os::fd::{FromRawFd, OwnedFd},
};

use nix::sys::socket::{getsockopt, sockopt};

use super::introduce::netns_cookie;

/// The listeners that an earlier run left with systemd; other descriptors are closed.
#[must_use]
pub fn inherited() -> Vec<TcpListener> {
    let Ok(descriptors) = sd_notify::listen_fds() else { return Vec::new() };
    let owned = descriptors.map(|descriptor| {
        // SAFETY: systemd gave these descriptors to this process (sd_listen_fds(3)), and this is called once.
        unsafe { OwnedFd::from_raw_fd(descriptor) }
    });
    owned
        .filter(|socket| getsockopt(socket, sockopt::AcceptConn).unwrap_or(false))
        .map(TcpListener::from)
        .collect()
}

/// Takes the listener at this address out of those that were inherited; one of another network namespace is none.
pub fn take_listener(inherited: &mut Vec<TcpListener>, address: SocketAddr) -> Option<TcpListener> {
    let at = inherited.iter().position(|listener| listener.local_addr().is_ok_and(|is| is == address))?;
    let listener = inherited.swap_remove(at);
    let home = TcpListener::bind("127.0.0.1:0").ok().and_then(|here| netns_cookie(&here).ok());
    (netns_cookie(&listener).ok() == home && listener.set_nonblocking(true).is_ok()).then_some(listener)
}
