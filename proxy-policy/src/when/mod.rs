//! Conditions of grants and roles in CEL: `when = 'request.headers["x-env"] == "prod"'`.
//!
//! A condition is read and checked at the load ([`check`]); at a decision it is true, false, or has a [`Fault`]. For an
//! allow a fault is as good as false, for a deny as good as true.

mod check;
mod facts;
mod json;
mod types;

use std::collections::BTreeSet;
use std::fmt;
use std::sync::{Arc, LazyLock};

use cel::common::ast::IdedExpr;
use cel::extractors::This;
use cel::parser::Parser;
use cel::{Context, Env, ExecutionError, Value};
use chrono::DateTime;
use regex::Regex;

use crate::decide::Call;
use crate::diagnostic::Problem;
use crate::operation::Arguments;

pub use facts::{BodyState, Facts, Source};
pub use json::{Body, BodyFault};

/// The longest condition, in bytes.
const MAX_TEXT: usize = 2048;
/// How deep brackets may be nested.
const MAX_NESTING: usize = 12;
/// Operators, brackets and dots: the parser and the evaluation go down one step for each, at worst.
const MAX_PARTS: usize = 150;
/// What `matches` with a compiled expression is called inside.
const MATCHES: &str = "matches_constant";

static STANDARD: LazyLock<Arc<Env>> = LazyLock::new(|| Arc::new(Env::stdlib()));

/// A condition, ready to be evaluated.
pub struct Condition {
    text: String,
    expression: IdedExpr,
    regexes: Arc<[Regex]>,
    captures: Vec<String>,
    /// The variables that it looks at; of the request its fields.
    uses: BTreeSet<&'static str>,
    /// The headers that it looks at; none: any.
    headers: Option<Vec<String>>,
}

impl fmt::Debug for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Condition").field(&self.text).finish()
    }
}

impl PartialEq for Condition {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Condition {}

/// Why a condition could not be evaluated to true or false. Says nothing of what the client sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// A field that it looks at is not there.
    Missing,
    /// A value has another type than the condition needs.
    Type,
    /// The query can be read in more than one way.
    Query,
    /// The body cannot be looked at.
    Body(BodyFault),
    /// Anything else, such as a number that is too large.
    Failed,
}

impl Fault {
    /// A word for it.
    #[must_use]
    pub fn slug(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Type => "type",
            Self::Query => "query",
            Self::Failed => "failed",
            Self::Body(BodyFault::TooLarge { .. }) => "body-too-large",
            Self::Body(BodyFault::Incomplete) => "body-incomplete",
            Self::Body(BodyFault::NotJsonType) => "body-not-json-type",
            Self::Body(BodyFault::Encoded) => "body-encoded",
            Self::Body(BodyFault::NotJson) => "body-not-json",
            Self::Body(BodyFault::DuplicateKey) => "body-duplicate-key",
            Self::Body(BodyFault::TooManyValues) => "body-too-many-values",
        }
    }

    /// The fault that has this word. How large a body was allowed to be is not in the word.
    #[must_use]
    pub fn of_slug(slug: &str) -> Option<Self> {
        let bodies = [
            BodyFault::TooLarge { limit: 0 },
            BodyFault::Incomplete,
            BodyFault::NotJsonType,
            BodyFault::Encoded,
            BodyFault::NotJson,
            BodyFault::DuplicateKey,
            BodyFault::TooManyValues,
        ];
        let plain = [Self::Missing, Self::Type, Self::Query, Self::Failed];
        plain.into_iter().chain(bodies.map(Self::Body)).find(|fault| fault.slug() == slug)
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing => f.write_str("something that it looks at is not there"),
            Self::Type => f.write_str("a value has another type than it needs"),
            Self::Query => f.write_str("the query can be read in more than one way"),
            Self::Body(fault) => fault.fmt(f),
            Self::Failed => f.write_str("it could not be evaluated"),
        }
    }
}

/// What is missing for an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unknown {
    Facts,
    Body,
    /// It was not asked when the call was made.
    Untold,
    Fault(Fault),
}

/// A call for a condition.
pub(crate) struct Case<'a> {
    pub(crate) call: &'a Call<'a>,
    pub(crate) identity: &'a str,
    pub(crate) captures: Vec<(&'a str, String)>,
    pub(crate) params: &'a Arguments,
    /// The most bytes of a body that may be looked at.
    pub(crate) body_limit: usize,
}

impl Condition {
    /// Reads a condition in which these parameters may stand. An error comes with its place, in bytes from the beginning.
    pub(crate) fn parse(text: &str, params: &[String]) -> Result<Self, (usize, Problem)> {
        if text.len() > MAX_TEXT {
            let message = format!("the condition is longer than {MAX_TEXT} bytes");
            return Err((0, Problem::new(message, "write several grants with shorter ones")));
        }
        if !is_small(text) {
            let message = format!(
                "the condition has more than {MAX_PARTS} parts, or is nested more than {MAX_NESTING} deep"
            );
            return Err((0, Problem::new(message, "write several grants with simpler ones")));
        }
        let parsed = Parser::new().error_recovery_limit(4).parse_with_source_info(text);
        let (mut expression, source) = parsed.map_err(|errors| {
            let error = errors.errors.first();
            let (line, column) = error.map_or((1, 1), |error| error.pos);
            let message =
                error.map_or_else(|| "?".into(), |error| error.msg.lines().next().unwrap_or("").to_owned());
            let line = usize::try_from(line).unwrap_or(1).max(1);
            let column = usize::try_from(column).unwrap_or(1).max(1);
            let start: usize = text.split_inclusive('\n').take(line - 1).map(str::len).sum();
            let at = start + column - 1;
            let message = message.chars().filter(|c| !c.is_control()).take(200).collect::<String>();
            (
                at,
                Problem::new(
                    format!("not CEL: {message}"),
                    "a condition is an expression of https://cel.dev",
                ),
            )
        })?;
        let found = check::check(&mut expression, params).map_err(|(id, problem)| {
            (source.offset_for(id).map_or(0, |(start, _)| usize::try_from(start).unwrap_or(0)), problem)
        })?;
        Ok(Self {
            text: text.to_owned(),
            expression,
            regexes: found.regexes.into(),
            captures: found.captures,
            uses: found.uses,
            headers: found.headers,
        })
    }

    /// The condition as it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The named segments that it looks at.
    pub(crate) fn captures(&self) -> &[String] {
        &self.captures
    }

    /// Whether it looks at the body.
    #[must_use]
    pub fn uses_body(&self) -> bool {
        self.uses.contains("body")
    }

    /// Whether it looks at headers.
    #[must_use]
    pub fn uses_headers(&self) -> bool {
        self.uses.contains("request.headers")
    }

    /// The headers that it looks at; none: any, if it looks at headers.
    #[must_use]
    pub fn headers(&self) -> Option<&[String]> {
        self.headers.as_deref()
    }

    /// Whether it looks at more than the journal has of a call: headers, a query if there was one, a body.
    pub(crate) fn looks_beyond(&self, has_query: bool) -> bool {
        self.uses_headers() || self.uses_body() || (has_query && self.uses.contains("request.query"))
    }

    /// Whether it may look at the time: certainly not when the name of it does not occur.
    #[must_use]
    pub fn looks_at_the_clock(&self) -> bool {
        self.text.contains("now")
    }

    /// Whether it holds.
    pub(crate) fn holds(&self, case: &Case<'_>) -> Result<bool, Unknown> {
        let facts = case.call.facts.ok_or(Unknown::Facts)?;
        let mut context = Context::with_env(Arc::clone(&STANDARD));
        for name in &self.uses {
            context.add_variable_from_value(*name, self.variable(name, case, facts)?);
        }
        if !self.regexes.is_empty() {
            let regexes = Arc::clone(&self.regexes);
            let matches = move |This(text): This<Arc<String>>, number: i64| {
                let regex = usize::try_from(number).ok().and_then(|number| regexes.get(number));
                regex.is_some_and(|regex| regex.is_match(&text))
            };
            context.add_function(MATCHES, matches).map_err(|_| Unknown::Fault(Fault::Failed))?;
        }
        match Value::resolve(&self.expression, &context) {
            Ok(Value::Bool(holds)) => Ok(holds),
            Ok(_) => Err(Unknown::Fault(Fault::Type)),
            Err(error) => Err(Unknown::Fault(fault(&error))),
        }
    }

    /// The value of a variable.
    fn variable(&self, name: &str, case: &Case<'_>, facts: &Facts<'_>) -> Result<Value, Unknown> {
        let texts = |pairs: &mut dyn Iterator<Item = (&str, &str)>| {
            facts::table(pairs.map(|(name, value)| (name, Value::from(value))))
        };
        Ok(match name {
            "request.method" => Value::from(case.call.method),
            "request.host" => Value::from(facts.host),
            "request.path" => Value::from(case.call.path.as_str()),
            "request.query" => facts::query(facts.query).ok_or(Unknown::Fault(Fault::Query))?,
            "request.headers" => {
                let named = |header: &str| {
                    self.headers.as_ref().is_none_or(|named| named.iter().any(|it| it == header))
                };
                let headers = facts.headers.iter().map(|(name, value)| (name.as_str(), value.as_str()));
                texts(&mut headers.filter(|(name, _)| named(name)))
            }
            "identity" => Value::from(case.identity),
            "workload" => facts::workload(&facts.workload),
            "captures" => texts(&mut case.captures.iter().map(|(name, value)| (*name, value.as_str()))),
            "params" => texts(&mut case.params.iter().map(|(name, value)| (name.as_str(), value.as_str()))),
            "now" => {
                let now =
                    DateTime::from_timestamp(case.call.now.0, 0).ok_or(Unknown::Fault(Fault::Failed))?;
                Value::Timestamp(now.fixed_offset())
            }
            "body" => match facts.body {
                BodyState::NotRead => return Err(Unknown::Body),
                BodyState::Fault(fault) => return Err(Unknown::Fault(Fault::Body(fault))),
                BodyState::Json(body) if body.length > case.body_limit => {
                    let fault = BodyFault::TooLarge { limit: case.body_limit };
                    return Err(Unknown::Fault(Fault::Body(fault)));
                }
                BodyState::Json(body) => body.value.clone(),
            },
            _ => return Err(Unknown::Fault(Fault::Failed)),
        })
    }
}

/// Whether the parser can read a text without going too deep, by its characters outside of strings; where it is not plain
/// what is a string, by all of them.
fn is_small(text: &str) -> bool {
    let plain = !text.contains('\\') && !text.contains("\"\"\"") && !text.contains("'''");
    let (mut quote, mut parts, mut depth) = (None, 0, 0usize);
    for c in text.chars() {
        if let Some(end) = quote {
            if c == end {
                quote = None;
            }
            continue;
        }
        match c {
            '"' | '\'' if plain => quote = Some(c),
            '(' | '[' | '{' => depth += 1,
            ')' | ']' | '}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        parts += usize::from(".([{!-+*/%?<>=&|".contains(c));
        if depth > MAX_NESTING || parts > MAX_PARTS {
            return false;
        }
    }
    true
}

fn fault(error: &ExecutionError) -> Fault {
    match error {
        ExecutionError::NoSuchKey(_) | ExecutionError::IndexOutOfBounds(_) => Fault::Missing,
        ExecutionError::NoSuchOverload(_)
        | ExecutionError::UnexpectedType { .. }
        | ExecutionError::UnsupportedTargetType { .. }
        | ExecutionError::ValuesNotComparable(..)
        | ExecutionError::UnsupportedBinaryOperator(..)
        | ExecutionError::UnsupportedIndex(..) => Fault::Type,
        _ => Fault::Failed,
    }
}

#[cfg(test)]
mod tests;
