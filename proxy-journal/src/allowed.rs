//! The two records of a call that goes on, spelled from what its decision borrows: nothing of them is copied first, and what every call of
//! a rule says is spelled once.
//!
//! What is written is byte for byte what [`Decision`] and [`Outcome`] spell of themselves (the tests hold them against each other).

use std::borrow::Cow;
use std::io::Write as _;
use std::net::SocketAddr;
use std::sync::OnceLock;

use serde::Serialize;
use serde_json::value::RawValue;
use uuid::Uuid;

use crate::basis::{Basis, Fingerprint};
use crate::record::{Decision, Outcome, Rule, Verdict};
use crate::text::SafeJson;
use crate::text::spell;
use crate::workload::Workload;

/// Why a call goes on. Calls share it that go on by the same rule.
#[derive(Debug, Default)]
pub struct Why {
    rule: Option<Rule>,
    reason: String,
    /// Both, as they stand in a record.
    json: OnceLock<Box<[u8]>>,
}

impl Why {
    /// By a rule, or without one; and why, in words.
    #[must_use]
    pub fn new(rule: Option<Rule>, reason: String) -> Self {
        Self { rule, reason, json: OnceLock::new() }
    }

    /// The rule that decided.
    #[must_use]
    pub fn rule(&self) -> Option<&Rule> {
        self.rule.as_ref()
    }

    /// Why, in words.
    #[must_use]
    pub fn reason(&self) -> &str {
        &self.reason
    }

    fn json(&self) -> &[u8] {
        self.json.get_or_init(|| {
            let mut out = Vec::new();
            if let Some(rule) = &self.rule {
                key(&mut out, "rule");
                serde(&mut out, rule);
            }
            text(&mut out, "reason", Some(&self.reason));
            out.into()
        })
    }
}

/// The decision that a call goes on, borrowed from whoever took it. The fields are those of [`Decision`].
#[derive(Debug, Clone)]
#[allow(missing_docs, reason = "they are told there")]
pub struct Allowed<'a> {
    pub id: Uuid,
    /// As [`told`] tells it.
    pub workload: Cow<'a, RawValue>,
    pub identity: Option<&'a str>,
    pub dst: SocketAddr,
    pub proxy: Option<SocketAddr>,
    pub scheme: Option<&'a str>,
    pub api: Option<&'a str>,
    pub host: Option<&'a str>,
    pub port: Option<u16>,
    pub method: Option<&'a str>,
    pub path: Option<&'a str>,
    pub has_query: bool,
    pub observed: bool,
    /// The rule, and the reason.
    pub why: &'a Why,
    pub credential: Option<&'a str>,
    pub basis: &'a Basis,
    /// Of the basis.
    pub several: &'a [String],
    pub fingerprints: Vec<Fingerprint>,
    pub capture: Option<u64>,
    pub generation: u64,
}

/// A workload as it stands in a record: what is kept of it with a connection, for every call.
#[must_use]
pub fn told(workload: &Workload) -> Box<RawValue> {
    let spelled = spell(workload);
    debug_assert!(spelled.is_ok(), "{spelled:?}");
    spelled.unwrap_or_else(|_| RawValue::NULL.to_owned())
}

impl Allowed<'_> {
    /// The same by itself.
    ///
    /// # Errors
    /// The workload is not one.
    pub fn to_decision(&self) -> serde_json::Result<Decision> {
        let owned = |text: Option<&str>| text.map(str::to_owned);
        Ok(Decision {
            id: self.id,
            workload: serde_json::from_str(self.workload.get())?,
            identity: owned(self.identity),
            dst: self.dst,
            proxy: self.proxy,
            scheme: owned(self.scheme),
            api: owned(self.api),
            host: owned(self.host),
            port: self.port,
            ech: false,
            method: owned(self.method),
            path: owned(self.path),
            has_query: self.has_query,
            verdict: Verdict::Allow,
            observed: self.observed,
            rule: self.why.rule.clone(),
            reason: self.why.reason.clone(),
            credential: owned(self.credential),
            mistrust: None,
            refusal: None,
            basis: Some(Box::new(Basis { several: self.several.to_vec(), ..self.basis.clone() })),
            fingerprints: self.fingerprints.clone(),
            capture: self.capture,
            generation: self.generation,
        })
    }

    /// Adds it, from its kind on and without its last brace, as a record is spelled.
    pub(crate) fn spell(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b",\"kind\":\"decision\",\"id\":\"");
        id(out, self.id);
        out.extend_from_slice(b"\",\"workload\":");
        out.extend_from_slice(self.workload.get().as_bytes());
        text(out, "identity", self.identity);
        address(out, "dst", Some(self.dst));
        address(out, "proxy", self.proxy);
        text(out, "scheme", self.scheme);
        text(out, "api", self.api);
        text(out, "host", self.host);
        number(out, "port", self.port.map(u64::from));
        text(out, "method", self.method);
        text(out, "path", self.path);
        out.extend_from_slice(match self.has_query {
            true => b",\"has_query\":true,\"verdict\":\"allow\"".as_slice(),
            false => b",\"has_query\":false,\"verdict\":\"allow\"",
        });
        flag(out, "observed", self.observed);
        out.extend_from_slice(self.why.json());
        text(out, "credential", self.credential);
        key(out, "basis");
        self.spell_basis(out);
        if !self.fingerprints.is_empty() {
            key(out, "fingerprints");
            serde(out, &self.fingerprints);
        }
        number(out, "capture", self.capture);
        number(out, "generation", Some(self.generation));
    }

    fn spell_basis(&self, out: &mut Vec<u8>) {
        let Basis { of, now, kind, grant, conditions, limits, limit, several, .. } = self.basis;
        let Basis { unidentified_pass, host_observes, resolver, path_cut, .. } = *self.basis;
        out.extend_from_slice(b"{\"of\":");
        serde(out, of);
        key(out, "now");
        match u64::try_from(*now) {
            Ok(now) => digits(out, now),
            Err(_) => serde(out, now),
        }
        if let Some(kind) = kind {
            key(out, "kind");
            serde(out, kind);
        }
        number(out, "grant", grant.map(u64::from));
        if !conditions.is_empty() {
            key(out, "conditions");
            serde(out, conditions);
        }
        if !limits.is_empty() {
            key(out, "limits");
            serde(out, limits);
        }
        text(out, "limit", limit.as_deref());
        debug_assert!(several.is_empty(), "they are told beside it");
        if !self.several.is_empty() {
            key(out, "several");
            serde(out, self.several);
        }
        flag(out, "unidentified_pass", unidentified_pass);
        flag(out, "host_observes", host_observes);
        flag(out, "resolver", resolver);
        flag(out, "path_cut", path_cut);
        out.push(b'}');
    }
}

/// Adds an outcome in the same way.
pub(crate) fn spell_outcome(out: &mut Vec<u8>, outcome: &Outcome) {
    out.extend_from_slice(b",\"kind\":\"outcome\",\"id\":\"");
    id(out, outcome.id);
    out.push(b'"');
    number(out, "status", outcome.status.map(u64::from));
    number(out, "bytes_sent", Some(outcome.bytes_sent));
    number(out, "bytes_received", Some(outcome.bytes_received));
    number(out, "duration_us", Some(outcome.duration_us));
    number(out, "ttfb_us", outcome.ttfb_us);
    address(out, "upstream", outcome.upstream);
    text(out, "proxied", outcome.proxied.as_deref());
    text(out, "error", outcome.error.as_deref());
    if let Some(blame) = outcome.blame {
        key(out, "blame");
        serde(out, &blame);
    }
    out.extend_from_slice(match outcome.interrupted {
        true => b",\"interrupted\":true".as_slice(),
        false => b",\"interrupted\":false",
    });
    if !outcome.removed.is_empty() {
        key(out, "removed");
        serde(out, &outcome.removed);
    }
    flag(out, "reflected", outcome.reflected);
    flag(out, "repeated", outcome.repeated);
    flag(out, "answered", outcome.answered);
    if !outcome.captures.is_empty() {
        key(out, "captures");
        serde(out, &outcome.captures);
    }
}

fn key(out: &mut Vec<u8>, name: &str) {
    out.extend_from_slice(b",\"");
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"\":");
}

fn flag(out: &mut Vec<u8>, name: &str, is_set: bool) {
    if is_set {
        key(out, name);
        out.extend_from_slice(b"true");
    }
}

fn number(out: &mut Vec<u8>, name: &str, value: Option<u64>) {
    if let Some(value) = value {
        key(out, name);
        digits(out, value);
    }
}

fn text(out: &mut Vec<u8>, name: &str, value: Option<&str>) {
    let Some(value) = value else { return };
    key(out, name);
    // What nearly every text is: letters that stand for themselves.
    match value.bytes().all(|byte| matches!(byte, b' '..=b'~') && byte != b'"' && byte != b'\\') {
        true => {
            out.push(b'"');
            out.extend_from_slice(value.as_bytes());
            out.push(b'"');
        }
        false => serde(out, value),
    }
}

fn address(out: &mut Vec<u8>, name: &str, value: Option<SocketAddr>) {
    let Some(value) = value else { return };
    key(out, name);
    out.push(b'"');
    match value {
        SocketAddr::V4(value) => {
            let [first, rest @ ..] = value.ip().octets();
            digits(out, first.into());
            for octet in rest {
                out.push(b'.');
                digits(out, octet.into());
            }
            out.push(b':');
            digits(out, value.port().into());
        }
        // Writing into a Vec does not fail.
        SocketAddr::V6(value) => drop(write!(out, "{value}")),
    }
    out.push(b'"');
}

fn id(out: &mut Vec<u8>, id: Uuid) {
    let mut room = Uuid::encode_buffer();
    out.extend_from_slice(id.as_hyphenated().encode_lower(&mut room).as_bytes());
}

fn digits(out: &mut Vec<u8>, mut value: u64) {
    let mut room = [0; 20];
    let mut from = room.len();
    loop {
        from -= 1;
        if let (Some(place), Ok(digit)) = (room.get_mut(from), u8::try_from(value % 10)) {
            *place = b'0' + digit;
        }
        value /= 10;
        if value == 0 {
            break;
        }
    }
    out.extend_from_slice(room.get(from..).unwrap_or_default());
}

/// As its type spells it. What a record is made of cannot fail at that.
fn serde<T: Serialize + ?Sized>(out: &mut Vec<u8>, value: &T) {
    let spelled = value.serialize(&mut serde_json::Serializer::with_formatter(&mut *out, SafeJson));
    debug_assert!(spelled.is_ok(), "{spelled:?}");
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::collection::vec;
    use proptest::option;
    use proptest::prelude::*;

    use super::*;
    use crate::basis::{Condition, Held, Question, RequestKind};
    use crate::capture::{Capture, CaptureEnd, Part};
    use crate::record::{Blame, Record, RemovedCredential};

    fn spelled(record: &Record) -> String {
        let mut out = Vec::new();
        record.serialize(&mut serde_json::Serializer::with_formatter(&mut out, SafeJson)).unwrap();
        String::from_utf8(out).unwrap()
    }

    fn whole(mut out: Vec<u8>) -> String {
        out[0] = b'{';
        out.push(b'}');
        String::from_utf8(out).unwrap()
    }

    fn any_text() -> impl Strategy<Value = String> {
        prop_oneof!["[a-z/.]{0,12}", "\\PC{0,8}", ".{0,8}", Just("a\"b\\c\u{202e}\n".to_owned())]
    }

    fn any_address() -> impl Strategy<Value = SocketAddr> {
        any::<([u8; 4], u16, bool, [u16; 8])>().prop_map(|(v4, port, is_v4, v6)| match is_v4 {
            true => (v4, port).into(),
            false => (v6, port).into(),
        })
    }

    fn any_basis() -> impl Strategy<Value = Basis> {
        let words = (vec(any_text(), 0..2), vec(any_text(), 0..2), option::of(any_text()));
        (any::<(i64, Option<u32>, [bool; 4], u8)>(), words).prop_map(|((now, grant, flags, kind), words)| {
            let (conditions, limits, limit) = words;
            let condition = |at: String| Condition {
                key: at.clone(),
                held: if at.len() > 3 { Held::Is(true) } else { Held::Fault("missing".into()) },
                at,
            };
            Basis {
                of: Question::Call,
                now,
                kind: [None, Some(RequestKind::Grpc), Some(RequestKind::Websocket)][usize::from(kind % 3)],
                grant,
                conditions: conditions.into_iter().map(condition).collect(),
                limits: limits.into_iter().map(Arc::from).collect(),
                limit: limit.map(Arc::from),
                several: Vec::new(),
                unidentified_pass: flags[0],
                host_observes: flags[1],
                resolver: flags[2],
                path_cut: flags[3],
            }
        })
    }

    proptest! {
        #[test]
        fn a_decision_is_spelled_as_its_type_spells_it(
            texts in vec(option::of(any_text()), 7),
            more in (any_text(), option::of(any_text()), vec(any_text(), 0..2), vec(any_text(), 0..2)),
            (dst, proxy, basis) in (any_address(), option::of(any_address()), any_basis()),
            (id, port, flags, capture, generation, line) in any::<(u128, Option<u16>, [bool; 3], Option<u64>, u64, u32)>(),
        ) {
            let at = |place: usize| texts[place].as_deref();
            let (reason, rule, several, places) = more;
            let rule = rule.map(|text| Rule { file: text.clone(), line, text });
            let why = Why::new(rule, reason);
            let workload = told(&Workload { pid: 7, comm: at(0).unwrap_or("x").to_owned(), ..Workload::default() });
            let workload = if flags[2] { Cow::Borrowed(&*workload) } else { Cow::Owned(workload.clone()) };
            let fingerprint = |place: String| Fingerprint { fingerprint: place.clone(), place };
            let allowed = Allowed {
                id: Uuid::from_u128(id),
                workload,
                identity: at(0),
                dst,
                proxy,
                scheme: at(1),
                api: at(2),
                host: at(3),
                port,
                method: at(4),
                path: at(5),
                has_query: flags[0],
                observed: flags[1],
                why: &why,
                credential: at(6),
                basis: &basis,
                several: &several,
                fingerprints: places.into_iter().map(fingerprint).collect(),
                capture,
                generation,
            };
            let record = Record::Decision(Arc::new(allowed.to_decision().unwrap()));
            // Twice: what is spelled once is the same the second time.
            for _ in 0..2 {
                let mut out = Vec::new();
                allowed.spell(&mut out);
                prop_assert_eq!(whole(out), spelled(&record));
            }
        }

        #[test]
        fn an_outcome_is_spelled_as_its_type_spells_it(
            (id, status, numbers, ttfb_us, flags) in any::<(u128, Option<u16>, [u64; 3], Option<u64>, [bool; 4])>(),
            (upstream, proxied, error) in (option::of(any_address()), option::of(any_text()), option::of(any_text())),
            (removed, captures, blame) in (vec(any_text(), 0..2), vec(any_text(), 0..2), 0_usize..6),
        ) {
            let blames = [Blame::Client, Blame::Upstream, Blame::Policy, Blame::Host, Blame::Us];
            let capture = |file: String| Capture {
                part: Part::Request, sha256: file.clone(), file, end: CaptureEnd::Whole, bytes: Some(3), size: 4,
            };
            let outcome = Outcome {
                id: Uuid::from_u128(id),
                status,
                bytes_sent: numbers[0],
                bytes_received: numbers[1],
                duration_us: numbers[2],
                ttfb_us,
                upstream,
                proxied,
                error,
                blame: blames.get(blame).copied(),
                interrupted: flags[0],
                removed: removed
                    .into_iter()
                    .map(|place| RemovedCredential { fingerprint: place.clone(), place })
                    .collect(),
                reflected: flags[1],
                repeated: flags[2],
                answered: flags[3],
                captures: captures.into_iter().map(capture).collect(),
            };
            let mut out = Vec::new();
            spell_outcome(&mut out, &outcome);
            prop_assert_eq!(whole(out), spelled(&Record::Outcome(outcome)));
        }
    }
}
