//! The parts of a condition that are true or false by themselves, each by what of an index tells it with the least work.

use std::collections::HashMap;
use std::sync::Arc;

use cel::Value;
use cel::common::ast::{CallExpr, Expr, IdedExpr};
use chrono::{DateTime, FixedOffset};
use proxy_journal::archive::{Inside, View, Words};
use proxy_journal::{Ruling, Timestamp, index};
use uuid::Uuid;

use super::may::May;
use super::number::{Comparison, Quantity, Relation};
use super::text::Test;
use super::{evaluated, uses};

/// What is remembered of one part at most.
const MOST_KNOWN: usize = 1 << 16;

/// Characters of an id as it is shown of which an index has the bytes, with the hyphen after them.
const BEGINNING: usize = 19;

/// How many variables what is remembered may hang on.
const MOST_KEYS: usize = 4;

/// Up to so many words of a column are all tried before its rows are read.
const MOST_WORDS: usize = 4096;

/// A part of a condition.
#[derive(Debug)]
pub(super) enum Atom {
    /// The same for all.
    Constant(May),
    /// On the word of one column.
    Word(OnWord),
    /// On a few things that are the same in many rows: what came out is remembered.
    Few(Remembered),
    /// On numbers, of which some are known only within bounds; whether the length of the path is one of them.
    Numbers(Comparison, bool),
    /// On when it was.
    Clock(Relation, DateTime<FixedOffset>),
    /// On the day or the hour: the same for all times of a minute, or second.
    Calendar(Calendar),
    /// On the path.
    Path(Test),
    /// On the id, of which there is the beginning.
    Id(Test),
    /// On what is in an index, but hard to tell: by CEL, for each row.
    Exact(Arc<IdedExpr>, Vec<Source>),
    /// On what is in lines alone.
    Line,
}

/// Where the value of a variable stands in an index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Source {
    Column(&'static str, usize),
    Verdict,
    Error,
    Interrupted,
    Number(&'static str, Quantity),
    Time,
    Path,
}

impl Source {
    /// Of a variable; `None` for those that are in lines alone.
    fn named(name: &'static str) -> Option<Source> {
        let column = match name {
            "api" => index::API,
            "credential" => index::CREDENTIAL,
            "exe" => index::EXE,
            "host" => index::HOST,
            "identity" => index::IDENTITY,
            "kind" => index::KIND,
            "method" => index::METHOD,
            "reason" => index::REASON,
            "rule" => index::RULE,
            "unit" => index::UNIT,
            "verdict" => return Some(Source::Verdict),
            "error" => return Some(Source::Error),
            "interrupted" => return Some(Source::Interrupted),
            "time" => return Some(Source::Time),
            "path" => return Some(Source::Path),
            _ => return Quantity::named(name).map(|quantity| Source::Number(name, quantity)),
        };
        Some(Source::Column(name, column))
    }

    fn name(self) -> &'static str {
        match self {
            Source::Column(name, _) | Source::Number(name, _) => name,
            Source::Verdict => "verdict",
            Source::Error => "error",
            Source::Interrupted => "interrupted",
            Source::Time => "time",
            Source::Path => "path",
        }
    }

    /// A number that is the same for the same value, of those that are the same in many rows.
    fn key(self, rows: &View<'_>, row: usize) -> Option<u32> {
        Some(match self {
            Source::Column(_, column) => rows.word(column, row)?.into(),
            Source::Verdict => rows.ruling(row)?.map_or(0, |ruling| ruling as u32),
            Source::Error => rows.error(row).into(),
            Source::Interrupted => rows.interrupted(row).into(),
            Source::Number(_, Quantity::Status) => rows.status(row).unwrap_or(0).into(),
            Source::Number(_, Quantity::Uid) => rows.uid(row)?,
            Source::Number(_, Quantity::Pid) => rows.pid(row)?,
            Source::Number(..) | Source::Time | Source::Path => return None,
        })
    }

    fn is_few(self) -> bool {
        match self {
            Source::Number(_, of) => matches!(of, Quantity::Status | Quantity::Uid | Quantity::Pid),
            Source::Time | Source::Path => false,
            Source::Column(..) | Source::Verdict | Source::Error | Source::Interrupted => true,
        }
    }

    /// Its value, if the index has it exactly.
    fn value(self, rows: &View<'_>, row: usize, words: &Words) -> Option<Value> {
        Some(match self {
            Source::Column(_, column) => match usize::from(rows.word(column, row)?).checked_sub(1) {
                Some(at) => Value::from(words.get(column)?.get(at)?.as_str()),
                None => Value::from(""),
            },
            Source::Verdict => Value::from(rows.ruling(row)?.map_or("", Ruling::word)),
            Source::Error => Value::Bool(rows.error(row)),
            Source::Interrupted => Value::Bool(rows.interrupted(row)),
            Source::Number(_, quantity) => quantity.value(rows, row)?,
            Source::Time => Value::Timestamp(super::moment(rows.time(row))),
            Source::Path => Value::from(rows.path(row)?),
        })
    }
}

impl Atom {
    /// Of a part of a condition.
    pub(super) fn of(expression: &IdedExpr) -> Atom {
        let names = uses(expression);
        let expression = Arc::new(expression.clone());
        if names.iter().eq(&["id"]) {
            return Atom::Id(Test::of(&expression, "id"));
        }
        let Some(sources) = names.iter().map(|name| Source::named(name)).collect::<Option<Vec<_>>>() else {
            return Atom::Line;
        };
        match sources.as_slice() {
            [] => Atom::Constant(come_to(&expression, [])),
            [Source::Column(name, column)] => Atom::Word(OnWord {
                column: *column,
                test: Test::of(&expression, name),
                may: Vec::new(),
                bits: [May::ANY; 64],
            }),
            [Source::Path] => match Comparison::of(&expression) {
                Some(of_size) => Atom::Numbers(of_size, true),
                None => Atom::Path(Test::of(&expression, "path")),
            },
            [Source::Time] => match clock(&expression) {
                Some((relation, time)) => Atom::Clock(relation, time),
                None => {
                    Calendar::of(&expression).map_or_else(|| Atom::Exact(expression, sources), Atom::Calendar)
                }
            },
            few if few.len() <= MOST_KEYS && few.iter().all(|source| source.is_few()) => {
                Atom::Few(Remembered { expression, sources, known: HashMap::new(), last: None })
            }
            _ => match Comparison::of(&expression) {
                Some(comparison) => Atom::Numbers(comparison, sources.contains(&Source::Path)),
                None => Atom::Exact(expression, sources),
            },
        }
    }

    /// What tells more the less work comes first.
    pub(super) fn cost(&self) -> u8 {
        match self {
            Atom::Constant(_) => 0,
            Atom::Word(_) => 1,
            Atom::Few(_) => 2,
            Atom::Numbers(_, false) | Atom::Clock(..) => 3,
            Atom::Calendar(_) | Atom::Id(_) => 4,
            Atom::Path(Test::Any(..)) => 6,
            Atom::Path(_) | Atom::Numbers(_, true) => 5,
            Atom::Exact(..) => 7,
            Atom::Line => 8,
        }
    }

    /// Whether it looks at paths.
    pub(super) fn asks_for_paths(&self) -> bool {
        match self {
            Atom::Path(_) | Atom::Numbers(_, true) => true,
            Atom::Exact(_, sources) => sources.contains(&Source::Path),
            _ => false,
        }
    }

    /// Rows with these words follow.
    pub(super) fn enter(&mut self, words: &Words) {
        match self {
            Atom::Word(on) => on.enter(words),
            Atom::Few(remembered)
                if remembered.sources.iter().any(|source| matches!(source, Source::Column(..))) =>
            {
                remembered.known.clear();
                remembered.last = None;
            }
            _ => {}
        }
    }

    /// What it may come to in any row of a block.
    pub(super) fn in_block(&self, block: &Inside<'_>) -> May {
        match self {
            Atom::Constant(may) => *may,
            Atom::Word(on) => on.in_block(block),
            Atom::Clock(relation, time) => {
                let (first, last) = block.times().into_inner();
                relation.between((super::moment(first), super::moment(last)), (*time, *time))
            }
            _ => May::ANY,
        }
    }

    /// What it may come to in a row.
    pub(super) fn in_row(&mut self, rows: &View<'_>, row: usize, words: &Words) -> May {
        match self {
            Atom::Constant(may) => *may,
            Atom::Word(on) => on.in_row(rows, row, words),
            Atom::Few(remembered) => remembered.in_row(rows, row, words),
            Atom::Numbers(comparison, _) => comparison.in_row(rows, row),
            Atom::Clock(relation, time) => {
                let of = super::moment(rows.time(row));
                relation.between((of, of), (*time, *time))
            }
            Atom::Calendar(calendar) => calendar.at(rows.time(row)),
            Atom::Path(test) => rows.path(row).map_or(May::ANY, |path| test.on(path)),
            Atom::Id(test) => on_id(test, rows.id(row)),
            Atom::Exact(expression, sources) => exactly(expression, sources, rows, row, words),
            Atom::Line => May::ANY,
        }
    }
}

fn on_id(test: &Test, first: u64) -> May {
    if first == 0 {
        return May::ANY;
    }
    let mut buffer = Uuid::encode_buffer();
    let text: &str = Uuid::from_u64_pair(first, 0).hyphenated().encode_lower(&mut buffer);
    test.on_beginning(text.get(..BEGINNING).unwrap_or_default())
}

fn come_to<const N: usize>(expression: &IdedExpr, values: [(&'static str, Value); N]) -> May {
    May::of(match evaluated(expression, values) {
        Some(Value::Bool(holds)) => Some(holds),
        _ => None,
    })
}

fn exactly(expression: &IdedExpr, sources: &[Source], rows: &View<'_>, row: usize, words: &Words) -> May {
    let values = sources.iter().map(|source| Some((source.name(), source.value(rows, row, words)?)));
    let Some(values) = values.collect::<Option<Vec<_>>>() else { return May::ANY };
    May::of(match evaluated(expression, values) {
        Some(Value::Bool(holds)) => Some(holds),
        _ => None,
    })
}

/// `time` compared with what is the same for all.
fn clock(expression: &IdedExpr) -> Option<(Relation, DateTime<FixedOffset>)> {
    let Expr::Call(CallExpr { func_name, target: None, args }) = &expression.expr else { return None };
    let (relation, [left, right]) = (Relation::named(func_name)?, args.as_slice()) else { return None };
    let is_time = |side: &IdedExpr| matches!(&side.expr, Expr::Ident(name) if name == "time");
    let (relation, other) = match (is_time(left), is_time(right)) {
        (true, false) => (relation, right),
        (false, true) => (relation.turned(), left),
        _ => return None,
    };
    match evaluated(other, [])? {
        Value::Timestamp(time) => Some((relation, time)),
        _ => None,
    }
}

/// On the word of a column: what it comes to for each word is found out once.
#[derive(Debug)]
pub(super) struct OnWord {
    column: usize,
    test: Test,
    /// For where there is none, and for each word; nothing where there are too many.
    may: Vec<May>,
    /// For all words that have a bit in common.
    bits: [May; 64],
}

impl OnWord {
    fn enter(&mut self, words: &Words) {
        self.may.clear();
        self.bits = [May::ANY; 64];
        let Some(words) = words.get(self.column).filter(|words| words.len() <= MOST_WORDS) else { return };
        let all = std::iter::once("").chain(words.iter().map(String::as_str));
        self.may.extend(all.map(|word| self.test.on(word)));
        self.bits = [May::NOTHING; 64];
        for (number, may) in self.may.iter().enumerate() {
            if let Some(bits) = self.bits.get_mut(number % 64) {
                *bits = bits.or_else(*may);
            }
        }
        // What is in no dictionary.
        if let Some(bits) = self.bits.get_mut(usize::from(index::OTHER) % 64) {
            *bits = May::ANY;
        }
    }

    fn in_block(&self, block: &Inside<'_>) -> May {
        let Some(there) = block.words(self.column) else { return May::ANY };
        let bits = (0..64).zip(self.bits).filter(|(bit, _)| there & (1 << bit) != 0);
        bits.fold(May::NOTHING, |all, (_, may)| all.or_else(may))
    }

    fn in_row(&self, rows: &View<'_>, row: usize, words: &Words) -> May {
        let Some(number) = rows.word(self.column, row).map(usize::from) else { return May::ANY };
        if let Some(may) = self.may.get(number) {
            return *may;
        }
        let word = number.checked_sub(1).and_then(|at| words.get(self.column)?.get(at));
        word.map_or(May::ANY, |word| self.test.on(word))
    }
}

/// On a few things: what came out for which of them.
#[derive(Debug)]
pub(super) struct Remembered {
    expression: Arc<IdedExpr>,
    sources: Vec<Source>,
    known: HashMap<[u32; MOST_KEYS], May>,
    last: Option<([u32; MOST_KEYS], May)>,
}

impl Remembered {
    fn in_row(&mut self, rows: &View<'_>, row: usize, words: &Words) -> May {
        let mut key = [0; MOST_KEYS];
        for (number, source) in key.iter_mut().zip(&self.sources) {
            let Some(known) = source.key(rows, row) else { return May::ANY };
            *number = known;
        }
        if let Some((last, may)) = self.last
            && last == key
        {
            return may;
        }
        if self.known.len() >= MOST_KNOWN {
            self.known.clear();
        }
        let (expression, sources) = (&self.expression, &self.sources);
        let may = *self.known.entry(key).or_insert_with(|| exactly(expression, sources, rows, row, words));
        self.last = Some((key, may));
        may
    }
}

/// On `time` by nothing but its year, month, day, hour, minute and second.
#[derive(Debug)]
pub(super) struct Calendar {
    expression: Arc<IdedExpr>,
    /// In this many microseconds nothing of it changes.
    step: u64,
    known: HashMap<u64, May>,
    last: Option<(u64, May)>,
}

impl Calendar {
    fn of(expression: &Arc<IdedExpr>) -> Option<Calendar> {
        let mut step = 60_000_000;
        by_calendar(expression, &mut step).then(|| Calendar {
            expression: Arc::clone(expression),
            step,
            known: HashMap::new(),
            last: None,
        })
    }

    fn at(&mut self, time: Timestamp) -> May {
        let of = time.micros() / self.step;
        if let Some((last, may)) = self.last
            && last == of
        {
            return may;
        }
        if self.known.len() >= MOST_KNOWN {
            self.known.clear();
        }
        let expression = &self.expression;
        let come_to = || come_to(expression, [("time", Value::Timestamp(super::moment(time)))]);
        let may = *self.known.entry(of).or_insert_with(come_to);
        self.last = Some((of, may));
        may
    }
}

/// Whether `time` stands in it only before `.getHours()` and its like; how long what they say stays the same.
fn by_calendar(expression: &IdedExpr, step: &mut u64) -> bool {
    match &expression.expr {
        Expr::Ident(_) => false,
        Expr::List(list) => list.elements.iter().all(|element| by_calendar(element, step)),
        Expr::Call(call) => {
            let of_time = call
                .target
                .as_deref()
                .is_some_and(|target| matches!(&target.expr, Expr::Ident(name) if name == "time"));
            if of_time && call.func_name.starts_with("get") {
                // Some places had clocks that were not apart by whole minutes.
                if call.func_name == "getSeconds" || !call.args.is_empty() {
                    *step = 1_000_000;
                }
                return call.args.iter().all(|arg| by_calendar(arg, step));
            }
            call.target.iter().map(|target| &**target).chain(&call.args).all(|part| by_calendar(part, step))
        }
        Expr::Literal(_) => true,
        _ => false,
    }
}
