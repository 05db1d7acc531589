//! Who speaks first on a connection. Mostly the client does, and what it says tells its protocol; in some protocols (SSH,
//! SMTP, FTP, MySQL) it waits for the server. Where the policy lets a connection of any protocol through to where it goes, a
//! client that is silent is connected there, and a server that greets is let through to it.
//!
//! Invariant: a connection of which neither side has spoken is not carried: what the client says then is still looked at.

use std::time::Duration;

use proxy_policy::Host;
use tokio::io::AsyncRead;
use tokio::time::{sleep, timeout};

use super::Connection;
use super::passage::Way;
use crate::base::addr::UpstreamAddr;
use crate::forward::Passed;
use crate::sniff::{Progress, SniffError, Sniffed, Sniffer, greeting};

/// Who speaks first does so by then, as a rule: only for others it is worth to open a connection that may not be used.
const SILENT: Duration = Duration::from_millis(30);
/// As many bytes of a greeting as it is told from.
const GREETING: usize = 16;

/// Who spoke first.
pub(super) enum First {
    /// The client.
    Client(Sniffed),
    /// The server, at the other end of this connection. Nothing was read from it.
    Server(Passed),
}

impl Connection {
    /// Waits for the first bytes of either side.
    ///
    /// # Errors
    /// As those of [`Sniffer`]; also when neither side speaks in time.
    pub(super) async fn first<S: AsyncRead + Unpin>(&self, stream: &mut S) -> Result<First, SniffError> {
        let deadline = self.services.settings.sniff_time;
        let mut sniffer = Sniffer::new(deadline);
        match timeout(SILENT, sniffer.more(stream)).await {
            Ok(read) => read?,
            Err(_) => tokio::select! {
                biased;
                read = sniffer.more(stream) => read?,
                Some(upstream) = self.greeted() => return Ok(First::Server(upstream)),
            },
        }
        sniffer.finish(stream).await.map(First::Client)
    }

    /// A connection to a server that greets; `None` when the policy has none, or the server none for us.
    async fn greeted(&self) -> Option<Passed> {
        let Self { services, caller, dst, .. } = self;
        let subject = caller.current(&services.policy, &*services.identifier).await;
        // Only where it is carried whatever the client will say. That is recorded when it is, before the client gets a byte.
        Way::Unmatched(self.named().cloned()).decide(&subject, *dst, services.settings.unidentified).ok()?;
        let host = self.named().map(Host::name);
        let upstream = services.forward.pass(host, UpstreamAddr(dst.0), &[]).await.ok()?;
        loop {
            let mut buffer = [0; GREETING];
            match upstream.tcp.peek(&mut buffer).await.ok()? {
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
