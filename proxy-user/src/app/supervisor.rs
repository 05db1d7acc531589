//! systemd: ready, reloading, stopping, and the watchdog. Without systemd none of it does anything.
use std::time::Duration;

use sd_notify::NotifyState;

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

/// How long open calls may go on when the daemon is told to stop.
pub(super) const DRAIN: Duration = Duration::from_secs(10);
