//! What was permitted is judged again while it lasts: when the policy changes, and when time alone can change the answer.
//!
//! The judge is the one that permitted it (`authorize`), with the same facts of the request and the identity that the
//! workload has under the policy that is live then. A call, a stream or a tunnel that is refused now is cut by whoever
//! carries it, and its outcome in the journal says why.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, Method, Uri, Version};
use proxy_policy::{CallKind, Moment};

use super::passage::Way;
use super::services::Services;
use crate::authorize::{Answer, Caller, Kind, Permit, Refusal, Seen, Subject, Unidentified, authorize};
use crate::base::addr::OriginalDst;
use crate::base::clock;
use crate::credentials::LiveCredential;
use crate::http::{Lapse, Leg, facts, seen};

/// The host's clock can be set: whatever waits for a time looks at least so often.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// A request as it was when it was permitted, to ask again. It shares what the call has, and is read anew only when it is asked.
pub(super) struct Question {
    leg: Arc<Leg>,
    method: Method,
    uri: Uri,
    headers: Arc<HeaderMap>,
    version: Version,
    /// What conditions looked at; of a body that none asked for, nothing is kept.
    seen: Seen,
    /// The credential that went with it.
    credential: Option<Arc<LiveCredential>>,
    unidentified: Unidentified,
}

impl Question {
    /// The question that `permit` is the answer to.
    pub(super) fn of(
        leg: &Arc<Leg>,
        (method, uri, version): (&Method, &Uri, Version),
        headers: &Arc<HeaderMap>,
        seen: Seen,
        permit: &Permit,
        unidentified: Unidentified,
    ) -> Self {
        Self {
            leg: Arc::clone(leg),
            method: method.clone(),
            uri: uri.clone(),
            headers: Arc::clone(headers),
            version,
            seen,
            credential: credential(permit).cloned(),
            unidentified,
        }
    }

    /// Asks again. The moment is the next one at which time can change the answer.
    fn judge(&mut self, subject: &Subject) -> Result<Option<Moment>, Refusal> {
        // It was read before it was permitted, and says the same again.
        let facts = facts::read(&self.leg, self.version, &self.method, &self.uri, &self.headers)?;
        let (live, now) = (subject.live(), clock::now());
        let mut answer = authorize(subject, &facts, self.unidentified, now, None)?;
        if matches!(answer, Answer::NeedsSeen) {
            let websocket = facts.kind == CallKind::WebSocket;
            self.seen.headers = seen::head(live, &facts, &self.headers, self.version, websocket).headers;
            answer = authorize(subject, &facts, self.unidentified, now, Some(&self.seen))?;
        }
        let Answer::Permit(permit) = answer else {
            let detail = "the policy looks at the body now, of which nothing was kept";
            return Err(Refusal::new(Kind::NotGranted, detail));
        };
        let (with, now_with) = (self.credential.as_deref().map(LiveCredential::name), credential(&permit));
        let now_with = now_with.map(|credential| credential.name());
        if with.is_some() && now_with != with {
            let with = with.unwrap_or_default();
            let detail = match now_with {
                Some(other) => {
                    format!("it went with the credential {with}, and the policy gives {other} now")
                }
                None => format!("it went with the credential {with}, and the policy gives none now"),
            };
            return Err(Refusal::new(Kind::NotGranted, detail));
        }
        // The one that is not at work any more is let go.
        self.credential = self.credential.is_some().then(|| credential(&permit).cloned()).flatten();
        let next = subject.identity_id().zip(permit.api());
        Ok(next.and_then(|(identity, api)| live.set().next_change(identity, api, now)))
    }
}

fn credential(permit: &Permit) -> Option<&Arc<LiveCredential>> {
    permit.live().live_credential(permit.credential()?)
}

/// Ends when the call of a question is not permitted any more.
pub(super) fn of_call(
    services: &Arc<Services>,
    caller: &Arc<Caller>,
    mut question: Question,
    permit: &Permit,
    subject: &Subject,
) -> Lapse {
    let generation = permit.live().generation();
    let next = subject.identity_id().zip(permit.api());
    let next = next.and_then(|(identity, api)| permit.live().set().next_change(identity, api, clock::now()));
    let (services, caller) = (Arc::clone(services), Arc::clone(caller));
    let judge = move |subject: &Subject| question.judge(subject);
    Lapse(Box::pin(lapse(services, caller, generation, next, judge)))
}

/// Ends when a connection may not go through any more.
pub(super) fn of_passage(
    services: &Arc<Services>,
    caller: &Arc<Caller>,
    way: Way,
    dst: OriginalDst,
    generation: u64,
    until: Option<Moment>,
) -> Lapse {
    let unidentified = services.settings.unidentified;
    let judge =
        move |subject: &Subject| way.decide(subject, dst, unidentified).map(|passage| passage.until());
    Lapse(Box::pin(lapse(Arc::clone(services), Arc::clone(caller), generation, until, judge)))
}

async fn lapse(
    services: Arc<Services>,
    caller: Arc<Caller>,
    mut generation: u64,
    mut next: Option<Moment>,
    mut judge: impl FnMut(&Subject) -> Result<Option<Moment>, Refusal> + Send,
) -> Refusal {
    loop {
        let other = services.policy.other_than(generation);
        match next {
            None => other.await,
            Some(at) => tokio::select! {
                () = other => {}
                () = tokio::time::sleep(clock::until(at).min(LOOK_EVERY)) => {}
            },
        }
        let subject = caller.current(&services.policy, &*services.identifier).await;
        generation = subject.live().generation();
        match judge(&subject) {
            Ok(again) => next = again,
            Err(refusal) => {
                tracing::info!(
                    generation,
                    identity = subject.identity().map(|identity| identity.name.as_str()),
                    reason = refusal.reason(),
                    "what was open is cut: it is not permitted any more"
                );
                return refusal;
            }
        }
    }
}
