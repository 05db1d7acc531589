//! systemd: ready, reloading, stopping, and the watchdog. Without systemd none of it does anything.
use std::os::fd::AsFd;

use sd_notify::NotifyState;
use tokio::net::TcpListener;

fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::debug!(%error, "systemd was not told");
    }
}

/// Calls are served.
pub(super) fn ready(status: &str) {
    tell(&[NotifyState::Ready, NotifyState::Status(status)]);
}

/// A reload began.
pub(super) fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => tell(&[NotifyState::Reloading, now]),
        Err(_) => tell(&[NotifyState::Reloading]),
    }
}

/// The name of the listeners among the descriptors that systemd keeps.
const LISTENERS: &str = "listener";

/// Leaves the listeners with systemd, for the next run. It knows its own descriptors again, and keeps each once.
pub(super) fn keep_listeners(sockets: &[TcpListener]) {
    let descriptors: Vec<_> = sockets.iter().map(AsFd::as_fd).collect();
    let states = [NotifyState::FdStore, NotifyState::FdName(LISTENERS)];
    if let Err(error) = sd_notify::notify_with_fds(&states, &descriptors) {
        tracing::debug!(%error, "systemd was not given the listeners");
    }
}

/// Has systemd forget all listeners that it keeps.
pub(super) fn forget_listeners() {
    tell(&[NotifyState::FdStoreRemove, NotifyState::FdName(LISTENERS)]);
}

/// The end began.
pub(super) fn stopping() {
    tell(&[NotifyState::Stopping]);
}

/// Shows systemd that the runtime still turns, twice in the time that it allows; never returns when it watches.
pub(super) async fn watchdog() {
    let Some(allowed) = sd_notify::watchdog_enabled() else { return };
    let mut beat = tokio::time::interval(allowed / 2);
    loop {
        beat.tick().await;
        tell(&[NotifyState::Watchdog]);
    }
}
