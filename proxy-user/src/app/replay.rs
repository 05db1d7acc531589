//! Whether a policy decides a recorded call as it was decided then.

use std::sync::Arc;

use proxy_journal::{Decision, Rule, Verdict};
use proxy_policy::{Moment, PolicySet};

use super::recall::{Judgement, Recalled, Settings, When, Who, recall};
use crate::authorize::LivePolicy;
use crate::limits::{Ledger, Registry};

/// What a policy says of a recorded decision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Replayed {
    /// It decides the same.
    Same {
        /// It goes on and would be asked for other limits than then: whether these refuse it is not judged.
        other_limits: bool,
    },
    /// It decides otherwise.
    Otherwise(Otherwise),
    /// Whether it does hangs on what is not recorded; in words.
    Unknown(String),
    /// It was refused before a policy was asked, and would be by every policy.
    NotAsked,
}

/// What is decided otherwise. Calls for which all of this is the same belong together.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Otherwise {
    /// What changes, `allow -> deny`, `other identity`, `other credential`, `other rule`.
    pub change: String,
    /// The rule that decided, and the credential.
    pub then: Told,
    /// The same of today.
    pub now: Told,
}

/// By what something is decided.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Told {
    /// The identity.
    pub identity: Option<String>,
    /// `"GET /v1/**" (policies/bot.toml:3)`; of what no rule decided, the word for the refusal.
    pub rule: String,
    /// The credential.
    pub credential: Option<String>,
}

/// A policy to replay by, with its limits. Nothing that it says is done.
#[must_use]
pub fn to_judge(set: PolicySet) -> LivePolicy {
    LivePolicy::new(set, 0).with_limits(&Registry::new(Arc::new(Ledger::nowhere())))
}

/// Decides a recorded call again, for the moment at which it was decided. `recorded` is when it was recorded.
#[must_use]
pub fn replay(
    live: &Arc<LivePolicy>,
    entry: &Decision,
    settings: Settings<'_>,
    recorded: Moment,
    who: Who<'_>,
) -> Replayed {
    if entry.basis.is_none() && entry.refusal.is_some() {
        return Replayed::NotAsked;
    }
    let judged = match recall(live, entry, None, settings, When::Then(recorded), who) {
        Recalled::Decided(judged) => judged,
        Recalled::Not(why) => return Replayed::Unknown(why),
    };
    let mut all = judged.iter().map(|judgement| compare(entry, judgement));
    match (all.next(), all.next()) {
        (Some(only), None) => only,
        // A record of an older version.
        (Some(first), Some(second)) if first == second => first,
        _ => Replayed::Unknown("whether it was an upgrade or a gRPC call is not recorded".to_owned()),
    }
}

fn compare(entry: &Decision, now: &Judgement) -> Replayed {
    let Some(allowed) = now.allowed else { return Replayed::Unknown(now.reason.clone()) };
    let limit = entry.basis.as_ref().and_then(|basis| basis.limit.as_ref());
    let was = match (entry.verdict, entry.observed) {
        (Verdict::Allow, false) => "allow",
        (Verdict::Allow, true) => "observe",
        (Verdict::Deny, _) => "deny",
    };
    let is = match (allowed, now.observed) {
        (true, false) => "allow",
        (true, true) => "observe",
        (false, _) => "deny",
    };
    let otherwise = |change: String| {
        let credential = |name: &Option<String>| name.clone();
        Replayed::Otherwise(Otherwise {
            change,
            then: Told {
                identity: entry.identity.clone(),
                rule: by(entry.rule.as_ref(), entry.refusal.as_deref()),
                credential: credential(&entry.credential),
            },
            now: Told {
                identity: now.identity.clone(),
                rule: by(now.rule.as_ref(), now.refusal),
                credential: credential(&now.credential),
            },
        })
    };
    let same = Replayed::Same { other_limits: false };
    match (was, is, entry.refusal.as_deref()) {
        ("deny", "deny", _) => same,
        // The policy allowed it, and a limit would not have, had anything been denied.
        ("observe", "allow", _) if limit.is_some_and(|limit| now.limits.contains(limit)) => same,
        // The policy allowed it, and a limit, the upstream or the credential did not.
        ("deny", _, Some("limit-exceeded")) => match limit {
            // The upstream asked for a pause.
            None => same,
            Some(limit) if now.limits.contains(limit) => same,
            Some(_) if now.limits.is_empty() => otherwise(format!("deny -> {is}")),
            Some(limit) => Replayed::Unknown(format!(
                "the limit that refused it ({limit}) is not there, and whether another one would refuse it is not judged"
            )),
        },
        ("deny", _, Some("credential-unavailable")) => {
            match (same_rule(entry.rule.as_ref(), now.rule.as_ref()), &now.credential) {
                (_, None) => otherwise(format!("deny -> {is}")),
                (true, Some(_)) => same,
                (false, Some(_)) => Replayed::Unknown(
                    "its credential was not to be had then, and whether the one of another rule was is not recorded"
                        .to_owned(),
                ),
            }
        }
        ("deny", _, None) => Replayed::Unknown(
            "it was refused, and this record of an older version does not say whether by the policy"
                .to_owned(),
        ),
        (was, is, _) if was != is => otherwise(format!("{was} -> {is}")),
        _ if entry.identity != now.identity => otherwise("other identity".to_owned()),
        _ if entry.credential != now.credential => otherwise("other credential".to_owned()),
        _ if !same_rule(entry.rule.as_ref(), now.rule.as_ref()) => otherwise("other rule".to_owned()),
        _ => {
            let then = entry.basis.as_ref().map(|basis| basis.limits.as_slice()).unwrap_or_default();
            Replayed::Same { other_limits: now.limits.iter().any(|limit| !then.contains(limit)) }
        }
    }
}

/// Whether it is the same rule, wherever in its file.
fn same_rule(then: Option<&Rule>, now: Option<&Rule>) -> bool {
    let name = |rule: Option<&Rule>| rule.map(|rule| (rule.file.clone(), rule.text.clone()));
    name(then) == name(now)
}

fn by(rule: Option<&Rule>, refusal: Option<&str>) -> String {
    match (rule, refusal) {
        (Some(rule), _) => format!("\"{}\" ({}:{})", rule.text, rule.file, rule.line),
        (None, Some(refusal)) => refusal.to_owned(),
        (None, None) => "no rule".to_owned(),
    }
}

#[cfg(test)]
#[path = "replay_tests.rs"]
mod tests;
