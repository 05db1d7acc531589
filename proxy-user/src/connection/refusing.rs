//! The answer to a request that is refused, and its record; and what of a request is told apart there.

use http::header::CONNECTION;
use http::{HeaderMap, HeaderValue, Method};
use proxy_journal::{Decision, Fingerprint};

use super::call::{Calls, Reply};
use super::services::RefusedBy;
use crate::authorize::{Asked, Facts, Kind, LivePolicy, Refusal, Subject, entry};
use crate::http::{ReplyBody, problem};

impl Calls {
    /// What of a request is told apart in the journal.
    pub(super) fn fingerprints(
        &self,
        facts: &Facts<'_>,
        live: &LivePolicy,
        headers: &HeaderMap,
    ) -> Vec<Fingerprint> {
        let redaction = &self.connection.services.redaction;
        if redaction.is_off() {
            return Vec::new();
        }
        let strip = || {
            let api = live.set().api_for(facts.scheme, facts.host.name(), facts.port)?;
            live.strip(api.id).map(|strip| &**strip)
        };
        redaction.of(headers, facts.query, strip())
    }

    /// Records a refusal and answers it. When it cannot be recorded, it is refused all the same.
    pub(super) fn refuse(
        &self,
        subject: &Subject,
        asked: &Asked<'_>,
        refusal: &Refusal,
        method: &Method,
    ) -> Reply {
        self.refuse_as(subject, || entry::refused(subject, asked, refusal), refusal, method)
    }

    /// The same by this record.
    pub(super) fn refuse_as(
        &self,
        subject: &Subject,
        decision: impl FnOnce() -> Decision,
        refusal: &Refusal,
        method: &Method,
    ) -> Reply {
        let entry = self.connection.services.refused(subject, RefusedBy::Proxy, decision);
        self.last(answer(refusal, entry, subject, method), refusal)
    }

    /// Has a refusal be the last answer of its connection where it is not known what the client meant: nor is it known, then, what comes
    /// behind it.
    pub(super) fn last(&self, mut reply: Reply, refusal: &Refusal) -> Reply {
        if matches!(refusal.kind, Kind::BadRequest | Kind::ClientGone) && !self.http2 {
            reply.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        reply
    }
}

pub(super) fn answer(
    refusal: &Refusal,
    entry: Option<uuid::Uuid>,
    subject: &Subject,
    method: &Method,
) -> Reply {
    let identity = subject.identity().map(|identity| identity.name.as_str());
    problem::response(refusal, entry, identity, method, ReplyBody::text)
}
