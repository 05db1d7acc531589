//! A call of the journal, judged by another policy than then, by the code that decided it (`authorize`).
//!
//! What a record has of a decision is its [`Basis`]: with the same policy it gives the same answer. Of headers, query and body the
//! journal has only what conditions came to; what hangs on other conditions is not guessed. A record of a version that had no basis
//! is judged as far as it tells what the call was: it may have been an upgrade or a gRPC call.

use std::borrow::Cow;
use std::sync::Arc;

use http::Method;
use proxy_journal::{Basis, Decision, Question};
use proxy_policy::{CallKind, CallPath, Host, Moment, Recalled as Answers, Scheme, Transport};

use super::rehearse::{Decided, Weighed};
use super::reidentify::Identities;
use crate::authorize::{
    Answer, Facts, LivePolicy, Look, Passage, Refusal, Subject, Unidentified, authorize, authorize_passage,
    authorize_whole, basis, consider, recall_network, told,
};
use crate::base::addr::OriginalDst;
use crate::workload::Identified;
use crate::workload::recalled::{self, Recaller};

/// What a policy says of a recorded call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Recalled {
    /// It is decided, whatever the journal does not tell.
    Decided(Vec<Judgement>),
    /// It cannot be judged, for a reason in words.
    Not(String),
}

/// One answer; there are several when it hangs on what a request was besides, which records of older versions do not tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Judgement {
    /// What the request would have been: `a request`, `the upgrade to a WebSocket`, `a gRPC call`, `a connection`.
    pub if_it_was: &'static str,
    /// The same, for the policy.
    pub kind: CallKind,
    /// The identity that it is judged for.
    pub identity: Option<String>,
    /// Whether it would go on; `None`: it hangs on a condition that looks at what is not recorded.
    pub allowed: Option<bool>,
    /// Whether it would only because it is observed.
    pub observed: bool,
    /// Why, in words.
    pub reason: String,
    /// Of a refusal: the word for it that the client would get.
    pub refusal: Option<&'static str>,
    /// The rule that decides.
    pub rule: Option<proxy_journal::Rule>,
    /// Position of the grant that allows it.
    pub grant: Option<u32>,
    /// The limits that would be asked.
    pub limits: Vec<Arc<str>>,
    /// The credential that would be attached.
    pub credential: Option<String>,
}

/// What the host says of what policies do not.
#[derive(Clone, Copy, Debug)]
pub struct Settings<'a> {
    /// What happens to workloads without an identity, where a record does not say.
    pub unidentified: Unidentified,
    /// The ports that are mediated.
    pub ports: &'a [u16],
}

/// When a recorded call is judged for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// For the moment at which it was decided, if that is recorded; else for this one.
    Then(Moment),
    /// For this moment.
    At(Moment),
}

/// Who the workload of a recorded call is taken for.
#[derive(Clone, Copy)]
pub enum Who<'a> {
    /// For who it was then.
    AsThen,
    /// For who it would be.
    Anew(&'a Identities, &'a Recaller),
}

/// A recorded call, to be judged.
struct Case<'a> {
    subject: Subject,
    entry: &'a Decision,
    basis: Option<&'a Basis>,
    unidentified: Unidentified,
    now: Moment,
}

/// Judges a recorded call. `status` is what the client got, if the journal knows.
#[must_use]
pub fn recall(
    live: &Arc<LivePolicy>,
    entry: &Decision,
    status: Option<u16>,
    settings: Settings<'_>,
    when: When,
    who: Who<'_>,
) -> Recalled {
    let case = match Case::of(live, entry, settings, when, who) {
        Ok(case) => case,
        Err(why) => return Recalled::Not(why),
    };
    let judged = match case.question(settings.ports) {
        Ok(Question::Call) => case.request(status),
        Ok(question) => case.connection(question).map(|judged| vec![judged]),
        Err(why) => Err(why),
    };
    let identity = case.subject.identity().map(|identity| &identity.name);
    match judged {
        Ok(judged) => {
            let told = |judgement| Judgement { identity: identity.cloned(), ..judgement };
            Recalled::Decided(judged.into_iter().map(told).collect())
        }
        Err(why) => Recalled::Not(why),
    }
}

/// Every rule of the identity for the API of a recorded call.
#[must_use]
pub fn weigh(
    live: &Arc<LivePolicy>,
    entry: &Decision,
    settings: Settings<'_>,
    when: When,
    kind: CallKind,
) -> (Option<Decided>, Vec<Weighed>) {
    let nothing = (None, Vec::new());
    let Ok(case) = Case::of(live, entry, settings, when, Who::AsThen) else { return nothing };
    let (Ok(parts), Ok(answers)) = (case.parts(), case.answers()) else { return nothing };
    let facts = case.facts(&parts, kind);
    let look = answers.as_ref().map_or(Look::Nothing, Look::Recalled);
    let rule = told(&case.subject, &facts, case.now, look).and_then(|decision| decision.rule).map(Into::into);
    (rule, consider(&case.subject, &facts, case.now, look).iter().map(Into::into).collect())
}

/// The parts of a request, read.
struct Parts<'a> {
    scheme: Scheme,
    host: Host,
    port: u16,
    path: CallPath<'a>,
    method: Method,
}

impl<'a> Case<'a> {
    fn of(
        live: &Arc<LivePolicy>,
        entry: &'a Decision,
        settings: Settings<'_>,
        when: When,
        who: Who<'_>,
    ) -> Result<Self, String> {
        let basis = entry.basis.as_deref();
        if basis.is_none() && entry.refusal.is_some() {
            return Err("no policy was asked: it is refused whatever the policy says".to_owned());
        }
        let now = match (when, basis) {
            (When::Then(_), Some(basis)) => Moment(basis.now),
            (When::Then(now) | When::At(now), _) => now,
        };
        let unidentified = match basis {
            Some(basis) if basis.unidentified_pass => Unidentified::Pass,
            Some(_) => Unidentified::Deny,
            None => settings.unidentified,
        };
        Ok(Self { subject: subject(live, entry, who)?, entry, basis, unidentified, now })
    }

    /// What the policy is asked for; of records without a basis, what it must have been.
    fn question(&self, ports: &[u16]) -> Result<Question, String> {
        if let Some(basis) = self.basis {
            return Ok(basis.of);
        }
        let scheme = self.entry.scheme.as_deref().unwrap_or_default();
        // A tunnel that was refused as a whole is a connection.
        let tunnel = scheme == "tcp" && self.entry.proxy.is_some();
        let mediated = ports.contains(&self.entry.dst.port());
        match scheme {
            _ if self.entry.method.is_some() && !tunnel => Ok(Question::Call),
            "tls" | "tcp" if mediated => Ok(Question::Passage),
            "tcp" => Ok(Question::Network),
            "udp" if !mediated => Ok(Question::Network),
            _ => Err("it is not about what a policy decides: no request was read, or the traffic is always refused"
                .to_owned()),
        }
    }

    fn host(&self) -> Result<Option<Host>, String> {
        let parse = |host: &String| Host::parse(&bracketed(host));
        self.entry.host.as_ref().map(parse).transpose().map_err(|error| format!("its host is none: {error}"))
    }

    /// The address that it goes to, unless it was not looked up of what a proxy was asked for.
    fn address(&self) -> Option<std::net::IpAddr> {
        Some(self.entry.dst.ip()).filter(|ip| self.entry.proxy.is_none() || !ip.is_unspecified())
    }

    fn connection(&self, question: Question) -> Result<Judgement, String> {
        let (host, dst, now) = (self.host()?, OriginalDst(self.entry.dst), self.now);
        let port = dst.port();
        let whole = |host: &Host| authorize_whole(&self.subject, host, port, self.address(), now);
        let passed = match question {
            // Of a tunnel that was refused by its name, nobody looked up where that is.
            Question::Network
                if self.address().is_none()
                    && self.subject.identity().is_some_and(|identity| !identity.network.is_empty()) =>
            {
                return Err(
                    "it was refused without looking up its host, and where that was is not recorded".into()
                );
            }
            Question::Network => {
                let protocol = protocol(self.entry.scheme.as_deref().unwrap_or_default())
                    .ok_or("what traffic it was is not recorded")?;
                let is_resolver = match self.basis {
                    Some(basis) => basis.resolver,
                    None => self.subject.live().resolvers().contains(&dst.ip()),
                };
                recall_network(&self.subject, protocol, dst, self.unidentified, now, is_resolver)
            }
            _ => {
                let tls = self.entry.scheme.as_deref() == Some("tls");
                let api = |host: &Host| {
                    self.subject.live().set().api_for(Scheme::Https, host.name(), port).is_some()
                };
                match host.as_ref().filter(|host| tls && api(host)).map(whole) {
                    Some(Some(passed)) => passed,
                    Some(None) => {
                        return Err(
                            "it would be looked into now, and what requests were in it is not known".into()
                        );
                    }
                    None => authorize_passage(
                        &self.subject,
                        Scheme::Https,
                        host.as_ref(),
                        port,
                        self.unidentified,
                        now,
                    ),
                }
            }
        };
        Ok(connection(passed))
    }

    fn parts(&self) -> Result<Parts<'a>, String> {
        let entry = self.entry;
        let scheme = match entry.scheme.as_deref().unwrap_or_default() {
            "https" => Scheme::Https,
            "http" => Scheme::Http,
            other => return Err(format!("its scheme is {other:?}")),
        };
        let (Some(host), Some(port), Some(path), Some(method)) =
            (self.host()?, entry.port, &entry.path, &entry.method)
        else {
            return Err("the journal has no host and path of it".to_owned());
        };
        if self.basis.is_some_and(|basis| basis.path_cut) {
            return Err("its path is longer than what is recorded of it".to_owned());
        }
        let path = CallPath::normalize(path)
            .map_err(|error| format!("{error}: such a request is refused by every policy"))?;
        let method = Method::from_bytes(method.as_bytes()).map_err(|_| "its method is none".to_owned())?;
        Ok(Parts { scheme, host, port, path, method })
    }

    fn facts<'p>(&self, parts: &'p Parts<'p>, kind: CallKind) -> Facts<'p> {
        Facts {
            scheme: parts.scheme,
            host: Cow::Borrowed(&parts.host),
            port: parts.port,
            address: self.address(),
            method: &parts.method,
            path: parts.path.clone(),
            query: None,
            kind,
        }
    }

    fn answers(&self) -> Result<Option<Answers>, String> {
        self.basis.map(|it| basis::recalled(it, self.entry.has_query)).transpose()
    }

    fn request(&self, status: Option<u16>) -> Result<Vec<Judgement>, String> {
        let (parts, answers) = (self.parts()?, self.answers()?);
        let known = self.basis.map(|it| [basis::call_kind(it.kind)]);
        let kinds: &[CallKind] = match (&known, parts.method.as_str()) {
            (Some(known), _) => known,
            (None, "GET") if status == Some(101) => &[CallKind::WebSocket],
            (None, "GET") => &[CallKind::Plain, CallKind::WebSocket],
            (None, "POST") => &[CallKind::Plain, CallKind::Grpc],
            (None, _) => &[CallKind::Plain],
        };
        let look = answers.as_ref().map_or(Look::Nothing, Look::Recalled);
        let judge = |kind: &CallKind| self.one(&self.facts(&parts, *kind), look);
        let mut judged: Vec<Judgement> = kinds.iter().map(judge).collect();
        // One answer, if it is the same for all that it may have been.
        if let Some((first, others)) = judged.split_first()
            && others.iter().all(|it| (it.allowed, &it.rule) == (first.allowed, &first.rule))
        {
            judged.truncate(1);
        }
        Ok(judged)
    }

    fn one(&self, facts: &Facts<'_>, look: Look<'_>) -> Judgement {
        let if_it_was = match facts.kind {
            CallKind::Plain => "a request",
            CallKind::WebSocket => "the upgrade to a WebSocket",
            CallKind::Grpc => "a gRPC call",
        };
        let kind = facts.kind;
        let unknown = |reason: String| Judgement { if_it_was, kind, reason, ..Judgement::unknown() };
        match authorize(&self.subject, facts, self.unidentified, self.now, look) {
            Ok(Answer::Permit(permit)) => {
                let credential = permit.credential().and_then(|id| permit.live().credential(id));
                Judgement {
                    if_it_was,
                    kind,
                    identity: None,
                    allowed: Some(true),
                    observed: permit.is_observed(),
                    reason: permit.reason().to_owned(),
                    refusal: None,
                    rule: permit.rule().cloned(),
                    grant: permit.basis().grant,
                    limits: permit.basis().limits.clone(),
                    credential: credential.map(|credential| credential.name.clone()),
                }
            }
            Ok(Answer::Untold(reason)) => unknown(reason),
            Ok(Answer::NeedsSeen | Answer::NeedsBody { .. }) => {
                unknown("it hangs on a condition that looks at what is not recorded".to_owned())
            }
            Err(refusal) => Judgement { if_it_was, kind, ..refused(refusal) },
        }
    }
}

impl Judgement {
    fn unknown() -> Self {
        Self {
            if_it_was: "a connection",
            kind: CallKind::Plain,
            identity: None,
            allowed: None,
            observed: false,
            reason: String::new(),
            refusal: None,
            rule: None,
            grant: None,
            limits: Vec::new(),
            credential: None,
        }
    }
}

/// As a host of an authority: the journal has IPv6 addresses without brackets.
fn bracketed(host: &str) -> Cow<'_, str> {
    match host.contains(':') && !host.starts_with('[') {
        true => format!("[{host}]").into(),
        false => host.into(),
    }
}

/// The number of a protocol that is recorded by its name.
fn protocol(name: &str) -> Option<u8> {
    let known = [Transport::Tcp, Transport::Udp].into_iter().find(|known| known.as_str() == name);
    // What is no transport is one of the others to every rule.
    known.map(Transport::number).or_else(|| (!name.is_empty()).then_some(0))
}

/// The workload as it is recorded.
fn subject(live: &Arc<LivePolicy>, entry: &Decision, who: Who<'_>) -> Result<Subject, String> {
    let identified = match who {
        Who::AsThen => as_then(live, entry)?,
        Who::Anew(identities, recaller) => identities.identify(live.set(), entry, recaller)?,
    };
    let workload = recalled::workload(&entry.workload);
    let observed = entry.basis.as_ref().map_or_else(|| live.observes(), |basis| basis.host_observes);
    Ok(Subject::new(Arc::new(workload), Arc::clone(live), identified).where_all_is_observed(observed))
}

/// The identity that it had.
fn as_then(live: &LivePolicy, entry: &Decision) -> Result<Identified, String> {
    let several = entry.basis.as_ref().map(|basis| basis.several.as_slice()).unwrap_or_default();
    match &entry.identity {
        Some(name) => match live.set().identity_named(name) {
            Some(identity) => Ok(Identified::One(identity.id)),
            None => Err(format!("{name} is not in the policy: which identity it would have is not known")),
        },
        None if !several.is_empty() => Ok(Identified::Ambiguous(several.to_vec())),
        None => Ok(Identified::None("it had none when it called".to_owned().into())),
    }
}

fn refused(refusal: Refusal) -> Judgement {
    Judgement {
        allowed: Some(false),
        reason: refusal.reason().to_owned(),
        refusal: Some(refusal.kind.slug()),
        rule: refusal.rule,
        ..Judgement::unknown()
    }
}

fn connection(passed: Result<Passage, Refusal>) -> Judgement {
    match passed {
        Ok(passage) => Judgement {
            allowed: Some(true),
            observed: passage.is_observed(),
            reason: passage.reason().to_owned(),
            rule: passage.rule().cloned(),
            ..Judgement::unknown()
        },
        Err(refusal) => refused(refusal),
    }
}
