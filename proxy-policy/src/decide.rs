//! May this identity make this call? The answer, the rule behind it, and the reason in words.

use std::fmt;

use crate::credential::Credential;
use crate::memory::{self, Memory};
use crate::model::{Api, ApiId, Grant, Identity, IdentityId, Mode, RuleId, When};
use crate::path::CallPath;
use crate::place::Place;
use crate::set::{PolicySet, Rule};
use crate::until::{Moment, Until};
use crate::when::{BodyFault, Case, Facts, Fault, Unknown};

/// A call, as far as a policy looks at it.
#[derive(Clone, Copy, Debug)]
pub struct Call<'a> {
    /// The API that the host belongs to.
    pub api: ApiId,
    /// The method, as the client sent it.
    pub method: &'a str,
    /// The path, as it will be forwarded.
    pub path: &'a CallPath<'a>,
    /// What it is besides a request.
    pub kind: CallKind,
    /// When it is decided.
    pub now: Moment,
    /// What conditions look at. Without it, a decision that hangs on a condition says that it needs them.
    pub facts: Option<&'a Facts<'a>>,
    /// What is done about what conditions come to.
    pub memory: Memory<'a>,
    /// Whether what would be denied only is observed, whatever the mode of the identity.
    pub observing: bool,
}

/// What a call is besides a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum CallKind {
    /// Nothing.
    #[default]
    Plain,
    /// A gRPC call: a `POST` whose content type is `application/grpc`, alone or with `+` or parameters behind it.
    Grpc,
    /// The upgrade to a WebSocket.
    WebSocket,
}

impl<'a> Call<'a> {
    /// A request that is nothing besides.
    #[must_use]
    pub fn plain(api: ApiId, method: &'a str, path: &'a CallPath<'a>, now: Moment) -> Self {
        Self {
            api,
            method,
            path,
            kind: CallKind::Plain,
            now,
            facts: None,
            memory: Memory::None,
            observing: false,
        }
    }
}

/// Yes or no.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// The call may go on.
    Allow,
    /// It may not.
    Deny,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Allow => "allow",
            Self::Deny => "deny",
        })
    }
}

/// The operation that decided, and where it stands. `Display`: `"GET /v1/**" (policies/x.toml:12)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RuleRef<'p> {
    /// The label of the file.
    pub file: &'p str,
    /// The line, from 1.
    pub line: u32,
    /// The column in characters, from 1.
    pub column: u32,
    /// The operation as it was written.
    pub text: &'p str,
    /// Which rule of a grant it is; of something else none.
    pub id: Option<RuleId>,
}

impl fmt::Display for RuleRef<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\" ({}:{})", self.text, self.file, self.line)
    }
}

/// Why. `Display` says it in words that complete "the bot may not … :".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reason<'p> {
    /// A grant allows it, and no deny matches.
    Allowed(RuleRef<'p>),
    /// A deny matches; it wins over every allow.
    Denied(RuleRef<'p>),
    /// There are grants for the API, but none allows this.
    NotGranted {
        /// The name of the API.
        api: &'p str,
    },
    /// A grant would allow it, but is over.
    Expired {
        /// What it would have been allowed by.
        rule: RuleRef<'p>,
        /// Until when.
        until: &'p Until,
    },
    /// A grant would allow it, but its condition does not hold.
    Unmet {
        /// What it would have been allowed by.
        rule: RuleRef<'p>,
        /// The condition.
        condition: RuleRef<'p>,
    },
    /// A grant may allow it, but its condition cannot be decided.
    Faulty {
        /// What it would have been allowed by.
        rule: RuleRef<'p>,
        /// Why.
        fault: Fault,
    },
    /// A deny may match: its condition cannot be decided.
    DeniedInDoubt {
        /// The deny.
        rule: RuleRef<'p>,
        /// Why.
        fault: Fault,
    },
    /// It hangs on a condition: ask again with [`Call::facts`].
    FactsNeeded,
    /// It hangs on the body: ask again with [`Facts::body`], of which not more than this is looked at.
    BodyNeeded {
        /// The limit in bytes.
        limit: usize,
    },
    /// It hangs on a condition that was not asked when the call was made, and that looks at what nobody kept.
    Untold {
        /// The condition.
        condition: RuleRef<'p>,
    },
    /// Connections of the identity to the API go through as they are, so no request of them is decided.
    Whole {
        /// The grant that says so.
        rule: RuleRef<'p>,
    },
    /// The identity has no grant for the API at all.
    NoGrant {
        /// The name of the API.
        api: &'p str,
    },
    /// The API is not of this set: the id is from another one.
    UnknownApi,
    /// The identity is not of this set: the id is from another one.
    UnknownIdentity,
}

impl fmt::Display for Reason<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Allowed(rule) => write!(f, "allowed by {rule}"),
            Self::Denied(rule) => write!(f, "denied by {rule}"),
            Self::NotGranted { api } => write!(f, "no grant for {api} allows it"),
            Self::Expired { rule, until } => write!(f, "expired: {rule} was granted until {until}"),
            Self::Unmet { rule, condition } => {
                write!(f, "the condition of {rule} does not hold ({}:{})", condition.file, condition.line)
            }
            Self::Faulty { rule, fault } => write!(f, "the condition of {rule} cannot be decided: {fault}"),
            Self::DeniedInDoubt { rule, fault } => {
                write!(f, "denied by {rule}, whose condition cannot be decided: {fault}")
            }
            Self::FactsNeeded => f.write_str("it hangs on a condition, and what that looks at is not known"),
            Self::BodyNeeded { .. } => {
                f.write_str("it hangs on a condition that looks at the body, which was not read")
            }
            Self::Untold { condition } => {
                write!(
                    f,
                    "it hangs on a condition that was not asked then, and that looks at what is not recorded ({}:{})",
                    condition.file, condition.line
                )
            }
            Self::Whole { rule } => {
                write!(f, "its connections go through undecrypted, so no call is decided: {rule}")
            }
            Self::NoGrant { api } => write!(f, "it has no grant for {api}"),
            Self::UnknownApi => f.write_str("the API is not in the policy"),
            Self::UnknownIdentity => f.write_str("the identity is not in the policy"),
        }
    }
}

/// The answer to a call. `Display` is that of its reason; [`Decision::explain`] gives a whole sentence.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Decision<'p> {
    /// Yes or no.
    pub verdict: Verdict,
    /// Why.
    pub reason: Reason<'p>,
    /// Who asked.
    pub identity: Option<&'p Identity>,
    /// What was asked.
    pub api: Option<&'p Api>,
    /// The operation that decided, unless none matched.
    pub rule: Option<RuleRef<'p>>,
    /// The position of the grant that allows it among those of the identity.
    pub grant: Option<usize>,
    /// The role that the operation comes from.
    pub role: Option<&'p str>,
    /// What to attach; only ever with an allow.
    pub credential: Option<&'p Credential>,
    /// Of a call that goes on only because it is observed: why it would be denied.
    pub observed: Option<Reason<'p>>,
}

impl<'p> Decision<'p> {
    /// Whether the call may go on.
    #[must_use]
    pub fn is_allowed(&self) -> bool {
        self.verdict == Verdict::Allow
    }

    /// `invoice-bot may not DELETE /v1/invoices/in_1: no grant for stripe allows it`.
    #[must_use]
    pub fn explain<'a>(&self, call: &Call<'a>) -> Explanation<'a, 'p> {
        Explanation { decision: *self, call: *call }
    }
}

impl fmt::Display for Decision<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.reason.fmt(f)
    }
}

/// A decision as a sentence, by `Display`.
#[derive(Clone, Copy, Debug)]
pub struct Explanation<'a, 'p> {
    decision: Decision<'p>,
    call: Call<'a>,
}

impl fmt::Display for Explanation<'_, '_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let who = self.decision.identity.map_or("an unknown identity", |identity| &identity.name);
        let may =
            if self.decision.is_allowed() && self.decision.observed.is_none() { "may" } else { "may not" };
        let Call { method, path, .. } = self.call;
        write!(
            f,
            "{who} {may} {} {path}: {}",
            method.escape_debug(),
            self.decision.observed.unwrap_or(self.decision.reason)
        )?;
        match (self.call.kind, self.decision.reason) {
            (CallKind::WebSocket, Reason::NotGranted { .. }) => {
                write!(f, " (an upgrade is an operation of its own: \"websocket {path}\")")
            }
            _ => Ok(()),
        }
    }
}

/// What is known of the conditions of a rule.
pub(crate) enum Held<'p> {
    Yes,
    /// Its grant is over.
    Over(&'p Until),
    No(&'p When),
    Fault(Fault),
    /// Facts or a body.
    Needs(Reason<'p>),
}

impl PolicySet {
    /// Decides a call: deny wins, then the first allow, in the order of the identity's grants; what is not granted is
    /// denied. A grant whose condition does not hold is as good as none; when it cannot be decided, its denies hold and
    /// its allows do not. Allocates nothing while no condition is asked.
    #[must_use]
    pub fn decide<'p>(&'p self, identity: IdentityId, call: &Call<'_>) -> Decision<'p> {
        let who = self.identity(identity);
        let api = self.api(call.api);
        let no = |reason| Decision {
            verdict: Verdict::Deny,
            reason,
            identity: who,
            api,
            rule: None,
            grant: None,
            role: None,
            credential: None,
            observed: None,
        };
        let (Some(known), Some(what)) = (who, api) else {
            return no(if who.is_none() { Reason::UnknownIdentity } else { Reason::UnknownApi });
        };
        let observing = call.observing || known.mode == Mode::Observe;
        let pass = |decision: Decision<'p>| Decision {
            verdict: Verdict::Allow,
            observed: Some(decision.observed.unwrap_or(decision.reason)),
            ..decision
        };
        let Some((denies, allows)) = self.rules(identity, call.api) else {
            if let Some((rule, _)) = self.whole(identity, call.api, call.now) {
                return Decision { rule: Some(rule), ..no(Reason::Whole { rule }) };
            }
            let denied = no(Reason::NoGrant { api: &what.name });
            return if observing { pass(denied) } else { denied };
        };
        let mut observed = None;
        for rule in denies.matching(call) {
            let (place, role, _) = self.refer(known, rule);
            let grant = known.grants.get(rule.grant as usize);
            let reason = match grant.map_or(Held::Yes, |grant| self.deny_holds(known, grant, rule, call)) {
                Held::Yes => Reason::Denied(place),
                Held::No(_) | Held::Over(_) => continue,
                Held::Fault(fault) => Reason::DeniedInDoubt { rule: place, fault },
                Held::Needs(needs) => return no(needs),
            };
            if !observing && grant.is_none_or(|grant| grant.mode == Mode::Enforce) {
                return Decision { rule: Some(place), role, ..no(reason) };
            }
            observed = observed.or(Some(reason));
        }
        // The first one that would have allowed it, and the first one of those that are only observed.
        let (mut missed, mut passed) = (None, None);
        for rule in allows.matching(call) {
            let Some(grant) = known.grants.get(rule.grant as usize) else { continue };
            let (place, role, credential) = self.refer(known, rule);
            let reason = match self.allow_holds(known, grant, rule, call) {
                Held::Yes => {
                    let reason = Reason::Allowed(place);
                    return Decision {
                        verdict: Verdict::Allow,
                        rule: Some(place),
                        grant: usize::try_from(rule.grant).ok(),
                        role,
                        credential,
                        observed,
                        ..no(reason)
                    };
                }
                Held::Over(until) => Reason::Expired { rule: place, until },
                Held::No(when) => Reason::Unmet {
                    rule: place,
                    condition: self.place_ref(when.place, when.condition.as_str()),
                },
                Held::Fault(fault) => Reason::Faulty { rule: place, fault },
                Held::Needs(needs) => return no(needs),
            };
            let decision = Decision { rule: Some(place), role, observed, ..no(reason) };
            missed = missed.or(Some(decision));
            if grant.mode == Mode::Observe {
                passed = passed.or(Some(decision));
            }
        }
        let missed = missed.unwrap_or(Decision { observed, ..no(Reason::NotGranted { api: &what.name }) });
        match passed {
            _ if observing => pass(missed),
            Some(decision) => pass(decision),
            // What would have been denied was only observed, but nothing allows it.
            None => Decision { observed: None, ..missed },
        }
    }

    /// Whether an allow counts.
    pub(crate) fn allow_holds<'p>(
        &'p self,
        who: &Identity,
        grant: &'p Grant,
        rule: &'p Rule,
        call: &Call<'_>,
    ) -> Held<'p> {
        match &grant.until {
            Some(until) if until.is_over(call.now) => Held::Over(until),
            _ => self.holds(who, grant, rule, call, false),
        }
    }

    /// Whether a deny counts: for every reading of the path that some server has.
    pub(crate) fn deny_holds<'p>(
        &'p self,
        who: &Identity,
        grant: &'p Grant,
        rule: &'p Rule,
        call: &Call<'_>,
    ) -> Held<'p> {
        match self.holds(who, grant, rule, call, false) {
            Held::No(when) if rule.operation.capture_names().next().is_some() => {
                match self.holds(who, grant, rule, call, true) {
                    Held::No(_) => Held::No(when),
                    other => other,
                }
            }
            other => other,
        }
    }

    /// Whether all conditions of a grant hold for a call that the operation of `rule` matches.
    fn holds<'p>(
        &'p self,
        who: &Identity,
        grant: &'p Grant,
        rule: &'p Rule,
        call: &Call<'_>,
        folded: bool,
    ) -> Held<'p> {
        for when in &grant.when {
            let captures = match when.condition.captures().is_empty() {
                true => Vec::new(),
                false => rule.operation.captures(call.path, folded),
            };
            let case = Case {
                call,
                identity: &who.name,
                captures,
                params: &when.params,
                body_limit: grant.body_limit,
            };
            match self.answer(when, &case) {
                Ok(true) => {}
                Ok(false) => return Held::No(when),
                Err(Unknown::Fault(fault)) => return Held::Fault(fault),
                Err(Unknown::Facts) => return Held::Needs(Reason::FactsNeeded),
                Err(Unknown::Untold) => {
                    let condition = self.place_ref(when.place, when.condition.as_str());
                    return Held::Needs(Reason::Untold { condition });
                }
                Err(Unknown::Body) => {
                    let looks = |it: &&Grant| {
                        it.api == grant.api && it.when.iter().any(|when| when.condition.uses_body())
                    };
                    let limits = who.grants.iter().filter(looks).map(|it| it.body_limit);
                    return Held::Needs(Reason::BodyNeeded {
                        limit: limits.max().unwrap_or(grant.body_limit),
                    });
                }
            }
        }
        Held::Yes
    }

    /// Whether a condition holds: asked now, or as it is remembered.
    fn answer(&self, when: &When, case: &Case<'_>) -> Result<bool, Unknown> {
        let key = || {
            let view = self.view(case.call.api);
            memory::key(when, &case.captures, case.body_limit, view)
        };
        match case.call.memory {
            Memory::None => when.condition.holds(case),
            Memory::Keep(kept) => {
                let answer = when.condition.holds(case);
                let has_query = case.call.facts.is_some_and(|facts| facts.query.is_some());
                let held = match answer {
                    Ok(held) => Ok(held),
                    Err(Unknown::Fault(fault)) => Err(fault),
                    Err(_) => return answer,
                };
                if when.condition.looks_beyond(has_query) {
                    memory::keep(kept, memory::Answer { place: when.place, key: key(), held });
                }
                answer
            }
            Memory::Recall(recalled) if when.condition.looks_beyond(recalled.has_query) => {
                let limit = case.body_limit;
                recalled.of(key()).ok_or(Unknown::Untold)?.map_err(|fault| match fault {
                    Fault::Body(BodyFault::TooLarge { .. }) => {
                        Unknown::Fault(Fault::Body(BodyFault::TooLarge { limit }))
                    }
                    fault => Unknown::Fault(fault),
                })
            }
            Memory::Recall(_) => when.condition.holds(case),
        }
    }

    pub(crate) fn place_ref<'p>(&'p self, place: Place, text: &'p str) -> RuleRef<'p> {
        let file = self.file_name(place.file).unwrap_or_default();
        RuleRef { file, line: place.line, column: place.column, text, id: None }
    }

    /// Where a rule stands, the role that it is from, the credential that its grant names.
    pub(crate) fn refer<'p>(
        &'p self,
        identity: &'p Identity,
        rule: &'p Rule,
    ) -> (RuleRef<'p>, Option<&'p str>, Option<&'p Credential>) {
        let grant = identity.grants.get(rule.grant as usize);
        (
            RuleRef { id: Some(rule.id), ..self.place_ref(rule.place, rule.operation.as_str()) },
            grant.and_then(|grant| grant.role.as_deref()),
            grant.and_then(|grant| grant.credential).and_then(|id| self.credential(id)),
        )
    }
}
