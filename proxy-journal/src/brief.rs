//! The part of a record by which calls are looked for, as it stands in a line.

use std::borrow::Cow;

use serde::Deserialize;

use crate::verify::Fault;

/// Text of a line, not copied where it can be shown as it stands.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(transparent)]
pub(crate) struct Text<'a>(#[serde(borrow)] pub(crate) Cow<'a, str>);

/// The part of a record that matters here; what it does not have stays empty.
#[derive(Debug, PartialEq, Deserialize)]
pub(crate) struct Brief<'a> {
    #[serde(borrow)]
    pub(crate) kind: Text<'a>,
    #[serde(borrow)]
    pub(crate) id: Option<Text<'a>>,
    #[serde(borrow)]
    pub(crate) identity: Option<Text<'a>>,
    #[serde(borrow)]
    pub(crate) api: Option<Text<'a>>,
    #[serde(borrow)]
    pub(crate) host: Option<Text<'a>>,
    #[serde(borrow)]
    pub(crate) method: Option<Text<'a>>,
    #[serde(borrow)]
    pub(crate) path: Option<Text<'a>>,
    #[serde(borrow)]
    pub(crate) reason: Option<Text<'a>>,
    #[serde(borrow)]
    pub(crate) credential: Option<Text<'a>>,
    #[serde(borrow)]
    pub(crate) verdict: Option<Text<'a>>,
    #[serde(default)]
    pub(crate) observed: bool,
    #[serde(borrow)]
    pub(crate) rule: Option<BriefRule<'a>>,
    #[serde(borrow)]
    pub(crate) workload: Option<BriefWorkload<'a>>,
    pub(crate) status: Option<u16>,
    #[serde(default)]
    pub(crate) bytes_sent: u64,
    #[serde(default)]
    pub(crate) bytes_received: u64,
    pub(crate) duration_us: Option<u64>,
    pub(crate) error: Option<serde::de::IgnoredAny>,
    #[serde(default)]
    pub(crate) interrupted: bool,
}

#[derive(Debug, PartialEq, Deserialize)]
pub(crate) struct BriefRule<'a> {
    #[serde(borrow)]
    pub(crate) file: Text<'a>,
    pub(crate) line: u32,
}

#[derive(Debug, PartialEq, Deserialize)]
pub(crate) struct BriefWorkload<'a> {
    #[serde(borrow)]
    pub(crate) unit: Option<Text<'a>>,
    #[serde(borrow)]
    pub(crate) exe: Option<Text<'a>>,
    pub(crate) uid: Option<u32>,
    pub(crate) pid: Option<u32>,
}

/// Every line has a kind, also one whose other fields are of another version.
#[derive(Deserialize)]
struct Kind<'a> {
    #[serde(borrow)]
    kind: Text<'a>,
}

impl<'a> Brief<'a> {
    /// Of a line in any spelling.
    pub(crate) fn parse(line: &'a str) -> Result<Brief<'a>, Fault> {
        serde_json::from_str(line).or_else(|_| {
            let Kind { kind } = serde_json::from_str(line).map_err(|_| Fault::Json)?;
            Ok(Brief::of_kind(kind.0))
        })
    }

    pub(crate) fn of_kind(kind: Cow<'a, str>) -> Brief<'a> {
        Brief {
            kind: Text(kind),
            id: None,
            identity: None,
            api: None,
            host: None,
            method: None,
            path: None,
            reason: None,
            credential: None,
            verdict: None,
            observed: false,
            rule: None,
            workload: None,
            status: None,
            bytes_sent: 0,
            bytes_received: 0,
            duration_us: None,
            error: None,
            interrupted: false,
        }
    }
}
