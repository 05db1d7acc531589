//! The JSON body of a request as a value of CEL: what different readers would read differently is refused.

use std::collections::{HashMap, HashSet};
use std::fmt;

use cel::Value;
use cel::objects::Key;
use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use thiserror::Error;

/// Values in one body; the time of a condition grows with them.
const MAX_VALUES: usize = 4096;

/// Why a condition cannot look at the body.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum BodyFault {
    /// More bytes than the grant's `body_limit`.
    #[error("the body is larger than the {limit} bytes that the policy looks at")]
    TooLarge {
        /// The limit in bytes.
        limit: usize,
    },
    /// The client broke off, or took too long.
    #[error("the body did not come as a whole")]
    Incomplete,
    /// The content type is not JSON, or there are several.
    #[error("the content type of the body is not JSON")]
    NotJsonType,
    /// The content type names a charset other than UTF-8.
    #[error("the body is encoded (content-encoding), so the policy cannot read it")]
    Encoded,
    /// It is not JSON.
    #[error("the body is not JSON")]
    NotJson,
    /// A key twice in one object, also in other letters.
    #[error("the body has a key twice, of which servers take one or the other")]
    DuplicateKey,
    /// Too many values.
    #[error("the body has more than {MAX_VALUES} values")]
    TooManyValues,
}

/// A JSON body that conditions can look at.
#[derive(Clone, Debug)]
pub struct Body {
    pub(super) value: Value,
    pub(super) length: usize,
}

impl Body {
    /// Reads a body.
    ///
    /// # Errors
    /// It is not JSON, or can be read in more than one way.
    pub fn parse(bytes: &[u8]) -> Result<Self, BodyFault> {
        let mut reading = Reading { left: MAX_VALUES, fault: None };
        let mut source = serde_json::Deserializer::from_slice(bytes);
        let value = (&mut reading).deserialize(&mut source);
        let ended = source.end();
        match (value, ended) {
            (Ok(value), Ok(())) => Ok(Self { value, length: bytes.len() }),
            _ => Err(reading.fault.unwrap_or(BodyFault::NotJson)),
        }
    }
}

struct Reading {
    left: usize,
    fault: Option<BodyFault>,
}

impl Reading {
    fn refuse<T, E: serde::de::Error>(&mut self, fault: BodyFault) -> Result<T, E> {
        self.fault = Some(fault);
        Err(E::custom(fault))
    }

    fn one<E: serde::de::Error>(&mut self, value: Value) -> Result<Value, E> {
        match self.left.checked_sub(1) {
            Some(left) => {
                self.left = left;
                Ok(value)
            }
            None => self.refuse(BodyFault::TooManyValues),
        }
    }
}

impl<'de> DeserializeSeed<'de> for &mut Reading {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for &mut Reading {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E: serde::de::Error>(self) -> Result<Value, E> {
        self.one(Value::Null)
    }

    fn visit_bool<E: serde::de::Error>(self, value: bool) -> Result<Value, E> {
        self.one(Value::Bool(value))
    }

    fn visit_i64<E: serde::de::Error>(self, value: i64) -> Result<Value, E> {
        self.one(Value::Int(value))
    }

    fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<Value, E> {
        self.one(i64::try_from(value).map_or(Value::UInt(value), Value::Int))
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Value, E> {
        self.one(Value::Float(value))
    }

    fn visit_str<E: serde::de::Error>(self, value: &str) -> Result<Value, E> {
        self.one(Value::from(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        self.one::<A::Error>(Value::Null)?;
        let mut list = Vec::new();
        while let Some(item) = items.next_element_seed(&mut *self)? {
            list.push(item);
        }
        Ok(Value::List(list.into()))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        self.one::<A::Error>(Value::Null)?;
        let mut map: HashMap<Key, Value> = HashMap::new();
        let mut names: HashSet<String> = HashSet::new();
        while let Some(name) = entries.next_key::<String>()? {
            // Some readers (Go's encoding/json) do not tell letters in upper and lower case apart; `ſ` is one of `s` for them.
            if !names.insert(name.to_uppercase().to_lowercase()) {
                return self.refuse(BodyFault::DuplicateKey);
            }
            let value = entries.next_value_seed(&mut *self)?;
            map.insert(Key::from(name), value);
        }
        Ok(Value::from(map))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_is_json_that_every_reader_reads_alike_or_it_is_refused() {
        for (text, fault) in [
            (r#"{"a":1}"#, None),
            (r#" [1, 2.5, "x", null, true, {"a": {"a": 1}}] "#, None),
            (r#"{"a":1,"a":2}"#, Some(BodyFault::DuplicateKey)),
            (r#"{"a":1,"A":2}"#, Some(BodyFault::DuplicateKey)),
            (r#"{"a":1,"\u0061":2}"#, Some(BodyFault::DuplicateKey)),
            ("{\"status\":1,\"\u{17f}tatus\":2}", Some(BodyFault::DuplicateKey)),
            ("{\"key\":1,\"\u{212a}ey\":2}", Some(BodyFault::DuplicateKey)),
            (r#"[{"x":{"b":1,"b":1}}]"#, Some(BodyFault::DuplicateKey)),
            ("", Some(BodyFault::NotJson)),
            (r#"{"a":1} x"#, Some(BodyFault::NotJson)),
            (r#"{"a":1}{"a":2}"#, Some(BodyFault::NotJson)),
            (r#"{"a":NaN}"#, Some(BodyFault::NotJson)),
            (r#"{'a':1}"#, Some(BodyFault::NotJson)),
            (r#"{"a":1,}"#, Some(BodyFault::NotJson)),
            (r#"{"a":"\ud800"}"#, Some(BodyFault::NotJson)),
            ("a=1&b=2", Some(BodyFault::NotJson)),
        ] {
            assert_eq!(Body::parse(text.as_bytes()).err(), fault, "{text}");
        }
        assert_eq!(Body::parse(b"\"\xff\"").err(), Some(BodyFault::NotJson));
        let many = format!("[{}1]", "1,".repeat(MAX_VALUES));
        assert_eq!(Body::parse(many.as_bytes()).err(), Some(BodyFault::TooManyValues));
        assert_eq!(Body::parse("[".repeat(100_000).as_bytes()).err(), Some(BodyFault::NotJson));
    }
}
