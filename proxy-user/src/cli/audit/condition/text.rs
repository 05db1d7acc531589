//! Conditions on one text: the usual ones by themselves, any other by CEL.

use std::sync::Arc;

use cel::Value;
use cel::common::ast::{CallExpr, Expr, IdedExpr, LiteralValue, operators as op};
use regex::Regex;

use super::evaluated;
use super::may::May;

/// What is asked of a text.
#[derive(Debug, Clone)]
pub(super) enum Test {
    Is(String),
    IsNot(String),
    IsOneOf(Vec<String>),
    StartsWith(String),
    EndsWith(String),
    Contains(String),
    Matches(Regex),
    /// Anything, of the variable with this name.
    Any(Arc<IdedExpr>, &'static str),
}

fn literal(expression: &IdedExpr) -> Option<String> {
    match &expression.expr {
        Expr::Literal(LiteralValue::String(text)) => Some(text.inner().to_owned()),
        _ => None,
    }
}

impl Test {
    /// Of an expression that has no other variable than this.
    pub(super) fn of(expression: &Arc<IdedExpr>, name: &'static str) -> Test {
        Test::simple(expression, name).unwrap_or_else(|| Test::Any(Arc::clone(expression), name))
    }

    fn simple(expression: &IdedExpr, name: &str) -> Option<Test> {
        let is_it = |expression: &IdedExpr| matches!(&expression.expr, Expr::Ident(ident) if ident == name);
        let Expr::Call(CallExpr { func_name, target, args }) = &expression.expr else { return None };
        match (func_name.as_str(), target.as_deref(), args.as_slice()) {
            (op::EQUALS | op::NOT_EQUALS, None, [a, b]) => {
                let text = match (is_it(a), is_it(b)) {
                    (true, false) => literal(b)?,
                    (false, true) => literal(a)?,
                    _ => return None,
                };
                Some(if func_name == op::EQUALS { Test::Is(text) } else { Test::IsNot(text) })
            }
            (op::IN, None, [it, list]) if is_it(it) => {
                let Expr::List(list) = &list.expr else { return None };
                list.elements.iter().map(literal).collect::<Option<_>>().map(Test::IsOneOf)
            }
            (function, Some(it), [text]) if is_it(it) => {
                let text = literal(text)?;
                match function {
                    "startsWith" => Some(Test::StartsWith(text)),
                    "endsWith" => Some(Test::EndsWith(text)),
                    "contains" => Some(Test::Contains(text)),
                    // As CEL does it, but once.
                    "matches" => Regex::new(&text).ok().map(Test::Matches),
                    _ => None,
                }
            }
            _ => None,
        }
    }

    /// What it may come to for a text that begins so.
    pub(super) fn on_beginning(&self, beginning: &str) -> May {
        let may_be = |other: &String| other.starts_with(beginning);
        let unless = |may: bool| if may { May::ANY } else { May::FALSE };
        match self {
            Test::Is(other) => unless(may_be(other)),
            Test::IsNot(other) => unless(may_be(other)).not(),
            Test::IsOneOf(others) => unless(others.iter().any(may_be)),
            Test::StartsWith(part) if part.len() <= beginning.len() => {
                May::of(Some(beginning.starts_with(part.as_str())))
            }
            Test::StartsWith(part) => unless(may_be(part)),
            Test::EndsWith(_) | Test::Contains(_) | Test::Matches(_) | Test::Any(..) => May::ANY,
        }
    }

    /// What it comes to.
    pub(super) fn on(&self, text: &str) -> May {
        May::of(Some(match self {
            Test::Is(other) => text == other,
            Test::IsNot(other) => text != other,
            Test::IsOneOf(others) => others.iter().any(|other| text == other),
            Test::StartsWith(part) => text.starts_with(part.as_str()),
            Test::EndsWith(part) => text.ends_with(part.as_str()),
            Test::Contains(part) => text.contains(part.as_str()),
            Test::Matches(regex) => regex.is_match(text),
            Test::Any(expression, name) => {
                return May::of(match evaluated(expression, [(*name, Value::from(text))]) {
                    Some(Value::Bool(holds)) => Some(holds),
                    _ => None,
                });
            }
        }))
    }
}
