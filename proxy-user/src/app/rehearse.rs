//! A call that nobody made, judged as one that somebody makes: by the code that the daemon decides with.

use std::sync::Arc;

use http::header::{CONNECTION, CONTENT_TYPE, HOST, HeaderMap, HeaderName, HeaderValue, UPGRADE};
use http::{Method, Uri, Version};
use proxy_policy::{
    Attributes, Besides, Considered, Effect, Expect, IdentityId, Mode, Moment, Reason, RuleRef, Scheme,
    Spoken,
};

use crate::authorize::{
    Answer, Kind, LivePolicy, Permit, Refusal, Seen, Subject, Unidentified, authorize, authorize_passage,
    consider, told,
};
use crate::http::{Leg, facts, hop, seen};
use crate::workload::{Identified, Workload};

/// A call that nobody made.
#[derive(Clone, Copy, Debug)]
pub struct Question<'a> {
    /// Who would make it.
    pub identity: IdentityId,
    /// The request.
    pub request: &'a Spoken,
    /// What the client would send besides.
    pub headers: &'a [(String, String)],
    /// The body.
    pub body: Option<&'a str>,
    /// When.
    pub now: Moment,
}

/// What would become of the call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Whether it would go on.
    pub verdict: Expect,
    /// Why, in words; of a refusal what the client is told.
    pub reason: String,
    /// The rule that decides, unless none matches.
    pub rule: Option<Decided>,
    /// The role that it is from.
    pub role: Option<String>,
    /// The API that is called.
    pub api: Option<String>,
    /// The credential that would be attached.
    pub credential: Option<String>,
    /// Every rule that had a part in it: the one that decides, and what would have if it were not observed.
    pub decided_by: Vec<Decided>,
    /// Every rule of the identity for the API, with what came of it; in the order in which they are asked.
    pub considered: Vec<Weighed>,
}

/// A rule, held against the call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Weighed {
    /// Whether it allows or denies.
    pub effect: Effect,
    /// The rule.
    pub rule: Decided,
    /// Where its grant stands.
    pub grant: Decided,
    /// The role that it is from.
    pub role: Option<String>,
    /// Whether its grant only observes.
    pub observes: bool,
    /// A word for what came of it.
    pub outcome: &'static str,
    /// The same in words.
    pub why: String,
    /// Whether it speaks for what it does.
    pub counts: bool,
}

impl From<&Considered<'_>> for Weighed {
    fn from(it: &Considered<'_>) -> Self {
        Self {
            effect: it.effect,
            rule: it.rule.into(),
            grant: it.grant.into(),
            role: it.role.map(str::to_owned),
            observes: it.mode == Mode::Observe,
            outcome: it.outcome.slug(),
            why: it.outcome.to_string(),
            counts: it.outcome.counts(it.effect),
        }
    }
}

/// A rule that decides a call.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Decided {
    /// The label of its file.
    pub file: String,
    /// The line, from 1.
    pub line: u32,
    /// The column, from 1.
    pub column: u32,
    /// The operation, with the values of its grant.
    pub text: String,
}

impl From<RuleRef<'_>> for Decided {
    fn from(rule: RuleRef<'_>) -> Self {
        Self { file: rule.file.to_owned(), line: rule.line, column: rule.column, text: rule.text.to_owned() }
    }
}

/// Judges the call as made by a process of which not more is known than this.
#[must_use]
pub fn judge(live: &Arc<LivePolicy>, workload: &Attributes, question: &Question<'_>) -> Outcome {
    /// No process has this id of a user or group: `(uid_t) -1` stands for "leave as it is" in setreuid(2).
    const UNKNOWN: u32 = u32::MAX;
    let workload = Workload {
        exe: workload.exe.clone(),
        unit: workload.unit.clone(),
        cgroup: workload.cgroup.clone(),
        uid: workload.uid.unwrap_or(UNKNOWN),
        gid: workload.gid.unwrap_or(UNKNOWN),
        ..Workload::default()
    };
    let identified = Identified::One(question.identity);
    judge_as(&Subject::new(Arc::new(workload), Arc::clone(live), identified), question)
}

/// Judges the call as made by this workload, whatever identity it has.
#[must_use]
pub fn judge_as(subject: &Subject, question: &Question<'_>) -> Outcome {
    let Question { request, now, .. } = *question;
    let method = match Method::from_bytes(request.method.as_bytes()) {
        Ok(method) => method,
        Err(error) => return refused(&bad(format!("the method is none: {error}"))),
    };
    let uri: Uri = match request.target.parse() {
        Ok(uri) => uri,
        Err(error) => return refused(&bad(format!("the target of the request is none: {error}"))),
    };
    let headers = match headers(question) {
        Ok(headers) => headers,
        Err(refusal) => return refused(&refusal),
    };
    let version = match request.besides {
        Some(Besides::Grpc) => Version::HTTP_2,
        _ => Version::HTTP_11,
    };
    let (scheme, host, port) = (request.scheme, &request.host, request.port());
    let api = subject.live().set().api_for(scheme, host.name(), port);
    if scheme == Scheme::Https && api.is_none() {
        // Nobody sees requests there: the connection is decided as a whole.
        return match authorize_passage(subject, scheme, Some(host), port, Unidentified::Deny, now) {
            Ok(passage) => Outcome {
                verdict: if passage.is_observed() { Expect::Observe } else { Expect::Allow },
                ..said(passage.reason())
            },
            Err(refusal) => refused(&refusal),
        };
    }
    let leg = Leg { scheme, host: (scheme == Scheme::Https).then(|| host.clone()), port, address: None };
    let facts = match facts::read(&leg, version, &method, &uri, &headers) {
        Ok(facts) => facts,
        Err(refusal) => {
            return Outcome { api: api.map(|api| api.name.clone()), ..refused(&refusal) };
        }
    };
    let mut looked_at: Option<Seen> = None;
    let answer = loop {
        match authorize(subject, &facts, Unidentified::Deny, now, looked_at.as_ref()) {
            Ok(Answer::Permit(permit)) => break Ok(permit),
            Ok(Answer::NeedsSeen) if looked_at.is_none() => {
                let websocket = hop::wants_websocket(version, &method, &headers);
                looked_at = Some(seen::head(subject.live(), &facts, &headers, version, websocket));
            }
            Ok(Answer::NeedsBody { limit }) => {
                let body = question.body.unwrap_or_default().as_bytes();
                looked_at.get_or_insert_default().body = seen::whole_body(body, &headers, limit);
            }
            Ok(Answer::NeedsSeen | Answer::Untold(_)) => {
                break Err(Refusal::new(Kind::NotGranted, "the conditions of the policy cannot be decided"));
            }
            Err(refusal) => break Err(refusal),
        }
    };
    let outcome = match &answer {
        Ok(permit) => permitted(permit),
        Err(refusal) => refused(refusal),
    };
    let Some(decision) = told(subject, &facts, now, looked_at.as_ref()) else { return outcome };
    let decided_by =
        [Some(decision.reason), decision.observed].into_iter().flatten().filter_map(|reason| match reason {
            Reason::Allowed(rule) | Reason::Denied(rule) | Reason::DeniedInDoubt { rule, .. } => {
                Some(rule.into())
            }
            _ => None,
        });
    Outcome {
        rule: decision.rule.map(Into::into),
        role: decision.role.map(str::to_owned),
        api: decision.api.map(|api| api.name.clone()),
        decided_by: decided_by.collect(),
        considered: consider(subject, &facts, now, looked_at.as_ref()).iter().map(Into::into).collect(),
        ..outcome
    }
}

/// The headers of the request: the host that the URL names, what makes an upgrade or a gRPC call of it, and what the
/// question says, which wins over these. A body without a type is JSON.
fn headers(question: &Question<'_>) -> Result<HeaderMap, Refusal> {
    let mut headers = HeaderMap::new();
    for (name, value) in question.headers {
        let name = HeaderName::from_bytes(name.as_bytes());
        let value = HeaderValue::from_bytes(value.as_bytes());
        let (Ok(name), Ok(value)) = (name, value) else {
            return Err(bad("a header has a character that no header has".into()));
        };
        headers.append(name, value);
    }
    let mut default = |name: HeaderName, value: &str| {
        if let (false, Ok(value)) = (headers.contains_key(&name), HeaderValue::from_str(value)) {
            headers.insert(name, value);
        }
    };
    default(HOST, &question.request.authority);
    match question.request.besides {
        Some(Besides::WebSocket) => {
            default(CONNECTION, "upgrade");
            default(UPGRADE, "websocket");
        }
        Some(Besides::Grpc) => default(CONTENT_TYPE, "application/grpc"),
        None if question.body.is_some() => default(CONTENT_TYPE, "application/json"),
        None => {}
    }
    Ok(headers)
}

fn bad(detail: String) -> Refusal {
    Refusal::new(Kind::BadRequest, detail)
}

fn said(reason: &str) -> Outcome {
    Outcome {
        verdict: Expect::Deny,
        reason: reason.to_owned(),
        rule: None,
        role: None,
        api: None,
        credential: None,
        decided_by: Vec::new(),
        considered: Vec::new(),
    }
}

fn refused(refusal: &Refusal) -> Outcome {
    said(&refusal.detail)
}

fn permitted(permit: &Permit) -> Outcome {
    let credential = permit.credential().and_then(|id| permit.live().credential(id));
    Outcome {
        verdict: if permit.is_observed() { Expect::Observe } else { Expect::Allow },
        credential: credential.map(|credential| credential.name.clone()),
        ..said(permit.reason())
    }
}
