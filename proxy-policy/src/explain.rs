//! Why a call was decided as it was: every rule of the identity for the API, and what came of it.

use serde::Serialize;

use crate::decide::{Call, Held, RuleRef};
use crate::model::{IdentityId, Mode};
use crate::operation::Miss;
use crate::place::Place;
use crate::set::{PolicySet, Rule};
use crate::until::Until;
use crate::when::Fault;

/// What a rule does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Effect {
    /// It allows.
    Allow,
    /// It denies.
    Deny,
}

/// One rule, held against a call.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Considered<'p> {
    /// What it does.
    pub effect: Effect,
    /// The operation, and where it stands.
    pub rule: RuleRef<'p>,
    /// Where its grant stands: another file than the rule's, when it is from a role.
    pub grant: RuleRef<'p>,
    /// The role that it is from.
    pub role: Option<&'p str>,
    /// Whether its grant only observes.
    pub mode: Mode,
    /// What came of it.
    pub outcome: Outcome<'p>,
}

/// What came of a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Outcome<'p> {
    /// It matches, and its conditions hold.
    Counts,
    /// The method, or the protocol, is another one.
    OtherMethod(String),
    /// The path is another one.
    OtherPath(String),
    /// It matches, but its grant is over.
    Over(&'p Until),
    /// It matches, but a condition does not hold.
    Unmet(RuleRef<'p>),
    /// It matches, and its conditions cannot be decided: a deny counts, an allow does not.
    Faulty(Fault),
    /// It matches, and what its conditions look at is not known.
    Unknown,
}

impl Outcome<'_> {
    /// Whether the rule speaks for its effect: then a deny denies, and an allow allows unless something denies.
    #[must_use]
    pub fn counts(&self, effect: Effect) -> bool {
        match self {
            Self::Counts => true,
            Self::Faulty(_) => effect == Effect::Deny,
            _ => false,
        }
    }

    /// A word for programs.
    #[must_use]
    pub fn slug(&self) -> &'static str {
        match self {
            Self::Counts => "counts",
            Self::OtherMethod(_) => "other-method",
            Self::OtherPath(_) => "other-path",
            Self::Over(_) => "over",
            Self::Unmet(_) => "unmet",
            Self::Faulty(_) => "faulty",
            Self::Unknown => "unknown",
        }
    }
}

impl std::fmt::Display for Outcome<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Counts => f.write_str("matches"),
            Self::OtherMethod(why) | Self::OtherPath(why) => f.write_str(why),
            Self::Over(until) => write!(f, "matches, but was granted until {until}"),
            Self::Unmet(when) => {
                write!(
                    f,
                    "matches, but its condition does not hold: {} ({}:{})",
                    when.text, when.file, when.line
                )
            }
            Self::Faulty(fault) => write!(f, "matches, but its condition cannot be decided: {fault}"),
            Self::Unknown => f.write_str("matches, but what its condition looks at is not known"),
        }
    }
}

impl PolicySet {
    /// Every rule of the identity for the API of the call, in the order in which they are asked: denies, then allows. Asked
    /// by the code that decides, but of all of them.
    #[must_use]
    pub fn consider<'p>(&'p self, identity: IdentityId, call: &Call<'_>) -> Vec<Considered<'p>> {
        let Some((denies, allows)) = self.rules(identity, call.api) else { return Vec::new() };
        let denies = denies.all().iter().map(|rule| self.considered(identity, Effect::Deny, rule, call));
        let allows = allows.all().iter().map(|rule| self.considered(identity, Effect::Allow, rule, call));
        denies.chain(allows).flatten().collect()
    }

    fn considered<'p>(
        &'p self,
        identity: IdentityId,
        effect: Effect,
        rule: &'p Rule,
        call: &Call<'_>,
    ) -> Option<Considered<'p>> {
        let who = self.identity(identity)?;
        let grant = who.grants.get(usize::try_from(rule.grant).ok()?)?;
        let (place, role, _) = self.refer(who, rule);
        let deny = effect == Effect::Deny;
        let outcome = match rule.operation.why_not(deny, call.kind, call.method, call.path) {
            Some(Miss::Method(why)) => Outcome::OtherMethod(why),
            Some(Miss::Path(why)) => Outcome::OtherPath(why),
            None => {
                let held = match deny {
                    true => self.deny_holds(who, grant, rule, call),
                    false => self.allow_holds(who, grant, rule, call),
                };
                match held {
                    Held::Yes => Outcome::Counts,
                    Held::Over(until) => Outcome::Over(until),
                    Held::No(when) => Outcome::Unmet(self.place_ref(when.place, when.condition.as_str())),
                    Held::Fault(fault) => Outcome::Faulty(fault),
                    Held::Needs(_) => Outcome::Unknown,
                }
            }
        };
        let of_grant = |place: Place| self.place_ref(place, "[[grant]]");
        Some(Considered {
            effect,
            rule: place,
            grant: of_grant(grant.place),
            role,
            mode: grant.mode,
            outcome,
        })
    }
}
