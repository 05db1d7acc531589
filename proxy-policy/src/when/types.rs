//! The types of what a condition is made of, as far as they are known before it is evaluated.

/// A type; `Dyn` is one that only shows at evaluation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Type {
    Dyn,
    Null,
    Bool,
    Number,
    String,
    Bytes,
    Timestamp,
    Duration,
    List(Box<Self>),
    Map(Box<Self>),
    /// A variable with these fields and no others.
    Record(&'static str, &'static [(&'static str, Self)]),
    /// The named segments of the operation.
    Captures,
    /// The parameters of the role.
    Params,
}

const STRING: Type = Type::String;
const NUMBER: Type = Type::Number;

pub(super) const WORKLOAD: [(&str, Type); 6] = [
    ("cgroup", STRING),
    ("exe", STRING),
    ("gid", NUMBER),
    ("pid", NUMBER),
    ("uid", NUMBER),
    ("unit", STRING),
];

/// `headers` and `query` are maps, which a constant cannot hold: see [`field`].
pub(super) const REQUEST: [(&str, Type); 5] =
    [("headers", Type::Dyn), ("host", STRING), ("method", STRING), ("path", STRING), ("query", Type::Dyn)];

/// The fields of the request as variables of the evaluation.
pub(super) const REQUEST_FIELDS: [&str; 5] =
    ["request.headers", "request.host", "request.method", "request.path", "request.query"];

pub(super) const VARIABLES: [&str; 7] =
    ["body", "captures", "identity", "now", "params", "request", "workload"];

/// The type of a variable.
pub(super) fn variable(name: &str) -> Option<Type> {
    Some(match name {
        "body" => Type::Dyn,
        "captures" => Type::Captures,
        "identity" => Type::String,
        "now" => Type::Timestamp,
        "params" => Type::Params,
        "request" => Type::Record("request", &REQUEST),
        "workload" => Type::Record("workload", &WORKLOAD),
        _ => return None,
    })
}

/// The type of a field of a record.
pub(super) fn field(record: &str, fields: &[(&str, Type)], name: &str) -> Option<Type> {
    match (record, name) {
        ("request", "headers") => Some(Type::Map(Box::new(Type::String))),
        ("request", "query") => Some(Type::Map(Box::new(Type::List(Box::new(Type::String))))),
        _ => fields.iter().find(|(known, _)| *known == name).map(|(_, of)| of.clone()),
    }
}

impl Type {
    /// Whether a value of this type can be one of the other.
    pub(super) fn may_be(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Dyn, _) | (_, Self::Dyn) => true,
            (Self::List(a), Self::List(b)) | (Self::Map(a), Self::Map(b)) => a.may_be(b),
            (a, b) => a == b,
        }
    }

    /// Its name with an article.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Dyn => "any value",
            Self::Null => "null",
            Self::Bool => "true or false",
            Self::Number => "a number",
            Self::String => "a string",
            Self::Bytes => "bytes",
            Self::Timestamp => "a moment",
            Self::Duration => "a duration",
            Self::List(_) => "a list",
            Self::Map(_) | Self::Record(..) | Self::Captures | Self::Params => "a map",
        }
    }
}
