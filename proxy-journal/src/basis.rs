//! What a decision was taken on, besides what it says of the call: enough for the same evaluator to take it again.
//!
//! Values of headers, query and body are not here, in no form. Of the conditions that looked at them there is what they came to.

use std::borrow::Cow;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// What the policy was asked, and when. What is usual is left out of the JSON.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Basis {
    /// What it was asked for.
    pub of: Question,
    /// The moment for which it was asked, in seconds since 1970.
    pub now: i64,
    /// What the request was besides; absent: nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<RequestKind>,
    /// Position, from 0, of the grant that allowed it, among those of the identity.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grant: Option<u32>,
    /// What the conditions came to that looked at headers, query or body; in the order in which they were asked.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
    /// The limits that were asked: whose, and which, as `identity bot: 60/min`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub limits: Vec<Arc<str>>,
    /// The one of them that refused it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<Arc<str>>,
    /// The identities that matched the workload, where there are several: then it has none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub several: Vec<String>,
    /// The host lets workloads without an identity through where no API is called (`unidentified = "pass"`).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unidentified_pass: bool,
    /// The host denied nothing by policy (`mode = "observe"`).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub host_observes: bool,
    /// The destination is a DNS resolver of the host.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub resolver: bool,
    /// The path is longer than what is recorded of it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub path_cut: bool,
}

/// What a policy is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Question {
    /// One request.
    #[default]
    Call,
    /// A connection to a host that no API names, or whose protocol is not known.
    Passage,
    /// A connection to the host of an API that is not looked into.
    Whole,
    /// Traffic past the proxy.
    Network,
}

/// What a request is besides a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RequestKind {
    /// A gRPC call.
    Grpc,
    /// The upgrade to a WebSocket.
    Websocket,
}

/// What a condition came to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Condition {
    /// Where it stands: `policies/bot.toml:12`.
    pub at: String,
    /// Names it with all that it was given besides the call, in 16 hexadecimal digits.
    pub key: String,
    /// Whether it holds.
    pub held: Held,
}

/// Whether a condition holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Held {
    /// It does, or it does not.
    Is(bool),
    /// It could not be evaluated: a word for why.
    Fault(Cow<'static, str>),
}

/// A value of a request, told apart from others without telling it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fingerprint {
    /// The part of the request: `header x-request-id`, `query account`.
    pub place: String,
    /// The first 12 bytes of an HMAC-SHA-256 under a key that never leaves this host, in hexadecimal digits.
    pub fingerprint: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_usual_basis_takes_few_bytes_and_every_one_comes_back_as_it_was() {
        let usual = Basis { now: 1_764_432_956, ..Basis::default() };
        assert_eq!(serde_json::to_string(&usual).unwrap(), r#"{"of":"call","now":1764432956}"#);
        let whole = Basis {
            of: Question::Network,
            now: -1,
            kind: Some(RequestKind::Websocket),
            grant: Some(3),
            conditions: vec![
                Condition { at: "policies/a.toml:2".into(), key: "0123".into(), held: Held::Is(false) },
                Condition { at: "b".into(), key: "4".into(), held: Held::Fault("missing".into()) },
            ],
            limits: vec!["identity bot: 60/min".into()],
            limit: Some("identity bot: 60/min".into()),
            several: vec!["one".into(), "two".into()],
            unidentified_pass: true,
            host_observes: true,
            resolver: true,
            path_cut: true,
        };
        for basis in [usual, whole] {
            let text = serde_json::to_string(&basis).unwrap();
            assert_eq!(serde_json::from_str::<Basis>(&text).unwrap(), basis, "{text}");
        }
    }
}
