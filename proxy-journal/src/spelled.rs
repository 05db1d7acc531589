//! A part that many records share, spelled once: who called is the same for every call of a process.

use std::fmt;
use std::ops::Deref;
use std::sync::{Arc, OnceLock};

use serde::ser::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;

use crate::text::SafeJson;

/// A shared value, and its JSON from the first time on that a record with it was spelled. It cannot change any more.
pub struct Spelled<T>(Arc<Shared<T>>);

struct Shared<T> {
    value: T,
    json: OnceLock<Box<RawValue>>,
}

impl<T> From<T> for Spelled<T> {
    fn from(value: T) -> Self {
        Self(Arc::new(Shared { value, json: OnceLock::new() }))
    }
}

impl<T: Serialize> Serialize for Spelled<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.raw().map_err(S::Error::custom)?.serialize(serializer)
    }
}

impl<T: Serialize> Spelled<T> {
    fn raw(&self) -> serde_json::Result<&RawValue> {
        let Shared { value, json } = &*self.0;
        if let Some(json) = json.get() {
            return Ok(json);
        }
        let spelled = spell(value)?;
        Ok(json.get_or_init(|| spelled))
    }
}

/// As it stands in a record.
pub(crate) fn spell(value: &impl Serialize) -> serde_json::Result<Box<RawValue>> {
    let mut text = Vec::with_capacity(512);
    value.serialize(&mut serde_json::Serializer::with_formatter(&mut text, SafeJson))?;
    RawValue::from_string(String::from_utf8(text).map_err(serde_json::Error::custom)?)
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Spelled<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        T::deserialize(deserializer).map(Self::from)
    }
}

impl<T> Deref for Spelled<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0.value
    }
}

impl<T> Clone for Spelled<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T: Default> Default for Spelled<T> {
    fn default() -> Self {
        T::default().into()
    }
}

impl<T: PartialEq> PartialEq for Spelled<T> {
    fn eq(&self, other: &Self) -> bool {
        self.0.value == other.0.value
    }
}

impl<T: Eq> Eq for Spelled<T> {}

impl<T: fmt::Debug> fmt::Debug for Spelled<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.value.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Workload;

    #[test]
    fn what_is_spelled_once_is_spelled_as_its_value_is_every_time() {
        let workload = Workload { pid: 7, exe: "/opt/\u{202e}bot\n".to_owned(), ..Workload::default() };
        let plain = serde_json::to_string(&workload).unwrap();
        let shared = Spelled::from(workload.clone());
        let (first, second) =
            (serde_json::to_string(&shared).unwrap(), serde_json::to_string(&shared.clone()).unwrap());
        assert_eq!(first, second);
        // The same, and what steers terminals is escaped.
        assert_eq!(serde_json::from_str::<Workload>(&first).unwrap(), workload);
        assert!(!first.contains('\u{202e}') && plain.contains('\u{202e}'));
        assert_eq!(serde_json::to_value(&shared).unwrap(), serde_json::to_value(&workload).unwrap());
        assert_eq!(serde_json::from_str::<Spelled<Workload>>(&first).unwrap(), shared);
    }
}
