//! Texts with places for what is known of a call, as in `subject = "spiffe://example.org/{identity}"`.

use crate::diagnostic::Problem;

/// What a text can have a place for: what the kernel captured, what the policy names, and the host that was decided on.
/// Labels (a path, a command line) are none of them: whoever reads a token believes what is in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Variable {
    /// The name of the identity.
    Identity,
    /// The name of the API.
    Api,
    /// The host that is called.
    Host,
    /// The real user id of the workload.
    WorkloadUid,
    /// The real group id of the workload.
    WorkloadGid,
    /// The systemd unit of the workload.
    WorkloadUnit,
}

impl Variable {
    const ALL: [Self; 6] =
        [Self::Identity, Self::Api, Self::Host, Self::WorkloadUid, Self::WorkloadGid, Self::WorkloadUnit];

    /// As in a text, without the braces.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Identity => "identity",
            Self::Api => "api",
            Self::Host => "host",
            Self::WorkloadUid => "workload.uid",
            Self::WorkloadGid => "workload.gid",
            Self::WorkloadUnit => "workload.unit",
        }
    }
}

/// A text with places in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClaimText {
    parts: Vec<Part>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(String),
    Place(Variable),
}

impl ClaimText {
    /// A text that is one place.
    #[must_use]
    pub fn of(variable: Variable) -> Self {
        Self { parts: vec![Part::Place(variable)] }
    }

    /// Reads one; braces only stand around a variable.
    ///
    /// # Errors
    /// What stands in braces is not known, or a brace has no partner.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once('{') {
            let unbalanced = || "a { without its }".to_owned();
            let (name, after) = after.split_once('}').ok_or_else(unbalanced)?;
            if before.contains('}') {
                return Err("a } without its {".to_owned());
            }
            if !before.is_empty() {
                parts.push(Part::Text(before.to_owned()));
            }
            let known = Variable::ALL.into_iter().find(|variable| variable.as_str() == name);
            parts.push(Part::Place(known.ok_or_else(|| unknown(name))?));
            rest = after;
        }
        if rest.contains('}') {
            return Err("a } without its {".to_owned());
        }
        if !rest.is_empty() {
            parts.push(Part::Text(rest.to_owned()));
        }
        match parts.is_empty() {
            true => Err("it is empty".to_owned()),
            false => Ok(Self { parts }),
        }
    }

    pub(crate) fn read(text: &str) -> Result<Self, Problem> {
        let names: Vec<String> = Variable::ALL.iter().map(|it| format!("{{{}}}", it.as_str())).collect();
        let help = format!("known: {}", names.join(", "));
        Self::parse(text).map_err(|what| Problem::new(format!("this text has {what}"), help))
    }

    /// The places in it, in their order.
    pub fn variables(&self) -> impl Iterator<Item = Variable> + '_ {
        self.parts.iter().filter_map(|part| match part {
            Part::Text(_) => None,
            Part::Place(variable) => Some(*variable),
        })
    }

    /// The text with its places filled in; `None` when one of them has nothing.
    pub fn fill<'v>(&self, value: impl Fn(Variable) -> Option<&'v str>) -> Option<String> {
        let mut filled = String::new();
        for part in &self.parts {
            filled.push_str(match part {
                Part::Text(text) => text,
                Part::Place(variable) => value(*variable)?,
            });
        }
        Some(filled)
    }
}

fn unknown(name: &str) -> String {
    match name {
        "workload.exe" | "workload.script" | "workload.comm" => {
            "a place for what is a label and proves nothing".to_owned()
        }
        // Not repeated: nothing that stands in a credential is.
        _ => "a place for something that is not known".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_filled_in_and_the_rest_stays() {
        let text = ClaimText::parse("spiffe://a.test/{identity}/{workload.uid}").unwrap();
        assert_eq!(text.variables().collect::<Vec<_>>(), [Variable::Identity, Variable::WorkloadUid]);
        let value = |variable| match variable {
            Variable::Identity => Some("bot"),
            Variable::WorkloadUid => Some("1000"),
            _ => None,
        };
        assert_eq!(text.fill(value).as_deref(), Some("spiffe://a.test/bot/1000"));
        assert_eq!(ClaimText::parse("{workload.unit}").unwrap().fill(value), None, "there is none");
    }

    #[test]
    fn what_is_filled_in_is_not_read_again() {
        let text = ClaimText::parse("{identity}").unwrap();
        assert_eq!(text.fill(|_| Some("{api}")).as_deref(), Some("{api}"));
    }

    #[test]
    fn labels_what_is_not_known_and_lone_braces_are_refused() {
        for (text, says) in [
            ("{workload.exe}", "label"),
            ("{workload.pid}", "not known"),
            ("{identity", "without its }"),
            ("identity}", "without its {"),
            ("a}{identity}", "without its {"),
            ("", "empty"),
        ] {
            let error = ClaimText::parse(text).unwrap_err();
            assert!(error.contains(says), "{text}: {error}");
        }
    }
}
