//! What can be found wrong with a condition before it is evaluated: names, types, and what could take too long.
//!
//! A condition looks at what a bot sends, so the time of its evaluation must have a bound whatever that is. Its text is
//! short; loops (`all`, `exists` …) do not stand in each other, there are few, and what takes time with the length of a
//! value is in them only for what the loop is at, so that all rounds together take as long as the whole is; regular
//! expressions are constants, compiled at the load; nothing makes strings or lists longer.

use cel::common::ast::{
    CallExpr, ComprehensionExpr, Expr, IdedExpr, LiteralValue, SelectExpr, operators as op,
};
use std::collections::BTreeSet;

use regex::{Regex, RegexBuilder};

use super::MATCHES;
use super::types::{self, Type, VARIABLES};
use crate::diagnostic::{Problem, quote};
use crate::suggest;

/// Loops in one condition.
const MAX_LOOPS: usize = 4;
/// How deep a condition may be nested.
const MAX_DEPTH: usize = 32;
/// Bytes of a compiled regular expression.
const MAX_REGEX: usize = 64 * 1024;

/// What was found in a condition.
#[derive(Default)]
pub(super) struct Findings {
    /// The variables that it looks at; of the request its fields, `request.headers`.
    pub(super) uses: BTreeSet<&'static str>,
    /// The headers that it names, when it looks at no others.
    pub(super) headers: Option<Vec<String>>,
    pub(super) captures: Vec<String>,
    pub(super) regexes: Vec<Regex>,
}

/// An error and the node that it is about.
pub(super) type Wrong = (u64, Problem);

/// Checks a whole condition. The regular expressions in it are replaced by their numbers.
pub(super) fn check(expression: &mut IdedExpr, params: &[String]) -> Result<Findings, Wrong> {
    let mut checker = Checker {
        params,
        scope: Vec::new(),
        loops: 0,
        in_loop: false,
        depth: 0,
        headers_seen: 0,
        headers_named: Vec::new(),
        found: Findings::default(),
    };
    let of = checker.infer(expression)?;
    if !of.may_be(&Type::Bool) {
        return Err((
            expression.id,
            Problem::new(
                format!("the condition is {}, and must be true or false", of.name()),
                "compare it with something, such as request.headers[\"x-env\"] == \"prod\"",
            ),
        ));
    }
    let by_name_only = checker.headers_seen == checker.headers_named.len();
    checker.found.headers = by_name_only.then_some(checker.headers_named);
    Ok(checker.found)
}

fn is_variable(expression: &IdedExpr, name: &str) -> bool {
    matches!(&expression.expr, Expr::Ident(ident) if ident == name)
}

/// Whether this is `request.headers`.
fn is_headers(expression: &IdedExpr) -> bool {
    matches!(&expression.expr, Expr::Select(select)
        if !select.test && select.field == "headers" && is_variable(&select.operand, "request"))
}

struct Checker<'p> {
    params: &'p [String],
    /// The variables of the loop.
    scope: Vec<(String, Type)>,
    loops: usize,
    in_loop: bool,
    /// How deep the node is that is looked at: the evaluation goes as deep.
    depth: usize,
    /// How often the headers are looked at, and the names of those that are looked at by name.
    headers_seen: usize,
    headers_named: Vec<String>,
    found: Findings,
}

const FUNCTIONS: [&str; 24] = [
    "all",
    "contains",
    "double",
    "duration",
    "endsWith",
    "exists",
    "exists_one",
    "filter",
    "getDate",
    "getDayOfMonth",
    "getDayOfWeek",
    "getDayOfYear",
    "getFullYear",
    "getHours",
    "getMinutes",
    "getMonth",
    "getSeconds",
    "has",
    "int",
    "map",
    "matches",
    "size",
    "startsWith",
    "timestamp",
];

impl Checker<'_> {
    fn infer(&mut self, expression: &mut IdedExpr) -> Result<Type, Wrong> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            let message = format!("the condition is nested more than {MAX_DEPTH} deep");
            return Err((expression.id, Problem::new(message, "write several grants with simpler ones")));
        }
        let of = self.infer_here(expression);
        self.depth -= 1;
        of
    }

    fn infer_here(&mut self, expression: &mut IdedExpr) -> Result<Type, Wrong> {
        let id = expression.id;
        match &mut expression.expr {
            Expr::Ident(name) => self.ident(id, name),
            Expr::Literal(literal) => Ok(match literal {
                LiteralValue::Boolean(_) => Type::Bool,
                LiteralValue::Bytes(_) => Type::Bytes,
                LiteralValue::Double(_) | LiteralValue::Int(_) | LiteralValue::UInt(_) => Type::Number,
                LiteralValue::Null => Type::Null,
                LiteralValue::String(_) => Type::String,
            }),
            Expr::Select(select) => self.select(id, select),
            Expr::Call(call) => self.call(id, call),
            Expr::List(list) => {
                let mut of: Option<Type> = None;
                for element in &mut list.elements {
                    let element = self.infer(element)?;
                    of = Some(match of {
                        Some(of) if of != element => Type::Dyn,
                        _ => element,
                    });
                }
                Ok(Type::List(Box::new(of.unwrap_or(Type::Dyn))))
            }
            Expr::Comprehension(comprehension) => self.comprehension(id, comprehension),
            Expr::Map(_) | Expr::Struct(_) | Expr::Unspecified => {
                Err((id, Problem::new("a condition does not make maps", "compare the fields one by one")))
            }
        }
    }

    fn ident(&mut self, id: u64, name: &str) -> Result<Type, Wrong> {
        if let Some((_, of)) = self.scope.iter().rev().find(|(known, _)| known == name) {
            return Ok(of.clone());
        }
        let Some(of) = types::variable(name) else {
            let help = suggest::help(name, VARIABLES, "variable");
            return Err((id, Problem::new(format!("unknown variable {}", quote(name)), help)));
        };
        if name == "request" {
            let help = "look at its fields one by one, such as request.method";
            return Err((id, Problem::new("the request as a whole cannot be looked at", help)));
        }
        self.found.uses.extend(VARIABLES.into_iter().find(|known| *known == name));
        Ok(of)
    }

    fn select(&mut self, id: u64, select: &mut SelectExpr) -> Result<Type, Wrong> {
        if is_variable(&select.operand, "request") && !self.scope.iter().any(|(known, _)| known == "request")
        {
            // The field is a variable of its own, whose name has a dot.
            let known = || types::REQUEST.iter().map(|(name, _)| *name);
            let Some(of) = types::field("request", &types::REQUEST, &select.field) else {
                let message = format!("request has no field {}", quote(&select.field));
                return Err((id, Problem::new(message, suggest::help(&select.field, known(), "field"))));
            };
            if select.test {
                return Err((
                    id,
                    Problem::new(
                        "has() of what is always there",
                        "ask has(request.headers.x) or size(request.query)",
                    ),
                ));
            }
            let name = types::REQUEST_FIELDS
                .into_iter()
                .find(|name| name.strip_prefix("request.") == Some(&select.field));
            self.found.uses.extend(name);
            self.headers_seen += usize::from(select.field == "headers");
            return Ok(of);
        }
        if is_headers(&select.operand) {
            self.name_header(&select.field);
        }
        let of = self.infer(&mut select.operand)?;
        let field = self.field(id, &of, &select.field)?;
        Ok(if select.test { Type::Bool } else { field })
    }

    /// Notes that one header is looked at, by its name.
    fn name_header(&mut self, name: &str) {
        self.headers_named.push(name.to_owned());
    }

    fn field(&mut self, id: u64, of: &Type, name: &str) -> Result<Type, Wrong> {
        match of {
            Type::Dyn => Ok(Type::Dyn),
            Type::Map(values) => Ok((**values).clone()),
            Type::Record(record, fields) => types::field(record, fields, name).ok_or_else(|| {
                let help = suggest::help(name, fields.iter().map(|(name, _)| *name), "field");
                (id, Problem::new(format!("{record} has no field {}", quote(name)), help))
            }),
            Type::Captures => {
                if !self.found.captures.iter().any(|known| known == name) {
                    self.found.captures.push(name.to_owned());
                }
                Ok(Type::String)
            }
            Type::Params => match self.params.iter().any(|known| known == name) {
                true => Ok(Type::String),
                false => {
                    let known = self.params.iter().map(String::as_str);
                    let help = match self.params.is_empty() {
                        true => "only the condition of a role that has params can look at them".to_owned(),
                        false => suggest::help(name, known, "parameter"),
                    };
                    Err((id, Problem::new(format!("unknown parameter {}", quote(name)), help)))
                }
            },
            other => {
                let message = format!("{} has no field {}", other.name(), quote(name));
                Err((
                    id,
                    Problem::new(message, "only request, workload, captures, params and JSON have fields"),
                ))
            }
        }
    }

    fn call(&mut self, id: u64, call: &mut CallExpr) -> Result<Type, Wrong> {
        let name = call.func_name.clone();
        if name == MATCHES {
            return Err((id, Problem::new("this name is taken", "write text.matches(\"…\")")));
        }
        match (name.as_str(), call.args.as_slice()) {
            (op::INDEX, [map, IdedExpr { expr: Expr::Literal(LiteralValue::String(header)), .. }])
            | (op::IN, [IdedExpr { expr: Expr::Literal(LiteralValue::String(header)), .. }, map])
                if is_headers(map) =>
            {
                self.name_header(header.inner());
            }
            _ => {}
        }
        let target = call.target.as_mut().map(|target| self.infer(target)).transpose()?;
        // A constant as an index, before its type is all that is known of it.
        let key = match call.args.get(1).map(|arg| &arg.expr) {
            Some(Expr::Literal(LiteralValue::String(text))) => Some(text.inner().to_owned()),
            _ => None,
        };
        let mut args = Vec::new();
        for arg in &mut call.args {
            args.push(self.infer(arg)?);
        }
        if let Some(target) = target {
            if !call.target.as_deref().is_none_or(|target| self.is_bounded(target, &Type::Dyn)) {
                return Err((id, self.too_long(&name)));
            }
            return self.method(id, &name, target, &args, call);
        }
        let bounded = |at: usize| match (call.args.get(at), args.get(at)) {
            (Some(arg), Some(of)) => self.is_bounded(arg, of),
            _ => true,
        };
        let too_long = match name.as_str() {
            op::EQUALS | op::NOT_EQUALS | op::LESS | op::LESS_EQUALS | op::GREATER | op::GREATER_EQUALS => {
                !bounded(0) && !bounded(1)
            }
            op::IN => !bounded(1),
            "size" => !bounded(0),
            _ => false,
        };
        if too_long {
            return Err((id, self.too_long(&name)));
        }
        let wrong = |what: String| {
            Err((id, Problem::new(what, "see \"Conditions\" in the documentation of the policy")))
        };
        match (name.as_str(), args.as_slice()) {
            (op::LOGICAL_AND | op::LOGICAL_OR | op::LOGICAL_NOT, args) => {
                match args.iter().find(|of| !of.may_be(&Type::Bool)) {
                    Some(of) => wrong(format!("{} stands where true or false is needed", of.name())),
                    None => Ok(Type::Bool),
                }
            }
            ("@not_strictly_false", _) => Ok(Type::Bool),
            (op::EQUALS | op::NOT_EQUALS, [a, b]) => {
                match a.may_be(b) || *a == Type::Null || *b == Type::Null {
                    true => Ok(Type::Bool),
                    false => wrong(format!("{} is never equal to {}", a.name(), b.name())),
                }
            }
            (op::LESS | op::LESS_EQUALS | op::GREATER | op::GREATER_EQUALS, [a, b]) => {
                let ordered = [Type::Number, Type::String, Type::Timestamp, Type::Duration];
                match ordered.iter().any(|of| a.may_be(of) && b.may_be(of)) {
                    true => Ok(Type::Bool),
                    false => wrong(format!("{} cannot be compared with {}", a.name(), b.name())),
                }
            }
            (op::IN, [a, Type::List(of)]) if !a.may_be(of) => {
                wrong(format!("{} is never in this list, which has {}", a.name(), of.name()))
            }
            (op::IN, [a, Type::Map(_)]) if !a.may_be(&Type::String) => {
                wrong(format!("{} is never a key of this map", a.name()))
            }
            (op::IN, [_, Type::List(_) | Type::Map(_) | Type::Dyn]) => Ok(Type::Bool),
            (op::IN, [_, b]) => wrong(format!("nothing is in {}", b.name())),
            (op::INDEX, [Type::List(of), Type::Number | Type::Dyn]) => Ok((**of).clone()),
            (op::INDEX, [Type::Map(of), Type::String | Type::Dyn]) => Ok((**of).clone()),
            (op::INDEX, [Type::Dyn, Type::Number | Type::String | Type::Dyn]) => Ok(Type::Dyn),
            (op::INDEX, [of @ (Type::Record(..) | Type::Captures | Type::Params), Type::String])
                if key.is_some() =>
            {
                let of = of.clone();
                self.field(id, &of, key.as_deref().unwrap_or_default())
            }
            (op::INDEX, [of, index]) => wrong(format!("{} has nothing at {}", of.name(), index.name())),
            (op::CONDITIONAL, [condition, a, b]) => match condition.may_be(&Type::Bool) {
                true if a == b => Ok(a.clone()),
                true => Ok(Type::Dyn),
                false => wrong(format!("{} stands where true or false is needed", condition.name())),
            },
            (op::ADD, [Type::List(_), Type::List(_)]) if self.in_loop && self.is_accumulator(call) => {
                Ok(Type::List(Box::new(Type::Dyn)))
            }
            (op::ADD | op::SUBSTRACT, [Type::Timestamp, Type::Duration]) => Ok(Type::Timestamp),
            (op::SUBSTRACT, [Type::Timestamp, Type::Timestamp]) => Ok(Type::Duration),
            (op::ADD | op::SUBSTRACT, [Type::Duration, Type::Duration]) => Ok(Type::Duration),
            (op::ADD | op::SUBSTRACT | op::MULTIPLY | op::DIVIDE | op::MODULO, [a, b]) => {
                // Of JSON it is not known; adding strings would make them longer.
                match (a, b) {
                    (Type::Number, Type::Number) => Ok(Type::Number),
                    (Type::Dyn, _) | (_, Type::Dyn) if name == op::ADD => wrong(
                        "what is added must be a number: write int(…) or double(…) around the field".into(),
                    ),
                    (Type::Dyn | Type::Number, Type::Dyn | Type::Number) => Ok(Type::Number),
                    _ => wrong(format!("{} and {} cannot be calculated with", a.name(), b.name())),
                }
            }
            (op::NEGATE, [a]) if a.may_be(&Type::Number) => Ok(Type::Number),
            ("size", [Type::String | Type::List(_) | Type::Map(_) | Type::Dyn]) => Ok(Type::Number),
            ("int" | "double", [Type::Number | Type::String | Type::Dyn]) => Ok(Type::Number),
            ("timestamp", [Type::String | Type::Dyn]) => Ok(Type::Timestamp),
            ("duration", [Type::String | Type::Dyn]) => Ok(Type::Duration),
            (function, _) if FUNCTIONS.contains(&function) => {
                let args: Vec<&str> = args.iter().map(Type::name).collect();
                wrong(format!(
                    "{function} does not take {}",
                    if args.is_empty() { "nothing".into() } else { args.join(" and ") }
                ))
            }
            (function, _) => Err((
                id,
                Problem::new(
                    format!("unknown function {}", quote(function)),
                    suggest::help(function, FUNCTIONS, "function"),
                ),
            )),
        }
    }

    fn method(
        &mut self,
        id: u64,
        name: &str,
        target: Type,
        args: &[Type],
        call: &mut CallExpr,
    ) -> Result<Type, Wrong> {
        let wrong = |what: String, help: &str| Err((id, Problem::new(what, help)));
        match (name, args) {
            ("size", []) if matches!(target, Type::String | Type::List(_) | Type::Map(_) | Type::Dyn) => {
                Ok(Type::Number)
            }
            ("contains" | "startsWith" | "endsWith" | "matches", [arg])
                if target.may_be(&Type::String) && arg.may_be(&Type::String) =>
            {
                if !call.args.iter().all(|arg| self.is_short(arg)) {
                    return Err((id, self.too_long(name)));
                }
                if name == "matches" {
                    self.regex(id, call)?;
                }
                Ok(Type::Bool)
            }
            (
                "getFullYear" | "getMonth" | "getDate" | "getDayOfMonth" | "getDayOfWeek" | "getDayOfYear"
                | "getHours" | "getMinutes" | "getSeconds",
                [] | [Type::String],
            ) if target.may_be(&Type::Timestamp) => Ok(Type::Number),
            (known, args) if FUNCTIONS.contains(&known) => {
                let args: Vec<&str> = args.iter().map(Type::name).collect();
                let with =
                    if args.is_empty() { String::new() } else { format!(" with {}", args.join(" and ")) };
                wrong(
                    format!("{known} is not for {}{with}", target.name()),
                    "see \"Conditions\" in the documentation of the policy",
                )
            }
            (unknown, _) => wrong(
                format!("unknown function {}", quote(unknown)),
                &suggest::help(unknown, FUNCTIONS, "function"),
            ),
        }
    }

    /// Compiles the constant of `text.matches("…")`, and puts its number in its place.
    fn regex(&mut self, id: u64, call: &mut CallExpr) -> Result<(), Wrong> {
        let Some(Expr::Literal(LiteralValue::String(pattern))) = call.args.first().map(|arg| &arg.expr)
        else {
            let help = "write the regular expression itself, text.matches(\"^a+$\")";
            return Err((id, Problem::new("matches needs a constant", help)));
        };
        let regex =
            RegexBuilder::new(pattern.inner()).size_limit(MAX_REGEX).dfa_size_limit(MAX_REGEX).build();
        let regex = regex.map_err(|_| {
            let help = "see https://docs.rs/regex for what can be written; it has neither look-around nor references";
            (id, Problem::new(format!("{} is no regular expression, or too large", quote(pattern.inner())), help))
        })?;
        let number = i64::try_from(self.found.regexes.len()).unwrap_or(i64::MAX);
        self.found.regexes.push(regex);
        call.func_name = MATCHES.to_owned();
        if let Some(arg) = call.args.first_mut() {
            arg.expr = Expr::Literal(LiteralValue::Int(number.into()));
        }
        if let Some(target) = call.target.take() {
            call.args.insert(0, *target);
        }
        Ok(())
    }

    /// Whether all rounds of a loop together take no longer for this than the whole value is long: outside of loops; for
    /// constants and what has a fixed size; for what the loop is at.
    fn is_bounded(&self, expression: &IdedExpr, of: &Type) -> bool {
        let fixed = matches!(of, Type::Number | Type::Bool | Type::Null | Type::Timestamp | Type::Duration);
        !self.in_loop || fixed || self.is_short(expression) || self.is_of_the_loop(expression)
    }

    /// A constant, or a list of constants.
    fn is_short(&self, expression: &IdedExpr) -> bool {
        match &expression.expr {
            Expr::Literal(_) => true,
            Expr::List(list) => list.elements.iter().all(|element| self.is_short(element)),
            _ => !self.in_loop,
        }
    }

    /// The variable of a loop, or something inside of it.
    fn is_of_the_loop(&self, expression: &IdedExpr) -> bool {
        match &expression.expr {
            Expr::Ident(name) => self.scope.iter().any(|(known, _)| known == name),
            Expr::Select(select) => self.is_of_the_loop(&select.operand),
            Expr::Call(call) if call.func_name == op::INDEX => {
                call.args.first().is_some_and(|of| self.is_of_the_loop(of))
            }
            _ => false,
        }
    }

    fn too_long(&self, name: &str) -> Problem {
        let name = name.trim_matches(['_', '@']);
        Problem::new(
            format!("{} in a loop goes over something outside of it in every round", quote(name)),
            "compare what the loop is at with constants or with numbers, or write this outside of the loop",
        )
    }

    fn is_accumulator(&self, call: &CallExpr) -> bool {
        matches!(call.args.first().map(|arg| &arg.expr), Some(Expr::Ident(name)) if name.starts_with('@'))
    }

    /// What `all`, `exists`, `exists_one`, `filter` and `map` become.
    fn comprehension(&mut self, id: u64, it: &mut ComprehensionExpr) -> Result<Type, Wrong> {
        self.loops += 1;
        let wrong = |message: String, help: &str| Err((id, Problem::new(message, help)));
        if self.in_loop {
            return wrong(
                "a loop stands in another".into(),
                "its time would have no bound: look at one list at a time",
            );
        }
        if self.loops > MAX_LOOPS {
            return wrong(
                format!("more than {MAX_LOOPS} loops"),
                "look at fewer lists, so that the time of a decision stays bounded",
            );
        }
        let element = match self.infer(&mut it.iter_range)? {
            Type::Dyn => Type::Dyn,
            Type::List(of) => *of,
            Type::Map(_) => Type::String,
            other => {
                return wrong(
                    format!("{} is nothing to go through", other.name()),
                    "all, exists and filter go through lists and maps",
                );
            }
        };
        let accumulator = match self.infer(&mut it.accu_init)? {
            Type::List(_) => Type::List(Box::new(Type::Dyn)),
            other => other,
        };
        let depth = self.scope.len();
        self.scope.push((it.accu_var.clone(), accumulator));
        self.scope.push((it.iter_var.clone(), element));
        if let Some(second) = &it.iter_var2 {
            self.scope.push((second.clone(), Type::Dyn));
        }
        self.in_loop = true;
        let inside = self.infer(&mut it.loop_cond).and_then(|_| self.infer(&mut it.loop_step));
        self.in_loop = false;
        let result = inside.and_then(|_| self.infer(&mut it.result));
        self.scope.truncate(depth);
        result
    }
}
