//! The answer to "may it?": [`Permit`] for one request, [`Passage`] for the bytes of one connection.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use proxy_journal::Rule;
use proxy_policy::{
    Addresses, ApiId, Call, Considered, CredentialId, Host, Mask, Mode, Moment, Reason, RuleRef, Scheme,
    Source, Transport, Unmatched,
};

use super::Unidentified;
use super::asked::{Facts, Seen};
use super::elsewhere;
use super::policy::LivePolicy;
use super::refusal::{Kind, Refusal};
use super::subject::Subject;
use crate::base::addr::OriginalDst;
use crate::base::clock;
use crate::credentials::Strip;
use crate::limits::Scope;
use crate::workload::Identified;

/// One request may be forwarded. Cannot be made elsewhere, nor copied: one permit, one call.
#[derive(Debug)]
pub struct Permit {
    live: Arc<LivePolicy>,
    api: Option<ApiId>,
    credential: Option<CredentialId>,
    rule: Option<Rule>,
    scopes: Vec<Arc<Scope>>,
    reason: String,
    observed: bool,
    /// Nothing allows the call, it is only observed: it goes on with all that the client brought.
    untouched: bool,
    /// It asks for a token, which is answered here and told to last so long.
    answers: Option<Duration>,
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

    /// The policy that decided.
    #[must_use]
    pub fn live(&self) -> &Arc<LivePolicy> {
        &self.live
    }

    /// The rule that decided.
    #[must_use]
    pub fn rule(&self) -> Option<&Rule> {
        self.rule.as_ref()
    }

    /// Why, in words.
    #[must_use]
    pub fn reason(&self) -> &str {
        &self.reason
    }
}

/// The bytes of one connection may go to where the workload wanted them, undecrypted and unchanged.
#[derive(Debug)]
pub struct Passage {
    reason: String,
    rule: Option<Rule>,
    observed: bool,
    until: Option<Moment>,
}

impl Passage {
    /// When time alone may end it.
    #[must_use]
    pub fn until(&self) -> Option<Moment> {
        self.until
    }

    /// Whether it goes through only because it is observed.
    #[must_use]
    pub fn is_observed(&self) -> bool {
        self.observed
    }

    /// The rule that decided.
    #[must_use]
    pub fn rule(&self) -> Option<&Rule> {
        self.rule.as_ref()
    }

    /// Why, in words.
    #[must_use]
    pub fn reason(&self) -> &str {
        &self.reason
    }
}

/// Decides one request. `seen` is what conditions look at; without it, the answer may be that it is needed.
///
/// # Errors
/// The refusal: the workload is not known, or its identity may not make the call.
pub fn authorize(
    subject: &Subject,
    facts: &Facts<'_>,
    unidentified: Unidentified,
    now: Moment,
    seen: Option<&Seen>,
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
            rule: None,
            scopes: Vec::new(),
            reason,
            observed,
            untouched: observed,
            answers: None,
        };
        return Ok(Answer::Permit(permit));
    };
    let identity = known(subject)?;
    let method = facts.method.as_str();
    let looked_at = seen.map(|seen| looked_at(subject, facts, seen));
    let call =
        Call { kind: facts.kind, facts: looked_at.as_ref(), ..Call::plain(api.id, method, &facts.path, now) };
    let decision = live.set().decide(identity, &call);
    let rule = decision.rule.map(spelled);
    if !decision.is_allowed() {
        match decision.reason {
            Reason::FactsNeeded if seen.is_none() => return Ok(Answer::NeedsSeen),
            Reason::BodyNeeded { limit } => return Ok(Answer::NeedsBody { limit }),
            _ => {}
        }
        let detail = decision.explain(&call).to_string();
        return Err(Refusal { rule, ..Refusal::new(Kind::NotGranted, detail) });
    }
    // What only goes on because it is observed goes on with what the client brought, and with nothing of ours.
    let mut untouched = decision.observed.is_some() && !matches!(decision.reason, Reason::Allowed(_));
    // A credential goes over a transport that proves nothing only where that one says so, and whoever sends it looks where to.
    let plain = facts.scheme == Scheme::Http;
    let credential = decision
        .credential
        .filter(|credential| !untouched && (!plain || credential.insecure.is_some()))
        .map(|credential| credential.id);
    let mut would_be = decision.observed.map(|_| decision.explain(&call).to_string());
    let answers = api.token_endpoint.as_ref().filter(|endpoint| !untouched && endpoint.is_at(&facts.path));
    // What is sent to nobody goes to no address.
    if let Some(address) = facts.address.filter(|_| answers.is_none())
        && let Err(elsewhere) = elsewhere::check(api, decision.credential, address)
    {
        if !untouched && !observes(&decision) {
            return Err(elsewhere::refusal(live.set(), api, &elsewhere));
        }
        untouched = true;
        would_be.get_or_insert_with(|| elsewhere::told(live.set(), api, &elsewhere));
    }
    let observed = would_be.is_some();
    let mut reason = match would_be {
        Some(why) => format!("observed, would be denied: {why}"),
        None => decision.reason.to_string(),
    };
    if answers.is_some() {
        reason.push_str(&format!("; the proxy answers it, as the token endpoint of {}", api.name));
    }
    Ok(Answer::Permit(Permit {
        live: Arc::clone(live),
        api: Some(api.id),
        // What is sent to nobody needs none.
        credential: credential.filter(|_| answers.is_none() && !untouched),
        rule,
        scopes: live.limits().of_call(identity, decision.grant, api, host, facts.port),
        reason,
        observed,
        untouched,
        answers: answers.map(|endpoint| endpoint.expires_in),
    }))
}

/// Whether what keeps the call from going on is only recorded: of its identity, or of the grant that allows it.
fn observes(decision: &proxy_policy::Decision<'_>) -> bool {
    decision.identity.is_some_and(|identity| {
        let grant = decision.grant.and_then(|at| identity.grants.get(at));
        identity.mode == Mode::Observe || grant.is_some_and(|grant| grant.mode == Mode::Observe)
    })
}

/// What conditions look at.
fn looked_at<'a>(subject: &'a Subject, facts: &'a Facts<'_>, seen: &'a Seen) -> proxy_policy::Facts<'a> {
    let workload = subject.workload();
    proxy_policy::Facts {
        host: facts.host.name(),
        query: facts.query,
        headers: &seen.headers,
        workload: Source {
            pid: workload.pid,
            exe: workload.exe.as_deref(),
            uid: workload.uid,
            gid: workload.gid,
            unit: workload.unit.as_deref(),
            cgroup: workload.cgroup.as_deref(),
        },
        body: seen.body.state(),
    }
}

/// Asks once more for what [`authorize`] decided of a call to an API, to tell all that there is to say of it: the rules,
/// the role, what is only observed. Permits nothing.
pub fn told<'p>(
    subject: &'p Subject,
    facts: &Facts<'_>,
    now: Moment,
    seen: Option<&Seen>,
) -> Option<proxy_policy::Decision<'p>> {
    let set = subject.live().set();
    let api = set.api_for(facts.scheme, facts.host.name(), facts.port)?;
    let looked_at = seen.map(|seen| looked_at(subject, facts, seen));
    let method = facts.method.as_str();
    let call =
        Call { kind: facts.kind, facts: looked_at.as_ref(), ..Call::plain(api.id, method, &facts.path, now) };
    Some(set.decide(subject.identity_id()?, &call))
}

/// Every rule of the subject's identity for the API that is called, with what came of it; nothing without an identity or
/// an API. Permits nothing.
#[must_use]
pub fn consider<'p>(
    subject: &'p Subject,
    facts: &Facts<'_>,
    now: Moment,
    seen: Option<&Seen>,
) -> Vec<Considered<'p>> {
    let set = subject.live().set();
    let api = set.api_for(facts.scheme, facts.host.name(), facts.port);
    let (Some(api), Some(identity)) = (api, subject.identity_id()) else { return Vec::new() };
    let looked_at = seen.map(|seen| looked_at(subject, facts, seen));
    let method = facts.method.as_str();
    let call =
        Call { kind: facts.kind, facts: looked_at.as_ref(), ..Call::plain(api.id, method, &facts.path, now) };
    set.consider(identity, &call)
}

/// Decides a connection to a host that no API names, or whose protocol is not known, as a whole.
///
/// # Errors
/// The refusal: an API names the host after all, or the workload may not call hosts that none names.
pub fn authorize_passage(
    subject: &Subject,
    scheme: Scheme,
    host: Option<&Host>,
    port: u16,
    unidentified: Unidentified,
) -> Result<Passage, Refusal> {
    if let Some(host) = host
        && let Some(api) = subject.live().set().api_for(scheme, host.name(), port)
    {
        let detail =
            format!("{} belongs to the API {}: its calls are decided one by one", host.name(), api.name);
        return Err(Refusal::new(Kind::UnknownProtocol, detail));
    }
    passes(subject, host, port, unidentified).map(|(reason, observed)| Passage {
        reason,
        rule: None,
        observed,
        until: None,
    })
}

/// Decides a connection to the host of an API, named by its SNI, that the policy does not want to be looked into: it goes to the
/// address that the workload chose, if the API may be there, and nothing of ours goes with it. Nothing when the policy
/// says no such thing: then it is intercepted.
#[must_use]
pub fn authorize_whole(
    subject: &Subject,
    host: &Host,
    port: u16,
    address: Option<IpAddr>,
) -> Option<Result<Passage, Refusal>> {
    let set = subject.live().set();
    let api = set.api_for(Scheme::Https, host.name(), port)?;
    let (rule, until) = set.whole(subject.identity_id()?, api.id, clock::now())?;
    let refused = |why: &str| {
        let rule = Some(spelled(rule));
        let detail =
            format!("connections to {} are not looked into (intercept = false), but {why}", api.name);
        Err(Refusal { rule, ..Refusal::new(Kind::NotGranted, detail) })
    };
    if subject.workload().foreign {
        return Some(refused("from another network namespace than the host's nothing goes through as it is"));
    }
    let Some(address) = address else {
        return Some(refused("to a host that was not looked up here nothing goes through as it is"));
    };
    if let Err(elsewhere) = elsewhere::check(api, None, address) {
        return Some(Err(elsewhere::refusal(set, api, &elsewhere)));
    }
    let reason = format!("passed through undecrypted, as the policy says of a pinned client: {rule}");
    Some(Ok(Passage { reason, rule: Some(spelled(rule)), observed: false, until }))
}

/// Decides traffic to a port that is not mediated, or of a protocol (`IPPROTO_*`) that cannot be: by network grants.
///
/// # Errors
/// The refusal: no network grant of the identity covers it, or the workload is not known.
pub fn authorize_network(
    subject: &Subject,
    protocol: u8,
    dst: OriginalDst,
    unidentified: Unidentified,
) -> Result<Passage, Refusal> {
    let transport = [Transport::Tcp, Transport::Udp].into_iter().find(|known| known.number() == protocol);
    match known(subject) {
        Ok(identity) => {
            let live = subject.live();
            let (set, resolvers) = (live.set(), live.resolvers());
            let over =
                match set.network_rule(identity, transport, dst.ip(), dst.port(), resolvers, clock::now()) {
                    Ok(rule) => {
                        return Ok(Passage {
                            reason: format!("allowed by {rule}"),
                            rule: Some(spelled(rule)),
                            observed: false,
                            until: None,
                        });
                    }
                    Err(over) => over,
                };
            let why = match over {
                Some((rule, until)) => format!("expired: {rule} was granted until {until}"),
                None => "no network grant allows it".to_owned(),
            };
            let who = subject.identity().map_or("the identity", |identity| identity.name.as_str());
            let what = transport.map_or("such traffic to", |transport| transport.as_str());
            let detail = format!("{who} may not reach {what} {}: {why}", dst.0);
            Err(Refusal::new(Kind::NotGranted, detail))
        }
        // Several identities are a fault of the policy, which must not open a way.
        Err(refusal) if refusal.kind == Kind::UnknownWorkload && unidentified == Unidentified::Pass => {
            let reason = format!("{}, and this host has unidentified = \"pass\"", refusal.reason());
            Ok(Passage { reason, rule: None, observed: false, until: None })
        }
        Err(refusal) => Err(refusal),
    }
}

/// The refusal of a workload that has not exactly one identity.
fn known(subject: &Subject) -> Result<proxy_policy::IdentityId, Refusal> {
    match subject.identified() {
        Identified::One(id) => Ok(*id),
        Identified::None(why) => {
            let workload = subject.workload();
            let exe = workload.exe.as_deref().unwrap_or("executable unknown");
            let told = why.for_the_workload().unwrap_or("its policy needs a file under policies/");
            let detail =
                format!("no identity matches process {} ({exe}, uid {}); {told}", workload.pid, workload.uid);
            Err(Refusal::new(Kind::UnknownWorkload, detail)
                .with_internal(format!("no identity matches: {why}")))
        }
        Identified::Ambiguous(names) => {
            let names = names.join(", ");
            let detail = format!(
                "the identities {names} match this program; make their conditions exclude each other"
            );
            Err(Refusal::new(Kind::AmbiguousWorkload, detail))
        }
    }
}

/// Whether hosts that no API names are open to the subject, why, and whether that is only because it is observed.
fn passes(
    subject: &Subject,
    host: Option<&Host>,
    port: u16,
    unidentified: Unidentified,
) -> Result<(String, bool), Refusal> {
    if subject.workload().foreign {
        // The way there would be the daemon's, where the same address is another place.
        return match known(subject) {
            Err(refusal) if refusal.kind != Kind::UnknownWorkload || unidentified == Unidentified::Deny => {
                Err(refusal)
            }
            _ => Err(Refusal::new(
                Kind::UnknownHost,
                "from another network namespace than the host's only calls to APIs are carried",
            )),
        };
    }
    match (known(subject), unidentified) {
        (Ok(_), _) => match subject.identity() {
            Some(identity) if identity.unmatched == Unmatched::Pass => {
                Ok((format!("no API names the host, and {} has unmatched = \"pass\"", identity.name), false))
            }
            Some(identity) if identity.mode == Mode::Observe => {
                let would = no_api(subject, host, port);
                Ok((format!("observed, would be denied: {}", would.detail), true))
            }
            _ => Err(no_api(subject, host, port)),
        },
        // Several identities are a fault of the policy, which must not open a way.
        (Err(refusal), Unidentified::Pass) if refusal.kind == Kind::UnknownWorkload => {
            let why = refusal.reason();
            Ok((format!("{why}, no API names the host, and this host has unidentified = \"pass\""), false))
        }
        (Err(refusal), _) => Err(refusal),
    }
}

fn no_api(subject: &Subject, host: Option<&Host>, port: u16) -> Refusal {
    if let Err(refusal) = known(subject) {
        return refusal;
    }
    let who = subject.identity().map_or("the identity", |identity| identity.name.as_str());
    let place = host.map_or_else(
        || format!("a host without a name, port {port}"),
        |host| format!("{}:{port}", host.name()),
    );
    Refusal::new(Kind::UnknownHost, format!("{who} may not call {place}: no API of the policy names it"))
}

fn spelled(rule: RuleRef<'_>) -> Rule {
    Rule { file: rule.file.to_owned(), line: rule.line, text: rule.text.to_owned() }
}
