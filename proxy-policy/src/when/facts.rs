//! What conditions can look at besides the call: gathered only when a condition asks.

use std::collections::HashMap;

use cel::Value;
use cel::objects::Key;

use super::json::{Body, BodyFault};

/// A request as it will be forwarded, and who sends it.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    /// The host in normal form.
    pub host: &'a str,
    /// What stands after the `?`.
    pub query: Option<&'a str>,
    /// The headers as they will be forwarded, without what is taken out or attached. Several of one name are joined by
    /// `", "` (RFC 9110 §5.3); the names are in lower case, and each is there once.
    pub headers: &'a [(String, String)],
    /// The process.
    pub workload: Source<'a>,
    /// The body.
    pub body: BodyState<'a>,
}

/// The process that calls, as far as conditions can look at it. What is not known is not there.
#[derive(Clone, Copy, Debug, Default)]
pub struct Source<'a> {
    /// Process id.
    pub pid: u32,
    /// Path of the executable: a label, which a process can choose in a mount namespace of its own.
    pub exe: Option<&'a str>,
    /// Real user id.
    pub uid: u32,
    /// Real group id.
    pub gid: u32,
    /// The systemd unit.
    pub unit: Option<&'a str>,
    /// The path of the cgroup.
    pub cgroup: Option<&'a str>,
}

/// How far the body is known.
#[derive(Clone, Copy, Debug, Default)]
pub enum BodyState<'a> {
    /// Nobody read it yet.
    #[default]
    NotRead,
    /// It is JSON.
    Json(&'a Body),
    /// It was read, as far as it can be.
    Fault(BodyFault),
}

/// Parameters in one query.
const MAX_PARAMETERS: usize = 256;

/// The query as a map of lists: what comes twice is there twice. Nothing if servers read it differently: a `;`, which some
/// take for `&`, a broken escape, or escapes that are not UTF-8.
pub(super) fn query(text: Option<&str>) -> Option<Value> {
    let mut map: HashMap<String, Vec<Value>> = HashMap::new();
    let text = text.unwrap_or_default();
    if text.contains(';') {
        return None;
    }
    for (count, pair) in text.split('&').filter(|pair| !pair.is_empty()).enumerate() {
        if count >= MAX_PARAMETERS {
            return None;
        }
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        map.entry(form_decoded(name)?).or_default().push(Value::from(form_decoded(value)?));
    }
    Some(table(map.into_iter().map(|(name, values)| (name, Value::List(values.into())))))
}

/// `a+b%20c` is `a b c`.
fn form_decoded(text: &str) -> Option<String> {
    let mut out = Vec::with_capacity(text.len());
    let (bytes, mut at) = (text.as_bytes(), 0);
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'+' => out.push(b' '),
            b'%' => {
                out.push(crate::path::escape(bytes, at)?);
                at += 2;
            }
            byte => out.push(*byte),
        }
        at += 1;
    }
    String::from_utf8(out).ok().filter(|text| !text.contains('\0'))
}

/// A map of CEL.
pub(super) fn table<K: Into<Key>>(entries: impl IntoIterator<Item = (K, Value)>) -> Value {
    let map: HashMap<Key, Value> = entries.into_iter().map(|(key, value)| (key.into(), value)).collect();
    Value::from(map)
}

pub(super) fn workload(source: &Source<'_>) -> Value {
    let number = |value: u32| Value::Int(i64::from(value));
    let numbers = [("pid", source.pid), ("uid", source.uid), ("gid", source.gid)];
    let texts = [("exe", source.exe), ("unit", source.unit), ("cgroup", source.cgroup)];
    let texts = texts.into_iter().filter_map(|(name, text)| Some((name, Value::from(text?))));
    table(numbers.into_iter().map(|(name, value)| (name, number(value))).chain(texts))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_is_read_only_when_every_server_reads_it_alike() {
        let read = |text| query(Some(text));
        let one = |name: &str, values: &[&str]| {
            let values: Vec<Value> = values.iter().map(|value| Value::from(*value)).collect();
            Some(table([(name, Value::List(values.into()))]))
        };
        assert_eq!(read("a=1&a=2&"), one("a", &["1", "2"]));
        assert_eq!(read("a%5B%5D=x+y%20z"), one("a[]", &["x y z"]));
        assert_eq!(read("a"), one("a", &[""]));
        for bad in ["a=1;b=2", "a=%zz", "a=%", "a=%ff", "a=%00"] {
            assert_eq!(read(bad), None, "{bad}");
        }
        assert_eq!(read(&"a=1&".repeat(MAX_PARAMETERS + 1)), None);
        assert_eq!(query(None), Some(table::<&str>([])));
    }
}
