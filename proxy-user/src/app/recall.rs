//! A call of the journal, judged by another policy than then: as far as the journal tells what it was.
//!
//! The journal has no headers, no query and no body, and does not say what a request was besides (an upgrade, a gRPC
//! call). What hangs on these is not guessed.

use std::borrow::Cow;
use std::sync::Arc;

use http::Method;
use proxy_journal::Decision;
use proxy_policy::{CallKind, CallPath, Host, Moment, Scheme, Transport};

use super::rehearse::{Decided, Weighed};
use crate::authorize::{
    Answer, Facts, LivePolicy, Refusal, Subject, Unidentified, authorize, authorize_network,
    authorize_passage, consider, told,
};
use crate::base::addr::OriginalDst;
use crate::workload::{Identified, Workload};

/// What a policy says of a recorded call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Recalled {
    /// It is decided, whatever the journal does not tell.
    Decided(Vec<Judgement>),
    /// It cannot be judged, for a reason in words.
    Not(String),
}

/// One answer; there are several when it hangs on what a request was besides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Judgement {
    /// What the request would have been: `a request`, `the upgrade to a WebSocket`, `a gRPC call`, `a connection`.
    pub if_it_was: &'static str,
    /// Whether it would go on; `None`: it hangs on a condition that looks at what is not recorded.
    pub allowed: Option<bool>,
    /// Whether it would only because it is observed.
    pub observed: bool,
    /// Why, in words.
    pub reason: String,
    /// The rule that decides.
    pub rule: Option<Decided>,
    /// The credential that would be attached.
    pub credential: Option<String>,
    /// Every rule of the identity for the API.
    pub considered: Vec<Weighed>,
}

/// What the host says of what policies do not.
#[derive(Clone, Copy, Debug)]
pub struct Settings<'a> {
    /// What happens to workloads without an identity.
    pub unidentified: Unidentified,
    /// The ports that are mediated.
    pub ports: &'a [u16],
}

/// Judges a recorded call. `status` is what the client got, if the journal knows.
#[must_use]
pub fn recall(
    live: &Arc<LivePolicy>,
    entry: &Decision,
    status: Option<u16>,
    settings: Settings<'_>,
    now: Moment,
) -> Recalled {
    let subject = subject(live, entry);
    let dst = OriginalDst(entry.dst);
    let scheme = entry.scheme.as_deref().unwrap_or_default();
    // A tunnel that was refused as a whole is a connection.
    let tunnel = scheme == "tcp" && entry.proxy.is_some();
    let Some(method) = entry.method.as_ref().filter(|_| !tunnel) else {
        let host = entry.host.as_deref().map(Host::parse).transpose();
        let Ok(host) = host else { return Recalled::Not("its host is none".to_owned()) };
        let unidentified = settings.unidentified;
        let mediated = settings.ports.contains(&entry.dst.port());
        let passed = match scheme {
            "tls" | "tcp" if mediated => {
                authorize_passage(&subject, Scheme::Https, host.as_ref(), entry.dst.port(), unidentified)
            }
            "tcp" => authorize_network(&subject, Transport::Tcp.number(), dst, unidentified),
            "udp" if !mediated => authorize_network(&subject, Transport::Udp.number(), dst, unidentified),
            _ => {
                return Recalled::Not(
                    "it is not about what a policy decides: no request was read, or the traffic is always refused"
                        .to_owned(),
                );
            }
        };
        let passed = passed.map(|passage| (passage.reason().to_owned(), passage.is_observed()));
        return Recalled::Decided(vec![connection(passed)]);
    };
    let scheme = match scheme {
        "https" => Scheme::Https,
        "http" => Scheme::Http,
        other => return Recalled::Not(format!("its scheme is {other:?}")),
    };
    let (Some(host), Some(port), Some(path)) = (&entry.host, entry.port, &entry.path) else {
        return Recalled::Not("the journal has no host and path of it".to_owned());
    };
    let host = match Host::parse(host) {
        Ok(host) => host,
        Err(error) => return Recalled::Not(format!("its host is none: {error}")),
    };
    let path = match CallPath::normalize(path) {
        Ok(path) => path,
        Err(error) => return Recalled::Not(format!("{error}: such a request is refused by every policy")),
    };
    let Ok(method) = Method::from_bytes(method.as_bytes()) else {
        return Recalled::Not("its method is none".to_owned());
    };
    let kinds: &[CallKind] = match method.as_str() {
        "GET" if status == Some(101) => &[CallKind::WebSocket],
        "GET" => &[CallKind::Plain, CallKind::WebSocket],
        "POST" => &[CallKind::Plain, CallKind::Grpc],
        _ => &[CallKind::Plain],
    };
    let judge = |kind: &CallKind| {
        let (host, path) = (Cow::Borrowed(&host), path.clone());
        // Of what a proxy was asked for, it may not have been looked up.
        let address = Some(dst.ip()).filter(|ip| entry.proxy.is_none() || !ip.is_unspecified());
        let facts = Facts { scheme, host, port, address, method: &method, path, query: None, kind: *kind };
        request(&subject, &facts, settings.unidentified, now)
    };
    let mut judged: Vec<Judgement> = kinds.iter().map(judge).collect();
    // One answer, if it is the same for all that it may have been.
    if let Some((first, others)) = judged.split_first()
        && others.iter().all(|it| (it.allowed, &it.rule) == (first.allowed, &first.rule))
    {
        judged.truncate(1);
    }
    Recalled::Decided(judged)
}

/// The workload as it is recorded, with the identity that it had.
fn subject(live: &Arc<LivePolicy>, entry: &Decision) -> Subject {
    let recorded = &entry.workload;
    let identified = match &entry.identity {
        Some(name) => match live.set().identity_named(name) {
            Some(identity) => Identified::One(identity.id),
            None => Identified::None(format!("{name} is not in the policy any more").into()),
        },
        None => Identified::None("it had none when it called".to_owned().into()),
    };
    let workload = Workload {
        pid: recorded.pid,
        start_time_ns: recorded.start_time_ns,
        exe: Some(recorded.exe.clone()).filter(|exe| !exe.is_empty()),
        exe_dev: recorded.exe_dev,
        exe_ino: recorded.exe_ino,
        uid: recorded.uid,
        gid: recorded.gid,
        cgroup: recorded.cgroup_path.clone(),
        unit: recorded.unit.clone(),
        comm: recorded.comm.clone(),
        ..Workload::default()
    };
    Subject::new(Arc::new(workload), Arc::clone(live), identified)
}

fn request(subject: &Subject, facts: &Facts<'_>, unidentified: Unidentified, now: Moment) -> Judgement {
    let if_it_was = match facts.kind {
        CallKind::Plain => "a request",
        CallKind::WebSocket => "the upgrade to a WebSocket",
        CallKind::Grpc => "a gRPC call",
    };
    let (allowed, observed, reason, credential) = match authorize(subject, facts, unidentified, now, None) {
        Ok(Answer::Permit(permit)) => {
            let credential = permit.credential().and_then(|id| permit.live().credential(id));
            let credential = credential.map(|credential| credential.name.clone());
            (Some(true), permit.is_observed(), permit.reason().to_owned(), credential)
        }
        Ok(Answer::NeedsSeen | Answer::NeedsBody { .. }) => {
            let reason = "it hangs on a condition that looks at what is not recorded";
            (None, false, reason.to_owned(), None)
        }
        Err(refusal) => (Some(false), false, refusal.reason().to_owned(), None),
    };
    let rule = told(subject, facts, now, None).and_then(|decision| decision.rule).map(Into::into);
    let considered = consider(subject, facts, now, None).iter().map(Into::into).collect();
    Judgement { if_it_was, allowed, observed, reason, rule, credential, considered }
}

fn connection(passed: Result<(String, bool), Refusal>) -> Judgement {
    let (allowed, observed, reason) = match passed {
        Ok((reason, observed)) => (true, observed, reason),
        Err(refusal) => (false, false, refusal.reason().to_owned()),
    };
    Judgement {
        if_it_was: "a connection",
        allowed: Some(allowed),
        observed,
        reason,
        rule: None,
        credential: None,
        considered: Vec::new(),
    }
}
