//! What a compiled policy set is made of.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use crate::address::Addresses;
use crate::conditions::Conditions;
use crate::inject::Inject;
use crate::limit::Limits;
use crate::network::NetworkRule;
use crate::operation::Operation;
use crate::place::{Place, Spanned};
use crate::token_endpoint::TokenEndpoint;
use crate::until::{Moment, Until};
use crate::when::Condition;

/// An identity of one [`crate::PolicySet`]; without meaning in another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IdentityId(pub u32);

/// An operation that a grant of one [`crate::PolicySet`] allows or denies; without meaning in another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RuleId(pub u32);

/// An API of one [`crate::PolicySet`]; without meaning in another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ApiId(pub u32);

/// A credential of one [`crate::PolicySet`]; without meaning in another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CredentialId(pub u32);

/// How an API is spoken to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scheme {
    /// Plain HTTP; with a credential only where that one says so.
    Http,
    /// HTTP over verified TLS.
    #[default]
    Https,
}

impl Scheme {
    /// `http` or `https`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }

    /// 80 or 443.
    #[must_use]
    pub fn default_port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
        }
    }
}

impl fmt::Display for Scheme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What happens to connections of an identity to hosts that no API names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Unmatched {
    /// They are refused.
    #[default]
    Deny,
    /// They go through as they are, without a credential.
    Pass,
}

impl Unmatched {
    /// As in a policy file.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Deny => "deny",
            Self::Pass => "pass",
        }
    }
}

/// What happens to what a policy does not allow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Mode {
    /// It is refused.
    #[default]
    Enforce,
    /// It goes on, and is recorded as what would be refused.
    Observe,
}

impl Mode {
    /// As in a policy file.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Enforce => "enforce",
            Self::Observe => "observe",
        }
    }
}

/// A condition of a grant, with the values of the role that it is from.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct When {
    /// The condition.
    pub condition: Arc<Condition>,
    /// Where it stands.
    pub place: Place,
    /// The parameters that it can look at.
    pub params: Arc<BTreeMap<String, String>>,
}

/// A name that a policy gives to the workloads that it matches.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Identity {
    /// Its position in the set.
    pub id: IdentityId,
    /// The stem of its file.
    pub name: String,
    /// What it is for, in the author's words.
    pub description: Option<String>,
    /// The label of its file.
    pub file: String,
    /// What a workload must be.
    pub conditions: Conditions,
    /// What happens to hosts that no API names.
    pub unmatched: Unmatched,
    /// What happens to calls that it may not make.
    pub mode: Mode,
    /// How much it may call.
    pub limits: Limits,
    /// What it may do, in the order of the file.
    pub grants: Vec<Grant>,
    /// What it may reach past the proxy.
    pub network: Vec<NetworkGrant>,
    /// The APIs that it reaches over connections that are not looked into.
    pub whole: Vec<WholeGrant>,
}

/// Connections of an identity to an API go through as they are, perhaps until some moment: `intercept = false`.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct WholeGrant {
    /// Where the grant stands.
    pub place: Place,
    /// The API.
    pub api: ApiId,
    /// When it ends. From then on they are intercepted, and nothing is granted.
    pub until: Option<Until>,
}

impl WholeGrant {
    /// How it is told.
    pub(crate) const TEXT: &str = "intercept = false";
}

/// A rule of the network that an identity has, perhaps until some moment.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct NetworkGrant {
    /// What is open.
    pub rule: Spanned<NetworkRule>,
    /// When it ends.
    pub until: Option<Until>,
}

impl NetworkGrant {
    /// Whether it is open at that moment.
    #[must_use]
    pub fn holds(&self, now: Moment) -> bool {
        !self.until.as_ref().is_some_and(|until| until.is_over(now))
    }
}

impl Deref for NetworkGrant {
    type Target = Spanned<NetworkRule>;

    fn deref(&self) -> &Self::Target {
        &self.rule
    }
}

/// Some operations of one API, allowed or denied to one identity; roles are resolved.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Grant {
    /// Where the grant stands in the identity's file.
    pub place: Place,
    /// The API.
    pub api: ApiId,
    /// The role that it comes from; of an included one its own name.
    pub role: Option<String>,
    /// When what it allows ends. What it denies does not end.
    pub until: Option<Until>,
    /// What must hold for it to count, as a whole: what it allows and what it denies.
    pub when: Vec<When>,
    /// The most bytes of a body that its conditions look at.
    pub body_limit: usize,
    /// The most bytes of each body that are kept for auditors; `None`: none are.
    pub capture: Option<Spanned<u64>>,
    /// Whether what keeps its operations from being allowed, and what it denies, is only recorded.
    pub mode: Mode,
    /// How much of it may be called: its own limits, and those of its role. Parts of one grant share what they use.
    pub limits: Vec<Limited>,
    /// What is attached to the calls that it allows.
    pub credential: Option<CredentialId>,
    /// What it allows.
    pub allow: Vec<Spanned<Arc<Operation>>>,
    /// What it denies; counts against every grant of the identity for this API.
    pub deny: Vec<Spanned<Arc<Operation>>>,
}

/// Limits of a grant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limited {
    /// The name under which is counted what is used of them; the same after a reload.
    pub key: String,
    /// For people: `a grant of bot for github`.
    pub whose: String,
    /// The limits.
    pub limits: Limits,
}

/// A named set of hosts with one way to authenticate.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Api {
    /// Its position in the set.
    pub id: ApiId,
    /// Its name.
    pub name: String,
    /// Where it is defined.
    pub place: Place,
    /// How it is spoken to.
    pub scheme: Scheme,
    /// Where it is.
    pub hosts: Vec<Spanned<ApiHost>>,
    /// At which addresses it may be.
    pub addresses: Arc<Addresses>,
    /// How a credential is attached; without it, calls go without one.
    pub inject: Option<Inject>,
    /// Headers (lower-case) that are removed from the client's request, besides the one of `inject`.
    pub strip: Vec<String>,
    /// What is not removed, though it is a key by its name or shape: headers, and parameters of the query with a `?` before them.
    pub keep: Vec<String>,
    /// Which answers are looked through for the secret that was sent.
    pub mask: Mask,
    /// Where its bots ask for tokens, and the proxy answers.
    pub token_endpoint: Option<TokenEndpoint>,
    /// How much may be called of it, by all identities together.
    pub limits: Limits,
    /// How much may be called of each of its hosts, by all identities together.
    pub host_limits: Limits,
}

/// One host of an API.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ApiHost {
    pub(crate) name: String,
    pub(crate) wildcard: bool,
    pub(crate) port: u16,
}

impl ApiHost {
    /// The name in normal form; of a wildcard, what follows `*.`.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether it stands for every host with exactly one label before the name.
    #[must_use]
    pub fn is_wildcard(&self) -> bool {
        self.wildcard
    }

    /// The port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }
}

impl fmt::Display for ApiHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let star = if self.wildcard { "*." } else { "" };
        match self.name.contains(':') {
            true => write!(f, "[{}]:{}", self.name, self.port),
            false => write!(f, "{star}{}:{}", self.name, self.port),
        }
    }
}

/// Which answers of an API are looked through for the secret that was sent, so that it does not come back to the bot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mask {
    /// Headers, and bodies that are text by their type.
    #[default]
    Text,
    /// Headers, and all bodies.
    All,
    /// None.
    Off,
}

/// How much there is in a set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Summary {
    /// Identities.
    pub identities: usize,
    /// APIs.
    pub apis: usize,
    /// Roles.
    pub roles: usize,
    /// Credentials.
    pub credentials: usize,
    /// Operations allowed or denied, over all identities.
    pub rules: usize,
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts = [
            (self.identities, "identity", "identities"),
            (self.apis, "API", "APIs"),
            (self.roles, "role", "roles"),
            (self.credentials, "credential", "credentials"),
            (self.rules, "rule", "rules"),
        ];
        for (i, (count, one, many)) in parts.into_iter().enumerate() {
            let comma = if i == 0 { "" } else { ", " };
            write!(f, "{comma}{count} {}", if count == 1 { one } else { many })?;
        }
        Ok(())
    }
}
