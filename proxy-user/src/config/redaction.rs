//! `[journal]`: which values of requests are told apart in the journal, by fingerprints under a key of this host.

use http::HeaderName;
use http::header::{AUTHORIZATION, COOKIE, PROXY_AUTHORIZATION, SET_COOKIE};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};

/// Names in one list, at most: each of them may cost a fingerprint for each call.
const MOST: usize = 16;

/// The parameters of queries whose values are told apart.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum QueryNames {
    /// None.
    #[default]
    None,
    /// All, as far as a record has room for them.
    All,
    /// Those with these names, decoded.
    Some(Vec<String>),
}

impl<'de> Deserialize<'de> for QueryNames {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Written {
            Word(String),
            Names(Vec<String>),
        }
        let help = "write names of parameters, [\"account\"], or \"all\"";
        match Written::deserialize(deserializer).map_err(|_| D::Error::custom(help))? {
            Written::Word(word) if word == "all" => Ok(Self::All),
            Written::Word(word) => Err(D::Error::custom(format!("{word:?} is no list: {help}"))),
            Written::Names(names) if names.len() > MOST => {
                Err(D::Error::custom(format!("more than {MOST} names; write \"all\"")))
            }
            Written::Names(names) if names.is_empty() => Ok(Self::None),
            Written::Names(names) => Ok(Self::Some(names)),
        }
    }
}

/// Names of headers whose values are told apart; never one that carries credentials.
pub(super) fn header_names<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<HeaderName>, D::Error> {
    let texts = Vec::<String>::deserialize(deserializer)?;
    if texts.len() > MOST {
        return Err(D::Error::custom(format!("more than {MOST} names")));
    }
    let parse = |text: &String| {
        let name = HeaderName::from_bytes(text.to_ascii_lowercase().as_bytes())
            .map_err(|_| D::Error::custom(format!("{text:?} is no name of a header")))?;
        if [AUTHORIZATION, PROXY_AUTHORIZATION, COOKIE, SET_COOKIE].contains(&name) {
            let why =
                format!("{name} carries credentials: nothing of it is recorded, not even a fingerprint");
            return Err(D::Error::custom(why));
        }
        Ok(name)
    };
    texts.iter().map(parse).collect()
}
