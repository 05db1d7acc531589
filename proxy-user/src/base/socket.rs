//! What every TCP connection of ours has set.

use std::ffi::OsString;
use std::os::fd::AsFd;
use std::time::Duration;

use nix::sys::socket::{setsockopt, sockopt};

/// A peer that has been silent for so long is asked whether it is still there.
const ASKED_AFTER: Duration = Duration::from_secs(60);
/// How long it has to answer before it is asked again.
const ASKED_EVERY: Duration = Duration::from_secs(10);
/// How often it is asked before the connection is over.
const ASKED: u32 = 6;

/// Congestion control between two ends on one host, where nothing is ever congested: the one that computes least. It is part of every
/// kernel. Others that a host may have (BBR) send each packet by a timer.
const LOCAL: &str = "reno";

/// Sets it, for a connection, or for a listener: what that accepts has it from there (`sk_clone_lock`, net/core/sock.c).
///
/// Bytes go out as they come in; and peers that vanished without a word are noticed after two minutes. There is no
/// `TCP_USER_TIMEOUT`: since Linux 5.11 it also ends the connection of a peer that is there and does not read for so long.
pub fn prepare(socket: impl AsFd) {
    let seconds = |time: Duration| u32::try_from(time.as_secs()).unwrap_or(u32::MAX);
    // Without them everything works that works with them, only worse: no failure is worth a connection.
    let _ = setsockopt(&socket, sockopt::TcpNoDelay, &true);
    let _ = setsockopt(&socket, sockopt::TcpKeepIdle, &seconds(ASKED_AFTER));
    let _ = setsockopt(&socket, sockopt::TcpKeepInterval, &seconds(ASKED_EVERY));
    let _ = setsockopt(&socket, sockopt::TcpKeepCount, &ASKED);
    let _ = setsockopt(&socket, sockopt::KeepAlive, &true);
}

/// The same for a listener that only this host reaches. What it accepts has it from there (`tcp_ca_openreq_child`,
/// net/ipv4/tcp_minisocks.c).
pub fn prepare_local(listener: impl AsFd) {
    let _ = setsockopt(&listener, sockopt::TcpCongestion, &OsString::from(LOCAL));
    prepare(listener);
}

#[cfg(test)]
mod tests {
    use nix::sys::socket::getsockopt;

    use super::*;

    #[test]
    fn what_a_listener_accepts_asks_silent_peers_and_sends_at_once() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        prepare_local(&listener);
        let _client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (accepted, _) = listener.accept().unwrap();
        assert!(getsockopt(&accepted, sockopt::TcpNoDelay).unwrap());
        assert!(getsockopt(&accepted, sockopt::KeepAlive).unwrap());
        assert_eq!(getsockopt(&accepted, sockopt::TcpKeepIdle).unwrap(), 60);
        assert_eq!(getsockopt(&accepted, sockopt::TcpKeepInterval).unwrap(), 10);
        assert_eq!(getsockopt(&accepted, sockopt::TcpKeepCount).unwrap(), 6);
        let congestion = getsockopt(&accepted, sockopt::TcpCongestion).unwrap();
        assert_eq!(congestion.to_string_lossy().trim_end_matches('\0'), LOCAL);
    }
}
