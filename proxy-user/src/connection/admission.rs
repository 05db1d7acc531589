//! Whether a call that is permitted may be made now: the policy's limits, and what its upstream asked for.

use std::time::{Duration, Instant};

use http::{HeaderMap, StatusCode};
use proxy_journal::{Basis, Rule};

use super::Services;
use crate::authorize::{Kind, Over, Permit, Refusal, Subject};
use crate::limits::{Admission, Exceeded, Pass, Whose, seconds};

/// What a call needs besides its permit: a place and a turn of every limit. Waits as long as the limits say, and tells for
/// how long it did.
///
/// # Errors
/// A limit is used up, or the upstream asked for a pause.
pub(super) async fn admit(
    services: &Services,
    subject: &Subject,
    permit: &Permit,
    host: &str,
) -> Result<(Pass, Duration), Refusal> {
    let scopes = permit.scopes();
    let mut waited = Duration::ZERO;
    if services.backoff.is_asked_for()
        && let Some(whose) = whose(subject, permit)
        && let Some(pause) = services.backoff.wait(whose, host, Instant::now())
    {
        // A longer wait than the policy allows is the client's to make.
        if scopes.iter().all(|scope| scope.patience() < pause) {
            return Err(paused(permit, host, pause));
        }
        tokio::time::sleep(pause).await;
        waited = pause;
    }
    let scopes: Vec<_> = scopes.iter().collect();
    match Admission::ask(&scopes).await {
        Ok((pass, took)) => Ok((pass, waited + took)),
        Err(exceeded) => Err(refused(permit, &exceeded)),
    }
}

/// Notes what a response asks of everybody who shares the credential, or of one identity without one.
pub(super) fn note(
    services: &Services,
    subject: &Subject,
    permit: &Permit,
    host: &str,
    status: StatusCode,
    headers: &HeaderMap,
) {
    if status == StatusCode::TOO_MANY_REQUESTS
        && let Some(whose) = whose(subject, permit)
    {
        services.backoff.note(whose, host, status, headers, Instant::now());
    }
}

/// Whose pause a response is; nobody's where no API is called: the client chose who answers under that name.
fn whose<'a>(subject: &'a Subject, permit: &'a Permit) -> Option<Whose<'a>> {
    permit.api()?;
    match credential(permit) {
        Some(name) => Some(Whose::Credential(name)),
        None => Some(Whose::Identity(&subject.identity()?.name)),
    }
}

fn credential(permit: &Permit) -> Option<&str> {
    let credential = permit.live().credential(permit.credential()?)?;
    Some(&credential.name)
}

fn paused(permit: &Permit, host: &str, pause: Duration) -> Refusal {
    let whose = credential(permit).map_or_else(String::new, |name| format!(" with the credential {name}"));
    let detail = format!("{host} asked for a pause of all calls{whose}; try again in {} s", seconds(pause));
    Refusal {
        over: Some(Box::new(Over { retry_after: pause, limit: None })),
        basis: Some(Box::new(permit.basis().clone())),
        ..Refusal::new(Kind::LimitExceeded, detail)
    }
}

fn refused(permit: &Permit, exceeded: &Exceeded) -> Refusal {
    let set = permit.live().set();
    let file = set.file_name(exceeded.place.file).unwrap_or_default().to_owned();
    let basis = Basis { limit: Some(exceeded.name().into()), ..permit.basis().clone() };
    Refusal {
        basis: Some(Box::new(basis)),
        rule: Some(Rule { file, line: exceeded.place.line, text: exceeded.limit.as_str().to_owned() }),
        over: Some(Box::new(Over { retry_after: exceeded.retry_after, limit: Some(exceeded.limit.bound()) })),
        ..Refusal::new(Kind::LimitExceeded, exceeded.to_string())
    }
}
