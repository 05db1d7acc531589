//! A condition over the rows of an index: most lines are known not to be wanted before they are read.

use std::sync::Arc;

use cel::common::ast::{CallExpr, Expr, IdedExpr, operators as op};
use proxy_journal::archive::{Inside, Sieve, View, Words};
use proxy_journal::index::Judged;

use super::atom::Atom;
use super::may::May;

/// A condition as what is true or false by itself, and how that is put together.
#[derive(Debug)]
enum Node {
    All(Vec<Node>),
    Any(Vec<Node>),
    Not(Box<Node>),
    Choice(Box<[Node; 3]>),
    Atom(Atom),
}

impl Node {
    fn of(expression: &IdedExpr) -> Node {
        let Expr::Call(CallExpr { func_name, target: None, args }) = &expression.expr else {
            return Node::Atom(Atom::of(expression));
        };
        let both = || {
            let mut parts: Vec<_> = args.iter().map(Node::of).collect();
            // False is false and true is true, on whichever side it stands.
            parts.sort_by_key(Node::cost);
            parts
        };
        match (func_name.as_str(), args.as_slice()) {
            (op::LOGICAL_AND, _) => Node::All(both()),
            (op::LOGICAL_OR, _) => Node::Any(both()),
            (op::LOGICAL_NOT, [of]) => Node::Not(Box::new(Node::of(of))),
            (op::CONDITIONAL, [of, then, otherwise]) => {
                Node::Choice(Box::new([Node::of(of), Node::of(then), Node::of(otherwise)]))
            }
            _ => Node::Atom(Atom::of(expression)),
        }
    }

    fn cost(&self) -> u8 {
        match self {
            Node::All(parts) | Node::Any(parts) => parts.iter().map(Node::cost).max().unwrap_or(0),
            Node::Not(of) => of.cost(),
            Node::Choice(parts) => parts.iter().map(Node::cost).max().unwrap_or(0),
            Node::Atom(atom) => atom.cost(),
        }
    }

    fn each(&mut self, with: &mut impl FnMut(&mut Atom)) {
        match self {
            Node::All(parts) | Node::Any(parts) => parts.iter_mut().for_each(|part| part.each(with)),
            Node::Not(of) => of.each(with),
            Node::Choice(parts) => parts.iter_mut().for_each(|part| part.each(with)),
            Node::Atom(atom) => with(atom),
        }
    }

    fn in_block(&self, block: &Inside<'_>) -> May {
        match self {
            Node::All(parts) => parts.iter().fold(May::TRUE, |all, part| all.and(part.in_block(block))),
            Node::Any(parts) => parts.iter().fold(May::FALSE, |all, part| all.or(part.in_block(block))),
            Node::Not(of) => of.in_block(block).not(),
            Node::Choice(parts) => {
                let [of, then, otherwise] = &**parts;
                of.in_block(block).choose(then.in_block(block), otherwise.in_block(block))
            }
            Node::Atom(atom) => atom.in_block(block),
        }
    }

    fn in_row(&mut self, rows: &View<'_>, row: usize, words: &Words) -> May {
        match self {
            Node::All(parts) => {
                let mut all = May::TRUE;
                for part in parts {
                    all = all.and(part.in_row(rows, row, words));
                    if all == May::FALSE {
                        break;
                    }
                }
                all
            }
            Node::Any(parts) => {
                let mut any = May::FALSE;
                for part in parts {
                    any = any.or(part.in_row(rows, row, words));
                    if any == May::TRUE {
                        break;
                    }
                }
                any
            }
            Node::Not(of) => of.in_row(rows, row, words).not(),
            Node::Choice(parts) => {
                let [of, then, otherwise] = &mut **parts;
                match of.in_row(rows, row, words) {
                    May::TRUE => then.in_row(rows, row, words),
                    May::FALSE => otherwise.in_row(rows, row, words),
                    of => of.choose(then.in_row(rows, row, words), otherwise.in_row(rows, row, words)),
                }
            }
            Node::Atom(atom) => atom.in_row(rows, row, words),
        }
    }
}

/// Lets through what a condition may hold for.
#[derive(Debug)]
pub(super) struct ConditionSieve {
    root: Node,
    words: Words,
    paths: bool,
}

impl ConditionSieve {
    /// Of a condition whose types are right.
    pub(super) fn new(expression: &IdedExpr) -> ConditionSieve {
        let mut root = Node::of(expression);
        let mut paths = false;
        root.each(&mut |atom| paths |= atom.asks_for_paths());
        ConditionSieve { root, words: Arc::default(), paths }
    }
}

impl Sieve for ConditionSieve {
    fn enter(&mut self, words: &Words) {
        self.words = Arc::clone(words);
        self.root.each(&mut |atom| atom.enter(words));
    }

    fn may_be_in(&self, block: &Inside<'_>) -> bool {
        self.root.in_block(block) != May::FALSE
    }

    fn judge(&mut self, rows: &View<'_>, row: usize) -> Judged {
        self.root.in_row(rows, row, &self.words).judged()
    }

    fn asks_for_paths(&self) -> bool {
        self.paths
    }
}
