//! Numbers of which an index knows between what they are, and what is reckoned with them.

use std::cmp::Ordering;
use std::ops::RangeInclusive;

use cel::Value;
use cel::common::ast::{CallExpr, Expr, IdedExpr, operators as op};
use proxy_journal::archive::View;

use super::evaluated;
use super::may::May;

/// From the least to the greatest; where one can be something else, as too large, or no number, there is none.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Range {
    Int(i64, i64),
    Double(f64, f64),
}

/// What has a number in a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Quantity {
    Duration,
    Sent,
    Received,
    Status,
    Uid,
    Pid,
    /// `size(path)`, in characters.
    PathSize,
}

impl Quantity {
    /// Of a variable.
    pub(super) fn named(name: &str) -> Option<Quantity> {
        Some(match name {
            "duration_ms" => Quantity::Duration,
            "bytes_sent" => Quantity::Sent,
            "bytes_received" => Quantity::Received,
            "status" => Quantity::Status,
            "uid" => Quantity::Uid,
            "pid" => Quantity::Pid,
            _ => return None,
        })
    }

    /// What it is in a row; `None` where the line must be read.
    pub(super) fn of(self, rows: &View<'_>, row: usize) -> Option<Range> {
        let long =
            |range: RangeInclusive<u64>| Range::Int(super::whole(*range.start()), super::whole(*range.end()));
        Some(match self {
            Quantity::Duration => {
                let range = rows.duration(row);
                Range::Double(super::milliseconds(*range.start()), super::milliseconds(*range.end()))
            }
            Quantity::Sent => long(rows.sent(row)),
            Quantity::Received => long(rows.received(row)),
            Quantity::Status => {
                let status = i64::from(rows.status(row).unwrap_or(0));
                Range::Int(status, status)
            }
            Quantity::PathSize => {
                let size = i64::try_from(rows.path(row)?.chars().count()).unwrap_or(i64::MAX);
                Range::Int(size, size)
            }
            Quantity::Uid | Quantity::Pid => {
                let of = if self == Quantity::Uid { rows.uid(row) } else { rows.pid(row) };
                let number = i64::from(of?);
                Range::Int(number, number)
            }
        })
    }

    /// Its value in a row, where it is known exactly.
    pub(super) fn value(self, rows: &View<'_>, row: usize) -> Option<Value> {
        match self.of(rows, row)? {
            Range::Int(least, greatest) => (least == greatest).then_some(Value::Int(least)),
            Range::Double(least, greatest) => {
                (least.total_cmp(&greatest) == Ordering::Equal).then_some(Value::Float(least))
            }
        }
    }
}

impl Range {
    fn double(self) -> (f64, f64) {
        match self {
            #[expect(clippy::cast_precision_loss, reason = "CEL compares them so")]
            Range::Int(least, greatest) => (least as f64, greatest as f64),
            Range::Double(least, greatest) => (least, greatest),
        }
    }

    fn negated(self) -> Option<Range> {
        Some(match self {
            Range::Int(least, greatest) => Range::Int(greatest.checked_neg()?, least.checked_neg()?),
            Range::Double(least, greatest) => Range::Double(-greatest, -least),
        })
    }

    /// All four corners: between them each of these goes only up or only down.
    fn with(
        self,
        other: Range,
        int: impl Fn(i64, i64) -> Option<i64>,
        double: impl Fn(f64, f64) -> f64,
    ) -> Option<Range> {
        match (self, other) {
            (Range::Int(a, b), Range::Int(c, d)) => {
                let corners = [int(a, c)?, int(a, d)?, int(b, c)?, int(b, d)?];
                Some(Range::Int(corners.into_iter().min()?, corners.into_iter().max()?))
            }
            (Range::Double(a, b), Range::Double(c, d)) => {
                // Between what is infinite and zero there would be no number.
                if ![a, b, c, d].into_iter().all(f64::is_finite) {
                    return None;
                }
                let corners = [double(a, c), double(a, d), double(b, c), double(b, d)];
                let (least, greatest) = (f64::min, f64::max);
                let fold = |of: fn(f64, f64) -> f64| corners.into_iter().reduce(of);
                Some(Range::Double(fold(least)?, fold(greatest)?))
            }
            // CEL does not reckon with both.
            _ => None,
        }
    }

    fn has_zero(self) -> bool {
        match self {
            Range::Int(least, greatest) => least <= 0 && greatest >= 0,
            // What is not above and not below may be no number.
            Range::Double(least, greatest) => !(least > 0.0 || greatest < 0.0),
        }
    }
}

fn is_path(expression: &IdedExpr) -> bool {
    matches!(&expression.expr, Expr::Ident(name) if name == "path")
}

/// A number that is reckoned.
#[derive(Debug)]
pub(super) enum Sum {
    Constant(Range),
    Of(Quantity),
    Double(Box<Sum>),
    Negated(Box<Sum>),
    Of2(Arithmetic, Box<Sum>, Box<Sum>),
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Arithmetic {
    Add,
    Subtract,
    Multiply,
    Divide,
    Modulo,
}

impl Arithmetic {
    /// What comes out; `None` where it may be too large, no number, or nothing that is between corners.
    fn of(self, a: Range, b: Range) -> Option<Range> {
        match self {
            Arithmetic::Add => a.with(b, i64::checked_add, |a, b| a + b),
            Arithmetic::Subtract => a.with(b, i64::checked_sub, |a, b| a - b),
            Arithmetic::Multiply => a.with(b, i64::checked_mul, |a, b| a * b),
            Arithmetic::Divide if b.has_zero() => None,
            Arithmetic::Divide => a.with(b, i64::checked_div, |a, b| a / b),
            Arithmetic::Modulo => match (a, b) {
                (Range::Int(a, same_a), Range::Int(b, same_b)) if a == same_a && b == same_b => {
                    a.checked_rem(b).map(|rest| Range::Int(rest, rest))
                }
                // It goes up and down.
                _ => None,
            },
        }
    }
}

impl Sum {
    /// Of an expression that has a number; `None` where this is not how to know it.
    pub(super) fn of(expression: &IdedExpr) -> Option<Sum> {
        if let Some(value) = evaluated(expression, []) {
            return match value {
                Value::Int(number) => Some(Sum::Constant(Range::Int(number, number))),
                Value::Float(number) if !number.is_nan() => {
                    Some(Sum::Constant(Range::Double(number, number)))
                }
                _ => None,
            };
        }
        match &expression.expr {
            Expr::Ident(name) => Quantity::named(name).map(Sum::Of),
            Expr::Call(CallExpr { func_name, target: Some(of), args }) if args.is_empty() => {
                (func_name == "size" && is_path(of)).then_some(Sum::Of(Quantity::PathSize))
            }
            Expr::Call(CallExpr { func_name, target: None, args }) => {
                let two = |arithmetic| match args.as_slice() {
                    [a, b] => Some(Sum::Of2(arithmetic, Box::new(Sum::of(a)?), Box::new(Sum::of(b)?))),
                    _ => None,
                };
                match (func_name.as_str(), args.as_slice()) {
                    ("size", [of]) if is_path(of) => Some(Sum::Of(Quantity::PathSize)),
                    (op::NEGATE, [of]) => Some(Sum::Negated(Box::new(Sum::of(of)?))),
                    ("double", [of]) => Some(Sum::Double(Box::new(Sum::of(of)?))),
                    (op::ADD, _) => two(Arithmetic::Add),
                    (op::SUBSTRACT, _) => two(Arithmetic::Subtract),
                    (op::MULTIPLY, _) => two(Arithmetic::Multiply),
                    (op::DIVIDE, _) => two(Arithmetic::Divide),
                    (op::MODULO, _) => two(Arithmetic::Modulo),
                    _ => None,
                }
            }
            _ => None,
        }
    }

    fn in_row(&self, rows: &View<'_>, row: usize) -> Option<Range> {
        match self {
            Sum::Constant(range) => Some(*range),
            Sum::Of(quantity) => quantity.of(rows, row),
            Sum::Double(of) => {
                let (least, greatest) = of.in_row(rows, row)?.double();
                Some(Range::Double(least, greatest))
            }
            Sum::Negated(of) => of.in_row(rows, row)?.negated(),
            Sum::Of2(arithmetic, a, b) => arithmetic.of(a.in_row(rows, row)?, b.in_row(rows, row)?),
        }
    }
}

/// How two are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Relation {
    Less,
    LessOrEqual,
    Equal,
    Unequal,
    GreaterOrEqual,
    Greater,
}

impl Relation {
    /// Of an operator.
    pub(super) fn named(operator: &str) -> Option<Relation> {
        Some(match operator {
            op::LESS => Relation::Less,
            op::LESS_EQUALS => Relation::LessOrEqual,
            op::EQUALS => Relation::Equal,
            op::NOT_EQUALS => Relation::Unequal,
            op::GREATER_EQUALS => Relation::GreaterOrEqual,
            op::GREATER => Relation::Greater,
            _ => return None,
        })
    }

    /// The same with its sides exchanged.
    pub(super) fn turned(self) -> Relation {
        match self {
            Relation::Less => Relation::Greater,
            Relation::LessOrEqual => Relation::GreaterOrEqual,
            Relation::GreaterOrEqual => Relation::LessOrEqual,
            Relation::Greater => Relation::Less,
            same => same,
        }
    }

    /// Between something that lies between two and something else that lies between two.
    pub(super) fn between<T: PartialOrd>(self, (a, b): (T, T), (c, d): (T, T)) -> May {
        let known = |always: bool, never: bool| match (always, never) {
            (true, _) => May::TRUE,
            (_, true) => May::FALSE,
            _ => May::TRUE.or_else(May::FALSE),
        };
        match self {
            Relation::Less => known(b < c, a >= d),
            Relation::LessOrEqual => known(b <= c, a > d),
            Relation::GreaterOrEqual => known(a >= d, b < c),
            Relation::Greater => known(a > d, b <= c),
            Relation::Equal => known(a >= d && b <= c, b < c || a > d),
            Relation::Unequal => Relation::Equal.between((a, b), (c, d)).not(),
        }
    }
}

/// Two numbers that are compared.
#[derive(Debug)]
pub(super) struct Comparison {
    left: Sum,
    relation: Relation,
    right: Sum,
}

impl Comparison {
    /// Of an expression; `None` where it is no such.
    pub(super) fn of(expression: &IdedExpr) -> Option<Comparison> {
        let Expr::Call(CallExpr { func_name, target: None, args }) = &expression.expr else { return None };
        let (relation, [left, right]) = (Relation::named(func_name)?, args.as_slice()) else { return None };
        Some(Comparison { left: Sum::of(left)?, relation, right: Sum::of(right)? })
    }

    /// What it may come to in a row.
    pub(super) fn in_row(&self, rows: &View<'_>, row: usize) -> May {
        let (Some(left), Some(right)) = (self.left.in_row(rows, row), self.right.in_row(rows, row)) else {
            return May::ANY;
        };
        match (left, right) {
            (Range::Int(a, b), Range::Int(c, d)) => self.relation.between((a, b), (c, d)),
            _ => self.relation.between(left.double(), right.double()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Is = fn(i64, i64) -> bool;
    type Whole = fn(i64, i64) -> Option<i64>;
    type Floating = fn(f64, f64) -> f64;

    fn ranges() -> impl Iterator<Item = (i64, i64)> {
        (-3..=3).flat_map(|least| (least..=3).map(move |greatest| (least, greatest)))
    }

    /// What `of` gives for any of the numbers in both.
    fn each<T>((a, b): (i64, i64), (c, d): (i64, i64), of: impl Fn(i64, i64) -> T) -> Vec<T> {
        (a..=b)
            .flat_map(|one| (c..=d).map(move |other| (one, other)))
            .map(|(one, other)| of(one, other))
            .collect()
    }

    #[test]
    fn a_comparison_may_come_to_what_it_comes_to_for_any_numbers_within() {
        let relations: [(&str, Is); 6] = [
            (op::LESS, |a, b| a < b),
            (op::LESS_EQUALS, |a, b| a <= b),
            (op::EQUALS, |a, b| a == b),
            (op::NOT_EQUALS, |a, b| a != b),
            (op::GREATER_EQUALS, |a, b| a >= b),
            (op::GREATER, |a, b| a > b),
        ];
        for (one, other) in ranges().flat_map(|one| ranges().map(move |other| (one, other))) {
            for (name, is) in relations {
                let relation = Relation::named(name).unwrap();
                let of = |all: Vec<bool>| {
                    all.into_iter().fold(May::NOTHING, |may, it| may.or_else(May::of(Some(it))))
                };
                assert_eq!(
                    relation.between(one, other),
                    of(each(one, other, is)),
                    "{one:?} {name} {other:?}"
                );
                assert_eq!(relation.turned().between(other, one), relation.between(one, other), "{name}");
            }
        }
    }

    #[test]
    fn what_is_reckoned_lies_between_the_least_and_the_greatest_that_can_come_out() {
        let ways: [(Arithmetic, Whole, Option<Floating>); 5] = [
            (Arithmetic::Add, i64::checked_add, Some(|a, b| a + b)),
            (Arithmetic::Subtract, i64::checked_sub, Some(|a, b| a - b)),
            (Arithmetic::Multiply, i64::checked_mul, Some(|a, b| a * b)),
            (Arithmetic::Divide, i64::checked_div, Some(|a, b| a / b)),
            (Arithmetic::Modulo, i64::checked_rem, None),
        ];
        for (one, other) in ranges().flat_map(|one| ranges().map(move |other| (one, other))) {
            let (int, double) = (|(a, b)| Range::Int(a, b), |(a, b)| Range::Double(a as f64, b as f64));
            for (way, checked, floating) in ways {
                // What fails for one of them is not known for all.
                let all: Option<Vec<i64>> = each(one, other, checked).into_iter().collect();
                let expected =
                    all.map(|all| Range::Int(*all.iter().min().unwrap(), *all.iter().max().unwrap()));
                let range = way.of(int(one), int(other));
                let single = one.0 == one.1 && other.0 == other.1;
                if single || !matches!(way, Arithmetic::Modulo) {
                    assert_eq!(range, expected, "{one:?} {way:?} {other:?}");
                } else {
                    assert_eq!(range, None);
                }
                let by_double = way.of(double(one), double(other));
                let (Some(floating), true) = (floating, expected.is_some()) else {
                    assert_eq!(by_double, None, "{one:?} {way:?} {other:?}");
                    continue;
                };
                let Some(Range::Double(least, greatest)) = by_double else {
                    panic!("{one:?} {way:?} {other:?}");
                };
                for number in each(one, other, |a, b| floating(a as f64, b as f64)) {
                    assert!(least <= number && number <= greatest, "{one:?} {way:?} {other:?}: {number}");
                }
            }
            let negated = int(one).negated();
            assert_eq!(negated, Some(Range::Int(-one.1, -one.0)));
            assert_eq!(double(one).negated().map(Range::double), negated.map(Range::double));
        }
        // What is too large, or no number, is not known.
        let (most, infinite) = (Range::Int(0, i64::MAX), Range::Double(0.0, f64::INFINITY));
        assert_eq!(most.with(Range::Int(0, 1), i64::checked_add, |a, b| a + b), None);
        assert_eq!(Range::Int(i64::MIN, 0).negated(), None);
        assert_eq!(infinite.with(Range::Double(-1.0, 1.0), |_, _| None, |a, b| a * b), None);
        assert_eq!(most.with(infinite, i64::checked_add, |a, b| a + b), None);
    }
}
