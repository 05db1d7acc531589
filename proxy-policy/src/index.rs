//! Which rules of a long list can match a path: found by the segments of the path, not by trying each.
//!
//! A tree over the first segments of the patterns: literal segments are looked up, `*` is a branch of its own, and what
//! begins with anything else at some depth (`**`, `a-*`) stays in the node there and is tried one by one. The tree only
//! leaves out what cannot match; whether a rule matches is always asked of the rule.

use std::borrow::Cow;
use std::collections::HashMap;

use foldhash::fast::RandomState;

use crate::decide::Call;
use crate::operation::{Lead, Operation};
use crate::path::escape;

/// Lists up to this length are tried one by one.
const SHORT: usize = 8;
/// Segments that the tree looks at.
const DEPTH: usize = 8;
/// Bytes of a segment that is spelled anew without an allocation.
const USUAL: usize = 128;

/// An index of one list of rules.
#[derive(Clone, Debug)]
pub(crate) struct Index {
    /// None: the list is short.
    tree: Option<Node>,
    length: usize,
    denies: bool,
}

#[derive(Clone, Debug, Default)]
struct Node {
    /// Rules that end here or go on with what is not looked up; ascending.
    rules: Vec<u32>,
    literal: HashMap<Box<[u8]>, Node, RandomState>,
    star: Option<Box<Node>>,
}

impl Index {
    pub(crate) fn of_allows<'o>(operations: impl ExactSizeIterator<Item = &'o Operation>) -> Self {
        Self::build(operations, false)
    }

    /// Denies match as forgiving servers read: in small letters, without parameters, with or without a slash at the end.
    pub(crate) fn of_denies<'o>(operations: impl ExactSizeIterator<Item = &'o Operation>) -> Self {
        Self::build(operations, true)
    }

    fn build<'o>(operations: impl ExactSizeIterator<Item = &'o Operation>, denies: bool) -> Self {
        let length = operations.len();
        if length <= SHORT {
            return Self { tree: None, length, denies };
        }
        let mut tree = Node::default();
        for (number, operation) in (0..).zip(operations) {
            let mut node = &mut tree;
            for lead in operation.leads(denies).into_iter().take(DEPTH) {
                node = match lead {
                    Lead::Literal(bytes) => node.literal.entry(bytes).or_default(),
                    Lead::Star => node.star.get_or_insert_default(),
                };
            }
            node.rules.push(number);
        }
        Self { tree: Some(tree), length, denies }
    }

    /// The first rule at or after `from` that matches.
    pub(crate) fn find<'o>(
        &self,
        from: usize,
        call: &Call<'_>,
        operation: impl Fn(usize) -> Option<&'o Operation>,
    ) -> Option<usize> {
        let matches = |at: usize| {
            operation(at).is_some_and(|operation| match self.denies {
                true => operation.denies(call.kind, call.method, call.path),
                false => operation.allows(call.kind, call.method, call.path),
            })
        };
        let Some(tree) = &self.tree else { return (from..self.length).find(|at| matches(*at)) };
        let mut best = None;
        let path = call.path.as_str();
        let segments = path.strip_prefix('/').map(|path| match self.denies {
            true => path.strip_suffix('/').unwrap_or(path),
            false => path,
        });
        self.visit(tree, segments, from, &matches, &mut best);
        best
    }

    fn visit(
        &self,
        node: &Node,
        path: Option<&str>,
        from: usize,
        matches: &impl Fn(usize) -> bool,
        best: &mut Option<usize>,
    ) {
        let start = node.rules.partition_point(|rule| (*rule as usize) < from);
        for rule in node.rules.iter().skip(start).map(|rule| *rule as usize) {
            if best.is_some_and(|best| best <= rule) {
                break;
            }
            if matches(rule) {
                *best = Some(rule);
                break;
            }
        }
        let Some(path) = path else { return };
        let (segment, rest) = match path.split_once('/') {
            Some((segment, rest)) => (segment, Some(rest)),
            None => (path, None),
        };
        if !node.literal.is_empty()
            && let Some(next) = node.literal.get(&*self.key(segment, &mut [0; USUAL]))
        {
            self.visit(next, rest, from, matches, best);
        }
        if let Some(next) = &node.star {
            self.visit(next, rest, from, matches, best);
        }
    }

    /// A segment as the tree spells it: decoded; for denies without parameters and in small letters. Nothing is allocated for
    /// segments of usual length.
    fn key<'s>(&self, segment: &'s str, buffer: &'s mut [u8; USUAL]) -> Cow<'s, [u8]> {
        let bytes = segment.as_bytes();
        let plain =
            |byte: &u8| *byte != b'%' && !(self.denies && (byte.is_ascii_uppercase() || *byte == b';'));
        if bytes.iter().all(plain) {
            return Cow::Borrowed(bytes);
        }
        let mut at = 0;
        let decoded = std::iter::from_fn(|| {
            let found = escape(bytes, at);
            let byte = found.or_else(|| bytes.get(at).copied())?;
            at += if found.is_some() { 3 } else { 1 };
            Some(if self.denies { byte.to_ascii_lowercase() } else { byte })
        });
        let decoded = decoded.take_while(|byte| !self.denies || *byte != b';');
        if bytes.len() > USUAL {
            return Cow::Owned(decoded.collect());
        }
        let mut length = 0;
        for (to, byte) in buffer.iter_mut().zip(decoded) {
            *to = byte;
            length += 1;
        }
        Cow::Borrowed(buffer.get(..length).unwrap_or_default())
    }
}
