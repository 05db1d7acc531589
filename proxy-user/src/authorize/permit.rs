//! The answer to "may it?" for one request: [`Permit`].

use std::sync::Arc;
use std::time::Duration;

use proxy_journal::{Basis, Question, Rule, Why};
use proxy_policy::{
    Addresses, ApiId, BodyState, Call, CallKind, Considered, CredentialId, Mask, Mode, Moment, Reason,
    RuleRef, Scheme, Source,
};

use super::Unidentified;
use super::asked::Facts;
use super::basis::{self, Kept, Look};
use super::elsewhere;
use super::passage::{known, no_api, passes, spelled, would_be};
use super::policy::LivePolicy;
use super::refusal::{Kind, Refusal};
use super::subject::Subject;
use crate::credentials::Strip;
use crate::limits::Scope;

/// One request may be forwarded. Cannot be made elsewhere, nor copied: one permit, one call.
#[derive(Debug)]
pub struct Permit {
    live: Arc<LivePolicy>,
    api: Option<ApiId>,
    credential: Option<CredentialId>,
    why: Arc<Why>,
    scopes: Vec<Arc<Scope>>,
    observed: bool,
    basis: Box<Basis>,
    /// Nothing allows the call, it is only observed: it goes on with all that the client brought.
    untouched: bool,
    /// It asks for a token, which is answered here and told to last so long.
    answers: Option<Duration>,
    /// So many bytes of each of its bodies are kept for auditors.
    capture: Option<u64>,
}

/// What comes of a question.
#[derive(Debug)]
pub enum Answer {
    /// It may be forwarded.
    Permit(Permit),
    /// It hangs on a condition: ask again with what is seen of the request.
    NeedsSeen,
    /// It hangs on the body: ask again with as much of it.
    NeedsBody {
        /// The most bytes that are looked at.
        limit: usize,
    },
    /// Of a call that was recorded: it hangs on a condition of which nothing is recorded, in words.
    Untold(String),
}

impl Permit {
    /// The API that is called; `None` when no API names the host and it is let through as it is.
    #[must_use]
    pub fn api(&self) -> Option<ApiId> {
        self.api
    }

    /// The credential that must be attached.
    #[must_use]
    pub fn credential(&self) -> Option<CredentialId> {
        self.credential
    }

    /// What the client may not bring; `None` when no API is called, or the call is only observed and nothing
    /// allows it: then nothing is taken out.
    #[must_use]
    pub fn strip(&self) -> Option<&Arc<Strip>> {
        self.live.strip(self.api?).filter(|_| !self.untouched)
    }

    /// At which addresses the API may be; `None` when no API is called, or the call is only observed and goes wherever it would.
    #[must_use]
    pub fn addresses(&self) -> Option<&Arc<Addresses>> {
        self.api.and_then(|api| self.live.api(api)).filter(|_| !self.untouched).map(|api| &api.addresses)
    }

    /// How long what is given is told to last, when the request asks for a token: it is answered by the proxy, and never sent.
    #[must_use]
    pub fn answers(&self) -> Option<Duration> {
        self.answers
    }

    /// How many bytes of each body are kept for auditors, at most; `None`: nothing is.
    #[must_use]
    pub fn capture(&self) -> Option<u64> {
        self.capture
    }

    /// Which answers are looked through for the credential.
    #[must_use]
    pub fn mask(&self) -> Mask {
        self.api.and_then(|api| self.live.api(api)).map(|api| api.mask).unwrap_or_default()
    }

    /// Whose limits hold for it.
    #[must_use]
    pub fn scopes(&self) -> &[Arc<Scope>] {
        &self.scopes
    }

    /// Whether it goes on only because it is observed.
    #[must_use]
    pub fn is_observed(&self) -> bool {
        self.observed
    }

    /// What it is based on.
    #[must_use]
    pub fn basis(&self) -> &Basis {
        &self.basis
    }

    /// It goes on, though a limit refuses it: nothing is denied on this host. With the credential that the policy gives it.
    ///
    /// # Errors
    /// The refusal, where something is denied.
    pub fn in_spite_of(mut self, refusal: Refusal) -> Result<Self, Refusal> {
        let is_limit = refusal.over.as_ref().is_some_and(|over| over.limit.is_some());
        if !self.basis.host_observes || !is_limit {
            return Err(refusal);
        }
        if !self.observed {
            self.why = Arc::new(Why::new(self.rule().cloned(), would_be(refusal.reason())));
        }
        self.observed = true;
        self.basis = refusal.basis.unwrap_or(self.basis);
        Ok(self)
    }

    /// The policy that decided.
    #[must_use]
    pub fn live(&self) -> &Arc<LivePolicy> {
        &self.live
    }

    /// The rule that decided.
    #[must_use]
    pub fn rule(&self) -> Option<&Rule> {
        self.why.rule()
    }

    /// The rule, and why.
    #[must_use]
    pub fn why(&self) -> &Why {
        &self.why
    }

    /// Why, in words.
    #[must_use]
    pub fn reason(&self) -> &str {
        self.why.reason()
    }
}

/// Decides one request. `look` is what conditions look at; without it, the answer may be that it is needed.
///
/// # Errors
/// The refusal: the workload is not known, or its identity may not make the call.
pub fn authorize<'l>(
    subject: &Subject,
    facts: &Facts<'_>,
    unidentified: Unidentified,
    now: Moment,
    look: impl Into<Look<'l>>,
) -> Result<Answer, Refusal> {
    let kept = Kept::default();
    let basis = || {
        Box::new(Basis {
            kind: basis::kind(facts.kind),
            unidentified_pass: unidentified == Unidentified::Pass,
            host_observes: subject.is_observed(),
            ..basis::of(Question::Call, now)
        })
    };
    let answer = decided(subject, facts, unidentified, now, look.into(), &kept, &basis);
    let conditions = kept.told(subject.live().set());
    match answer {
        Ok(Answer::Permit(mut permit)) => {
            permit.basis.conditions = conditions;
            Ok(Answer::Permit(permit))
        }
        Err(refusal) => {
            let basis = refusal.basis.clone().unwrap_or_else(basis);
            Err(refusal.with_basis(Basis { conditions, ..*basis }))
        }
        answer => answer,
    }
}

fn decided(
    subject: &Subject,
    facts: &Facts<'_>,
    unidentified: Unidentified,
    now: Moment,
    look: Look<'_>,
    kept: &Kept,
    basis: &dyn Fn() -> Box<Basis>,
) -> Result<Answer, Refusal> {
    let live = subject.live();
    let host = facts.host.name();
    let Some(api) = live.set().api_for(facts.scheme, host, facts.port) else {
        // Over TLS the client talks to our certificate: what is not an API's cannot be passed on as it is.
        let (reason, observed) = match facts.scheme {
            Scheme::Http => passes(subject, Some(&facts.host), facts.port, unidentified)?,
            Scheme::Https => return Err(no_api(subject, Some(&facts.host), facts.port)),
        };
        let live = Arc::clone(live);
        let permit = Permit {
            live,
            api: None,
            credential: None,
            why: Arc::new(Why::new(None, reason)),
            scopes: Vec::new(),
            observed,
            basis: basis(),
            untouched: observed,
            answers: None,
            capture: None,
        };
        return Ok(Answer::Permit(permit));
    };
    let identity = match known(subject) {
        Ok(identity) => identity,
        // As it would go without us: with what it brought, and with nothing of ours.
        Err(refusal) if subject.is_observed() => {
            return Ok(Answer::Permit(Permit {
                live: Arc::clone(live),
                api: Some(api.id),
                credential: None,
                why: Arc::new(Why::new(None, would_be(refusal.reason()))),
                scopes: Vec::new(),
                observed: true,
                basis: basis(),
                untouched: true,
                answers: None,
                capture: None,
            }));
        }
        Err(refusal) => return Err(refusal),
    };
    let method = facts.method.as_str();
    let looked_at = looked_at(subject, facts, look);
    let call = Call {
        kind: facts.kind,
        facts: looked_at.as_ref(),
        memory: kept.memory(look),
        observing: subject.is_observed(),
        ..Call::plain(api.id, method, &facts.path, now)
    };
    let decision = live.set().decide(identity, &call);
    let rule = || decision.rule.map(spelled);
    if !decision.is_allowed() {
        match decision.reason {
            Reason::FactsNeeded if looked_at.is_none() => return Ok(Answer::NeedsSeen),
            Reason::Untold { .. } => return Ok(Answer::Untold(decision.reason.to_string())),
            Reason::BodyNeeded { limit } => return Ok(Answer::NeedsBody { limit }),
            _ => {}
        }
        let detail = decision.explain(&call).to_string();
        return Err(Refusal { rule: rule(), ..Refusal::new(Kind::NotGranted, detail) });
    }
    // What only goes on because it is observed goes on with what the client brought, and with nothing of ours.
    let mut untouched = decision.observed.is_some() && !matches!(decision.reason, Reason::Allowed(_));
    // A credential goes over a transport that proves nothing only where that one says so, and whoever sends it looks where to.
    let plain = facts.scheme == Scheme::Http;
    let credential = decision
        .credential
        .filter(|credential| !untouched && (!plain || credential.insecure.is_some()))
        .map(|credential| credential.id);
    let mut denied = decision.observed.map(|_| decision.explain(&call).to_string());
    let answers = api.token_endpoint.as_ref().filter(|endpoint| !untouched && endpoint.is_at(&facts.path));
    // What is sent to nobody goes to no address.
    if let Some(address) = facts.address.filter(|_| answers.is_none())
        && let Err(elsewhere) = elsewhere::check(api, decision.credential, address)
    {
        if !untouched && !subject.is_observed() && !observes(&decision) {
            return Err(elsewhere::refusal(live.set(), api, &elsewhere));
        }
        untouched = true;
        denied.get_or_insert_with(|| elsewhere::told(live.set(), api, &elsewhere));
    }
    // What is answered here has no bodies of anybody else.
    let mut capture = captured(&decision).filter(|_| answers.is_none());
    if capture.is_some() && facts.kind == CallKind::WebSocket {
        if !subject.is_observed() {
            let detail =
                "the grant says that bodies are kept (capture), and what goes over a WebSocket is none";
            return Err(Refusal { rule: rule(), ..Refusal::new(Kind::NotGranted, detail) });
        }
        capture = None;
    }
    let observed = denied.is_some();
    let why = match (denied, answers, &decision.reason) {
        // What nearly every call has, and shares with those that go on by the same rule.
        (None, None, Reason::Allowed(RuleRef { id: Some(id), .. }))
            if decision.rule.and_then(|it| it.id) == Some(*id) =>
        {
            live.why(*id, || Why::new(rule(), decision.reason.to_string()))
        }
        (denied, answers, reason) => {
            let mut reason = denied.map_or_else(|| reason.to_string(), |why| would_be(&why));
            if answers.is_some() {
                reason.push_str(&format!("; the proxy answers it, as the token endpoint of {}", api.name));
            }
            Arc::new(Why::new(rule(), reason))
        }
    };
    let scopes = live.limits().of_call(identity, decision.grant, api, host, facts.port);
    Ok(Answer::Permit(Permit {
        live: Arc::clone(live),
        api: Some(api.id),
        // What is sent to nobody needs none.
        credential: credential.filter(|_| answers.is_none() && !untouched),
        why,
        basis: {
            let mut basis = basis();
            basis.grant = decision.grant.and_then(|grant| u32::try_from(grant).ok());
            basis.limits = scopes.iter().flat_map(|scope| scope.names().iter().cloned()).collect();
            basis
        },
        scopes,
        observed,
        untouched,
        answers: answers.map(|endpoint| endpoint.expires_in),
        capture,
    }))
}

/// What the grant that allows it says of bodies.
fn captured(decision: &proxy_policy::Decision<'_>) -> Option<u64> {
    let grant = decision.identity?.grants.get(decision.grant?)?;
    grant.capture.as_ref().map(|capture| capture.value)
}

/// Whether what keeps the call from going on is only recorded: of its identity, or of the grant that allows it.
fn observes(decision: &proxy_policy::Decision<'_>) -> bool {
    decision.identity.is_some_and(|identity| {
        let grant = decision.grant.and_then(|at| identity.grants.get(at));
        identity.mode == Mode::Observe || grant.is_some_and(|grant| grant.mode == Mode::Observe)
    })
}

/// What conditions look at.
fn looked_at<'a>(
    subject: &'a Subject,
    facts: &'a Facts<'_>,
    look: Look<'a>,
) -> Option<proxy_policy::Facts<'a>> {
    let (headers, body) = match look {
        Look::Nothing => return None,
        Look::Seen(seen) => (seen.headers.as_slice(), seen.body.state()),
        Look::Recalled(_) => (&[] as &[_], BodyState::NotRead),
    };
    let workload = subject.workload();
    Some(proxy_policy::Facts {
        host: facts.host.name(),
        query: facts.query,
        headers,
        workload: Source {
            pid: workload.pid,
            exe: workload.exe.as_deref(),
            uid: workload.uid,
            gid: workload.gid,
            unit: workload.unit.as_deref(),
            cgroup: workload.cgroup.as_deref(),
        },
        body,
    })
}

/// Asks once more for what [`authorize`] decided of a call to an API, to tell all that there is to say of it: the rules,
/// the role, what is only observed. Permits nothing.
pub fn told<'p, 'l>(
    subject: &'p Subject,
    facts: &Facts<'_>,
    now: Moment,
    look: impl Into<Look<'l>>,
) -> Option<proxy_policy::Decision<'p>> {
    let set = subject.live().set();
    let api = set.api_for(facts.scheme, facts.host.name(), facts.port)?;
    let look = look.into();
    let looked_at = looked_at(subject, facts, look);
    let method = facts.method.as_str();
    let memory = Kept::default();
    let call = Call {
        kind: facts.kind,
        facts: looked_at.as_ref(),
        memory: memory.memory(look),
        observing: subject.is_observed(),
        ..Call::plain(api.id, method, &facts.path, now)
    };
    Some(set.decide(subject.identity_id()?, &call))
}

/// Every rule of the subject's identity for the API that is called, with what came of it; nothing without an identity or
/// an API. Permits nothing.
#[must_use]
pub fn consider<'p, 'l>(
    subject: &'p Subject,
    facts: &Facts<'_>,
    now: Moment,
    look: impl Into<Look<'l>>,
) -> Vec<Considered<'p>> {
    let set = subject.live().set();
    let api = set.api_for(facts.scheme, facts.host.name(), facts.port);
    let (Some(api), Some(identity)) = (api, subject.identity_id()) else { return Vec::new() };
    let look = look.into();
    let looked_at = looked_at(subject, facts, look);
    let method = facts.method.as_str();
    let memory = Kept::default();
    let call = Call {
        kind: facts.kind,
        facts: looked_at.as_ref(),
        memory: memory.memory(look),
        observing: subject.is_observed(),
        ..Call::plain(api.id, method, &facts.path, now)
    };
    set.consider(identity, &call)
}
