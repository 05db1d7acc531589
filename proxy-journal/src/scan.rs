//! Reads what calls are looked for by from a line as this version writes it, without a parser that takes all of JSON: indexing a segment
//! reads each line once. Whatever is not written so is left to that parser; what both take means the same.

use std::borrow::Cow;

use crate::brief::{Brief, BriefRule, BriefWorkload, Text};

/// Objects and arrays in each other; what is deeper is left to the parser.
const DEEPEST: u8 = 8;

/// The members of a record's object that follow its envelope (`"kind":…,…`, without the hash). `None`: ask the parser.
pub(crate) fn brief(members: &str) -> Option<Brief<'_>> {
    // No string may have one. Asked of all bytes at once, without a branch for each.
    if members.bytes().fold(false, |found, byte| found | (byte < b' ')) {
        return None;
    }
    let mut scan = Scan { text: members, at: 0 };
    let (mut brief, mut kind) = (Brief::of_kind(Cow::Borrowed("")), None);
    let (mut observed, mut interrupted, mut sent, mut received) = (None, None, None, None);
    loop {
        match scan.key()? {
            "kind" => once(&mut kind, scan.text()?)?,
            "id" => once(&mut brief.id, scan.text()?)?,
            "identity" => once(&mut brief.identity, scan.text()?)?,
            "api" => once(&mut brief.api, scan.text()?)?,
            "host" => once(&mut brief.host, scan.text()?)?,
            "method" => once(&mut brief.method, scan.text()?)?,
            "path" => once(&mut brief.path, scan.text()?)?,
            "reason" => once(&mut brief.reason, scan.text()?)?,
            "credential" => once(&mut brief.credential, scan.text()?)?,
            "verdict" => once(&mut brief.verdict, scan.text()?)?,
            "rule" => once(&mut brief.rule, scan.rule()?)?,
            "workload" => once(&mut brief.workload, scan.workload()?)?,
            "status" => once(&mut brief.status, scan.number()?.try_into().ok()?)?,
            "duration_us" => once(&mut brief.duration_us, scan.number()?)?,
            "error" => once(&mut brief.error, scan.something()?)?,
            "observed" => once(&mut observed, scan.truth()?)?,
            "interrupted" => once(&mut interrupted, scan.truth()?)?,
            "bytes_sent" => once(&mut sent, scan.number()?)?,
            "bytes_received" => once(&mut received, scan.number()?)?,
            _ => scan.skip(DEEPEST)?,
        }
        if scan.at == members.len() {
            brief.kind = kind?;
            (brief.observed, brief.interrupted) = (observed.unwrap_or(false), interrupted.unwrap_or(false));
            (brief.bytes_sent, brief.bytes_received) = (sent.unwrap_or(0), received.unwrap_or(0));
            return Some(brief);
        }
        scan.past(b',')?;
    }
}

/// What is said twice is left to the parser.
fn once<T>(to: &mut Option<T>, value: T) -> Option<()> {
    to.replace(value).is_none().then_some(())
}

/// A place in a text. What its methods do not take is `None`; then the place means nothing any more.
struct Scan<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Scan<'a> {
    fn next(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn past(&mut self, byte: u8) -> Option<()> {
        (self.next()? == byte).then(|| self.at += 1)
    }

    fn past_word(&mut self, word: &str) -> Option<()> {
        self.text.get(self.at..)?.starts_with(word).then(|| self.at += word.len())
    }

    /// `"name":`. One with an escape is none that is read: what the scan takes for one spells no letter.
    fn key(&mut self) -> Option<&'a str> {
        let (key, _) = self.string()?;
        self.past(b':').map(|()| key)
    }

    /// What stands between two quotes, and whether anything in it is escaped.
    fn string(&mut self) -> Option<(&'a str, bool)> {
        self.past(b'"')?;
        let (from, mut escaped) = (self.at, false);
        loop {
            self.at += memchr::memchr2(b'"', b'\\', self.text.as_bytes().get(self.at..)?)?;
            let string = self.text.get(from..self.at);
            self.at += 1;
            if self.text.as_bytes().get(self.at - 1) == Some(&b'"') {
                return Some((string?, escaped));
            }
            unescaped(self.next()?)?;
            (escaped, self.at) = (true, self.at + 1);
        }
    }

    fn text(&mut self) -> Option<Text<'a>> {
        let (string, escaped) = self.string()?;
        if !escaped {
            return Some(Text(Cow::Borrowed(string)));
        }
        let (mut text, mut rest) = (String::with_capacity(string.len()), string);
        while let Some((before, after)) = rest.split_once('\\') {
            text.push_str(before);
            text.push(unescaped(*after.as_bytes().first()?)?);
            rest = after.get(1..)?;
        }
        text.push_str(rest);
        Some(Text(Cow::Owned(text)))
    }

    /// A whole number in its one spelling.
    fn number(&mut self) -> Option<u64> {
        let from = self.at;
        let mut number = 0_u64;
        while let Some(digit @ b'0'..=b'9') = self.next() {
            number = number.checked_mul(10)?.checked_add(u64::from(digit - b'0'))?;
            self.at += 1;
        }
        let leading = self.text.as_bytes().get(from) == Some(&b'0');
        match self.at - from {
            0 => None,
            // A fraction or an exponent is not what may follow a value.
            digits => (digits == 1 || !leading).then_some(number),
        }
    }

    fn truth(&mut self) -> Option<bool> {
        match self.past_word("true") {
            Some(()) => Some(true),
            None => self.past_word("false").map(|()| false),
        }
    }

    /// A value that is not `null`.
    fn something(&mut self) -> Option<serde::de::IgnoredAny> {
        if self.next()? == b'n' {
            return None;
        }
        self.skip(DEEPEST).map(|()| serde::de::IgnoredAny)
    }

    fn skip(&mut self, depth: u8) -> Option<()> {
        match self.next()? {
            b'"' => self.string().map(|_| ()),
            b'-' => {
                self.at += 1;
                self.number().map(|_| ())
            }
            b'0'..=b'9' => self.number().map(|_| ()),
            b't' | b'f' => self.truth().map(|_| ()),
            b'n' => self.past_word("null"),
            b'{' => self.members(depth, |scan, _, depth| scan.skip(depth)),
            b'[' => self.items(depth),
            _ => None,
        }
    }

    fn items(&mut self, depth: u8) -> Option<()> {
        let depth = depth.checked_sub(1)?;
        self.past(b'[')?;
        if self.past(b']').is_some() {
            return Some(());
        }
        loop {
            self.skip(depth)?;
            if self.past(b']').is_some() {
                return Some(());
            }
            self.past(b',')?;
        }
    }

    /// The members of an object, each value taken by `take`.
    fn members(
        &mut self,
        depth: u8,
        mut take: impl FnMut(&mut Self, &'a str, u8) -> Option<()>,
    ) -> Option<()> {
        let depth = depth.checked_sub(1)?;
        self.past(b'{')?;
        if self.past(b'}').is_some() {
            return Some(());
        }
        loop {
            let key = self.key()?;
            take(self, key, depth)?;
            if self.past(b'}').is_some() {
                return Some(());
            }
            self.past(b',')?;
        }
    }

    fn rule(&mut self) -> Option<BriefRule<'a>> {
        let (mut file, mut line) = (None, None);
        self.members(DEEPEST, |scan, key, depth| match key {
            "file" => once(&mut file, scan.text()?),
            "line" => once(&mut line, scan.number()?.try_into().ok()?),
            _ => scan.skip(depth),
        })?;
        Some(BriefRule { file: file?, line: line? })
    }

    fn workload(&mut self) -> Option<BriefWorkload<'a>> {
        let (mut unit, mut exe, mut uid, mut pid) = (None, None, None, None);
        self.members(DEEPEST, |scan, key, depth| match key {
            "unit" => once(&mut unit, scan.text()?),
            "exe" => once(&mut exe, scan.text()?),
            "uid" => once(&mut uid, scan.number()?.try_into().ok()?),
            "pid" => once(&mut pid, scan.number()?.try_into().ok()?),
            _ => scan.skip(depth),
        })?;
        Some(BriefWorkload { unit, exe, uid, pid })
    }
}

/// What stands after a backslash, in the spellings of one letter.
fn unescaped(letter: u8) -> Option<char> {
    Some(match letter {
        b'"' => '"',
        b'\\' => '\\',
        b'/' => '/',
        b'b' => '\u{8}',
        b'f' => '\u{c}',
        b'n' => '\n',
        b'r' => '\r',
        b't' => '\t',
        _ => return None,
    })
}

#[cfg(test)]
#[path = "scan_tests.rs"]
mod tests;
