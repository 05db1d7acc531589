//! What the journal says of a client that does not trust us.
//!
//! Most say so by an alert, within the handshake. Some just go away: within the handshake (Node.js, Java's HttpClient, gRPC,
//! aiohttp), or after it, when they verify only then (GnuTLS's Wget and Git). So do others now and then, who gave up, or opened a
//! connection to spare: so that is recorded as a hint only, of a process that has never asked for anything, and
//! after the handshake only when it goes at once.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use proxy_journal::Mistrust;
use tokio::time::Instant;

use super::Connection;
use crate::authorize::{Asked, Kind, Refusal};
use crate::doctor::{Refused, sentence};
use crate::http::{Ended, HttpLimits};
use crate::trust::{self, AcceptError};
use crate::workload::Workload;

/// How soon after its handshake a client goes away that has only then verified us.
const AT_ONCE: Duration = Duration::from_secs(3);

/// A connection over TLS that ends here, as far as it shows whether its client trusts us.
#[derive(Debug)]
pub(super) struct Doubt {
    since: Instant,
    asked: AtomicBool,
}

impl Doubt {
    /// The handshake is done.
    pub(super) fn begin() -> Self {
        Self { since: Instant::now(), asked: AtomicBool::new(false) }
    }

    /// A request came: nobody sends one to a server that he does not trust.
    pub(super) fn end(&self, workload: impl FnOnce() -> std::sync::Arc<Workload>) {
        // Once for a connection.
        if !self.asked.load(Ordering::Relaxed) {
            self.asked.store(true, Ordering::Relaxed);
            let _ = workload().trusts.set(());
        }
    }

    /// How the client refused us, if it did, by how its connection ended.
    fn refused(&self, ended: &Ended, limits: &HttpLimits, workload: &Workload) -> Option<(Refused, String)> {
        if self.asked.load(Ordering::Relaxed) {
            return None;
        }
        let broken = match ended {
            Ended::Done => None,
            Ended::ClientGone(error) => Some(error),
            _ => return None,
        };
        if let Some(alert) = broken.and_then(|error| trust::refused_by(error.io()?)) {
            return Some((Refused::Said, told(&alert)));
        }
        // Later it could be us who ended it.
        let at_once = self.since.elapsed() < AT_ONCE.min(limits.header_time);
        (at_once && workload.trusts.get().is_none()).then(|| {
            let hint = "the client closed the connection after the TLS handshake and asked for nothing; if it goes on so, \
                        it does not trust the CA of this host";
            (Refused::Left, hint.to_owned())
        })
    }
}

/// What it may mean that a handshake ended so.
pub(super) fn within_handshake(error: &AcceptError, workload: &Workload) -> Option<Refused> {
    use std::io::ErrorKind::{BrokenPipe, ConnectionReset};
    match error {
        AcceptError::Untrusted { .. } => Some(Refused::Said),
        AcceptError::Closed if workload.trusts.get().is_none() => Some(Refused::Left),
        AcceptError::Broken(error) if workload.trusts.get().is_none() => {
            matches!(error.kind(), BrokenPipe | ConnectionReset).then_some(Refused::Left)
        }
        _ => None,
    }
}

/// A refusal by this alert, in words.
pub(super) fn told(alert: &str) -> String {
    format!("the client does not trust the CA of this host (alert {alert})")
}

impl Connection {
    /// Records that the client refused our certificate, with what is the matter and what mends it. However that turns out, it is
    /// recorded.
    pub(super) async fn mistrusted(&self, asked: &Asked<'_>, refused: Refused, what: &str) {
        let workload = self.caller.workload();
        let found = self.services.doctor.diagnose(&workload, refused).await;
        let found = found.as_deref();
        let refusal = Refusal::new(Kind::BadRequest, what).with_internal(sentence(&workload, what, found));
        let mistrust = Mistrust {
            certain: refused == Refused::Said,
            runtime: found.map(|found| found.runtime.to_string()),
            cause: found.map(|found| found.verdict.as_str().to_owned()),
            mend: found.and_then(|found| found.mend.clone()),
        };
        self.refuse_with(asked, &refusal, Some(mistrust)).await;
    }

    /// Whether the client refused us after the handshake, and in words how.
    pub(super) fn doubted(&self, doubt: &Doubt, ended: &Ended) -> Option<(Refused, String)> {
        if *self.services.drain.borrow() {
            return None;
        }
        doubt.refused(ended, &self.services.settings.http, &self.caller.workload())
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::Arc;

    use super::*;
    use crate::http1;

    fn gone(kind: io::ErrorKind) -> Ended {
        Ended::ClientGone(http1::Error::Io(kind.into()).into())
    }

    #[tokio::test(start_paused = true)]
    async fn going_away_is_a_hint_only_at_once_and_of_who_never_asked() {
        let (limits, workload) = (HttpLimits::default(), Arc::new(Workload::default()));
        let is_hint = |doubt: &Doubt, ended: &Ended| doubt.refused(ended, &limits, &workload).is_some();
        let doubt = Doubt::begin();
        assert!(is_hint(&doubt, &Ended::Done) && is_hint(&doubt, &gone(io::ErrorKind::ConnectionReset)));
        assert!(!is_hint(&doubt, &Ended::HeaderTimeout) && !is_hint(&doubt, &Ended::HeaderTooLarge));
        tokio::time::advance(AT_ONCE).await;
        assert!(!is_hint(&doubt, &Ended::Done), "that is how spare connections end");
        let (first, second) = (Doubt::begin(), Doubt::begin());
        first.end(|| Arc::clone(&workload));
        assert!(!is_hint(&first, &Ended::Done) && !is_hint(&second, &Ended::Done), "its process trusts us");
    }
}
