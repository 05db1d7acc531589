//! May this identity make this call? The answer, the rule behind it, and the reason in words.

use std::fmt;

use crate::model::{Api, ApiId, Credential, Identity, IdentityId};
use crate::path::CallPath;
use crate::set::{PolicySet, Rule};
use crate::until::{Moment, Until};

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
        Self { api, method, path, kind: CallKind::Plain, now }
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
    /// The role that the operation comes from.
    pub role: Option<&'p str>,
    /// What to attach; only ever with an allow.
    pub credential: Option<&'p Credential>,
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
        let may = if self.decision.is_allowed() { "may" } else { "may not" };
        let Call { method, path, .. } = self.call;
        write!(f, "{who} {may} {} {path}: {}", method.escape_debug(), self.decision.reason)?;
        match (self.call.kind, self.decision.reason) {
            (CallKind::WebSocket, Reason::NotGranted { .. }) => {
                write!(f, " (an upgrade is an operation of its own: \"websocket {path}\")")
            }
            _ => Ok(()),
        }
    }
}

impl PolicySet {
    /// Decides a call: deny wins, then the first allow, in the order of the identity's grants; what is not granted is
    /// denied. Allocates nothing.
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
            role: None,
            credential: None,
        };
        let (Some(known), Some(what)) = (who, api) else {
            return no(if who.is_none() { Reason::UnknownIdentity } else { Reason::UnknownApi });
        };
        let Some((denies, allows)) = self.rules(identity, call.api) else {
            return no(Reason::NoGrant { api: &what.name });
        };
        if let Some(rule) =
            denies.iter().find(|rule| rule.operation.denies(call.kind, call.method, call.path))
        {
            let (rule, role, _) = self.refer(known, rule);
            return Decision { rule: Some(rule), role, ..no(Reason::Denied(rule)) };
        }
        let mut expired = None;
        for rule in allows.iter().filter(|rule| rule.operation.allows(call.kind, call.method, call.path)) {
            let until = known.grants.get(rule.grant as usize).and_then(|grant| grant.until.as_ref());
            if let Some(until) = until.filter(|until| until.is_over(call.now)) {
                expired = expired.or(Some((rule, until)));
                continue;
            }
            let (rule, role, credential) = self.refer(known, rule);
            let reason = Reason::Allowed(rule);
            return Decision { verdict: Verdict::Allow, rule: Some(rule), role, credential, ..no(reason) };
        }
        let Some((rule, until)) = expired else { return no(Reason::NotGranted { api: &what.name }) };
        let (rule, role, _) = self.refer(known, rule);
        Decision { rule: Some(rule), role, ..no(Reason::Expired { rule, until }) }
    }

    /// Where a rule stands, the role that it is from, the credential that its grant names.
    fn refer<'p>(
        &'p self,
        identity: &'p Identity,
        rule: &'p Rule,
    ) -> (RuleRef<'p>, Option<&'p str>, Option<&'p Credential>) {
        let grant = identity.grants.get(rule.grant as usize);
        let place = rule.place;
        let file = self.file_name(place.file).unwrap_or_default();
        let text = rule.operation.as_str();
        (
            RuleRef { file, line: place.line, column: place.column, text },
            grant.and_then(|grant| grant.role.as_deref()),
            grant.and_then(|grant| grant.credential).and_then(|id| self.credential(id)),
        )
    }
}
