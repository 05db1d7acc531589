//! What people say of a secret: labels and an owner. Nothing secret, and sealed with it all the same.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use super::known;

/// How many labels a secret may have.
pub(super) const MAX_LABELS: usize = 16;
/// How many bytes the name of a label may have.
const MAX_NAME_BYTES: usize = 63;
/// How many bytes the value of a label and an owner may have; they have at least one.
const MAX_TEXT_BYTES: usize = 128;

/// Labels by name, and who answers for the secret.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct About {
    labels: BTreeMap<String, String>,
    owner: Option<String>,
}

/// What was given is no label. The text is not repeated: it may be a secret in the wrong place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AboutError {
    /// No `=`, or a name that is none.
    #[error(
        "this is not a label; a label is NAME=VALUE, as in team=billing: the name has 1 to 63 characters out of a-z 0-9 . _ / - and \
         starts with a letter or a digit"
    )]
    NotALabel,
    /// The value or the owner is too long, or has control characters.
    #[error(
        "this is not the value of a label or an owner: they have 1 to 128 bytes, without control characters"
    )]
    NotAText,
    /// It looks like a key.
    #[error(
        "labels and owners are shown to whoever may list secrets, and this looks like a key: the value of a secret comes from standard \
         input alone. It may have been seen already (ps, the shell's history): consider replacing it"
    )]
    Secret,
    /// There would be more labels than a secret may have.
    #[error("a secret has at most 16 labels; take one away with NAME=")]
    TooMany,
}

/// A label as it is given: `team=billing`; with an empty value, the label is taken away.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Label {
    name: String,
    value: String,
}

/// An owner as it is given: any short text, such as an address; empty, there is none any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner(String);

impl About {
    /// What was written before.
    ///
    /// # Errors
    /// It is not what [`About::change`] makes.
    pub(super) fn of(labels: BTreeMap<String, String>, owner: Option<String>) -> Result<Self, AboutError> {
        if labels.len() > MAX_LABELS {
            return Err(AboutError::TooMany);
        }
        if !labels.keys().all(|name| is_name(name)) {
            return Err(AboutError::NotALabel);
        }
        match labels.values().chain(&owner).all(|text| is_text(text)) {
            true => Ok(Self { labels, owner }),
            false => Err(AboutError::NotAText),
        }
    }

    /// Takes up labels and an owner; what they do not name stays.
    ///
    /// # Errors
    /// [`AboutError::TooMany`]; then it is half changed.
    pub fn change(&mut self, labels: &[Label], owner: Option<&Owner>) -> Result<(), AboutError> {
        for Label { name, value } in labels {
            match value.is_empty() {
                true => drop(self.labels.remove(name)),
                false => drop(self.labels.insert(name.clone(), value.clone())),
            }
        }
        if let Some(Owner(owner)) = owner {
            self.owner = (!owner.is_empty()).then(|| owner.clone());
        }
        match self.labels.len() > MAX_LABELS {
            true => Err(AboutError::TooMany),
            false => Ok(()),
        }
    }

    /// Whether it has all of these; one with an empty value is one that it must not have.
    #[must_use]
    pub fn has(&self, wanted: &[Label]) -> bool {
        wanted.iter().all(|label| self.labels.get(&label.name).map_or("", String::as_str) == label.value)
    }

    /// Names and values.
    #[must_use]
    pub fn labels(&self) -> &BTreeMap<String, String> {
        &self.labels
    }

    /// Who answers for the secret.
    #[must_use]
    pub fn owner(&self) -> Option<&str> {
        self.owner.as_deref()
    }

    /// Whether nothing is said.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty() && self.owner.is_none()
    }
}

fn is_name(name: &str) -> bool {
    let plain = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    name.as_bytes().first().is_some_and(plain)
        && name.len() <= MAX_NAME_BYTES
        && name.bytes().all(|byte| plain(&byte) || b"._/-".contains(&byte))
}

fn is_text(text: &str) -> bool {
    (1..=MAX_TEXT_BYTES).contains(&text.len()) && !text.chars().any(char::is_control)
}

/// An empty text, or one that may be kept.
fn text(given: &str) -> Result<String, AboutError> {
    match given {
        "" => Ok(String::new()),
        given if !is_text(given) => Err(AboutError::NotAText),
        given if known::is_token(given.as_bytes()) => Err(AboutError::Secret),
        given => Ok(given.to_owned()),
    }
}

impl FromStr for Label {
    type Err = AboutError;

    fn from_str(given: &str) -> Result<Self, AboutError> {
        let (name, value) = given.split_once('=').ok_or(AboutError::NotALabel)?;
        if !is_name(name) {
            return Err(AboutError::NotALabel);
        }
        Ok(Self { name: name.to_owned(), value: text(value)? })
    }
}

impl FromStr for Owner {
    type Err = AboutError;

    fn from_str(given: &str) -> Result<Self, AboutError> {
        text(given).map(Self)
    }
}

/// `team=billing stage=live`
impl fmt::Display for About {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, (name, value)) in self.labels.iter().enumerate() {
            write!(f, "{}{name}={value}", if number > 0 { " " } else { "" })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(all: &[&str]) -> Vec<Label> {
        all.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn labels_are_set_kept_replaced_and_taken_away() {
        let mut about = About::default();
        about
            .change(&labels(&["team=billing", "stage=live=x"]), Some(&"a@example.com".parse().unwrap()))
            .unwrap();
        about.change(&labels(&["team=ops"]), None).unwrap();
        assert_eq!(
            (about.to_string().as_str(), about.owner()),
            ("stage=live=x team=ops", Some("a@example.com"))
        );
        assert!(about.has(&labels(&["team=ops"])) && about.has(&labels(&["other="])) && about.has(&[]));
        assert!(!about.has(&labels(&["team=billing"])) && !about.has(&labels(&["team="])));
        about.change(&labels(&["team=", "stage="]), Some(&"".parse().unwrap())).unwrap();
        assert!(about.is_empty());
        for number in 0..MAX_LABELS {
            about.change(&labels(&[&format!("n{number}=1")]), None).unwrap();
        }
        assert_eq!(about.clone().change(&labels(&["one-more=1"]), None), Err(AboutError::TooMany));
        about.change(&labels(&["n0=", "one-more=1"]), None).unwrap();
    }

    #[test]
    fn what_is_no_label_is_refused_and_not_repeated() {
        for given in
            ["", "team", "=x", "Team=x", "a b=x", "-a=x", "t\u{e9}am=x", &format!("{}=x", "a".repeat(64))]
        {
            assert_eq!(given.parse::<Label>(), Err(AboutError::NotALabel), "{given}");
        }
        for given in ["team=a\nb", "team=a\u{1b}[2J", &format!("team={}", "x".repeat(129))] {
            assert_eq!(given.parse::<Label>(), Err(AboutError::NotAText), "{given}");
        }
        let key = "sk_live_0123456789abcdefghijCANARY";
        for refused in [
            format!("team={key}").parse::<Label>().unwrap_err(),
            key.parse::<Owner>().unwrap_err(),
            key.parse::<Label>().unwrap_err(),
        ] {
            assert!(!format!("{refused} {refused:?}").contains("CANARY"));
        }
    }
}
