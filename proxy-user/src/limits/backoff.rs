//! What upstreams ask for: after a 429 with `Retry-After`, nobody calls with the same credential until then.
use std::{
    collections::HashMap,
    sync::{
        RwLock,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

use http::{HeaderMap, StatusCode, header::RETRY_AFTER};

/// A server that asks for more is believed so far.
const LONGEST: Duration = Duration::from_secs(3600);

/// How many are remembered; at the bound those that are over go, and then no more are taken.
const MOST: usize = 4096;

/// Whose calls an upstream wants to be rid of for a while. Without a credential of ours it is one identity's: whatever keys
/// it brings are its own, and others do not answer for them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Whose<'a> {
    /// Of all who share the credential with this name.
    Credential(&'a str),
    /// Of the identity with this name.
    Identity(&'a str),
}

/// Whose calls to which host, in normal form.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Caller {
    is_credential: bool,
    name: String,
    host: String,
}

impl Caller {
    fn of(whose: Whose<'_>, host: &str) -> Self {
        let (is_credential, name) = match whose {
            Whose::Credential(name) => (true, name),
            Whose::Identity(name) => (false, name),
        };
        Self { is_credential, name: name.to_owned(), host: host.to_owned() }
    }
}

/// Who has to wait, and until when.
#[derive(Debug, Default)]
pub struct Backoff {
    /// So that nobody asks the map while it is empty.
    waiting: AtomicUsize,
    until: RwLock<HashMap<Caller, Instant>>,
}

impl Backoff {
    /// Whether anybody has to wait at present, or had to a while ago.
    #[must_use]
    pub fn is_asked_for(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) > 0
    }

    /// How long there is to wait; `None`: not at all.
    #[must_use]
    pub fn wait(&self, whose: Whose<'_>, host: &str, now: Instant) -> Option<Duration> {
        if !self.is_asked_for() {
            return None;
        }
        let caller = Caller::of(whose, host);
        let until = self.until.read().unwrap_or_else(std::sync::PoisonError::into_inner);
        until.get(&caller)?.checked_duration_since(now).filter(|wait| !wait.is_zero())
    }

    /// Notes what a response asks for: 429 (RFC 6585 §4) with `Retry-After` (RFC 9110 §10.2.3).
    pub fn note(&self, whose: Whose<'_>, host: &str, status: StatusCode, headers: &HeaderMap, now: Instant) {
        if status != StatusCode::TOO_MANY_REQUESTS {
            return;
        }
        let Some(wait) = retry_after(headers, SystemTime::now()) else { return };
        let mut until = self.until.write().unwrap_or_else(std::sync::PoisonError::into_inner);
        until.retain(|_, at| *at > now);
        if until.len() < MOST {
            let caller = Caller::of(whose, host);
            let then = now + wait.min(LONGEST);
            let at = until.entry(caller).or_insert(then);
            *at = then.max(*at);
        }
        self.waiting.store(until.len(), Ordering::Relaxed);
    }
}

/// The time that is asked for: seconds, or a date.
fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    let wait = match text.bytes().all(|byte| byte.is_ascii_digit()) {
        true => Duration::from_secs(text.parse().unwrap_or(u64::MAX)),
        false => httpdate::parse_http_date(text).ok()?.duration_since(now).ok()?,
    };
    (!wait.is_zero()).then_some(wait)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(text: &str) -> HeaderMap {
        HeaderMap::from_iter([(RETRY_AFTER, text.parse().unwrap())])
    }

    #[test]
    fn whoever_shares_the_credential_waits_and_nobody_else() {
        let (backoff, now) = (Backoff::default(), Instant::now());
        let too_many = StatusCode::TOO_MANY_REQUESTS;
        let key = Whose::Credential("key");
        backoff.note(key, "api.test", too_many, &headers("30"), now);
        assert_eq!(backoff.wait(key, "api.test", now), Some(Duration::from_secs(30)));
        assert_eq!(backoff.wait(Whose::Credential("other"), "api.test", now), None);
        assert_eq!(backoff.wait(Whose::Identity("key"), "api.test", now), None);
        assert_eq!(backoff.wait(key, "other.test", now), None);
        assert_eq!(backoff.wait(key, "api.test", now + Duration::from_secs(30)), None);
        // A shorter one does not take it back.
        let key = Whose::Credential("key");
        backoff.note(key, "api.test", too_many, &headers("1"), now);
        assert_eq!(backoff.wait(key, "api.test", now), Some(Duration::from_secs(30)));
    }

    #[test]
    fn only_what_asks_for_a_time_is_waited_for_and_not_for_ever() {
        let now = Instant::now();
        let asked = |status: StatusCode, text: &str| {
            let backoff = Backoff::default();
            let bot = Whose::Identity("bot");
            backoff.note(bot, "a", status, &headers(text), now);
            assert_eq!(backoff.wait(Whose::Identity("other"), "a", now), None);
            backoff.wait(bot, "a", now)
        };
        assert_eq!(asked(StatusCode::OK, "30"), None);
        assert_eq!(asked(StatusCode::SERVICE_UNAVAILABLE, "2"), None);
        assert_eq!(asked(StatusCode::TOO_MANY_REQUESTS, "0"), None);
        assert_eq!(asked(StatusCode::TOO_MANY_REQUESTS, "soon"), None);
        assert_eq!(asked(StatusCode::TOO_MANY_REQUESTS, "99999999999999999999999"), Some(LONGEST));
        assert_eq!(asked(StatusCode::TOO_MANY_REQUESTS, "Fri, 31 Dec 1999 23:59:59 GMT"), None);
        let date = httpdate::fmt_http_date(SystemTime::now() + Duration::from_secs(100));
        let wait = asked(StatusCode::TOO_MANY_REQUESTS, &date).unwrap();
        assert!(wait > Duration::from_secs(90) && wait <= Duration::from_secs(100), "{wait:?}");
    }
}
