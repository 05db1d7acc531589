//! Who speaks first on a connection. Mostly the client does, and what it says tells its protocol; in some protocols (SSH,
//! SMTP, FTP, MySQL) it waits for the server. Where the policy lets a connection of any protocol through to where it goes, a
//! client that is silent is connected there, and a server that greets is let through to it.
//!
//! Invariant: a connection of which neither side has spoken is not carried: what the client says then is still looked at.

use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::Connection;
use super::passage::Way;
use crate::base::addr::UpstreamAddr;
use crate::sniff::{Progress, SniffError, Sniffed, greeting, sniff};

/// Who speaks first does so by then, as a rule: only for others it is worth to open a connection that may not be used.
const SILENT: Duration = Duration::from_millis(30);
/// As many bytes of a greeting as it is told from.
const GREETING: usize = 16;

/// Who spoke first.
pub(super) enum First {
    /// The client.
    Client(Sniffed),
    /// The server, at the other end of this connection. Nothing was read from it.
    Server(TcpStream),
}

impl Connection {
    /// Waits for the first bytes of either side.
    ///
    /// # Errors
    /// As those of [`sniff`]; also when neither side speaks in time.
    pub(super) async fn first(&self, stream: &mut TcpStream) -> Result<First, SniffError> {
        let deadline = self.services.settings.sniff_time;
        let end = Instant::now() + deadline;
        let is_silent = timeout(SILENT.min(deadline), stream.readable()).await.is_err();
        if is_silent {
            tokio::select! {
                biased;
                // Whatever it is, reading it tells.
                _ = stream.readable() => {}
                Some(upstream) = self.greeted() => return Ok(First::Server(upstream)),
                () = sleep_until(end) => {}
            }
        }
        let left = end.saturating_duration_since(Instant::now());
        match sniff(stream, left).await {
            Ok(sniffed) => Ok(First::Client(sniffed)),
            Err(SniffError::Timeout { received, .. }) => Err(SniffError::Timeout { received, deadline }),
            Err(error) => Err(error),
        }
    }

    /// A connection to a server that greets; `None` when the policy has none, or the server none for us.
    async fn greeted(&self) -> Option<TcpStream> {
        let Self { services, caller, dst } = self;
        let subject = caller.current(&services.policy, &*services.identifier).await;
        // Only where it is carried whatever the client will say. That is recorded when it is, before the client gets a byte.
        Way::Unmatched(None).decide(&subject, *dst, services.settings.unidentified).ok()?;
        let upstream = services.forward.dial(UpstreamAddr(dst.0)).await.ok()?;
        loop {
            let mut buffer = [0; GREETING];
            match upstream.peek(&mut buffer).await.ok()? {
                0 => return None,
                count => match greeting::parse(buffer.get(..count)?) {
                    Progress::Done(()) => return Some(upstream),
                    Progress::NotThis(_) => return None,
                    // The few bytes that are there would be found again at once.
                    Progress::More => sleep(SILENT).await,
                },
            }
        }
    }
}
