//! The answer to "may it?" for the bytes of one connection: [`Passage`].

use std::net::IpAddr;

use proxy_journal::{Basis, Question, Rule};
use proxy_policy::{Host, Mode, Moment, RuleRef, Scheme, Transport, Unmatched};

use super::Unidentified;
use super::refusal::{Kind, Refusal};
use super::subject::Subject;
use super::{basis, elsewhere};
use crate::base::addr::OriginalDst;
use crate::workload::Identified;

/// The bytes of one connection may go to where the workload wanted them, undecrypted and unchanged.
#[derive(Debug)]
pub struct Passage {
    reason: String,
    rule: Option<Rule>,
    observed: bool,
    until: Option<Moment>,
    basis: Box<Basis>,
}

impl Passage {
    /// When time alone may end it.
    #[must_use]
    pub fn until(&self) -> Option<Moment> {
        self.until
    }

    /// What it is based on.
    #[must_use]
    pub fn basis(&self) -> &Basis {
        &self.basis
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
    now: Moment,
) -> Result<Passage, Refusal> {
    let basis = || Basis {
        unidentified_pass: unidentified == Unidentified::Pass,
        host_observes: subject.is_observed(),
        ..basis::of(Question::Passage, now)
    };
    if let Some(host) = host
        && let Some(api) = subject.live().set().api_for(scheme, host.name(), port)
    {
        let detail =
            format!("{} belongs to the API {}: its calls are decided one by one", host.name(), api.name);
        return Err(Refusal::new(Kind::UnknownProtocol, detail).with_basis(basis()));
    }
    match passes(subject, host, port, unidentified) {
        Ok((reason, observed)) => {
            Ok(Passage { reason, rule: None, observed, until: None, basis: basis().into() })
        }
        Err(refusal) => Err(refusal.with_basis(basis())),
    }
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
    now: Moment,
) -> Option<Result<Passage, Refusal>> {
    let set = subject.live().set();
    let api = set.api_for(Scheme::Https, host.name(), port)?;
    let (rule, until) = set.whole(subject.identity_id()?, api.id, now)?;
    let basis = || Basis { host_observes: subject.is_observed(), ..basis::of(Question::Whole, now) };
    let refused = |why: &str| {
        let rule = Some(spelled(rule));
        let detail =
            format!("connections to {} are not looked into (intercept = false), but {why}", api.name);
        Err(Refusal { rule, ..Refusal::new(Kind::NotGranted, detail) }.with_basis(basis()))
    };
    if subject.workload().foreign {
        return Some(refused("from another network namespace than the host's nothing goes through as it is"));
    }
    let Some(address) = address else {
        return Some(refused("to a host that was not looked up here nothing goes through as it is"));
    };
    if let Err(elsewhere) = elsewhere::check(api, None, address) {
        let refusal = elsewhere::refusal(set, api, &elsewhere);
        return Some(match subject.is_observed() {
            true => Ok(observed(&refusal, basis())),
            false => Err(refusal.with_basis(basis())),
        });
    }
    let reason = format!("passed through undecrypted, as the policy says of a pinned client: {rule}");
    Some(Ok(Passage { reason, rule: Some(spelled(rule)), observed: false, until, basis: basis().into() }))
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
    now: Moment,
) -> Result<Passage, Refusal> {
    let basis = Basis {
        resolver: subject.live().resolvers().contains(&dst.ip()),
        ..network_basis(subject, unidentified, now)
    };
    network(subject, protocol, dst, unidentified, now, subject.live().resolvers())
        .map(|passage| Passage { basis: basis.clone().into(), ..passage })
        .or_else(|refusal| observed_if(subject, refusal, &basis))
        .map_err(|refusal| refusal.with_basis(basis))
}

fn network_basis(subject: &Subject, unidentified: Unidentified, now: Moment) -> Basis {
    Basis {
        unidentified_pass: unidentified == Unidentified::Pass,
        host_observes: subject.is_observed(),
        ..basis::of(Question::Network, now)
    }
}

/// The refusal of a connection to a name that need not be looked up: the identity has no network grant at all. Nothing where it has one,
/// where the workload has no identity, or where nothing is denied.
#[must_use]
pub fn refuse_by_name(
    subject: &Subject,
    host: &Host,
    port: u16,
    unidentified: Unidentified,
    now: Moment,
) -> Option<Refusal> {
    let identity = subject.identity()?;
    if !identity.network.is_empty() || subject.is_observed() {
        return None;
    }
    let (who, host) = (&identity.name, host.name());
    let detail = format!("{who} may not reach tcp {host}:{port}: no network grant allows it");
    Some(Refusal::new(Kind::NotGranted, detail).with_basis(network_basis(subject, unidentified, now)))
}

/// As [`authorize_network`], for what is recorded, whatever the resolvers of the host are now. Opens nothing.
///
/// # Errors
/// As [`authorize_network`].
pub fn recall_network(
    subject: &Subject,
    protocol: u8,
    dst: OriginalDst,
    unidentified: Unidentified,
    now: Moment,
    is_resolver: bool,
) -> Result<Passage, Refusal> {
    let resolvers: &[IpAddr] = if is_resolver { &[dst.ip()] } else { &[] };
    network(subject, protocol, dst, unidentified, now, resolvers)
        .or_else(|refusal| observed_if(subject, refusal, &Basis::default()))
}

/// What is refused goes on where nothing is denied.
fn observed_if(subject: &Subject, refusal: Refusal, basis: &Basis) -> Result<Passage, Refusal> {
    match subject.is_observed() {
        true => Ok(observed(&refusal, basis.clone())),
        false => Err(refusal),
    }
}

fn observed(refusal: &Refusal, basis: Basis) -> Passage {
    let reason = would_be(refusal.reason());
    Passage { reason, rule: refusal.rule.clone(), observed: true, until: None, basis: basis.into() }
}

/// Why something is only observed.
pub(super) fn would_be(refused: &str) -> String {
    format!("observed, would be denied: {refused}")
}

fn network(
    subject: &Subject,
    protocol: u8,
    dst: OriginalDst,
    unidentified: Unidentified,
    now: Moment,
    resolvers: &[IpAddr],
) -> Result<Passage, Refusal> {
    let transport = [Transport::Tcp, Transport::Udp].into_iter().find(|known| known.number() == protocol);
    match known(subject) {
        Ok(identity) => {
            let set = subject.live().set();
            let over = match set.network_rule(identity, transport, dst.ip(), dst.port(), resolvers, now) {
                Ok(rule) => {
                    return Ok(Passage {
                        reason: format!("allowed by {rule}"),
                        rule: Some(spelled(rule)),
                        observed: false,
                        until: None,
                        basis: Box::default(),
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
            Ok(Passage { reason, rule: None, observed: false, until: None, basis: Box::default() })
        }
        Err(refusal) => Err(refusal),
    }
}

/// The refusal of a workload that has not exactly one identity.
pub(super) fn known(subject: &Subject) -> Result<proxy_policy::IdentityId, Refusal> {
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
pub(super) fn passes(
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
            Some(identity) if identity.mode == Mode::Observe || subject.is_observed() => {
                Ok((would_be(&no_api(subject, host, port).detail), true))
            }
            _ => Err(no_api(subject, host, port)),
        },
        // Several identities are a fault of the policy, which must not open a way.
        (Err(refusal), Unidentified::Pass) if refusal.kind == Kind::UnknownWorkload => {
            let why = refusal.reason();
            Ok((format!("{why}, no API names the host, and this host has unidentified = \"pass\""), false))
        }
        (Err(refusal), _) if subject.is_observed() => Ok((would_be(refusal.reason()), true)),
        (Err(refusal), _) => Err(refusal),
    }
}

pub(super) fn no_api(subject: &Subject, host: Option<&Host>, port: u16) -> Refusal {
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

pub(super) fn spelled(rule: RuleRef<'_>) -> Rule {
    Rule { file: rule.file.to_owned(), line: rule.line, text: rule.text.to_owned() }
}
