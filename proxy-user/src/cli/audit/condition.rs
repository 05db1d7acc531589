//! `--where 'CEL'`: a condition over a call, whose names and types are checked before anything is read.
//!
//! [`sieve`] judges by it what stands in an index, with three values: most lines are not read. [`Condition::holds`] is what counts.

mod atom;
mod may;
mod number;
mod sieve;
mod text;

use std::collections::BTreeSet;
use std::sync::{Arc, LazyLock};

use anyhow::{anyhow, bail};
use cel::common::ast::{CallExpr, Expr, IdedExpr, LiteralValue, operators as op};
use cel::parser::Parser;
use cel::{Context, Env, Value};
use chrono::{DateTime, FixedOffset};
use proxy_journal::archive::Sieve;
use proxy_journal::text::escape;
use proxy_journal::{Facts, Timestamp};

/// The longest condition, in bytes, and how deep its brackets may be: the parser goes down one step for each.
const LONGEST: usize = 4096;
const DEEPEST: usize = 32;

static STANDARD: LazyLock<Arc<Env>> = LazyLock::new(|| Arc::new(Env::stdlib()));

/// The types of what a condition is made of.
#[derive(Debug, Clone, PartialEq)]
enum Type {
    Text,
    Int,
    Double,
    Bool,
    Time,
    Span,
    List(Box<Type>),
}

impl Type {
    fn name(&self) -> &'static str {
        match self {
            Type::Text => "text",
            Type::Int => "a whole number",
            Type::Double => "a number with a fraction",
            Type::Bool => "true or false",
            Type::Time => "a time",
            Type::Span => "a duration",
            Type::List(_) => "a list",
        }
    }

    fn is_number(&self) -> bool {
        matches!(self, Type::Int | Type::Double)
    }

    fn compares_with(&self, other: &Type) -> bool {
        self == other || (self.is_number() && other.is_number())
    }
}

/// What a condition can look at. What a line does not have is the empty text, 0 or false.
const VARIABLES: [(&str, Type); 22] = [
    ("api", Type::Text),
    ("bytes_received", Type::Int),
    ("bytes_sent", Type::Int),
    ("credential", Type::Text),
    ("duration_ms", Type::Double),
    ("error", Type::Bool),
    ("exe", Type::Text),
    ("host", Type::Text),
    ("id", Type::Text),
    ("identity", Type::Text),
    ("interrupted", Type::Bool),
    ("kind", Type::Text),
    ("method", Type::Text),
    ("path", Type::Text),
    ("pid", Type::Int),
    ("reason", Type::Text),
    ("rule", Type::Text),
    ("status", Type::Int),
    ("time", Type::Time),
    ("uid", Type::Int),
    ("unit", Type::Text),
    ("verdict", Type::Text),
];

/// A condition, ready to be evaluated.
pub(super) struct Condition {
    expression: IdedExpr,
    uses: BTreeSet<&'static str>,
}

impl Condition {
    /// Reads and checks a condition.
    ///
    /// # Errors
    /// It is not CEL, names something that is not there, or has a wrong type.
    pub(super) fn parse(text: &str) -> anyhow::Result<Condition> {
        let mut deep = 0_usize;
        let deepest = text.bytes().map(|byte| {
            match byte {
                b'(' | b'[' | b'{' | b'!' | b'-' | b'?' => deep += 1,
                b')' | b']' | b'}' => deep = deep.saturating_sub(1),
                _ => {}
            }
            deep
        });
        if text.len() > LONGEST || deepest.max().unwrap_or(0) > DEEPEST {
            bail!("--where: the condition is longer than {LONGEST} bytes or nested more than {DEEPEST} deep");
        }
        let expression = Parser::new().parse(text).map_err(|errors| {
            let message = errors.errors.first().map_or_else(String::new, |error| {
                format!(" (column {}: {})", error.pos.1, error.msg.lines().next().unwrap_or_default())
            });
            anyhow!("--where: this is not an expression of https://cel.dev{}", escape(&message))
        })?;
        let mut uses = BTreeSet::new();
        let of = infer(&expression, &mut uses).map_err(|wrong| anyhow!("--where: {}", escape(&wrong)))?;
        if of != Type::Bool {
            bail!("--where: the condition is {}, and must be true or false", of.name());
        }
        Ok(Condition { expression, uses })
    }

    /// Whether it holds; `None` when it cannot be evaluated, as by a division by zero.
    pub(super) fn holds(&self, facts: &Facts) -> Option<bool> {
        match evaluated(&self.expression, self.uses.iter().map(|name| (*name, variable(name, facts)))) {
            Some(Value::Bool(holds)) => Some(holds),
            _ => None,
        }
    }

    /// What lets through every line for which it may hold, and those for which it cannot be evaluated.
    pub(super) fn sieve(&self) -> Box<dyn Sieve> {
        Box::new(sieve::ConditionSieve::new(&self.expression))
    }
}

/// What an expression comes to; `None` when it cannot be evaluated.
fn evaluated(
    expression: &IdedExpr,
    variables: impl IntoIterator<Item = (&'static str, Value)>,
) -> Option<Value> {
    let mut context = Context::with_env(Arc::clone(&STANDARD));
    for (name, value) in variables {
        context.add_variable_from_value(name, value);
    }
    Value::resolve(expression, &context).ok()
}

/// The variables of an expression that was checked.
fn uses(expression: &IdedExpr) -> BTreeSet<&'static str> {
    let mut uses = BTreeSet::new();
    let _ = infer(expression, &mut uses);
    uses
}

fn whole(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// Exact up to three centuries.
fn milliseconds(micros: u64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "it is at most 2^53")]
    let micros = micros.min(1 << 53) as f64;
    micros / 1000.0
}

fn moment(time: Timestamp) -> DateTime<FixedOffset> {
    let micros = i64::try_from(time.micros()).unwrap_or(i64::MAX);
    DateTime::from_timestamp_micros(micros).unwrap_or_default().fixed_offset()
}

fn variable(name: &str, facts: &Facts) -> Value {
    let text = |text: &Option<String>| Value::from(text.as_deref().unwrap_or_default());
    let number = |number: u64| Value::Int(whole(number));
    match name {
        "api" => text(&facts.api),
        "bytes_received" => number(facts.received),
        "bytes_sent" => number(facts.sent),
        "credential" => text(&facts.credential),
        "duration_ms" => Value::Float(milliseconds(facts.duration_us.unwrap_or(0))),
        "error" => Value::Bool(facts.error),
        "exe" => text(&facts.exe),
        "host" => text(&facts.host),
        "id" => Value::from(facts.id.map(|id| id.to_string()).unwrap_or_default().as_str()),
        "identity" => text(&facts.identity),
        "interrupted" => Value::Bool(facts.interrupted),
        "kind" => Value::from(facts.kind.as_str()),
        "method" => text(&facts.method),
        "path" => text(&facts.path),
        "pid" => number(facts.pid.unwrap_or(0).into()),
        "reason" => text(&facts.reason),
        "rule" => text(&facts.rule),
        "status" => number(facts.status.unwrap_or(0).into()),
        "time" => Value::Timestamp(moment(facts.time)),
        "uid" => number(facts.uid.unwrap_or(0).into()),
        "unit" => text(&facts.unit),
        _ => Value::from(facts.ruling.map_or("", proxy_journal::Ruling::word)),
    }
}

fn infer(expression: &IdedExpr, uses: &mut BTreeSet<&'static str>) -> Result<Type, String> {
    match &expression.expr {
        Expr::Literal(literal) => match literal {
            LiteralValue::Boolean(_) => Ok(Type::Bool),
            LiteralValue::Double(_) => Ok(Type::Double),
            LiteralValue::Int(_) => Ok(Type::Int),
            LiteralValue::String(_) => Ok(Type::Text),
            LiteralValue::UInt(_) | LiteralValue::Bytes(_) | LiteralValue::Null => {
                Err("null, bytes and numbers with u are not known here; what is not there is \"\" or 0"
                    .into())
            }
        },
        Expr::Ident(name) => {
            let known = VARIABLES.iter().find(|(known, _)| known == name);
            let (name, of) = known.ok_or_else(|| {
                let all: Vec<_> = VARIABLES.iter().map(|(name, _)| *name).collect();
                format!("{name:?} is not known; there are {}", all.join(", "))
            })?;
            uses.insert(name);
            Ok(of.clone())
        }
        Expr::List(list) => {
            let mut elements = list.elements.iter().map(|element| infer(element, uses));
            let first = elements.next().ok_or("an empty list has nothing in it")??;
            for element in elements {
                let element = element?;
                if element != first {
                    return Err(format!("a list has {} and {}", first.name(), element.name()));
                }
            }
            Ok(Type::List(Box::new(first)))
        }
        Expr::Call(call) => infer_call(call, uses),
        Expr::Select(select) => Err(format!("nothing here has fields, as {:?}", select.field)),
        Expr::Comprehension(_) | Expr::Map(_) | Expr::Struct(_) | Expr::Unspecified => {
            Err("loops and maps are not known here; compare the fields one by one".into())
        }
    }
}

fn infer_call(call: &CallExpr, uses: &mut BTreeSet<&'static str>) -> Result<Type, String> {
    let target = call.target.as_ref().map(|target| infer(target, uses)).transpose()?;
    let args = call.args.iter().map(|arg| infer(arg, uses)).collect::<Result<Vec<_>, _>>()?;
    let name = call.func_name.as_str();
    let wrong = || {
        let of: Vec<_> = target.iter().chain(&args).map(Type::name).collect();
        let shown = name.trim_matches('_').trim_matches('@');
        Err(format!(
            "{shown} is not for {}",
            if of.is_empty() { "nothing".to_owned() } else { of.join(" and ") }
        ))
    };
    if let Some(target) = &target {
        return match (name, target, args.as_slice()) {
            ("contains" | "startsWith" | "endsWith", Type::Text, [Type::Text]) => Ok(Type::Bool),
            ("matches", Type::Text, [Type::Text]) => {
                // A constant is tried: one that is no regular expression is an error before anything is read.
                let constant = call.args.iter().all(|arg| matches!(arg.expr, Expr::Literal(_)));
                if constant && !is_regex(call) {
                    return Err("this is no regular expression (or one that is too large)".into());
                }
                Ok(Type::Bool)
            }
            ("size", Type::Text, []) => Ok(Type::Int),
            (
                "getFullYear" | "getMonth" | "getDate" | "getDayOfMonth" | "getDayOfWeek" | "getDayOfYear"
                | "getHours" | "getMinutes" | "getSeconds",
                Type::Time,
                [] | [Type::Text],
            ) => Ok(Type::Int),
            _ => wrong(),
        };
    }
    match (name, args.as_slice()) {
        (op::LOGICAL_AND | op::LOGICAL_OR, [Type::Bool, Type::Bool]) => Ok(Type::Bool),
        (op::LOGICAL_NOT, [Type::Bool]) => Ok(Type::Bool),
        (op::EQUALS | op::NOT_EQUALS, [a, b]) if a.compares_with(b) => Ok(Type::Bool),
        (op::LESS | op::LESS_EQUALS | op::GREATER | op::GREATER_EQUALS, [a, b])
            if a.compares_with(b) && !matches!(a, Type::Bool | Type::List(_)) =>
        {
            Ok(Type::Bool)
        }
        (op::IN, [a, Type::List(of)]) if *a == **of => Ok(Type::Bool),
        (op::CONDITIONAL, [Type::Bool, a, b]) if a == b => Ok(a.clone()),
        (op::ADD | op::SUBSTRACT | op::MULTIPLY | op::DIVIDE, [a, b]) if a == b && a.is_number() => {
            Ok(a.clone())
        }
        (op::MODULO, [Type::Int, Type::Int]) => Ok(Type::Int),
        (op::ADD, [Type::Text, Type::Text]) => Ok(Type::Text),
        (op::ADD | op::SUBSTRACT, [Type::Time, Type::Span]) => Ok(Type::Time),
        (op::SUBSTRACT, [Type::Time, Type::Time]) => Ok(Type::Span),
        (op::NEGATE, [a]) if a.is_number() => Ok(a.clone()),
        ("size", [Type::Text | Type::List(_)]) => Ok(Type::Int),
        ("int", [Type::Int | Type::Double]) => Ok(Type::Int),
        ("double", [Type::Int | Type::Double]) => Ok(Type::Double),
        ("string", [Type::Int | Type::Double | Type::Text]) => Ok(Type::Text),
        ("timestamp", [Type::Text]) if is_never(call) => {
            Err("this is no time: write timestamp(\"2026-11-24T20:00:00Z\")".into())
        }
        ("duration", [Type::Text]) if is_never(call) => {
            Err("this is no duration: write duration(\"90s\") or duration(\"1h30m\")".into())
        }
        ("timestamp", [Type::Text]) => Ok(Type::Time),
        ("duration", [Type::Text]) => Ok(Type::Span),
        _ => wrong(),
    }
}

/// Whether it is of a constant, and cannot be evaluated.
fn is_never(call: &CallExpr) -> bool {
    let constant = call.args.iter().all(|arg| matches!(arg.expr, Expr::Literal(_)));
    constant && evaluated(&IdedExpr { id: 0, expr: Expr::Call(call.clone()) }, []).is_none()
}

fn is_regex(call: &CallExpr) -> bool {
    let empty = IdedExpr { id: 0, expr: Expr::Literal(LiteralValue::String("".into())) };
    let call = CallExpr { target: Some(Box::new(empty)), ..call.clone() };
    let context = Context::with_env(Arc::clone(&STANDARD));
    Value::resolve(&IdedExpr { id: 0, expr: Expr::Call(call) }, &context).is_ok()
}

#[cfg(test)]
mod sieve_tests;

#[cfg(test)]
mod tests {
    use super::*;

    fn facts() -> Facts {
        let line = concat!(
            r#"{"v":1,"seq":1,"time":"2026-11-24T20:00:00.000000Z","prev":"#,
            r#""0000000000000000000000000000000000000000000000000000000000000000","kind":"outcome","#,
            r#""id":"01a210ed-2479-71f9-8e05-0f31b1b0c8cf","status":503,"duration_us":1500,"bytes_sent":7,"#,
            r#""hash":"0000000000000000000000000000000000000000000000000000000000000000"}"#
        );
        Facts { path: Some("/v1/x".into()), ..Facts::of(line.as_bytes(), None).unwrap() }
    }

    #[test]
    fn a_condition_looks_at_the_fields_of_a_call() {
        for holds in [
            "status >= 500 && path.startsWith('/v1/')",
            "duration_ms > 1 && duration_ms < 1.6 && bytes_sent + bytes_received == 7",
            "identity == '' && status in [502, 503]",
            "time >= timestamp('2026-11-24T19:59:59Z') && time.getHours() == 20",
            "path.matches('^/v[0-9]+/x$') && !interrupted",
            "kind == 'call' && id.startsWith('01a210ed')",
            "status / 100 == 5 ? true : error",
        ] {
            assert_eq!(Condition::parse(holds).unwrap().holds(&facts()), Some(true), "{holds}");
        }
        assert_eq!(Condition::parse("status == 200").unwrap().holds(&facts()), Some(false));
        assert_eq!(Condition::parse("1 / uid == 1").unwrap().holds(&facts()), None);
    }

    #[test]
    fn what_can_never_hold_is_an_error_before_anything_is_read() {
        for (wrong, told) in [
            ("statuss == 200", "there are api, "),
            ("status == '200'", "a whole number and text"),
            ("status", "must be true or false"),
            ("path.matches('(')", "no regular expression"),
            ("path.foo", "nothing here has fields"),
            ("time > timestamp('yesterday')", "no time: write timestamp("),
            ("time - time < duration('1 hour')", "no duration: write duration("),
            ("status ==", "not an expression"),
            ("[1].exists(x, x == 1)", "loops"),
            ("path in ['a', 1]", "a list has"),
            ("nothing(path)", "nothing is not for text"),
            ("status == null", "null"),
        ] {
            let error = Condition::parse(wrong).err().map(|error| error.to_string()).unwrap_or_default();
            assert!(error.contains("--where") && error.contains(told), "{wrong}: {error}");
        }
        assert!(Condition::parse(&"(".repeat(3000)).is_err());
        assert!(Condition::parse(&"!".repeat(3000)).is_err());
    }

    #[test]
    fn every_variable_has_the_type_that_is_said_of_it() {
        for (name, of) in VARIABLES {
            let fits = match variable(name, &facts()) {
                Value::String(_) => of == Type::Text,
                Value::Int(_) => of == Type::Int,
                Value::Float(_) => of == Type::Double,
                Value::Bool(_) => of == Type::Bool,
                Value::Timestamp(_) => of == Type::Time,
                _ => false,
            };
            assert!(fits, "{name}");
        }
    }
}
